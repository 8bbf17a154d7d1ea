//! Mounts, in the engine's three ways of writing them.
//!
//! `Mounts` is the strict form; `Binds` is the only one that makes a missing host path and
//! relabels for SELinux on every API version; `Tmpfs` the only one that takes free options.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bollard::models::{
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    MountVolumeOptions,
};
use jaco_core::manifest::spec::{BindSource, Mount, MountSource};
use jaco_core::ports::RuntimeError;
use jaco_core::ports::container_runtime::ContainerRequest;

use super::engine::ApiVersion;

/// From here on the engine can mount a folder inside a volume; before, it ignores the wish.
const VOLUME_SUBPATH: ApiVersion = ApiVersion(1, 45);

/// The mounts of one container, sorted by how the engine is told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mounts {
    pub(super) strict: Vec<EngineMount>,
    pub(super) binds: Vec<String>,
    pub(super) tmpfs: HashMap<String, String>,
}

/// Converts all mounts; `trees` are the host paths of file trees by mount index.
pub(super) fn mounts(
    request: &ContainerRequest,
    trees: &BTreeMap<usize, PathBuf>,
    version: ApiVersion,
) -> Result<Mounts, RuntimeError> {
    let mut all = Mounts::default();
    for (index, mount) in request.spec.mounts.iter().enumerate() {
        match &mount.source {
            MountSource::Volume {
                key,
                nocopy,
                subpath,
            } => {
                if subpath.is_some() && version < VOLUME_SUBPATH {
                    let reason = format!(
                        "mount {}: volume subpath needs engine API {VOLUME_SUBPATH}, this one \
                         speaks {version}",
                        mount.target
                    );
                    return Err(RuntimeError::Refused(reason));
                }
                let name = volume_name(request, key)?;
                all.strict
                    .push(volume(mount, name, *nocopy, subpath.clone()));
            }
            MountSource::Anonymous => all.strict.push(strict(mount, MountType::VOLUME, None)),
            MountSource::Bind(source) => bind(&mut all, mount, source)?,
            MountSource::Tmpfs {
                size_bytes,
                mode,
                options,
            } => {
                let options = tmpfs(mount, *size_bytes, *mode, options.as_deref());
                all.tmpfs.insert(mount.target.clone(), options);
            }
            MountSource::Files(_) => {
                let tree = trees.get(&index).ok_or_else(|| no_tree(mount))?;
                all.binds.push(files(mount, tree));
            }
        }
    }
    Ok(all)
}

fn volume_name(request: &ContainerRequest, key: &str) -> Result<String, RuntimeError> {
    let volume = request.volumes.get(key);
    volume
        .map(|volume| volume.engine_name.clone())
        .ok_or_else(|| RuntimeError::Refused(format!("volume \"{key}\" is not declared")))
}

fn volume(mount: &Mount, name: String, nocopy: bool, subpath: Option<String>) -> EngineMount {
    EngineMount {
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(nocopy),
            subpath,
            ..Default::default()
        }),
        ..strict(mount, MountType::VOLUME, Some(name))
    }
}

fn strict(mount: &Mount, kind: MountType, source: Option<String>) -> EngineMount {
    EngineMount {
        target: Some(mount.target.clone()),
        source,
        typ: Some(kind),
        read_only: Some(mount.read_only),
        ..Default::default()
    }
}

fn bind(all: &mut Mounts, mount: &Mount, source: &BindSource) -> Result<(), RuntimeError> {
    // The short form would make the path; the strict one cannot relabel.
    let must_exist = !source.create_host_path;
    let short = !source.path.contains(':') && (!must_exist || source.selinux.is_some());
    if short && must_exist && matches!(Path::new(&source.path).try_exists(), Ok(false)) {
        let reason = format!("bind source path does not exist: {}", source.path);
        return Err(RuntimeError::Refused(reason));
    }
    if short {
        all.binds.push(short_bind(mount, source));
        return Ok(());
    }
    let options = MountBindOptions {
        propagation: source.propagation.as_deref().map(propagation).transpose()?,
        create_mountpoint: source.create_host_path.then_some(true),
        ..Default::default()
    };
    all.strict.push(EngineMount {
        bind_options: Some(options),
        ..strict(mount, MountType::BIND, Some(source.path.clone()))
    });
    Ok(())
}

fn short_bind(mount: &Mount, source: &BindSource) -> String {
    let access = if mount.read_only { "ro" } else { "rw" };
    let options = [
        Some(access),
        source.propagation.as_deref(),
        source.selinux.as_deref(),
    ];
    let options: Vec<_> = options.into_iter().flatten().collect();
    format!("{}:{}:{}", source.path, mount.target, options.join(","))
}

fn propagation(text: &str) -> Result<MountBindOptionsPropagationEnum, RuntimeError> {
    text.parse()
        .map_err(|_| RuntimeError::Refused(format!("unknown bind propagation {text:?}")))
}

fn tmpfs(
    mount: &Mount,
    size_bytes: Option<u64>,
    mode: Option<u32>,
    options: Option<&str>,
) -> String {
    let parts = [
        mount.read_only.then(|| "ro".to_owned()),
        size_bytes.map(|bytes| format!("size={bytes}")),
        mode.map(|mode| format!("mode={mode:o}")),
        options
            .filter(|options| !options.is_empty())
            .map(str::to_owned),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    parts.join(",")
}

/// Always read-only; relabelled to shared, without which a host with SELinux hides the files.
fn files(mount: &Mount, tree: &Path) -> String {
    format!("{}:{}:ro,z", tree.display(), mount.target)
}

fn no_tree(mount: &Mount) -> RuntimeError {
    RuntimeError::Refused(format!("the files of mount {} are missing", mount.target))
}
