//! Files in the format of .dockerignore.
//!
//! In: the bytes of the file. Out: patterns for a [`Matcher`](super::Matcher), in order, cleaned, without comments.

use super::path::clean;
use crate::diag::{Diagnose, Kind};

/// Longest line, in bytes.
pub const MAX_LINE: usize = 65_535;

/// A line is longer than [`MAX_LINE`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the ignore file is longer than {MAX_LINE} bytes")]
pub struct LineTooLong {
    /// The line.
    pub line: usize,
}

impl Diagnose for LineTooLong {
    fn kind(&self) -> Kind {
        Kind::Dockerfile
    }
}

/// Reads the patterns of an ignore file. A lone `!` is kept, for the matcher to refuse.
pub fn read(text: &[u8]) -> Result<Vec<String>, LineTooLong> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut patterns = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.len() > MAX_LINE {
            return Err(LineTooLong { line: number + 1 });
        }
        patterns.extend(pattern(&String::from_utf8_lossy(line)));
    }
    Ok(patterns)
}

fn pattern(line: &str) -> Option<String> {
    let text = line.trim();
    if line.starts_with('#') || text.is_empty() {
        return None;
    }
    let (mark, text) = match text.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", text),
    };
    if text.is_empty() {
        return Some(mark.to_owned());
    }
    let cleaned = clean(text);
    let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
    Some(format!("{mark}{relative}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(serde::Deserialize)]
    struct Row {
        text: String,
        patterns: Vec<String>,
    }

    #[test]
    fn reads_the_table_of_ignore_files_as_buildkit_does() {
        for row in crate::diag::table::<Row>("ignore-files") {
            assert_eq!(read(row.text.as_bytes()).as_ref(), Ok(&row.patterns), "{:?}", row.text);
        }
    }

    #[test]
    fn reads_patterns() {
        let text = b"\xef\xbb\xbf# comment\n a/./b/ \r\n\n#x\n #y\n/abs\n! /c \n!\n/\n..\na//b\n\xff";
        let want = ["a/b", "#y", "abs", "!c", "!", "/", "..", "a/b", "\u{fffd}"];
        assert_eq!(read(text).expect("valid"), want);
    }

    #[test]
    fn line_length_is_limited() {
        assert!(read(&vec![b'a'; MAX_LINE]).is_ok());
        let text = [b"x\n".to_vec(), vec![b'a'; MAX_LINE + 1]].concat();
        assert_eq!(read(&text), Err(LineTooLong { line: 2 }));
    }

    proptest! {
        #[test]
        fn never_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&text);
        }
    }
}
