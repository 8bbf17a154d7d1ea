//! What every `ContainerRuntime` promises.

use std::collections::BTreeMap;
use std::sync::Mutex;

use jaco_core::id::{ClusterId, ReplicaId};
use jaco_core::manifest::host_access::Granted;
use jaco_core::manifest::spec::{ContainerSpec, VolumeSpec};
use jaco_core::node::bridges::CLUSTER_LABEL;
use jaco_core::ports::container_runtime::{
    ContainerNetwork, ContainerRequest, ContainerStatus, ObservedContainer, PullProgress,
};
use jaco_core::ports::{ContainerRuntime, RuntimeError};

use super::wait::{soon, until};
use crate::builders::data_mount;

/// The world around a runtime. Images are in the engine unless said otherwise.
#[derive(Clone, Debug)]
pub struct World {
    /// Whose containers are seen; nothing has its label yet.
    pub cluster: ClusterId,
    /// Runs until it is stopped.
    pub running: ContainerSpec,
    /// Ends at once, with status 3.
    pub ending: ContainerSpec,
    /// Is refused by the engine at its start, after it was made.
    pub unstartable: ContainerSpec,
    /// An image that a registry has and the engine has not.
    pub pullable: String,
    /// An image that nobody has.
    pub missing: String,
}

/// Runs every check.
pub async fn suite(runtime: &dyn ContainerRuntime, world: &World) {
    it_describes_itself(runtime).await;
    a_pull_fetches_an_image_and_tells_its_progress(runtime, world).await;
    a_pull_of_what_nobody_has_fails_with_the_reason(runtime, world).await;
    a_started_container_is_observed_as_asked(runtime, world).await;
    what_runs_has_used_something(runtime, world).await;
    starting_again_changes_nothing(runtime, world).await;
    an_ended_container_shows_its_status(runtime, world).await;
    a_leftover_gives_way_to_a_new_attempt(runtime, world).await;
    removing_is_final_and_repeatable(runtime, world).await;
    only_the_cluster_s_own_containers_are_seen(runtime, world).await;
    a_start_without_the_image_is_refused(runtime, world).await;
    a_container_that_cannot_start_stays_to_be_seen(runtime, world).await;
    a_container_s_namespace_can_be_shared(runtime, world).await;
    an_external_volume_must_exist(runtime, world).await;
    a_volume_serves_only_its_deployment(runtime, world).await;
    changes_wake_every_watcher(runtime, world).await;
    assert_eq!(observe(runtime, world).await, []);
}

/// A request for a container without a network, labelled as the core labels it.
pub fn request(world: &World, name: &str, spec: &ContainerSpec) -> ContainerRequest {
    let labels = [
        (CLUSTER_LABEL, world.cluster.as_str()),
        ("jaco.deployment", "contract"),
        ("jaco.service", "web"),
        ("jaco.replica_id", name),
        ("jaco.replica_index", "1"),
        ("jaco.spec_hash", "c0ffee"),
        ("jaco.generation", "1"),
    ];
    ContainerRequest {
        granted: Granted::default(),
        name: ReplicaId::from(name),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        spec: spec.clone(),
        network: ContainerNetwork::None,
        volumes: BTreeMap::new(),
        contents: BTreeMap::new(),
    }
}

async fn what_runs_has_used_something(runtime: &dyn ContainerRuntime, world: &World) {
    let running = request(world, "contract-usage", &world.running);
    let id = runtime.start(&running).await.expect("it starts");
    let used = runtime.usage(&id).await.expect("it runs");
    assert!(used.cpu_micros > 0 && used.memory_bytes > 0, "{used:?}");
    runtime.remove(&id).await.expect("it is removed");
    runtime.usage(&id).await.expect_err("it is gone");
}

async fn it_describes_itself(runtime: &dyn ContainerRuntime) {
    let engine = runtime.describe().await.expect("the engine answers");
    assert!(!engine.version.is_empty() && !engine.arch.is_empty());
    assert!(engine.api_version.contains('.'), "{}", engine.api_version);
    assert!(engine.capacity.cpu_millis >= 1000 && engine.capacity.memory_bytes > 0);
}

async fn a_pull_fetches_an_image_and_tells_its_progress(
    runtime: &dyn ContainerRuntime,
    world: &World,
) {
    let image = &world.pullable;
    assert_eq!(runtime.has_image(image).await, Ok(false));
    let seen = Mutex::new(Vec::new());
    let progress = |now: PullProgress| {
        let mut seen = seen.lock().expect("no check panics with the lock");
        seen.push(now);
    };
    runtime
        .pull(image, None, &progress)
        .await
        .expect("the registry has it");
    assert_eq!(runtime.has_image(image).await, Ok(true));
    let seen = seen.into_inner().expect("no check panics with the lock");
    let last = seen.last().expect("a pull of something tells its progress");
    assert!(
        last.layers > 0 && last.layers_done == last.layers,
        "{last:?}"
    );
    assert!(last.bytes_done <= last.bytes, "{last:?}");
    let again = runtime.pull(image, None, &|_| ()).await;
    assert_eq!(again, Ok(()), "pulling what is there is no error");
}

async fn a_pull_of_what_nobody_has_fails_with_the_reason(
    runtime: &dyn ContainerRuntime,
    world: &World,
) {
    let image = &world.missing;
    match runtime.pull(image, None, &|_| ()).await {
        Err(RuntimeError::Pull(reason)) => assert!(!reason.is_empty()),
        other => panic!("{other:?}"),
    }
    assert_eq!(runtime.has_image(image).await, Ok(false));
}

async fn a_started_container_is_observed_as_asked(runtime: &dyn ContainerRuntime, world: &World) {
    let id = start(runtime, world, "contract-runs", &world.running).await;
    let seen = one(runtime, world, "contract-runs").await;
    assert_eq!(seen.id, id);
    assert_eq!((seen.spec_hash.as_str(), seen.generation), ("c0ffee", 1));
    assert_eq!(seen.status, ContainerStatus::Running);
    assert_eq!(seen.health, None);
    assert!(seen.started_at.is_some() && seen.finished_at.is_none());
    assert!(!seen.oom_killed && seen.error.is_empty());
    remove(runtime, &id).await;
}

async fn starting_again_changes_nothing(runtime: &dyn ContainerRuntime, world: &World) {
    let id = start(runtime, world, "contract-again", &world.running).await;
    let seen = observe(runtime, world).await;
    let again = start(runtime, world, "contract-again", &world.running).await;
    assert_eq!(id, again);
    assert_eq!(observe(runtime, world).await, seen);
    let mut other = request(world, "contract-again", &world.running);
    other.labels.insert("jaco.generation".into(), "2".into());
    match runtime.start(&other).await {
        Err(RuntimeError::Refused(reason)) => assert!(!reason.is_empty()),
        other => panic!("a running container was replaced: {other:?}"),
    }
    assert_eq!(observe(runtime, world).await, seen);
    remove(runtime, &id).await;
}

async fn an_ended_container_shows_its_status(runtime: &dyn ContainerRuntime, world: &World) {
    let id = start(runtime, world, "contract-ends", &world.ending).await;
    let seen = ended(runtime, world, "contract-ends").await;
    assert_eq!(seen.exit_code, 3);
    assert!(seen.started_at.is_some() && seen.started_at <= seen.finished_at);
    remove(runtime, &id).await;
}

async fn a_leftover_gives_way_to_a_new_attempt(runtime: &dyn ContainerRuntime, world: &World) {
    let left = start(runtime, world, "contract-left", &world.ending).await;
    ended(runtime, world, "contract-left").await;
    let id = start(runtime, world, "contract-left", &world.running).await;
    assert_ne!(left, id);
    let seen = one(runtime, world, "contract-left").await;
    assert_eq!(
        (seen.id, seen.status),
        (id.clone(), ContainerStatus::Running)
    );
    remove(runtime, &id).await;
}

async fn removing_is_final_and_repeatable(runtime: &dyn ContainerRuntime, world: &World) {
    let id = start(runtime, world, "contract-goes", &world.running).await;
    for _ in 0..2 {
        remove(runtime, &id).await;
        assert_eq!(observe(runtime, world).await, []);
    }
    let never = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    remove(runtime, never).await;
}

async fn only_the_cluster_s_own_containers_are_seen(runtime: &dyn ContainerRuntime, world: &World) {
    let id = start(runtime, world, "contract-ours", &world.running).await;
    let other = ClusterId::from("another-cluster");
    assert_eq!(runtime.observe(&other).await, Ok(Vec::new()));
    remove(runtime, &id).await;
}

async fn a_start_without_the_image_is_refused(runtime: &dyn ContainerRuntime, world: &World) {
    let spec = ContainerSpec {
        image: world.missing.clone(),
        ..world.running.clone()
    };
    let refused = runtime.start(&request(world, "contract-none", &spec)).await;
    assert!(
        matches!(refused, Err(RuntimeError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(observe(runtime, world).await, []);
}

async fn a_container_that_cannot_start_stays_to_be_seen(
    runtime: &dyn ContainerRuntime,
    world: &World,
) {
    let name = "contract-stuck";
    let refused = runtime
        .start(&request(world, name, &world.unstartable))
        .await;
    match refused {
        Err(RuntimeError::Refused(reason)) => assert!(!reason.is_empty()),
        other => panic!("{other:?}"),
    }
    let seen = one(runtime, world, name).await;
    assert_eq!(seen.status, ContainerStatus::Created);
    assert!(
        seen.started_at.is_none() && !seen.error.is_empty(),
        "{seen:?}"
    );
    let id = start(runtime, world, name, &world.running).await;
    remove(runtime, &id).await;
}

async fn a_container_s_namespace_can_be_shared(runtime: &dyn ContainerRuntime, world: &World) {
    let host = start(runtime, world, "contract-host", &world.running).await;
    let mut guest = request(world, "contract-guest", &world.running);
    guest.network = ContainerNetwork::SharedWith("contract-host".to_owned());
    let guest = runtime.start(&guest).await.expect("the other runs");
    remove(runtime, &guest).await;
    remove(runtime, &host).await;
}

async fn an_external_volume_must_exist(runtime: &dyn ContainerRuntime, world: &World) {
    let volume = VolumeSpec {
        external: true,
        ..owned_volume(world, "contract-external", "shop")
    };
    let request = with_volume(world, "contract-volume", volume);
    assert_eq!(
        runtime.start(&request).await,
        Err(RuntimeError::ExternalVolumeMissing(
            "contract-external".to_owned()
        ))
    );
    assert_eq!(observe(runtime, world).await, []);
}

async fn a_volume_serves_only_its_deployment(runtime: &dyn ContainerRuntime, world: &World) {
    let name = "contract-volume";
    let ours = owned_volume(world, "contract-data", "shop");
    for _ in 0..2 {
        let request = with_volume(world, name, ours.clone());
        let id = runtime.start(&request).await.expect("the volume is ours");
        remove(runtime, &id).await;
    }
    let theirs = owned_volume(world, "contract-data", "other");
    assert_eq!(
        runtime.start(&with_volume(world, name, theirs)).await,
        Err(RuntimeError::VolumeNotOwned("contract-data".to_owned()))
    );
    let external = VolumeSpec {
        external: true,
        ..owned_volume(world, "contract-data", "other")
    };
    let request = with_volume(world, name, external);
    let id = runtime
        .start(&request)
        .await
        .expect("external ones are not asked for labels");
    remove(runtime, &id).await;
    assert_eq!(observe(runtime, world).await, []);
}

async fn changes_wake_every_watcher(runtime: &dyn ContainerRuntime, world: &World) {
    let mut first = runtime
        .watch(&world.cluster)
        .await
        .expect("the engine answers");
    let mut second = runtime
        .watch(&world.cluster)
        .await
        .expect("the engine answers");
    let id = start(runtime, world, "contract-watched", &world.ending).await;
    soon("the start wakes", first.changed())
        .await
        .expect("the stream is whole");
    soon("the start wakes", second.changed())
        .await
        .expect("the stream is whole");
    loop {
        let seen = one(runtime, world, "contract-watched").await;
        if seen.status == ContainerStatus::Exited {
            break;
        }
        soon("the end wakes", first.changed())
            .await
            .expect("the stream is whole");
    }
    remove(runtime, &id).await;
    soon("the removal wakes", first.changed())
        .await
        .expect("the stream is whole");
}

fn owned_volume(world: &World, engine_name: &str, deployment: &str) -> VolumeSpec {
    let labels = [
        (CLUSTER_LABEL, world.cluster.as_str()),
        ("jaco.deployment", deployment),
        ("jaco.volume_key", "data"),
    ];
    VolumeSpec {
        engine_name: engine_name.to_owned(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..VolumeSpec::default()
    }
}

fn with_volume(world: &World, name: &str, volume: VolumeSpec) -> ContainerRequest {
    let mut request = request(world, name, &world.running);
    request.volumes.insert("data".to_owned(), volume);
    request.spec.mounts.push(data_mount());
    request
}

async fn start(
    runtime: &dyn ContainerRuntime,
    world: &World,
    name: &str,
    spec: &ContainerSpec,
) -> String {
    let started = runtime.start(&request(world, name, spec)).await;
    started.unwrap_or_else(|error| panic!("{name}: {error}"))
}

async fn remove(runtime: &dyn ContainerRuntime, id: &str) {
    let removed = runtime.remove(id).await;
    assert_eq!(removed, Ok(()), "removing {id}");
}

async fn observe(runtime: &dyn ContainerRuntime, world: &World) -> Vec<ObservedContainer> {
    let seen = runtime.observe(&world.cluster).await;
    seen.expect("the engine answers")
}

async fn one(runtime: &dyn ContainerRuntime, world: &World, name: &str) -> ObservedContainer {
    let mut seen = observe(runtime, world).await;
    assert_eq!(seen.len(), 1, "{seen:?}");
    let seen = seen.remove(0);
    assert_eq!(seen.replica.as_str(), name);
    seen
}

async fn ended(runtime: &dyn ContainerRuntime, world: &World, name: &str) -> ObservedContainer {
    until("the container ends", async || {
        let seen = one(runtime, world, name).await;
        (seen.status == ContainerStatus::Exited).then_some(seen)
    })
    .await
}
