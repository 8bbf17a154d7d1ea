//! The commands, one module a noun.

pub(super) mod about;
pub(super) mod apply;
pub(super) mod audit;
pub(super) mod cert;
pub(super) mod cluster;
pub(super) mod get;
pub(super) mod logs;
pub(super) mod net;
pub(super) mod node;
pub(super) mod plan;
pub(super) mod revisions;
pub(super) mod status;
pub(super) mod token;
pub(super) mod validate;

use jaco_core::error::{Error, ErrorCode};
use jaco_core::time::Timestamp;

use super::{Failure, args, wiring};

/// `<deployment>` or `<deployment>/<service>`.
fn target(text: Option<&str>) -> (String, String) {
    let text = text.unwrap_or_default();
    let (deployment, service) = text.split_once('/').unwrap_or((text, ""));
    (deployment.to_owned(), service.to_owned())
}

/// A moment as RFC 3339, from RFC 3339 or an age like `10m`; empty for none.
fn moment(text: Option<&str>) -> Result<String, Failure> {
    let Some(text) = text else {
        return Ok(String::new());
    };
    if let Some(at) = Timestamp::parse(text) {
        return Ok(at.to_string());
    }
    match args::seconds(text) {
        Ok(age) => Ok((wiring::now() - std::time::Duration::from_secs(age)).to_string()),
        Err(_) => {
            let message = format!("--since: \"{text}\" is neither RFC 3339 nor an age like 10m");
            Err(Error::new(ErrorCode::ValidationFailed, message)
                .with("field", "since")
                .into())
        }
    }
}
