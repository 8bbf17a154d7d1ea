//! Network: removes engine networks that no replica of this node needs any more. Those that
//! are needed are made on the way to a container's start.

use std::sync::Arc;

use jaco_core::node::bridges::{self, Action};

use super::{Member, SAFETY_TICK};

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    member.recovered().await;
    let mut needed = None;
    loop {
        let index = member.state().index;
        let now_needed: Vec<String> = bridges::desired(&member.state(), &member.name)
            .into_keys()
            .collect();
        if needed.as_ref() != Some(&now_needed) {
            if reconcile(&member).await {
                needed = Some(now_needed);
            } else {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                continue;
            }
        }
        member.woken(index, SAFETY_TICK).await;
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
        let outcome = match &action {
            Action::Ensure(bridge) => member.bridges.ensure(bridge).await,
            Action::Remove(name) => member.bridges.remove(name).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(subsystem = "network", ?action, %error, "network step failed");
            done = false;
        }
    }
    done
}
