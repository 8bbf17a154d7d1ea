//! Mesh: keeps this node's WireGuard peers and routes what placement asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jaco_core::cluster::ClusterState;
use jaco_core::node::mesh::{self, Mesh, PeerAction, RouteAction};
use jaco_core::ports::HostError;

use super::{Member, SAFETY_TICK};

/// After a step that failed.
const RETRY: Duration = Duration::from_secs(1);
/// A name that does not resolve in this time is no peer until the next look.
const RESOLVE: Duration = Duration::from_secs(2);

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    member.recovered().await;
    let mut hosts = BTreeMap::new();
    let mut settled = None;
    let mut complaint = None;
    loop {
        let state = member.state();
        resolve(&state, &mut hosts).await;
        let wanted = mesh::desired(&state, &member.name, |host| hosts.get(host).copied());
        let mut limit = SAFETY_TICK;
        if let Some(wanted) = wanted.filter(|wanted| settled.as_ref() != Some(wanted)) {
            match reconcile(&member, &wanted).await {
                Ok(()) => {
                    settled = Some(wanted);
                    complaint = None;
                }
                Err(error) => {
                    limit = RETRY;
                    if complaint.as_ref() != Some(&error) {
                        tracing::warn!(subsystem = "mesh", %error, "the mesh is not as it should be");
                        complaint = Some(error);
                    }
                }
            }
        }
        if tokio::time::timeout(limit, member.consensus.applied_after(state.index))
            .await
            .is_err()
        {
            // The safety tick looks at everything, and asks anew for hosts that are names.
            settled = None;
            hosts.clear();
        }
    }
}

async fn reconcile(member: &Member, wanted: &Mesh) -> Result<(), HostError> {
    let end = member.mesh.ensure(wanted.address).await;
    let end = end.inspect_err(|_| {
        member
            .mesh_end
            .send_if_modified(|shown| shown.take().is_some());
    })?;
    member.mesh_end.send_if_modified(|shown| {
        let changed = shown.as_ref() != Some(&end);
        *shown = Some(end);
        changed
    });
    for action in mesh::diff_peers(wanted, &member.mesh.observe().await?) {
        tracing::debug!(subsystem = "mesh", ?action, "peer");
        match action {
            PeerAction::Set(peer) => member.mesh.set(&peer).await?,
            PeerAction::Remove(key) => member.mesh.remove(key).await?,
        }
    }
    for action in mesh::diff_routes(wanted, &member.host.routes().await?) {
        match action {
            RouteAction::Add(to) => member.host.add_route(to, wanted.address).await?,
            RouteAction::Remove(to) => member.host.remove_route(to).await?,
        }
    }
    member.host.ensure_passages(&wanted.passages).await
}

/// Looks up hosts that were not looked up yet.
async fn resolve(state: &ClusterState, known: &mut BTreeMap<String, IpAddr>) {
    for node in state.nodes.values() {
        let host = node.host().trim_matches(['[', ']']);
        if known.contains_key(host) {
            continue;
        }
        let found = match host.parse() {
            Ok(address) => Some(address),
            Err(_) => tokio::time::timeout(RESOLVE, tokio::net::lookup_host((host, 0)))
                .await
                .ok()
                .and_then(Result::ok)
                .and_then(|mut found| found.next())
                .map(|address| address.ip()),
        };
        if let Some(address) = found {
            known.insert(host.to_owned(), address);
        }
    }
}
