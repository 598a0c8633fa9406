//! Classes of blanks, and the small conversions that several grammars share.
//!
//! In: text. Out: text, cut. Two classes of blanks are kept apart because the language does: [`is_blank`] separates a
//! keyword from its arguments and the items of a list, `char::is_whitespace` trims and separates words.

use std::borrow::Cow;

/// Tells whether a character separates a keyword from its arguments: tab, vertical tab, form feed, CR or space.
pub fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits at the first run of blanks; the rest is `None` where there is no blank.
pub fn split_once_blank(text: &str) -> (&str, Option<&str>) {
    match text.find(is_blank) {
        Some(at) => (&text[..at], Some(text[at..].trim_start_matches(is_blank))),
        None => (text, None),
    }
}

/// Splits at every run of blanks; a run at either end gives an empty item there.
pub fn split_blanks(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let mut rest = text;
    loop {
        let (item, more) = split_once_blank(rest);
        items.push(item);
        match more {
            Some(more) => rest = more,
            None => return items,
        }
    }
}

/// Parses a boolean as Go's `strconv.ParseBool` does.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Returns bytes as text, each byte that is no UTF-8 as U+FFFD, which is how Go reads a string.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// Returns the first byte of a line that is no UTF-8, and what stands around it, such bytes as `\xNN`.
pub fn first_foreign(line: &[u8]) -> Option<(u8, String)> {
    /// What is shown on either side, in bytes.
    const AROUND: usize = 32;
    let at = std::str::from_utf8(line).err()?.valid_up_to();
    let is_inside = |byte: &u8| *byte & 0xc0 == 0x80;
    let start = at.saturating_sub(AROUND);
    let start = start + line[start..at].iter().take_while(|byte| is_inside(byte)).count();
    let end = line.len().min(at + AROUND);
    let end = end + line[end..].iter().take(3).take_while(|byte| is_inside(byte)).count();
    let mut excerpt = String::new();
    for chunk in line[start..end].utf8_chunks() {
        excerpt.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| excerpt.push_str(&format!("\\x{byte:02x}")));
    }
    Some((line[at], excerpt.trim().to_owned()))
}

/// Strips the tabs at the start of every line of what may not be text.
pub fn strip_leading_tabs_of_bytes(bytes: &[u8]) -> Vec<u8> {
    let strip = |line: &[u8]| line.iter().copied().skip_while(|byte| *byte == b'\t').collect::<Vec<u8>>();
    bytes.split_inclusive(|byte| *byte == b'\n').flat_map(strip).collect()
}

/// Strips the tabs at the start of every line.
pub fn strip_leading_tabs(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_like_go_regexp_split() {
        assert_eq!(split_blanks("a  b\tc"), ["a", "b", "c"]);
        assert_eq!(split_blanks("a "), ["a", ""]);
        assert_eq!(split_blanks("a\u{a0}b"), ["a\u{a0}b"]);
        assert_eq!(split_once_blank("ENV"), ("ENV", None));
        assert_eq!(split_once_blank("ENV   a b"), ("ENV", Some("a b")));
    }

    #[test]
    fn strips_tabs_of_every_line() {
        assert_eq!(strip_leading_tabs("\t\ta\n\t b\n\n\t"), "a\n b\n\n");
        assert_eq!(strip_leading_tabs_of_bytes(b"\t\t\xe9\n\t b\n\n\t"), b"\xe9\n b\n\n");
    }

    #[test]
    fn the_first_byte_that_is_no_text_is_shown_in_its_place() {
        let long = [&[b'x'; 100][..], "éé".as_bytes(), b"\xff", &[b'y'; 100], "é".as_bytes()].concat();
        let shown = format!("{}éé\\xff{}", "x".repeat(28), "y".repeat(31));
        for (line, expected) in [
            (&b"RUN caf\xe9 \xe8\n"[..], Some((0xe9, "RUN caf\\xe9 \\xe8"))),
            (b"\xe2\x82", Some((0xe2, "\\xe2\\x82"))),
            (&long, Some((0xff, &shown))),
            ("caf\u{fffd}é".as_bytes(), None),
        ] {
            assert_eq!(first_foreign(line), expected.map(|(byte, text): (u8, &str)| (byte, text.to_owned())));
        }
    }

    #[test]
    fn each_byte_that_is_no_text_is_replaced() {
        assert_eq!(lossy(b"a\xe2\x82b\xe9"), "a\u{fffd}\u{fffd}b\u{fffd}");
        assert!(matches!(lossy("é".as_bytes()), Cow::Borrowed("é")));
    }
}
