//! Commands: a list of words, or one string split the way a shell would.

use crate::manifest::read::{View, list, string};
use crate::manifest::yaml::Value;

/// `command`, `entrypoint` and the commands of hooks.
pub(super) fn command(view: View<'_>) -> Option<Vec<String>> {
    match &view.node.value {
        Value::Scalar(_) => split(&string(view)?)
            .or_else(|| view.invalid(format!("{} has an unclosed quote", view.name()))),
        _ => list(string)(view),
    }
}

/// Splits at blanks outside quotes; `None` when a quote or a backslash is left open.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        inner => word.push(inner),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '"' => break,
                        '\\' => match characters.next()? {
                            escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        inner => word.push(inner),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_split_as_in_a_shell() {
        let check = |text: &str, expect: &[&str]| {
            assert_eq!(split(text).unwrap(), expect, "{text}");
        };
        check("", &[]);
        check("  a  b\n", &["a", "b"]);
        check(r#"sh -c 'echo "$A"  b'"#, &["sh", "-c", "echo \"$A\"  b"]);
        check(r#"a"b c"'d e' """#, &["ab cd e", ""]);
        check(r#""a\"b\n" \ c"#, &["a\"b\\n", " c"]);
        assert_eq!(split("'open"), None);
        assert_eq!(split("\"open"), None);
        assert_eq!(split("end\\"), None);
    }
}
