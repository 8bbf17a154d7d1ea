//! The proxy that visitors reach (spec 08).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::node::ingress::RouteTable;

/// Serves HTTP routes and published TCP ports from a table. Opens listeners that the table
/// needs and closes those it does not.
#[async_trait]
pub trait IngressProxy: Send + Sync + 'static {
    /// Swaps the table. Connections in flight go on under the one that they began with.
    fn publish(&self, table: Arc<RouteTable>);

    /// Listeners that could not be opened, with the reason, by address.
    fn failed_listeners(&self) -> Vec<(String, String)>;

    /// Before the daemon ends: lets the requests under way end, at most for `grace`, then takes
    /// nobody in any more. Where a service manager keeps the sockets, visitors wait in their
    /// queues for the next daemon.
    async fn leave(&self, grace: Duration);
}
