//! `make bench-ingress`: HTTP through our ingress beside nginx, HAProxy and Caddy.
//!
//! Every proxy has one worker and the same backend, an nginx that answers from memory. `wrk`
//! asks each in turn for a few seconds, round after round, so that a slow moment of the machine
//! hits all of them. Everything listens on loopback and ends with this process.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jaco_adapters::ingress::{HyperIngress, Settings};
use jaco_adapters::seal::AesSealer;
use jaco_benches::peer::{Running, free_port, install, setting, start};
use jaco_benches::{Row, median};
use jaco_core::id::{DeploymentName, Domain, ReplicaId, ServiceName};
use jaco_core::node::ingress::{Route, RouteTable, Upstream};
use jaco_core::ports::IngressProxy;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

const PACKAGES: [&str; 4] = ["wrk", "nginx-light", "haproxy", "caddy"];
const HOST: &str = "bench.test";
const CONNECTIONS: [usize; 2] = [1, 64];

fn main() -> Result<()> {
    install(&PACKAGES)?;
    let rounds = setting("JACO_BENCH_ROUNDS", 7).max(5);
    let seconds = setting("JACO_BENCH_SECONDS", 2).max(1);
    let files = TempDir::with_prefix("jaco-bench-ingress-")?;
    let backend = free_port()?;
    let _backend = nginx(files.path(), "backend", &backend_server(backend), backend)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (_ingress, ours) = {
        let _entered = runtime.enter();
        tokio::spawn(clean_up_when_told_to_end(files.path().to_owned()));
        ours(backend)?
    };
    let (_peers, mut proxies) = peers(files.path(), backend)?;
    proxies.insert(0, ours);
    for connections in CONNECTIONS {
        let figures = measure(&proxies, connections, rounds, seconds)?;
        print_table(connections, &figures);
        print_rows(connections, &figures);
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

/// Something that listens on loopback.
struct Proxy {
    name: &'static str,
    port: u16,
    process: u32,
    /// The only thread that counts; all of them when none is named.
    thread: Option<&'static str>,
}

impl Proxy {
    /// Processor time used until now. Unlike the clock's, it does not depend on who else uses
    /// the machine.
    fn cpu(&self) -> Result<Duration> {
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process))? {
            let task = task?.path();
            // A thread may end while the list is read.
            let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
            let time = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            if self.thread.is_none_or(|thread| thread == name.trim()) {
                let first = time.split_whitespace().next();
                total += first.map_or(Ok(0), str::parse::<u64>)?;
            }
        }
        Ok(Duration::from_nanos(total))
    }
}

/// Our ingress, in this process, which does nothing else meanwhile.
fn ours(backend: u16) -> Result<(HyperIngress, Proxy)> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = Settings {
        workers: 1,
        ..Settings::new(any, any, Arc::new(AesSealer::new(&[0; 32])))
    };
    let ingress = HyperIngress::start(settings)?;
    let upstream = Upstream {
        replica: ReplicaId::from("bench-web-0"),
        address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, backend),
        local: true,
    };
    let route = Route {
        path: String::new(),
        strip_path: false,
        tls: false,
        deployment: DeploymentName::from("bench"),
        service: ServiceName::from("web"),
        upstreams: Arc::new(vec![upstream]),
    };
    let mut table = RouteTable::default();
    table.domains.insert(Domain::from(HOST), vec![route]);
    ingress.publish(Arc::new(table));
    let address = ingress
        .http_address()
        .context("our ingress does not listen")?;
    let proxy = Proxy {
        name: "jaco",
        port: address.port(),
        process: std::process::id(),
        thread: Some("ingress-0"),
    };
    Ok((ingress, proxy))
}

fn peers(files: &Path, backend: u16) -> Result<(Vec<Running>, Vec<Proxy>)> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let haproxy = write(files, "haproxy.cfg", &haproxy_config(ports[1], backend))?;
    let caddy = write(files, "Caddyfile", &caddy_config(ports[2], backend))?;
    let home = files.to_string_lossy();
    let one_core = [("GOMAXPROCS", "1"), ("HOME", &*home)];
    let arguments = ["run", "--config", &caddy, "--adapter", "caddyfile"];
    let running = vec![
        nginx(files, "proxy", &proxy_server(ports[0], backend), ports[0])?,
        run("haproxy", &["-db", "-f", &haproxy], ports[1], &[])?,
        run("caddy", &arguments, ports[2], &one_core)?,
    ];
    let names = ["nginx", "haproxy", "caddy"].into_iter();
    let proxies = names
        .zip(ports)
        .zip(&running)
        .map(|((name, port), running)| Proxy {
            name,
            port,
            process: running.id(),
            thread: None,
        });
    let proxies = proxies.collect();
    Ok((running, proxies))
}

fn run(
    program: &str,
    arguments: &[&str],
    port: u16,
    variables: &[(&str, &str)],
) -> Result<Running> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    start(program, arguments, address, variables)
}

fn write(files: &Path, name: &str, text: &str) -> Result<String> {
    let path = files.join(name);
    std::fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

/// Starts nginx as one process, so that there is one to end.
fn nginx(files: &Path, name: &str, server: &str, port: u16) -> Result<Running> {
    let home = files.join(name);
    std::fs::create_dir(&home)?;
    let home = home.to_string_lossy();
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid {home}/pid;\n\
         error_log /dev/null crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         access_log off; keepalive_requests 100000000; keepalive_timeout 600;\n\
         client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;\n\
         fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi;\n\
         scgi_temp_path {home}/scgi;\n\
         {server}\n}}\n"
    );
    let config = write(files, &format!("{name}.conf"), &config)?;
    run("nginx", &["-p", &home, "-c", &config], port, &[])
}

fn backend_server(port: u16) -> String {
    let text = "x".repeat(100);
    format!(
        "server {{ listen 127.0.0.1:{port} backlog=4096; default_type text/plain;\n\
         location / {{ return 200 \"{text}\"; }} }}"
    )
}

/// As ours does: keep-alive to the backend, and headers about the client.
fn proxy_server(port: u16, backend: u16) -> String {
    format!(
        "upstream web {{ server 127.0.0.1:{backend}; keepalive 256;\n\
         keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; server_name {HOST};\n\
         location / {{ proxy_pass http://web; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_set_header X-Forwarded-Proto http;\n\
         proxy_set_header X-Forwarded-Host $host;\n\
         proxy_set_header X-Request-Id $request_id; }} }}"
    )
}

fn haproxy_config(port: u16, backend: u16) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n\
         \x20 timeout server 60s\n  option http-keep-alive\n  http-reuse always\n\
         frontend in\n  bind 127.0.0.1:{port}\n  unique-id-format %[uuid()]\n\
         \x20 unique-id-header X-Request-Id\n\
         \x20 http-request set-header X-Forwarded-For %[src]\n\
         \x20 http-request set-header X-Forwarded-Proto http\n\
         \x20 http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
         \x20 acl web hdr(host) -i {HOST}\n  use_backend web if web\n\
         backend web\n  server one 127.0.0.1:{backend}\n"
    )
}

fn caddy_config(port: u16, backend: u16) -> String {
    format!(
        "{{\n  admin off\n  auto_https off\n}}\n\
         http://{HOST}:{port} {{\n  bind 127.0.0.1\n\
         \x20 reverse_proxy 127.0.0.1:{backend} {{\n\
         \x20   header_up X-Request-Id {{http.request.uuid}}\n  }}\n}}\n"
    )
}

/// What one run of wrk found.
struct Sample {
    requests: f64,
    /// Microseconds.
    p50: f64,
    p99: f64,
    /// Microseconds of processor time per request.
    cpu: f64,
}

/// A proxy's medians.
struct Figures {
    name: &'static str,
    medians: [f64; 4],
}

const ROWS: [(&str, &str); 4] = [
    ("rps", "requests/s"),
    ("p50", "us"),
    ("p99", "us"),
    ("cpu", "us/request"),
];

fn measure(
    proxies: &[Proxy],
    connections: usize,
    rounds: usize,
    seconds: usize,
) -> Result<Vec<Figures>> {
    let mut samples: Vec<Vec<Sample>> = proxies.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        // Whoever comes first in a round is another one each time.
        for turn in 0..proxies.len() {
            let at = (round + turn) % proxies.len();
            let sample = wrk(
                &proxies[at],
                connections,
                if round == 0 { 1 } else { seconds },
            )?;
            // The first round warms everything up and does not count.
            if round > 0 {
                samples[at].push(sample);
            }
        }
    }
    let figures = proxies.iter().zip(samples).map(|(proxy, samples)| Figures {
        name: proxy.name,
        medians: [
            middle(&samples, |sample| sample.requests),
            middle(&samples, |sample| sample.p50),
            middle(&samples, |sample| sample.p99),
            middle(&samples, |sample| sample.cpu),
        ],
    });
    Ok(figures.collect())
}

fn middle(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(&mut samples.iter().map(figure).collect::<Vec<_>>())
}

fn wrk(proxy: &Proxy, connections: usize, seconds: usize) -> Result<Sample> {
    let before = proxy.cpu()?;
    let output = Command::new("wrk")
        .args([
            "-t1",
            "--latency",
            &format!("-c{connections}"),
            &format!("-d{seconds}s"),
        ])
        .args(["-H", &format!("Host: {HOST}")])
        .arg(format!("http://127.0.0.1:{}/", proxy.port))
        .output()?;
    let cpu = proxy.cpu()?.saturating_sub(before);
    let text = String::from_utf8_lossy(&output.stdout);
    let failed = ["Non-2xx", "Socket errors"]
        .iter()
        .any(|word| text.contains(word));
    ensure!(output.status.success() && !failed, "{}: {text}", proxy.name);
    // "120034 requests in 2.00s, …": the words are the other way round here.
    let summary = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in"));
    let total: f64 = summary.context("no summary from wrk")?.0.parse()?;
    Ok(Sample {
        cpu: cpu.as_secs_f64() * 1e6 / total.max(1.0),
        requests: word_after(&text, "Requests/sec:")?.parse()?,
        p50: microseconds(word_after(&text, "50%")?)?,
        p99: microseconds(word_after(&text, "99%")?)?,
    })
}

/// The second word of the line whose first is `label`.
fn word_after<'a>(text: &'a str, label: &str) -> Result<&'a str> {
    let mut lines = text.lines().map(str::split_whitespace);
    let found = lines.find_map(|mut words| (words.next()? == label).then(|| words.next())?);
    found.with_context(|| format!("no {label} from wrk"))
}

/// wrk prints `12.34us`, `1.23ms` or `1.23s`.
fn microseconds(text: &str) -> Result<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let found = units
        .iter()
        .find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    let (number, scale) = found.with_context(|| format!("wrk's time {text} has no unit"))?;
    Ok(number.parse::<f64>()? * scale)
}

fn print_table(connections: usize, figures: &[Figures]) {
    let plural = if connections == 1 { "" } else { "s" };
    let mut table = format!("{connections} connection{plural}\n");
    let _ = writeln!(
        table,
        "  {:<8} {:>12} {:>10} {:>10} {:>10}",
        "", "requests/s", "p50 us", "p99 us", "cpu us"
    );
    for Figures { name, medians } in figures {
        let [requests, p50, p99, cpu] = medians;
        let _ = writeln!(
            table,
            "  {name:<8} {requests:>12.0} {p50:>10.0} {p99:>10.0} {cpu:>10.1}"
        );
    }
    println!("{table}");
}

fn print_rows(connections: usize, figures: &[Figures]) {
    let Some((ours, peers)) = figures.split_first() else {
        return;
    };
    for (at, (name, unit)) in ROWS.into_iter().enumerate() {
        let row = Row::new(
            &format!("ingress_{name}_c{connections}"),
            ours.medians[at],
            unit,
        );
        let beside = |row: Row, peer: &Figures| row.beside(peer.name, peer.medians[at]);
        peers.iter().fold(row, beside).print();
    }
    println!();
}
