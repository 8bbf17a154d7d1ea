//! What the engine shows, in the core's words.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    HealthStatusEnum, SystemInfo,
};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use futures::{StreamExt, TryStreamExt, stream};
use jaco_core::cluster::node::Engine as EngineFacts;
use jaco_core::id::{ClusterId, ReplicaId};
use jaco_core::manifest::spec::Resources;
use jaco_core::node::bridges::CLUSTER_LABEL;
use jaco_core::ports::container_runtime::{ContainerStatus, HealthStatus, ObservedContainer};
use jaco_core::time::Timestamp;

use super::engine::{Engine, SHORT};
use super::error::Failure;

/// The label that names a container's replica.
pub(super) const REPLICA_LABEL: &str = "jaco.replica_id";
/// The label with the hash of what the container was made from.
pub(super) const SPEC_HASH_LABEL: &str = "jaco.spec_hash";
/// The label with the replica's generation.
pub(super) const GENERATION_LABEL: &str = "jaco.generation";

/// Inspections under way at once.
const INSPECTIONS: usize = 8;

/// Labels as the engine's library has them.
pub(super) type Labels = HashMap<String, String>;

/// What the engine is and has.
pub(super) async fn describe(engine: &Engine) -> Result<EngineFacts, Failure> {
    let client = engine.client().await?;
    let (version, info) = tokio::join!(
        engine.within(SHORT, client.docker.version()),
        engine.within(SHORT, client.docker.info()),
    );
    let (version, info) = (version?, readable(info)?);
    let cpus = info.ncpu.and_then(|cpus| u64::try_from(cpus).ok());
    let memory = info.mem_total.and_then(|bytes| u64::try_from(bytes).ok());
    Ok(EngineFacts {
        version: version.version.unwrap_or_default(),
        api_version: client.version.to_string(),
        arch: arch(&version.arch.or(info.architecture).unwrap_or_default()),
        capacity: Resources {
            cpu_millis: cpus.unwrap_or_default() * 1000,
            memory_bytes: memory.unwrap_or_default(),
        },
    })
}

/// An engine that says something unknown of itself is still an engine; its size is then zero.
fn readable(info: Result<SystemInfo, Failure>) -> Result<SystemInfo, Failure> {
    match info {
        Err(Failure::Unreadable(reason)) => {
            tracing::warn!(reason, "the engine's description is not understood");
            Ok(SystemInfo::default())
        }
        other => other,
    }
}

/// Every container with the cluster's label, sorted by replica.
pub(super) async fn observe(
    engine: &Engine,
    cluster: &ClusterId,
) -> Result<Vec<ObservedContainer>, Failure> {
    let docker = engine.client().await?.docker;
    let label = format!("{CLUSTER_LABEL}={cluster}");
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&HashMap::from([("label", vec![label])]))
        .build();
    let list = engine
        .within(SHORT, docker.list_containers(Some(options)))
        .await?;
    let inspections = list
        .into_iter()
        .map(|summary| look_at(engine, &docker, summary));
    let mut seen: Vec<_> = stream::iter(inspections)
        .buffer_unordered(INSPECTIONS)
        .try_filter_map(async |container| Ok(container))
        .try_collect()
        .await?;
    seen.sort_by(|a, b| (&a.replica, &a.id).cmp(&(&b.replica, &b.id)));
    Ok(seen)
}

/// One container in full; `None` when it vanished since it was listed.
async fn look_at(
    engine: &Engine,
    docker: &Docker,
    summary: ContainerSummary,
) -> Result<Option<ObservedContainer>, Failure> {
    let id = summary.id.clone().unwrap_or_default();
    let inspection = docker.inspect_container(&id, None::<InspectContainerOptions>);
    match engine.within(SHORT, inspection).await {
        Ok(container) => Ok(Some(observed(container))),
        Err(failure) if failure.is_not_found() => Ok(None),
        // One container of an engine newer than this code must not hide all the others.
        Err(Failure::Unreadable(reason)) => Ok(Some(from_summary(summary, reason))),
        Err(failure) => Err(failure),
    }
}

fn observed(container: ContainerInspectResponse) -> ObservedContainer {
    let state = container.state.unwrap_or_default();
    let labels = container.config.and_then(|config| config.labels);
    from_state(
        container.id.unwrap_or_default(),
        &labels.unwrap_or_default(),
        &state,
    )
}

fn from_summary(summary: ContainerSummary, reason: String) -> ObservedContainer {
    let status = summary.state.and_then(|state| state.as_ref().parse().ok());
    let state = ContainerState {
        status,
        error: Some(reason),
        ..Default::default()
    };
    from_state(
        summary.id.unwrap_or_default(),
        &summary.labels.unwrap_or_default(),
        &state,
    )
}

fn from_state(id: String, labels: &Labels, state: &ContainerState) -> ObservedContainer {
    let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
    // "Never" is year 1, which is before the epoch and so not a time of ours.
    let moment = |text: &Option<String>| text.as_deref().and_then(Timestamp::parse);
    let (status, started_at) = (status(state), moment(&state.started_at));
    ObservedContainer {
        id,
        replica: ReplicaId::from(text(REPLICA_LABEL)),
        spec_hash: text(SPEC_HASH_LABEL),
        generation: text(GENERATION_LABEL).parse().unwrap_or_default(),
        status,
        health: state
            .health
            .as_ref()
            .and_then(|health| health.status)
            .and_then(health),
        started_at,
        finished_at: moment(&state.finished_at).map(|end| in_order(status, started_at, end)),
        exit_code: state.exit_code.unwrap_or_default(),
        oom_killed: state.oom_killed.unwrap_or_default(),
        error: state.error.clone().unwrap_or_default(),
    }
}

/// The end of a container's last run. The start is noted by the engine and the end by the
/// process that watches the container, so that a short run seems to end before it began.
fn in_order(status: ContainerStatus, start: Option<Timestamp>, end: Timestamp) -> Timestamp {
    match status {
        ContainerStatus::Exited | ContainerStatus::Dead => start.map_or(end, |at| at.max(end)),
        _ => end,
    }
}

fn status(state: &ContainerState) -> ContainerStatus {
    use ContainerStateStatusEnum as Engine;
    match state.status {
        Some(Engine::CREATED) => ContainerStatus::Created,
        Some(Engine::RUNNING | Engine::STOPPING) => ContainerStatus::Running,
        Some(Engine::PAUSED) => ContainerStatus::Paused,
        Some(Engine::RESTARTING) => ContainerStatus::Restarting,
        Some(Engine::REMOVING) => ContainerStatus::Removing,
        Some(Engine::EXITED) => ContainerStatus::Exited,
        Some(Engine::DEAD) => ContainerStatus::Dead,
        None | Some(Engine::EMPTY) if state.running == Some(true) => ContainerStatus::Running,
        None | Some(Engine::EMPTY) => ContainerStatus::Exited,
    }
}

fn health(status: HealthStatusEnum) -> Option<HealthStatus> {
    match status {
        HealthStatusEnum::STARTING => Some(HealthStatus::Starting),
        HealthStatusEnum::HEALTHY => Some(HealthStatus::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(HealthStatus::Unhealthy),
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    }
}

/// As images say it.
fn arch(engine: &str) -> String {
    match engine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(json: &str) -> ContainerState {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_container_that_never_started_has_no_times() {
        let state = state(
            r#"{"Status": "created", "StartedAt": "0001-01-01T00:00:00Z",
                "FinishedAt": "0001-01-01T00:00:00Z", "ExitCode": 127, "Error": "no such file"}"#,
        );
        let seen = from_state("c1".to_owned(), &Labels::new(), &state);
        assert_eq!(seen.status, ContainerStatus::Created);
        assert_eq!((seen.started_at, seen.finished_at), (None, None));
        assert_eq!(seen.error, "no such file");
        assert_eq!(seen.replica.as_str(), "");
    }

    #[test]
    fn a_run_does_not_end_before_it_began() {
        let state = state(
            r#"{"Status": "exited", "StartedAt": "2026-01-02T03:04:05.2Z",
                "FinishedAt": "2026-01-02T03:04:05.1Z"}"#,
        );
        let seen = from_state("c1".to_owned(), &Labels::new(), &state);
        assert!(seen.started_at.is_some() && seen.finished_at == seen.started_at);
    }

    #[test]
    fn labels_times_and_health_are_taken_over() {
        let labels = [
            (REPLICA_LABEL, "shop-web-1"),
            (SPEC_HASH_LABEL, "ab"),
            (GENERATION_LABEL, "7"),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let state = state(
            r#"{"Status": "running", "StartedAt": "2026-01-02T03:04:05.678901234Z",
                "Health": {"Status": "unhealthy"}}"#,
        );
        let seen = from_state("c1".to_owned(), &Labels::from(labels), &state);
        assert_eq!(seen.replica.as_str(), "shop-web-1");
        assert_eq!((seen.spec_hash.as_str(), seen.generation), ("ab", 7));
        assert_eq!(seen.health, Some(HealthStatus::Unhealthy));
        assert_eq!(
            seen.started_at,
            Timestamp::parse("2026-01-02T03:04:05.678Z")
        );
    }

    #[test]
    fn architectures_are_named_as_images_name_them() {
        assert_eq!(arch("x86_64"), "amd64");
        assert_eq!(arch("aarch64"), "arm64");
        assert_eq!(arch("riscv64"), "riscv64");
    }
}
