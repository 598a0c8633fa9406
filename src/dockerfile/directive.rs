//! Parser directives: `# syntax=`, `# escape=` and `# check=` at the top of a file.
//!
//! In: lines, or a whole file. Out: the directives. The scan ends for good at the first line that is not one: a blank
//! line, another comment, an unknown key, an instruction.

use std::collections::BTreeSet;

use super::check::{CheckError, CheckOptions};
use crate::diag::LineRange;

/// A directive found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The value up to the first space.
    pub reference: String,
    /// The whole value.
    pub cmdline: String,
    /// The line it is on.
    pub lines: Vec<LineRange>,
}

/// A directive's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// `syntax`
    Syntax,
    /// `escape`
    Escape,
    /// `check`
    Check,
}

impl Key {
    fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "syntax" => Some(Self::Syntax),
            "escape" => Some(Self::Escape),
            "check" => Some(Self::Check),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Escape => "escape",
            Self::Check => "check",
        }
    }
}

/// A directive was given twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only one {} parser directive can be used", key.name())]
pub struct RepeatedDirective {
    key: Key,
}

/// The state of a scan for directives.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    seen: BTreeSet<Key>,
    done: bool,
}

impl Scan {
    /// Reads a line that begins with `marker` if it is a directive; any other line ends the scan.
    pub(crate) fn line(&mut self, marker: &str, line: &str) -> Result<Option<(Key, String)>, RepeatedDirective> {
        if self.done {
            return Ok(None);
        }
        let found = line.strip_prefix(marker).and_then(key_and_value);
        let Some((key, value)) = found else {
            self.done = true;
            return Ok(None);
        };
        if !self.seen.insert(key) {
            self.done = true;
            return Err(RepeatedDirective { key });
        }
        Ok(Some((key, value)))
    }
}

fn key_and_value(comment: &str) -> Option<(Key, String)> {
    let (word, value) = comment.trim_start().split_once('=')?;
    let key = Key::parse(word.trim_end_matches(is_pattern_space))?;
    let trimmed = value.trim_matches(is_pattern_space);
    // A value of blanks only is the last of them.
    let value = if trimmed.is_empty() { value.chars().next_back()?.to_string() } else { trimmed.to_owned() };
    Some((key, value))
}

fn is_pattern_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ')
}

/// Finds which frontend a file asks for: `# syntax=`, `// syntax=`, or a JSON object with a member `syntax`.
pub fn syntax_directive(text: &[u8]) -> Option<Directive> {
    let (text, skipped) = after_mark_and_shebang(text);
    scan_file(text, skipped, "#", Key::Syntax)
        .or_else(|| scan_file(text, skipped, "//", Key::Syntax))
        .or_else(|| syntax_member(text, skipped))
}

/// Finds the `# check=` of a file.
pub fn check_directive(text: &[u8]) -> Option<Directive> {
    let (text, skipped) = after_mark_and_shebang(text);
    scan_file(text, skipped, "#", Key::Check)
}

/// Reads a comment above an instruction if it is a `check=`.
pub(crate) fn check_in_comment(comment: &str) -> Option<Result<CheckOptions, CheckError>> {
    let (_, value) = key_and_value(comment).filter(|(key, _)| *key == Key::Check)?;
    Some(CheckOptions::parse(until_space(&value)))
}

fn scan_file(text: &[u8], skipped: u32, marker: &str, wanted: Key) -> Option<Directive> {
    let mut scan = Scan::default();
    for (line, number) in text.split(|byte| *byte == b'\n').zip(skipped + 1..) {
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        let (key, value) = scan.line(marker, &line).ok()??;
        if key == wanted {
            return Some(directive(value, number));
        }
    }
    None
}

fn syntax_member(text: &[u8], skipped: u32) -> Option<Directive> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).ok()?;
    let value = object.get("syntax")?.as_str()?.to_owned();
    let lines = vec![LineRange { start: skipped + 1, end: skipped + 1 }];
    Some(Directive { reference: value.clone(), cmdline: value, lines })
}

fn directive(value: String, line: u32) -> Directive {
    let reference = until_space(&value).to_owned();
    Directive { reference, cmdline: value, lines: vec![LineRange { start: line, end: line }] }
}

fn until_space(value: &str) -> &str {
    value.split_once(' ').map_or(value, |(first, _)| first)
}

/// Cuts a byte order mark and a `#!` line; returns how many lines were cut.
fn after_mark_and_shebang(text: &[u8]) -> (&[u8], u32) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if !text.starts_with(b"#!") {
        return (text, 0);
    }
    let end = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1);
    (&text[end..], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_syntax() {
        type Found = Option<(&'static str, &'static str, u32)>;
        let cases: [(&[u8], Found); 14] = [
            (b"# syntax=a/b:1 --x y\nFROM x", Some(("a/b:1", "a/b:1 --x y", 1))),
            (b"\xef\xbb\xbf#syntax = a \r\nFROM x", Some(("a", "a", 1))),
            (b"#!/bin/x\n# escape=`\n# SYNTAX=a\n", Some(("a", "a", 3))),
            (b"// syntax=a\n", Some(("a", "a", 1))),
            (b"{\"syntax\": \"a b\"}", Some(("a b", "a b", 1))),
            (b" # syntax=a\n", None),
            (b"# comment\n# syntax=a\n", None),
            (b"# other=1\n# syntax=a\n", None),
            (b"\n# syntax=a\n", None),
            (b"# syntax=\n", None),
            (b"# syntax=\r\n", None),
            (b"# syntax= \nFROM x", Some(("", " ", 1))),
            (b"# escape= \t\r\n# syntax=a\n", Some(("a", "a", 2))),
            (b"", None),
        ];
        for (text, want) in cases {
            let found = syntax_directive(text);
            let found = found.as_ref().map(|d| (d.reference.as_str(), d.cmdline.as_str(), d.lines[0].start));
            assert_eq!(found, want, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_repeated_key_is_an_error() {
        let mut scan = Scan::default();
        assert!(scan.line("#", "# escape=\\").is_ok_and(|found| found.is_some()));
        let error = scan.line("#", "# escape=\\").expect_err("repeated");
        assert_eq!(error.to_string(), "only one escape parser directive can be used");
    }

    proptest! {
        #[test]
        fn never_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (syntax_directive(&text), check_directive(&text));
        }
    }
}
