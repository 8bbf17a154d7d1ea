//! Names: what each bridge of a node answers, and to whom (spec 07, DNS).
//!
//! [`zones()`] prepares the tables whenever the state changes; [`Zones::answer`] looks a question
//! up in them.
//!
//! Invariants (`tests/dns_props.rs`): only serving replicas are named; a replica learns no name
//! of another deployment, nor of a network that it is not attached to; every form of a name has
//! the same addresses; what an address is called leads back to it.

mod answer;
mod zone;

pub use answer::{Answer, Kind, Question, TTL};
pub use zone::{Zones, zones};
