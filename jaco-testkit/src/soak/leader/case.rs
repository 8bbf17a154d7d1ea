//! The steps of a rollout at which a leader can die, and how each is recognised.

use std::collections::BTreeSet;
use std::fmt;

use jaco_core::cluster::deployment::ReplicaState;
use jaco_core::id::ReplicaId;
use jaco_core::view::replica::ReplicaRow;
use jaco_core::view::status::{DeploymentStatus, Status};

/// Which goes first, the new replica or the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Order {
    StartFirst,
    StopFirst,
}

/// What a rollout is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A new replica is recorded and has no container yet.
    Placed,
    /// Its container is there and does not serve yet.
    Started,
    /// An old replica is out of routing, and not every node has said so.
    Barrier,
    /// The old replica's container has its signal and has not ended.
    Stopping,
    /// The new replica serves and has yet to prove itself.
    Monitor,
    /// The new revision has failed and the old one is on its way back.
    RollingBack,
}

/// One death: in which kind of rollout, at which moment, of which of its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Case {
    pub order: Order,
    pub moment: Moment,
    /// Counted from 0 in the order in which the replicas come.
    pub replica: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (order, moment) = (self.order, self.moment);
        write!(f, "{order:?}/{moment:?}/{}", self.replica)
    }
}

impl Order {
    /// As compose says it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Order::StartFirst => "start-first",
            Order::StopFirst => "stop-first",
        }
    }
}

impl Case {
    /// Every kind of death, each at another replica than the last time round, for ever.
    pub fn all() -> impl Iterator<Item = Case> {
        use Moment::{Barrier, Monitor, Placed, RollingBack, Started, Stopping};
        let moments = [Placed, Started, Barrier, Stopping, Monitor, RollingBack];
        let orders = [Order::StartFirst, Order::StopFirst];
        (0..).flat_map(move |round| {
            let of_moment = move |moment| {
                orders.map(|order| Case {
                    order,
                    moment,
                    // A rollout that fails does so with its first replica.
                    replica: if moment == RollingBack { 0 } else { round % 3 },
                })
            };
            moments.into_iter().flat_map(of_moment)
        })
    }

    /// True when the new revision is one that does not run.
    pub(super) fn fails(self) -> bool {
        self.moment == Moment::RollingBack
    }

    /// True when the moment is too short to be met by chance: a node that says nothing makes
    /// it last.
    pub(super) fn needs_silence(self) -> bool {
        matches!(self.moment, Moment::Barrier | Moment::Stopping)
    }
}

/// What was seen of one rollout so far.
pub(super) struct Progress {
    case: Case,
    /// The revision before it.
    before: u64,
    drained: BTreeSet<ReplicaId>,
}

impl Progress {
    pub(super) fn new(case: Case, before: u64) -> Self {
        Self {
            case,
            before,
            drained: BTreeSet::new(),
        }
    }

    /// Takes in the next status.
    pub(super) fn see(&mut self, status: &Status) {
        let drained = status.replicas.iter().filter(|row| is_draining(row));
        let began = self.has_begun(status);
        let drained = drained.filter(|_| began).map(|row| row.id.clone());
        self.drained.extend(drained);
    }

    fn has_begun(&self, status: &Status) -> bool {
        let row = status.deployments.first();
        row.is_some_and(|row| row.applied_revision > self.before)
    }

    fn new_row<'a>(&self, status: &'a Status, number: usize) -> Option<&'a ReplicaRow> {
        let new = status.replicas.iter().filter(|row| !row.outgoing);
        new.filter(|_| self.has_begun(status)).nth(number)
    }

    /// True when the node that is to say nothing must fall silent now.
    pub(super) fn wants_silence(&self, status: &Status) -> bool {
        let runs = |number| {
            let row = self.new_row(status, number);
            row.is_some_and(|row| row.state == ReplicaState::Running)
        };
        let before = match (self.case.order, self.case.replica) {
            (Order::StartFirst, number) => Some(number),
            (Order::StopFirst, number) => number.checked_sub(1),
        };
        self.case.needs_silence() && before.is_none_or(runs)
    }

    /// The replica at whose moment the leader is to die, once that has come. For
    /// [`Moment::Stopping`] it is the one that is about to get its signal.
    pub(super) fn reached<'a>(&self, status: &'a Status) -> Option<&'a ReplicaRow> {
        let new = self.new_row(status, self.case.replica);
        match self.case.moment {
            Moment::Placed => new.filter(|row| row.container_id.is_none()),
            Moment::Started => {
                new.filter(|row| row.container_id.is_some() && row.state == ReplicaState::Starting)
            }
            Moment::Monitor => new.filter(|row| row.state == ReplicaState::Running),
            Moment::Barrier | Moment::Stopping => {
                let enough = self.drained.len() > self.case.replica;
                let mut draining = status.replicas.iter().filter(|row| is_draining(row));
                draining.next().filter(|_| enough)
            }
            Moment::RollingBack => {
                let row = status.deployments.first()?;
                let back = row.status == DeploymentStatus::RollingBack;
                status.replicas.first().filter(|_| back)
            }
        }
    }
}

fn is_draining(row: &ReplicaRow) -> bool {
    row.state == ReplicaState::Draining
}
