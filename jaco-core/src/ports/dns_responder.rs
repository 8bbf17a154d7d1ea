//! The responder that containers ask for names (spec 07, DNS).

use std::sync::Arc;

use crate::node::dns::Zones;

/// Answers on the gateway of every bridge, UDP and TCP. Opens listeners that the zones need and
/// closes those they do not; a bridge need not be up yet.
pub trait DnsResponder: Send + Sync + 'static {
    /// Swaps the zones. A question that waits for an upstream goes on.
    fn publish(&self, zones: Arc<Zones>);

    /// Listeners that could not be opened, with the reason, by address.
    fn failed_listeners(&self) -> Vec<(String, String)>;
}
