//! DNS: publishes this node's zones whenever they differ.

use std::sync::Arc;

use jaco_core::node::dns;

use super::{Member, SAFETY_TICK};

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    for warning in &member.config.dns_upstreams.warnings {
        tracing::warn!(subsystem = "dns", "{warning}");
    }
    let mut published = None;
    loop {
        let state = member.state();
        let zones = Arc::new(dns::zones(&state, &member.name));
        if published.as_ref() != Some(&zones) {
            member.dns.publish(Arc::clone(&zones));
            published = Some(zones);
        }
        member.published.dns.send_replace(state.index);
        for (address, reason) in member.dns.failed_listeners() {
            tracing::error!(subsystem = "dns", address, reason, "cannot listen");
        }
        member.woken(state.index, SAFETY_TICK).await;
    }
}
