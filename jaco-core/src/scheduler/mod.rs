//! The leader's decisions: `plan(state, now)` gives the steps of one raft entry (spec 05).

pub mod barrier;
pub mod drain;
pub mod explain;
pub mod forecast;
pub mod placement;
pub mod plan;
pub mod planner;
mod rebalance;
pub mod restart;
mod rollout;
mod service;
mod settled;
mod wake;

pub use plan::plan;
pub use planner::Planner;
