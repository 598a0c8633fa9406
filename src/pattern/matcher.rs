//! Lists of patterns, the last that matches deciding: .dockerignore, `--exclude`, `--parents`.
//!
//! In: patterns, `!` in front of those that take back, and slash-separated paths. Out: whether a path is matched. A
//! pattern matches a path if it matches it or one of its parents. Whoever walks a tree passes each directory's
//! [`MatchInfo`] on to what is in it, so that no parent is matched twice.

use super::go;
use super::path::clean;
use super::segments::Compiled;
use crate::diag::{Diagnose, Kind};

/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 4096;

/// Most patterns of a list.
pub const MAX_PATTERNS: usize = 100_000;

/// Why a list of patterns is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A lone `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    IllegalExclusion,
    /// A pattern is malformed.
    #[error("syntax error in pattern: {pattern}")]
    Syntax {
        /// The pattern.
        pattern: String,
    },
    /// A pattern is longer than [`MAX_PATTERN`].
    #[error("pattern is longer than {MAX_PATTERN} bytes: {start}…")]
    TooLong {
        /// How it begins.
        start: String,
    },
    /// There are more patterns than [`MAX_PATTERNS`].
    #[error("there are {count} patterns, and the limit is {MAX_PATTERNS}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

impl Diagnose for PatternError {
    fn kind(&self) -> Kind {
        Kind::Dockerfile
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::IllegalExclusion => vec!["write a pattern behind the `!`".to_owned()],
            Self::Syntax { .. } => vec!["write a literal [ or \\ with a \\ before it".to_owned()],
            Self::TooLong { .. } | Self::TooMany { .. } => Vec::new(),
        }
    }
}

/// A list of patterns.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// Where it stands in the list the matcher was built from.
    index: usize,
    takes_back: bool,
    compiled: Compiled,
}

/// Which patterns matched a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchInfo {
    matched: Vec<bool>,
}

impl Matcher {
    /// Compiles patterns; empty ones are ignored.
    pub fn new(patterns: &[String]) -> Result<Self, PatternError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(PatternError::TooMany { count: patterns.len() });
        }
        let mut rules = Vec::new();
        for (index, pattern) in patterns.iter().enumerate() {
            rules.extend(Rule::new(index, pattern.trim())?);
        }
        Ok(Self { rules })
    }

    /// Tells whether a pattern takes back what others match.
    pub fn has_exclusions(&self) -> bool {
        self.rules.iter().any(|rule| rule.takes_back)
    }

    /// Tells whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Tells whether a path, or a parent of it, is matched and not taken back.
    pub fn matches_or_parent(&self, path: &str) -> bool {
        self.deciding(path).is_some_and(|rule| !rule.takes_back)
    }

    /// Returns which pattern of the list decided about a path, whether it matches or takes back.
    pub fn last_rule(&self, path: &str) -> Option<usize> {
        self.deciding(path).map(|rule| rule.index)
    }

    fn deciding(&self, path: &str) -> Option<&Rule> {
        let mut last: Option<&Rule> = None;
        for rule in &self.rules {
            let matched = last.is_some_and(|rule| !rule.takes_back);
            if rule.takes_back == matched && rule.compiled.matches_or_parent(path) {
                last = Some(rule);
            }
        }
        last
    }

    /// Tells the same with what is known of the parent; the default [`MatchInfo`] says nothing is known.
    pub fn matches_with(&self, path: &str, parent: &MatchInfo) -> (bool, MatchInfo) {
        let known = (!parent.matched.is_empty()).then_some(&parent.matched);
        let mut matched = false;
        let mut info = MatchInfo { matched: vec![false; self.rules.len()] };
        for (at, rule) in self.rules.iter().enumerate() {
            let from_parent = known.is_some_and(|known| known.get(at).copied().unwrap_or(false));
            let hit = from_parent
                || rule.takes_back == matched
                    && match known {
                        Some(_) => rule.compiled.matches(path),
                        None => rule.compiled.matches_or_parent(path),
                    };
            info.matched[at] = hit;
            if hit {
                matched = !rule.takes_back;
            }
        }
        (matched, info)
    }
}

impl Rule {
    fn new(index: usize, pattern: &str) -> Result<Option<Self>, PatternError> {
        if pattern.is_empty() {
            return Ok(None);
        }
        if pattern.len() > MAX_PATTERN {
            return Err(PatternError::TooLong { start: pattern.chars().take(40).collect() });
        }
        let cleaned = clean(pattern);
        let (takes_back, pattern) = match cleaned.strip_prefix('!') {
            Some("") => return Err(PatternError::IllegalExclusion),
            Some(rest) => (true, rest),
            None => (false, cleaned.as_str()),
        };
        go::check(pattern).map_err(|_| PatternError::Syntax { pattern: pattern.to_owned() })?;
        Ok(Some(Self { index, takes_back, compiled: Compiled::new(pattern) }))
    }
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
