//! Tells the cluster which state's routes, names and challenges this node serves, when something
//! waits for that (spec 05, Drain barrier; spec 08, Certificates).

use std::sync::Arc;
use std::time::Duration;

use jaco_core::certs;
use jaco_core::cluster::{ClusterState, Command};
use jaco_core::id::NodeName;
use jaco_core::scheduler::barrier;
use tokio::sync::watch;

use super::{Member, SAFETY_TICK};

/// A report that was not committed is made again after this.
const AGAIN: Duration = Duration::from_millis(200);

/// The newest index that each front end of this node has taken in.
#[derive(Default)]
pub(in crate::daemon) struct Published {
    pub(super) ingress: watch::Sender<u64>,
    pub(super) dns: watch::Sender<u64>,
}

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    let mut ingress = member.published.ingress.subscribe();
    let mut dns = member.published.dns.subscribe();
    loop {
        let state = member.state();
        let Some(owed) = owed(&state, &member.name) else {
            member.woken(state.index, SAFETY_TICK).await;
            continue;
        };
        let reached = |index: &u64| *index >= owed;
        // The senders live as long as the member.
        let _ = ingress.wait_for(reached).await.is_ok();
        let _ = dns.wait_for(reached).await.is_ok();
        let node = member.name.clone();
        let command = Command::Published { node, index: owed };
        member.report(command).await;
        if self::owed(&member.state(), &member.name) == Some(owed) {
            member.woken(member.state().index, AGAIN).await;
        }
    }
}

/// The newest index that anything waits for.
fn owed(state: &ClusterState, node: &NodeName) -> Option<u64> {
    barrier::owed(state, node).max(certs::owed(state, node))
}
