//! Interpolation of a whole tree, with errors that point into the original file.

use super::loader::Variables;
use crate::error::Span;
use crate::manifest::findings::Findings;
use crate::manifest::interpolate::{Fault, interpolate};
use crate::manifest::read::Path;
use crate::manifest::yaml::{At, Node, Scalar, Value};

/// Fills in every scalar value; keys stay as they are.
pub(super) fn fill(
    node: &mut Node,
    text: &str,
    variables: &Variables,
    path: &Path<'_>,
    findings: &Findings,
) {
    let filler = Filler {
        text,
        variables,
        findings,
    };
    filler.node(node, path);
}

struct Filler<'a> {
    text: &'a str,
    variables: &'a Variables,
    findings: &'a Findings,
}

impl Filler<'_> {
    fn node(&self, node: &mut Node, path: &Path<'_>) {
        match &mut node.value {
            Value::Unknown => {}
            Value::Scalar(scalar) if !scalar.text.contains('$') => {
                if !self.findings.spend(scalar.text.len(), node.at) {
                    node.value = Value::Unknown;
                }
            }
            Value::Scalar(_) if !self.variables.are_known() => node.value = Value::Unknown,
            Value::Scalar(scalar) => match self.scalar(&scalar.text, node.at, path) {
                // What a variable brings is text: a value of `~` does not make a null.
                Some(text) => *scalar = Scalar::quoted(text),
                None => node.value = Value::Unknown,
            },
            Value::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &Path::Index(path, index));
                }
            }
            Value::Mapping(mapping) => {
                for entry in &mut mapping.entries {
                    self.node(&mut entry.value, &Path::Key(path, &entry.key));
                }
            }
        }
    }

    fn scalar(&self, text: &str, at: At, path: &Path<'_>) -> Option<String> {
        let values = self.variables.values();
        match interpolate(text, |name| values.get(name).map(String::as_str)) {
            Ok(filled) => {
                for name in filled.unset {
                    let message = format!("variable {name:?} is not set; it becomes empty");
                    self.findings.notice(at, path, message);
                }
                self.findings
                    .spend(filled.text.len(), at)
                    .then_some(filled.text)
            }
            Err(fault) => {
                let at = self.locate(text, at, &fault);
                let file = self.findings.file_name(at.file);
                let Span { line, column, .. } = at.span;
                let message = format!(
                    "interpolate {file}: interpolate ${{VAR}} at line {line} col {column}: {}",
                    fault.error
                );
                self.findings.invalid(at, path, message);
                None
            }
        }
    }

    /// Where the `$` at fault stands in the file. YAML may have folded lines and removed
    /// escapes, but it keeps the order of the `$`: the n-th of the text is the n-th of the source.
    fn locate(&self, text: &str, at: At, fault: &Fault) -> At {
        let nth = text[..fault.offset].matches('$').count();
        let (start, end) = (index(at.span.start), index(at.span.end));
        let source = self.text.get(start..end).unwrap_or_default();
        let Some((offset, _)) = source.match_indices('$').nth(nth) else {
            return at;
        };
        let before = &source[..offset];
        let (lines, column) = match before.rfind('\n') {
            None => (0, at.span.column + number(before.chars().count())),
            Some(newline) => (
                number(before.matches('\n').count()),
                1 + number(before[newline + 1..].chars().count()),
            ),
        };
        let span = Span {
            line: at.span.line + lines,
            column,
            start: number(start + offset),
            end: at.span.end,
        };
        At { span, ..at }
    }
}

fn index(offset: u32) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
