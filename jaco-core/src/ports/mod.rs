//! What the core needs from outside: one trait per file, core types only.
//!
//! Traits are object-safe and held as `Arc<dyn Port>`. Each has one contract suite in
//! `jaco-testkit/src/contract`.

pub mod bridge_networks;
pub mod certificate_authority;
pub mod clock;
pub mod consensus;
pub mod container_logs;
pub mod container_runtime;
pub mod control_plane;
pub mod dns_responder;
pub mod firewall;
pub mod host_lookup;
pub mod host_network;
pub mod ids;
pub mod ingress_proxy;
pub mod mesh;
pub mod meter;
pub mod probe;
pub mod project_files;
pub mod sealer;
pub mod self_check;
pub mod system_probe;
pub mod web_probe;

pub use bridge_networks::BridgeNetworks;
pub use certificate_authority::CertificateAuthority;
pub use clock::Clock;
pub use consensus::{Consensus, ConsensusError};
pub use container_logs::ContainerLogs;
pub use container_runtime::{ContainerRuntime, RuntimeError};
pub use control_plane::ControlPlane;
pub use dns_responder::DnsResponder;
pub use firewall::Firewall;
pub use host_lookup::HostLookup;
pub use host_network::{HostError, HostNetwork};
pub use ids::Ids;
pub use ingress_proxy::IngressProxy;
pub use mesh::Mesh;
pub use meter::{Measured, Meter};
pub use probe::Probe;
pub use project_files::{FileError, ListedFile, ProjectFiles};
pub use sealer::{SealError, Sealer};
pub use self_check::SelfCheck;
pub use system_probe::SystemProbe;
pub use web_probe::WebProbe;
