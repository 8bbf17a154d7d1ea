//! Following a deployment's status on one host, as its daemon publishes it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jaco_core::view::status::Status;

use super::host::Host;

/// A running `jaco status -w`; ends when dropped.
#[derive(Debug)]
pub struct StatusWatch {
    child: Child,
    seen: Receiver<(Instant, Status)>,
}

impl StatusWatch {
    /// Begins with the present status of the deployment.
    pub fn start(host: &Host, deployment: &str) -> Result<Self> {
        let mut command = Command::new(host.daemon().binary("jaco")?);
        command
            .args(["status", deployment, "--watch", "-o", "json"])
            .envs(host.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = host.enter(|| command.spawn())??;
        let lines = child.stdout.take().context("its output is piped")?;
        let (sender, seen) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                let Ok(status) = serde_json::from_str(&line) else {
                    return;
                };
                if sender.send((Instant::now(), status)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, seen })
    }

    /// The next status that differs from the one before, and when it came.
    pub fn next(&self, deadline: Duration) -> Result<(Instant, Status)> {
        let next = self.seen.recv_timeout(deadline);
        next.context("the status says nothing any more")
    }

    /// What came since the last call.
    pub fn pending(&self) -> impl Iterator<Item = (Instant, Status)> {
        self.seen.try_iter()
    }
}

impl Drop for StatusWatch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
