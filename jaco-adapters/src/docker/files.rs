//! The files that a replica's container needs from its node: secrets, configs, small trees.
//!
//! Each replica has one folder, readable only by the daemon, on a tmpfs that the caller gives.
//! The engine mounts from it as root, so the containers see what the daemon's own user could
//! not show them.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use jaco_core::manifest::spec::{Content, FileEntry, FileTree, Hook, MountSource};
use jaco_core::ports::RuntimeError;
use jaco_core::ports::container_runtime::ContainerRequest;

const PRE_STOP: &str = "pre_stop.json";

/// Where the files of all replicas are.
#[derive(Clone, Debug)]
pub(super) struct FileStore {
    root: PathBuf,
}

impl FileStore {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Writes a container's file trees and the hooks that its stop needs, in place of what an
    /// earlier attempt left. Returns the host path of each tree by the index of its mount.
    pub(super) async fn lay(
        &self,
        request: &ContainerRequest,
    ) -> Result<BTreeMap<usize, PathBuf>, RuntimeError> {
        let folder = self.folder(request.name.as_str())?;
        let trees = trees(request);
        if trees.is_empty() && request.spec.pre_stop.is_empty() {
            remove_folder(&folder).map_err(|error| failed(&folder, &error))?;
            return Ok(BTreeMap::new());
        }
        let contents = request.contents.clone();
        let hooks = request.spec.pre_stop.clone();
        blocking(move || {
            remove_folder(&folder).map_err(|error| failed(&folder, &error))?;
            make_folder(&folder, 0o700).map_err(|error| failed(&folder, &error))?;
            write_hooks(&folder, &hooks)?;
            let mut paths = BTreeMap::new();
            for (index, tree) in trees {
                let path = folder.join(index.to_string());
                lay_tree(&path, &tree, &contents)?;
                paths.insert(index, path);
            }
            Ok(paths)
        })
        .await
    }

    /// The hooks to run before the replica's container is stopped. None after a reboot, when
    /// nothing runs that could be asked.
    pub(super) async fn pre_stop(&self, replica: &str) -> Vec<Hook> {
        let Ok(folder) = self.folder(replica) else {
            return Vec::new();
        };
        let text = tokio::fs::read(folder.join(PRE_STOP)).await;
        text.ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Removes everything of a replica.
    pub(super) async fn remove(&self, replica: &str) -> Result<(), RuntimeError> {
        let folder = self.folder(replica)?;
        blocking(move || remove_folder(&folder).map_err(|error| failed(&folder, &error))).await
    }

    fn folder(&self, replica: &str) -> Result<PathBuf, RuntimeError> {
        let mut components = Path::new(replica).components();
        match (components.next(), components.next()) {
            (Some(Component::Normal(name)), None) => Ok(self.root.join(name)),
            _ => Err(RuntimeError::Refused(format!(
                "{replica:?} is no container name"
            ))),
        }
    }
}

fn trees(request: &ContainerRequest) -> Vec<(usize, FileTree)> {
    let mounts = request.spec.mounts.iter().enumerate();
    mounts
        .filter_map(|(index, mount)| match &mount.source {
            MountSource::Files(tree) => Some((index, tree.clone())),
            _ => None,
        })
        .collect()
}

fn lay_tree(
    path: &Path,
    tree: &FileTree,
    contents: &BTreeMap<String, Content>,
) -> Result<(), RuntimeError> {
    let bytes = |file: &FileEntry| {
        contents
            .get(&file.content)
            .map(|content| content.bytes.as_slice())
            .ok_or_else(|| RuntimeError::Refused(format!("no content for file {:?}", file.path)))
    };
    if let [file] = tree.files.as_slice()
        && file.path.is_empty()
    {
        return write(path, bytes(file)?, file).map_err(|error| failed(path, &error));
    }
    make_folder(path, 0o755).map_err(|error| failed(path, &error))?;
    for file in &tree.files {
        let (place, bytes) = (below(path, &file.path)?, bytes(file)?);
        make_parents(path, &place)
            .and_then(|()| write(&place, bytes, file))
            .map_err(|error| failed(&place, &error))?;
    }
    Ok(())
}

/// A path under `root`; one that would leave it is refused, whoever let it through before.
fn below(root: &Path, relative: &str) -> Result<PathBuf, RuntimeError> {
    let inside = Path::new(relative)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if relative.is_empty() || !inside {
        let reason = format!("file path {relative:?} leaves its folder");
        return Err(RuntimeError::Refused(reason));
    }
    Ok(root.join(relative))
}

fn make_parents(root: &Path, place: &Path) -> io::Result<()> {
    let parents: Vec<_> = place
        .ancestors()
        .skip(1)
        .take_while(|folder| *folder != root)
        .collect();
    parents
        .into_iter()
        .rev()
        .try_for_each(|folder| make_folder(folder, 0o755))
}

/// A folder with exactly these permissions, whatever the process's umask.
fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn write(path: &Path, bytes: &[u8], entry: &FileEntry) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(entry.mode & 0o7777))?;
    let given = fchown(&file, Some(entry.uid), Some(entry.gid));
    match given {
        // A daemon without the capability cannot give files away. A file that all may read is
        // of as much use with another owner; any other would be locked for its reader.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && entry.mode & 0o004 != 0 => {
            Ok(())
        }
        other => other,
    }
}

fn write_hooks(folder: &Path, hooks: &[Hook]) -> Result<(), RuntimeError> {
    if hooks.is_empty() {
        return Ok(());
    }
    let path = folder.join(PRE_STOP);
    let text = serde_json::to_vec(hooks).map_err(|error| failed(&path, &error.into()))?;
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&text))
        .map_err(|error| failed(&path, &error))
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(path: &Path, error: &io::Error) -> RuntimeError {
    RuntimeError::Refused(format!("cannot write {}: {error}", path.display()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(RuntimeError::Refused(format!("writing files: {error}"))),
    }
}
