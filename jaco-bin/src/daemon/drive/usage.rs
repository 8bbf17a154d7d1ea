//! Usage: tells the cluster what this node and its replicas use, every `node_status_interval`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jaco_core::node::containers;
use jaco_core::node::usage::{self, Sample};
use tokio::time::MissedTickBehavior;

use super::Member;

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    let interval = member.config.node_status_interval;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut earlier: Option<Sample> = None;
    loop {
        ticks.tick().await;
        let Some(later) = sample(&member).await else {
            tracing::debug!(subsystem = "runtime", "the kernel tells no counters");
            continue;
        };
        if let Some(earlier) = &earlier {
            let desired = containers::desired(&member.state(), &member.name);
            let told = usage::report(&member.name, &desired, [earlier, &later], interval);
            if let Some(command) = told {
                member.report(command).await;
            }
        }
        earlier = Some(later);
    }
}

async fn sample(member: &Member) -> Option<Sample> {
    let host = member.system.counters()?;
    let at = member.clock.now();
    let desired = containers::desired(&member.state(), &member.name);
    let mut containers = BTreeMap::new();
    // One after the other: a reading takes the engine little, and nobody waits for it.
    for id in usage::measured(&desired) {
        // One that ended meanwhile is left out.
        if let Ok(used) = member.runtime.usage(id).await {
            containers.insert(id.to_owned(), used);
        }
    }
    Some(Sample {
        at,
        host,
        containers,
    })
}
