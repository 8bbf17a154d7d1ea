//! Faults in a loop on a bed. Each run prints one line in the form of `make soak`.

pub mod churn;
pub mod leader;
pub mod partition;
pub mod pressure;
pub mod rows;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, Host, cluster_status, poll_until};
use crate::project::Project;

/// How long a cluster may take to agree after the last fault.
const SETTLE: Duration = Duration::from_secs(60);
const DEPLOYMENT: &str = "stream";

/// What a run of [`kills`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Kills {
    pub rounds: usize,
    pub acknowledged: usize,
    pub refused: usize,
    pub lost: usize,
}

/// SIGKILLs random daemons under a stream of applies; then every acknowledged apply must be in
/// every node's audit log, and all nodes must hold the same state.
///
/// # Errors
/// When the cluster does not come back, or the nodes do not agree.
pub fn kills(bed: &Bed, rounds: usize, seed: u64) -> Result<Kills> {
    let project = Project::new("soak-kills")?;
    let image = bed.image("sleep:1");
    let done = AtomicBool::new(false);
    let mut random = Random(seed | 1);
    let (applies, killed) = std::thread::scope(|scope| {
        let applies = scope.spawn(|| stream(bed, &project, &image, &done, seed));
        let killed = (0..rounds).try_for_each(|_| {
            let host = &bed.hosts()[random.below(bed.hosts().len())];
            let pause = Duration::from_millis(200 + random.below(800) as u64);
            kill_and_restart(host, pause)
        });
        done.store(true, Ordering::Relaxed);
        (applies.join(), killed)
    });
    killed?;
    let (acknowledged, refused) = match applies {
        Ok(applies) => applies?,
        Err(_) => anyhow::bail!("the stream of applies panicked"),
    };
    poll_until(SETTLE, "all nodes hold the same state", || {
        agree(bed).unwrap_or(false)
    })?;
    let mut lost = BTreeSet::new();
    for host in bed.hosts() {
        let held = applied_revisions(host)?;
        lost.extend(acknowledged.difference(&held).copied());
    }
    let kills = Kills {
        rounds,
        acknowledged: acknowledged.len(),
        refused,
        lost: lost.len(),
    };
    ensure!(
        lost.is_empty(),
        "acknowledged revisions are missing: {lost:?} ({kills:?})"
    );
    Ok(kills)
}

/// Applies one revision after the other on random hosts until told to stop. Returns the
/// revisions that were acknowledged as new, and how many applies were not.
fn stream(
    bed: &Bed,
    project: &Project,
    image: &str,
    done: &AtomicBool,
    seed: u64,
) -> Result<(BTreeSet<u64>, usize)> {
    let mut random = Random(seed.rotate_left(17) | 1);
    project.write(
        "jaco.yaml",
        &format!("deployment: {DEPLOYMENT}\nservices:\n  - name: idle\n    replicas: 0\n"),
    )?;
    let path = project.path("jaco.yaml");
    let mut acknowledged = BTreeSet::new();
    let mut refused = 0;
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        project.write(
            "compose.yaml",
            &format!(
                "services:\n  idle:\n    image: {image}\n    environment: {{N: \"{number}\"}}\n"
            ),
        )?;
        let host = &bed.hosts()[random.below(bed.hosts().len())];
        match host.jaco_json(&["apply", &path, "--no-wait"]) {
            Ok(answer) if answer["changed"] == true => {
                acknowledged.extend(answer["revision"].as_u64());
            }
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    Ok((acknowledged, refused))
}

fn kill_and_restart(host: &Host, down_for: Duration) -> Result<()> {
    host.kill_daemon()?;
    std::thread::sleep(down_for);
    host.start_daemon()
}

/// True when every node has applied the same index and its state hashes to the same value.
///
/// # Errors
/// When a node does not answer.
pub fn agree(bed: &Bed) -> Result<bool> {
    let mut seen = BTreeSet::new();
    for host in bed.hosts() {
        let status = cluster_status(host)?;
        let of = |key: &str| status[key].to_string();
        seen.insert((of("raft_index"), of("state_hash")));
    }
    Ok(seen.len() == 1)
}

fn applied_revisions(host: &Host) -> Result<BTreeSet<u64>> {
    let log = host.jaco_json(&["audit", "--type", "apply"])?;
    let events = log["events"].as_array().cloned().unwrap_or_default();
    let ours = events
        .iter()
        .filter(|event| event["payload"]["deployment"] == DEPLOYMENT);
    let revision = |event: &Value| event["payload"]["revision"].as_str()?.parse().ok();
    Ok(ours.filter_map(revision).collect())
}

/// A small generator: runs are repeated by their seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap_or(0)
    }
}
