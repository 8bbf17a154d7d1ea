//! A container engine in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use jaco_core::cluster::node::Engine;
use jaco_core::id::{ClusterId, ReplicaId};
use jaco_core::manifest::spec::{Healthcheck, Resources, VolumeSpec};
use jaco_core::node::bridges::CLUSTER_LABEL;
use jaco_core::node::usage::Counters;
use jaco_core::ports::container_runtime::{
    ContainerNetwork, ContainerRequest, ContainerStatus, HealthStatus, ObservedContainer,
    PullProgress, RuntimeEvents,
};
use jaco_core::ports::{Clock, ContainerRuntime, RuntimeError};
use jaco_core::time::Timestamp;

/// What every container has used: little.
const IDLE: Counters = Counters {
    cpu_micros: 1_000,
    memory_bytes: 1 << 20,
};

/// What the containers of an image do once started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Run until they are stopped.
    Runs,
    /// End at once, with this status.
    Ends(i64),
    /// Are refused at their start, in these words.
    CannotStart(String),
}

/// One node's engine. All that happens to its containers is done by the test; time is the
/// given clock's.
pub struct FakeRuntime {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    unreachable: bool,
    capacity: Resources,
    /// What images do, wherever they are.
    behaviours: BTreeMap<String, Behaviour>,
    /// What can be pulled, and how that fails.
    registry: BTreeMap<String, Result<(), String>>,
    local: BTreeSet<String>,
    containers: BTreeMap<String, Container>,
    /// Owner labels by engine name.
    volumes: BTreeMap<String, BTreeMap<String, String>>,
    watchers: Vec<(ClusterId, UnboundedSender<()>)>,
    made: u64,
    pulls: Vec<String>,
}

struct Container {
    request: ContainerRequest,
    status: ContainerStatus,
    health: Option<HealthStatus>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    exit_code: i64,
    oom_killed: bool,
    error: String,
}

impl FakeRuntime {
    /// An empty engine on a host with 4 cores and 8 GiB.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State {
            capacity: Resources {
                cpu_millis: 4000,
                memory_bytes: 8 << 30,
            },
            ..State::default()
        };
        Self {
            clock,
            state: Mutex::new(state),
        }
    }

    /// Changes what the host has.
    pub fn set_capacity(&self, capacity: Resources) {
        self.lock().capacity = capacity;
    }

    /// Puts an image into the registry.
    pub fn publish(&self, image: &str, behaviour: Behaviour) {
        let mut state = self.lock();
        state.behaviours.insert(image.to_owned(), behaviour);
        state.registry.insert(image.to_owned(), Ok(()));
    }

    /// Puts an image into the engine.
    pub fn load(&self, image: &str, behaviour: Behaviour) {
        let mut state = self.lock();
        state.behaviours.insert(image.to_owned(), behaviour);
        state.local.insert(image.to_owned());
    }

    /// Makes pulls of an image fail with this reason, until it is published again.
    pub fn fail_pulls(&self, image: &str, reason: &str) {
        let outcome = Err(reason.to_owned());
        self.lock().registry.insert(image.to_owned(), outcome);
    }

    /// Takes the engine away, or brings it back with all its containers. Subscriptions break.
    pub fn set_reachable(&self, reachable: bool) {
        let mut state = self.lock();
        state.unreachable = !reachable;
        if !reachable {
            state.watchers.clear();
        }
    }

    /// Makes a volume that nobody's labels are on.
    pub fn make_volume(&self, engine_name: &str) {
        let mut state = self.lock();
        state
            .volumes
            .insert(engine_name.to_owned(), BTreeMap::new());
    }

    /// Ends the replica's running container.
    pub fn exit(&self, replica: &str, status: i64) {
        let now = self.clock.now();
        self.change(replica, |container| container.end(status, now));
    }

    /// Ends it as the kernel does when memory is short.
    pub fn run_out_of_memory(&self, replica: &str) {
        let now = self.clock.now();
        self.change(replica, |container| {
            container.end(137, now);
            container.oom_killed = true;
        });
    }

    /// Sets what its health check says.
    pub fn set_health(&self, replica: &str, health: HealthStatus) {
        self.change(replica, |container| container.health = Some(health));
    }

    /// Removes it behind JACO's back.
    pub fn vanish(&self, replica: &str) {
        let mut state = self.lock();
        if let Some(id) = state.id_of(replica) {
            state.drop_container(&id);
        }
    }

    /// Ends every running container, as a reboot of the host does.
    pub fn reboot(&self) {
        let now = self.clock.now();
        let mut state = self.lock();
        for container in state.containers.values_mut() {
            container.end(137, now);
        }
        state.watchers.clear();
    }

    /// What the replica's container was made from.
    pub fn request_of(&self, replica: &str) -> Option<ContainerRequest> {
        let state = self.lock();
        let id = state.id_of(replica)?;
        Some(state.containers[&id].request.clone())
    }

    /// The images that were pulled, failed attempts included, in order.
    pub fn pulls(&self) -> Vec<String> {
        self.lock().pulls.clone()
    }

    fn change(&self, replica: &str, change: impl FnOnce(&mut Container)) {
        let mut state = self.lock();
        let Some(id) = state.id_of(replica) else {
            panic!("the fake engine has no container {replica}");
        };
        if let Some(container) = state.containers.get_mut(&id) {
            change(container);
        }
        state.wake(&id);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> Result<MutexGuard<'_, State>, RuntimeError> {
        let state = self.lock();
        if state.unreachable {
            return Err(RuntimeError::Unreachable("connection refused".to_owned()));
        }
        Ok(state)
    }
}

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    async fn describe(&self) -> Result<Engine, RuntimeError> {
        let state = self.engine()?;
        Ok(Engine {
            version: "20.10.24".to_owned(),
            api_version: "1.41".to_owned(),
            arch: "amd64".to_owned(),
            capacity: state.capacity,
        })
    }

    async fn observe(&self, cluster: &ClusterId) -> Result<Vec<ObservedContainer>, RuntimeError> {
        let state = self.engine()?;
        let mut seen: Vec<_> = state
            .containers
            .iter()
            .filter(|(_, container)| container.label(CLUSTER_LABEL) == cluster.as_str())
            .map(|(id, container)| container.observed(id))
            .collect();
        seen.sort_by(|a, b| a.replica.cmp(&b.replica));
        Ok(seen)
    }

    async fn has_image(&self, image: &str) -> Result<bool, RuntimeError> {
        Ok(self.engine()?.local.contains(image))
    }

    async fn pull(
        &self,
        image: &str,
        _platform: Option<&str>,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        {
            let mut state = self.engine()?;
            state.pulls.push(image.to_owned());
            let known = state.registry.get(image).cloned();
            known
                .unwrap_or_else(|| Err(format!("manifest for {image} not found")))
                .map_err(RuntimeError::Pull)?;
            state.local.insert(image.to_owned());
        }
        for layers_done in 0..=1 {
            progress(PullProgress {
                layers_done,
                layers: 1,
                bytes_done: u64::from(layers_done) * 1024,
                bytes: 1024,
            });
        }
        Ok(())
    }

    async fn start(&self, request: &ContainerRequest) -> Result<String, RuntimeError> {
        let now = self.clock.now();
        let mut state = self.engine()?;
        if let Some(running) = state.clear_the_way(request)? {
            return Ok(running);
        }
        for volume in request.volumes.values() {
            state.ensure_volume(volume)?;
        }
        let behaviour = state.behaviour(&request.spec.image)?;
        state.check_network(&request.network)?;
        state.made += 1;
        let id = format!("{:064x}", state.made);
        let (container, outcome) = Container::started(request, &behaviour, now);
        state.containers.insert(id.clone(), container);
        state.wake(&id);
        outcome.map(|()| id)
    }

    async fn usage(&self, container_id: &str) -> Result<Counters, RuntimeError> {
        let state = self.engine()?;
        let running = |one: &&Container| one.status == ContainerStatus::Running;
        let container = state.containers.get(container_id).filter(running);
        let gone = || RuntimeError::Refused(format!("no container {container_id} runs"));
        container.map(|_| IDLE).ok_or_else(gone)
    }

    async fn remove(&self, container_id: &str) -> Result<(), RuntimeError> {
        self.engine()?.drop_container(container_id);
        Ok(())
    }

    async fn watch(&self, cluster: &ClusterId) -> Result<Box<dyn RuntimeEvents>, RuntimeError> {
        let (sender, wakes) = mpsc::unbounded();
        self.engine()?.watchers.push((cluster.clone(), sender));
        Ok(Box::new(FakeEvents(wakes)))
    }
}

struct FakeEvents(UnboundedReceiver<()>);

#[async_trait]
impl RuntimeEvents for FakeEvents {
    async fn changed(&mut self) -> Result<(), RuntimeError> {
        let broken = || RuntimeError::Unreachable("the event stream ended".to_owned());
        self.0.next().await.ok_or_else(broken)
    }
}

impl State {
    fn id_of(&self, replica: &str) -> Option<String> {
        let named = |container: &Container| container.request.name.as_str() == replica;
        let mut all = self.containers.iter();
        all.find(|(_, container)| named(container))
            .map(|(id, _)| id.clone())
    }

    fn clear_the_way(
        &mut self,
        request: &ContainerRequest,
    ) -> Result<Option<String>, RuntimeError> {
        let Some(id) = self.id_of(request.name.as_str()) else {
            return Ok(None);
        };
        let there = &self.containers[&id];
        let same = |key: &str| request.labels.get(key) == there.request.labels.get(key);
        let ours = same(CLUSTER_LABEL) && same("jaco.replica_id");
        match (ours, there.status) {
            (true, ContainerStatus::Running)
                if same("jaco.spec_hash") && same("jaco.generation") =>
            {
                Ok(Some(id))
            }
            (true, status) if status != ContainerStatus::Running => {
                self.drop_container(&id);
                Ok(None)
            }
            _ => Err(RuntimeError::Refused(format!(
                "the container name {} is already in use",
                request.name
            ))),
        }
    }

    fn behaviour(&self, image: &str) -> Result<Behaviour, RuntimeError> {
        let behaviour = self.behaviours.get(image);
        let here = behaviour.filter(|_| self.local.contains(image));
        here.cloned()
            .ok_or_else(|| RuntimeError::Refused(format!("No such image: {image}")))
    }

    fn check_network(&self, network: &ContainerNetwork) -> Result<(), RuntimeError> {
        let ContainerNetwork::SharedWith(other) = network else {
            return Ok(());
        };
        let id = self.id_of(other).unwrap_or_else(|| other.clone());
        let there = self.containers.get(&id);
        if there.is_some_and(|container| container.status == ContainerStatus::Running) {
            return Ok(());
        }
        Err(RuntimeError::Refused(format!("No such container: {other}")))
    }

    fn ensure_volume(&mut self, spec: &VolumeSpec) -> Result<(), RuntimeError> {
        let name = &spec.engine_name;
        match self.volumes.get(name) {
            Some(_) if spec.external => Ok(()),
            Some(labels) if *labels == spec.labels => Ok(()),
            Some(_) => Err(RuntimeError::VolumeNotOwned(name.clone())),
            None if spec.external => Err(RuntimeError::ExternalVolumeMissing(name.clone())),
            None => {
                self.volumes.insert(name.clone(), spec.labels.clone());
                Ok(())
            }
        }
    }

    fn drop_container(&mut self, id: &str) {
        self.wake(id);
        self.containers.remove(id);
    }

    fn wake(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let cluster = container.label(CLUSTER_LABEL);
        self.watchers.retain(|(watched, sender)| {
            watched.as_str() != cluster || sender.unbounded_send(()).is_ok()
        });
    }
}

impl Container {
    fn started(
        request: &ContainerRequest,
        behaviour: &Behaviour,
        now: Timestamp,
    ) -> (Self, Result<(), RuntimeError>) {
        let checked = matches!(request.spec.healthcheck, Some(Healthcheck::Test { .. }));
        let mut container = Self {
            request: request.clone(),
            status: ContainerStatus::Running,
            health: checked.then_some(HealthStatus::Starting),
            started_at: Some(now),
            finished_at: None,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
        };
        match behaviour {
            Behaviour::Runs => {}
            Behaviour::Ends(status) => container.end(*status, now),
            Behaviour::CannotStart(reason) => {
                container.status = ContainerStatus::Created;
                container.started_at = None;
                container.exit_code = 127;
                container.error.clone_from(reason);
                return (container, Err(RuntimeError::Refused(reason.clone())));
            }
        }
        (container, Ok(()))
    }

    fn end(&mut self, status: i64, now: Timestamp) {
        if self.status == ContainerStatus::Running {
            self.status = ContainerStatus::Exited;
            self.finished_at = Some(now);
            self.exit_code = status;
        }
    }

    fn label(&self, key: &str) -> &str {
        self.request.labels.get(key).map_or("", String::as_str)
    }

    fn observed(&self, id: &str) -> ObservedContainer {
        ObservedContainer {
            id: id.to_owned(),
            replica: ReplicaId::from(self.label("jaco.replica_id")),
            spec_hash: self.label("jaco.spec_hash").to_owned(),
            generation: self.label("jaco.generation").parse().unwrap_or_default(),
            status: self.status,
            health: self.health,
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit_code: self.exit_code,
            oom_killed: self.oom_killed,
            error: self.error.clone(),
        }
    }
}
