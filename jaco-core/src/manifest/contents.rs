//! Where the bytes of secrets, configs and small bind trees come from.
//!
//! On the client they are read from the project ([`super::resolve`]) and remembered; in the
//! daemon they are what the bundle carries ([`super::bundle`]). Decoding sees no difference,
//! which is why both sides arrive at the same spec.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spec::Content;

/// What may be asked for while a compose document is decoded. Errors are reasons, to be put
/// behind the path of the key that asked.
pub(crate) trait Contents {
    /// The content of a file, by its path relative to the compose file.
    fn file(&self, path: &str) -> Result<String, String>;
    /// The content of an `environment:` source.
    fn variable(&self, name: &str) -> Result<String, String>;
    /// The content of text in the document itself.
    fn inline(&self, text: &str) -> String;
    /// The files under a path, or the file that the path is.
    fn tree(&self, path: &str) -> Result<Vec<CarriedFile>, String>;
    /// Everything that was asked for, by content hash.
    fn taken(&self) -> BTreeMap<String, Content>;
}

/// One file that travels with a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedFile {
    /// Relative to the mounted path; empty when the path is the file.
    pub path: String,
    /// Permission bits on the operator's machine.
    pub mode: u32,
    /// Key into the contents: hex SHA-256.
    pub content: String,
}
