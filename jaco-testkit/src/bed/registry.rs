//! The bed's image registry: the real one, in the switch's namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::http::{self, Request};
use super::images;
use super::layout::Layout;
use super::namespace::Namespace;
use super::poll::poll_until;
use super::process::Process;

/// A registry with storage of its own, so that pushes of one bed are not seen by the next.
#[derive(Debug)]
pub struct Registry {
    directory: PathBuf,
    address: String,
    namespace: Namespace,
    process: Process,
}

impl Registry {
    /// Describes the bed's registry.
    pub fn new(layout: &Layout) -> Self {
        let directory = layout.directory();
        Self {
            address: layout.registry(),
            namespace: Namespace::named(layout.switch_namespace()),
            process: Process::new(&layout.name, "registry", &directory),
            directory,
        }
    }

    /// `<address>:<port>`, as in an image reference.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where its blobs are.
    pub fn storage(&self) -> PathBuf {
        self.directory.join("registry")
    }

    /// Takes over stored images; false when there are none yet.
    pub fn fill_from_cache(&self) -> Result<bool> {
        let cached = images::cache()?.join("registry");
        if !cached.exists() {
            return Ok(false);
        }
        images::copy_tree(&cached, &self.storage())?;
        Ok(true)
    }

    /// Starts the registry and waits until it answers.
    pub fn start(&self) -> Result<()> {
        fs::create_dir_all(self.storage())?;
        let config = self.directory.join("registry.json");
        write_config(&config, &self.storage(), &self.address)?;
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none");
        self.process.start(&self.namespace, command)?;
        poll_until(Duration::from_secs(30), "the registry answers", || {
            self.answers()
        })
        .with_context(|| self.process.log_tail(15))
    }

    /// Ends the registry: from now on pulls fail.
    pub fn stop(&self) -> Result<()> {
        self.process.kill()
    }

    /// True while `/v2/` answers.
    pub fn answers(&self) -> bool {
        let request = Request::get(&self.address, "/v2/");
        let answer = self.namespace.enter(|| http::send(&self.address, &request));
        matches!(answer, Ok(Ok(response)) if response.status == 200)
    }

    /// Reaps the process if it has ended; used when a bed goes.
    pub(super) fn reap(&self) {
        self.process.reap();
    }
}

/// The registry reads YAML, of which JSON is a part.
fn write_config(path: &Path, storage: &Path, address: &str) -> Result<()> {
    let config = json!({
        "version": "0.1",
        "log": { "level": "warn" },
        "storage": {
            "filesystem": { "rootdirectory": storage },
            "delete": { "enabled": true },
        },
        "http": { "addr": address },
    });
    fs::write(path, serde_json::to_vec_pretty(&config)?)?;
    Ok(())
}
