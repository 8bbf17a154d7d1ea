//! What leaves the machine that one would not expect to: files from outside the project, and
//! variables of the process (spec 10, Bounds).

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::paths;
use crate::ports::{FileError, ListedFile, ProjectFiles};

/// Reads for the resolution, and remembers what was read.
pub(super) struct Leaving<'a> {
    files: &'a dyn ProjectFiles,
    /// The directories that count as the project.
    inside: [String; 2],
    outside: RefCell<BTreeSet<String>>,
    variables: RefCell<BTreeSet<String>>,
}

impl<'a> Leaving<'a> {
    /// The project is where its two manifests are.
    pub(super) fn new(files: &'a dyn ProjectFiles, jaco: &str, compose: &str) -> Self {
        let directory = |name: &str| match paths::parent(name) {
            "" => ".".to_owned(),
            directory => paths::join("", directory),
        };
        Self {
            files,
            inside: [directory(jaco), directory(compose)],
            outside: RefCell::default(),
            variables: RefCell::default(),
        }
    }

    /// What has left, in words.
    pub(super) fn told(&self) -> Vec<String> {
        let outside = self.outside.borrow();
        let variables = self.variables.borrow();
        let outside = outside
            .iter()
            .map(|path| format!("{path} lies outside the project and is read"));
        let variables = variables
            .iter()
            .map(|name| format!("variable {name} of this process is sent"));
        outside.chain(variables).collect()
    }

    fn note(&self, path: &str) {
        let clean = paths::join("", path);
        let is_in = |directory: &String| match directory.as_str() {
            "." => !clean.starts_with('/') && clean != ".." && !clean.starts_with("../"),
            directory => clean
                .strip_prefix(directory)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        if !self.inside.iter().any(is_in) {
            self.outside.borrow_mut().insert(clean);
        }
    }
}

impl ProjectFiles for Leaving<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        self.note(path);
        self.files.read(path)
    }

    fn list(&self, path: &str) -> Result<Vec<ListedFile>, FileError> {
        self.note(path);
        self.files.list(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        let value = self.files.variable(name)?;
        self.variables.borrow_mut().insert(name.to_owned());
        Some(value)
    }
}
