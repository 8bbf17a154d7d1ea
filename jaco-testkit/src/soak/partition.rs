//! A host is cut off from the others and comes back (spec 05, Placement; spec 07, Mesh): what ran
//! on it is gone before it is ready, replicas return one at a time, data stays where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jaco_core::cluster::deployment::ReplicaState;
use jaco_core::view::replica::ReplicaRow;
use jaco_core::view::status::Status;

use crate::bed::{Bed, Host, SOON, StatusWatch, poll_until};
use crate::project::Project;

const DEPLOYMENT: &str = "cut";
const REPLICAS: usize = 6;

/// How long after the end of a cut everything was well again.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Recovery {
    /// Until containers on both sides reach each other, by the mesh.
    pub mesh: Duration,
    /// Until every host names what runs, and nothing else.
    pub names: Duration,
    /// Until the host takes replicas again.
    pub ready: Duration,
    /// Until the replicas are spread as before.
    pub spread: Duration,
}

/// Puts the deployment on a cluster of three: spread replicas, and one with data.
///
/// # Errors
/// When it does not come to run.
pub fn prepare(bed: &Bed, project: &Project) -> Result<()> {
    let image = bed.image("web:1");
    project.write(
        "compose.yaml",
        &format!(
            "services:\n  web:\n    image: {image}\n    deploy: {{replicas: {REPLICAS}}}\n  \
             store:\n    image: {image}\n    volumes: [data:/data]\nvolumes: {{data: {{}}}}\n"
        ),
    )?;
    project.write(
        "jaco.yaml",
        &format!("deployment: {DEPLOYMENT}\nservices:\n  - {{name: web}}\n  - {{name: store}}\n"),
    )?;
    let path = project.path("jaco.yaml");
    bed.host(1).jaco_text(&["apply", &path, "--wait"])?;
    Ok(())
}

/// Cuts off the host with the data until its replicas run elsewhere, mends the cut, and follows
/// what happens then. `mark` is written to the data before.
///
/// # Errors
/// When something ran where it must not, the data is lost, or the cluster does not recover.
pub fn cut_and_mend(bed: &Bed, mark: &str) -> Result<Recovery> {
    let before = rows(bed.host(1))?;
    let store = before.iter().find(|row| row.service.as_str() == "store");
    let store = store.context("a replica with data")?.clone();
    let mut hosts = bed.hosts().iter();
    let cut = hosts.find(|host| host.name() == store.host.as_str());
    let cut = cut.context("the host of the data")?;
    let others: Vec<&Host> = bed
        .hosts()
        .iter()
        .filter(|h| h.index() != cut.index())
        .collect();
    let survivor = *others.first().context("another host")?;
    let write = format!("echo {mark} > /data/mark");
    cut.docker_text(&["exec", store.id.as_str(), "sh", "-c", &write])?;

    let indexes: Vec<usize> = others.iter().map(|host| host.index()).collect();
    bed.partition(&[cut.index()], &indexes)?;
    poll_until(SOON, "the replicas run on the other hosts", || {
        rows(survivor).is_ok_and(|rows| {
            let mut webs = rows.iter().filter(|row| row.service.as_str() == "web");
            let count = webs.clone().count();
            count == REPLICAS && webs.all(|row| runs(row) && row.host.as_str() != cut.name())
        })
    })?;
    let left: BTreeSet<String> = before
        .iter()
        .filter(|row| row.service.as_str() == "web" && row.host.as_str() == cut.name())
        .map(|row| row.id.to_string())
        .collect();
    ensure!(!left.is_empty(), "nothing ran on {}", cut.name());
    ensure!(left.is_subset(&names(cut)?), "{left:?} ended while cut off");

    let watch = StatusWatch::start(survivor, DEPLOYMENT)?;
    bed.heal()?;
    let mended = Instant::now();
    let mut seen = Seen::default();
    poll_until(
        SOON,
        "the host is ready, and all is as before the cut",
        || {
            let looked = look(bed, cut, survivor, &left, &store, mended, &mut seen);
            seen.problem = looked.err().map(|error| format!("{error:#}"));
            seen.problem.is_some() || seen.recovery().is_some()
        },
    )
    .with_context(|| format!("{seen:?}"))?;
    ensure!(seen.problem.is_none(), "{:?}", seen.problem);
    let recovery = seen.recovery().context("it recovered")?;
    one_move_at_a_time(&watch)?;
    data_is_there(bed, cut, &store, mark)?;
    Ok(recovery)
}

/// What has been seen to be well so far, and when.
#[derive(Debug, Default)]
struct Seen {
    mesh: Option<Duration>,
    names: Option<Duration>,
    ready: Option<Duration>,
    spread: Option<Duration>,
    problem: Option<String>,
}

impl Seen {
    fn recovery(&self) -> Option<Recovery> {
        Some(Recovery {
            mesh: self.mesh?,
            names: self.names?,
            ready: self.ready?,
            spread: self.spread?,
        })
    }
}

fn look(
    bed: &Bed,
    cut: &Host,
    survivor: &Host,
    left: &BTreeSet<String>,
    store: &ReplicaRow,
    mended: Instant,
    seen: &mut Seen,
) -> Result<()> {
    if seen.ready.is_none() && is_ready(survivor, cut) {
        seen.ready = Some(mended.elapsed());
        let still: Vec<String> = names(cut)?.intersection(left).cloned().collect();
        ensure!(still.is_empty(), "{} is ready with {still:?}", cut.name());
    }
    let rows = rows(survivor)?;
    let home = rows.iter().find(|row| row.service.as_str() == "store");
    let home = home.context("the replica with data is forgotten")?;
    ensure!(
        home.id == store.id && home.host == store.host,
        "{home:?} was {store:?}"
    );
    let webs: Vec<&ReplicaRow> = rows
        .iter()
        .filter(|row| row.service.as_str() == "web")
        .collect();
    let all_run = webs.len() == REPLICAS && webs.iter().all(|row| runs(row));
    if seen.mesh.is_none() && runs(home) {
        let web = webs.iter().find(|row| row.host != home.host && runs(row));
        let both = web.is_some_and(|web| fetches(bed, web, home) && fetches(bed, home, web));
        seen.mesh = both.then(|| mended.elapsed());
    }
    if seen.names.is_none() && all_run {
        let wanted: BTreeSet<Ipv4Addr> = webs.iter().filter_map(|row| row.address).collect();
        let known = |host: &Host| named(host, &rows).is_none_or(|names| names == wanted);
        seen.names = bed.hosts().iter().all(known).then(|| mended.elapsed());
    }
    if seen.spread.is_none() && all_run && seen.ready.is_some() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &webs {
            *counts.entry(row.host.as_str()).or_default() += 1;
        }
        let even = counts.len() == bed.hosts().len() && counts.values().all(|count| *count == 2);
        seen.spread = even.then(|| mended.elapsed());
    }
    Ok(())
}

/// No state that the survivor showed since had more than one replica on its way.
fn one_move_at_a_time(watch: &StatusWatch) -> Result<()> {
    for (_, status) in watch.pending() {
        let webs = |status: &Status| {
            let rows = status.replicas.iter();
            rows.filter(|row| row.service.as_str() == "web").count()
        };
        ensure!(webs(&status) <= REPLICAS + 1, "{:?}", status.replicas);
    }
    Ok(())
}

/// The data has its mark, and no other host was ever given a volume for it.
fn data_is_there(bed: &Bed, home: &Host, store: &ReplicaRow, mark: &str) -> Result<()> {
    let read = ["exec", store.id.as_str(), "cat", "/data/mark"];
    let found = home.docker_text(&read)?;
    ensure!(
        found.trim() == mark,
        "the data says {found:?}, not {mark:?}"
    );
    for host in bed
        .hosts()
        .iter()
        .filter(|host| host.index() != home.index())
    {
        let filter = format!("label=jaco.deployment={DEPLOYMENT}");
        let volumes = host.docker_text(&["volume", "ls", "--quiet", "--filter", &filter])?;
        ensure!(volumes.is_empty(), "{} has {volumes}", host.name());
    }
    Ok(())
}

fn rows(host: &Host) -> Result<Vec<ReplicaRow>> {
    let status = host.jaco_json(&["status", DEPLOYMENT])?;
    let status: Status = serde_json::from_value(status)?;
    Ok(status.replicas)
}

fn runs(row: &ReplicaRow) -> bool {
    row.state == ReplicaState::Running
}

fn is_ready(by: &Host, host: &Host) -> bool {
    let list = by.jaco_json(&["node", "list"]).unwrap_or_default();
    let nodes = list["nodes"].as_array().cloned().unwrap_or_default();
    let mut nodes = nodes.iter();
    nodes.any(|node| node["hostname"] == host.name() && node["status"] == "ready")
}

/// The names of the deployment's containers on a host, whatever they do.
fn names(host: &Host) -> Result<BTreeSet<String>> {
    let filter = format!("label=jaco.deployment={DEPLOYMENT}");
    let words = ["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"];
    let names = host.docker_text(&words)?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// True when a container gets the page of another by its address.
fn fetches(bed: &Bed, from: &ReplicaRow, to: &ReplicaRow) -> bool {
    let mut hosts = bed.hosts().iter();
    let host = hosts.find(|host| host.name() == from.host.as_str());
    let Some((host, address)) = host.zip(to.address) else {
        return false;
    };
    let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {address} 80 | grep -q web");
    let words = ["exec", from.id.as_str(), "sh", "-c", &get];
    host.docker(&words)
        .is_ok_and(|output| output.status.success())
}

/// The addresses that `web` has on a host, by a container there, if any runs.
fn named(host: &Host, rows: &[ReplicaRow]) -> Option<BTreeSet<Ipv4Addr>> {
    let here = |row: &&ReplicaRow| row.host.as_str() == host.name() && runs(row);
    let asker = rows.iter().find(here)?;
    host.addresses_of(asker.id.as_str(), "web").ok()
}
