//! A whole Dockerfile: stages out of lines, with recovery from mistakes and the lint of the file as a whole.
//!
//! In: bytes. Out: a [`Dockerfile`], or every mistake found. Bytes that are not UTF-8 become U+FFFD. After a
//! mistake the next instruction is read; a file that cannot be cut into lines any more ends the search.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

pub use super::directive::{Directive, syntax_directive};
pub use super::error::ParseError;
use super::error::{Problem, UpstreamLines, line_ranges};
use super::goquote::quote;
use super::heredoc;
use super::instruction::{Dockerfile, Instruction, InstructionKind, SourceLine, Stage};
use super::interpret::{FromLine, Raw, Statement, interpret};
use super::lines::{LogicalLine, NO_INSTRUCTIONS, Reader};
use super::lint::{Linter, Rule};
use super::text::{lossy, split_once_blank};

/// Largest Dockerfile, in bytes.
pub const MAX_FILE: usize = 16 << 20;

/// Most mistakes reported of one file; behind them nothing is read.
pub const MAX_ERRORS: usize = 1000;

/// How UTF-16 begins, which some editors and shells write; read as UTF-8 every line of it would be a mistake of its own.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Parses a Dockerfile; warnings go to `lint`, which has none yet, also when there are mistakes.
///
/// Mistakes come as BuildKit would find them, which stops at the first: the shape of all lines is read before what any
/// instruction says.
pub fn parse(name: &str, text: &[u8], lint: &mut Linter) -> Result<Dockerfile, Vec<ParseError>> {
    if text.is_empty() {
        return Err(vec![ParseError::new("the Dockerfile cannot be empty")]);
    }
    if text.len() > MAX_FILE {
        let message = format!("the Dockerfile is larger than {} MiB", MAX_FILE >> 20);
        return Err(vec![ParseError::new(message).hinted("move its content to files and COPY them")]);
    }
    if UTF16_MARKS.iter().any(|mark| text.starts_with(mark)) {
        let hint = "save it as UTF-8, or convert it with `iconv -f UTF-16 -t UTF-8`";
        return Err(vec![ParseError::new("the Dockerfile is UTF-16 text, not UTF-8").hinted(hint)]);
    }
    let bytes = text;
    let text = lossy(bytes);
    let mut file = Assembly::default();
    let escape = file.read(&text, bytes, lint);
    file.finish(name, text, escape, lint)
}

/// Parses a trigger recorded by ONBUILD; places are those of the FROM line.
pub fn parse_onbuild(trigger: &str, from: &SourceLine, lint: &mut Linter) -> Result<Instruction, ParseError> {
    let mut reader = Reader::new(trigger);
    let hint = Some(format!("the base runs this as an ONBUILD trigger: {trigger}"));
    let elsewhere = |error: ParseError| ParseError {
        ranges: from.lines.clone(),
        mark: None,
        hint: hint.clone(),
        message: error.message,
        upstream: None,
    };
    let Some(line) = reader.next_instruction().map_err(elsewhere)? else { return Err(single_expression(from)) };
    let (raw, mut source) = line_to_source(&mut reader, line).map_err(elsewhere)?;
    if reader.next_instruction().map_err(elsewhere)?.is_some() {
        return Err(single_expression(from));
    }
    source.lines.clone_from(&from.lines);
    match interpret(&raw, &source, lint) {
        Ok(Statement::Other(kind)) => Ok(Instruction { source, kind }),
        Ok(Statement::From(_)) => {
            let error = ParseError::new("FROM isn't allowed as an ONBUILD trigger").at(&from.lines);
            Err(error.said_upstream("*instructions.Stage is not a command type"))
        }
        Err(problem) => Err(elsewhere(ParseError::new(problem.message))),
    }
}

fn single_expression(from: &SourceLine) -> ParseError {
    ParseError::new("onbuild trigger should be a single expression").at(&from.lines)
}

/// Splits a line and reads the heredocs it announces.
fn line_to_source(reader: &mut Reader<'_>, line: LogicalLine) -> Result<(Raw, SourceLine), ParseError> {
    let here = reader.ranges_from(line.start);
    let text = line.text.trim();
    let (keyword, _) = split_once_blank(text);
    let mut source = SourceLine {
        lines: here,
        keyword: keyword.to_owned(),
        text: text.to_owned(),
        comments: line.comments,
        heredocs: Vec::new(),
        not_text: line.not_text,
    };
    let raw = Raw::parse(&line.text, reader.escape).map_err(|problem| problem.at(&source.lines))?;
    if raw.may_have_heredocs() && text.contains("<<") {
        let announced = heredoc::in_line(text);
        source.heredocs = announced.map_err(|error| Problem::syntax(error.to_string()).at(&source.lines))?;
        for heredoc in &mut source.heredocs {
            let found = reader.read_heredoc(heredoc);
            if !found.map_err(|error| unread_in_heredoc(error, line.start))? {
                return Err(unterminated(&heredoc.name, reader.ranges_from(line.start)));
            }
        }
        source.lines = reader.ranges_from(line.start);
    }
    Ok((raw, source))
}

/// Where a body cannot be read on, BuildKit finds no end of it.
fn unread_in_heredoc(error: ParseError, start: u32) -> ParseError {
    let last = error.line().saturating_sub(1);
    error.said_upstream("unterminated heredoc").named_upstream(UpstreamLines::These(line_ranges(start, last)))
}

fn unterminated(name: &str, lines: Vec<crate::diag::LineRange>) -> ParseError {
    let hint = match name.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("`<<{name}` is taken as a heredoc; for a shift, write $((a<<{name})) without blanks"),
        false => format!("a line that is just `{name}` must end it"),
    };
    ParseError::new("unterminated heredoc").at(&lines).marking(format!("<<{name}")).hinted(hint)
}

/// A file while it is read.
#[derive(Default)]
struct Assembly {
    meta_args: Vec<Instruction>,
    stages: Vec<Stage>,
    /// Mistakes in the shape of lines: where there is one, it is what fails the build.
    syntax: Vec<ParseError>,
    /// Mistakes in what instructions say.
    errors: Vec<ParseError>,
    /// Last lines of instructions with an empty line between continuations.
    empty_continuations: Vec<u32>,
    /// How many warnings there were before the first mistake in what instructions say.
    warnings: Option<usize>,
    /// Whether an instruction before the first FROM was reported; one report is enough.
    stageless: bool,
}

impl Assembly {
    /// Reads all instructions; returns the escape character.
    fn read(&mut self, text: &str, bytes: &[u8], lint: &mut Linter) -> char {
        const MARK: &str = "\u{feff}";
        let text = text.strip_prefix(MARK).unwrap_or(text);
        let mut reader = Reader::of_bytes(text, bytes.strip_prefix(MARK.as_bytes()).unwrap_or(bytes));
        let mut found = false;
        while self.errors.len() + self.syntax.len() < MAX_ERRORS {
            match reader.next_instruction() {
                Ok(None) => break,
                Ok(Some(line)) => {
                    found = true;
                    self.instruction(&mut reader, line, lint);
                }
                Err(error) => {
                    found = true;
                    self.syntax.push(error);
                }
            }
        }
        if !found {
            let last = reader.number().max(1);
            self.syntax
                .push(ParseError::new(NO_INSTRUCTIONS).at(&line_ranges(last, last)).hinted("begin with `FROM IMAGE`"));
        }
        reader.escape
    }

    fn instruction(&mut self, reader: &mut Reader<'_>, line: LogicalLine, lint: &mut Linter) {
        if line.empty_continuation {
            self.empty_continuations.push(reader.number());
        }
        let (keyword, text) = (split_once_blank(line.text.trim()).0.to_owned(), line.text.clone());
        let (raw, source) = match line_to_source(reader, line) {
            Ok(parts) => parts,
            Err(error) => {
                self.begin_stage_anyway(&keyword, &error, text);
                self.syntax.push(error);
                return;
            }
        };
        match interpret(&raw, &source, lint) {
            Ok(Statement::From(from)) => self.stages.push(stage(from, source)),
            Ok(Statement::Other(kind)) => self.add(Instruction { source, kind }, lint),
            Err(problem) => {
                let error = problem.at(&source.lines);
                self.begin_stage_anyway(&keyword, &error, source.text);
                self.reject(error, lint);
            }
        }
    }

    /// A FROM that has a mistake still begins a stage, so that what follows it is not blamed.
    fn begin_stage_anyway(&mut self, keyword: &str, error: &ParseError, text: String) {
        if keyword.eq_ignore_ascii_case("from") {
            let source = SourceLine { lines: error.ranges.clone(), text, ..SourceLine::default() };
            self.stages.push(stage(FromLine::default(), source));
        }
    }

    /// Notes a mistake in what an instruction says; warnings behind the first of them are not wanted.
    fn reject(&mut self, error: ParseError, lint: &Linter) {
        self.warnings.get_or_insert(lint.warnings.len());
        self.errors.push(error);
    }

    fn add(&mut self, instruction: Instruction, lint: &Linter) {
        match (self.stages.last_mut(), &instruction.kind) {
            (Some(stage), _) => stage.instructions.push(instruction),
            (None, InstructionKind::Arg(_)) => self.meta_args.push(instruction),
            (None, _) if !self.stageless => {
                self.stageless = true;
                let error = ParseError::new("no build stage in current context")
                    .at(&instruction.source.lines)
                    .marking(instruction.source.keyword.as_str())
                    .hinted("begin with `FROM image`; only ARG may stand before it");
                self.reject(error, lint);
            }
            (None, _) => {}
        }
    }

    /// Leaves the warnings found before the build fails: none if a line has no shape, and those about lines come first.
    fn settle_warnings(&mut self, lint: &mut Linter) {
        if !self.syntax.is_empty() {
            lint.warnings.clear();
            return;
        }
        let mut meant = std::mem::take(&mut lint.warnings);
        meant.truncate(self.warnings.unwrap_or(usize::MAX));
        for line in &self.empty_continuations {
            lint.file(Rule::NoEmptyContinuation, &line_ranges(*line, *line), "Empty continuation line");
        }
        lint.warnings.append(&mut meant);
    }

    fn finish(
        mut self,
        name: &str,
        text: Cow<'_, str>,
        escape: char,
        lint: &mut Linter,
    ) -> Result<Dockerfile, Vec<ParseError>> {
        self.settle_warnings(lint);
        if self.errors.is_empty() && self.syntax.is_empty() && self.stages.is_empty() {
            let hint = "add `FROM image`, or `FROM scratch` for an empty base";
            self.errors.push(ParseError::new("dockerfile contains no stages to build").hinted(hint));
        }
        if !self.errors.is_empty() || !self.syntax.is_empty() {
            self.syntax.sort_by_key(ParseError::line);
            self.errors.sort_by_key(ParseError::line);
            self.syntax.append(&mut self.errors);
            return Err(self.syntax);
        }
        lint_stage_names(&self.stages, lint);
        lint_casing(&self.stages, lint);
        let text = Arc::from(text.as_ref());
        Ok(Dockerfile { name: name.to_owned(), text, escape, meta_args: self.meta_args, stages: self.stages })
    }
}

fn stage(from: FromLine, source: SourceLine) -> Stage {
    Stage {
        name: from.name.to_lowercase(),
        original_name: from.name,
        base: from.base,
        platform: from.platform,
        source,
        instructions: Vec::new(),
    }
}

fn lint_stage_names(stages: &[Stage], lint: &mut Linter) {
    let mut seen = BTreeSet::new();
    for stage in stages.iter().filter(|stage| !stage.name.is_empty()) {
        let name = quote(&stage.name);
        if matches!(stage.name.as_str(), "context" | "scratch") {
            let message = format!("Stage name should not use the same name as reserved stage {name}");
            lint.file(Rule::ReservedStageName, &stage.source.lines, message);
        }
        if !seen.insert(stage.name.as_str()) {
            let message = format!("Duplicate stage name {name}, stage names should be unique");
            lint.file(Rule::DuplicateStageName, &stage.source.lines, message);
        }
    }
}

fn lint_casing(stages: &[Stage], lint: &mut Linter) {
    let sources = || {
        stages.iter().flat_map(|stage| {
            std::iter::once(&stage.source).chain(stage.instructions.iter().map(|instruction| &instruction.source))
        })
    };
    let is_lower = |source: &&SourceLine| source.keyword == source.keyword.to_lowercase();
    let is_upper = |source: &&SourceLine| source.keyword == source.keyword.to_uppercase();
    let lower_wins = sources().filter(is_lower).count() > sources().filter(is_upper).count();
    let majority = if lower_wins { "lowercase" } else { "uppercase" };
    for source in sources().filter(|source| if lower_wins { !is_lower(source) } else { !is_upper(source) }) {
        let message =
            format!("Command '{}' should match the case of the command majority ({majority})", source.keyword);
        lint.file(Rule::ConsistentInstructionCasing, &source.lines, message);
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
