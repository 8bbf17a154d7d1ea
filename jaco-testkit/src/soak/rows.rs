//! The soaks of `jaco-lab`: each makes a bed of its own, repeats one kind of fault, and prints a
//! row in the form of `make soak`.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::leader::{Case, Rollouts};
use super::partition::Recovery;
use super::{churn, leader, partition, pressure};
use crate::bed::Bed;
use crate::project::Project;

fn bed() -> Result<Bed> {
    Bed::builder().name("soak").hosts(3).build()
}

/// SIGKILLs random daemons under a stream of applies.
///
/// # Errors
/// When an acknowledged apply is lost, or the bed fails.
pub fn kills(rounds: usize, seed: u64) -> Result<()> {
    let bed = bed()?;
    bed.form_cluster()?;
    let kills = super::kills(&bed, rounds, seed)?;
    println!(
        "soak kills rounds={} failures={} acknowledged={} refused={} seed={seed}",
        kills.rounds, kills.lost, kills.acknowledged, kills.refused
    );
    Ok(())
}

/// SIGKILLs the leader in the middle of each step of a rollout.
///
/// # Errors
/// When a rollout does not end as one without a death, or the bed fails.
pub fn leader_kills(rounds: usize) -> Result<()> {
    let bed = bed()?;
    leader::prepare(&bed)?;
    let mut rollouts = Rollouts::new(&bed)?;
    let mut failures = 0;
    for (round, case) in (1..=rounds).zip(Case::all()) {
        match rollouts.disturb(case) {
            Ok(()) => eprintln!("round {round}: {case}: as undisturbed"),
            Err(error) => {
                failures += 1;
                eprintln!("round {round}: {case}: {error:#}");
            }
        }
    }
    println!("soak leader_kills rounds={rounds} failures={failures}");
    ensure!(
        failures == 0,
        "{failures} rollouts did not end as they should"
    );
    Ok(())
}

/// Cuts a host off and mends the cut.
///
/// # Errors
/// When a rule is broken meanwhile, or the bed fails.
pub fn partitions(rounds: usize) -> Result<()> {
    let bed = bed()?;
    bed.form_cluster()?;
    let project = Project::new("soak-partition")?;
    partition::prepare(&bed, &project)?;
    let mut recoveries = Vec::new();
    for round in 1..=rounds {
        let recovery = partition::cut_and_mend(&bed, &format!("round-{round}"))?;
        eprintln!("round {round}: {recovery:?}");
        recoveries.push(recovery);
    }
    let of = |part: fn(&Recovery) -> Duration| figures(recoveries.iter().map(part));
    let (mesh, names) = (of(|r| r.mesh), of(|r| r.names));
    let (ready, spread) = (of(|r| r.ready), of(|r| r.spread));
    println!(
        "soak partition rounds={rounds} failures=0 mesh_s={mesh} names_s={names} \
         ready_s={ready} spread_s={spread}"
    );
    Ok(())
}

/// Has replicas come and go, and compares what is left with a fresh rendering.
///
/// # Errors
/// When something stays behind, or the bed fails.
pub fn churn(rounds: usize) -> Result<()> {
    let bed = bed()?;
    bed.form_cluster()?;
    let project = Project::new("soak-churn")?;
    churn::prepare(&bed, &project)?;
    churn::as_rendered_anew(&bed)?;
    let seen = churn::churn(&bed, |moves| moves < rounds)?;
    churn::as_rendered_anew(&bed)?;
    let (gone, late) = (seen.named_for.len(), Duration::from_secs(1));
    let late = seen.named_for.iter().filter(|time| **time > late).count();
    println!(
        "soak churn rounds={rounds} failures={late} replicas_gone={gone} named_for_s={}",
        figures(seen.named_for.into_iter())
    );
    ensure!(
        late == 0,
        "{late} replicas were named for longer than a second"
    );
    Ok(())
}

/// Loads one node until a replica is moved, and looks for a second move.
///
/// # Errors
/// When there is none or more than one, or the bed fails.
pub fn pressure() -> Result<()> {
    let bed = bed()?;
    let project = Project::new("soak-pressure")?;
    pressure::prepare(&bed, &project)?;
    let moved = pressure::one_move(&bed)?;
    println!(
        "soak pressure moves=1 failures=0 after_s={:.0} {}",
        moved.after.as_secs_f64(),
        moved.event
    );
    Ok(())
}

/// Median and worst, in seconds.
pub(super) fn figures(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(0.0);
    let worst = times.last().copied().unwrap_or(0.0);
    format!("{median:.2}/{worst:.2}")
}
