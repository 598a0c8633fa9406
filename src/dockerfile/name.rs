//! Names of variables, by the classes of characters that Go tells apart: letters (`L`) and decimal digits (`Nd`).
//!
//! In: text behind a `$`. Out: how many bytes of it are a name. What the standard library calls alphanumeric is more: `²`
//! is a number and no digit, and ends a name.

use std::sync::LazyLock;

use regex::Regex;

static DIGITS: LazyLock<Regex> = LazyLock::new(|| compile(r"^\p{Nd}*"));
static WORD: LazyLock<Regex> = LazyLock::new(|| compile(r"^[\p{L}\p{Nd}_]*"));

fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern")
}

/// Returns the length of the digits that a text begins with.
pub(crate) fn digits(text: &str) -> usize {
    prefix(text, |b| b.is_ascii_digit(), &DIGITS)
}

/// Returns the length of the letters, digits and underscores that a text begins with.
pub(crate) fn word(text: &str) -> usize {
    prefix(text, |b| b.is_ascii_alphanumeric() || b == b'_', &WORD)
}

/// Nearly all names are ASCII, and need no tables.
fn prefix(text: &str, ascii: impl Fn(u8) -> bool, all: &Regex) -> usize {
    let end = text.bytes().position(|b| !ascii(b)).unwrap_or(text.len());
    match text.as_bytes().get(end) {
        Some(byte) if !byte.is_ascii() => all.find(text).map_or(0, |found| found.end()),
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_where_go_ends_them() {
        for (text, expected) in [("a_1-b", "a_1"), ("a²", "a"), ("aé1x ", "aé1x"), ("Ⅷ", ""), ("aⓐ", "a"), ("٣a", "٣a")]
        {
            assert_eq!(&text[..word(text)], expected, "{text}");
        }
        for (text, expected) in [("12a", "12"), ("1٣²", "1٣"), ("²", ""), ("", "")] {
            assert_eq!(&text[..digits(text)], expected, "{text}");
        }
    }
}
