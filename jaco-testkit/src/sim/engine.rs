//! A container engine that takes its time and sometimes fails. It outlives the daemon.

use std::collections::{BTreeMap, BTreeSet};

use jaco_core::id::ReplicaId;
use jaco_core::manifest::spec::ServiceKind;
use jaco_core::node::containers::{Action, Desired};
use jaco_core::node::report::{self, Local, Work};
use jaco_core::ports::RuntimeError;
use jaco_core::ports::container_runtime::{ContainerStatus, ObservedContainer, PullProgress};
use jaco_core::time::Timestamp;

use crate::soak::Random;

/// Containers, images, and what is under way.
#[derive(Clone, Debug)]
pub struct Engine {
    /// By the engine's id.
    pub containers: BTreeMap<String, ObservedContainer>,
    /// How many times longer everything takes here.
    pub slowness: u64,
    images: BTreeSet<String>,
    tasks: BTreeMap<ReplicaId, Task>,
    /// When the containers that do not run for ever end.
    ends: BTreeMap<String, u64>,
    made: u64,
}

/// One thing that takes until a step.
#[derive(Clone, Debug)]
struct Task {
    until: u64,
    job: Job,
}

#[derive(Clone, Debug)]
enum Job {
    Pull(Box<Desired>),
    Start(Box<Desired>),
    Remove(String),
}

/// How often things go wrong, in thousandths.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Troubles {
    pub pull: usize,
    pub start: usize,
    pub exit: usize,
    /// A job ends with a failure.
    pub job: usize,
}

/// Nothing goes wrong.
pub const CALM_ENGINE: Troubles = Troubles {
    pull: 0,
    start: 0,
    exit: 0,
    job: 0,
};

/// Now and then something does.
pub const ROUGH_ENGINE: Troubles = Troubles {
    pull: 200,
    start: 60,
    exit: 2,
    job: 300,
};

/// Most jobs take less than this many steps, which is longer than what forgives failures.
const LONG_JOB: usize = 80;

/// The moment, and luck.
#[allow(missing_docs)]
pub struct Moment<'a> {
    pub step: u64,
    pub now: Timestamp,
    pub troubles: Troubles,
    pub random: &'a mut Random,
}

impl Moment<'_> {
    fn strikes(&mut self, thousandths: usize) -> bool {
        self.random.below(1_000) < thousandths
    }

    fn later(&mut self, most: usize, slowness: u64) -> u64 {
        self.step + (1 + self.random.below(most) as u64) * slowness
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            containers: BTreeMap::new(),
            slowness: 1,
            images: BTreeSet::new(),
            tasks: BTreeMap::new(),
            ends: BTreeMap::new(),
            made: 0,
        }
    }
}

impl Engine {
    /// How many containers it has made.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// The id of the container that was made so many-th.
    pub fn id(number: u64) -> String {
        format!("c{number}")
    }

    /// Begins an action unless its replica has work already, as the daemon's driver does.
    pub fn begin(
        &mut self,
        action: Action,
        desired: &BTreeMap<ReplicaId, Desired>,
        local: &mut Local,
        moment: &mut Moment<'_>,
    ) {
        if local.work.contains_key(action.replica()) || self.tasks.contains_key(action.replica()) {
            return;
        }
        match action {
            Action::Remove {
                replica,
                container_id,
            } => {
                let until = moment.later(6, self.slowness);
                let job = Job::Remove(container_id);
                local.work.insert(replica.clone(), Work::Removing);
                self.tasks.insert(replica, Task { until, job });
            }
            Action::Start { replica } => {
                let wanted = &desired[&replica];
                if report::may_start(wanted, local, moment.now) {
                    let (until, job) = (
                        moment.later(10, self.slowness),
                        Job::Pull(Box::new(wanted.clone())),
                    );
                    let pulling = Work::Pulling(PullProgress::default());
                    local.work.insert(replica.clone(), pulling);
                    self.tasks.insert(replica, Task { until, job });
                }
            }
        }
    }

    /// Ends what is due. `local` is absent while no daemon listens.
    pub fn advance(&mut self, local: &mut Local, moment: &mut Moment<'_>) {
        let due = |task: &Task| task.until <= moment.step;
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.tasks)
            .into_iter()
            .partition(|(_, task)| due(task));
        self.tasks = rest.into_iter().collect();
        for (replica, task) in done {
            local.work.remove(&replica);
            match task.job {
                Job::Pull(wanted) => self.pulled(replica, wanted, local, moment),
                Job::Start(wanted) => self.started(replica, &wanted, local, moment),
                Job::Remove(id) => drop(self.containers.remove(&id)),
            }
        }
        self.end_some(moment);
    }

    /// Jobs end when they are done, others when they are out of luck.
    fn end_some(&mut self, moment: &mut Moment<'_>) {
        let running = |c: &&mut ObservedContainer| c.status == ContainerStatus::Running;
        for container in self.containers.values_mut().filter(running) {
            let failed = match self.ends.get(&container.id) {
                Some(end) if *end > moment.step => continue,
                Some(_) => moment.strikes(moment.troubles.job),
                None if moment.strikes(moment.troubles.exit) => true,
                None => continue,
            };
            container.status = ContainerStatus::Exited;
            container.finished_at = Some(moment.now);
            container.exit_code = i64::from(failed);
        }
    }

    fn pulled(
        &mut self,
        replica: ReplicaId,
        wanted: Box<Desired>,
        local: &mut Local,
        moment: &mut Moment<'_>,
    ) {
        let Some(service) = wanted.service() else {
            return;
        };
        let image = service.container.image.clone();
        if !self.images.contains(&image) && moment.strikes(moment.troubles.pull) {
            let revision = wanted.replica.revision;
            local.pulls.failed(&image, revision, "no route", moment.now);
            return;
        }
        local.pulls.succeeded(&image);
        self.images.insert(image);
        let (until, job) = (moment.later(4, self.slowness), Job::Start(wanted));
        local.work.insert(replica.clone(), Work::Starting);
        self.tasks.insert(replica, Task { until, job });
    }

    fn started(
        &mut self,
        replica: ReplicaId,
        wanted: &Desired,
        local: &mut Local,
        moment: &mut Moment<'_>,
    ) {
        let generation = wanted.replica.generation;
        if moment.strikes(moment.troubles.start) {
            let error = RuntimeError::Refused("out of luck".to_owned());
            local.note_refusal(&wanted.replica, error);
            return;
        }
        local.refused.remove(&replica);
        self.made += 1;
        let id = Self::id(self.made);
        if wanted.service().map(|service| service.kind) == Some(ServiceKind::Job) {
            let end = moment.later(LONG_JOB, 1);
            self.ends.insert(id.clone(), end);
        }
        let container = ObservedContainer {
            id: id.clone(),
            replica,
            spec_hash: wanted.replica.spec_hash.to_string(),
            generation,
            status: ContainerStatus::Running,
            health: None,
            started_at: Some(moment.now),
            finished_at: None,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
        };
        self.containers.insert(id, container);
    }

    /// The engine dies, and its containers with it unless it leaves them running.
    pub fn stop(&mut self, now: Timestamp, random: &mut Random) {
        self.tasks.clear();
        if random.below(2) == 0 {
            return;
        }
        let running = |c: &&mut ObservedContainer| c.status == ContainerStatus::Running;
        for container in self.containers.values_mut().filter(running) {
            container.status = ContainerStatus::Exited;
            container.finished_at = Some(now);
            container.exit_code = 137;
        }
    }

    /// The daemon died: the engine ends some of what it was told, and forgets the rest.
    pub fn abandoned(&mut self, random: &mut Random) {
        self.tasks.retain(|_, task| match task.job {
            Job::Pull(_) => false,
            Job::Start(_) | Job::Remove(_) => random.below(2) == 0,
        });
    }
}
