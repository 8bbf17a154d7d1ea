//! The kernel's packet filter behind the `Firewall` port, through the `nft` command and its JSON
//! (spec 07, Isolation).
//!
//! Only our own table is ever listed: the rules of others may be of kinds that `nft` cannot
//! print.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jaco_core::node::firewall::{Ruleset, TABLE};
use jaco_core::ports::{Firewall, HostError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Where the command may be; daemons are often started without the folders of the system's.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// No call of the command takes this long unless the kernel hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// Before the watch for changes is started again after it ended.
const PAUSE: Duration = Duration::from_secs(30);

/// The table of this network namespace.
pub struct Nftables {
    changed: Arc<Notify>,
    monitor: AbortHandle,
}

impl Nftables {
    /// Starts to watch for changes; needs a runtime.
    pub fn start() -> Self {
        let changed = Arc::new(Notify::new());
        let monitor = tokio::spawn(watch(Arc::clone(&changed))).abort_handle();
        Self { changed, monitor }
    }
}

impl Drop for Nftables {
    fn drop(&mut self) {
        self.monitor.abort();
    }
}

#[async_trait]
impl Firewall for Nftables {
    async fn replace(&self, ruleset: &Ruleset) -> Result<(), HostError> {
        let input = ruleset.replacement().to_string();
        run(&["-j", "-f", "-"], input.as_bytes()).await.map(drop)
    }

    async fn observe(&self) -> Result<Ruleset, HostError> {
        let (family, table) = TABLE;
        let listing = match run(&["-j", "list", "table", family, table], b"").await {
            Err(HostError::Failed(reason)) if reason.contains("No such file") => {
                return Ok(Ruleset::default());
            }
            listing => listing?,
        };
        let listing = serde_json::from_slice(&listing);
        let listing = listing.map_err(|error| HostError::Failed(format!("nft: {error}")))?;
        Ok(Ruleset::of_listing(&listing))
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

async fn run(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, HostError> {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| unavailable(&error))?;
    let call = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A command that ends early says why on its own.
            let _ = stdin.write_all(input).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(LIMIT, call)
        .await
        .map_err(|_| HostError::Failed("nft does not end".to_owned()))?
        .map_err(|error| unavailable(&error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let line = complaint.lines().next().unwrap_or("no reason given").trim();
    if line.contains("Operation not permitted") {
        return Err(HostError::Unavailable(format!("nft: {line}")));
    }
    Err(HostError::Failed(format!("nft: {line}")))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("nft");
    command
        .args(arguments)
        .env("PATH", PATH)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn unavailable(error: &io::Error) -> HostError {
    match error.kind() {
        io::ErrorKind::NotFound => HostError::Unavailable("nft is not installed".to_owned()),
        _ => HostError::Unavailable(format!("nft: {error}")),
    }
}

/// Rings for every change of our table, our own included.
async fn watch(changed: Arc<Notify>) {
    let mention = format!("{} {}", TABLE.0, TABLE.1);
    loop {
        let child = command(&["monitor"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(mut child) = child
            && let Some(stdout) = child.stdout.take()
        {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(&mention) {
                    changed.notify_one();
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
