//! Mesh: keeps this node's WireGuard peers and routes what placement asks for.

use std::sync::Arc;
use std::time::Duration;

use jaco_core::node::mesh::{self, Mesh, PeerAction, RouteAction};
use jaco_core::ports::HostError;

use super::{Member, SAFETY_TICK};

/// After a step that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    member.recovered().await;
    let mut settled = None;
    let mut complaint = None;
    loop {
        let state = member.state();
        let hosts = member.hosts.addresses(&state).await;
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
                        tracing::warn!(subsystem = "mesh", %error, "the mesh is incomplete");
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
            member.hosts.forget();
        }
    }
}

async fn reconcile(member: &Member, wanted: &Mesh) -> Result<(), HostError> {
    let end = member.mesh.ensure(wanted.address).await;
    let end = end.inspect_err(|_| member.show_mesh(None))?;
    member.show_mesh(Some(end));
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
