//! The replicated state and the only function that changes it (spec 04).

pub mod addresses;
pub mod admission;
pub mod apply;
pub mod attempts;
pub mod audit;
pub mod certs;
pub mod command;
pub mod deployment;
pub mod members;
pub mod mesh_pool;
pub mod node;
pub mod recover;
pub mod rollout;
pub mod state;
pub mod token;
pub mod usage;
pub mod voters;

pub use apply::apply;
pub use command::{Applied, Command, Entry, Outcome, Proposal};
pub use state::ClusterState;
