//! Fetching images.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::{CreateImageOptions, CreateImageOptionsBuilder};
use futures::StreamExt;
use jaco_core::ports::RuntimeError;
use jaco_core::ports::container_runtime::PullProgress;

use super::engine::{Engine, SHORT, no_answer};
use super::error::Failure;

/// How long a pull may show nothing at all; unpacking a large layer is silent for minutes.
const SILENCE: Duration = Duration::from_secs(600);

/// True when the engine has the image.
pub(super) async fn has_image(engine: &Engine, image: &str) -> Result<bool, RuntimeError> {
    check_reference(image)?;
    let docker = engine.client().await?.docker;
    match engine.within(SHORT, docker.inspect_image(image)).await {
        // That it cannot be read does not matter: it is there.
        Ok(_) | Err(Failure::Unreadable(_)) => Ok(true),
        Err(failure) if failure.is_not_found() => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// Fetches an image and tells its progress.
pub(super) async fn pull(
    engine: &Engine,
    image: &str,
    platform: Option<&str>,
    progress: &(dyn Fn(PullProgress) + Send + Sync),
) -> Result<(), RuntimeError> {
    check_reference(image).map_err(|error| RuntimeError::Pull(error.to_string()))?;
    let docker = engine.client().await?.docker;
    // A hung engine shows here, and not only after the long silence below.
    engine.within(SHORT, docker.ping()).await?;
    let mut events = pin!(docker.create_image(Some(options(image, platform)), None, None));
    let mut layers = Layers::default();
    loop {
        let event = tokio::time::timeout(SILENCE, events.next()).await;
        match event.map_err(|_| no_answer(SILENCE))? {
            None => return Ok(()),
            Some(Ok(event)) => {
                if layers.note(&event) {
                    progress(layers.progress());
                }
            }
            Some(Err(error)) => return Err(failed(error)),
        }
    }
}

fn options(image: &str, platform: Option<&str>) -> CreateImageOptions {
    let options = CreateImageOptionsBuilder::new().from_image(image);
    // Without a tag the engine would fetch every tag of the repository.
    let name = image.rsplit('/').next().unwrap_or(image);
    let options = if name.contains([':', '@']) {
        options
    } else {
        options.tag("latest")
    };
    match platform {
        Some(platform) => options.platform(platform).build(),
        None => options.build(),
    }
}

fn failed(error: Error) -> RuntimeError {
    match Failure::from(error) {
        Failure::Unreachable(reason) => RuntimeError::Unreachable(reason),
        Failure::Refused { reason, .. } | Failure::Unreadable(reason) => RuntimeError::Pull(reason),
    }
}

/// The reference goes into a path of the API.
fn check_reference(image: &str) -> Result<(), RuntimeError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-/:@".contains(c);
    if image.starts_with(|c: char| c.is_ascii_alphanumeric())
        && image.chars().all(plain)
        && image
            .split('/')
            .all(|part| !part.is_empty() && part != "..")
    {
        return Ok(());
    }
    Err(RuntimeError::Refused(format!(
        "invalid reference format: {image:?}"
    )))
}

/// The layers of a pull by id.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, Layer>);

#[derive(Debug, Default)]
struct Layer {
    done: bool,
    bytes_done: u64,
    bytes: u64,
}

impl Layers {
    /// Takes in one event; false when it says nothing of a layer.
    fn note(&mut self, event: &CreateImageInfo) -> bool {
        let (Some(id), Some(status)) = (&event.id, event.status.as_deref()) else {
            return false;
        };
        let known = self.0.contains_key(id);
        match status {
            "Pulling fs layer" | "Waiting" => {
                self.0.entry(id.clone()).or_default();
            }
            "Downloading" => self.downloading(id, event),
            "Download complete" | "Verifying Checksum" | "Extracting" if known => {
                self.change(id, |layer| layer.bytes_done = layer.bytes);
            }
            "Pull complete" | "Already exists" => self.change(id, |layer| {
                layer.bytes_done = layer.bytes;
                layer.done = true;
            }),
            _ => return false,
        }
        true
    }

    fn downloading(&mut self, id: &str, event: &CreateImageInfo) {
        let detail = event.progress_detail.clone().unwrap_or_default();
        let bytes = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        self.change(id, |layer| {
            layer.bytes_done = bytes(detail.current).unwrap_or(layer.bytes_done);
            layer.bytes = bytes(detail.total)
                .unwrap_or(layer.bytes)
                .max(layer.bytes_done);
        });
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Layer)) {
        change(self.0.entry(id.to_owned()).or_default());
    }

    fn progress(&self) -> PullProgress {
        let count = |layers: usize| u32::try_from(layers).unwrap_or(u32::MAX);
        let layers = || self.0.values();
        PullProgress {
            layers_done: count(layers().filter(|layer| layer.done).count()),
            layers: count(self.0.len()),
            bytes_done: layers().map(|layer| layer.bytes_done).sum(),
            bytes: layers().map(|layer| layer.bytes).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress_after(lines: &[&str]) -> PullProgress {
        let mut layers = Layers::default();
        for line in lines {
            layers.note(&serde_json::from_str(line).unwrap());
        }
        layers.progress()
    }

    #[test]
    fn progress_counts_layers_and_bytes() {
        let mut lines = vec![
            r#"{"status": "Pulling from web", "id": "1"}"#,
            r#"{"status": "Pulling fs layer", "progressDetail": {}, "id": "a"}"#,
            r#"{"status": "Already exists", "progressDetail": {}, "id": "b"}"#,
            r#"{"id":"a","status":"Downloading","progressDetail":{"current":9,"total":40}}"#,
        ];
        let halfway = PullProgress {
            layers_done: 1,
            layers: 2,
            bytes_done: 9,
            bytes: 40,
        };
        assert_eq!(progress_after(&lines), halfway);
        lines.extend([
            r#"{"status": "Download complete", "progressDetail": {}, "id": "a"}"#,
            r#"{"status": "Extracting", "id": "a", "progressDetail": {"current": 5, "total": 9}}"#,
            r#"{"status": "Pull complete", "progressDetail": {}, "id": "a"}"#,
            r#"{"status": "Digest: sha256:00"}"#,
        ]);
        let end = PullProgress {
            layers_done: 2,
            bytes_done: 40,
            ..halfway
        };
        assert_eq!(progress_after(&lines), end);
    }

    #[test]
    fn an_image_without_a_tag_means_its_latest() {
        let tag = |image| options(image, None).tag;
        assert_eq!(tag("web"), Some("latest".to_owned()));
        assert_eq!(tag("host:5000/web"), Some("latest".to_owned()));
        assert_ne!(tag("host:5000/web:1"), Some("latest".to_owned()));
        assert_ne!(tag("web@sha256:00"), Some("latest".to_owned()));
    }

    #[test]
    fn references_that_would_change_the_path_are_refused() {
        for image in ["", "../x", "a/../b", "a?b", "a#b", "a//b", "a b", "/a"] {
            assert!(check_reference(image).is_err(), "{image}");
        }
        for image in ["web", "host:5000/a/web:1.2-x_y", "web@sha256:00ff"] {
            assert!(check_reference(image).is_ok(), "{image}");
        }
    }
}
