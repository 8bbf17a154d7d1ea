//! `make bench-failover`: what the loss of the leader and of a host costs, beside Docker Swarm
//! on the same three hosts. Of five rounds each loses JACO's leader, two lose a host, and one does
//! both to Swarm.
//!
//! Writes: the leading process gets SIGKILL; the clock stops when one of the other nodes has
//! accepted a write of a client. Replicas: the cable of a host that leads neither is pulled; the
//! clock stops when the engines of the other hosts run all replicas. The engines are asked about
//! their networks on the way, which they do not answer while their swarm has no leader: that must
//! not be charged to JACO.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use jaco_benches::clusters::{
    LIMIT, form_swarm, jaco_leader, others, swarm_leader, wait_for_containers, wait_for_jaco,
    wait_for_swarm,
};
use jaco_benches::peer::setting;
use jaco_benches::{Row, median};
use jaco_testkit::bed::{Bed, Host, poll_ok};
use jaco_testkit::project::Project;

const REPLICAS: usize = 6;
const OURS: &str = "jaco.deployment=bench";
const SWARM: &str = "com.docker.swarm.service.name=bench";

pub(crate) fn main() -> Result<()> {
    let rounds = setting("JACO_BENCH_ROUNDS", 10);
    let bed = Bed::builder().name("bfail").hosts(3).build()?;
    bed.form_cluster()?;
    form_swarm(&bed)?;
    let image = bed.image("sleep:1");
    for host in bed.hosts() {
        host.docker_text(&["pull", "-q", &image])?;
    }
    let project = Project::new("bench-failover")?;
    project.write(
        "compose.yaml",
        &format!("services:\n  idle:\n    image: {image}\n"),
    )?;
    let bench = Bench {
        bed,
        image,
        project,
    };
    let (mut writes, mut swarm_writes) = (Vec::new(), Vec::new());
    let (mut moves, mut swarm_moves) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let writing = bench.lose_leader(round)?;
        eprintln!("round {round}: a write after {writing:.2} s");
        writes.push(writing);
        // A host takes longer to lose and to get back than a leader, and Swarm longer than both.
        if round % 5 == 1 || round % 5 == 3 {
            let moving = bench.lose_host()?;
            eprintln!("round {round}: the replicas after {moving:.2} s");
            moves.push(moving);
        }
        if round % 5 == 1 {
            let (writing, moving) = (bench.lose_swarm_leader(round)?, bench.lose_swarm_host()?);
            eprintln!("round {round}: swarm after {writing:.2} s and {moving:.2} s");
            swarm_writes.push(writing);
            swarm_moves.push(moving);
        }
    }
    print("failover_write", &mut writes, &mut swarm_writes);
    print("failover_replicas", &mut moves, &mut swarm_moves);
    Ok(())
}

fn print(name: &str, ours: &mut [f64], swarm: &mut [f64]) {
    let worst = ours.iter().copied().fold(0.0, f64::max);
    Row::new(name, median(ours), "s")
        .beside("swarm", median(swarm))
        .worst(worst)
        .print();
}

struct Bench {
    bed: Bed,
    image: String,
    project: Project,
}

impl Bench {
    /// Seconds from the end of JACO's leader until a write is accepted.
    fn lose_leader(&self, round: usize) -> Result<f64> {
        self.settle()?;
        self.describe("write", 0, round)?;
        let path = self.project.path("jaco.yaml");
        let leader = self.leader()?;
        let other = others(&self.bed, leader)[0];
        kill(leader.daemon().pid())?;
        let took = accepted(|| {
            other.jaco_text(&["apply", &path, "--no-wait"])?;
            Ok(())
        })?;
        leader.start_daemon()?;
        Ok(took)
    }

    /// Seconds from the end of the engine that leads the swarm until a write is accepted.
    fn lose_swarm_leader(&self, round: usize) -> Result<f64> {
        self.settle()?;
        self.create_service(0)?;
        let leader = swarm_leader(&self.bed)?;
        let other = others(&self.bed, leader)[0];
        let label = format!("round={round}");
        let update = [
            "service",
            "update",
            "--detach",
            "--quiet",
            "--label-add",
            &label,
            "bench",
        ];
        kill(leader.engine().pid())?;
        let took = accepted(|| {
            other.docker_text(&update)?;
            Ok(())
        })?;
        leader.engine().kill()?;
        leader.engine().start()?;
        wait_for_swarm(&self.bed)?;
        self.remove_service()?;
        Ok(took)
    }

    /// Seconds from the loss of a host until JACO runs all replicas on the others.
    fn lose_host(&self) -> Result<f64> {
        self.settle()?;
        self.describe("bench", REPLICAS, 0)?;
        let path = self.project.path("jaco.yaml");
        self.bed.host(1).jaco_text(&["apply", &path, "--wait"])?;
        let took = self.moved(self.bystander()?, OURS)?;
        wait_for_jaco(&self.bed)?;
        self.bed.host(1).jaco_text(&["delete", "bench"])?;
        self.wait_for_all(OURS, 0)?;
        Ok(took)
    }

    /// Seconds from the loss of a host until the swarm runs all replicas on the others.
    fn lose_swarm_host(&self) -> Result<f64> {
        self.settle()?;
        self.create_service(REPLICAS)?;
        self.wait_for_all(SWARM, REPLICAS)?;
        let took = self.moved(self.bystander()?, SWARM)?;
        wait_for_swarm(&self.bed)?;
        self.remove_service()?;
        Ok(took)
    }

    fn moved(&self, lost: &Host, label: &str) -> Result<f64> {
        let left = others(&self.bed, lost);
        let before = jaco_benches::clusters::running(lost, label)?;
        ensure!(before > 0, "{} runs nothing of {label}", lost.name());
        lost.link_down()?;
        let begin = Instant::now();
        let waited = wait_for_containers(&left, label, REPLICAS);
        let took = begin.elapsed().as_secs_f64();
        lost.link_up()?;
        waited.map(|()| took)
    }

    fn describe(&self, deployment: &str, count: usize, round: usize) -> Result<()> {
        let service = format!("{{name: idle, replicas: {count}}}");
        self.project.write(
            "jaco.yaml",
            &format!("deployment: {deployment}\nservices:\n  - {service}\n"),
        )?;
        let image = &self.image;
        self.project.write(
            "compose.yaml",
            &format!(
                "services:\n  idle:\n    image: {image}\n    environment: {{N: \"{round}\"}}\n"
            ),
        )?;
        Ok(())
    }

    fn create_service(&self, count: usize) -> Result<()> {
        let replicas = count.to_string();
        let host = self.bed.host(1);
        host.docker_text(&[
            "service",
            "create",
            "--detach",
            "--quiet",
            "--name",
            "bench",
            "--replicas",
            &replicas,
            &self.image,
        ])?;
        Ok(())
    }

    fn remove_service(&self) -> Result<()> {
        self.bed.host(1).docker_text(&["service", "rm", "bench"])?;
        self.wait_for_all(SWARM, 0)
    }

    fn wait_for_all(&self, label: &str, count: usize) -> Result<()> {
        let all: Vec<&Host> = self.bed.hosts().iter().collect();
        wait_for_containers(&all, label, count)
    }

    fn leader(&self) -> Result<&Host> {
        let all: Vec<&Host> = self.bed.hosts().iter().collect();
        jaco_leader(&self.bed, &all)
    }

    /// A host that leads neither JACO nor the swarm.
    fn bystander(&self) -> Result<&Host> {
        let leaders = [self.leader()?.index(), swarm_leader(&self.bed)?.index()];
        let mut hosts = self.bed.hosts().iter();
        let other = hosts.find(|host| !leaders.contains(&host.index()));
        other.context("every host leads")
    }

    fn settle(&self) -> Result<()> {
        wait_for_jaco(&self.bed)?;
        wait_for_swarm(&self.bed)
    }
}

/// Repeats a write until it is accepted; the seconds that took.
fn accepted(write: impl FnMut() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    poll_ok(LIMIT, "a write is accepted", write)?;
    Ok(begin.elapsed().as_secs_f64())
}

/// SIGKILL, and nothing that would take time before the clock starts.
fn kill(pid: Option<i32>) -> Result<()> {
    let pid = pid.context("the leader does not run")?.to_string();
    let status = Command::new("kill").args(["-KILL", &pid]).status()?;
    ensure!(status.success(), "{pid} could not be killed");
    Ok(())
}
