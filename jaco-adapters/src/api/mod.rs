//! The gRPC interface: the server of a daemon, and the client of the command line (spec 09).

pub mod client;
mod convert;
pub mod node;
pub mod server;

pub use client::Client;
