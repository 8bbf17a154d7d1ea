//! `make soak-ingress`: our ingress under changes, with long-lived and hostile clients.
//!
//! `JACO_SOAK_ROUNDS` is the number of changes of the table (1000), `JACO_SOAK_MIB` the size of a
//! large body (1024), `JACO_SOAK_IDLE` the number of idle connections (10000). Everything listens
//! on loopback; the process needs twice as many file descriptors as there are connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jaco_adapters::ingress::{HyperIngress, Limits};
use jaco_benches::front::{Ours, PLAIN, backend, start_here, start_with};
use jaco_benches::peer::{install, setting};
use jaco_core::id::Domain;
use jaco_core::ports::IngressProxy;
use tempfile::TempDir;

const MIB: usize = 1 << 20;
/// No answer takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn main() -> Result<()> {
    install(&["wrk", "nginx-light"])?;
    let rounds = setting("JACO_SOAK_ROUNDS", 1000).max(1);
    let files = TempDir::with_prefix("jaco-soak-ingress-")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let (_backend, port) = backend(files.path())?;
    let mut failures = changes_of_routes(port, rounds)?;
    failures += renewals(port, (rounds / 5).max(1))?;
    failures += tunnels(files.path(), 100)?;
    failures += large_bodies(files.path(), setting("JACO_SOAK_MIB", 1024).max(1))?;
    failures += idle_connections(files.path(), port, setting("JACO_SOAK_IDLE", 10_000))?;
    failures += hostile_clients(port)?;
    ensure!(failures == 0, "{failures} failures");
    Ok(())
}

/// wrk, asking until it is told to end.
struct Asking(Child);

impl Asking {
    fn start(url: &str, more: &[&str]) -> Result<Self> {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "wrk", "-t1", "-c32", "-d3600s"])
            .args(more)
            .arg(url)
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    /// Requests, and those that were not answered with success.
    fn end(mut self) -> Result<(u64, u64)> {
        let interrupt = Command::new("kill")
            .args(["-INT", &self.0.id().to_string()])
            .status()?;
        ensure!(interrupt.success(), "wrk has ended too early");
        let mut text = String::new();
        let mut output = self.0.stdout.take().context("wrk says nothing")?;
        output.read_to_string(&mut text)?;
        self.0.wait()?;
        let mut lines = text.lines().map(str::trim);
        let total = lines
            .find_map(|line| line.split_once(" requests in"))
            .context("no summary from wrk")?;
        let mut failed = 0;
        for line in text.lines().map(str::trim) {
            if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses: ") {
                failed += count.parse::<u64>()?;
            }
            if let Some(counts) = line.strip_prefix("Socket errors: ") {
                let numbers = counts.split(", ").filter_map(|c| c.split(' ').nth(1));
                failed += numbers.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
            }
        }
        Ok((total.0.parse()?, failed))
    }
}

/// Routes come, change their upstreams and go beside the one that is asked for.
fn changes_of_routes(backend: u16, rounds: usize) -> Result<u64> {
    let ours = Ours::new(backend)?;
    let ingress = start_here(&ours)?;
    let table = ours.table()?;
    ingress.publish(Arc::new(table.clone()));
    let asking = Asking::start(&ours.url("http"), &[])?;
    for round in 0..rounds {
        let mut changed = table.clone();
        let routes = changed
            .domains
            .get_mut(PLAIN)
            .context("the host is routed")?;
        for route in routes.iter_mut() {
            let mut upstreams = route.upstreams.to_vec();
            // One that nobody listens at comes and goes.
            let mut other = upstreams[0].clone();
            other.address.set_port(1);
            if round % 2 == 0 {
                upstreams.push(other);
            }
            route.upstreams = upstreams.into();
        }
        let more = routes.clone();
        for number in 0..round % 7 {
            let domain = Domain::new(format!("host-{number}.test"));
            changed.domains.insert(domain, more.clone());
        }
        ingress.publish(Arc::new(changed));
        thread::sleep(Duration::from_millis(5));
    }
    let (requests, failures) = asking.end()?;
    println!("soak ingress_changes rounds={rounds} failures={failures} requests={requests}");
    Ok(failures)
}

/// The certificate changes under visitors that shake hands for every request.
fn renewals(backend: u16, rounds: usize) -> Result<u64> {
    let ours = Ours::new(backend)?;
    let ingress = start_here(&ours)?;
    ingress.publish(Arc::new(ours.table()?));
    let asking = Asking::start(&ours.url("https"), &["-H", "Connection: close"])?;
    for _ in 0..rounds {
        ingress.publish(Arc::new(ours.table()?));
        thread::sleep(Duration::from_millis(25));
    }
    let (requests, failures) = asking.end()?;
    println!("soak ingress_renewals rounds={rounds} failures={failures} handshakes={requests}");
    Ok(failures)
}

/// A backend that runs a script on each connection, until the process ends.
fn scripted(script: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let script = Arc::new(script);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = Arc::clone(&script);
            // What goes wrong shows at the other end.
            thread::spawn(move || drop(script(stream)));
        }
    });
    Ok(port)
}

fn head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}

fn dial(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// WebSocket messages of 1 MiB are echoed through a tunnel.
fn tunnels(files: &Path, rounds: usize) -> Result<u64> {
    let port = scripted(|mut stream| {
        head(&mut stream)?;
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
              Upgrade: websocket\r\n\r\n",
        )?;
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let length = stream.read(&mut bytes)?;
            ensure!(length > 0, "the client has ended");
            stream.write_all(&bytes[..length])?;
        }
    })?;
    let front = Ours::new(port)?.start("tunnels", files)?;
    let mut client = dial(front.http)?;
    write!(
        client,
        "GET / HTTP/1.1\r\nHost: {PLAIN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )?;
    let answer = head(&mut client)?;
    ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    // A binary message in one masked frame; the echo is checked byte for byte.
    let mut frame = vec![0x82, 0xff];
    frame.extend((MIB as u64).to_be_bytes());
    frame.extend([1, 2, 3, 4]);
    frame.extend((0..MIB).map(|n| (n % 251) as u8));
    let frame = Arc::new(frame);
    let mut failures = 0;
    for _ in 0..rounds {
        let (mut sender, sent) = (client.try_clone()?, Arc::clone(&frame));
        let sending = thread::spawn(move || sender.write_all(&sent));
        let mut echo = vec![0; frame.len()];
        let read = client.read_exact(&mut echo);
        let sent = sending.join().ok().context("the sender")?;
        failures += u64::from(read.is_err() || sent.is_err() || echo != *frame);
    }
    println!("soak ingress_websocket rounds={rounds} failures={failures} frame_mib=1");
    Ok(failures)
}

/// A body as large passes up, and one down, while the memory stays where it was.
fn large_bodies(files: &Path, mib: usize) -> Result<u64> {
    let size = mib * MIB;
    let port = scripted(move |mut stream| {
        let mut block = vec![b'x'; MIB];
        if head(&mut stream)?.starts_with("POST") {
            for _ in 0..mib {
                stream.read_exact(&mut block)?;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        } else {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
            for _ in 0..mib {
                stream.write_all(&block)?;
            }
        }
        Ok(())
    })?;
    let front = Ours::new(port)?.start("bodies", files)?;
    let before = front.resident()?;
    let mut failures = 0;
    let begun = Instant::now();
    let mut client = dial(front.http)?;
    write!(
        client,
        "POST / HTTP/1.1\r\nHost: {PLAIN}\r\nContent-Length: {size}\r\n\r\n"
    )?;
    let block = vec![b'y'; MIB];
    for _ in 0..mib {
        client.write_all(&block)?;
    }
    failures += u64::from(!head(&mut client)?.starts_with("HTTP/1.1 200"));
    let up = begun.elapsed();
    let mut client = dial(front.http)?;
    write!(client, "GET / HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n")?;
    head(&mut client)?;
    let mut block = vec![0; MIB];
    for _ in 0..mib {
        client.read_exact(&mut block)?;
        failures += u64::from(block.iter().any(|&byte| byte != b'x'));
    }
    let grown = front.peak()?.saturating_sub(before) / 1024;
    // Buffers of two connections, and what the allocator keeps of them.
    failures += u64::from(grown > 8 * 1024);
    println!(
        "soak ingress_large_bodies rounds=2 failures={failures} mib={mib} grown_kib={grown} \
         up_ms={} both_ms={}",
        up.as_millis(),
        begun.elapsed().as_millis()
    );
    Ok(failures)
}

/// Connections that were used once and then do nothing.
fn idle_connections(files: &Path, backend: u16, count: usize) -> Result<u64> {
    let front = Ours::new(backend)?.start("idle", files)?;
    let before = front.resident()?;
    let mut open = Vec::with_capacity(count);
    let mut failures = 0;
    for _ in 0..count {
        let mut client = dial(front.http)?;
        write!(client, "GET / HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n")?;
        failures += u64::from(!head(&mut client)?.starts_with("HTTP/1.1 200"));
        open.push(client);
    }
    let resident = front.resident()?;
    failures += u64::from(resident > 200 * MIB as u64);
    println!(
        "soak ingress_idle rounds={count} failures={failures} resident_mib={} per_connection={}",
        resident / MIB as u64,
        resident.saturating_sub(before) / count.max(1) as u64
    );
    Ok(failures)
}

/// Clients that are too slow or too large are closed, while others are served.
fn hostile_clients(backend: u16) -> Result<u64> {
    const SLOW: usize = 500;
    const LARGE: usize = 200;
    let ours = Ours::new(backend)?;
    let limits = Limits {
        header_read: Duration::from_secs(1),
        ..Limits::default()
    };
    let ingress: HyperIngress = start_with(&ours, limits)?;
    ingress.publish(Arc::new(ours.table()?));
    let asking = Asking::start(&ours.url("http"), &[])?;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut client = dial(ours.http)?;
        client.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")?;
        slow.push(client);
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        for client in &mut slow {
            // It is closed at some point, and that is meant.
            let _ = client.write(b"x");
        }
        thread::sleep(Duration::from_millis(100));
    }
    let mut failures = 0;
    for client in &mut slow {
        client.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut answer = Vec::new();
        let ended = client.read_to_end(&mut answer);
        let reset = ended
            .as_ref()
            .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
        failures += u64::from(ended.is_err() && !reset);
    }
    for _ in 0..LARGE {
        let mut client = dial(ours.http)?;
        let value = "x".repeat(80 * 1024);
        let _ = write!(
            client,
            "GET / HTTP/1.1\r\nHost: {PLAIN}\r\nX-Large: {value}\r\n\r\n"
        );
        let mut answer = Vec::new();
        // A client that sends on is reset, with or without an answer.
        let _ = client.read_to_end(&mut answer);
        failures += u64::from(answer.starts_with(b"HTTP/1.1 200"));
    }
    let (requests, lost) = asking.end()?;
    failures += lost;
    println!(
        "soak ingress_hostile rounds={} failures={failures} slow={SLOW} large={LARGE} \
         requests_beside={requests}",
        SLOW + LARGE
    );
    Ok(failures)
}
