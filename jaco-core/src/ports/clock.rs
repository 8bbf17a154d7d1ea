//! The time of day.

use crate::time::Timestamp;

/// Tells the time. May jump either way; the state machine's clock does not follow it back.
pub trait Clock: Send + Sync + 'static {
    /// Now, by this host.
    fn now(&self) -> Timestamp;
}
