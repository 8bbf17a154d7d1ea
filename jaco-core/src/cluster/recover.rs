//! A cluster of one made from what one member has of a cluster whose majority is lost for good
//! (spec 04, Failure).
//!
//! Invariant (`tests/recover_props.rs`): the survivor is the one member left, the lost ones cannot
//! come back under their certificates, and every deployment is at the revision at which it was.

use super::command::Command;
use super::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{MemberId, NodeName};

/// What the survivor is told before it goes on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The cluster's name.
    pub cluster: String,
    /// The survivor.
    pub node: NodeName,
    /// The newest index that it has.
    pub last_index: u64,
    /// The members that are given up, with the `host:port` of their API.
    pub lost: Vec<(NodeName, String)>,
}

impl Recovery {
    /// What is given up when `member` goes on alone with this state.
    ///
    /// # Errors
    /// `cluster_uninitialized` for a state without a cluster, `node_not_found` for a stranger to
    /// it, `validation_failed` when no other member is left.
    pub fn of(state: &ClusterState, member: MemberId) -> Result<Self, Error> {
        let cluster = state.cluster.as_ref().ok_or_else(|| {
            let message = "this node is not part of a cluster yet";
            Error::new(ErrorCode::ClusterUninitialized, message)
        })?;
        let survivor = state.member(member).ok_or_else(|| {
            let message = "this node is no member of the cluster in its own copy of the state";
            Error::new(ErrorCode::NodeNotFound, message).with("members", state.member_names())
        })?;
        let others = state.nodes.values();
        let others = others.filter(|node| node.member != member);
        let lost: Vec<_> = others
            .map(|node| (node.name.clone(), node.api_address.clone()))
            .collect();
        if lost.is_empty() {
            let message = "this node is the only member: there is nothing to recover from";
            return Err(Error::new(ErrorCode::ValidationFailed, message).with("field", "members"));
        }
        Ok(Self {
            cluster: cluster.name.clone(),
            node: survivor.name.clone(),
            last_index: state.index,
            lost,
        })
    }

    /// Takes the confirmation: the newest index, as it was shown.
    ///
    /// # Errors
    /// `validation_failed` for anything else.
    pub fn confirm(&self, answer: &str) -> Result<(), Error> {
        if answer.trim().parse() == Ok(self.last_index) {
            return Ok(());
        }
        let message = "not confirmed: the answer is not the index that was shown";
        Err(Error::new(ErrorCode::ValidationFailed, message)
            .with("field", "confirmation")
            .with("expected", self.last_index))
    }

    /// The commands that leave the survivor alone.
    pub fn commands(&self) -> Vec<Command> {
        let remove = |(node, _): &(NodeName, String)| Command::NodeRemove {
            node: node.clone(),
            force: true,
        };
        self.lost.iter().map(remove).collect()
    }
}
