//! `make bench-ingress`: our ingress beside nginx, HAProxy and Caddy.
//!
//! Every front has one worker and the same backend, an nginx that answers from memory. A load
//! generator asks each in turn for a few seconds, round after round, so that a slow moment of
//! the machine hits all of them. Ours runs a second time with its access log written to nowhere
//! and its requests counted. `JACO_BENCH_LOADS=http,tcp` measures these only.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use jaco_benches::front::load::{Load, Sample, run};
use jaco_benches::front::{self, Front, Ours, backend, caddy, haproxy, nginx, start_here};
use jaco_benches::peer::{install, setting};
use jaco_benches::{Row, median};
use jaco_core::ports::IngressProxy;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// What is measured, and with how many connections.
const PLAN: [(Load, &[usize]); 6] = [
    (Load::Http, &[1, 64, 1000]),
    (Load::Https, &[1, 64, 1000]),
    (Load::Handshakes, &[1, 64, 1000]),
    (Load::Resumptions, &[1, 64]),
    (Load::Http2, &[1, 64]),
    (Load::Tcp, &[1, 64, 1000]),
];
/// Other hosts for the memory, each with a certificate.
const HOSTS: usize = 1_000;
/// Routes for the time that a change of one takes.
const TABLE: usize = 10_000;

pub(crate) fn main() -> Result<()> {
    install(&front::PACKAGES)?;
    install(&["wrk", "nghttp2-client"])?;
    let rounds = setting("JACO_BENCH_ROUNDS", 5).max(1);
    let seconds = setting("JACO_BENCH_SECONDS", 2).max(1);
    let only = std::env::var("JACO_BENCH_LOADS").unwrap_or_default();
    let files = TempDir::with_prefix("jaco-bench-ingress-")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.spawn(clean_up_when_told_to_end(files.path().to_owned()));
    let (_backend, port) = backend(files.path())?;
    let fronts = fronts(files.path(), port)?;
    for (load, counts) in PLAN {
        if !only.is_empty() && !only.split(',').any(|name| name == load.name()) {
            continue;
        }
        for &connections in counts {
            let figures = measure(&fronts, load, connections, rounds, seconds)?;
            print_table(load, connections, &figures);
            print_rows(load, connections, &figures);
        }
    }
    drop(fronts);
    if only.is_empty() || only.contains("memory") {
        memory(files.path(), port)?;
    }
    if only.is_empty() || only.contains("swap") {
        let _entered = runtime.enter();
        swap(port, rounds)?;
    }
    Ok(())
}

/// A signal runs no destructors. The peers need none: the kernel ends them with this process.
async fn clean_up_when_told_to_end(files: PathBuf) {
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        let _ = std::fs::remove_dir_all(files);
        std::process::exit(1);
    }
}

/// Ours first.
fn fronts(files: &Path, backend: u16) -> Result<Vec<Front>> {
    let told = Ours {
        logged: true,
        metered: true,
        ..Ours::new(backend)?
    };
    Ok(vec![
        Ours::new(backend)?.start("jaco", files)?,
        told.start("jaco-told", files)?,
        nginx(files, backend, 0)?,
        haproxy(files, backend)?,
        caddy(files, backend)?,
    ])
}

/// What one front did, round by round.
struct Figures {
    name: &'static str,
    rounds: [Vec<f64>; 4],
}

impl Figures {
    fn median(&self, at: usize) -> f64 {
        median(&mut self.rounds[at].clone())
    }

    /// The middle of the ratios to another's figures, each of one round.
    fn by_round(&self, other: &Self, at: usize) -> f64 {
        let pairs = self.rounds[at].iter().zip(&other.rounds[at]);
        median(
            &mut pairs
                .map(|(ours, theirs)| ours / theirs)
                .collect::<Vec<_>>(),
        )
    }
}

const ROWS: [(&str, &str); 4] = [
    ("rps", "requests/s"),
    ("p50", "us"),
    ("p99", "us"),
    ("cpu", "us/request"),
];

fn measure(
    fronts: &[Front],
    load: Load,
    connections: usize,
    rounds: usize,
    seconds: usize,
) -> Result<Vec<Figures>> {
    let fronts: Vec<&Front> = fronts.iter().filter(|f| load.url(f).is_some()).collect();
    let mut samples: Vec<Vec<Sample>> = fronts.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        // Whoever comes first in a round is another one each time.
        for turn in 0..fronts.len() {
            let at = (round + turn) % fronts.len();
            let long = if round == 0 { 1 } else { seconds };
            let sample = run(fronts[at], load, connections, long)?;
            // The first round warms everything up and does not count.
            if round > 0 {
                samples[at].push(sample);
            }
        }
    }
    let figures = fronts.iter().zip(samples).map(|(front, samples)| Figures {
        name: front.name,
        rounds: [
            samples.iter().map(|sample| sample.rate).collect(),
            samples.iter().map(|sample| sample.p50).collect(),
            samples.iter().map(|sample| sample.p99).collect(),
            samples.iter().map(|sample| sample.cpu).collect(),
        ],
    });
    Ok(figures.collect())
}

fn print_table(load: Load, connections: usize, figures: &[Figures]) {
    let mut table = format!("{}, connections: {connections}\n", load.name());
    let _ = writeln!(
        table,
        "  {:<10} {:>12} {:>10} {:>10} {:>10}",
        "", "requests/s", "p50 us", "p99 us", "cpu us"
    );
    for front in figures {
        let [rate, p50, p99, cpu] = [0, 1, 2, 3].map(|at| front.median(at));
        let name = front.name;
        let _ = writeln!(
            table,
            "  {name:<10} {rate:>12.0} {p50:>10.0} {p99:>10.0} {cpu:>10.1}"
        );
    }
    println!("{table}");
}

fn print_rows(load: Load, connections: usize, figures: &[Figures]) {
    let Some((ours, peers)) = figures.split_first() else {
        return;
    };
    for (at, (name, unit)) in ROWS.into_iter().enumerate() {
        let name = format!("ingress_{}_{name}_c{connections}", load.name());
        let row = Row::new(&name, ours.median(at), unit);
        let beside = |row: Row, peer: &Figures| {
            row.beside_by_round(peer.name, peer.median(at), ours.by_round(peer, at))
        };
        // A generator that tells no latency tells none of anybody.
        if ours.median(at) > 0.0 {
            peers.iter().fold(row, beside).print();
        }
    }
    println!();
}

/// What many hosts with certificates take, beside nginx with the same.
fn memory(files: &Path, backend: u16) -> Result<()> {
    let many = Ours {
        others: HOSTS,
        ..Ours::new(backend)?
    };
    let ours = many.start("jaco-many", files)?;
    let peer = nginx(files, backend, HOSTS)?;
    for front in [&ours, &peer] {
        run(front, Load::Https, 64, 1)?;
    }
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Row::new(
        "ingress_memory_1000_certs",
        mebibytes(ours.resident()?),
        "MiB",
    )
    .beside("nginx", mebibytes(peer.resident()?))
    .print();
    Ok(())
}

/// How long a change of one route among many takes, from the new table until it is in use.
fn swap(backend: u16, rounds: usize) -> Result<()> {
    let ours = Ours::new(backend)?;
    let mut table = Ours::table(&ours)?;
    let (host, routes) = table.domains.pop_first().context("no route")?;
    table.certificates.remove(&host);
    table.ports.clear();
    for number in 0..TABLE {
        let mut routes = routes.clone();
        for route in &mut routes {
            let mut upstreams = route.upstreams.to_vec();
            // As many upstreams as routes.
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number as u32);
            upstreams[0].address.set_ip(address);
            route.upstreams = upstreams.into();
        }
        table
            .domains
            .insert(format!("host-{number}.test").as_str().into(), routes);
    }
    let ingress = start_here(&ours)?;
    let tables: Vec<_> = (0..=rounds.max(10))
        .map(|round| {
            let mut table = table.clone();
            if let Some(mut last) = table.domains.last_entry() {
                last.get_mut()[0].strip_path = round % 2 == 0;
            }
            Arc::new(table)
        })
        .collect();
    let mut times = Vec::new();
    for table in tables {
        let begun = Instant::now();
        ingress.publish(table);
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let first = times.remove(0);
    Row::new("ingress_swap_10000_routes", median(&mut times), "ms")
        .beside("first", first)
        .print();
    Ok(())
}
