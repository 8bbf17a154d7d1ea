//! What a container's appearance means for its replica: the `running` rule of spec 06.
//!
//! The count of checks is not kept anywhere: it follows from when the container started, so it
//! survives a restart of the daemon and a new dispatch of the same container.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::deployment::{Cause, Observation, Replica, ReplicaState, SILENT_PORTS};
use crate::error::ErrorCode;
use crate::manifest::spec::{DeploymentSpec, Protocol, ServiceKind, ServiceSpec};
use crate::ports::container_runtime::{ContainerStatus, HealthStatus, ObservedContainer};
use crate::time::Timestamp;

/// Running for so long counts as healthy where nothing better can be asked.
pub const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// How often a port is probed while its replica starts.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// How often a port that did not listen in time is probed: it may open later.
pub const ASK_SILENT_AGAIN: Duration = Duration::from_secs(2);

/// How many probes in a row must be answered.
pub const PROBES_IN_A_ROW: u32 = 2;

/// Probes of one container's ports.
pub type Probes = BTreeMap<u16, Probe>;

/// How a port has answered so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Answered in a row, up to now.
    pub hits: u32,
    /// Refused in a row, up to now.
    pub misses: u32,
}

impl Probe {
    /// Takes in one more probe.
    pub fn note(&mut self, answered: bool) {
        *self = match answered {
            true => Self {
                hits: self.hits.saturating_add(1),
                misses: 0,
            },
            false => Self {
                hits: 0,
                misses: self.misses.saturating_add(1),
            },
        };
    }

    /// True when it has answered often enough; there is no need to ask again.
    pub fn is_settled(self) -> bool {
        self.hits >= PROBES_IN_A_ROW
    }
}

/// True for a container whose ports are asked: until all of them answer.
pub fn is_asked(replica: &Replica, container: &ObservedContainer) -> bool {
    let open = !replica.is_serving() || !replica.observed.silent_ports().is_empty();
    container.status == ContainerStatus::Running && container.health.is_none() && open
}

/// The TCP ports that a replica must answer on: those routed and those published.
pub fn probed_ports(spec: &DeploymentSpec, replica: &Replica) -> BTreeSet<u16> {
    let routed = spec
        .routes
        .iter()
        .filter(|route| route.service == replica.service);
    let published = spec
        .services
        .get(&replica.service)
        .into_iter()
        .flat_map(|s| &s.ports);
    let published = published.filter(|port| port.protocol == Protocol::Tcp);
    routed
        .map(|route| route.port)
        .chain(published.map(|port| port.container))
        .collect()
}

/// What a replica is, from its container and the probes of its ports.
pub fn assess(
    replica: &Replica,
    service: &ServiceSpec,
    container: &ObservedContainer,
    ports: &BTreeSet<u16>,
    probes: &Probes,
    now: Timestamp,
) -> Observation {
    let before = &replica.observed;
    let known = before.container_id.as_deref() == Some(container.id.as_str())
        && before.generation == replica.generation;
    // What serves goes on serving when its daemon starts again and has asked no port yet.
    let served = known && before.state == ReplicaState::Running;
    let (state, cause) = match container.status {
        ContainerStatus::Running => running(container, ports, probes, served, now),
        ContainerStatus::Exited | ContainerStatus::Dead => exited(service, container),
        ContainerStatus::Paused => (ReplicaState::Degraded, Some(plain("paused by hand"))),
        ContainerStatus::Created | ContainerStatus::Restarting | ContainerStatus::Removing => {
            (ReplicaState::Starting, None)
        }
    };
    let same = known && before.state == state;
    Observation {
        generation: replica.generation,
        state,
        container_id: Some(container.id.clone()),
        started_at: container.started_at,
        since: if same {
            before.since
        } else {
            container.finished_at.or(Some(now))
        },
        cause,
    }
}

fn running(
    container: &ObservedContainer,
    ports: &BTreeSet<u16>,
    probes: &Probes,
    served: bool,
    now: Timestamp,
) -> (ReplicaState, Option<Cause>) {
    match container.health {
        Some(HealthStatus::Healthy) => return (ReplicaState::Running, None),
        Some(HealthStatus::Unhealthy) => {
            return (
                ReplicaState::Degraded,
                Some(plain("its health check fails")),
            );
        }
        Some(HealthStatus::Starting) => return (ReplicaState::Starting, None),
        None => {}
    }
    let probe = |port: &u16| probes.get(port).copied().unwrap_or_default();
    if !ports.is_empty() && ports.iter().all(|port| probe(port).is_settled()) {
        return (ReplicaState::Running, None);
    }
    let up_for = container
        .started_at
        .map_or(Duration::ZERO, |started| now.since(started));
    if up_for < SETTLED_AFTER && !served {
        return (ReplicaState::Starting, None);
    }
    // A port that was not asked often enough yet, as after a restart of the daemon, is not
    // accused.
    let refuses = |port: &&u16| probe(port).misses >= PROBES_IN_A_ROW;
    let silent: Vec<String> = ports.iter().filter(refuses).map(u16::to_string).collect();
    (
        ReplicaState::Running,
        (!silent.is_empty()).then(|| not_listening(&silent)),
    )
}

fn not_listening(ports: &[String]) -> Cause {
    let ports = ports.join(", ");
    Cause {
        code: Some(ErrorCode::PortNotListening),
        message: format!("nothing listens on port {ports}"),
        details: BTreeMap::from([(SILENT_PORTS.to_owned(), ports)]),
    }
}

fn exited(service: &ServiceSpec, container: &ObservedContainer) -> (ReplicaState, Option<Cause>) {
    if service.kind == ServiceKind::Job && container.exit_code == 0 {
        return (ReplicaState::Completed, None);
    }
    let cause = Cause {
        code: Some(ErrorCode::ContainerExited),
        message: match container.oom_killed {
            true => "the container ran out of memory".to_owned(),
            false => format!("the container exited with code {}", container.exit_code),
        },
        details: BTreeMap::from([
            ("exit_code".to_owned(), container.exit_code.to_string()),
            ("oom_killed".to_owned(), container.oom_killed.to_string()),
        ]),
    };
    (ReplicaState::Failed, Some(cause))
}

fn plain(message: &str) -> Cause {
    Cause {
        code: None,
        message: message.to_owned(),
        details: BTreeMap::new(),
    }
}
