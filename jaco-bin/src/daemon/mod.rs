//! The daemon: configuration, wiring, life cycle, and the drivers that connect core and ports.

mod checks;
pub mod config;
mod drive;
mod identity;
pub mod lifecycle;
mod plane;
pub mod recover;
mod wiring;
