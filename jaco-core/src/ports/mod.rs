//! What the core needs from outside, one trait per file.

mod project_files;

pub use project_files::{FileError, ListedFile, ProjectFiles};
