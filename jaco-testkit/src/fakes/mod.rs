//! Ports in memory: deterministic, under a test's control, held to the same contracts as the
//! real adapters.

pub mod bridge_networks;
pub mod certificate_authority;
pub mod clock;
pub mod consensus;
pub mod container_logs;
pub mod container_runtime;
pub mod dns_responder;
pub mod host_network;
pub mod ids;
pub mod ingress_proxy;
pub mod web;

pub use bridge_networks::FakeBridges;
pub use certificate_authority::FakeAuthority;
pub use clock::FakeClock;
pub use consensus::FakeConsensus;
pub use container_logs::FakeLogs;
pub use container_runtime::{Behaviour, FakeRuntime};
pub use dns_responder::FakeDns;
pub use host_network::FakeHost;
pub use ids::FakeIds;
pub use ingress_proxy::FakeIngress;
pub use web::{FakeLookup, FakeWeb};
