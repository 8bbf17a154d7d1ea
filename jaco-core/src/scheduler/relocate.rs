//! A second chance elsewhere: what its node alone fails goes to another node, once, before it is
//! given up (spec 05, Health and restarts).
//!
//! Invariants (`tests/relocate_props.rs`): a replica is relocated once; what several nodes fail,
//! and what is bound to its node, stays where it is.

use std::sync::Arc;

use super::restart;
use crate::cluster::deployment::{Phase, Replica, ReplicaState};
use crate::id::ServiceName;
use crate::manifest::spec::{DeploymentSpec, NetworkMode, Placement, ServiceKind, ServiceSpec};

/// True when a replica is to go to another node. `active` are all of its service, itself included.
pub(super) fn is_due(replica: &Replica, service: &ServiceSpec, active: &[&Arc<Replica>]) -> bool {
    let given_up = replica.phase == Phase::Active
        && has_failed(replica)
        && restart::is_exhausted(replica, service);
    let fails_elsewhere = |other: &&Arc<Replica>| {
        other.node != replica.node
            && other.spec_hash == replica.spec_hash
            && (has_failed(other) || other.failures() > 0)
    };
    given_up
        && is_movable(service)
        && replica.fled_from.is_none()
        && replica.move_to.is_none()
        && !active.iter().any(fails_elsewhere)
}

fn has_failed(replica: &Replica) -> bool {
    use ReplicaState::{Degraded, Failed};
    matches!(replica.state(), Failed | Degraded)
}

/// True for a service whose replicas may run on another node than they do.
pub(super) fn is_movable(service: &ServiceSpec) -> bool {
    service.kind == ServiceKind::Service
        && matches!(service.placement, Placement::Spread | Placement::Pack)
        && !service.is_stateful()
        && !matches!(service.network_mode, NetworkMode::Service(_))
}

/// True when others share the network of a service, so that they would have to move with it: it
/// moves when it fails where it is, not to even things out.
pub(super) fn is_followed(spec: &DeploymentSpec, name: &ServiceName) -> bool {
    let modes = spec.services.values().map(|other| &other.network_mode);
    let mut shared = modes.filter_map(|mode| match mode {
        NetworkMode::Service(with) => Some(with),
        _ => None,
    });
    shared.any(|with| with == name)
}
