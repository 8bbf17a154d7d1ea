//! Manifests: text → nodes with spans → one resolved [`spec::DeploymentSpec`], or every violation.

mod container_spec;
pub mod hash;
pub mod spec;
