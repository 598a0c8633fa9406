//! The linter: which warnings are wanted, and those found so far.
//!
//! In: findings of the parser and of the frontend. Out: [`LintWarning`]s, in the order of discovery, and, where
//! `error=true` asks for it, the message that fails the build.

use std::collections::BTreeSet;

pub use super::check::CheckOptions;
use super::check::RuleSet;
use super::instruction::SourceLine;
pub use super::rule::Rule;
use crate::diag::LineRange;

/// A warning about a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintWarning {
    /// The rule.
    pub rule: Rule,
    /// What it found.
    pub message: String,
    /// The lines meant.
    pub lines: Vec<LineRange>,
}

impl LintWarning {
    /// Returns the line shown as progress: rule, message, first line.
    pub fn summary(&self) -> String {
        match self.lines.first().filter(|range| range.start > 0) {
            Some(range) => format!("{}: {} (line {})", self.rule.name(), self.message, range.start),
            None => format!("{}: {}", self.rule.name(), self.message),
        }
    }
}

/// Collects the warnings that the options let through.
#[derive(Debug, Clone, Default)]
pub struct Linter {
    /// Options of the whole file.
    pub config: CheckOptions,
    /// What was found, in order.
    pub warnings: Vec<LintWarning>,
}

impl Linter {
    /// Builds a linter.
    pub fn new(config: CheckOptions) -> Self {
        Self { config, warnings: Vec::new() }
    }

    /// Builds one whose findings are not wanted, and fail nothing: on other platforms than the first the same ones come again.
    pub fn unheard() -> Self {
        Self::new(CheckOptions { skip: RuleSet::all(), ..CheckOptions::default() })
    }

    /// Records a finding about the file, unless the rule is off.
    pub fn file(&mut self, rule: Rule, lines: &[LineRange], message: impl Into<String>) {
        self.located(rule, &[], lines, message);
    }

    /// Records a finding about an instruction, unless the rule is off for the file or in the comments above it.
    pub fn instruction(&mut self, rule: Rule, source: &SourceLine, message: impl Into<String>) {
        self.located(rule, &source.comments, &source.lines, message);
    }

    /// Records a finding under the comments of one instruction and the lines of another.
    pub fn located(&mut self, rule: Rule, comments: &[String], lines: &[LineRange], message: impl Into<String>) {
        if self.wants(rule, comments) {
            self.warnings.push(LintWarning { rule, message: message.into(), lines: lines.to_vec() });
        }
    }

    /// Tells whether a rule is on below these comments; what they say comes on top of what the file says.
    fn wants(&self, rule: Rule, comments: &[String]) -> bool {
        let local = CheckOptions::of_comments(comments);
        match rule.is_experimental() {
            true => self.config.experimental.contains(rule) || local.experimental.contains(rule),
            false => !self.config.skip.contains(rule) && !local.skip.contains(rule),
        }
    }

    /// Returns the message that fails the build under `error=true`, or none.
    pub fn violation(&self) -> Option<String> {
        if !self.config.error || self.warnings.is_empty() {
            return None;
        }
        let names: BTreeSet<&str> = self.warnings.iter().map(|warning| warning.rule.name()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        Some(format!("lint violation found for rules: {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(comments: &[&str]) -> SourceLine {
        SourceLine { comments: comments.iter().map(|c| (*c).to_owned()).collect(), ..SourceLine::default() }
    }

    #[test]
    fn comments_add_to_the_options_of_the_file() {
        let mut linter = Linter::new(CheckOptions::parse("skip=UndefinedVar").expect("valid"));
        linter.instruction(Rule::UndefinedVar, &source(&[]), "a");
        linter.instruction(Rule::LegacyKeyValueFormat, &source(&["x", "check=skip=LegacyKeyValueFormat // why"]), "b");
        linter.instruction(Rule::LegacyKeyValueFormat, &source(&["check=nonsense"]), "c");
        linter.instruction(Rule::InvalidDefinitionDescription, &source(&["check=skip=all"]), "d");
        linter.instruction(Rule::InvalidDefinitionDescription, &source(&["check=experimental=all"]), "e");
        let messages: Vec<&str> = linter.warnings.iter().map(|w| w.message.as_str()).collect();
        assert_eq!(messages, ["c", "e"]);
    }

    #[test]
    fn violation_names_each_rule_once() {
        let mut linter = Linter::new(CheckOptions::parse("error=true").expect("valid"));
        assert_eq!(linter.violation(), None);
        linter.file(Rule::UndefinedVar, &[], "a");
        linter.file(Rule::StageNameCasing, &[], "b");
        linter.file(Rule::UndefinedVar, &[], "c");
        assert_eq!(
            linter.violation().as_deref(),
            Some("lint violation found for rules: StageNameCasing, UndefinedVar")
        );
    }

    #[test]
    fn summary_names_the_line() {
        let lines = vec![LineRange { start: 3, end: 3 }];
        let warning = LintWarning { rule: Rule::UndefinedVar, message: "m".into(), lines };
        assert_eq!(warning.summary(), "UndefinedVar: m (line 3)");
    }
}
