//! Collects what is wrong, and what is worth a notice, over all files of one deployment.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::bounds::MAX_EXPANDED;
use super::yaml::At;
use crate::error::{ErrorCode, Report, Span, Violation};

/// Which file a node came from: the order in which files were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(u32);

/// Something the user should know that does not stop the deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// One sentence.
    pub message: String,
    /// The file as the user named it.
    pub file: String,
    /// The key's path.
    pub path: String,
    /// Where.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
}

/// The growing lists. Shared by reference through a whole decode, hence the cells.
#[derive(Default)]
pub(crate) struct Findings {
    files: RefCell<Vec<String>>,
    violations: RefCell<Vec<(FileId, Violation)>>,
    notices: RefCell<Vec<(FileId, Notice)>>,
    /// Bytes that includes, `extends` and variables have made so far.
    expanded: Cell<usize>,
}

impl Findings {
    /// Counts bytes that were made of the files. False once they are too many; the first time
    /// that is a violation.
    pub(crate) fn spend(&self, bytes: usize, at: At) -> bool {
        let before = self.expanded.get();
        self.expanded.set(before.saturating_add(bytes));
        if self.expanded.get() <= MAX_EXPANDED {
            return true;
        }
        if before <= MAX_EXPANDED {
            let message = format!("the files expand to more than {MAX_EXPANDED} bytes");
            self.invalid(at, "", message);
        }
        false
    }

    /// Registers a file under the name that messages give it.
    pub(crate) fn open(&self, name: &str) -> FileId {
        let mut files = self.files.borrow_mut();
        files.push(name.to_owned());
        FileId(u32::try_from(files.len() - 1).unwrap_or(u32::MAX))
    }

    pub(crate) fn file_name(&self, file: FileId) -> String {
        let files = self.files.borrow();
        let index = usize::try_from(file.0).unwrap_or(usize::MAX);
        files.get(index).cloned().unwrap_or_default()
    }

    /// Records a `validation_failed`.
    pub(crate) fn invalid(&self, at: At, path: impl fmt::Display, message: impl Into<String>) {
        self.refuse(ErrorCode::ValidationFailed, at, path, message, &[]);
    }

    /// Records a violation of any code with its details.
    pub(crate) fn refuse(
        &self,
        code: ErrorCode,
        at: At,
        path: impl fmt::Display,
        message: impl Into<String>,
        details: &[(&str, &str)],
    ) {
        let pairs = details
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let violation = Violation {
            code,
            message: message.into(),
            file: self.file_name(at.file),
            path: path.to_string(),
            span: Some(at.span),
            details: pairs.collect(),
        };
        self.violations.borrow_mut().push((at.file, violation));
    }

    /// Records a violation of a file that could not be read at all.
    pub(crate) fn invalid_file(&self, file: FileId, message: impl Into<String>) {
        let violation = Violation {
            code: ErrorCode::ValidationFailed,
            message: message.into(),
            file: self.file_name(file),
            path: String::new(),
            span: None,
            details: BTreeMap::new(),
        };
        self.violations.borrow_mut().push((file, violation));
    }

    pub(crate) fn notice(&self, at: At, path: impl fmt::Display, message: impl Into<String>) {
        let notice = Notice {
            message: message.into(),
            file: self.file_name(at.file),
            path: path.to_string(),
            span: Some(at.span),
        };
        self.notices.borrow_mut().push((at.file, notice));
    }

    /// A notice about a file as a whole.
    pub(crate) fn notice_file(&self, file: FileId, message: impl Into<String>) {
        let notice = Notice {
            message: message.into(),
            file: self.file_name(file),
            path: String::new(),
            span: None,
        };
        self.notices.borrow_mut().push((file, notice));
    }

    pub(crate) fn has_violations(&self) -> bool {
        !self.violations.borrow().is_empty()
    }

    /// Everything, in file order. A mistake inside an anchor is found again at each alias, and
    /// told once.
    pub(crate) fn into_parts(self) -> (Report, Vec<Notice>) {
        let mut violations = self.violations.into_inner();
        violations.sort_by_key(|(file, violation)| (*file, violation.span));
        let mut told = BTreeSet::new();
        violations.retain(|(file, violation)| {
            let Violation {
                code,
                message,
                path,
                span,
                ..
            } = violation;
            told.insert((*file, *span, Some(*code), without_path(message, path)))
        });
        let mut notices = self.notices.into_inner();
        notices.sort_by_key(|(file, notice)| (*file, notice.span));
        notices.retain(|(file, notice)| {
            told.insert((
                *file,
                notice.span,
                None,
                without_path(&notice.message, &notice.path),
            ))
        });
        let violations = violations
            .into_iter()
            .map(|(_, violation)| violation)
            .collect();
        let notices = notices.into_iter().map(|(_, notice)| notice).collect();
        (Report { violations }, notices)
    }
}

/// What a message says wherever it is said.
fn without_path(message: &str, path: &str) -> String {
    match path.is_empty() {
        true => message.to_owned(),
        false => message.replace(path, ""),
    }
}

/// Names for a message. A long list is cut: a message is one sentence.
pub(crate) fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    const SHOWN: usize = 20;
    let names: Vec<&str> = names.collect();
    match names.len() {
        0 => "none".to_owned(),
        all if all <= SHOWN => names.join(", "),
        all => format!("{} and {} more", names[..SHOWN].join(", "), all - SHOWN),
    }
}
