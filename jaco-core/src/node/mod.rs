//! What one node should have, derived from the state; and what to do about the difference.
//!
//! Each module has `desired(state, node)`, and `diff(desired, observed)` where something is to
//! be changed. All are pure and safe to repeat; empty when nothing is to be done.

pub mod advertise;
pub mod balance;
pub mod bridges;
pub mod carrier;
pub mod checks;
pub mod containers;
pub mod dns;
pub mod ending;
pub mod firewall;
pub mod forward;
pub mod gates;
pub mod handshakes;
pub mod health;
pub mod ingress;
pub mod mesh;
pub mod pulls;
pub mod report;
pub mod trust;
pub mod usage;
pub mod workloads;
