//! How a command ends other than well.

use jaco_core::error::{Error, ErrorCode, Report};

/// Why a command failed, and so its exit code (spec 09).
#[derive(Debug)]
pub enum Failure {
    /// Refused or failed.
    Error(Error),
    /// The manifests break their schema; already told.
    Manifests(Report),
    /// No daemon answers.
    Unreachable(String),
    /// `--wait` ended without convergence.
    NotConverged(String),
    /// Already told, or nothing more to say.
    Silent(u8),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Error(error) => error.code.exit_code(),
            Failure::Manifests(_) => 1,
            Failure::Unreachable(_) => 3,
            Failure::NotConverged(_) => 4,
            Failure::Silent(code) => *code,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

/// A file that cannot be read or written.
pub(super) fn file(what: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    let message = format!("{what} {}: {error}", path.display());
    let error = Error::new(ErrorCode::ValidationFailed, message).with("file", path.display());
    Failure::Error(error)
}
