//! Scalars: text first, meaning on demand.
//!
//! YAML 1.2 core schema, plus compose's `yes`, `no`, `on` and `off`. Numbers never have leading
//! zeros: `017` is a string, as it is to compose.

/// A scalar's text after YAML escapes, and whether it was quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// A quoted or block scalar is text: it is never null.
    pub(crate) quoted: bool,
}

impl Scalar {
    pub(crate) fn quoted(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            quoted: true,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        !self.quoted && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }
}

/// Reads a boolean in any of its spellings.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    const TRUE: &[&str] = &["true", "yes", "on", "y"];
    const FALSE: &[&str] = &["false", "no", "off", "n"];
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match text {
        _ if is(TRUE) => Some(true),
        _ if is(FALSE) => Some(false),
        _ => None,
    }
}

/// Reads an integer: decimal without leading zeros, `0x…` or `0o…`.
pub(crate) fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x', ..] => (&digits[2..], 16),
        [b'0', b'o', ..] => (&digits[2..], 8),
        [b'0', _, ..] => return None,
        _ => (digits, 10),
    };
    // `from_str_radix` takes a sign of its own, which would allow `--1`.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

/// True for text that JSON can carry as a bare number and give back letter by letter.
pub(crate) fn is_json_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all_digits(whole) && all_digits(fraction) && (whole == "0" || !whole.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_text() {
        assert_eq!(parse_int("017"), None);
        assert!(!is_json_number("017"));
        assert_eq!(parse_int("0"), Some(0));
        assert_eq!(parse_int("0o17"), Some(15));
        assert_eq!(parse_int("0x1F"), Some(31));
        assert_eq!(parse_int("-5"), Some(-5));
        assert_eq!(parse_int("--5"), None);
        assert_eq!(parse_int(""), None);
        assert_eq!(parse_int("0x"), None);
    }

    #[test]
    fn booleans_have_every_compose_spelling() {
        for text in ["true", "True", "YES", "on", "y"] {
            assert_eq!(parse_bool(text), Some(true), "{text}");
        }
        for text in ["false", "no", "Off", "N"] {
            assert_eq!(parse_bool(text), Some(false), "{text}");
        }
        assert_eq!(parse_bool("1"), None);
    }

    #[test]
    fn only_plain_scalars_are_null() {
        let plain = |text: &str| Scalar {
            text: text.to_owned(),
            quoted: false,
        };
        assert!(plain("~").is_null());
        assert!(plain("").is_null());
        assert!(!Scalar::quoted("").is_null());
    }
}
