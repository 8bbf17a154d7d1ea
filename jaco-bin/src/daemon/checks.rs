//! The self-test of the network: tries what the core names, and asks the other members.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use jaco_core::node::checks::{self, Check, Seen};
use jaco_core::ports::{HostError, Probe, SelfCheck};
use jaco_core::view::check::CheckRow;

use super::drive::Member;

/// Checks one member's network.
pub(super) struct MemberChecks {
    pub(super) member: Arc<Member>,
    pub(super) probe: Arc<dyn Probe>,
}

#[async_trait]
impl SelfCheck for MemberChecks {
    async fn check(&self) -> Vec<CheckRow> {
        let state = self.member.consensus.snapshot();
        let node = &self.member.name;
        let wanted = checks::desired(&state, node);
        let rows = wanted.iter().map(|check| async move {
            let seen = self.seen(check).await;
            checks::row(node, check, &seen)
        });
        join_all(rows).await
    }
}

impl MemberChecks {
    async fn seen(&self, check: &Check) -> Seen {
        let failed = |error: HostError| Seen::Failed(error.to_string());
        match check {
            Check::Echo { address, size, .. } => {
                let echoed = self.probe.echo(*address, *size).await;
                echoed.map_or_else(failed, |()| Seen::Fine)
            }
            Check::Name { resolver, name, .. } => {
                let found = self.probe.resolve(*resolver, name).await;
                found.map_or_else(failed, Seen::Addresses)
            }
            Check::Isolation => match self.member.isolated().await {
                Ok(()) => Seen::Fine,
                Err(error) => Seen::Failed(error.to_string()),
            },
        }
    }
}
