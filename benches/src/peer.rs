//! Programs beside which ours are measured: installing, starting, ending them.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const START_LIMIT: Duration = Duration::from_secs(10);

/// Installs Debian packages that are missing.
///
/// # Errors
/// When that does not succeed.
pub fn install(packages: &[&str]) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/install-deps.sh");
    let status = Command::new("sh").arg(script).args(packages).status()?;
    ensure!(status.success(), "the peers could not be installed");
    Ok(())
}

/// A number from the environment.
pub fn setting(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A port that is free on loopback, most likely.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// A process that is killed when dropped, and by the kernel when this one dies.
pub struct Running(Child);

impl Running {
    /// Its pid.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program and waits until it takes TCP connections on an address.
///
/// # Errors
/// When it does not start, ends, or does not listen in time.
pub fn start(
    program: &str,
    arguments: &[&str],
    address: SocketAddrV4,
    variables: &[(&str, &str)],
) -> Result<Running> {
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", program])
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{program} did not start"))?;
    let mut running = Running(child);
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(
            begin.elapsed() < START_LIMIT,
            "{program} does not listen on {address}"
        );
        let ended = running.0.try_wait()?;
        ensure!(ended.is_none(), "{program} ended: {ended:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(running)
}
