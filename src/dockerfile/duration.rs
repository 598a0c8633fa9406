//! Durations as Go reads and prints them.
//!
//! In: text such as `1h30m` or `1.5s`. Out: nanoseconds, and back.

use std::fmt::Write as _;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Why a duration is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not a list of numbers with units, or too large.
    #[error("time: invalid duration {}", go_time_quote(text))]
    Invalid {
        /// What was written.
        text: String,
    },
    /// A number has no unit.
    #[error("time: missing unit in duration {}", go_time_quote(text))]
    MissingUnit {
        /// What was written.
        text: String,
    },
    /// A number has a unit that does not exist.
    #[error("time: unknown unit {} in duration {}", go_time_quote(unit), go_time_quote(text))]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// What was written.
        text: String,
    },
}

/// Parses a duration into nanoseconds as Go's `time.ParseDuration` does.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid { text: text.to_owned() };
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (value, after) = number_with_unit(text, rest)?;
        total = total.checked_add(value).filter(|total| *total <= 1 << 63).ok_or_else(invalid)?;
        rest = after;
    }
    match i64::try_from(total) {
        Ok(total) if negative => Ok(-total),
        Ok(total) => Ok(total),
        Err(_) if negative => Ok(i64::MIN),
        Err(_) => Err(invalid()),
    }
}

fn number_with_unit<'a>(text: &str, rest: &'a str) -> Result<(u64, &'a str), DurationError> {
    let invalid = || DurationError::Invalid { text: text.to_owned() };
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, mut after) = rest.split_at(digits(rest));
    let mut fraction = "";
    if let Some(dotted) = after.strip_prefix('.') {
        (fraction, after) = dotted.split_at(digits(dotted));
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let (unit, after) = after.split_at(unit_end);
    if unit.is_empty() {
        return Err(DurationError::MissingUnit { text: text.to_owned() });
    }
    let scale =
        nanoseconds(unit).ok_or_else(|| DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() })?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let value = whole.checked_mul(scale).filter(|value| *value <= 1 << 63).ok_or_else(invalid)?;
    let value = value.checked_add(scaled_fraction(fraction, scale)).ok_or_else(invalid)?;
    Ok((value, after))
}

/// Returns `0.fraction * scale`, rounded towards zero, with the digits that still fit 63 bits, as Go does.
fn scaled_fraction(fraction: &str, scale: u64) -> u64 {
    let mut value: u64 = 0;
    let mut divisor = 1.0_f64;
    for digit in fraction.bytes() {
        let next = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0')));
        let Some(next) = next.filter(|next| *next < 1 << 63) else { break };
        value = next;
        divisor *= 10.0;
    }
    (value as f64 * (scale as f64 / divisor)) as u64
}

fn nanoseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return None,
    })
}

/// Prints nanoseconds as Go's `Duration.String` does: `1h0m0s`, `1.5s`, `100ms`, `0s`.
pub fn format(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    if total < SECOND {
        return match total {
            0 => "0s".to_owned(),
            1..1_000 => format!("{sign}{total}ns"),
            1_000..1_000_000 => format!("{sign}{}µs", decimal(total, 1_000)),
            _ => format!("{sign}{}ms", decimal(total, 1_000_000)),
        };
    }
    let (hours, minutes) = (total / (3600 * SECOND), total / (60 * SECOND) % 60);
    let mut out = sign.to_owned();
    if hours > 0 {
        let _ = write!(out, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(out, "{minutes}m");
    }
    let _ = write!(out, "{}s", decimal(total % (60 * SECOND), SECOND));
    out
}

/// Prints `value / unit` with no zeros at the end; `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", value % unit);
    match fraction.trim_end_matches('0') {
        "" => (value / unit).to_string(),
        fraction => format!("{}.{fraction}", value / unit),
    }
}

/// Quotes as Go's `time` package does in its errors: bytes outside printable ASCII as `\xNN`.
fn go_time_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        let _ = match byte {
            b'"' | b'\\' => write!(out, "\\{}", char::from(byte)),
            b' '..=b'~' => write!(out, "{}", char::from(byte)),
            _ => write!(out, "\\x{byte:02x}"),
        };
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_like_go() {
        let cases = [
            ("0", 0),
            ("300ms", 300_000_000),
            ("1.5h", 5_400_000_000_000),
            ("2h45m", 9_900_000_000_000),
            ("-1s", -1_000_000_000),
            ("+.5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("3µs1ns", 3_001),
            ("0.000000000000000000000001h", 0),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_like_go() {
        let cases = [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            (".s", "time: invalid duration \".s\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
            ("1é", "time: unknown unit \"\\xc3\\xa9\" in duration \"1\\xc3\\xa9\""),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).expect_err(text).to_string(), want);
        }
    }

    #[test]
    fn prints_like_go() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_500_000_000, "1.5s"),
            (-1_000_000, "-1ms"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ];
        for (nanoseconds, want) in cases {
            assert_eq!(format(nanoseconds), want);
        }
    }

    proptest! {
        #[test]
        fn printing_can_be_undone(nanoseconds in any::<i64>()) {
            prop_assert_eq!(parse(&format(nanoseconds)), Ok(nanoseconds));
        }

        #[test]
        fn never_panics(text in "[-+]?[0-9.a-zµé]{0,30}") {
            let _ = parse(&text);
        }
    }
}
