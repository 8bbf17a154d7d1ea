//! Ingress: publishes this node's route table whenever it differs.

use std::sync::Arc;

use jaco_core::node::ingress;

use super::{Member, SAFETY_TICK};

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    let mut published = None;
    loop {
        let state = member.state();
        let table = Arc::new(ingress::table(&state, &member.name));
        if published.as_ref() != Some(&table) {
            member.ingress.publish(Arc::clone(&table));
            published = Some(table);
        }
        member.published.ingress.send_replace(state.index);
        for (address, reason) in member.ingress.failed_listeners() {
            tracing::error!(subsystem = "ingress", address, reason, "cannot listen");
        }
        member.woken(state.index, SAFETY_TICK).await;
    }
}
