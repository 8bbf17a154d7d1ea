//! Our ingress and its peers side by side, each in a process of its own with one worker, all in
//! front of one backend. Everything listens on loopback.

mod handshakes;
pub mod load;
mod ours;
mod peers;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair};

use crate::peer::{Running, free_port, start};

pub use ours::{Ours, SERVE, serve, start_here, start_with};
pub use peers::{backend, caddy, haproxy, nginx};

/// The host within TLS. A resolver knows it, so that load generators show it in their handshakes.
pub const HOST: &str = "localhost";
/// The host of plain HTTP, which is not sent to TLS.
pub const PLAIN: &str = "127.0.0.1";

/// The debian packages of the peers.
pub const PACKAGES: [&str; 4] = ["nginx-light", "libnginx-mod-stream", "haproxy", "caddy"];

/// Something that listens on loopback.
pub struct Front {
    /// Whose it is.
    pub name: &'static str,
    /// Plain HTTP.
    pub http: u16,
    /// HTTP/1.1 and HTTP/2 within TLS.
    pub https: u16,
    /// The backend as bytes; absent where the program has nothing of the kind.
    pub tcp: Option<u16>,
    running: Running,
    /// The only thread that counts; all of them when none is named.
    thread: Option<&'static str>,
}

impl Front {
    /// Processor time used until now. Unlike the clock's, it does not depend on who else uses
    /// the machine.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn cpu(&self) -> Result<Duration> {
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.running.id()))? {
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

    /// Memory that it holds, in bytes.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn resident(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most that it ever held.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn peak(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.unwrap_or("0").parse::<u64>()? * 1024)
    }
}

/// The ports of one front, all free.
#[derive(Clone, Copy)]
struct Ports {
    http: u16,
    https: u16,
    tcp: u16,
}

impl Ports {
    fn free() -> Result<Self> {
        Ok(Self {
            http: free_port()?,
            https: free_port()?,
            tcp: free_port()?,
        })
    }
}

/// A certificate for a name, signed by itself: chain and key, PEM.
///
/// # Errors
/// When there is no entropy.
pub fn certificate(name: &str) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![name.to_owned()])?.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
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
