//! `$VAR`, `${VAR}` and their kin (spec 02, Client-side resolution).
//!
//! Works on one scalar at a time, after YAML has been parsed and before anything is typed.
//! Invariant (`tests/manifest_props.rs`): no input panics, and a text without `$` is itself.

use std::fmt;

use super::bounds::MAX_VALUE;

/// How deep `${A:-${B:-…}}` may nest.
const MAX_NESTING: usize = 32;

/// Why a scalar could not be interpolated, and the byte offset of the `$` at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Offset into the scalar's text.
    pub offset: usize,
    /// What is wrong there.
    pub error: TemplateError,
}

/// What can be wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// `${NAME:?message}` or `${NAME?message}` without a value.
    #[allow(missing_docs)]
    Required { name: String, message: String },
    /// Not a template at all; holds the whole text.
    Invalid(String),
    /// It would become longer than [`MAX_VALUE`].
    TooLong,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required { name, message } if message.is_empty() => {
                write!(f, "required variable {name} is missing a value")
            }
            Self::Required { name, message } => {
                write!(f, "required variable {name} is missing a value: {message}")
            }
            Self::Invalid(text) => write!(f, "invalid template \"{text}\""),
            Self::TooLong => write!(f, "the value becomes longer than {MAX_VALUE} bytes"),
        }
    }
}

/// Text with its variables filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// The result.
    pub text: String,
    /// Variables that had neither a value nor a default and became empty.
    pub unset: Vec<String>,
}

/// Fills in the variables of `text`. Values are taken as they are, never expanded again.
pub fn interpolate<'v>(
    text: &str,
    lookup: impl Fn(&str) -> Option<&'v str>,
) -> Result<Filled, Fault> {
    let mut template = Template {
        text,
        lookup: &lookup,
        unset: Vec::new(),
    };
    let text = template.expand(0, text.len(), 0)?;
    let unset = template.unset;
    Ok(Filled { text, unset })
}

struct Template<'t, 'v> {
    text: &'t str,
    lookup: &'t dyn Fn(&str) -> Option<&'v str>,
    unset: Vec<String>,
}

/// What follows the name inside braces.
#[derive(Clone, Copy)]
enum Operator {
    Default,
    Required,
    Alternative,
}

impl Template<'_, '_> {
    /// Expands `text[start..end]`.
    fn expand(&mut self, start: usize, end: usize, nesting: usize) -> Result<String, Fault> {
        let mut out = String::with_capacity(end - start);
        let mut here = start;
        while let Some(found) = self.text[here..end].find('$') {
            let dollar = here + found;
            if out.len() > MAX_VALUE {
                let error = TemplateError::TooLong;
                return Err(Fault {
                    offset: dollar,
                    error,
                });
            }
            out.push_str(&self.text[here..dollar]);
            here = match self.text.as_bytes()[dollar + 1..end].first() {
                Some(b'$') => {
                    out.push('$');
                    dollar + 2
                }
                Some(b'{') => self.braced(dollar, end, nesting, &mut out)?,
                Some(_) => self.bare(dollar, end, &mut out)?,
                None => return Err(self.invalid(dollar)),
            };
        }
        out.push_str(&self.text[here..end]);
        Ok(out)
    }

    /// `$NAME`; returns where it ends.
    fn bare(&mut self, dollar: usize, end: usize, out: &mut String) -> Result<usize, Fault> {
        let length = name_length(&self.text[dollar + 1..end]);
        if length == 0 {
            return Err(self.invalid(dollar));
        }
        let stop = dollar + 1 + length;
        self.plain(&self.text[dollar + 1..stop], out);
        Ok(stop)
    }

    /// `${NAME…}`; returns where it ends.
    fn braced(
        &mut self,
        dollar: usize,
        end: usize,
        nesting: usize,
        out: &mut String,
    ) -> Result<usize, Fault> {
        let open = dollar + 2;
        let close = match self.closing_brace(open, end) {
            Some(close) if nesting < MAX_NESTING => close,
            _ => return Err(self.invalid(dollar)),
        };
        let length = name_length(&self.text[open..close]);
        let name = &self.text[open..open + length];
        let rest = &self.text[open + length..close];
        if length == 0 {
            return Err(self.invalid(dollar));
        }
        if rest.is_empty() {
            self.plain(name, out);
            return Ok(close + 1);
        }
        let (operator, or_empty, skip) = operator(rest).ok_or_else(|| self.invalid(dollar))?;
        let value = (self.lookup)(name).filter(|value| !(or_empty && value.is_empty()));
        let argument =
            |template: &mut Self| template.expand(close - rest.len() + skip, close, nesting + 1);
        match (operator, value) {
            (Operator::Alternative, Some(_)) | (Operator::Default, None) => {
                out.push_str(&argument(self)?);
            }
            (Operator::Alternative, None) => {}
            (Operator::Default | Operator::Required, Some(value)) => out.push_str(value),
            (Operator::Required, None) => {
                let error = TemplateError::Required {
                    name: name.to_owned(),
                    message: argument(self)?,
                };
                return Err(Fault {
                    offset: dollar,
                    error,
                });
            }
        }
        Ok(close + 1)
    }

    fn plain(&mut self, name: &str, out: &mut String) {
        match (self.lookup)(name) {
            Some(value) => out.push_str(value),
            None => self.unset.push(name.to_owned()),
        }
    }

    /// The brace that closes the one before `open`, nested `${…}` skipped.
    fn closing_brace(&self, open: usize, end: usize) -> Option<usize> {
        let bytes = &self.text.as_bytes()[..end];
        let mut depth = 0usize;
        let mut here = open;
        while here < end {
            match (bytes[here], bytes.get(here + 1)) {
                (b'$', Some(b'$')) => here += 1,
                (b'$', Some(b'{')) => {
                    depth += 1;
                    here += 1;
                }
                (b'}', _) if depth == 0 => return Some(here),
                (b'}', _) => depth -= 1,
                _ => {}
            }
            here += 1;
        }
        None
    }

    fn invalid(&self, offset: usize) -> Fault {
        Fault {
            offset,
            error: TemplateError::Invalid(self.text.to_owned()),
        }
    }
}

/// The operator, whether an empty value counts as unset, and the operator's length.
fn operator(rest: &str) -> Option<(Operator, bool, usize)> {
    let (or_empty, sign) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest.bytes().next()),
        None => (false, rest.bytes().next()),
    };
    let operator = match sign? {
        b'-' => Operator::Default,
        b'?' => Operator::Required,
        b'+' => Operator::Alternative,
        _ => return None,
    };
    Some((operator, or_empty, 1 + usize::from(or_empty)))
}

/// How much of the text's start is a variable name.
fn name_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    if bytes.first().is_none_or(u8::is_ascii_digit) {
        return 0;
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    bytes.iter().take_while(|byte| is_name(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let lookup = |name: &str| match name {
            "A" => Some("a"),
            "EMPTY" => Some(""),
            "DOLLAR" => Some("$A"),
            _ => None,
        };
        let got = match interpolate(text, lookup) {
            Ok(filled) => filled.text,
            Err(fault) => format!("{} @{}", fault.error, fault.offset),
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn every_form_of_the_contract() {
        check("plain", "plain");
        check("$A-${A}", "a-a");
        check("$$A $${A}", "$A ${A}");
        check("${EMPTY:-d}|${EMPTY-d}|${NONE-d}|${A:-d}", "d||d|a");
        check("${EMPTY:+x}|${EMPTY+x}|${NONE+x}|${A:+x}", "|x||x");
        check("${A:?e}${A?e}${EMPTY?e}", "aa");
        check("[$NONE]", "[]");
        check("${NONE:-${EMPTY:-${A}}}", "a");
        check("${NONE:-a}b}", "ab}");
        check("${NONE:-}", "");
        check("${NONE:-$$}", "$");
        check("$DOLLAR", "$A");
        check("é$A…", "éa…");
    }

    #[test]
    fn faults_name_the_variable_and_the_place() {
        check(
            "x ${NONE:?set it}",
            "required variable NONE is missing a value: set it @2",
        );
        check(
            "${EMPTY:?set it}",
            "required variable EMPTY is missing a value: set it @0",
        );
        check("${NONE?}", "required variable NONE is missing a value @0");
        check(
            "${NONE:?no ${A}}",
            "required variable NONE is missing a value: no a @0",
        );
        check(
            "${NONE:-x${B:?m}}",
            "required variable B is missing a value: m @9",
        );
    }

    #[test]
    fn anything_else_is_an_invalid_template() {
        for text in [
            "$", "a$ b", "$1", "${}", "${A", "${1A}", "${A!x}", "${A:}", "${ A }", "$é",
        ] {
            let offset = text.find('$').unwrap();
            check(text, &format!("invalid template \"{text}\" @{offset}"));
        }
    }

    #[test]
    fn nesting_has_a_bound() {
        let deep = "${N:-".repeat(100_000) + &"}".repeat(100_000);
        assert!(interpolate(&deep, |_| None).is_err());
    }

    #[test]
    fn unset_variables_are_told() {
        let filled = interpolate("$X${Y}${Z:-}", |_| None).unwrap();
        assert_eq!(filled.unset, ["X", "Y"]);
    }
}
