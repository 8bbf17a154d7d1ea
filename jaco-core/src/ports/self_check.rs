//! What a node offers the other members when the network is checked.

use async_trait::async_trait;

use crate::view::check::CheckRow;

/// Checks this node's network.
#[async_trait]
pub trait SelfCheck: Send + Sync + 'static {
    /// Tries everything once; a row for each thing that was tried.
    async fn check(&self) -> Vec<CheckRow>;
}
