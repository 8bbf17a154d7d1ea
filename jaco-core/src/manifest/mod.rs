//! Manifests: text → nodes with spans → one [`spec::DeploymentSpec`], or every violation.
//!
//! The client calls [`resolve::resolve`], which reads whatever the files point at and gives a
//! [`bundle::Bundle`]; the daemon calls [`bundle::parse`] on it. Both decode the same document
//! with the same code, so both see the same spec (`tests/manifest_props.rs`).

mod assemble;
pub mod bounds;
pub mod bundle;
pub mod classify;
mod compose;
mod container_spec;
mod contents;
pub mod dotenv;
mod findings;
pub mod hash;
pub mod host_access;
pub mod interpolate;
mod jaco;
mod merge;
pub mod output;
mod read;
mod redact;
pub mod resolve;
pub mod settings;
pub mod spec;
mod validate;
mod yaml;

pub use bundle::{Bundle, parse};
pub use classify::{KeyClass, KeyUse};
pub use contents::CarriedFile;
pub use findings::Notice;
pub use redact::redacted;
pub use resolve::{ResolveRequest, Resolved, Source, resolve};
