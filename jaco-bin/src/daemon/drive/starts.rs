//! Starting a container: bridges, image, volumes, container, in this order (spec 06).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jaco_core::id::ReplicaId;
use jaco_core::manifest::host_access::{self, RESERVED_PATHS};
use jaco_core::node::bridges;
use jaco_core::node::containers::{self, Desired};
use jaco_core::node::pulls::{Fetch, Need};
use jaco_core::node::report::Work;
use jaco_core::ports::container_runtime::ContainerRequest;
use jaco_core::ports::container_runtime::PullProgress;
use jaco_core::ports::{Measured, RuntimeError};
use tokio::sync::Semaphore;

use super::runtime::Shared;

/// Containers that the engine makes at once. It works on them one after the other anyway; more
/// only wait inside it.
const AT_ONCE: usize = 8;

/// Starts containers, with one pull per image at a time.
pub(super) struct Starts {
    shared: Arc<Shared>,
    slots: Semaphore,
    /// Held while an image is pulled; holds the newest revision that it was pulled for.
    images: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<u64>>>>,
}

impl Starts {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            slots: Semaphore::new(AT_ONCE),
            images: Mutex::default(),
        }
    }

    /// Starts the container of one replica and notes how it went.
    pub(super) async fn start(
        self: Arc<Self>,
        desired: BTreeMap<ReplicaId, Desired>,
        replica: ReplicaId,
    ) {
        let outcome = self.try_start(&desired, &replica).await;
        let mut local = self.shared.local();
        local.work.remove(&replica);
        match outcome {
            Ok(()) | Err(RuntimeError::Pull(_)) => {
                local.refused.remove(&replica);
            }
            Err(error) => {
                tracing::warn!(subsystem = "runtime", %replica, %error, "start container");
                local.note_refusal(&desired[&replica].replica, error);
            }
        }
        drop(local);
        self.shared.wake.notify_one();
    }

    async fn try_start(
        &self,
        desired: &BTreeMap<ReplicaId, Desired>,
        replica: &ReplicaId,
    ) -> Result<(), RuntimeError> {
        self.ensure_image(&desired[replica]).await?;
        let member = &self.shared.member;
        let Some(request) =
            containers::request(&member.cluster, desired, replica, &member.config.workloads)
        else {
            // What it shares its network with went away meanwhile; the next look decides.
            return Ok(());
        };
        self.check_host_access(&request)?;
        let _slot = self
            .slots
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let _in_use = member.bridge_use.read().await;
        let wanted = bridges::desired(&member.consensus.snapshot(), &member.name);
        for network in desired[replica].replica.addresses.keys() {
            let of_replica = |bridge: &&bridges::Bridge| {
                bridge.scope.deployment == desired[replica].replica.deployment
                    && bridge.scope.network == *network
            };
            if let Some(bridge) = wanted.values().find(of_replica) {
                member.ensure_bridge(bridge).await?;
            }
        }
        member.isolated().await?;
        tracing::info!(subsystem = "runtime", %replica, "starting container");
        member.runtime.start(&request).await?;
        member.meter.record(Measured::ContainerStarted);
        Ok(())
    }

    /// The node's own look at what a container asks of it: who decided elsewhere may have been
    /// deceived, and only here is it known where a path leads.
    fn check_host_access(&self, request: &ContainerRequest) -> Result<(), RuntimeError> {
        let member = &self.shared.member;
        let config = &member.config;
        let own = [&config.data_dir, &config.state_key, &config.unix_socket];
        let own = own.map(|path| path.display().to_string());
        let engine = config.docker_host.trim_start_matches("unix://");
        let mut reserved: Vec<&str> = RESERVED_PATHS.to_vec();
        reserved.extend(own.iter().map(String::as_str).chain([engine]));
        let (asked, granted) = ((&request.spec, &request.volumes), request.granted);
        let real = |path: &str| member.system.real_path(path);
        let allowed = config.workloads.allowed();
        let judged = host_access::may_start(asked, granted, &allowed, &reserved, &real);
        judged.map_err(|demands| {
            let demands = demands.iter().map(|it| format!("{}: {}", it.key, it.value));
            let demands: Vec<String> = demands.collect();
            RuntimeError::Denied(format!(
                "the service asks its host for more than it was granted: {}",
                demands.join(", ")
            ))
        })
    }

    async fn ensure_image(&self, wanted: &Desired) -> Result<(), RuntimeError> {
        let Some(service) = wanted.service() else {
            return Ok(());
        };
        let image = &service.container.image;
        let revision = wanted.replica.revision;
        let runtime = &self.shared.member.runtime;
        let turn = {
            let mut images = self.images.lock().expect("no holder of this lock panics");
            Arc::clone(images.entry(image.clone()).or_default())
        };
        let mut pulled_for = turn.lock().await;
        let need = Need {
            image,
            policy: service.pull_policy,
            revision,
            pulled_for: *pulled_for,
            is_here: runtime.has_image(image).await?,
        };
        let now = self.shared.member.clock.now();
        let fetch = self.shared.local().pulls.fetch(need, now);
        match fetch {
            Fetch::Nothing => return Ok(()),
            Fetch::Wait(reason) => return Err(RuntimeError::Pull(reason)),
            Fetch::Refuse => {
                let reason = "the image is not on this node, and pull_policy is never";
                return Err(RuntimeError::Refused(reason.to_owned()));
            }
            Fetch::Pull => {}
        }
        self.pull(wanted, image, service.container.platform.as_deref())
            .await?;
        *pulled_for = revision;
        Ok(())
    }

    async fn pull(
        &self,
        wanted: &Desired,
        image: &str,
        platform: Option<&str>,
    ) -> Result<(), RuntimeError> {
        let replica = &wanted.replica.id;
        let shared = &self.shared;
        let show = |progress: PullProgress| {
            shared
                .local()
                .work
                .insert(replica.clone(), Work::Pulling(progress));
            shared.wake.notify_one();
        };
        show(PullProgress::default());
        tracing::info!(subsystem = "runtime", image, "pulling");
        let pulled = shared.member.runtime.pull(image, platform, &show).await;
        let now = shared.member.clock.now();
        let mut local = shared.local();
        match &pulled {
            Ok(()) => local.pulls.succeeded(image),
            Err(error) => {
                tracing::warn!(subsystem = "runtime", image, %error, "pull failed");
                local
                    .pulls
                    .failed(image, wanted.replica.revision, &error.to_string(), now);
            }
        }
        local.work.insert(replica.clone(), Work::Starting);
        pulled
    }
}
