//! The leader's decisions: `plan(state, now)` gives the steps of one raft entry (spec 05).

pub mod barrier;
pub mod drain;
pub mod explain;
pub mod floor;
pub mod forecast;
pub mod placement;
pub mod plan;
pub mod planner;
mod pressure;
mod rebalance;
mod relocate;
pub mod restart;
mod rollout;
mod service;
mod settled;
mod wake;

pub use plan::plan;
pub use planner::Planner;

use crate::cluster::command::Step;
use crate::cluster::state::ClusterState;
use crate::time::Timestamp;

/// What the leader commits: the plan, as far as the check of the floor lets it pass.
pub fn decide(planner: &mut Planner, state: &ClusterState, now: Timestamp) -> Vec<Step> {
    floor::guard(state, planner.plan(state, now), now)
}
