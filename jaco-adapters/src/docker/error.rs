//! What a failed call to the engine means.

use std::error::Error as StdError;

use bollard::errors::Error;
use jaco_core::ports::RuntimeError;

/// Why a call gave nothing, in the three kinds that callers tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection, a broken one, or no answer in time.
    Unreachable(String),
    /// The engine answered with an error; zero is one inside a stream.
    Refused { status: u16, reason: String },
    /// The engine answered with something that this client does not know.
    Unreadable(String),
}

impl Failure {
    /// The thing that the call was about is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Failure::Refused { status: 404, .. })
    }

    /// Something else is in the way: a name in use, a removal under way.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Failure::Refused { status: 409, .. })
    }

    /// The engine does not speak the API version that was agreed on, as after its replacement.
    pub(super) fn is_version_mismatch(&self) -> bool {
        matches!(self, Failure::Refused { status: 400, reason } if reason.contains("API version"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => Failure::Refused {
                status: status_code,
                reason: message,
            },
            Error::DockerStreamError { error } => Failure::Refused {
                status: 0,
                reason: error,
            },
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                Failure::Unreadable(chain(&error))
            }
            Error::URLEncodedError { .. }
            | Error::URLParseError { .. }
            | Error::InvalidURIError { .. }
            | Error::InvalidURIPartsError { .. }
            | Error::HttpClientError { .. } => Failure::Refused {
                status: 400,
                reason: chain(&error),
            },
            _ => Failure::Unreachable(chain(&error)),
        }
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(reason) => RuntimeError::Unreachable(reason),
            Failure::Refused { reason, .. } => RuntimeError::Refused(reason),
            Failure::Unreadable(reason) => {
                RuntimeError::Refused(format!("the engine's answer is not understood: {reason}"))
            }
        }
    }
}

/// Treats "it is not there" as done.
pub(super) fn gone_is_fine(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if failure.is_not_found() => Ok(()),
        other => other,
    }
}

/// An error with its causes; the client's own text often leaves out the one that matters.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text
}
