//! Decoders of single values: text, numbers, sizes, durations, choices.
//!
//! Numbers and booleans may be quoted, as compose allows: an interpolated value is text.

use std::time::Duration;

use super::View;
use crate::manifest::yaml::scalar::{parse_bool, parse_int};

/// The text of a scalar, as it is spelled.
pub(crate) fn string(view: View<'_>) -> Option<String> {
    text(view, "a string").map(str::to_owned)
}

/// Text that is not empty.
pub(crate) fn non_empty(view: View<'_>) -> Option<String> {
    match string(view)? {
        text if text.trim().is_empty() => view.invalid(format!("{} is empty", view.name())),
        text => Some(text),
    }
}

pub(crate) fn boolean(view: View<'_>) -> Option<bool> {
    let parsed = parse_bool(text(view, "a boolean")?);
    parsed.or_else(|| view.expected("a boolean"))
}

/// An integer in a range.
pub(crate) fn integer(min: i64, max: i64) -> impl Fn(View<'_>) -> Option<i64> {
    move |view| {
        let parsed = parse_int(text(view, "an integer")?);
        let value = parsed.or_else(|| view.expected("an integer"))?;
        if (min..=max).contains(&value) {
            return Some(value);
        }
        view.expected(&match max {
            i64::MAX => format!("an integer of at least {min}"),
            _ => format!("an integer from {min} to {max}"),
        })
    }
}

/// An integer from zero up to the type's end.
pub(crate) fn count(view: View<'_>) -> Option<u32> {
    integer(0, i64::from(u32::MAX))(view).and_then(|value| u32::try_from(value).ok())
}

/// A port number.
pub(crate) fn port(view: View<'_>) -> Option<u16> {
    integer(1, 65535)(view).and_then(|value| u16::try_from(value).ok())
}

/// `10s`, `1m30s`, `1.5h`; a bare `0` too.
pub(crate) fn duration(view: View<'_>) -> Option<Duration> {
    let parsed = parse_duration(text(view, DURATION)?);
    parsed.or_else(|| view.expected(DURATION))
}

/// `64m`, `1.5gb`, or a number of bytes.
pub(crate) fn bytes(view: View<'_>) -> Option<u64> {
    let parsed = parse_bytes(text(view, SIZE)?);
    parsed.or_else(|| view.expected(SIZE))
}

/// `0.5` cores and the like, in thousandths.
pub(crate) fn thousandths(view: View<'_>) -> Option<u64> {
    let parsed = parse_decimal(text(view, "a number")?, 1000);
    parsed.or_else(|| view.expected("a number of at least 0"))
}

/// Permission bits: `0440` and `"0440"` are octal, other integers are what they say.
pub(crate) fn mode(view: View<'_>) -> Option<u32> {
    const MODE: &str = "permission bits such as 0440";
    let text = text(view, MODE)?;
    let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    let parsed = match octal {
        Some(digits) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    };
    parsed
        .filter(|mode| *mode <= 0o7777)
        .or_else(|| view.expected(MODE))
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(words: &[(&str, T)]) -> impl Fn(View<'_>) -> Option<T> {
    move |view| {
        let listed = || {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("one of {}", words.join(", "))
        };
        let Some(text) = view.node.as_text() else {
            return view.expected(&listed());
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Some(*value),
            None => view.invalid(format!(
                "{} must be {}, not {text:?}",
                view.name(),
                listed()
            )),
        }
    }
}

const DURATION: &str = "a duration such as 10s or 1m30s";
const SIZE: &str = "a size such as 64m or 1gb";

fn text<'a>(view: View<'a>, what: &str) -> Option<&'a str> {
    match view.node.as_text() {
        Some(text) => Some(text),
        None => view.expected(what),
    }
}

/// Reads a sum of amounts with units, in any order, as compose does.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_start = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, tail) = rest.split_at(unit_start);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos = match unit {
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return None,
        };
        total = total.checked_add(parse_decimal(amount, nanos)?)?;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(total))
}

/// Reads a size; units are powers of 1024 and case does not matter, as in compose.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (amount, unit) = text.split_at(end);
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    parse_decimal(amount, 1024_u64.pow(power))
}

/// `text × scale`, exact in decimal, rounded down below one.
pub(crate) fn parse_decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    // Digits beyond the twelfth cannot change a result that is kept.
    let fraction = &fraction[..fraction.len().min(12)];
    let numerator: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u64::try_from(numerator * u128::from(scale) / denominator).ok()?;
    whole.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(
                parse_duration(text),
                millis.map(Duration::from_millis),
                "{text}"
            );
        };
        check("10s", Some(10_000));
        check("1m30s", Some(90_000));
        check("1.5h", Some(5_400_000));
        check("250ms", Some(250));
        check("0", Some(0));
        for text in ["", "10", "s", "1x", "-1s", "1.2.3s", "99999999999999w"] {
            check(text, None);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("64m"), Some(64 << 20));
        assert_eq!(parse_bytes("1.5GB"), Some(3 << 29));
        assert_eq!(parse_bytes("2 KiB"), Some(2048));
        assert_eq!(parse_bytes("1024"), Some(1024));
        for text in ["", "m", "-1", "1x", "1..5g", "99999999999t"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(parse_decimal("0.29", 1000), Some(290));
        assert_eq!(parse_decimal(".5", 1000), Some(500));
        assert_eq!(parse_decimal("2", 1000), Some(2000));
        assert_eq!(parse_decimal(".", 1000), None);
        assert_eq!(parse_decimal("0.00000000000000000001", 1000), Some(0));
    }
}
