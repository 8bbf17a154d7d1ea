//! What a CA's refusal means.

use std::error::Error as _;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::response::Parts;
use instant_acme::{Error, Problem};
use jaco_core::cluster::certs::Stage;
use jaco_core::ports::certificate_authority::Refusal;
use jaco_core::time::Timestamp;

/// A reason is shown in tables and kept in the state; a CA may send more.
const LONGEST: usize = 500;

/// What the last answer that was no success said beside its body.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Option<Noted>>>);

#[derive(Clone, Copy)]
struct Noted {
    status: http::StatusCode,
    retry_at: Option<SystemTime>,
}

impl Seen {
    /// Notes the head of an answer.
    pub(super) fn note(&self, head: &Parts) {
        let refused = head.status.is_client_error() || head.status.is_server_error();
        let text = head
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let noted = refused.then(|| Noted {
            status: head.status,
            retry_at: text.and_then(|text| moment(text, SystemTime::now())),
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = noted;
    }

    fn get(&self) -> Option<Noted> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads seconds or a date (RFC 9110, 10.2.3).
fn moment(text: &str, now: SystemTime) -> Option<SystemTime> {
    match text.trim().parse() {
        Ok(seconds) => now.checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text.trim()).ok(),
    }
}

/// Translates what went wrong at a CA.
pub(super) fn refusal(stage: Stage, error: &Error, seen: &Seen) -> Refusal {
    let noted = seen.get();
    let status = noted.map(|noted| noted.status);
    let reason = match (error, status) {
        (Error::Api(problem), _) => words(problem),
        // A gateway in front of it speaks no JSON.
        (Error::Json(_), Some(status)) => format!("the CA answers with status {status}"),
        (error, _) => chain(error),
    };
    let retry_at = noted.and_then(|noted| noted.retry_at);
    let since_epoch = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
    let retry_at = retry_at.and_then(since_epoch);
    let too_many = status == Some(http::StatusCode::TOO_MANY_REQUESTS);
    Refusal {
        rate_limited: is_problem(error, "rateLimited") || too_many,
        unknown_account: is_problem(error, "accountDoesNotExist"),
        retry_at: retry_at.map(|since| Timestamp::default() + since),
        ..own(stage, reason)
    }
}

/// Something that went wrong here.
pub(super) fn own(stage: Stage, reason: impl Display) -> Refusal {
    Refusal {
        stage,
        reason: reason.to_string().chars().take(LONGEST).collect(),
        rate_limited: false,
        retry_at: None,
        unknown_account: false,
    }
}

/// True when the CA only wants the same request with another nonce.
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    is_problem(error, "badNonce")
}

fn is_problem(error: &Error, name: &str) -> bool {
    let Error::Api(problem) = error else {
        return false;
    };
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix("urn:ietf:params:acme:error:") == Some(name)
}

fn words(problem: &Problem) -> String {
    let mut words = problem.detail.clone().unwrap_or_default();
    if words.is_empty() {
        words = problem.r#type.clone().unwrap_or_default();
    }
    let details = problem
        .subproblems
        .iter()
        .filter_map(|sub| sub.detail.as_deref());
    details.fold(words, |words, detail| format!("{words}; {detail}"))
}

/// An error with its causes, each said once.
fn chain(error: &Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = inner.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_given_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(moment("90", now), Some(now + Duration::from_secs(90)));
        let date = moment("Thu, 01 Jan 1970 01:00:00 GMT", now);
        assert_eq!(
            date,
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(3_600))
        );
        for nonsense in ["", "soon", "-5", "99999999999999999999999"] {
            assert_eq!(moment(nonsense, now), None, "{nonsense}");
        }
    }

    #[test]
    fn a_rate_limit_is_told_apart() {
        let problem = |kind: &str| {
            let text =
                format!("{{\"type\":\"urn:ietf:params:acme:error:{kind}\",\"detail\":\"no\"}}");
            Error::Api(serde_json::from_str(&text).expect("a problem"))
        };
        let seen = Seen::default();
        assert!(refusal(Stage::Order, &problem("rateLimited"), &seen).rate_limited);
        let other = refusal(Stage::Order, &problem("malformed"), &seen);
        assert!(!other.rate_limited);
        assert_eq!(other.reason, "no");
    }
}
