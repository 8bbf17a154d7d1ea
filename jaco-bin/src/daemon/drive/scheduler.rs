//! Scheduler: on the leader, from each new state to the next steps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jaco_core::cluster::Command;
use jaco_core::ports::Measured;
use jaco_core::scheduler::{Planner, decide};

use super::{Member, SAFETY_TICK};

/// Changes that come together are planned together.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// How soon a node looks again whether it leads and may plan: neither shows in the state.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    let mut planner = Planner::default();
    // A leader that comes back within its term may lack what it committed itself.
    member.recovered().await;
    loop {
        let status = member.consensus.status();
        let state = member.state();
        let mut limit = LOOK_AGAIN;
        if status.is_leader() && state.led_term != status.term {
            present(&member, status.term).await;
        } else if status.is_leader() {
            let now = member.clock.now();
            let begun = Instant::now();
            let steps = decide(&mut planner, &state, now);
            if !steps.is_empty() {
                tracing::debug!(subsystem = "scheduler", steps = steps.len(), "planned");
                let after = state.index;
                member.decree(Command::Schedule { after, steps }).await;
            }
            member.meter.record(Measured::Reconcile(begun.elapsed()));
            let due = planner.due(now);
            limit = due.map_or(SAFETY_TICK, |due| due.since(now).min(SAFETY_TICK));
        }
        member.woken(state.index, limit).await;
        tokio::time::sleep(DEBOUNCE).await;
    }
}

/// Commits that this node leads, with the settings that the leader gives. Once that is applied, so
/// is everything that was in the log before.
async fn present(member: &Member, term: u64) {
    let config = &member.config;
    tracing::info!(subsystem = "raft", term, "this node leads");
    member
        .decree(Command::Lead {
            node: member.name.clone(),
            term,
            ipam_pool: config.ipam_pool,
            mesh_pool: config.mesh_pool,
            audit_retention: config.audit_retention,
        })
        .await;
}
