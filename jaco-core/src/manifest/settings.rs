//! A flat settings file, as `jacod.yaml` is one: each key with its value and its place.

use serde_json::Value;

use super::findings::Findings;
use super::read::{Path, View};
use super::yaml;
use crate::error::{Report, Span};

/// One key of the file.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Setting {
    pub key: String,
    pub value: Value,
    /// Where the key stands.
    pub span: Span,
}

/// The settings in file order, and what is wrong about the file as such: a text that is no
/// YAML, no mapping, or names a key twice. An empty file has no settings.
pub fn read(text: &str, name: &str) -> (Vec<Setting>, Report) {
    let findings = Findings::default();
    let file = findings.open(name);
    let mut settings = Vec::new();
    if let Some(document) = yaml::parse(text, file, &findings)
        && !document.is_null()
    {
        let view = View {
            node: &document,
            path: &Path::Root,
            findings: &findings,
        };
        view.each_entry(|key, at, value| {
            let mut json = String::new();
            yaml::write_json(value.node, &mut json);
            settings.push(Setting {
                key: key.to_owned(),
                value: serde_json::from_str(&json).unwrap_or_default(),
                span: at.span,
            });
        });
    }
    (settings, findings.into_parts().0)
}
