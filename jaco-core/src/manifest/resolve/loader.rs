//! Opens the files that a compose file names, and fills in their variables.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{fill, paths};
use crate::manifest::bounds::MAX_MANIFEST;
use crate::manifest::dotenv;
use crate::manifest::findings::Findings;
use crate::manifest::read::Path;
use crate::manifest::yaml::{self, At, Node};
use crate::ports::ProjectFiles;

/// Variables of one file, or the fact that they could not be read.
#[derive(Clone)]
pub(super) struct Variables {
    values: dotenv::Variables,
    known: bool,
}

impl Variables {
    pub(super) fn known(values: dotenv::Variables) -> Self {
        let known = true;
        Self { values, known }
    }

    /// Nothing is known, so that nothing which depends on it is judged.
    pub(super) fn unknown() -> Self {
        Self {
            values: dotenv::Variables::new(),
            known: false,
        }
    }

    pub(super) fn values(&self) -> &dotenv::Variables {
        &self.values
    }

    pub(super) fn are_known(&self) -> bool {
        self.known
    }

    /// These, and where they are silent, those of `defaults`.
    pub(super) fn or(&self, mut defaults: dotenv::Variables) -> Self {
        defaults.extend(self.values.clone());
        Self {
            values: defaults,
            known: self.known,
        }
    }
}

/// A compose file other than the first, its variables not filled in yet.
pub(super) struct Loaded {
    pub(super) text: String,
    pub(super) document: Node,
}

/// Reads and remembers. Paths that it takes count from the first compose file's directory.
pub(super) struct Loader<'a> {
    pub(super) files: &'a dyn ProjectFiles,
    pub(super) findings: &'a Findings,
    base: &'a str,
    loaded: RefCell<BTreeMap<String, Option<Rc<Loaded>>>>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(files: &'a dyn ProjectFiles, findings: &'a Findings, base: &'a str) -> Self {
        Self {
            files,
            findings,
            base,
            loaded: RefCell::default(),
        }
    }

    /// A path as the port takes it.
    pub(super) fn locate(&self, path: &str) -> String {
        paths::join(self.base, path)
    }

    /// Fills the variables into a tree that stands at `path` of the file that `text` is.
    pub(super) fn fill(&self, node: &mut Node, text: &str, variables: &Variables, path: &Path<'_>) {
        fill::fill(node, text, variables, path, self.findings);
    }

    /// The file at a path; `None` when its failure has been reported, now or before.
    pub(super) fn load(&self, path: &str, by: (At, &str)) -> Option<Rc<Loaded>> {
        if let Some(known) = self.loaded.borrow().get(path) {
            return known.clone();
        }
        let read = self.read(path, by).map(Rc::new);
        self.loaded
            .borrow_mut()
            .insert(path.to_owned(), read.clone());
        read
    }

    fn read(&self, path: &str, (at, key): (At, &str)) -> Option<Loaded> {
        let located = self.locate(path);
        let text = match self.files.read(&located) {
            Ok(bytes) if bytes.len() > MAX_MANIFEST => Err(format!(
                "it has {} bytes; at most {MAX_MANIFEST} are read",
                bytes.len()
            )),
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let text = text
            .map_err(|reason| {
                self.findings
                    .invalid(at, key, format!("load compose file {located}: {reason}"));
            })
            .ok()?;
        let file = self.findings.open(&located);
        let document = yaml::parse(&text, file, self.findings)?;
        Some(Loaded { text, document })
    }
}
