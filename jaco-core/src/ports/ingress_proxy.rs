//! The proxy that visitors reach (spec 08).

use std::sync::Arc;

use crate::node::ingress::RouteTable;

/// Serves HTTP routes and published TCP ports from a table. Opens listeners that the table
/// needs and closes those it does not.
pub trait IngressProxy: Send + Sync + 'static {
    /// Swaps the table. Connections in flight go on under the one that they began with.
    fn publish(&self, table: Arc<RouteTable>);

    /// Listeners that could not be opened, with the reason, by address.
    fn failed_listeners(&self) -> Vec<(String, String)>;
}
