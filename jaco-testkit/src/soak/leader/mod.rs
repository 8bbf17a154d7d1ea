//! The leader dies in the middle of each step of a rollout, which must end as it does when nobody
//! dies (spec 05, Rolling updates: saved in state, so that a new leader continues it).
//!
//! Every status that a follower publishes meanwhile is checked: never fewer replicas run than the
//! floor says, never are there more than the order of the update allows.

mod case;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use anyhow::{Context, Result, ensure};
use jaco_core::cluster::deployment::ReplicaState;
use jaco_core::cluster::rollout::RolloutStatus;
use jaco_core::id::{ReplicaId, ServiceName};
use jaco_core::view::replica::ReplicaRow;
use jaco_core::view::status::{DeploymentStatus, Status};
use serde_json::json;

use case::Progress;
pub use case::{Case, Moment, Order};

use super::agree;
use crate::bed::{Bed, Host, SOON, StatusWatch, cluster_status, poll_ok, poll_until};
use crate::project::Project;

const DEPLOYMENT: &str = "web";
const REPLICAS: usize = 3;
const DOMAIN: &str = "web.example.com";
/// How a rollout of each kind may end, as events.
const EVENTS: &str = "rollout_completed,rollout_aborted,rollout_invariant_hold";

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Revisions that it took.
    revisions: u64,
    rollout: RolloutStatus,
    /// What is told of it, by type.
    events: BTreeMap<String, usize>,
    /// Whether every host shows the page of the new revision.
    is_new: bool,
}

/// Makes a cluster in which a rollout can be watched step by step: a daemon that is killed is not
/// called lost before it is back.
///
/// # Errors
/// When the bed does not come up.
pub fn prepare(bed: &Bed) -> Result<()> {
    for host in bed.hosts() {
        host.write_config(&[("node_unreachable_after", json!("60s"))])?;
    }
    bed.form_cluster()?;
    poll_until(SOON, "three voters", || {
        let statuses = bed.hosts().iter().filter_map(|h| cluster_status(h).ok());
        let mut counts = statuses.map(|status| {
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().filter(|n| n["suffrage"] == "voter").count()
        });
        counts.any(|count| count == REPLICAS)
    })
}

/// Rollouts on one bed, with and without deaths.
pub struct Rollouts<'a> {
    bed: &'a Bed,
    project: Project,
    round: usize,
    /// The image that runs, and the round that it came with.
    running: (&'static str, usize),
    /// How a rollout of each order ends by itself, when it fails and when it does not.
    undisturbed: Vec<(Order, bool, End)>,
}

impl<'a> Rollouts<'a> {
    /// On a bed of [`prepare`].
    ///
    /// # Errors
    /// When the project's folder cannot be made.
    pub fn new(bed: &'a Bed) -> Result<Self> {
        Ok(Self {
            bed,
            project: Project::new("soak-leader")?,
            round: 0,
            running: ("web:1", 0),
            undisturbed: Vec::new(),
        })
    }

    /// One rollout whose leader dies. It must end like one whose leader lives, which is run
    /// first when none of its kind was.
    ///
    /// # Errors
    /// When it does not, or the floor or the ceiling was broken on the way.
    pub fn disturb(&mut self, case: Case) -> Result<()> {
        let alike = |(order, fails, _): &&(Order, bool, End)| {
            (*order, *fails) == (case.order, case.fails())
        };
        let expected = match self.undisturbed.iter().find(alike) {
            Some((.., end)) => end.clone(),
            None => {
                let end = self.run(case, false)?;
                let known = (case.order, case.fails(), end.clone());
                self.undisturbed.push(known);
                end
            }
        };
        let end = self.run(case, true)?;
        ensure!(end == expected, "ends as {end:?} and not as {expected:?}");
        Ok(())
    }

    fn run(&mut self, case: Case, dies: bool) -> Result<End> {
        self.round += 1;
        let (image, round) = self.running;
        // What a failed round leaves is made anew in the next.
        self.running = ("web:1", 0);
        self.write(case.order, image, round)?;
        self.apply(self.bed.host(1), "--wait")?;
        self.at_rest()?;
        let new = match (case.fails(), image) {
            (true, _) => "web:broken",
            (false, "web:1") => "web:2",
            (false, _) => "web:1",
        };
        let leader = leader(self.bed)?;
        let others = self.bed.hosts().iter();
        let mut others = others.filter(|host| host.index() != leader.index());
        let (watcher, silent) = others.next().zip(others.next()).context("three hosts")?;
        let mut rollout = Rollout {
            leader,
            watcher,
            silent,
            is_silent: false,
            case,
            seen: StatusWatch::start(watcher, DEPLOYMENT)?,
        };
        let (_, before) = rollout.seen.next(SOON)?;
        let before = before.deployments.first().context("a deployment")?;
        let (before, since) = (before.applied_revision, audit_index(watcher)?);
        self.write(case.order, new, self.round)?;
        let ended = rollout.go(self, dies, before);
        rollout.break_silence()?;
        let (revision, status) = ended?;
        self.at_rest()?;
        self.compare_containers()?;
        let is_new = self.page()? == new.replace(':', " ");
        self.running = match is_new {
            true => (new, self.round),
            false => (image, round),
        };
        Ok(End {
            revisions: revision - before,
            rollout: status,
            events: events(watcher, since)?,
            is_new,
        })
    }

    fn write(&self, order: Order, image: &str, round: usize) -> Result<()> {
        let image = self.bed.image(image);
        let order = order.word();
        // The second in which nothing listens yet is what is seen as `starting`.
        let config = format!("{{order: {order}, monitor: 1s}}");
        self.project.write(
            "compose.yaml",
            &format!(
                "services:\n  web:\n    image: {image}\n    \
                 environment: {{START_DELAY: \"1\", ROUND: \"{round}\"}}\n    \
                 deploy: {{update_config: {config}, rollback_config: {config}}}\n"
            ),
        )?;
        self.project.write(
            "jaco.yaml",
            &format!(
                "deployment: {DEPLOYMENT}\nroutes:\n  \
                 - {{domain: {DOMAIN}, service: web, port: 80, tls: off}}\nservices:\n  \
                 - {{name: web, replicas: {REPLICAS}}}\n"
            ),
        )?;
        Ok(())
    }

    fn apply(&self, host: &Host, wait: &str) -> Result<()> {
        let path = self.project.path("jaco.yaml");
        host.jaco_text(&["apply", &path, wait])?;
        Ok(())
    }

    /// Waits until all nodes say the same, and that is a deployment at rest.
    fn at_rest(&self) -> Result<()> {
        poll_until(SOON, "the cluster is at rest", || {
            let status = |host: &Host| status(host).ok().and_then(|s| settled(&s, 0));
            agree(self.bed).unwrap_or(false)
                && self.bed.hosts().iter().all(|host| status(host).is_some())
        })
    }

    /// The engines run just the replicas of the state, each once and where the state has it.
    fn compare_containers(&self) -> Result<()> {
        let wanted: BTreeSet<(String, String)> = status(self.bed.host(1))?
            .replicas
            .iter()
            .map(|row| (row.host.to_string(), row.id.to_string()))
            .collect();
        poll_ok(SOON, "the engines run what the state has", || {
            let filter = format!("label=jaco.deployment={DEPLOYMENT}");
            let words = ["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"];
            let mut there = Vec::new();
            for host in self.bed.hosts() {
                let names = host.docker_text(&words)?;
                there.extend(names.lines().map(|name| (host.name(), name.to_owned())));
            }
            let count = there.len();
            let there: BTreeSet<_> = there.into_iter().collect();
            ensure!(
                there.len() == count && there == wanted,
                "{there:?}, not {wanted:?}"
            );
            Ok(())
        })
    }

    /// The version that the page says, the same through every host.
    fn page(&self) -> Result<String> {
        let mut pages = BTreeSet::new();
        for host in self.bed.hosts() {
            let page = poll_ok(SOON, "the page is served", || {
                let answer = host.http_get(DOMAIN, "127.0.0.1:80", "/")?;
                ensure!(answer.status == 200, "{}: {}", host.name(), answer.status);
                Ok(answer.text())
            })?;
            let words: Vec<&str> = page.split_whitespace().take(2).collect();
            pages.insert(words.join(" "));
        }
        ensure!(pages.len() == 1, "the hosts show {pages:?}");
        Ok(pages.into_iter().next().unwrap_or_default())
    }
}

/// One rollout under way.
struct Rollout<'a> {
    leader: &'a Host,
    watcher: &'a Host,
    /// The follower that falls silent when a barrier is to last.
    silent: &'a Host,
    is_silent: bool,
    case: Case,
    seen: StatusWatch,
}

impl Rollout<'_> {
    /// Applies and follows the rollout to its end, which it gives with the revision. The leader
    /// dies on the way when it is to.
    fn go(
        &mut self,
        rollouts: &Rollouts<'_>,
        dies: bool,
        before: u64,
    ) -> Result<(u64, RolloutStatus)> {
        let mut progress = Progress::new(self.case, before);
        let mut lives = true;
        if dies && progress.wants_silence(&status(self.watcher)?) {
            self.fall_silent()?;
        }
        rollouts.apply(self.watcher, "--no-wait")?;
        loop {
            let (_, status) = self.seen.next(SOON)?;
            self.check(&status)?;
            progress.see(&status);
            if dies && lives {
                if progress.wants_silence(&status) {
                    self.fall_silent()?;
                }
                if let Some(row) = progress.reached(&status) {
                    lives = false;
                    match self.case.moment {
                        Moment::Stopping => self.lose_leader_at_signal(row, rollouts.bed)?,
                        _ => self.lose_leader()?,
                    }
                }
            }
            if let Some(end) = settled(&status, before) {
                ensure!(!(dies && lives), "the moment never came");
                return Ok(end);
            }
        }
    }

    /// What must hold in every state that a follower shows.
    fn check(&self, status: &Status) -> Result<()> {
        let rows = &status.replicas;
        let running = rows.iter().filter(|row| row.state == ReplicaState::Running);
        let (running, floor) = (running.count(), REPLICAS - 1);
        ensure!(running >= floor, "only {running} of {floor} run: {rows:?}");
        let ceiling = match self.case.order {
            Order::StartFirst => REPLICAS + 1,
            Order::StopFirst => REPLICAS,
        };
        let there = rows.iter().filter(|row| row.state != ReplicaState::Stopped);
        ensure!(there.count() <= ceiling, "too many replicas: {rows:?}");
        let addresses: BTreeSet<_> = rows.iter().map(|row| row.address).collect();
        ensure!(addresses.len() == rows.len(), "an address twice: {rows:?}");
        let ids: BTreeSet<&ReplicaId> = rows.iter().map(|row| &row.id).collect();
        ensure!(ids.len() == rows.len(), "a replica twice: {rows:?}");
        Ok(())
    }

    fn fall_silent(&mut self) -> Result<()> {
        if !self.is_silent {
            self.silent.daemon().pause()?;
            self.is_silent = true;
        }
        Ok(())
    }

    fn break_silence(&mut self) -> Result<()> {
        if self.is_silent {
            self.silent.daemon().resume()?;
            self.is_silent = false;
        }
        Ok(())
    }

    /// Keeps a replica that is on its way out busy, so that it takes its time to stop, and has
    /// the leader die once its engine has sent the signal.
    fn lose_leader_at_signal(&mut self, row: &ReplicaRow, bed: &Bed) -> Result<()> {
        let mut hosts = bed.hosts().iter();
        let host = hosts.find(|host| host.name() == row.host.as_str());
        let host = host.context("the replica's host")?;
        let address = format!("{}:80", row.address.context("an address")?);
        let begun = host.docker_text(&["info", "--format", "{{.SystemTime}}"])?;
        thread::scope(|scope| {
            scope.spawn(|| host.http_get(DOMAIN, &address, "/cgi-bin/slow?3"));
            poll_until(SOON, "the request is being served", || {
                let two = "set -- $(pidof httpd); [ $# -gt 1 ]";
                let asked = host.docker(&["exec", row.id.as_str(), "sh", "-c", two]);
                asked.is_ok_and(|output| output.status.success())
            })?;
            self.break_silence()?;
            let container = format!("container={}", row.id);
            let words = ["events", "--since", &begun, "--until", "0s"];
            let filters = ["--filter", "event=kill", "--filter", &container];
            let words = [&words[..], &filters].concat();
            poll_until(SOON, "the replica has its signal", || {
                let events = host.docker_text(&words);
                events.is_ok_and(|events| !events.is_empty())
            })?;
            self.lose_leader()
        })
    }

    /// SIGKILL; the daemon comes back once another node leads.
    fn lose_leader(&mut self) -> Result<()> {
        self.leader.kill_daemon()?;
        self.break_silence()?;
        poll_until(SOON, "another node leads", || {
            let status = cluster_status(self.watcher).unwrap_or_default();
            let leads = status["leader"].as_str();
            leads.is_some_and(|name| name != self.leader.name())
        })?;
        self.leader.start_daemon()
    }
}

/// The revision and the end of its rollout, when everything is as a newer revision than `before`
/// wants it.
fn settled(status: &Status, before: u64) -> Option<(u64, RolloutStatus)> {
    let row = status.deployments.first()?;
    let rollout = row.rollouts.get(&ServiceName::new("web"));
    let rollout = rollout.copied().unwrap_or(RolloutStatus::Completed);
    let running = |row: &ReplicaRow| row.state == ReplicaState::Running && !row.outgoing;
    let done = row.applied_revision > before
        && row.status == DeploymentStatus::Active
        && status.replicas.len() == REPLICAS
        && (before == 0 || status.replicas.iter().all(running));
    done.then_some((row.applied_revision, rollout))
}

fn status(host: &Host) -> Result<Status> {
    let status = host.jaco_json(&["status", DEPLOYMENT])?;
    Ok(serde_json::from_value(status)?)
}

fn leader(bed: &Bed) -> Result<&Host> {
    poll_ok(SOON, "the cluster has a leader", || {
        let status = cluster_status(bed.host(1))?;
        let name = status["leader"]
            .as_str()
            .context("nobody leads")?
            .to_owned();
        let mut hosts = bed.hosts().iter();
        hosts
            .find(|host| host.name() == name)
            .context("no such host")
    })
}

fn audit_index(host: &Host) -> Result<u64> {
    let status = cluster_status(host)?;
    status["raft_index"].as_u64().context("an index")
}

/// What was told of rollouts since an index, by type.
fn events(host: &Host, since: u64) -> Result<BTreeMap<String, usize>> {
    let log = host.jaco_json(&["audit", "--type", EVENTS])?;
    let mut counts = BTreeMap::new();
    for event in log["events"].as_array().into_iter().flatten() {
        if event["index"].as_u64() > Some(since) {
            let kind = event["type"].as_str().unwrap_or_default();
            *counts.entry(kind.to_owned()).or_default() += 1;
        }
    }
    Ok(counts)
}
