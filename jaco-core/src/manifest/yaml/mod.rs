//! A YAML document as a tree that knows where every key and scalar stands.
//!
//! Anchors, aliases and merge keys are resolved while it is built ([`build`]); scalars keep
//! their text, because interpolation comes before typing and `017` must stay a string.

mod build;
mod json;
pub(crate) mod scalar;

pub(crate) use build::parse;
pub(crate) use json::write_json;
pub(crate) use scalar::Scalar;

use super::findings::FileId;
use crate::error::Span;

/// Where something stands: in which file, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) file: FileId,
    pub(crate) span: Span,
}

/// One value of the document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: At,
    pub(crate) merge: MergeTag,
}

impl Node {
    /// Bytes of all keys and scalars in it.
    pub(crate) fn text_bytes(&self) -> usize {
        match &self.value {
            Value::Unknown => 0,
            Value::Scalar(scalar) => scalar.text.len(),
            Value::Sequence(items) => items.iter().map(Node::text_bytes).sum(),
            Value::Mapping(mapping) => {
                let entries = mapping.entries.iter();
                entries.map(|it| it.key.len() + it.value.text_bytes()).sum()
            }
        }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Mapping),
    /// A scalar that could not be interpolated. That has been reported, so whatever else would
    /// be wrong with it is not.
    Unknown,
}

/// Compose's tags that steer merging: `!reset` removes a key, `!override` replaces its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MergeTag {
    #[default]
    None,
    Reset,
    Override,
}

/// Key-value pairs in file order; keys are unique.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping {
    pub(crate) entries: Vec<Entry>,
}

/// One pair of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: At,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn new(value: Value, at: At) -> Self {
        Self {
            value,
            at,
            merge: MergeTag::None,
        }
    }

    /// A scalar that is text whatever it looks like.
    pub(crate) fn text(text: impl Into<String>, at: At) -> Self {
        Self::new(Value::Scalar(Scalar::quoted(text)), at)
    }

    pub(crate) fn null(at: At) -> Self {
        let text = String::new();
        let quoted = false;
        Self::new(Value::Scalar(Scalar { text, quoted }), at)
    }

    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.value, Value::Unknown)
    }

    pub(crate) fn as_mapping(&self) -> Option<&Mapping> {
        match &self.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    pub(crate) fn as_mapping_mut(&mut self) -> Option<&mut Mapping> {
        match &mut self.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    pub(crate) fn as_sequence(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a scalar that is not null.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) if !scalar.is_null() => Some(&scalar.text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }

    /// The value under a key, when this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_mapping()?.get(key)
    }

    /// How messages call this kind of node.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) if scalar.is_null() => "null",
            Value::Scalar(_) => "a scalar",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Unknown => "an unknown value",
        }
    }
}

impl Mapping {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let entry = self.entries.iter_mut().find(|entry| entry.key == key)?;
        Some(&mut entry.value)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(index))
    }

    /// Sets a key in place, or appends it.
    pub(crate) fn set(&mut self, key: &str, key_at: At, value: Node) {
        match self.get_mut(key) {
            Some(slot) => *slot = value,
            None => self.entries.push(Entry {
                key: key.to_owned(),
                key_at,
                value,
            }),
        }
    }
}
