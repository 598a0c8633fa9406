//! From physical to logical lines: directives, comments, continuations and heredoc bodies.
//!
//! In: the text of a file. Out: [`LogicalLine`]s with their places and the comments above them. Every physical line is
//! visited once.

use super::directive::{Key, Scan};
use super::error::{ParseError, UpstreamLines, line_ranges};
use super::instruction::{Heredoc, NotText};
use super::text;
use crate::diag::LineRange;

/// Longest physical line, in bytes.
pub const MAX_LINE: usize = 65_535;

/// What is said of a file that has comments only.
pub(crate) const NO_INSTRUCTIONS: &str = "file with no instructions";

/// One instruction's text, continuations joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogicalLine {
    /// The text.
    pub(crate) text: String,
    /// First line.
    pub(crate) start: u32,
    /// Comments above.
    pub(crate) comments: Vec<String>,
    /// Whether there was an empty line between continuations.
    pub(crate) empty_continuation: bool,
    /// The first byte of it that is no UTF-8.
    pub(crate) not_text: Option<NotText>,
}

/// Reads lines.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    lines: std::str::SplitInclusive<'a, char>,
    /// What the lines were before they were made text.
    bytes: &'a [u8],
    number: u32,
    directives: Scan,
    comments: Vec<String>,
    /// Whether an instruction began.
    begun: bool,
    /// Why the line could not be read behind which the instruction read last went on.
    unread: Option<ParseError>,
    /// The escape character.
    pub(crate) escape: char,
}

impl<'a> Reader<'a> {
    /// Builds a reader of a text without its byte order mark.
    pub(crate) fn new(text: &'a str) -> Self {
        Self::of_bytes(text, text.as_bytes())
    }

    /// Builds a reader of the text that bytes were made, line for line, which have no byte order mark either.
    pub(crate) fn of_bytes(text: &'a str, bytes: &'a [u8]) -> Self {
        Self {
            lines: text.split_inclusive('\n'),
            bytes,
            number: 0,
            directives: Scan::default(),
            comments: Vec::new(),
            begun: false,
            unread: None,
            escape: '\\',
        }
    }

    /// Returns the number of the line read last.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Returns one range for each line from `start` to the one read last.
    pub(crate) fn ranges_from(&self, start: u32) -> Vec<LineRange> {
        line_ranges(start, self.number)
    }

    fn next_line_and_bytes(&mut self) -> Result<Option<(&'a str, &'a [u8])>, ParseError> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        let end = self.bytes.iter().position(|byte| *byte == b'\n').map_or(self.bytes.len(), |at| at + 1);
        let (bytes, rest) = self.bytes.split_at(end);
        self.bytes = rest;
        if bytes.strip_suffix(b"\n").unwrap_or(bytes).len() > MAX_LINE {
            // Where the instruction would go on cannot be known, so nothing behind it is read.
            self.lines = "".split_inclusive('\n');
            let error = ParseError::new(format!("dockerfile line greater than max allowed size of {MAX_LINE}"))
                .at(&line_ranges(self.number + 1, self.number + 1))
                .named_upstream(UpstreamLines::Before)
                .hinted("move the content to a file and COPY it");
            // BuildKit's reader ends there as at the end of the file.
            return Err(if self.begun { error } else { error.said_upstream(NO_INSTRUCTIONS) });
        }
        self.number += 1;
        Ok(Some((line, bytes)))
    }

    /// Returns the next instruction's text.
    pub(crate) fn next_instruction(&mut self) -> Result<Option<LogicalLine>, ParseError> {
        if let Some(error) = self.unread.take() {
            return Err(error);
        }
        while let Some((raw, bytes)) = self.next_line_and_bytes()? {
            let is_directive = self.directive(raw)?;
            if let Some(comment) = comment_text(raw) {
                self.remember(comment, is_directive);
                continue;
            }
            let start = self.number;
            let (first, continues) = self.cut_continuation(trim_newline(raw).trim_start());
            if !continues && first.is_empty() {
                continue;
            }
            self.begun = true;
            let mut line =
                LogicalLine { text: first.to_owned(), start, not_text: self.not_text(bytes), ..LogicalLine::default() };
            if continues {
                // What there is of the instruction is told of first, and BuildKit has counted the line by then.
                let unread = self.join_continuations(&mut line).err();
                self.unread = unread.map(|error| error.named_upstream(UpstreamLines::Same));
            }
            line.comments = std::mem::take(&mut self.comments);
            return Ok(Some(line));
        }
        Ok(None)
    }

    /// Returns what is no text in the line read last.
    fn not_text(&self, bytes: &[u8]) -> Option<NotText> {
        let (byte, excerpt) = text::first_foreign(bytes)?;
        Some(NotText { line: self.number, byte, excerpt })
    }

    fn directive(&mut self, raw: &str) -> Result<bool, ParseError> {
        let line = trim_newline(raw).trim_start();
        let here = line_ranges(self.number, self.number);
        match self.directives.line("#", line) {
            Err(error) => {
                let hint = "remove this line: the one above counts";
                let told = ParseError::new(error.to_string()).at(&here).named_upstream(UpstreamLines::Before);
                Err(told.marking(line).hinted(hint))
            }
            Ok(Some((Key::Escape, value))) => match value.as_str() {
                "\\" | "`" => {
                    self.escape = if value == "`" { '`' } else { '\\' };
                    Ok(true)
                }
                _ => Err(ParseError::new(format!("invalid escape token '{value}' does not match ` or \\"))
                    .at(&here)
                    .named_upstream(UpstreamLines::Before)
                    .marking(value.as_str())
                    .hinted("write `# escape=\\` or `# escape=` followed by a backtick")),
            },
            Ok(found) => Ok(found.is_some()),
        }
    }

    fn remember(&mut self, comment: &str, is_directive: bool) {
        if comment.is_empty() {
            self.comments.clear();
        } else if !is_directive {
            self.comments.push(comment.to_owned());
        }
    }

    fn join_continuations(&mut self, line: &mut LogicalLine) -> Result<(), ParseError> {
        while let Some((raw, bytes)) = self.next_line_and_bytes()? {
            if comment_text(raw).is_some() {
                continue;
            }
            if raw.trim().is_empty() {
                line.empty_continuation = true;
                continue;
            }
            let (part, continues) = self.cut_continuation(trim_newline(raw));
            line.text.push_str(part);
            line.not_text = line.not_text.take().or_else(|| self.not_text(bytes));
            if !continues {
                break;
            }
        }
        Ok(())
    }

    /// Cuts an escape character at the end of a line; returns whether there was one.
    fn cut_continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            // An escape character before it takes its meaning away; how many there are is not looked at.
            Some(before) if !before.ends_with(self.escape) => (before, true),
            _ => (line, false),
        }
    }

    /// Reads the body of a heredoc; returns whether its terminator was found.
    pub(crate) fn read_heredoc(&mut self, heredoc: &mut Heredoc) -> Result<bool, ParseError> {
        let mut verbatim = Vec::new();
        while let Some((raw, bytes)) = self.next_line_and_bytes()? {
            let line = trim_newline(raw);
            let line = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
            if line == heredoc.name && raw.as_bytes() == bytes {
                heredoc.bytes = (verbatim != heredoc.body.as_bytes()).then_some(verbatim);
                return Ok(true);
            }
            heredoc.not_text = heredoc.not_text.take().or_else(|| self.not_text(bytes));
            heredoc.body.push_str(raw);
            verbatim.extend_from_slice(bytes);
        }
        Ok(false)
    }
}

fn trim_newline(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// Returns a comment's text: without its first character, which in an indented comment is not the `#`.
fn comment_text(raw: &str) -> Option<&str> {
    if !raw.trim_start().starts_with('#') {
        return None;
    }
    let mut chars = raw.chars();
    chars.next();
    Some(chars.as_str().trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Vec<String> {
        let mut reader = Reader::new(text);
        std::iter::from_fn(|| reader.next_instruction().expect("valid")).map(|line| line.text).collect()
    }

    #[test]
    fn joins_continuations() {
        let cases: [(&str, &[&str]); 12] = [
            ("A b\\\nc", &["A bc"]),
            ("A b \\  \n  c\n", &["A b   c"]),
            ("A b\\\n# comment\n\n c\nD", &["A b c", "D"]),
            ("A b\\\\\nC", &["A b\\\\", "C"]),
            ("A b\\\\\\\nC", &["A b\\\\\\", "C"]),
            ("A\\\n\\\nB", &["AB"]),
            ("A\\", &["A"]),
            ("A \\\r\n b\r\n", &["A  b"]),
            ("  A\n\tB", &["A", "B"]),
            ("# escape=`\nA `\nb\\\nC", &["A b\\", "C"]),
            ("A # b", &["A # b"]),
            ("A\\\n # \\\nb\nc", &["Ab", "c"]),
        ];
        for (text, want) in cases {
            assert_eq!(texts(text), want, "{text}");
        }
    }

    #[test]
    fn attaches_comments() {
        let text = "# syntax=x\n# one\n\n# two\nA\n# gone\n#\n# kept\n # indented\nB\nC";
        let mut reader = Reader::new(text);
        let comments: Vec<Vec<String>> =
            std::iter::from_fn(|| reader.next_instruction().expect("valid")).map(|line| line.comments).collect();
        assert_eq!(comments, [vec!["one", "two"], vec!["kept", "# indented"], vec![]]);
    }

    #[test]
    fn line_length_is_limited() {
        let text = |len: usize| format!("A {}\nB", "x".repeat(len - 2));
        assert_eq!(texts(&text(MAX_LINE)).len(), 2);
        let error = Reader::new(&text(MAX_LINE + 1)).next_instruction().expect_err("too long");
        assert_eq!(error.message, "dockerfile line greater than max allowed size of 65535");
        assert_eq!(error.line(), 1);
    }

    proptest! {
        #[test]
        fn visits_every_line_once(text in "([AB#\\\\ \t\n]|\r\n){0,60}") {
            let mut reader = Reader::new(&text);
            let mut last = 0;
            while let Some(line) = reader.next_instruction().expect("no directive") {
                prop_assert!(line.start > last && line.start <= reader.number());
                last = reader.number();
            }
            prop_assert_eq!(reader.number() as usize, text.split_inclusive('\n').count());
        }
    }
}
