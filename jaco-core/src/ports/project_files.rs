//! The files next to a manifest, as the client reads them while it resolves (spec 02).

/// Reads what `jaco.yaml` and the compose file point at. Used by the client only; a daemon gets
/// everything in a bundle.
///
/// Paths are those of the manifests joined with the directory of the file that names them, so a
/// relative path counts from the process's working directory. Nothing is written, and asking
/// twice gives the same answer or an error. Not async: a client has nothing else to do.
pub trait ProjectFiles {
    /// The bytes of a file; links are followed.
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError>;

    /// The regular files under a directory, recursively and in path order, or the file itself.
    /// Links are followed; anything that is neither file nor directory is an error.
    fn list(&self, path: &str) -> Result<Vec<ListedFile>, FileError>;

    /// A variable of the process's environment, for `environment:` sources of secrets and
    /// configs. Never used for interpolation.
    fn variable(&self, name: &str) -> Option<String>;
}

/// One file of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Relative to the listed path with `/` between names; empty when the path is a file.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
}

/// Why a file could not be read; each reads as the reason behind a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Nothing is there.
    #[error("no such file or directory")]
    NotFound,
    /// The user may not read it.
    #[error("permission denied")]
    PermissionDenied,
    /// Anything else, in the words of the system.
    #[error("{0}")]
    Other(String),
}
