//! Firewall: keeps the packet filter's table what the state asks for, and says whether it is.

use std::sync::Arc;
use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::cluster::node::Isolation;
use jaco_core::node::firewall::{self, Ruleset, Step};
use jaco_core::ports::HostError;

use super::{Member, SAFETY_TICK};

/// After a step that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Changes by others that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    member.recovered().await;
    let local = member.config.local_rules();
    let mut verified: Option<Ruleset> = None;
    let mut look = true;
    loop {
        let state = member.state();
        let hosts = member.hosts.addresses(&state).await;
        let Some(wanted) = firewall::desired(&state, &local, |host| hosts.get(host).copied())
        else {
            member.woken(state.index, SAFETY_TICK).await;
            continue;
        };
        let mut limit = SAFETY_TICK;
        if look || verified.as_ref() != Some(&wanted) {
            let outcome = reconcile(&member, &wanted, verified.as_ref()).await;
            let isolation = firewall::isolation(&outcome);
            if isolation == Isolation::Verified {
                verified = Some(wanted);
            } else {
                verified = None;
                limit = RETRY;
            }
            member.show_isolation(isolation);
        }
        let index = verified.is_some().then_some(state.index);
        member.isolated_at.send_replace(index);
        look = tokio::select! {
            () = member.consensus.applied_after(state.index) => false,
            () = member.firewall.changed() => {
                tokio::time::sleep(DEBOUNCE).await;
                true
            }
            () = tokio::time::sleep(limit) => {
                member.hosts.forget();
                true
            }
        };
    }
}

/// Brings the table to what is wanted; the differences that are left.
async fn reconcile(
    member: &Member,
    wanted: &Ruleset,
    verified: Option<&Ruleset>,
) -> Result<Vec<String>, HostError> {
    let found = member.firewall.observe().await?;
    let step = firewall::step(wanted, verified, &found);
    if step == Step::Nothing {
        return Ok(Vec::new());
    }
    member.firewall.replace(wanted).await?;
    let left = wanted.differences(&member.firewall.observe().await?);
    if let Step::Repair(diff) = step
        && left.is_empty()
    {
        tracing::warn!(
            subsystem = "firewall",
            ?diff,
            "the table was changed by others; repaired"
        );
        let node = member.name.clone();
        member
            .report(Command::IsolationRepaired { node, diff })
            .await;
    }
    Ok(left)
}
