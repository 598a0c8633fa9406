//! One mistake in a Dockerfile: what, where, and what to type instead.
//!
//! In: the errors of the grammars. Out: [`ParseError`]s, which the frontend shows with the lines they point to.

use std::collections::BTreeSet;

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
    /// Where BuildKit tells it otherwise.
    pub upstream: Upstream,
}

/// How BuildKit tells a mistake where it does not tell it as we do: a kind of mistake has one of these.
///
/// We name the line a mistake is on; BuildKit names another one, or none, for some kinds. What it would say is known here
/// alone, so that the two can be compared without leeway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upstream {
    /// The lines it names.
    pub lines: UpstreamLines,
    /// Its message, where ours is another.
    pub message: Option<String>,
}

/// Which lines BuildKit names for a mistake.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UpstreamLines {
    /// The same.
    #[default]
    Same,
    /// The line before, 0 for the first: directives and what cannot be read as a line fail before the line is counted.
    Before,
    /// None: what is wrong with options, references or the definition as a whole carries no place.
    None,
    /// These: an instruction that ends at a line that cannot be read is told of first.
    These(Vec<LineRange>),
}

impl Upstream {
    /// Returns the numbers BuildKit gives, in order and each once, where we name `own`.
    pub fn numbers(&self, own: &[LineRange]) -> Vec<u32> {
        let all = |ranges: &[LineRange]| -> BTreeSet<u32> { ranges.iter().flat_map(|r| r.start..=r.end).collect() };
        let numbers = match &self.lines {
            UpstreamLines::Same => all(own),
            UpstreamLines::Before => all(own).into_iter().map(|line| line.saturating_sub(1)).collect(),
            UpstreamLines::None => BTreeSet::new(),
            UpstreamLines::These(ranges) => all(ranges),
        };
        numbers.into_iter().collect()
    }
}

impl ParseError {
    /// Builds an error about the file as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ranges: Vec::new(), mark: None, hint: None, upstream: Upstream::default() }
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

    /// Sets which lines BuildKit names.
    #[must_use]
    pub fn named_upstream(mut self, lines: UpstreamLines) -> Self {
        self.upstream.lines = lines;
        self
    }

    /// Sets what BuildKit says.
    #[must_use]
    pub fn said_upstream(mut self, message: impl Into<String>) -> Self {
        self.upstream.message = Some(message.into());
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
        let upstream = Upstream::default();
        ParseError { message, ranges: ranges.to_vec(), mark: self.mark, hint: self.hint, upstream }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_numbers_follow_from_the_kind() {
        let own = [LineRange { start: 1, end: 1 }, LineRange { start: 3, end: 4 }, LineRange { start: 4, end: 4 }];
        let these = UpstreamLines::These(line_ranges(7, 8));
        for (lines, want) in [
            (UpstreamLines::Same, vec![1, 3, 4]),
            (UpstreamLines::Before, vec![0, 2, 3]),
            (UpstreamLines::None, vec![]),
            (these, vec![7, 8]),
        ] {
            assert_eq!(Upstream { lines, message: None }.numbers(&own), want);
        }
    }
}
