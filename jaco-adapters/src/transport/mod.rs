//! What several adapters share: certificates, TLS connections, the generated messages, listeners,
//! counted durations, the connection to the kernel.

pub mod connect;
pub(crate) mod histogram;
pub mod incoming;
pub(crate) mod links;
pub(crate) mod listeners;
pub mod pki;
pub(crate) mod seats;
pub mod tls;

/// Generated from `src/api/proto`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod proto {
    /// The public interface.
    pub mod v1 {
        tonic::include_proto!("jaco.v1");
    }
    /// Between members.
    pub mod internal {
        tonic::include_proto!("jaco.internal.v1");
    }
}

/// The largest message that is taken from the network, bytes.
pub const MAX_MESSAGE: usize = 64 << 20;
