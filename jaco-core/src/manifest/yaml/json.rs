//! Writes a tree as JSON text, which is YAML that says the same.

use super::scalar::is_json_number;
use super::{Node, Scalar, Value};

/// Appends the node to `out`. Scalars that are not text keep their exact spelling.
pub(crate) fn write_json(node: &Node, out: &mut String) {
    match &node.value {
        Value::Scalar(scalar) => write_scalar(scalar, out),
        Value::Unknown => out.push_str("null"),
        Value::Sequence(items) => write_all(items, '[', ']', out, write_json),
        Value::Mapping(mapping) => write_all(&mapping.entries, '{', '}', out, |entry, out| {
            write_text(&entry.key, out);
            out.push(':');
            write_json(&entry.value, out);
        }),
    }
}

fn write_all<T>(
    items: &[T],
    open: char,
    close: char,
    out: &mut String,
    write: impl Fn(&T, &mut String),
) {
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(close);
}

fn write_scalar(scalar: &Scalar, out: &mut String) {
    let bare = || matches!(&*scalar.text, "true" | "false") || is_json_number(&scalar.text);
    if scalar.is_null() {
        out.push_str("null");
    } else if !scalar.quoted && bare() {
        out.push_str(&scalar.text);
    } else {
        write_text(&scalar.text, out);
    }
}

/// A JSON string. Characters that YAML would not take as they are get escaped too.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            ' '..='~' => out.push(character),
            _ if character.is_alphanumeric() => out.push(character),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}
