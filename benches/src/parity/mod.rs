//! Parity with docker-compose: one compose file on two engines, and what the engines made of it.
//!
//! Nothing about a container is chosen for comparison: all of the engine's `Config` and
//! `HostConfig`, the mounts, the networks and what the container sees of its mounts are laid
//! flat and compared; what differs must be on the list in `docs/reference/parity.md`.

mod inspect;
mod listed;
mod sides;

pub use inspect::{Facts, facts};
pub use listed::{Listed, Row};
pub use sides::{Topic, topics};

use std::collections::BTreeSet;

/// One fact of one service that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `topic/service`.
    pub place: String,
    /// `HostConfig.Init`.
    pub field: String,
    /// What docker-compose's container has, if anything.
    pub theirs: Option<String>,
    /// What ours has.
    pub ours: Option<String>,
}

/// What differs between two containers of one service.
pub fn differences(place: &str, theirs: &Facts, ours: &Facts) -> Vec<Difference> {
    let fields: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let differing = fields
        .into_iter()
        .filter(|field| theirs.get(*field) != ours.get(*field));
    differing
        .map(|field| Difference {
            place: place.to_owned(),
            field: field.clone(),
            theirs: theirs.get(field).cloned(),
            ours: ours.get(field).cloned(),
        })
        .collect()
}
