//! `make bench-dns`: our responder beside dnsmasq, one worker each, the same names.
//!
//! dnsperf asks each in turn for a few seconds, round after round: as fast as it can for the
//! rate, and at a fixed rate for the latency. Ours runs in a process of its own, as the peer
//! does. Everything listens on loopback and ends with this process.

use std::fmt::Write as _;
use std::io::{Read as _, Seek as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jaco_adapters::dns::{HickoryDns, Settings};
use jaco_adapters::metrics::Metrics;
use jaco_benches::peer::{Running, free_port, install, setting, start};
use jaco_benches::{Row, median};
use jaco_core::cluster::addresses::Pool;
use jaco_core::id::{NodeName, ServiceName};
use jaco_core::node::dns::{Zones, zones};
use jaco_core::ports::DnsResponder;
use jaco_testkit::builders::{Cluster, deployment, service};
use tempfile::TempDir;

const PACKAGES: [&str; 2] = ["dnsmasq-base", "dnsperf"];
/// The word that makes this program the responder.
pub(crate) const SERVE: &str = "serve-dns";
/// Loopback has all of it.
const POOL: &str = "127.77.0.0/16";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
/// A replica asks.
const ASKER: &str = "127.77.0.2";
const SERVICES: usize = 200;
/// A file system without a disk, for what dnsperf prints of each question.
const MEMORY: &str = "/dev/shm";
/// Questions per second for the latency; either side has room for them.
const STEADY: &str = "20000";

pub(crate) fn main() -> Result<()> {
    install(&PACKAGES)?;
    let rounds = setting("JACO_BENCH_ROUNDS", 7).max(5);
    let seconds = setting("JACO_BENCH_SECONDS", 5).max(1).to_string();
    let files = TempDir::with_prefix("jaco-bench-dns-")?;
    let cluster = cluster();
    let questions = questions(files.path(), &cluster)?;
    let (_processes, servers) = servers(files.path(), &cluster)?;
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        // Whoever comes first in a round is the other one each time.
        for turn in 0..servers.len() {
            let at = (round + turn) % servers.len();
            let sample = measure(&servers[at], &questions, &seconds)?;
            // The first round warms everything up and does not count.
            if round > 0 {
                samples[at].push(sample);
            }
        }
    }
    print(&servers, &samples);
    Ok(())
}

/// A node with services of one replica each.
fn cluster() -> Cluster {
    let mut cluster = Cluster::of(1);
    let pool = Pool::parse(POOL);
    if let (Some(formed), Some(pool)) = (&mut cluster.state.cluster, pool) {
        formed.ipam_pool = pool;
    }
    let mut spec = deployment("shop", []);
    let template = deployment("shop", [("web", service(1, "a"))]);
    spec.networks = template.networks;
    for number in 0..SERVICES {
        let name = ServiceName::new(format!("s{number}"));
        spec.services.insert(name, service(1, "a"));
    }
    cluster.deploy(spec).expect("the network has room");
    cluster.settle();
    cluster
}

fn published(cluster: &Cluster) -> Zones {
    zones(&cluster.state, &NodeName::new("n1"))
}

pub(crate) fn serve(port: u16) -> Result<()> {
    let responder = HickoryDns::start(Settings {
        meter: Arc::new(Metrics::new()),
        port,
        upstreams: Vec::new(),
        timeout: Duration::from_secs(2),
    })?;
    responder.publish(Arc::new(published(&cluster())));
    ensure!(responder.failed_listeners().is_empty(), "cannot listen");
    loop {
        std::thread::park();
    }
}

/// Every name in two of its forms.
fn questions(files: &Path, cluster: &Cluster) -> Result<String> {
    let mut text = String::new();
    for replica in cluster.state.replicas() {
        let service = &replica.service;
        writeln!(text, "{service} A\n{service}.shop.jaco.internal A")?;
    }
    write(files, "questions", &text)
}

fn write(files: &Path, name: &str, text: &str) -> Result<String> {
    let path = files.join(name);
    std::fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

struct Server {
    name: &'static str,
    address: SocketAddrV4,
}

fn servers(files: &Path, cluster: &Cluster) -> Result<(Vec<Running>, [Server; 2])> {
    let ours = SocketAddrV4::new(GATEWAY, free_port()?);
    let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
    let mut hosts = String::new();
    for replica in cluster.state.replicas() {
        let (service, address) = (&replica.service, replica.address());
        let address = address.context("a replica has an address")?;
        writeln!(hosts, "{address} {service} {service}.shop.jaco.internal")?;
    }
    let hosts = format!("--addn-hosts={}", write(files, "hosts", &hosts)?);
    let port = format!("--port={}", peer.port());
    let peer_arguments = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--user=root",
        "--pid-file=",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--local-ttl=5",
        &hosts,
        &port,
    ];
    let program = std::env::current_exe()?;
    let own_arguments = [SERVE, &ours.port().to_string()];
    let processes = vec![
        start(&program.to_string_lossy(), &own_arguments, ours, &[])?,
        start("dnsmasq", &peer_arguments, peer, &[])?,
    ];
    let named = [("jaco", ours), ("dnsmasq", peer)];
    Ok((
        processes,
        named.map(|(name, address)| Server { name, address }),
    ))
}

/// What one turn found.
struct Sample {
    /// Questions per second at full speed.
    rate: f64,
    /// Microseconds at a steady rate.
    p99: f64,
}

fn measure(server: &Server, questions: &str, seconds: &str) -> Result<Sample> {
    let fast = dnsperf(server, questions, &["-l", seconds])?;
    let steady = dnsperf(server, questions, &["-l", seconds, "-Q", STEADY, "-v"])?;
    Ok(Sample {
        rate: figure(&fast, "Queries per second:")?,
        p99: p99(&steady)?,
    })
}

fn dnsperf(server: &Server, questions: &str, more: &[&str]) -> Result<String> {
    // A pipe that is read late would hold up dnsperf, and its clock runs on.
    let mut lines = tempfile::tempfile_in(MEMORY)?;
    let status = Command::new("dnsperf")
        .args(["-s", &server.address.ip().to_string()])
        .args(["-p", &server.address.port().to_string()])
        .args(["-d", questions, "-a", ASKER, "-c", "4", "-q", "100"])
        .args(more)
        .stdout(lines.try_clone()?)
        .status()?;
    let mut text = String::new();
    lines.rewind()?;
    lines.read_to_string(&mut text)?;
    let name = server.name;
    ensure!(status.success(), "dnsperf failed on {name}: {text}");
    let lost = figure(&text, "Queries lost:")?;
    let all_known = text.contains("NOERROR") && !text.contains("NXDOMAIN");
    ensure!(lost == 0.0 && all_known, "{name} left questions: {text}");
    Ok(text)
}

/// The number behind a label of dnsperf's summary.
fn figure(text: &str, label: &str) -> Result<f64> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(label));
    let word = line.and_then(|line| line.split_whitespace().next());
    let word = word.with_context(|| format!("dnsperf prints no {label}"))?;
    Ok(word.parse()?)
}

/// From the lines of single questions: `> NOERROR s1 A 0.000123`.
fn p99(text: &str) -> Result<f64> {
    let lines = text.lines().filter(|line| line.starts_with("> "));
    let latencies = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    let mut latencies: Vec<f64> = latencies.collect();
    latencies.sort_by(f64::total_cmp);
    let at = latencies.len() * 99 / 100;
    let seconds = latencies.get(at).context("dnsperf asked nothing")?;
    Ok(seconds * 1e6)
}

fn print(servers: &[Server; 2], samples: &[Vec<Sample>; 2]) {
    let middle = |of: fn(&Sample) -> f64| {
        let medians = samples.each_ref().map(|samples| {
            let mut figures: Vec<f64> = samples.iter().map(of).collect();
            median(&mut figures)
        });
        (medians[0], medians[1])
    };
    let rate = middle(|sample| sample.rate);
    let p99 = middle(|sample| sample.p99);
    println!("{:<10} {:>12} {:>10}", "", "questions/s", "p99 us");
    for (server, (rate, p99)) in servers.iter().zip([(rate.0, p99.0), (rate.1, p99.1)]) {
        println!("{:<10} {rate:>12.0} {p99:>10.0}", server.name);
    }
    let peer = servers[1].name;
    for (name, (ours, theirs), unit) in [("rate", rate, "questions/s"), ("p99", p99, "us")] {
        let row = Row::new(&format!("dns_{name}"), ours, unit);
        row.beside(peer, theirs).print();
    }
}
