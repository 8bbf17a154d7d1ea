//! The adapters of JACO: each module implements one port of `jaco-core`.
//!
//! No adapter knows another. What two of them share, TLS and the generated messages, stands in
//! [`transport`].

pub mod acme;
pub mod api;
pub mod dns;
pub mod docker;
#[cfg(test)]
mod fuzz;
pub mod ingress;
pub mod metrics;
pub mod netlink;
pub mod nftables;
pub mod probe;
pub mod raft;
pub mod seal;
pub mod system;
pub mod transport;
pub mod wireguard;
