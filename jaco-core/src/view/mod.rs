//! What users see of the state: the JSON shapes of spec 09, as pure functions of a snapshot.
//!
//! Tables and documents are made from the same types. Field names are fixed: adding one is
//! compatible, renaming one is not (`jaco-core/tests/view_shapes.rs`).

pub mod cert;
pub mod changes;
pub mod check;
pub mod cluster;
pub mod deployment;
pub mod network;
pub mod replica;
pub mod route;
pub mod status;

pub use changes::{Change, changes};
