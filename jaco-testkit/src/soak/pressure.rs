//! A node that is loaded for real gives one replica to a cooler one, and then there is peace
//! (spec 05, Rebalancing under pressure).

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jaco_core::cluster::deployment::ReplicaState;
use jaco_core::view::status::Status;
use serde_json::Value;

use crate::bed::{Bed, SOON, poll_until};
use crate::project::Project;

const DEPLOYMENT: &str = "burn";
/// Services of one replica: to move one leaves no service uneven.
const SERVICES: usize = 8;
/// The average takes ten minutes to reach the trigger, and a replica rests as long.
const UNTIL_MOVED: Duration = Duration::from_secs(1_800);
/// Longer than a target rests between two replicas that it is given.
const PEACE: Duration = Duration::from_secs(180);

/// Between two looks: to ask takes the CPU from the load.
const PAUSE: Duration = Duration::from_secs(5);

/// What was seen of the move.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Move {
    /// Since the load began.
    pub after: Duration,
    /// As the audit log has it.
    pub event: Value,
}

/// Forms a cluster in which each node takes what its containers use for its own load, and loads
/// node-1 alone.
///
/// # Errors
/// When the load does not come to run.
pub fn prepare(bed: &Bed, project: &Project) -> Result<()> {
    for host in bed.hosts() {
        host.daemon().enclose();
    }
    bed.form_cluster()?;
    let image = bed.image("sleep:1");
    // Few shares: the load takes what is left, and the daemons go on.
    let burner = format!(
        "{{image: '{image}', cpu_shares: 16, \
         entrypoint: [/bin/sh, -c, 'trap \"exit 0\" TERM; while :; do :; done']}}"
    );
    let (mut compose, mut manifest) = (
        "services:\n".to_owned(),
        format!("deployment: {DEPLOYMENT}\nservices:\n"),
    );
    for number in 1..=SERVICES {
        compose += &format!("  burn-{number}: {burner}\n");
        manifest += &format!("  - {{name: burn-{number}, replicas: 1}}\n");
    }
    project.write("compose.yaml", &compose)?;
    project.write("jaco.yaml", &manifest)?;
    let first = bed.host(1);
    for host in &bed.hosts()[1..] {
        first.jaco_text(&["node", "drain", &host.name()])?;
    }
    first.jaco_text(&["apply", &project.path("jaco.yaml"), "--wait"])?;
    for host in &bed.hosts()[1..] {
        first.jaco_text(&["node", "undrain", &host.name()])?;
    }
    let rows = status(bed)?.replicas;
    let loaded = rows.iter().all(|row| row.host.as_str() == first.name());
    ensure!(
        loaded,
        "the load is not on {} alone: {rows:?}",
        first.name()
    );
    Ok(())
}

/// Waits for the move, looks at its reasons, and for a second one that must not come.
///
/// # Errors
/// When there is no move or a second one, or its numbers break a gate.
pub fn one_move(bed: &Bed) -> Result<Move> {
    let begin = Instant::now();
    poll_until(UNTIL_MOVED, "a replica is moved", || {
        thread::sleep(PAUSE);
        moves(bed).is_ok_and(|moves| !moves.is_empty())
    })
    .with_context(|| bed.host(1).jaco_text(&["node", "list"]).unwrap_or_default())?;
    let after = begin.elapsed();
    let event = moves(bed)?.remove(0)["payload"].clone();
    let number = |key: &str| -> Result<f64> {
        let text = event[key].as_str().with_context(|| format!("no {key}"))?;
        Ok(text.parse()?)
    };
    let (source, target) = (number("source_pressure")?, number("target_pressure")?);
    ensure!(event["from"] == bed.host(1).name(), "{event}");
    ensure!(source > 0.85 && source - target >= 0.25, "{event}");
    ensure!(
        number("relief")? >= 0.10 && number("target_after")? < 0.75,
        "{event}"
    );
    poll_until(SOON, "the replica runs on the other node", || {
        status(bed).is_ok_and(|status| {
            let rows = &status.replicas;
            let away = rows.iter().filter(|row| event["to"] == row.host.as_str());
            let running = rows.iter().filter(|row| row.state == ReplicaState::Running);
            away.count() == 1 && running.count() == SERVICES && rows.len() == SERVICES
        })
    })?;
    let moved = Instant::now();
    let mut count = 1;
    poll_until(PEACE + SOON, "it stays at one", || {
        thread::sleep(PAUSE);
        count = moves(bed).map_or(count, |moves| moves.len());
        count > 1 || moved.elapsed() > PEACE
    })?;
    ensure!(count == 1, "{count} moves: {:?}", moves(bed)?);
    Ok(Move { after, event })
}

fn moves(bed: &Bed) -> Result<Vec<Value>> {
    let log = bed
        .host(1)
        .jaco_json(&["audit", "--type", "rebalance_moved"])?;
    Ok(log["events"].as_array().cloned().unwrap_or_default())
}

fn status(bed: &Bed) -> Result<Status> {
    Ok(serde_json::from_value(
        bed.host(1).jaco_json(&["status", DEPLOYMENT])?,
    )?)
}
