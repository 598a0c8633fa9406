//! Sizes of memory as Docker's tools read them.
//!
//! In: text such as `64m` or `1.5 GiB`. Out: bytes; units are powers of 1024.

/// Why a size is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// There is no number, or it is negative or not one.
    #[error("invalid size: '{text}'")]
    Invalid {
        /// What was written.
        text: String,
    },
    /// The unit does not exist.
    #[error("invalid suffix: '{suffix}'")]
    Suffix {
        /// The unit.
        suffix: String,
    },
}

/// Parses a number with an optional unit: `b`, or one of `k m g t p` with an optional `b` or `ib`, in any case.
pub fn parse(text: &str) -> Result<i64, SizeError> {
    let invalid = || SizeError::Invalid { text: text.to_owned() };
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let suffix = &text[last + 1..];
    let number = if text[last..].starts_with(' ') { &text[..last] } else { &text[..=last] };
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0).ok_or_else(invalid)?;
    let scale = scale(suffix).ok_or_else(|| SizeError::Suffix { suffix: suffix.to_owned() })?;
    let bytes = number * scale;
    // 2^63 is the first float that does not fit.
    if bytes >= 9_223_372_036_854_775_808.0 { Err(invalid()) } else { Ok(bytes as i64) }
}

fn scale(suffix: &str) -> Option<f64> {
    let suffix = suffix.to_ascii_lowercase();
    let unit = suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(&suffix);
    let power = match unit {
        "" if suffix.len() < 2 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    Some(1024_f64.powi(power))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_units() {
        let cases = [
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32 kb", 32 << 10),
            ("32k", 32 << 10),
            ("1.5GiB", 3 << 29),
            ("1m", 1 << 20),
            ("2tb", 2 << 40),
            ("1p", 1 << 50),
            ("1e3", 1000),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "x", "-1k", "5x", "5ib", "5bb", "5kx", "1 2 3", "inf 1", "9000000p", "5kibb"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
