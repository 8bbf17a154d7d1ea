//! Named volumes: made when missing, used only when they are the deployment's own.

use std::collections::HashMap;

use bollard::models::{Volume, VolumeCreateRequest};
use jaco_core::manifest::host_access::Granted;
use jaco_core::manifest::spec::VolumeSpec;
use jaco_core::node::bridges::CLUSTER_LABEL;
use jaco_core::ports::RuntimeError;

use super::convert::map;
use super::engine::{Engine, LONG, SHORT};

/// What tells a deployment's volume from any other (spec 02).
const OWNER_LABELS: [&str; 3] = [CLUSTER_LABEL, DEPLOYMENT_LABEL, "jaco.volume_key"];
const DEPLOYMENT_LABEL: &str = "jaco.deployment";

/// Makes sure that a volume is there and may be used.
pub(super) async fn ensure(
    engine: &Engine,
    spec: &VolumeSpec,
    granted: Granted,
) -> Result<(), RuntimeError> {
    check_name(&spec.engine_name)?;
    let docker = engine.client().await?.docker;
    let existing = docker.inspect_volume(&spec.engine_name);
    match engine.within(SHORT, existing).await {
        Ok(volume) if spec.external => check_stranger(spec, &volume.labels, granted),
        Ok(volume) => check_owner(spec, &volume.labels),
        Err(failure) if failure.is_not_found() && spec.external => Err(
            RuntimeError::ExternalVolumeMissing(spec.engine_name.clone()),
        ),
        Err(failure) if failure.is_not_found() => create(engine, spec).await,
        Err(failure) => Err(failure.into()),
    }
}

async fn create(engine: &Engine, spec: &VolumeSpec) -> Result<(), RuntimeError> {
    let docker = engine.client().await?.docker;
    let request = VolumeCreateRequest {
        name: Some(spec.engine_name.clone()),
        driver: spec.driver.clone(),
        driver_opts: Some(map(&spec.driver_opts)),
        labels: Some(map(&spec.labels)),
        ..Default::default()
    };
    let volume: Volume = engine.within(LONG, docker.create_volume(request)).await?;
    // The engine answers with an existing volume when another was quicker.
    check_owner(spec, &volume.labels)
}

/// An external volume may be anybody's but another deployment's; that takes a right (spec 10).
fn check_stranger(
    spec: &VolumeSpec,
    labels: &HashMap<String, String>,
    granted: Granted,
) -> Result<(), RuntimeError> {
    let owner = labels.get(DEPLOYMENT_LABEL);
    if granted.host || owner.is_none() || owner == spec.labels.get(DEPLOYMENT_LABEL) {
        return Ok(());
    }
    let owner = owner.map_or("", String::as_str);
    Err(RuntimeError::Denied(format!(
        "volume \"{}\" belongs to deployment \"{owner}\", and nobody with the right \"host\" \
         granted it",
        spec.engine_name
    )))
}

fn check_owner(spec: &VolumeSpec, labels: &HashMap<String, String>) -> Result<(), RuntimeError> {
    let ours = OWNER_LABELS
        .iter()
        .all(|key| labels.get(*key) == spec.labels.get(*key));
    if ours {
        Ok(())
    } else {
        Err(RuntimeError::VolumeNotOwned(spec.engine_name.clone()))
    }
}

/// The name goes into a path of the API, so what the engine would refuse is refused here.
fn check_name(name: &str) -> Result<(), RuntimeError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) {
        return Ok(());
    }
    Err(RuntimeError::Refused(format!(
        "{name:?} is no volume name: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is"
    )))
}
