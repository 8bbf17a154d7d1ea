//! The typed reader over a tree: one line per key, every mistake collected.
//!
//! A decoder is a function `fn(View<'_>) -> Option<T>`; `None` means that it has recorded a
//! violation. [`Fields`] takes keys out of a mapping and refuses what nobody took.

mod scalars;

use std::collections::BTreeMap;
use std::fmt;

pub(crate) use scalars::*;

use super::findings::Findings;
use super::yaml::{At, Entry, Mapping, Node, Value};
use crate::error::ErrorCode;

/// Where a node stands in the document's structure; written as `services.web.ports[0]`.
/// Links to its parent on the stack, so that a path costs nothing until it is printed.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A node together with its path and the list that takes its mistakes.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: &'a Path<'a>,
    pub(crate) findings: &'a Findings,
}

impl<'a> View<'a> {
    pub(crate) fn at(&self) -> At {
        self.node.at
    }

    /// Records a `validation_failed` here; `None`, to be returned.
    pub(crate) fn invalid<T>(&self, message: impl Into<String>) -> Option<T> {
        self.refuse(ErrorCode::ValidationFailed, message, &[])
    }

    pub(crate) fn refuse<T>(
        &self,
        code: ErrorCode,
        message: impl Into<String>,
        details: &[(&str, &str)],
    ) -> Option<T> {
        if !self.node.is_unknown() {
            self.findings
                .refuse(code, self.node.at, self.path, message, details);
        }
        None
    }

    /// Records that the node is not of the wanted kind.
    pub(crate) fn expected<T>(&self, what: &str) -> Option<T> {
        self.invalid(format!("{} must be {what}", self.name()))
    }

    /// How messages call this place.
    pub(crate) fn name(&self) -> String {
        match self.path {
            Path::Root => "the document".to_owned(),
            path => path.to_string(),
        }
    }

    /// The mapping here, to take keys from.
    pub(crate) fn fields(self) -> Option<Fields<'a>> {
        match &self.node.value {
            Value::Mapping(mapping) => Some(Fields {
                view: self,
                mapping,
                taken: vec![false; mapping.entries.len()],
            }),
            _ => self.expected("a mapping"),
        }
    }

    /// Visits each pair of the mapping here.
    pub(crate) fn each_entry(self, mut visit: impl FnMut(&'a str, At, View<'_>)) -> Option<()> {
        let Value::Mapping(mapping) = &self.node.value else {
            return self.expected("a mapping");
        };
        for entry in &mapping.entries {
            let path = Path::Key(self.path, &entry.key);
            visit(&entry.key, entry.key_at, self.child(&entry.value, &path));
        }
        Some(())
    }

    /// Visits each item of the sequence here.
    pub(crate) fn each_item(self, mut visit: impl FnMut(View<'_>)) -> Option<()> {
        let Value::Sequence(items) = &self.node.value else {
            return self.expected("a list");
        };
        for (index, item) in items.iter().enumerate() {
            let path = Path::Index(self.path, index);
            visit(self.child(item, &path));
        }
        Some(())
    }

    fn child<'b>(&self, node: &'b Node, path: &'b Path<'b>) -> View<'b>
    where
        'a: 'b,
    {
        View {
            node,
            path,
            findings: self.findings,
        }
    }
}

/// A mapping whose keys are taken one by one.
pub(crate) struct Fields<'a> {
    pub(crate) view: View<'a>,
    mapping: &'a Mapping,
    taken: Vec<bool>,
}

impl<'a> Fields<'a> {
    /// Decodes the value of a key; absent and null are the same.
    pub(crate) fn take<T>(
        &mut self,
        key: &str,
        decode: impl FnOnce(View<'_>) -> Option<T>,
    ) -> Option<T> {
        self.take_raw(key, |view| match view.node.is_null() {
            true => None,
            false => decode(view),
        })
    }

    /// Like [`Fields::take`], or the type's default.
    pub(crate) fn take_or_default<T: Default>(
        &mut self,
        key: &str,
        decode: impl FnOnce(View<'_>) -> Option<T>,
    ) -> T {
        self.take(key, decode).unwrap_or_default()
    }

    /// Like [`Fields::take`], with a violation at the mapping when the key is absent.
    pub(crate) fn require<T>(
        &mut self,
        key: &str,
        decode: impl FnOnce(View<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.mapping.get(key).is_none_or(Node::is_null) {
            self.mark(key);
            let name = Path::Key(self.view.path, key);
            let message = format!("{name} is missing");
            self.view.findings.invalid(self.view.at(), name, message);
            return None;
        }
        self.take(key, decode)
    }

    /// Decodes the value of a key, null included.
    pub(crate) fn take_raw<T>(
        &mut self,
        key: &str,
        decode: impl FnOnce(View<'_>) -> Option<T>,
    ) -> Option<T> {
        let index = self.mark(key)?;
        let path = Path::Key(self.view.path, key);
        decode(self.view.child(&self.mapping.entries[index].value, &path))
    }

    /// Where a key stands; the mapping itself when it is absent.
    pub(crate) fn at(&self, key: &str) -> At {
        let entry = self.mapping.entry(key);
        entry.map_or(self.view.at(), |entry| entry.value.at)
    }

    /// Takes a key that has no effect, with a notice.
    pub(crate) fn ignore(&mut self, key: &str, note: &str) {
        if let Some(index) = self.mark(key) {
            let path = Path::Key(self.view.path, key);
            let message = format!("{path} is ignored: {note}");
            let at = self.mapping.entries[index].key_at;
            self.view.findings.notice(at, path, message);
        }
    }

    /// Refuses each key that is left, but for `x-*`.
    pub(crate) fn close(self) {
        self.close_with(|_| None);
    }

    /// Refuses each key that is left.
    pub(crate) fn close_without_extensions(self) {
        self.left()
            .for_each(|entry| self.refuse(entry, &unknown(&entry.key)));
    }

    /// Like [`Fields::close`]; `explain` may know more of a key than that it is unknown.
    pub(crate) fn close_with(self, explain: impl Fn(&str) -> Option<KeyRefusal>) {
        for entry in self.left().filter(|entry| !entry.key.starts_with("x-")) {
            let refusal = explain(&entry.key).unwrap_or_else(|| unknown(&entry.key));
            self.refuse(entry, &refusal);
        }
    }

    fn left(&self) -> impl Iterator<Item = &'a Entry> {
        let entries = self.mapping.entries.iter().zip(&self.taken);
        entries
            .filter(|(_, taken)| !**taken)
            .map(|(entry, _)| entry)
    }

    fn refuse(&self, entry: &Entry, refusal: &KeyRefusal) {
        let path = Path::Key(self.view.path, &entry.key);
        let message = format!("{} at {path}", refusal.message);
        let details = refusal
            .details
            .iter()
            .map(|(key, value)| (*key, value.as_str()));
        let details: Vec<_> = details.collect();
        self.view
            .findings
            .refuse(refusal.code, entry.key_at, path, message, &details);
    }

    fn mark(&mut self, key: &str) -> Option<usize> {
        let index = self
            .mapping
            .entries
            .iter()
            .position(|entry| entry.key == key)?;
        self.taken[index] = true;
        Some(index)
    }
}

/// Why a key is refused.
pub(crate) struct KeyRefusal {
    pub(crate) code: ErrorCode,
    /// Without the path, which is added.
    pub(crate) message: String,
    pub(crate) details: Vec<(&'static str, String)>,
}

fn unknown(key: &str) -> KeyRefusal {
    KeyRefusal {
        code: ErrorCode::ValidationFailed,
        message: format!("unknown key {key:?}"),
        details: Vec::new(),
    }
}

/// A list of decoded items.
pub(crate) fn list<T>(
    decode: impl Fn(View<'_>) -> Option<T>,
) -> impl Fn(View<'_>) -> Option<Vec<T>> {
    move |view| {
        let mut items = Vec::new();
        view.each_item(|item| items.extend(decode(item)))?;
        Some(items)
    }
}

/// A mapping of decoded values.
pub(crate) fn map<T>(
    decode: impl Fn(View<'_>) -> Option<T>,
) -> impl Fn(View<'_>) -> Option<BTreeMap<String, T>> {
    move |view| {
        let mut pairs = BTreeMap::new();
        view.each_entry(|key, _, value| {
            pairs.extend(decode(value).map(|value| (key.to_owned(), value)));
        })?;
        Some(pairs)
    }
}

/// One string, or a list of them.
pub(crate) fn strings(view: View<'_>) -> Option<Vec<String>> {
    match &view.node.value {
        Value::Scalar(_) => Some(vec![string(view)?]),
        _ => list(string)(view),
    }
}

/// `KEY: value` pairs or a list of `KEY=value`; a key without a value is the empty string.
pub(crate) fn key_values(view: View<'_>) -> Option<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    if view.node.as_mapping().is_some() {
        view.each_entry(|key, _, value| {
            let text = match value.node.is_null() {
                true => Some(String::new()),
                false => string(value),
            };
            pairs.extend(text.map(|text| (key.to_owned(), text)));
        })?;
        return Some(pairs);
    }
    if view.node.as_sequence().is_none() {
        return view.expected("a mapping, or a list of KEY=value");
    }
    view.each_item(|item| {
        if let Some(text) = string(item) {
            let (key, value) = text.split_once('=').unwrap_or((&text, ""));
            pairs.insert(key.to_owned(), value.to_owned());
        }
    })?;
    Some(pairs)
}
