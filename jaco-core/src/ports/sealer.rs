//! Sealing of state at rest (spec 10).

/// Seals with the cluster's state key. A sealed value opens only under the name it was sealed
/// for, so that records cannot be swapped.
pub trait Sealer: Send + Sync + 'static {
    /// Encrypts and authenticates. Two calls never give the same bytes.
    fn seal(&self, name: &str, plain: &[u8]) -> Vec<u8>;

    /// Opens what [`Sealer::seal`] made for the same name.
    ///
    /// # Errors
    /// [`SealError`] for other bytes, another name or another key.
    fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError>;
}

/// The bytes were not sealed under this name with this key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot open sealed record \"{name}\": wrong state key, or the bytes were changed")]
pub struct SealError {
    /// What was to be opened.
    pub name: String,
}
