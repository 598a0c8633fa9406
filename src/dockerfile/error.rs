//! One mistake in a Dockerfile: what, where, and what to type instead.
//!
//! In: the errors of the grammars. Out: [`ParseError`]s, which the frontend shows with the lines they point to.

use crate::diag::{Diagnose, Kind, LineRange};

/// One problem in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// What is wrong, in the words BuildKit uses for it.
    pub message: String,
    /// The lines meant, one range per line; empty for the file as a whole.
    pub ranges: Vec<LineRange>,
    /// The offending words, as they stand on the first line.
    pub mark: Option<String>,
    /// What the user can do.
    pub hint: Option<String>,
}

impl ParseError {
    /// Builds an error about the file as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ranges: Vec::new(), mark: None, hint: None }
    }

    /// Sets the lines meant.
    #[must_use]
    pub fn at(mut self, ranges: &[LineRange]) -> Self {
        self.ranges = ranges.to_vec();
        self
    }

    /// Sets the offending words.
    #[must_use]
    pub fn marking(mut self, mark: impl Into<String>) -> Self {
        self.mark = Some(mark.into());
        self
    }

    /// Sets what the user can do.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the first line meant, 0 for the whole file.
    pub fn line(&self) -> u32 {
        self.ranges.first().map_or(0, |range| range.start)
    }
}

impl Diagnose for ParseError {
    fn kind(&self) -> Kind {
        Kind::Dockerfile
    }

    fn hints(&self) -> Vec<String> {
        self.hint.iter().cloned().collect()
    }
}

/// Returns one range for each line from `start` to `end`.
pub fn line_ranges(start: u32, end: u32) -> Vec<LineRange> {
    (start..=end.max(start)).map(|line| LineRange { start: line, end: line }).collect()
}

/// What is wrong with one instruction, before it is known where the instruction stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What is wrong.
    pub(crate) message: String,
    /// Whether the message names the line, as it does for all but the lowest level of the grammar.
    pub(crate) names_line: bool,
    /// The offending words.
    pub(crate) mark: Option<String>,
    /// What the user can do.
    pub(crate) hint: Option<String>,
}

impl Problem {
    /// A mistake in the shape of a line.
    pub(crate) fn syntax(message: impl Into<String>) -> Self {
        Self { message: message.into(), names_line: false, mark: None, hint: None }
    }

    /// A mistake in what an instruction says.
    pub(crate) fn meaning(message: impl Into<String>) -> Self {
        Self { message: message.into(), names_line: true, mark: None, hint: None }
    }

    /// Sets the offending words.
    #[must_use]
    pub(crate) fn marking(mut self, mark: impl Into<String>) -> Self {
        self.mark = Some(mark.into());
        self
    }

    /// Sets what the user can do.
    #[must_use]
    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where it is.
    pub(crate) fn at(self, ranges: &[LineRange]) -> ParseError {
        let line = ranges.first().map_or(0, |range| range.start);
        let message = match self.names_line {
            true => format!("dockerfile parse error on line {line}: {}", self.message),
            false => self.message,
        };
        ParseError { message, ranges: ranges.to_vec(), mark: self.mark, hint: self.hint }
    }
}
