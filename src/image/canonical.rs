//! The one JSON encoder for whatever is hashed, stored or pushed: Go's `encoding/json` dialect.
//!
//! Compact, members in declaration order, maps sorted by key, and `<`, `>`, `&`, U+2028, U+2029 escaped, because BuildKit's
//! image configs and cache keys are hashes over Go's output (cache specification 2.1).

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Encodes `value` as Go would.
///
/// # Panics
///
/// When `value` cannot be represented in JSON (a map with keys that are not strings), which no type here allows.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, GoFormatter)).expect("plain data with string keys");
    out
}

/// Encodes `value` as Go does with an indent of two blanks: manifests and indexes are written so.
///
/// # Panics
///
/// As [`to_vec`].
pub fn to_indented<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(value).expect("plain data with string keys");
    // Go escapes these wherever they stand, and they stand in strings only.
    for (character, escaped) in ESCAPED {
        if text.contains(character) {
            text = text.replace(character, escaped);
        }
    }
    text.into_bytes()
}

/// What Go escapes beyond JSON's own rules.
const ESCAPED: [(char, &str); 5] =
    [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut start = 0;
        for (at, c) in fragment.char_indices() {
            let Some((_, escape)) = ESCAPED.iter().find(|(character, _)| *character == c) else { continue };
            writer.write_all(&fragment.as_bytes()[start..at])?;
            writer.write_all(escape.as_bytes())?;
            start = at + c.len_utf8();
        }
        CompactFormatter.write_string_fragment(writer, &fragment[start..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_like_go() {
        let text = String::from_utf8(to_vec("a<b>&\u{2028}\n\u{8}\u{c}\u{1}\u{7f}é\"\\/")).expect("utf-8");
        let value = serde_json::json!({"a": ["<b>&\u{2029}"]});
        let indented = String::from_utf8(to_indented(&value)).expect("utf-8");
        assert_eq!(indented, "{\n  \"a\": [\n    \"\\u003cb\\u003e\\u0026\\u2029\"\n  ]\n}");
        assert_eq!(text, "\"a\\u003cb\\u003e\\u0026\\u2028\\n\\b\\f\\u0001\u{7f}é\\\"\\\\/\"");
    }
}
