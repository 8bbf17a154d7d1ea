//! How large a deployment may be (spec 10, Bounds). What breaks a bound is refused, and nothing
//! is made of it first.

use super::spec::{DeploymentSpec, Placement};
use crate::error::{Error, ErrorCode};

/// Bytes of one manifest as it is written.
pub const MAX_MANIFEST: usize = 1 << 20;
/// Bytes that aliases, includes, `extends` and variables may make of a manifest.
pub const MAX_EXPANDED: usize = 16 << 20;
/// Bytes that variables may make of one value.
pub const MAX_VALUE: usize = 1 << 20;
/// Bytes of secrets, configs and carried files of a deployment.
pub const MAX_CONTENTS: usize = 16 << 20;
/// Replicas of a service.
pub const MAX_REPLICAS: u32 = 10_000;
/// Replicas of all deployments together.
pub const MAX_CLUSTER_REPLICAS: u64 = 100_000;
/// Services of a deployment.
pub const MAX_SERVICES: usize = 5_000;
/// Networks of a deployment.
pub const MAX_NETWORKS: usize = 1_000;
/// Routes of a deployment.
pub const MAX_ROUTES: usize = 10_000;
/// Files that a compose file may include, counted as often as they are included.
pub const MAX_INCLUDES: usize = 1_000;

/// Whether a name may be a network's, a volume's, a secret's or a config's: 1 to 63 letters,
/// digits, `.`, `_` and `-`, the first a letter or digit.
pub fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.len() <= 63
        && name.bytes().all(inner)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Refuses a deployment that is too large by itself.
///
/// # Errors
/// `validation_failed`.
pub fn check(spec: &DeploymentSpec) -> Result<(), Error> {
    let refuse = |field: String, message: String| {
        Err(Error::new(ErrorCode::ValidationFailed, message).with("field", field))
    };
    for (what, count, most) in [
        ("services", spec.services.len(), MAX_SERVICES),
        ("networks", spec.networks.len(), MAX_NETWORKS),
        ("routes", spec.routes.len(), MAX_ROUTES),
    ] {
        if count > most {
            return refuse(
                what.to_owned(),
                format!("{count} {what}; at most {most} are allowed"),
            );
        }
    }
    let too_many = spec
        .services
        .iter()
        .find(|(_, it)| it.replicas > MAX_REPLICAS);
    if let Some((name, service)) = too_many {
        let message = format!(
            "service \"{name}\" has {} replicas; at most {MAX_REPLICAS} are allowed",
            service.replicas
        );
        return refuse(format!("services.{name}.replicas"), message);
    }
    let bytes: usize = spec
        .contents
        .values()
        .map(|content| content.bytes.len())
        .sum();
    if bytes > MAX_CONTENTS {
        let message = format!("{bytes} bytes of contents; at most {MAX_CONTENTS} are allowed");
        return refuse("contents".to_owned(), message);
    }
    Ok(())
}

/// How many replicas a deployment asks for on so many nodes.
pub fn replicas(spec: &DeploymentSpec, nodes: usize) -> u64 {
    let count = |placement: &Placement, replicas: u32| match placement {
        Placement::Global => u64::try_from(nodes).unwrap_or(u64::MAX),
        _ => u64::from(replicas),
    };
    let services = spec.services.values();
    services.map(|it| count(&it.placement, it.replicas)).sum()
}
