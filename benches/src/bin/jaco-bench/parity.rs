//! `make parity`: every compose file of `benches/parity` with docker-compose on one engine and
//! with JACO on another, and what the two engines show.
//!
//! Ends with a status other than zero when a difference is not on the list, when one on the list
//! does not occur, and when a key that JACO honours is in no file and not on the list.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use jaco_benches::parity::{Difference, Listed, Topic, differences, topics};
use jaco_core::manifest::classify::honoured_keys;
use jaco_testkit::bed::Bed;

pub(crate) fn main() -> Result<()> {
    let listed = Listed::read()?;
    let bed = Bed::builder().name("parity").hosts(2).build()?;
    let (ours, theirs) = (bed.host(1), bed.host(2));
    ours.start_daemon()?;
    ours.jaco_text(&["cluster", "init", "--no-systemd-enable"])?;
    let work = bed.host(1).directory().join("work");
    fs::create_dir_all(&work)?;
    let image = bed.image("sleep:1");

    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    let folders = topics()?;
    for folder in &folders {
        let topic = Topic::new(folder, &image, &work)?;
        used.append(&mut topic.keys(ours)?);
        let (their, our) = (topic.theirs(theirs)?, topic.ours(ours)?);
        ensure!(
            their.keys().eq(our.keys()),
            "{}: services {:?} there and {:?} here",
            topic.name(),
            their.keys(),
            our.keys()
        );
        for (service, facts) in &their {
            let place = format!("{}/{service}", topic.name());
            found.extend(differences(&place, facts, &our[service]));
        }
        println!("{:10} {} services compared", topic.name(), their.len());
    }
    drop(bed);
    let unexpected = report(&listed, &found, &used, folders.len());
    ensure!(
        unexpected == 0,
        "{unexpected} things are not as they are listed"
    );
    Ok(())
}

/// Prints everything that there is to say; how much of it is not as it should be.
fn report(listed: &Listed, found: &[Difference], used: &BTreeSet<String>, files: usize) -> usize {
    println!("\n{:10} {:20} {:36} seen", "", "where", "field");
    let mut unexpected = 0;
    for row in &listed.differences {
        let seen = found.iter().filter(|difference| row.covers(difference));
        let count = seen.count();
        let word = if count == 0 { "STALE" } else { "listed" };
        println!("{word:10} {:20} {:36} {count}", row.place, row.field);
        unexpected += usize::from(count == 0);
    }
    let is_meant = |difference: &Difference| {
        let mut rows = listed.differences.iter();
        rows.any(|row| row.covers(difference))
    };
    let side = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "-".to_owned());
    for difference in found.iter().filter(|difference| !is_meant(difference)) {
        println!(
            "UNEXPECTED {:20} {:36} docker-compose: {} jaco: {}",
            difference.place,
            difference.field,
            side(&difference.theirs),
            side(&difference.ours),
        );
        unexpected += 1;
    }
    for key in honoured_keys() {
        let untested = listed.untested.contains(&key);
        if used.contains(&key) == untested {
            let state = if untested {
                "listed and used"
            } else {
                "in no file"
            };
            println!("KEY        {key}: {state}");
            unexpected += 1;
        }
    }
    println!(
        "parity files={files} keys={} differences={} unexpected={unexpected}",
        used.len(),
        found.len()
    );
    unexpected
}
