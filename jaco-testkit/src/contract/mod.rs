//! One suite per port, which every implementation passes: the fake always, the real adapter
//! where the machine has what it needs.
//!
//! A suite is an `async fn` that takes the port and a description of the world around it, and
//! panics at the first promise that is broken. It runs on any async runtime and leaves nothing
//! behind that it can remove through the port.

pub mod bridge_networks;
pub mod certificate_authority;
pub mod container_logs;
pub mod container_runtime;
pub mod dns_responder;
pub mod host_lookup;
pub mod host_network;
pub mod ingress_proxy;
mod wait;
pub mod web_probe;
