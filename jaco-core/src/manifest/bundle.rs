//! What a client sends: both documents, resolved, and the bytes that they refer to.
//!
//! The documents stay documents, so that a daemon checks them as strictly as the client did. A
//! path in them means nothing to a daemon: it is looked up in what the bundle carries, and
//! nowhere else.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::assemble::assemble;
use super::bounds::MAX_MANIFEST;
use super::contents::{CarriedFile, Contents};
use super::findings::Findings;
use super::hash::sha256_hex;
use super::spec::{Content, DeploymentSpec};
use super::yaml;
use crate::error::Report;

/// A resolved deployment on its way to a daemon.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// `jaco.yaml`, as the user wrote it.
    pub jaco: String,
    /// The resolved compose document, as JSON.
    pub compose: String,
    /// Services of the compose file whose profile is off.
    #[serde(default)]
    pub inactive: BTreeSet<String>,
    /// What stands at the paths of secrets, configs and relative binds.
    #[serde(default)]
    pub files: BTreeMap<String, Vec<CarriedFile>>,
    /// Content hashes of `environment:` sources, by variable.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Bytes by their hex SHA-256.
    #[serde(default)]
    pub contents: BTreeMap<String, Content>,
}

/// Both documents may hold secrets in environment values.
impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<&String> = self.files.keys().collect();
        f.debug_struct("Bundle")
            .field("files", &paths)
            .finish_non_exhaustive()
    }
}

/// The daemon's side: decodes and validates a bundle as if nobody had before.
pub fn parse(bundle: &Bundle) -> Result<DeploymentSpec, Report> {
    let findings = Findings::default();
    let jaco = findings.open("jaco.yaml");
    let compose = findings.open("compose.yaml");
    for (hash, content) in &bundle.contents {
        if sha256_hex(&content.bytes) != *hash {
            findings.invalid_file(compose, format!("content {hash:?} does not have that hash"));
        }
    }
    let carried = Carried {
        bundle,
        taken: RefCell::default(),
    };
    if bundle.jaco.len() > MAX_MANIFEST {
        let message = format!(
            "jaco.yaml has {} bytes; at most {MAX_MANIFEST} are read",
            bundle.jaco.len()
        );
        findings.invalid_file(jaco, message);
        return Err(findings.into_parts().0);
    }
    let jaco = yaml::parse(&bundle.jaco, jaco, &findings);
    let compose = yaml::parse(&bundle.compose, compose, &findings);
    let (jaco, compose) = (jaco.as_ref(), compose.as_ref());
    let spec = assemble(jaco, compose, &bundle.inactive, &carried, &findings);
    let (report, _) = findings.into_parts();
    spec.filter(|_| report.is_empty()).ok_or(report)
}

/// Answers from the bundle, and remembers what was asked for.
struct Carried<'a> {
    bundle: &'a Bundle,
    taken: RefCell<BTreeMap<String, Content>>,
}

impl Carried<'_> {
    fn take(&self, hash: &str) -> Result<String, String> {
        let content = self.bundle.contents.get(hash);
        let content = content.ok_or_else(|| "its content is not in the bundle".to_owned())?;
        self.taken
            .borrow_mut()
            .insert(hash.to_owned(), content.clone());
        Ok(hash.to_owned())
    }
}

impl Contents for Carried<'_> {
    fn file(&self, path: &str) -> Result<String, String> {
        match self.tree(path)?.as_slice() {
            [file] if file.path.is_empty() => Ok(file.content.clone()),
            _ => Err("it is not one file".to_owned()),
        }
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        match self.bundle.variables.get(name) {
            Some(hash) => self.take(hash),
            None => Err(format!("variable {name:?} is not in the bundle")),
        }
    }

    fn inline(&self, text: &str) -> String {
        let hash = sha256_hex(text.as_bytes());
        let bytes = text.as_bytes().to_vec();
        self.taken
            .borrow_mut()
            .insert(hash.clone(), Content { bytes });
        hash
    }

    fn tree(&self, path: &str) -> Result<Vec<CarriedFile>, String> {
        let files = self.bundle.files.get(path);
        let files = files.ok_or_else(|| format!("{path:?} is not in the bundle"))?;
        if let Some(escaping) = files.iter().find(|file| !stays_inside(&file.path)) {
            return Err(format!("{:?} leaves its directory", escaping.path));
        }
        for file in files {
            self.take(&file.content)?;
        }
        Ok(files.clone())
    }

    fn taken(&self) -> BTreeMap<String, Content> {
        self.taken.borrow().clone()
    }
}

/// A bundle comes from the network: its paths must not lead a node anywhere else.
fn stays_inside(path: &str) -> bool {
    path.is_empty() || path.split('/').all(|name| !matches!(name, "" | "." | ".."))
}
