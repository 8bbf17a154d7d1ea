//! The contents of secrets, configs and binds, read from the project and remembered.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::paths;
use crate::manifest::bundle::Bundle;
use crate::manifest::contents::{CarriedFile, Contents};
use crate::manifest::hash::sha256_hex;
use crate::manifest::spec::Content;
use crate::ports::{ListedFile, ProjectFiles};

/// What one source may hold: a raft entry carries all of it.
const MAX_BYTES: u64 = 1024 * 1024;
/// How many files one source may hold, since empty ones weigh nothing.
const MAX_FILES: usize = 4096;

/// Reads through the port; each source once.
pub(super) struct Reading<'a> {
    files: &'a dyn ProjectFiles,
    base: &'a str,
    has_base: bool,
    taken: RefCell<Bundle>,
    /// What could not be read, so that a second use does not try again.
    failed: RefCell<BTreeMap<String, String>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(files: &'a dyn ProjectFiles, compose: &'a str, has_base: bool) -> Self {
        Self {
            files,
            base: paths::parent(compose),
            has_base,
            taken: RefCell::default(),
            failed: RefCell::default(),
        }
    }

    /// Everything read, with the documents that asked for it.
    pub(super) fn into_bundle(
        self,
        jaco: String,
        compose: String,
        inactive: BTreeSet<String>,
    ) -> Bundle {
        Bundle {
            jaco,
            compose,
            inactive,
            ..self.taken.into_inner()
        }
    }

    fn keep(&self, bytes: Vec<u8>) -> String {
        let hash = sha256_hex(&bytes);
        self.taken
            .borrow_mut()
            .contents
            .insert(hash.clone(), Content { bytes });
        hash
    }

    fn read_tree(&self, path: &str) -> Result<Vec<CarriedFile>, String> {
        if !self.has_base {
            return Err("a compose file from standard input has no base directory".to_owned());
        }
        let located = paths::join(self.base, path);
        let listed = self
            .files
            .list(&located)
            .map_err(|error| error.to_string())?;
        check_size(listed.iter().map(|file| file.size).sum(), listed.len())?;
        let mut carried = Vec::with_capacity(listed.len());
        let mut total = 0;
        for ListedFile { path, mode, .. } in listed {
            let file = if path.is_empty() {
                located.clone()
            } else {
                paths::join(&located, &path)
            };
            let bytes = self
                .files
                .read(&file)
                .map_err(|error| format!("{path}: {error}"))?;
            // A file may have grown since it was listed.
            total += bytes.len() as u64;
            check_size(total, carried.len())?;
            let content = self.keep(bytes);
            carried.push(CarriedFile {
                path,
                mode,
                content,
            });
        }
        Ok(carried)
    }
}

impl Contents for Reading<'_> {
    fn file(&self, path: &str) -> Result<String, String> {
        match self.tree(path)?.as_slice() {
            [file] if file.path.is_empty() => Ok(file.content.clone()),
            _ => Err(format!("{path:?} is a directory, not a file")),
        }
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        let value = self.files.variable(name);
        let value = value.ok_or_else(|| format!("environment variable {name:?} is not set"))?;
        check_size(value.len() as u64, 1)?;
        let hash = self.keep(value.into_bytes());
        self.taken
            .borrow_mut()
            .variables
            .insert(name.to_owned(), hash.clone());
        Ok(hash)
    }

    fn inline(&self, text: &str) -> String {
        self.keep(text.as_bytes().to_vec())
    }

    fn tree(&self, path: &str) -> Result<Vec<CarriedFile>, String> {
        if let Some(files) = self.taken.borrow().files.get(path) {
            return Ok(files.clone());
        }
        if let Some(reason) = self.failed.borrow().get(path) {
            return Err(reason.clone());
        }
        let read = self.read_tree(path);
        match &read {
            Ok(files) => {
                self.taken
                    .borrow_mut()
                    .files
                    .insert(path.to_owned(), files.clone());
            }
            Err(reason) => {
                self.failed
                    .borrow_mut()
                    .insert(path.to_owned(), reason.clone());
            }
        }
        read
    }

    fn taken(&self) -> BTreeMap<String, Content> {
        self.taken.borrow().contents.clone()
    }
}

fn check_size(bytes: u64, files: usize) -> Result<(), String> {
    if bytes > MAX_BYTES {
        return Err(format!(
            "it holds {bytes} bytes, more than the 1 MiB that may travel along"
        ));
    }
    if files > MAX_FILES {
        return Err(format!(
            "it holds {files} files, more than the {MAX_FILES} that may travel"
        ));
    }
    Ok(())
}
