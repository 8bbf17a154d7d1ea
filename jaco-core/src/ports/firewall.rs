//! The packet filter of this host (spec 07, Isolation).

use async_trait::async_trait;

use super::HostError;
use crate::node::firewall::Ruleset;

/// One table of the kernel's packet filter. Every call may be repeated.
#[async_trait]
pub trait Firewall: Send + Sync + 'static {
    /// Replaces the table whole, in one transaction: all of it, or nothing.
    async fn replace(&self, ruleset: &Ruleset) -> Result<(), HostError>;

    /// The table as the kernel has it; empty when there is none.
    async fn observe(&self) -> Result<Ruleset, HostError>;

    /// Waits until something in the packet filter was changed, by whomever. Where changes are
    /// not told it never returns; callers look from time to time anyway.
    async fn changed(&self);
}
