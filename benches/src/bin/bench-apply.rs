//! `make bench-apply`: from `apply` until the engines show all containers running, beside Docker
//! Swarm on the same three engines, in alternating rounds.
//!
//! The image is present on every engine. Swarm creates the service, JACO applies a deployment;
//! for both the clock stops when the engines themselves list all containers as running. Swarm
//! runs twice: on the engine's default bridge, which gives its containers no name resolution
//! and no neighbours on other hosts, and on an overlay network, which gives them what every
//! container of JACO has.

use std::time::{Duration, Instant};

use anyhow::Result;
use jaco_benches::clusters::{LIMIT, form_swarm, wait_for_containers};
use jaco_benches::{Row, median};
use jaco_testkit::bed::{Bed, Host, poll_until};
use jaco_testkit::project::Project;

const ROUNDS: usize = 5;
/// Swarm's network for the like-for-like rows.
const OVERLAY: &str = "bench-overlay";

fn main() -> Result<()> {
    let counts = std::env::var("JACO_BENCH_REPLICAS").unwrap_or_else(|_| "3,10,30".to_owned());
    let counts: Vec<usize> = counts
        .split(',')
        .filter_map(|count| count.parse().ok())
        .collect();
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
        for round in 0..=ROUNDS {
            let jaco = apply(&bed, &project, &image, count)?;
            let bare = create_service(&bed, &image, count, &[])?;
            let networked = create_service(&bed, &image, count, &["--network", OVERLAY])?;
            // The first round warms caches of all and does not count.
            if round > 0 {
                ours.push(jaco.as_secs_f64());
                swarm.push(bare.as_secs_f64());
                overlay.push(networked.as_secs_f64());
            }
        }
        Row::new(&format!("apply_{count}_replicas"), median(&mut ours), "s")
            .beside("swarm", median(&mut swarm))
            .beside("swarm-overlay", median(&mut overlay))
            .print();
    }
    Ok(())
}

fn apply(bed: &Bed, project: &Project, image: &str, count: usize) -> Result<Duration> {
    project.write(
        "jaco.yaml",
        &format!("deployment: bench\nservices:\n  - {{name: idle, replicas: {count}}}\n"),
    )?;
    project.write(
        "compose.yaml",
        &format!("services:\n  idle:\n    image: {image}\n"),
    )?;
    let path = project.path("jaco.yaml");
    let begin = Instant::now();
    bed.host(1).jaco_text(&["apply", &path, "--no-wait"])?;
    wait_for(bed, "jaco.deployment=bench", count)?;
    let took = begin.elapsed();
    bed.host(1).jaco_text(&["delete", "bench"])?;
    wait_for(bed, "jaco.deployment=bench", 0)?;
    poll_until(LIMIT, "the deployment is forgotten", || {
        bed.host(1)
            .jaco_json(&["get", "deployments"])
            .is_ok_and(|answer| answer["deployments"].as_array().is_some_and(Vec::is_empty))
    })?;
    Ok(took)
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
