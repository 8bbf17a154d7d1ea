//! What containers on this node wrote.

use async_trait::async_trait;

use super::RuntimeError;
use crate::id::ReplicaId;
use crate::time::Timestamp;

/// Opens the log of a container.
#[async_trait]
pub trait ContainerLogs: Send + Sync + 'static {
    /// The log of a replica's container, oldest line first. Ends with the container's output
    /// unless `follow`.
    async fn open(
        &self,
        replica: &ReplicaId,
        options: &LogOptions,
    ) -> Result<Box<dyn LogLines>, RuntimeError>;
}

/// Which lines to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LogOptions {
    pub follow: bool,
    pub since: Option<Timestamp>,
    /// The last so many lines; all when absent.
    pub tail: Option<u32>,
}

/// A log being read.
#[async_trait]
pub trait LogLines: Send {
    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<Result<LogLine, RuntimeError>>;
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LogLine {
    pub at: Option<Timestamp>,
    pub stderr: bool,
    /// Without its line end; bytes that are not UTF-8 are replaced.
    pub text: String,
}
