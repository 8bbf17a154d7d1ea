//! Runtime: brings this node's containers to what the state wants, and reports what it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::id::ReplicaId;
use jaco_core::node::containers::{self, Action, Desired};
use jaco_core::node::health;
use jaco_core::node::report::{self, Local, Work};
use jaco_core::ports::container_runtime::ObservedContainer;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::starts::Starts;
use super::{Member, SAFETY_TICK};

/// A probe that takes longer counts as refused.
const PROBE_TIMEOUT: Duration = Duration::from_millis(150);

/// Looks are no closer together than this: the engine sends several events per container, and
/// a look asks it about every container.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the driver and its tasks share.
pub(super) struct Shared {
    pub(super) member: Arc<Member>,
    pub(super) local: Mutex<Local>,
    /// Rung when a task is done, the engine changed, or progress was made.
    pub(super) wake: Notify,
}

impl Shared {
    pub(super) fn local(&self) -> std::sync::MutexGuard<'_, Local> {
        self.local.lock().expect("no holder of this lock panics")
    }
}

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    member.recovered().await;
    let shared = Arc::new(Shared {
        member: Arc::clone(&member),
        local: Mutex::default(),
        wake: Notify::new(),
    });
    tokio::spawn(watch_engine(Arc::clone(&shared)));
    let starts = Arc::new(Starts::new(Arc::clone(&shared)));
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let state = member.state();
        let desired = containers::desired(&state, &member.name);
        // A task that ends during the look has changed what the look may have seen before.
        let busy: BTreeSet<ReplicaId> = shared.local().work.keys().cloned().collect();
        let observed = match member.runtime.observe(&member.cluster).await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::debug!(subsystem = "runtime", %error, "list containers");
                pause(&shared, state.index, Duration::from_secs(1)).await;
                continue;
            }
        };
        probe(&shared, &desired, &observed).await;
        dispatch(&shared, &starts, &desired, &observed, &busy);
        if let Some(index) = containers::swept(&state, &member.name, &desired, &observed) {
            let node = member.name.clone();
            member.report(Command::Swept { node, index }).await;
        }
        let changes = {
            let mut local = shared.local();
            local.containers = by_replica(observed);
            local
                .refused
                .retain(|replica, _| desired.contains_key(replica));
            report::changes(&desired, &local, member.clock.now())
        };
        if !changes.is_empty() {
            let node = member.name.clone();
            member
                .report(Command::Observe {
                    node,
                    observations: changes,
                })
                .await;
        }
        let soon = report::next_look(&desired, &shared.local(), member.clock.now());
        let limit = soon.map_or(SAFETY_TICK, |soon| soon.min(SAFETY_TICK));
        // What was committed since this look began has not been looked at.
        pause(&shared, state.index, limit).await;
    }
}

fn by_replica(observed: Vec<ObservedContainer>) -> BTreeMap<ReplicaId, ObservedContainer> {
    observed
        .into_iter()
        .map(|container| (container.replica.clone(), container))
        .collect()
}

async fn pause(shared: &Shared, index: u64, limit: Duration) {
    tokio::select! {
        () = shared.wake.notified() => {}
        () = shared.member.woken(index, limit) => {}
    }
}

/// Starts a task for each action whose replica has none and had none when it was looked at.
fn dispatch(
    shared: &Arc<Shared>,
    starts: &Arc<Starts>,
    desired: &BTreeMap<ReplicaId, Desired>,
    observed: &[ObservedContainer],
    busy: &BTreeSet<ReplicaId>,
) {
    let now = shared.member.clock.now();
    for action in containers::diff(desired, observed) {
        let mut local = shared.local();
        if busy.contains(action.replica()) || local.work.contains_key(action.replica()) {
            continue;
        }
        match action {
            Action::Remove {
                replica,
                container_id,
            } => {
                local.work.insert(replica.clone(), Work::Removing);
                tokio::spawn(remove(Arc::clone(shared), replica, container_id));
            }
            Action::Start { replica } => {
                let wanted = &desired[&replica];
                if report::may_start(wanted, &local, now) {
                    local.work.insert(replica.clone(), Work::Starting);
                    tokio::spawn(Arc::clone(starts).start(desired.clone(), replica));
                }
            }
        }
    }
}

async fn remove(shared: Arc<Shared>, replica: ReplicaId, container_id: String) {
    tracing::info!(subsystem = "runtime", %replica, "removing container");
    if let Err(error) = shared.member.runtime.remove(&container_id).await {
        tracing::warn!(subsystem = "runtime", %replica, %error, "remove container");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    shared.local().work.remove(&replica);
    shared.wake.notify_one();
}

/// Probes the ports of replicas that have not answered on all of them yet.
async fn probe(
    shared: &Shared,
    desired: &BTreeMap<ReplicaId, Desired>,
    observed: &[ObservedContainer],
) {
    let mut targets: Vec<(String, Ipv4Addr, u16)> = Vec::new();
    for container in observed {
        let Some(wanted) = desired.get(&container.replica) else {
            continue;
        };
        let Some(address) = wanted.replica.address() else {
            continue;
        };
        if !health::is_asked(&wanted.replica, container) {
            continue;
        }
        let ports = health::probed_ports(wanted.deployment.spec(), &wanted.replica);
        targets.extend(
            ports
                .into_iter()
                .map(|port| (container.id.clone(), address, port)),
        );
    }
    let probes = targets
        .into_iter()
        .map(|(container, address, port)| async move {
            let dial = TcpStream::connect(SocketAddrV4::new(address, port));
            let answered = matches!(tokio::time::timeout(PROBE_TIMEOUT, dial).await, Ok(Ok(_)));
            (container, port, answered)
        });
    let answers = futures::future::join_all(probes).await;
    let mut local = shared.local();
    local
        .probes
        .retain(|id, _| observed.iter().any(|container| container.id == *id));
    for (container, port, answered) in answers {
        local
            .probes
            .entry(container)
            .or_default()
            .entry(port)
            .or_default()
            .note(answered);
    }
}

/// Rings whenever the engine says that one of our containers changed; subscribes again when
/// the stream breaks.
async fn watch_engine(shared: Arc<Shared>) {
    loop {
        match shared.member.runtime.watch(&shared.member.cluster).await {
            Ok(mut events) => {
                shared.wake.notify_one();
                while events.changed().await.is_ok() {
                    shared.wake.notify_one();
                }
            }
            Err(error) => {
                tracing::debug!(subsystem = "runtime", %error, "subscribe to the engine");
            }
        }
        shared.wake.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
