//! An error, and a report of every violation in a set of files.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ErrorCode;

/// A refusal or failure: `{code, message, details}` of spec 03.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// Which of the closed set.
    pub code: ErrorCode,
    /// One sentence; never repeats a source and never holds a secret.
    pub message: String,
    /// Named facts, for programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl Error {
    /// An error without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: BTreeMap::new(),
        }
    }

    /// Adds one detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.details.insert(key.to_owned(), value.to_string());
        self
    }

    /// The error as JSON, with the hint of its code (spec 09).
    pub fn document(&self) -> serde_json::Value {
        serde_json::json!({
            "code": self.code, "message": self.message,
            "details": self.details, "hint": self.code.hint(),
        })
    }

    /// A bug: something that the code holds to be impossible.
    pub fn internal(reason: impl fmt::Display) -> Self {
        Self::new(ErrorCode::Internal, "an internal error occurred").with("reason", reason)
    }
}

/// Where in a file something stands. Lines and columns count from 1, columns in characters;
/// `start..end` are byte offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Span {
    pub line: u32,
    pub column: u32,
    pub start: u32,
    pub end: u32,
}

/// One broken rule of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which of the closed set.
    pub code: ErrorCode,
    /// One sentence.
    pub message: String,
    /// The file as the user named it.
    pub file: String,
    /// The key's path, e.g. `services.web.ports[0]`.
    pub path: String,
    /// Where; absent when the file itself is the problem.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Named facts, for programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// Every violation found, in file order: bad input is told whole, never one error at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The violations.
    pub violations: Vec<Violation>,
}

impl Report {
    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// The first violation as an [`Error`], with the number of the others in its details.
    pub fn to_error(&self) -> Option<Error> {
        let first = self.violations.first()?;
        let mut error = Error::new(first.code, first.message.clone());
        error.details = first.details.clone();
        error = error.with("field", &first.path).with("file", &first.file);
        if let Some(span) = first.span {
            error = error.with("line", span.line).with("column", span.column);
        }
        if self.violations.len() > 1 {
            error = error.with("more_violations", self.violations.len() - 1);
        }
        Some(error)
    }
}
