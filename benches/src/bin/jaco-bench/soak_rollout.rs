//! `make soak-rollout`: rolling updates, scaling, drains and the loss of the leader under the
//! load of `wrk` on every host, round after round; no request may fail (spec 05).
//!
//! A daemon that is killed takes its connections along: in the phase of the killed leader the
//! load is on the two other hosts. Its ports are kept, so that a restart is borne by the host
//! itself. A request that takes five seconds is in flight in each phase. Failures are answers
//! with a status above 399, connections that break, and requests that take longer than ten
//! seconds.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use jaco_benches::clusters::{LIMIT, jaco_leader, others, wait_for_jaco};
use jaco_benches::peer::{install, setting};
use jaco_benches::web;
use jaco_testkit::bed::{Bed, Host, poll_until};
use jaco_testkit::project::Project;

const DOMAIN: &str = "web.example.com";
const IMAGES: [&str; 2] = ["fast:1", "fast:2"];
const CONNECTIONS: &str = "4";
/// Longer than any phase; the load is ended by a signal.
const DURATION: &str = "600s";

pub(crate) fn main() -> Result<()> {
    let rounds = setting("JACO_SOAK_ROUNDS", 10);
    install(&web::PACKAGES)?;
    install(&["wrk"])?;
    let bed = Bed::builder().name("sroll").hosts(3).build()?;
    for host in bed.hosts() {
        host.daemon().manage()?;
    }
    bed.form_cluster()?;
    wait_for_jaco(&bed)?;
    let mut soak = Soak {
        project: describe(&bed)?,
        bed: &bed,
        phases: BTreeMap::new(),
    };
    soak.apply()?;
    for round in 1..=rounds {
        soak.round(round)?;
        eprintln!("round {round}: {} failures so far", soak.total().failures);
    }
    for (name, phase) in &soak.phases {
        println!(
            "phase {name} failures={} requests={} rate={:.0}",
            phase.failures,
            phase.requests,
            phase.rate()
        );
    }
    let total = soak.total();
    println!(
        "soak rollout rounds={rounds} failures={} requests={} rate={:.0}",
        total.failures,
        total.requests,
        total.rate()
    );
    ensure!(total.failures == 0, "{} requests failed", total.failures);
    Ok(())
}

/// What the visitors of one kind of phase saw, over all rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    requests: u64,
    failures: u64,
    seconds: f64,
}

impl Phase {
    /// Requests per second.
    fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.seconds += other.seconds;
    }
}

struct Soak<'a> {
    bed: &'a Bed,
    project: Project,
    phases: BTreeMap<&'static str, Phase>,
}

impl Soak<'_> {
    fn round(&mut self, round: usize) -> Result<()> {
        let bed = self.bed;
        let all: Vec<&Host> = bed.hosts().iter().collect();
        let first = bed.host(1);
        let image = IMAGES[round % 2];
        write_image(bed, &self.project, image)?;
        self.phase("update", &all, |soak| soak.apply())?;
        for (name, count) in [("scale_to_6", 6), ("scale_to_2", 2), ("scale_to_3", 3)] {
            self.phase(name, &all, |_| {
                first.jaco_text(&["scale", &format!("web/web={count}")])?;
                settles(first, count)
            })?;
        }
        let drained = bed.host(1 + round % bed.hosts().len());
        self.phase("drain", &all, |_| {
            first.jaco_text(&["node", "drain", &drained.name()])?;
            settles(first, 3)
        })?;
        self.phase("undrain", &all, |_| {
            first.jaco_text(&["node", "undrain", &drained.name()])?;
            wait_for_jaco(bed)?;
            settles(first, 3)
        })?;
        for host in &all {
            self.phase("daemon_restarted", &all, |_| {
                host.stop_daemon()?;
                host.start_daemon()?;
                wait_for_jaco(bed)
            })?;
        }
        let leader = jaco_leader(bed, &all)?;
        let left = others(bed, leader);
        self.phase("leader_killed", &left, |_| {
            leader.kill_daemon()?;
            poll_until(LIMIT, "another node leads", || {
                jaco_leader(bed, &left).is_ok_and(|new| new.index() != leader.index())
            })?;
            leader.start_daemon()?;
            wait_for_jaco(bed)?;
            settles(first, 3)
        })
    }

    /// Does `work` while visitors and one slow request are on `hosts`, and adds up what they saw.
    fn phase(
        &mut self,
        name: &'static str,
        hosts: &[&Host],
        work: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let begin = Instant::now();
        let loads: Result<Vec<Load>> = hosts.iter().map(|host| Load::start(host)).collect();
        let loads = loads?;
        let patient = hosts[0];
        let (worked, slow) = thread::scope(|scope| {
            let slow = scope.spawn(|| slow_request(patient));
            (work(self), slow.join().unwrap_or(Ok(false)))
        });
        let mut seen = Phase::default();
        for load in loads {
            let (requests, failures) = load.end()?;
            seen.requests += requests;
            seen.failures += failures;
        }
        seen.requests += 1;
        seen.seconds = begin.elapsed().as_secs_f64();
        match slow {
            Ok(true) => {}
            other => {
                eprintln!("{name}: the slow request failed: {other:?}");
                seen.failures += 1;
            }
        }
        if seen.failures > 0 {
            eprintln!("{name}: {} failures", seen.failures);
        }
        self.phases.entry(name).or_default().add(seen);
        worked.with_context(|| format!("phase {name}"))
    }

    fn apply(&self) -> Result<()> {
        let path = self.project.path("jaco.yaml");
        self.bed.host(1).jaco_text(&["apply", &path, "--wait"])?;
        Ok(())
    }

    fn total(&self) -> Phase {
        let mut total = Phase::default();
        for phase in self.phases.values() {
            total.add(*phase);
        }
        total
    }
}

fn describe(bed: &Bed) -> Result<Project> {
    let project = Project::new("soak-rollout")?;
    project.write(
        "jaco.yaml",
        &format!(
            "deployment: web\nroutes:\n  \
             - {{domain: {DOMAIN}, service: web, port: 80, tls: off}}\nservices:\n  \
             - {{name: web, replicas: 3}}\n"
        ),
    )?;
    for (image, from) in IMAGES.into_iter().zip(["web:1", "web:2"]) {
        web::build(bed, from, image)?;
    }
    write_image(bed, &project, IMAGES[0])?;
    Ok(project)
}

fn write_image(bed: &Bed, project: &Project, image: &str) -> Result<()> {
    let image = bed.image(image);
    project.write(
        "compose.yaml",
        &format!("services:\n  web:\n    image: {image}\n"),
    )?;
    Ok(())
}

/// Waits until exactly `count` replicas are left and all of them run.
fn settles(host: &Host, count: usize) -> Result<()> {
    poll_until(LIMIT, &format!("{count} replicas run"), || {
        let status = host.jaco_json(&["status", "web"]).unwrap_or_default();
        let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
        replicas.len() == count && replicas.iter().all(|one| one["state"] == "running")
    })
}

/// One request that takes five seconds; true when it was served.
fn slow_request(host: &Host) -> Result<bool> {
    let answer = host.http_get(DOMAIN, "127.0.0.1:80", "/cgi-bin/slow?5")?;
    Ok(answer.status == 200)
}

/// A running `wrk` on one host.
struct Load {
    host: String,
    child: Child,
}

impl Load {
    fn start(host: &Host) -> Result<Self> {
        let mut command = Command::new("wrk");
        command
            .args(["-t", "1", "-c", CONNECTIONS, "-d", DURATION])
            .args(["--timeout", "10s", "-H", &format!("Host: {DOMAIN}")])
            .arg("http://127.0.0.1/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = host.namespace().enter(|| command.spawn())?;
        Ok(Self {
            host: host.name(),
            child: child.context("cannot run wrk")?,
        })
    }

    /// Ends it as Ctrl-C does; how many requests it made, and how many of them failed.
    fn end(self) -> Result<(u64, u64)> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-INT", &pid]).status()?;
        ensure!(status.success(), "wrk ended early on {}", self.host);
        let output = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (requests, failures) = read_summary(&text)
            .with_context(|| format!("no summary from wrk on {}: {text}", self.host))?;
        if failures > 0 {
            eprintln!("{}: {text}", self.host);
        }
        Ok((requests, failures))
    }
}

/// Requests and failures from what wrk prints at its end.
fn read_summary(text: &str) -> Option<(u64, u64)> {
    let lines = || text.lines().map(str::trim);
    let requests = lines().find_map(|line| line.split_once(" requests in "))?;
    let requests: u64 = requests.0.parse().ok()?;
    let sockets = lines().find_map(|line| line.strip_prefix("Socket errors: "));
    let broken: u64 = sockets
        .unwrap_or_default()
        .split(", ")
        .filter_map(|kind| kind.split_once(' ')?.1.parse::<u64>().ok())
        .sum();
    let refused = lines().find_map(|line| line.strip_prefix("Non-2xx or 3xx responses: "));
    let refused: u64 = refused.map_or(Some(0), |count| count.parse().ok())?;
    Some((requests + broken, broken + refused))
}

#[cfg(test)]
mod tests {
    use super::read_summary;

    #[test]
    fn a_summary_counts_what_failed() {
        let text = "  100 requests in 2.00s, 1MB read\n  Socket errors: connect 1, read 2, \
                    write 0, timeout 3\n  Non-2xx or 3xx responses: 4\nRequests/sec: 50\n";
        assert_eq!(read_summary(text), Some((106, 10)));
        assert_eq!(
            read_summary("  7 requests in 1.00s, 1MB read\n"),
            Some((7, 0))
        );
        assert_eq!(read_summary("unable to connect"), None);
    }
}
