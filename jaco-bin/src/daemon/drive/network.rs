//! Network: keeps the engine networks and bridges that replicas of this node need, and removes
//! those that none needs any more. New ones are made on the way to a container's start.

use std::sync::Arc;
use std::time::Duration;

use jaco_core::node::bridges::{self, Action};

use super::{Member, SAFETY_TICK};

/// After a step that failed.
const RETRY: Duration = Duration::from_millis(500);

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    member.recovered().await;
    let mut settled = None;
    loop {
        let state = member.state();
        let needed = bridges::desired(&state, &member.name);
        let mut limit = SAFETY_TICK;
        if settled.as_ref() != Some(&needed) {
            if reconcile(&member).await {
                settled = Some(needed);
            } else {
                limit = RETRY;
            }
        }
        if tokio::time::timeout(limit, member.consensus.applied_after(state.index))
            .await
            .is_err()
        {
            // The safety tick looks at what is there even though nothing else is wanted.
            settled = None;
        }
    }
}

/// True when nothing is left to do.
async fn reconcile(member: &Member) -> bool {
    let _alone = member.bridge_use.write().await;
    let observed = match member.bridges.observe(&member.cluster).await {
        Ok(observed) => observed,
        Err(error) => {
            tracing::debug!(subsystem = "network", %error, "list engine networks");
            return false;
        }
    };
    let desired = bridges::desired(&member.state(), &member.name);
    let mut done = true;
    for action in bridges::diff(&desired, &observed) {
        if let Action::Remove(name) = &action
            && let Err(error) = member.bridges.remove(name).await
        {
            tracing::debug!(subsystem = "network", ?action, %error, "network step failed");
            done = false;
        }
    }
    for bridge in desired.values() {
        if let Err(error) = member.ensure_bridge(bridge).await {
            tracing::debug!(subsystem = "network", ?bridge.interface, %error, "prepare bridge");
            done = false;
        }
    }
    done
}
