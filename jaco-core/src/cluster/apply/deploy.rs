//! Deployments: apply, delete, rollback, scale, and the cluster-wide rules that they obey.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::{certs, rollouts, schedule};
use crate::access::Rights;
use crate::access::entry::Behalf;
use crate::cluster::addresses::{self, Scope};
use crate::cluster::audit::{EventType, record};
use crate::cluster::command::{Applied, Outcome};
use crate::cluster::deployment::{Deployment, KEPT_REVISIONS, Replica, Revision};
use crate::cluster::rollout::{self, Rollout};
use crate::cluster::state::ClusterState;
use crate::error::{Error, ErrorCode};
use crate::id::{DeploymentName, Identity, ServiceName};
use crate::manifest::Bundle;
use crate::manifest::host_access::Granted;
use crate::manifest::spec::{DeploymentSpec, Placement, ServiceKind};

mod rules;

use rules::check;

/// Says whether the cluster as it is now would take this deployment from somebody with these
/// rights; changes nothing.
///
/// # Errors
/// As applying it would give.
pub fn admits(state: &ClusterState, spec: &DeploymentSpec, rights: &Rights) -> Result<(), Error> {
    check(state, spec, &Behalf::with(rights))
}

pub(super) fn apply(
    state: &mut ClusterState,
    behalf: &Behalf,
    bundle: &Arc<Bundle>,
    spec: &Arc<DeploymentSpec>,
) -> Applied {
    check(state, spec, behalf)?;
    let existing = state.deployments.get(&spec.name);
    if let Some(existing) =
        existing.filter(|d| d.spec() == spec && !d.deleting && !rollouts::wants_retry(d))
    {
        return Ok(Outcome::Revision {
            deployment: spec.name.clone(),
            revision: existing.current,
            changed: false,
        });
    }
    note_privileged(state, &behalf.identity, spec);
    let what = (EventType::Apply, "apply");
    revise(state, behalf, what, bundle, spec, behalf.granted())
}

/// Records that privileged containers were let in.
fn note_privileged(state: &mut ClusterState, identity: &Identity, spec: &DeploymentSpec) {
    if let Some(service) = spec.privileged_services().first() {
        let kind = EventType::PrivilegedWorkloadAdmitted;
        let payload: &[(&str, &dyn std::fmt::Display)] =
            &[("deployment", &spec.name), ("service", service)];
        record(state, identity, kind, payload);
    }
}

pub(super) fn rollback(
    state: &mut ClusterState,
    behalf: &Behalf,
    name: &DeploymentName,
    to: Option<u64>,
) -> Applied {
    let deployment = live(state, name)?;
    let number = to.or_else(|| deployment.previous());
    let revision = number.and_then(|number| deployment.revisions.get(&number));
    let Some(revision) = revision.filter(|revision| revision.number != deployment.current) else {
        let message = match to {
            Some(to) => format!("deployment \"{name}\" has no other revision {to} to go back to"),
            None => format!("deployment \"{name}\" has no previous revision"),
        };
        let kept: Vec<String> = deployment.revisions.keys().map(u64::to_string).collect();
        return Err(
            Error::new(ErrorCode::NoPreviousRevision, message).with("revisions", kept.join(", "))
        );
    };
    let (bundle, spec) = (Arc::clone(&revision.bundle), Arc::clone(&revision.spec));
    let revision_granted = revision.granted;
    let cause = format!("rollback to {}", revision.number);
    // The cluster may have changed since: hosts gone, ports and domains taken by others.
    check(state, &spec, behalf)?;
    let granted = match behalf.is_scheduler() {
        true => revision_granted,
        false => behalf.granted(),
    };
    if behalf.is_named {
        note_privileged(state, &behalf.identity, &spec);
    }
    let what = (EventType::Rollback, cause.as_str());
    revise(state, behalf, what, &bundle, &spec, granted)
}

pub(super) fn scale(
    state: &mut ClusterState,
    behalf: &Behalf,
    name: &DeploymentName,
    service: &ServiceName,
    replicas: u32,
) -> Applied {
    let deployment = live(state, name)?;
    let revision = Arc::clone(deployment.revision());
    let mut spec = DeploymentSpec::clone(&revision.spec);
    let Some(scaled) = spec.services.get_mut(service) else {
        return Err(service_not_found(&revision.spec, service));
    };
    if scaled.placement == Placement::Global {
        let message = format!("service \"{service}\" uses placement=global; it cannot be scaled");
        return Err(Error::new(ErrorCode::ValidationFailed, message).with("field", "replicas"));
    }
    if scaled.replicas == replicas {
        return Ok(Outcome::Revision {
            deployment: name.clone(),
            revision: revision.number,
            changed: false,
        });
    }
    scaled.replicas = replicas;
    check(state, &spec, behalf)?;
    let cause = format!("scale {service}={replicas}");
    let what = (EventType::Apply, cause.as_str());
    let (bundle, spec) = (&revision.bundle, Arc::new(spec));
    revise(state, behalf, what, bundle, &spec, behalf.granted())
}

pub(super) fn restart(
    state: &mut ClusterState,
    behalf: &Behalf,
    name: &DeploymentName,
    service: Option<&ServiceName>,
) -> Applied {
    let revision = Arc::clone(live(state, name)?.revision());
    let spec = &revision.spec;
    if let Some(service) = service.filter(|service| !spec.services.contains_key(*service)) {
        return Err(service_not_found(spec, service));
    }
    let long_running = spec.services.iter().filter(|(name, spec)| {
        spec.kind == ServiceKind::Service && service.is_none_or(|one| one == *name)
    });
    let services: Vec<ServiceName> = long_running.map(|(name, _)| name.clone()).collect();
    let cause = service.map_or("restart".to_owned(), |service| format!("restart {service}"));
    let bundle = &revision.bundle;
    // The same again: whoever restarts it needs no more rights than to deploy.
    let what = (EventType::Apply, cause.as_str());
    let applied = revise(state, behalf, what, bundle, spec, revision.granted)?;
    let now = state.clock;
    if let Some(deployment) = state.deployments.get_mut(name) {
        rollout::restart(Arc::make_mut(deployment), &services, now);
    }
    Ok(applied)
}

pub(super) fn delete(
    state: &mut ClusterState,
    identity: &Identity,
    name: &DeploymentName,
) -> Applied {
    let mut deployment = Arc::clone(live(state, name)?);
    let changed = Arc::make_mut(&mut deployment);
    changed.deleting = true;
    changed.ground = state.index;
    let superseded = rollout::abort(changed);
    state.deployments.insert(name.clone(), deployment);
    rollouts::superseded(state, name, &superseded);
    schedule::release_unused_subnets(state, name);
    certs::sync(state, name);
    record(state, identity, EventType::Delete, &[("deployment", name)]);
    Ok(Outcome::Done)
}

/// A deployment that is not on its way out.
fn live<'a>(state: &'a ClusterState, name: &DeploymentName) -> Result<&'a Arc<Deployment>, Error> {
    let deployment = state.deployment(name)?;
    if deployment.deleting {
        let message = format!("deployment \"{name}\" is being deleted");
        return Err(Error::new(ErrorCode::DeploymentNotFound, message));
    }
    Ok(deployment)
}

/// The error for a service that a deployment does not have, listing those it has.
pub fn service_not_found(spec: &DeploymentSpec, service: &ServiceName) -> Error {
    let declared: Vec<&str> = spec.services.keys().map(ServiceName::as_str).collect();
    let message = format!("deployment \"{}\" has no service \"{service}\"", spec.name);
    Error::new(ErrorCode::ServiceNotFound, message).with("services", declared.join(", "))
}

/// Makes a new revision current.
fn revise(
    state: &mut ClusterState,
    behalf: &Behalf,
    (event, cause): (EventType, &str),
    bundle: &Arc<Bundle>,
    spec: &Arc<DeploymentSpec>,
    granted: Granted,
) -> Applied {
    let (name, identity) = (&spec.name, &behalf.identity);
    let mut deployment = state.deployments.get(name).map_or_else(
        || {
            Arc::new(Deployment {
                name: name.clone(),
                current: 0,
                revisions: OrdMap::new(),
                deleting: false,
                counters: BTreeMap::new(),
                rollouts: BTreeMap::new(),
                held: BTreeMap::new(),
                ground: 0,
                replicas: OrdMap::new(),
            })
        },
        Arc::clone,
    );
    let changed = Arc::make_mut(&mut deployment);
    let number = changed.current + 1;
    changed.current = number;
    changed.deleting = false;
    changed.ground = state.index;
    let revision = Revision {
        number,
        at: state.clock,
        identity: identity.clone(),
        cause: cause.to_owned(),
        bundle: Arc::clone(bundle),
        spec: Arc::clone(spec),
        granted,
    };
    changed.revisions.insert(number, Arc::new(revision));
    carry_over(changed);
    let superseded = rollout::begin(changed, number - 1, state.clock);
    state.deployments.insert(name.clone(), deployment);
    rollouts::superseded(state, name, &superseded);
    prune_revisions(state, name);
    for network in spec.networks.keys() {
        let scope = Scope {
            deployment: name.clone(),
            network: network.clone(),
        };
        if addresses::ensure_subnet(state, &scope)? {
            let subnet = state
                .subnets
                .get(&scope)
                .map(ToString::to_string)
                .unwrap_or_default();
            let payload: &[(&str, &dyn std::fmt::Display)] =
                &[("network", &scope), ("subnet", &subnet)];
            record(state, identity, EventType::SubnetAllocated, payload);
        }
    }
    schedule::release_unused_subnets(state, name);
    certs::sync(state, name);
    let payload: &[(&str, &dyn std::fmt::Display)] = &[
        ("deployment", name),
        ("revision", &number),
        ("cause", &cause),
    ];
    record(state, identity, event, payload);
    Ok(Outcome::Revision {
        deployment: name.clone(),
        revision: number,
        changed: true,
    })
}

/// Replicas whose container the new revision would not change belong to it at once; failed
/// ones get a new start, because an apply is the operator's word that the cause is gone.
fn carry_over(deployment: &mut Deployment) {
    let spec = Arc::clone(deployment.spec());
    let current = deployment.current;
    let replicas: Vec<Arc<Replica>> = deployment.replicas.values().cloned().collect();
    for mut replica in replicas {
        let wanted = spec.services.get(&replica.service);
        if wanted.is_some_and(|wanted| wanted.spec_hash == replica.spec_hash) {
            let changed = Arc::make_mut(&mut replica);
            changed.revision = current;
            changed.restarts.consecutive = 0;
            changed.fled_from = None;
            deployment.replicas.insert(replica.id.clone(), replica);
        }
    }
}

/// Keeps the newest revisions, and those that a replica still runs.
pub(super) fn prune_revisions(state: &mut ClusterState, name: &DeploymentName) {
    let Some(deployment) = state.deployments.get(name) else {
        return;
    };
    if deployment.revisions.len() <= KEPT_REVISIONS {
        return;
    }
    let surplus = deployment.revisions.len() - KEPT_REVISIONS;
    let in_use = |number: &u64| {
        let rolled_from = |r: &Rollout| r.is_moving() && r.from == *number;
        deployment.replicas.values().any(|r| r.revision == *number)
            || deployment.rollouts.values().any(rolled_from)
    };
    let dropped: Vec<u64> = deployment
        .revisions
        .keys()
        .take(surplus)
        .copied()
        .filter(|n| !in_use(n))
        .collect();
    let mut deployment = Arc::clone(deployment);
    for number in dropped {
        Arc::make_mut(&mut deployment).revisions.remove(&number);
    }
    state.deployments.insert(name.clone(), deployment);
}
