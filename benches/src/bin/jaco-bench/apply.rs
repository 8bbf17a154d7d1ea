//! `make bench-apply`: from `apply` until the engines show all containers running, beside Docker
//! Swarm on the same three engines, in alternating rounds.
//!
//! The image is present on every engine. Swarm creates the service, JACO applies a deployment;
//! for both the clock stops when the engines themselves list all containers as running. Swarm
//! runs twice: on the engine's default bridge, which gives its containers no name resolution
//! and no neighbours on other hosts, and on an overlay network, which gives them what every
//! container of JACO has. A second line says where our time goes: until the revision is committed,
//! until every replica has its node, until the first engine has made a container, and until the
//! last one runs. `JACO_BENCH_REPLICAS=100 JACO_BENCH_ROUNDS=1` measures that size once.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use jaco_benches::clusters::{LIMIT, form_swarm, wait_for_containers};
use jaco_benches::peer::setting;
use jaco_benches::{Row, median};
use jaco_core::time::Timestamp;
use jaco_testkit::bed::{Bed, Host, poll_until};
use jaco_testkit::project::Project;
use serde_json::Value;

/// Swarm's network for the like-for-like rows.
const OVERLAY: &str = "bench-overlay";

pub(crate) fn main() -> Result<()> {
    let counts = std::env::var("JACO_BENCH_REPLICAS").unwrap_or_else(|_| "3,10,30".to_owned());
    let counts: Vec<usize> = counts
        .split(',')
        .filter_map(|count| count.parse().ok())
        .collect();
    let rounds = setting("JACO_BENCH_ROUNDS", 5);
    let bed = Bed::builder().name("bapply").hosts(3).build()?;
    bed.form_cluster()?;
    let image = bed.image("sleep:1");
    for host in bed.hosts() {
        host.docker_text(&["pull", "-q", &image])?;
    }
    form_swarm(&bed)?;
    let network = ["network", "create", "--driver", "overlay", OVERLAY];
    bed.host(1).docker_text(&network)?;
    let project = Project::new("bench-apply")?;
    for count in counts {
        let (mut ours, mut swarm, mut overlay) = (Vec::new(), Vec::new(), Vec::new());
        let mut courses: [Vec<f64>; STAGES.len()] = Default::default();
        for round in 0..=rounds {
            let (jaco, course) = apply(&bed, &project, &image, count)?;
            let bare = create_service(&bed, &image, count, &[])?;
            let networked = create_service(&bed, &image, count, &["--network", OVERLAY])?;
            // The first round warms caches of all and does not count.
            if round > 0 {
                ours.push(jaco.as_secs_f64());
                for (stage, took) in courses.iter_mut().zip(course) {
                    stage.push(took);
                }
                swarm.push(bare.as_secs_f64());
                overlay.push(networked.as_secs_f64());
            }
        }
        Row::new(&format!("apply_{count}_replicas"), median(&mut ours), "s")
            .beside("swarm", median(&mut swarm))
            .beside("swarm-overlay", median(&mut overlay))
            .print();
        let stages = STAGES.iter().zip(&mut courses);
        let stages = stages.map(|(name, took)| format!("{name}={:.3}", median(took)));
        let stages: Vec<String> = stages.collect();
        println!("where apply_{count}_replicas {} unit=s", stages.join(" "));
    }
    Ok(())
}

/// What an apply passes through, in this order.
const STAGES: [&str; 4] = ["commit", "plan", "dispatch", "engine"];

/// How long each stage of an apply took that began at `begin`, in seconds. All clocks are this
/// machine's.
fn course(bed: &Bed, begin: Timestamp) -> Result<[f64; STAGES.len()]> {
    let host = bed.host(1);
    let at = |value: &Value| -> Result<Timestamp> {
        let text = value.as_str().context("no time")?;
        Timestamp::parse(text).with_context(|| format!("{text} is no time"))
    };
    let history = host.jaco_json(&["history", "bench"])?;
    let revisions = history["revisions"].as_array().context("no revisions")?;
    let committed = revisions.iter().map(|revision| at(&revision["at"]));
    let status = host.jaco_json(&["status", "bench"])?;
    let replicas = status["replicas"].as_array().context("no replicas")?;
    let placed = replicas.iter().map(|replica| {
        let id = replica["id"].as_str().context("a replica has an id")?;
        at(&host.jaco_json(&["get", "replica", id])?["placed_at"])
    });
    let (mut created, mut started) = (Vec::new(), Vec::new());
    for host in bed.hosts() {
        let list = host.docker_text(&["ps", "-q", "--filter", "label=jaco.deployment=bench"])?;
        let format = "{{json .Created}} {{json .State.StartedAt}}";
        let mut inspect = vec!["inspect", "--format", format];
        inspect.extend(list.split_whitespace());
        if list.trim().is_empty() {
            continue;
        }
        for line in host.docker_text(&inspect)?.lines() {
            let (creation, start) = line.split_once(' ').context("two times")?;
            created.push(at(&serde_json::from_str(creation)?)?);
            started.push(at(&serde_json::from_str(start)?)?);
        }
    }
    let last = |times: Result<Vec<Timestamp>>| times?.into_iter().max().context("no replica");
    let ends = [
        last(committed.collect())?,
        last(placed.collect())?,
        created.into_iter().min().context("no container")?,
        last(Ok(started))?,
    ];
    let mut from = begin;
    Ok(ends.map(|end| end.since(std::mem::replace(&mut from, end)).as_secs_f64()))
}

/// How long one apply took, and each stage of it.
fn apply(
    bed: &Bed,
    project: &Project,
    image: &str,
    count: usize,
) -> Result<(Duration, [f64; STAGES.len()])> {
    project.write(
        "jaco.yaml",
        &format!("deployment: bench\nservices:\n  - {{name: idle, replicas: {count}}}\n"),
    )?;
    project.write(
        "compose.yaml",
        &format!("services:\n  idle:\n    image: {image}\n"),
    )?;
    let path = project.path("jaco.yaml");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let begin_at = Timestamp(u64::try_from(now.as_millis())?);
    let begin = Instant::now();
    bed.host(1).jaco_text(&["apply", &path, "--no-wait"])?;
    wait_for(bed, "jaco.deployment=bench", count)?;
    let took = begin.elapsed();
    let course = course(bed, begin_at)?;
    bed.host(1).jaco_text(&["delete", "bench"])?;
    wait_for(bed, "jaco.deployment=bench", 0)?;
    poll_until(LIMIT, "the deployment is forgotten", || {
        bed.host(1)
            .jaco_json(&["get", "deployments"])
            .is_ok_and(|answer| answer["deployments"].as_array().is_some_and(Vec::is_empty))
    })?;
    Ok((took, course))
}

fn create_service(bed: &Bed, image: &str, count: usize, options: &[&str]) -> Result<Duration> {
    let replicas = count.to_string();
    let create = [
        "service", "create", "--detach", "--quiet", "--name", "bench",
    ];
    let mut words = [&create[..], &["--replicas", &replicas], options].concat();
    words.push(image);
    let begin = Instant::now();
    bed.host(1).docker_text(&words)?;
    wait_for(bed, "com.docker.swarm.service.name=bench", count)?;
    let took = begin.elapsed();
    bed.host(1).docker_text(&["service", "rm", "bench"])?;
    wait_for(bed, "com.docker.swarm.service.name=bench", 0)?;
    Ok(took)
}

fn wait_for(bed: &Bed, label: &str, count: usize) -> Result<()> {
    let all: Vec<&Host> = bed.hosts().iter().collect();
    wait_for_containers(&all, label, count)
}
