//! The self-test of the network: tries what the core names, and asks the other members.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use jaco_core::node::checks::{self, Check, Seen, Tables};
use jaco_core::ports::{HostError, Probe, SelfCheck};
use jaco_core::view::check::CheckRow;

use super::drive::Member;

/// How often, and how long apart, a host is looked at before a difference is told.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Checks one member's network.
pub(super) struct MemberChecks {
    pub(super) member: Arc<Member>,
    pub(super) probe: Arc<dyn Probe>,
}

#[async_trait]
impl SelfCheck for MemberChecks {
    async fn check(&self) -> Vec<CheckRow> {
        let state = self.member.consensus.snapshot();
        let node = &self.member.name;
        let wanted = checks::desired(&state, node);
        let rows = wanted.iter().map(|check| async move {
            let seen = self.seen(check).await;
            checks::row(node, check, &seen)
        });
        join_all(rows).await
    }
}

impl MemberChecks {
    async fn seen(&self, check: &Check) -> Seen {
        let failed = |error: HostError| Seen::Failed(error.to_string());
        match check {
            Check::Echo { address, size, .. } => {
                let echoed = self.probe.echo(*address, *size).await;
                echoed.map_or_else(failed, |()| Seen::Fine)
            }
            Check::Name { resolver, name, .. } => {
                let found = self.probe.resolve(*resolver, name).await;
                found.map_or_else(failed, Seen::Addresses)
            }
            Check::Isolation => match self.member.isolated().await {
                Ok(()) => Seen::Fine,
                Err(error) => Seen::Failed(error.to_string()),
            },
            Check::Tables => self.tables().await,
        }
    }

    /// Looks until what the host has is what the state asks for: a change takes its moment.
    async fn tables(&self) -> Seen {
        let mut seen = Seen::Fine;
        for _ in 0..LOOKS {
            seen = match self.differences().await {
                Ok(differences) if differences.is_empty() => return Seen::Fine,
                Ok(differences) => Seen::Failed(differences.join("; ")),
                Err(reason) => Seen::Failed(reason),
            };
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        seen
    }

    async fn differences(&self) -> Result<Vec<String>, String> {
        let member = &self.member;
        let state = member.consensus.snapshot();
        let hosts = member.hosts.addresses(&state).await;
        let failed = |error: HostError| error.to_string();
        let bridges = member.bridges.observe(&member.cluster).await;
        let found = Tables {
            peers: member.mesh.observe().await.map_err(failed)?,
            routes: member.host.routes().await.map_err(failed)?,
            bridges: bridges.map_err(|error| error.to_string())?,
            ruleset: member.firewall.observe().await.map_err(failed)?,
        };
        let resolve = |host: &str| hosts.get(host).copied();
        Ok(checks::differences(
            &state,
            &member.name,
            &member.config.local_rules(),
            resolve,
            &found,
        ))
    }
}
