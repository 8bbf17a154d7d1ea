//! Placement: which node takes the next replica, and why not the others (spec 05, Placement).
//!
//! Invariants (`tests/placement_props.rs`): only eligible nodes are chosen; `spread` keeps the
//! counts of a service within one of each other while capacity allows; `hosts` puts at most
//! one replica on a host; no node's reservations exceed its capacity; equal input gives equal
//! output.

mod filter;
mod place;
mod score;
mod usage;

pub use filter::{Rejection, reject};
pub(super) use filter::{standing, stands_alike};
pub use place::{Demand, place};
pub(super) use place::{is_misplaced, place_at, verdicts};
pub use usage::Cluster;
