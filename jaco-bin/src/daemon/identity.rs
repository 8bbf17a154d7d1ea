//! Who this daemon is in its cluster: one file in the data directory, and the state key.
//!
//! The file is written last when a cluster is formed or joined, so that a daemon that was cut
//! off half-way starts over as uninitialized.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use jaco_core::manifest::hash::{hex, unhex};
use jaco_core::ports::Sealer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::config::Config;
use super::wiring;

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
    /// Its private key; PEM. In the file it is sealed.
    #[serde(default, skip_serializing)]
    pub(super) key: Zeroizing<String>,
    /// The CA's certificate; PEM.
    pub(super) ca_cert: String,
}

/// The file as written: the key is sealed with the state key, which lies elsewhere.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    identity: Identity,
    /// Hex. Absent in what versions wrote that did not seal it.
    #[serde(default)]
    key_sealed: String,
}

/// The names under which keys are sealed.
const NODE_KEY: &str = "node-key";
const MESH_KEY_NAME: &str = "mesh-key";

/// Whether this data directory has an identity.
pub(super) fn exists(config: &Config) -> bool {
    config.data_dir.join(FILE).exists()
}

/// The identity of this data directory. A key that lies there in the clear is sealed.
pub(super) fn load(config: &Config, state_key: &[u8; 32]) -> io::Result<Identity> {
    let json = fs::read(config.data_dir.join(FILE))?;
    let stored: Stored = serde_json::from_slice(&json).map_err(io::Error::other)?;
    let mut identity = stored.identity;
    if stored.key_sealed.is_empty() {
        save(config, &identity, state_key)?;
        return Ok(identity);
    }
    let key = open(NODE_KEY, &stored.key_sealed, state_key)?;
    let key = String::from_utf8(key.to_vec()).map_err(io::Error::other)?;
    identity.key = Zeroizing::new(key);
    Ok(identity)
}

/// Makes this daemon a member from its next start on.
pub(super) fn save(config: &Config, identity: &Identity, state_key: &[u8; 32]) -> io::Result<()> {
    let stored = Stored {
        identity: identity.clone(),
        key_sealed: seal(NODE_KEY, identity.key.as_bytes(), state_key),
    };
    let json = serde_json::to_vec_pretty(&stored).map_err(io::Error::other)?;
    write_secret(&config.data_dir.join(FILE), &json)
}

/// The private key of this node's end of the mesh, made by `draw` on the first boot. One that
/// lies there in the clear is sealed.
pub(super) fn mesh_key(
    config: &Config,
    state_key: &[u8; 32],
    draw: impl FnOnce() -> [u8; 32],
) -> io::Result<[u8; 32]> {
    let path = config.data_dir.join(MESH_KEY);
    let key = match fs::read_to_string(&path) {
        Ok(text) if text.trim().len() > 64 => {
            let key = open(MESH_KEY_NAME, text.trim(), state_key)?;
            let shape = || io::Error::other(format!("{} is not a key", path.display()));
            return key.as_slice().try_into().map_err(|_| shape());
        }
        Ok(_) => read_key(&path)?.ok_or_else(|| io::Error::other("the key is gone"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => draw(),
        Err(error) => return Err(error),
    };
    write_secret(&path, seal(MESH_KEY_NAME, &key, state_key).as_bytes())?;
    Ok(key)
}

fn seal(name: &str, plain: &[u8], state_key: &[u8; 32]) -> String {
    hex(&wiring::sealer(state_key).seal(name, plain))
}

fn open(name: &str, sealed: &str, state_key: &[u8; 32]) -> io::Result<Zeroizing<Vec<u8>>> {
    let sealed = unhex(sealed).unwrap_or_default();
    let opened = wiring::sealer(state_key).open(name, &sealed);
    opened.map(Zeroizing::new).map_err(io::Error::other)
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

/// The state key, if there is one. One that others can read is refused: it opens everything.
pub(super) fn load_state_key(config: &Config) -> io::Result<Option<[u8; 32]>> {
    let path = &config.state_key;
    if let Ok(file) = fs::metadata(path) {
        let (mode, owner) = (file.mode() & 0o777, file.uid());
        let me = wiring::user();
        if mode & 0o177 != 0 || (owner != me && owner != 0) {
            let path = path.display();
            return Err(io::Error::other(format!(
                "{path} has mode {mode:04o} and owner {owner}; it must have mode 0600 and belong \
                 to the daemon's user: chmod 600 {path}"
            )));
        }
    }
    read_key(path)
}

fn read_key(path: &Path) -> io::Result<Option<[u8; 32]>> {
    match fs::read_to_string(path) {
        Ok(hex) => {
            let bytes = unhex(hex.trim());
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
    write_secret(&config.state_key, hex(key).as_bytes())
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
