//! Why a Dockerfile could not be lowered.
//!
//! In: messages from parsing, expansion and dispatch. Out: one [`FrontendError`] with all problems, their places, and the
//! warnings found before it.

use std::sync::Arc;

use super::bridge::BridgeError;
use crate::diag::{Diagnose, Diagnostic, Kind, LineRange, Location};
use crate::dockerfile::error::{ParseError, Upstream, UpstreamLines};
use crate::dockerfile::lint::LintWarning;
use crate::dockerfile::mount::MountError;
use crate::dockerfile::word::WordError;
use crate::image::reference::ReferenceError;
use crate::pattern::PatternError;
use crate::pattern::go::BadPattern;

/// What is wrong with a request; several problems only where the parser could go on after the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.iter().map(|p| p.message.as_str()).collect::<Vec<_>>().join("\n"))]
pub struct FrontendError {
    /// The problems, at least one.
    pub problems: Vec<Problem>,
    /// Name and text of the Dockerfile, where it could be read as text.
    pub dockerfile: Option<(String, Arc<str>)>,
    /// Warnings found before.
    pub warnings: Vec<LintWarning>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of failure it is.
    pub kind: Kind,
    /// The message.
    pub message: String,
    /// The lines it points to.
    pub ranges: Vec<LineRange>,
    /// The offending words on the first of them.
    pub mark: Option<String>,
    /// What the user can do.
    pub hints: Vec<String>,
    /// Where BuildKit tells it otherwise.
    pub upstream: Option<Box<Upstream>>,
}

impl Problem {
    /// Makes a problem of the Dockerfile, with no place yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Dockerfile,
            message: message.into(),
            ranges: Vec::new(),
            mark: None,
            hints: Vec::new(),
            upstream: None,
        }
    }

    /// Makes a problem of a text that names no image, with words to go before.
    pub(super) fn of_reference(doing: &str, error: &ReferenceError) -> Self {
        Self::new(format!("{doing}: {error}")).said_upstream(format!("{doing}: {}", error.buildkit_message()))
    }

    /// Makes a problem of an option the caller gave.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(message) }
    }

    /// Adds lines it points to.
    #[must_use]
    pub fn at(mut self, ranges: &[LineRange]) -> Self {
        self.ranges.extend_from_slice(ranges);
        self
    }

    /// Points to `ranges` and nowhere else, as BuildKit does.
    #[must_use]
    pub fn only_at(mut self, ranges: Vec<LineRange>) -> Self {
        self.ranges = ranges;
        self.upstream.get_or_insert_default().lines = UpstreamLines::Same;
        self
    }

    /// Points to `ranges` unless it already points somewhere.
    #[must_use]
    pub fn at_if_nowhere(self, ranges: &[LineRange]) -> Self {
        if self.ranges.is_empty() { self.at(ranges) } else { self }
    }

    /// Sets the offending words.
    #[must_use]
    pub fn marking(mut self, words: impl Into<String>) -> Self {
        self.mark = Some(words.into());
        self
    }

    /// Says that BuildKit names no line for it.
    #[must_use]
    pub fn unplaced_upstream(mut self) -> Self {
        self.upstream.get_or_insert_default().lines = UpstreamLines::None;
        self
    }

    /// Sets what BuildKit says.
    #[must_use]
    pub fn said_upstream(mut self, message: impl Into<String>) -> Self {
        self.upstream.get_or_insert_default().message = Some(message.into());
        self
    }

    /// Sets what BuildKit says before what it says already.
    #[must_use]
    pub fn prefixed_upstream(self, prefix: &str) -> Self {
        let message = format!("{prefix}{}", self.buildkit_message());
        self.said_upstream(message)
    }

    /// Returns the numbers of the lines BuildKit names for it.
    pub fn buildkit_lines(&self) -> Vec<u32> {
        self.upstream.clone().unwrap_or_default().numbers(&self.ranges)
    }

    /// Returns the message BuildKit has for it.
    pub fn buildkit_message(&self) -> &str {
        self.upstream.as_ref().and_then(|upstream| upstream.message.as_deref()).unwrap_or(&self.message)
    }

    /// Adds a hint.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl From<BridgeError> for Problem {
    fn from(error: BridgeError) -> Self {
        Self { kind: error.kind, hints: error.hints, ..Self::new(error.message) }
    }
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        let hints = error.hint.into_iter().collect();
        Self { ranges: error.ranges, mark: error.mark, hints, upstream: error.upstream, ..Self::new(error.message) }
    }
}

impl From<WordError> for Problem {
    fn from(error: WordError) -> Self {
        let upstream = error.buildkit_message().map(Upstream::saying);
        Self { hints: error.hints(), mark: Some(error.input.clone()), upstream, ..Self::new(error.to_string()) }
    }
}

impl From<PatternError> for Problem {
    fn from(error: PatternError) -> Self {
        let unnamed = matches!(error, PatternError::Syntax { .. }).then(|| BadPattern.to_string());
        let upstream = unnamed.map(Upstream::saying);
        Self { upstream, ..Self::new(error.to_string()) }
    }
}

impl From<MountError> for Problem {
    fn from(error: MountError) -> Self {
        Self { hints: error.hints(), mark: error.mark(), ..Self::new(error.to_string()) }
    }
}

impl From<Problem> for FrontendError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], dockerfile: None, warnings: Vec::new() }
    }
}

impl FrontendError {
    /// Turns it into what the user sees: one problem after the other, each with its place and its hints.
    pub fn into_diagnostic(self) -> Diagnostic {
        let place = |problem: &Problem| -> Option<Location> {
            let (file, text) = self.dockerfile.clone().filter(|_| !problem.ranges.is_empty())?;
            Some(Location { file, text, ranges: problem.ranges.clone(), mark: problem.mark.clone() })
        };
        let told = |problem: &Problem| Diagnostic {
            locations: place(problem).into_iter().collect(),
            hints: problem.hints.clone(),
            ..Diagnostic::new(problem.kind, problem.message.clone())
        };
        let mut problems: Vec<&Problem> = self.problems.iter().collect();
        problems.sort_by_key(|problem| problem.ranges.first().map(|range| range.start));
        let mut diagnostics = problems.into_iter().map(told);
        let first = diagnostics.next().unwrap_or_else(|| Diagnostic::new(Kind::Dockerfile, "invalid Dockerfile"));
        Diagnostic { further: diagnostics.collect(), ..first }
    }
}

impl Diagnose for FrontendError {
    fn kind(&self) -> Kind {
        self.problems.first().map_or(Kind::Dockerfile, |p| p.kind)
    }

    fn hints(&self) -> Vec<String> {
        self.problems.iter().flat_map(|p| p.hints.iter().cloned()).collect()
    }

    fn locations(&self) -> Vec<Location> {
        let Some((file, text)) = &self.dockerfile else { return Vec::new() };
        let placed = self.problems.iter().filter(|p| !p.ranges.is_empty());
        placed
            .map(|p| Location {
                file: file.clone(),
                text: text.clone(),
                ranges: p.ranges.clone(),
                mark: p.mark.clone(),
            })
            .collect()
    }
}
