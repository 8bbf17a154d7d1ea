//! Who this daemon is in its cluster: one file in the data directory, and the state key.
//!
//! The file is written last when a cluster is formed or joined, so that a daemon that was cut
//! off half-way starts over as uninitialized.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::Config;

const FILE: &str = "node.json";
const MESH_KEY: &str = "mesh.key";

/// What a member needs to come back after a restart.
#[derive(Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub(super) struct Identity {
    pub(super) cluster_id: String,
    pub(super) member: u64,
    pub(super) hostname: String,
    /// The node's certificate, then the CA's; PEM.
    pub(super) chain: String,
    /// Its private key; PEM.
    pub(super) key: String,
    /// The CA's certificate; PEM.
    pub(super) ca_cert: String,
}

/// The identity of this data directory, if it has one.
pub(super) fn load(config: &Config) -> io::Result<Option<Identity>> {
    match fs::read(config.data_dir.join(FILE)) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes this daemon a member from its next start on.
pub(super) fn save(config: &Config, identity: &Identity) -> io::Result<()> {
    let json = serde_json::to_vec_pretty(identity).map_err(io::Error::other)?;
    write_secret(&config.data_dir.join(FILE), &json)
}

/// The private key of this node's end of the mesh, made by `draw` on the first boot.
pub(super) fn mesh_key(config: &Config, draw: impl FnOnce() -> [u8; 32]) -> io::Result<[u8; 32]> {
    let path = config.data_dir.join(MESH_KEY);
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    let key = draw();
    write_secret(&path, jaco_core::manifest::hash::hex(&key).as_bytes())?;
    Ok(key)
}

/// Puts away everything that a membership left, for a person to look at; deletes nothing.
pub(super) fn set_aside(config: &Config, suffix: &str) -> io::Result<()> {
    for name in [FILE, "raft"] {
        let from = config.data_dir.join(name);
        if from.exists() {
            fs::rename(&from, config.data_dir.join(format!("{name}.{suffix}")))?;
        }
    }
    Ok(())
}

/// Makes the data directory, readable by this user only.
pub(super) fn prepare(config: &Config) -> io::Result<()> {
    fs::create_dir_all(&config.data_dir)?;
    fs::set_permissions(&config.data_dir, fs::Permissions::from_mode(0o700))
}

/// The state key, if there is one.
pub(super) fn load_state_key(config: &Config) -> io::Result<Option<[u8; 32]>> {
    read_key(&config.state_key)
}

fn read_key(path: &Path) -> io::Result<Option<[u8; 32]>> {
    match fs::read_to_string(path) {
        Ok(hex) => {
            let bytes = jaco_core::manifest::hash::unhex(hex.trim());
            let key = bytes.and_then(|bytes| bytes.try_into().ok());
            let shape = || io::Error::other(format!("{} is not 64 hex digits", path.display()));
            key.map(Some).ok_or_else(shape)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps the state key, outside the data directory.
pub(super) fn save_state_key(config: &Config, key: &[u8; 32]) -> io::Result<()> {
    if let Some(dir) = config.state_key.parent() {
        fs::create_dir_all(dir)?;
    }
    write_secret(
        &config.state_key,
        jaco_core::manifest::hash::hex(key).as_bytes(),
    )
}

/// Written beside the old one, synced, then renamed over it; mode 0600 throughout.
fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
