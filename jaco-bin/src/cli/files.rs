//! The manifests of a project: finding them, and the files beside them.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jaco_core::error::{Error, ErrorCode};
use jaco_core::manifest::bounds::{MAX_CONTENTS, MAX_MANIFEST};
use jaco_core::manifest::{ResolveRequest, Resolved, Source, resolve};
use jaco_core::ports::{FileError, ListedFile, ProjectFiles};

use super::exit::{self, Failure};

/// In this order, beside `jaco.yaml` (spec 02).
const COMPOSE_NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// Two manifests as they were read.
pub(super) struct Manifests {
    jaco: Source,
    compose: Source,
    from_stdin: bool,
}

/// Reads `jaco.yaml` and the compose file that belongs to it.
pub(super) fn read(jaco: &Path, compose: Option<&Path>) -> Result<Manifests, Failure> {
    let jaco_source = source(jaco)?;
    let from_stdin = compose == Some(Path::new("-"));
    let compose = match compose {
        Some(_) if from_stdin => {
            let mut text = String::new();
            std::io::stdin()
                .take(MAX_MANIFEST as u64 + 1)
                .read_to_string(&mut text)
                .map_err(|error| exit::file("read", Path::new("-"), &error))?;
            Source {
                name: "-".to_owned(),
                text,
            }
        }
        Some(path) => source(path)?,
        None => source(&discover(jaco)?)?,
    };
    Ok(Manifests {
        jaco: jaco_source,
        compose,
        from_stdin,
    })
}

impl Manifests {
    /// Resolves both, reading whatever they point at.
    pub(super) fn resolve(&self, profiles: &[String], strict: bool) -> Resolved {
        let request = ResolveRequest {
            jaco: &self.jaco,
            compose: &self.compose,
            compose_has_base_dir: !self.from_stdin,
            profiles,
            strict,
        };
        resolve(&request, &Disk)
    }

    /// The text of a file that a violation names, for showing the line.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        [&self.jaco, &self.compose]
            .into_iter()
            .find(|source| source.name == name)
            .map(|source| source.text.clone())
            .or_else(|| String::from_utf8(read_file(Path::new(name), MAX_MANIFEST).ok()?).ok())
    }
}

fn source(path: &Path) -> Result<Source, Failure> {
    let failed = |error: &std::io::Error| exit::file("read", path, error);
    let bytes = read_file(path, MAX_MANIFEST).map_err(|error| failed(&error))?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| failed(&std::io::Error::other("not UTF-8 text")))?;
    Ok(Source {
        name: path.display().to_string(),
        text,
    })
}

fn discover(jaco: &Path) -> Result<PathBuf, Failure> {
    let dir = jaco.parent().unwrap_or(Path::new(""));
    let found = COMPOSE_NAMES
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        let message = format!(
            "no compose file beside {}: looked for {}",
            jaco.display(),
            COMPOSE_NAMES.join(", ")
        );
        Failure::Error(Error::new(ErrorCode::ValidationFailed, message))
    })
}

/// Opens without waiting for a writer, should it be a pipe.
const O_NONBLOCK: i32 = 0o4000;

/// The bytes of a regular file that has not more than so many. Looked at once it is open, so that
/// nothing else is read than was looked at.
fn read_file(path: &Path, most: usize) -> std::io::Result<Vec<u8>> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    let too_large = || std::io::Error::other(format!("larger than {most} bytes"));
    if about.len() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // What the kernel makes as it is read has no size before.
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large());
    }
    Ok(bytes)
}

/// The files of this host.
struct Disk;

impl ProjectFiles for Disk {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        read_file(Path::new(path), MAX_CONTENTS).map_err(|error| reason(&error))
    }

    fn list(&self, path: &str) -> Result<Vec<ListedFile>, FileError> {
        let mut walk = Walk::default();
        walk.visit(Path::new(path), String::new())?;
        walk.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(walk.files)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Directories nest no deeper than this; a deeper tree is a loop of links.
const DEEPEST: usize = 64;
/// A tree larger than this cannot travel, so that its end is not looked for.
const MAX_FILES: usize = 10_000;
const MAX_TREE: u64 = 1 << 30;

/// What a walk of a tree has found so far.
#[derive(Default)]
struct Walk {
    files: Vec<ListedFile>,
    bytes: u64,
    /// Files and directories: links may make a few empty directories endlessly many.
    seen: usize,
}

impl Walk {
    fn visit(&mut self, path: &Path, relative: String) -> Result<(), FileError> {
        let about = std::fs::metadata(path).map_err(|error| reason(&error))?;
        self.seen += 1;
        if about.is_file() {
            self.bytes = self.bytes.saturating_add(about.len());
        }
        if self.seen > MAX_FILES || self.bytes > MAX_TREE {
            let message = format!("more than {MAX_FILES} entries or {MAX_TREE} bytes");
            return Err(FileError::Other(message));
        }
        if about.is_file() {
            self.files.push(ListedFile {
                path: relative,
                mode: about.permissions().mode() & 0o7777,
                size: about.len(),
            });
            return Ok(());
        }
        if !about.is_dir() {
            return Err(FileError::Other(
                "neither a file nor a directory".to_owned(),
            ));
        }
        if relative.matches('/').count() > DEEPEST {
            return Err(FileError::Other("directories nest too deeply".to_owned()));
        }
        for entry in std::fs::read_dir(path).map_err(|error| reason(&error))? {
            let entry = entry.map_err(|error| reason(&error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let below = if relative.is_empty() {
                name
            } else {
                format!("{relative}/{name}")
            };
            self.visit(&entry.path(), below)?;
        }
        Ok(())
    }
}

fn reason(error: &std::io::Error) -> FileError {
    match error.kind() {
        ErrorKind::NotFound => FileError::NotFound,
        ErrorKind::PermissionDenied => FileError::PermissionDenied,
        _ => FileError::Other(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that fails says where
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("jaco-files-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_walk_of_links_without_files_ends() {
        let dir = scratch("links");
        symlink(".", dir.join("a")).unwrap();
        symlink(".", dir.join("b")).unwrap();
        let listed = Disk.list(dir.to_str().unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(listed, Err(FileError::Other(_))));
    }

    #[test]
    fn one_directory_of_many_files_is_refused() {
        let dir = scratch("flat");
        for number in 0..=MAX_FILES {
            std::fs::File::create(dir.join(number.to_string())).unwrap();
        }
        let listed = Disk.list(dir.to_str().unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(listed, Err(FileError::Other(_))));
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let dir = scratch("read");
        let file = dir.join("file");
        std::fs::write(&file, "abc").unwrap();
        let within = read_file(&file, 3);
        let beyond = read_file(&file, 2);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(within.unwrap(), b"abc");
        assert!(beyond.is_err());
        assert!(read_file(Path::new("/dev/zero"), MAX_MANIFEST).is_err());
        assert!(read_file(Path::new("/"), MAX_MANIFEST).is_err());
    }
}
