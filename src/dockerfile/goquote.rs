//! Go's ways to print strings, which the image history and many messages contain.
//!
//! In: strings. Out: `strconv.Quote` form, and the `%q` and `%v` forms of lists.

use std::fmt::Write as _;

/// Quotes as Go's `strconv.Quote` does.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        push_escaped(&mut out, c);
    }
    out.push('"');
    out
}

/// Prints a list as Go's `%q` does: `["a" "b"]`.
pub fn quote_list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<String> = items.iter().map(|item| quote(item.as_ref())).collect();
    format!("[{}]", items.join(" "))
}

/// Prints a list as Go's `%v` does: `[a b]`.
pub fn plain_list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(" "))
}

fn push_escaped(out: &mut String, c: char) {
    let short = match c {
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        '\u{7}' => Some("\\a"),
        '\u{8}' => Some("\\b"),
        '\u{c}' => Some("\\f"),
        '\n' => Some("\\n"),
        '\r' => Some("\\r"),
        '\t' => Some("\\t"),
        '\u{b}' => Some("\\v"),
        _ => None,
    };
    let number = u32::from(c);
    let _ = match short {
        Some(short) => write!(out, "{short}"),
        None if is_printable(c) => write!(out, "{c}"),
        None if number < 0x80 => write!(out, "\\x{number:02x}"),
        None if number < 0x1_0000 => write!(out, "\\u{number:04x}"),
        None => write!(out, "\\U{number:08x}"),
    };
}

fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return c == ' ' || c.is_ascii_graphic();
    }
    // The standard library has this table behind `escape_debug` only; after a letter it leaves combining marks alone,
    // as Go does.
    let mut buffer = [0; 5];
    buffer[0] = b'a';
    let len = c.encode_utf8(&mut buffer[1..]).len();
    std::str::from_utf8(&buffer[..=len]).is_ok_and(|pair| pair.escape_debug().nth(1) == Some(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_like_go() {
        let cases = [
            ("a b", r#""a b""#),
            ("a\"\\\n\t\r", r#""a\"\\\n\t\r""#),
            ("\u{0}\u{7f}\u{1b}", r#""\x00\x7f\x1b""#),
            ("äé日\u{301}", "\"äé日\u{301}\""),
            ("\u{a0}\u{200b}\u{feff}", r#""\u00a0\u200b\ufeff""#),
            ("\u{e0001}", r#""\U000e0001""#),
            ("😀", "\"😀\""),
            ("\u{fffd}", "\"\u{fffd}\""),
        ];
        for (text, want) in cases {
            assert_eq!(quote(text), want);
        }
    }

    #[test]
    fn prints_lists() {
        assert_eq!(quote_list(&["a", "b c"]), r#"["a" "b c"]"#);
        assert_eq!(quote_list::<&str>(&[]), "[]");
        assert_eq!(plain_list(&["a", "b c"]), "[a b c]");
    }

    fn unquote(text: &str) -> Option<String> {
        let mut chars = text.strip_prefix('"')?.strip_suffix('"')?.chars();
        let mut out = String::new();
        while let Some(c) = chars.next() {
            if c != '\\' {
                out.push(c);
                continue;
            }
            let kind = chars.next()?;
            let digits = match kind {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            let hex: String = chars.by_ref().take(digits).collect();
            out.push(match kind {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                'x' | 'u' | 'U' => char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?,
                literal => literal,
            });
        }
        Some(out)
    }

    proptest! {
        #[test]
        fn quoting_can_be_undone(text in any::<String>()) {
            let quoted = quote(&text);
            prop_assert!(quoted.chars().all(|c| !c.is_control()));
            prop_assert_eq!(unquote(&quoted), Some(text));
        }
    }
}
