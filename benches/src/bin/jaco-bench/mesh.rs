//! `make bench-mesh`: TCP between two hosts of a bed, over the encrypted mesh and over the bare
//! link between them, in alternating rounds. Both ends of the encryption run on this machine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jaco_benches::peer::setting;
use jaco_benches::{Row, median};
use jaco_testkit::bed::{Bed, Host, poll_ok};

const BUFFER: usize = 256 << 10;
const EXCHANGES: usize = 500;

pub(crate) fn main() -> Result<()> {
    let rounds = setting("JACO_BENCH_ROUNDS", 5);
    let turn = Duration::from_secs(setting("JACO_BENCH_SECONDS", 3) as u64);
    let bed = Bed::builder().name("bmesh").hosts(2).build()?;
    bed.form_cluster()?;
    let (from, to) = (bed.host(1), bed.host(2));
    let mesh = poll_ok(Duration::from_secs(30), "the mesh is up", || {
        mesh_address(to)
    })?;
    poll_ok(Duration::from_secs(30), "the mesh carries", || {
        trips(from, to, mesh, 1)
    })?;
    let (mut rates, mut bare_rates) = (Vec::new(), Vec::new());
    let (mut times, mut bare_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        rates.push(gigabits(from, to, mesh, turn)?);
        bare_rates.push(gigabits(from, to, to.address(), turn)?);
        times.push(trips(from, to, mesh, EXCHANGES)?);
        bare_times.push(trips(from, to, to.address(), EXCHANGES)?);
    }
    Row::new("mesh_throughput", median(&mut rates), "Gbit/s")
        .beside("veth", median(&mut bare_rates))
        .print();
    Row::new("mesh_round_trip", median(&mut times), "us")
        .beside("veth", median(&mut bare_times))
        .print();
    Ok(())
}

/// The address on a host's mesh interface.
fn mesh_address(host: &Host) -> Result<Ipv4Addr> {
    let output = host.run(Command::new("ip").args(["-4", "-o", "addr", "show", "jaco-wg"]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace().skip_while(|word| *word != "inet");
    let network = words.nth(1).context("the mesh has no address yet")?;
    let (address, _) = network.split_once('/').unwrap_or((network, ""));
    Ok(address.parse()?)
}

fn connect(from: &Host, to: &Host, address: Ipv4Addr) -> Result<(TcpStream, TcpStream)> {
    let listener = to.enter(|| TcpListener::bind(SocketAddrV4::new(address, 0)))??;
    let port = listener.local_addr()?.port();
    let limit = Duration::from_secs(3);
    let dial = move || TcpStream::connect_timeout(&SocketAddrV4::new(address, port).into(), limit);
    let out = from.enter(dial)??;
    let (into, _) = listener.accept()?;
    out.set_nodelay(true)?;
    into.set_nodelay(true)?;
    Ok((out, into))
}

/// How much arrives in one turn.
fn gigabits(from: &Host, to: &Host, address: Ipv4Addr, turn: Duration) -> Result<f64> {
    let (mut out, mut into) = connect(from, to, address)?;
    let sender = thread::spawn(move || {
        let block = vec![0; BUFFER];
        // Ends when the other side has seen enough and closes.
        while out.write_all(&block).is_ok() {}
    });
    let mut block = vec![0; BUFFER];
    let mut bytes = 0_u64;
    let begin = Instant::now();
    while begin.elapsed() < turn {
        bytes += into.read(&mut block)? as u64;
    }
    let took = begin.elapsed().as_secs_f64();
    drop(into);
    sender.join().expect("sending does not panic");
    #[allow(clippy::cast_precision_loss)] // a rate for people
    Ok(bytes as f64 * 8.0 / took / 1e9)
}

/// The median time of one byte there and back, microseconds.
fn trips(from: &Host, to: &Host, address: Ipv4Addr, count: usize) -> Result<f64> {
    let (mut out, mut into) = connect(from, to, address)?;
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while into.read_exact(&mut byte).is_ok() && into.write_all(&byte).is_ok() {}
    });
    let mut times = Vec::with_capacity(count);
    let mut byte = [0];
    for _ in 0..count {
        let begin = Instant::now();
        out.write_all(&byte)?;
        out.read_exact(&mut byte)?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    drop(out);
    echo.join().expect("echoing does not panic");
    Ok(median(&mut times))
}
