//! Scheduler: on the leader, from each new state to the next steps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jaco_core::cluster::Command;
use jaco_core::ports::Measured;
use jaco_core::scheduler::{Planner, decide};

use super::{Member, SAFETY_TICK};

/// Changes that come together are planned together.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    let mut led_term = 0;
    let mut planner = Planner::default();
    loop {
        let status = member.consensus.status();
        let mut state = member.state();
        let mut limit = SAFETY_TICK;
        if status.is_leader() {
            if led_term != status.term && present(&member, status.term).await {
                led_term = status.term;
            }
            state = member.state();
            let now = member.clock.now();
            let begun = Instant::now();
            let steps = decide(&mut planner, &state, now);
            if !steps.is_empty() {
                tracing::debug!(subsystem = "scheduler", steps = steps.len(), "planned");
                member.report(Command::Schedule(steps)).await;
            }
            member.meter.record(Measured::Reconcile(begun.elapsed()));
            let due = planner.due(now);
            limit = due.map_or(SAFETY_TICK, |due| due.since(now).min(SAFETY_TICK));
        } else {
            // Leadership changes without a change of the state.
            limit = limit.min(Duration::from_millis(200));
        }
        member.woken(state.index, limit).await;
        tokio::time::sleep(DEBOUNCE).await;
    }
}

/// Commits that this node leads, with the settings that the leader gives.
async fn present(member: &Member, term: u64) -> bool {
    tracing::info!(subsystem = "raft", term, "this node leads");
    let config = &member.config;
    member
        .report(Command::Lead {
            node: member.name.clone(),
            term,
            ipam_pool: config.ipam_pool,
            mesh_pool: config.mesh_pool,
            audit_retention: config.audit_retention,
        })
        .await
}
