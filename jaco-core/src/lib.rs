//! Decides how containers run across a cluster. Pure: no IO, no clock, no randomness.
//!
//! Two shapes of code live here. [`cluster::apply()`] changes the replicated state and is called
//! only by the raft state machine; [`scheduler::plan()`] and the derivations of [`node`] read the
//! state and say what should happen. Adapters behind [`ports`] make it happen.

pub mod access;
pub mod certs;
pub mod cluster;
pub mod error;
pub mod id;
pub mod manifest;
pub mod node;
pub mod ports;
pub mod scheduler;
pub mod time;
pub mod view;
