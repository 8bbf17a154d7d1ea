//! The leader's decisions: `plan(state, now)` gives the steps of one raft entry (spec 05).

pub mod explain;
pub mod placement;
pub mod plan;
pub mod restart;
mod service;
mod settled;

pub use plan::plan;
