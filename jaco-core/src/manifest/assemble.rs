//! The effective deployment: `jaco.yaml` → compose → default (spec 02, Rules).

use std::collections::{BTreeMap, BTreeSet};

use super::compose::{Compose, Deploy, Service, default_rollback, platform_architecture};
use super::contents::Contents;
use super::findings::Findings;
use super::hash::spec_hash;
use super::jaco::{Jaco, Override, PlacementWord, Route};
use super::spec::{
    Attribute, Condition, Constraint, DeploymentSpec, MountSource, NetworkAttachment, NetworkMode,
    NetworkSpec, Placement, Resources, RouteSpec, ServiceKind, ServiceSpec, VolumeSpec,
};
use super::validate::Rules;
use super::yaml::Node;
use super::{compose, jaco, read};
use crate::id::{DEFAULT_NETWORK, DeploymentName, Domain, NetworkName, NodeName, ServiceName};

/// Decodes both documents, checks every rule and merges them. A document that is absent could
/// not be parsed; the other is still checked on its own. `None` when anything is wrong.
pub(crate) fn assemble(
    jaco: Option<&Node>,
    compose: Option<&Node>,
    inactive: &BTreeSet<String>,
    contents: &dyn Contents,
    findings: &Findings,
) -> Option<DeploymentSpec> {
    let view = |node| read::View {
        node,
        path: &read::Path::Root,
        findings,
    };
    let jaco = jaco.and_then(|node| jaco::jaco(view(node)));
    let compose = compose.and_then(|node| compose::compose(view(node), contents));
    match (&jaco, &compose) {
        (Some(jaco), None) => {
            Rules::new(jaco, &Compose::default(), inactive, findings).check_jaco();
        }
        (None, Some(compose)) => Rules::new(&Jaco::default(), compose, inactive, findings).check(),
        (Some(jaco), Some(compose)) => Rules::new(jaco, compose, inactive, findings).check(),
        (None, None) => {}
    }
    let (jaco, compose) = (jaco?, compose?);
    (!findings.has_violations()).then(|| deployment(jaco, compose, contents))
}

fn deployment(jaco: Jaco, compose: Compose, contents: &dyn Contents) -> DeploymentSpec {
    let jobs = awaited_jobs(&compose.services);
    let mut overrides: BTreeMap<String, Override> = jaco
        .overrides
        .into_iter()
        .map(|entry| (entry.service.value.clone(), entry))
        .collect();
    let declared = Declared {
        networks: declared_networks(compose.networks),
        volumes: engine_volumes(&jaco.deployment, compose.volumes),
    };
    let mut deployment = DeploymentSpec {
        name: DeploymentName::new(&jaco.deployment),
        acme: jaco.acme,
        acme_email: jaco.acme_email,
        routes: jaco
            .routes
            .into_iter()
            .map(|r| route(r, jaco.acme))
            .collect(),
        services: BTreeMap::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        contents: contents.taken(),
    };
    for composed in compose.services {
        let name = composed.name.clone();
        let entry = overrides.remove(name.as_str());
        let service = service(composed, entry, &jobs, &declared);
        for network in service.networks.keys() {
            deployment
                .networks
                .insert(network.clone(), declared.network(network));
        }
        for (key, volume) in declared.used(&service) {
            deployment.volumes.insert(key.to_owned(), volume.clone());
        }
        deployment.services.insert(name, service);
    }
    deployment
}

/// What services refer to, by the names the cluster uses.
struct Declared {
    networks: BTreeMap<NetworkName, NetworkSpec>,
    volumes: BTreeMap<String, VolumeSpec>,
}

impl Declared {
    fn network(&self, name: &NetworkName) -> NetworkSpec {
        self.networks.get(name).cloned().unwrap_or_default()
    }

    fn used<'a>(&'a self, service: &'a ServiceSpec) -> BTreeMap<&'a str, &'a VolumeSpec> {
        let keys = service
            .container
            .mounts
            .iter()
            .filter_map(|mount| match &mount.source {
                MountSource::Volume { key, .. } => Some(key.as_str()),
                _ => None,
            });
        keys.filter_map(|key| Some((key, self.volumes.get(key)?)))
            .collect()
    }
}

/// Compose calls it `default`; the cluster calls it `_default`.
fn network_name(name: &str) -> NetworkName {
    NetworkName::new(if name == "default" {
        DEFAULT_NETWORK
    } else {
        name
    })
}

fn declared_networks(
    networks: BTreeMap<String, NetworkSpec>,
) -> BTreeMap<NetworkName, NetworkSpec> {
    networks
        .into_iter()
        .map(|(name, network)| (network_name(&name), network))
        .collect()
}

/// Names each volume for the engine: verbatim where the file says so, and external volumes by
/// their key as compose does.
fn engine_volumes(
    deployment: &str,
    mut volumes: BTreeMap<String, VolumeSpec>,
) -> BTreeMap<String, VolumeSpec> {
    for (key, volume) in volumes
        .iter_mut()
        .filter(|(_, volume)| volume.engine_name.is_empty())
    {
        volume.engine_name = match volume.external {
            true => key.clone(),
            false => format!("jaco_{deployment}_{key}"),
        };
    }
    volumes
}

/// Services whose only consumers wait for their completion.
fn awaited_jobs(services: &[Service]) -> BTreeSet<ServiceName> {
    let mut only_completion: BTreeMap<&str, bool> = BTreeMap::new();
    for dependency in services.iter().flat_map(|service| &service.depends_on) {
        let completion = dependency.value.condition == Condition::ServiceCompletedSuccessfully;
        *only_completion.entry(&dependency.name).or_insert(true) &= completion;
    }
    let jobs = only_completion.into_iter().filter(|(_, only)| *only);
    jobs.map(|(name, _)| ServiceName::new(name)).collect()
}

fn route(route: Route, acme: bool) -> RouteSpec {
    RouteSpec {
        domain: Domain::new(route.domain),
        service: ServiceName::new(route.service.value),
        port: route.port,
        tls: route.tls.unwrap_or(acme),
        path: route.path,
        strip_path: route.strip_path,
    }
}

fn service(
    composed: Service,
    entry: Option<Override>,
    jobs: &BTreeSet<ServiceName>,
    declared: &Declared,
) -> ServiceSpec {
    let networks = attachments(&composed, entry.as_ref());
    let own_replicas = entry.as_ref().and_then(|entry| entry.replicas.as_ref());
    let composed_replicas = composed.deploy.replicas.map(|(replicas, _)| replicas);
    let deploy = composed.deploy;
    let is_job = deploy.mode.is_job() || jobs.contains(&composed.name);
    let constraints = constraints(&deploy, composed.container.platform.as_deref());
    let mut ports: Vec<_> = composed.ports.into_iter().map(|port| port.value).collect();
    ports.sort();
    let mut service = ServiceSpec {
        kind: if is_job {
            ServiceKind::Job
        } else {
            ServiceKind::Service
        },
        replicas: own_replicas
            .map(|r| r.value)
            .or(composed_replicas)
            .unwrap_or(1),
        placement: placement(&deploy, entry),
        constraints,
        max_replicas_per_node: deploy.max_replicas_per_node,
        reservations: Resources {
            cpu_millis: deploy.reservations.cpu_millis.unwrap_or(0),
            memory_bytes: composed
                .container
                .limits
                .memory_reservation_bytes
                .unwrap_or(0),
        },
        container: composed.container,
        network_mode: composed.network_mode,
        networks,
        ports,
        depends_on: composed
            .depends_on
            .into_iter()
            .map(|dependency| (ServiceName::new(&dependency.name), dependency.value))
            .collect(),
        update: deploy.update,
        rollback: deploy.rollback.unwrap_or_else(default_rollback),
        restart: deploy.restart,
        pull_policy: composed.pull_policy,
        spec_hash: crate::id::SpecHash::new(""),
    };
    service.spec_hash = hash(&service, declared);
    service
}

fn hash(service: &ServiceSpec, declared: &Declared) -> crate::id::SpecHash {
    let networks = service.networks.iter();
    let networks =
        networks.map(|(name, attached)| (name.clone(), (attached, declared.network(name))));
    spec_hash(
        &service.container,
        &service.network_mode,
        &networks.collect(),
        &declared.used(service),
    )
}

fn placement(deploy: &Deploy, entry: Option<Override>) -> Placement {
    let (word, hosts) = match entry {
        Some(entry) => (
            entry.placement.map(|p| p.value),
            entry.hosts.map(|h| h.value),
        ),
        None => (None, None),
    };
    match word {
        Some(PlacementWord::Spread) => Placement::Spread,
        Some(PlacementWord::Pack) => Placement::Pack,
        Some(PlacementWord::Global) => Placement::Global,
        Some(PlacementWord::Hosts) => Placement::Hosts(
            hosts
                .unwrap_or_default()
                .into_iter()
                .map(NodeName::new)
                .collect(),
        ),
        None if deploy.mode.is_global() => Placement::Global,
        None => Placement::Spread,
    }
}

/// Those of `deploy.placement`, and the architecture that `platform` asks for.
fn constraints(deploy: &Deploy, platform: Option<&str>) -> Vec<Constraint> {
    let of_platform = platform.map(|platform| Constraint {
        attribute: Attribute::Arch,
        equal: true,
        value: platform_architecture(platform),
    });
    deploy
        .constraints
        .iter()
        .cloned()
        .chain(of_platform)
        .collect()
}

/// The service's networks: what `jaco.yaml` lists, else what compose lists, else the default.
/// Aliases are compose's in each case.
fn attachments(
    service: &Service,
    entry: Option<&Override>,
) -> BTreeMap<NetworkName, NetworkAttachment> {
    if service.network_mode != NetworkMode::Networks {
        return BTreeMap::new();
    }
    let composed = service
        .networks
        .iter()
        .map(|n| (network_name(&n.name), n.value.clone()));
    let mut composed: BTreeMap<NetworkName, NetworkAttachment> = composed.collect();
    let mut networks = match entry.and_then(|entry| entry.networks.as_ref()) {
        None => composed,
        Some(listed) => {
            let names = listed.iter().map(|network| network_name(&network.value));
            names
                .map(|name| (name.clone(), composed.remove(&name).unwrap_or_default()))
                .collect()
        }
    };
    if networks.is_empty() {
        networks.insert(network_name(DEFAULT_NETWORK), NetworkAttachment::default());
    }
    networks
}
