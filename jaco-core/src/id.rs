//! Names and identifiers as types of their own, so that a node is never taken for a service.
//!
//! Each is a cheap-to-clone string. Parsing is where rules are checked; once made, a value is
//! trusted. Names come from manifests (spec 02) and hostnames (spec 04).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::manifest::hash::{hex, unhex};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps text that its source has already checked.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

names! {
    /// A cluster's UUID, made at `cluster init`.
    ClusterId;
    /// A deployment's name: a DNS label of at most 40 characters (spec 02).
    DeploymentName;
    /// A compose service's key.
    ServiceName;
    /// A node's hostname; unique in the cluster.
    NodeName;
    /// A compose network's key, or `_default`.
    NetworkName;
    /// A replica's id, which also names its container (spec 05).
    ReplicaId;
    /// Hex SHA-256 of everything that would change a service's container (spec 02).
    SpecHash;
    /// Who did something: a token's name, `local` or `system` (spec 03).
    Identity;
    /// A route's domain: a lower-case FQDN.
    Domain;
}

/// A WireGuard public key, written as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshKey(pub [u8; 32]);

impl fmt::Display for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MeshKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MeshKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = unhex(&String::deserialize(deserializer)?);
        let key = bytes.and_then(|bytes| bytes.try_into().ok());
        key.map(Self)
            .ok_or_else(|| de::Error::custom("not 64 hex digits"))
    }
}

/// A raft member's number. Never reused within a cluster.
pub type MemberId = u64;

/// The network of services that declare none (spec 07).
pub const DEFAULT_NETWORK: &str = "_default";

/// True for `[a-z0-9]([a-z0-9-]*[a-z0-9])?` of at most `max` characters.
pub fn is_dns_label(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    !bytes.is_empty()
        && bytes.len() <= max
        && bytes.iter().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}
