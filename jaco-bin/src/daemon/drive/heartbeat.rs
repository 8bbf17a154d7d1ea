//! Heartbeat: tells the cluster what this node and its engine are, whenever that changes.

use std::sync::Arc;
use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::cluster::node::NodeReport;

use super::{HostFacts, Member};

/// A host whose network does not come up in this time is reported as it is.
const FACTS_LIMIT: Duration = Duration::from_secs(5);

const INTERVAL: Duration = Duration::from_secs(2);

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    let mut facts = member.facts.subscribe();
    // A daemon that starts again would else be taken for one without a mesh for a moment.
    let known = facts.wait_for(HostFacts::are_known);
    let _ = tokio::time::timeout(FACTS_LIMIT, known).await.is_ok();
    loop {
        let engine = match member.runtime.describe().await {
            Ok(engine) => Some(engine),
            Err(error) => {
                tracing::debug!(subsystem = "runtime", %error, "the engine does not answer");
                None
            }
        };
        let known_facts = facts.borrow_and_update().clone();
        let report = NodeReport {
            engine,
            labels: member.config.node_labels.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mesh: known_facts.mesh,
            isolation: known_facts.isolation,
            key_hash: member.key_hash.clone(),
            workloads: member.config.workloads.allowed(),
        };
        let state = member.state();
        let known = state.nodes.get(&member.name);
        if known.is_some_and(|node| node.report.as_ref() != Some(&report)) {
            let node = member.name.clone();
            member.report(Command::NodeReport { node, report }).await;
        }
        let limit = if known.is_some() {
            INTERVAL
        } else {
            Duration::from_millis(200)
        };
        let _ = tokio::time::timeout(limit, facts.changed()).await;
    }
}
