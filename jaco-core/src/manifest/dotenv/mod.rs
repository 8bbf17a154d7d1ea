//! Env files: the `.env` grammar of compose (spec 02, Client-side resolution).
//!
//! `KEY=value`, `KEY: value`, `export KEY=value`, comments, literal single quotes, double
//! quotes with escapes, quoted values over several lines, and `${EARLIER}` back references.

use indexmap::IndexMap;

use super::interpolate::{self, interpolate};
use crate::manifest::bounds::MAX_EXPANDED;

/// Keys and values in file order; a repeated key keeps its first place and last value.
pub type Variables = IndexMap<String, String>;

/// What is wrong with an env file, and where (from 1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct DotenvError {
    /// The line of the key or quote at fault.
    pub line: usize,
    /// What is wrong. Never holds a value, which may be a secret.
    pub reason: String,
}

/// Reads an env file. References are looked up in the file so far, then in `outer`.
pub fn parse(text: &str, outer: &Variables) -> Result<Variables, DotenvError> {
    Reader::new(text).variables(|raw, quote, known| match quote {
        Quote::Single => Ok(raw.replace("\\'", "'")),
        Quote::Double => fill(&unescape(raw), known, outer),
        Quote::None => fill(raw, known, outer),
    })
}

/// Reads an env file of `format: raw`: values are what stands after the `=`.
pub fn parse_raw(text: &str) -> Result<Variables, DotenvError> {
    let mut variables = Variables::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        check_key(key.trim_end(), index + 1)?;
        variables.insert(key.trim_end().to_owned(), value.to_owned());
    }
    Ok(variables)
}

/// How a value is written.
#[derive(Clone, Copy)]
enum Quote {
    None,
    Single,
    Double,
}

struct Reader<'t> {
    text: &'t str,
    here: usize,
    line: usize,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text: text.strip_prefix('\u{feff}').unwrap_or(text),
            here: 0,
            line: 1,
        }
    }

    fn variables(
        mut self,
        value: impl Fn(&str, Quote, &Variables) -> Result<String, String>,
    ) -> Result<Variables, DotenvError> {
        let mut variables = Variables::new();
        while let Some((key, line)) = self.key()? {
            let (raw, quote) = self.value()?;
            let filled = value(&raw, quote, &variables);
            let filled = filled.map_err(|reason| DotenvError { line, reason })?;
            variables.insert(key, filled);
        }
        Ok(variables)
    }

    fn rest(&self) -> &'t str {
        &self.text[self.here..]
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.text[self.here..self.here + bytes];
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
        self.here += bytes;
    }

    /// The next key with its line; leaves the reader behind its `=`, or before the line's end
    /// when the key stands alone.
    fn key(&mut self) -> Result<Option<(String, usize)>, DotenvError> {
        self.skip_blank_and_comments();
        let line = self.line;
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(None);
        }
        let exported = rest
            .strip_prefix("export")
            .filter(|rest| rest.starts_with([' ', '\t']))
            .map_or(rest, |rest| rest.trim_start_matches([' ', '\t']));
        self.advance(rest.len() - exported.len());
        let end = exported.find(['=', ':', '\n']).unwrap_or(exported.len());
        let key = exported[..end].trim_end();
        let key = match exported[end..].starts_with(['=', ':']) {
            true => key,
            false => key.split(" #").next().unwrap_or(key).trim_end(),
        };
        check_key(key, line)?;
        let separated = exported[end..].starts_with(['=', ':']);
        self.advance(end + usize::from(separated));
        Ok(Some((key.to_owned(), line)))
    }

    fn skip_blank_and_comments(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.advance(blank);
            if !self.rest().starts_with('#') {
                return;
            }
            self.advance(self.rest().find('\n').unwrap_or(self.rest().len()));
        }
    }

    /// The raw value behind an `=`, up to the end of its line or its closing quote.
    fn value(&mut self) -> Result<(String, Quote), DotenvError> {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        match rest.as_bytes().get(blank) {
            Some(b'\'') => self.quoted(blank, '\'', Quote::Single),
            Some(b'"') => self.quoted(blank, '"', Quote::Double),
            _ => Ok((self.unquoted(), Quote::None)),
        }
    }

    fn unquoted(&mut self) -> String {
        let rest = self.rest();
        let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
        self.advance(line.len());
        let bytes = line.as_bytes();
        let comment =
            (1..bytes.len()).find(|at| bytes[*at] == b'#' && matches!(bytes[at - 1], b' ' | b'\t'));
        line[..comment.unwrap_or(line.len())].trim().to_owned()
    }

    fn quoted(
        &mut self,
        blank: usize,
        mark: char,
        quote: Quote,
    ) -> Result<(String, Quote), DotenvError> {
        let line = self.line;
        let body = &self.rest()[blank + 1..];
        let Some(end) = closing_quote(body, mark) else {
            let reason = format!("unterminated quoted value, opened by {mark}");
            return Err(DotenvError { line, reason });
        };
        self.advance(blank + 1 + end + 1);
        let rest = self.rest();
        let tail = &rest[..rest.find('\n').unwrap_or(rest.len())];
        if !tail.trim().is_empty() && !tail.trim_start().starts_with('#') {
            let reason = "unexpected text after the closing quote".to_owned();
            return Err(DotenvError {
                line: self.line,
                reason,
            });
        }
        self.advance(tail.len());
        Ok((body[..end].to_owned(), quote))
    }
}

fn closing_quote(body: &str, mark: char) -> Option<usize> {
    let mut escaped = false;
    body.char_indices().find_map(|(index, character)| {
        let closes = character == mark && !escaped;
        escaped = character == '\\' && !escaped;
        closes.then_some(index)
    })
}

fn check_key(key: &str, line: usize) -> Result<(), DotenvError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
    let reason = match key.chars().find(|c| !allowed(*c)) {
        None if !key.is_empty() => return Ok(()),
        None => "a line starts without a variable name".to_owned(),
        Some(character) => format!("unexpected character {character:?} in a variable name"),
    };
    Err(DotenvError { line, reason })
}

fn fill(raw: &str, known: &Variables, outer: &Variables) -> Result<String, String> {
    let lookup = |name: &str| {
        known
            .get(name)
            .or_else(|| outer.get(name))
            .map(String::as_str)
    };
    // The template's text may hold a secret, so an invalid one is named without it.
    let size: usize = known.values().map(String::len).sum();
    if size > MAX_EXPANDED {
        return Err(format!(
            "the values of the file exceed {MAX_EXPANDED} bytes"
        ));
    }
    interpolate(raw, lookup)
        .map(|filled| filled.text)
        .map_err(|fault| match fault.error {
            interpolate::TemplateError::Invalid(_) => "invalid template in the value".to_owned(),
            required => required.to_string(),
        })
}

/// The escapes of double quotes, before references are filled in: `\$` becomes `$$`, which
/// stands for one `$`. An unknown escape stays as it is written.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(plain @ ('\\' | '"' | '\'')) => out.push(plain),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests;
