//! Membership: on the leader, keeps the raft group equal to the members in the state.

use std::sync::Arc;
use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::cluster::members::{self, Action, CaughtUp};

use super::Member;

const INTERVAL: Duration = Duration::from_millis(200);

/// Runs for as long as the daemon is a member.
pub(crate) async fn run(member: Arc<Member>) {
    tracing::info!(subsystem = "cluster", "membership reconciler started");
    let mut caught_up = CaughtUp::default();
    loop {
        let status = member.consensus.status();
        if status.is_leader() {
            let now = member.clock.now();
            caught_up.update(&status, now);
            let limit = member.config.node_unreachable_after;
            let actions = members::plan(&member.state(), &status, &caught_up, limit, now);
            for action in actions {
                carry_out(&member, action).await;
            }
        } else {
            caught_up = CaughtUp::default();
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn carry_out(member: &Member, action: Action) {
    let done = match action {
        Action::AddLearner {
            member: id,
            node,
            address,
        } => {
            tracing::info!(subsystem = "cluster", %node, "adding member to the raft group");
            member.consensus.add_learner(id, node, address).await
        }
        Action::ChangeVoters {
            voters,
            promoted,
            drop_others,
        } => {
            for node in promoted {
                tracing::info!(subsystem = "cluster", %node, "promoting nonvoter to voter");
            }
            member.consensus.change_members(voters, drop_others).await
        }
        Action::SetCondition { node, condition } => {
            tracing::info!(subsystem = "cluster", %node, ?condition, "node condition changed");
            member
                .decree(Command::NodeCondition { node, condition })
                .await;
            Ok(())
        }
    };
    if let Err(error) = done {
        tracing::debug!(subsystem = "cluster", %error, "a membership step will be tried again");
    }
}
