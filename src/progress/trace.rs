//! What the displays for people know of a build so far: steps in the order they first started, their parts, lines and ends.
//!
//! In: events in any order. Out: the state to draw from. Invariant: all text kept here is fit to be shown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::event::{Event, Log, Status, Stream, Vertex, Warning};
use super::sanitize::{self, Colors, Sanitizer};
use super::{Commands, DisplayOptions, WarningDetail, units};
use crate::diag::{self, Location};
use crate::digest::Digest;

/// How many of a step's last lines are told again when it failed.
const TAIL_LINES: usize = 10;
/// Bytes after which a line is broken, so that output without newlines does not pile up.
const LONGEST_LINE: usize = 64 << 10;

/// What an error of a step ends with that was stopped only because another failed.
const CANCELED: &str = "canceled";

/// One line of a step's output.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Time since the step started when the line began.
    pub(super) at: Duration,
    pub(super) text: String,
}

/// One stream of a step: the sanitiser and the line that is not yet whole.
#[derive(Debug)]
struct Output {
    sanitizer: Sanitizer,
    line: String,
    began: Duration,
}

/// A part of a step.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) updated: bool,
    /// Amount and time when it was last printed.
    pub(super) printed: Option<(u64, SystemTime)>,
}

/// A step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) started: Option<SystemTime>,
    pub(super) completed: Option<SystemTime>,
    pub(super) cached: bool,
    pub(super) error: String,
    /// Number in the plain display, given when it is first printed.
    pub(super) number: Option<usize>,
    pub(super) parts: Vec<Part>,
    /// Warnings not yet printed.
    pub(super) warnings: Vec<String>,
    /// Lines not yet printed, and how long they are together.
    fresh: Vec<Line>,
    pub(super) unprinted: usize,
    /// The last lines.
    pub(super) tail: VecDeque<Line>,
    outputs: [Option<Output>; 2],
    /// Time spent in earlier runs of the same step.
    before: Duration,
    /// Since when events wait to be printed, and how many do.
    pub(super) waiting_since: Option<SystemTime>,
    pub(super) waiting: usize,
}

/// The state of a build.
#[derive(Debug)]
pub(super) struct Trace {
    options: DisplayOptions,
    pub(super) steps: Vec<Step>,
    by_digest: BTreeMap<Digest, usize>,
    /// Steps with something to print.
    pub(super) updates: BTreeSet<usize>,
    /// Started steps, in that order.
    pub(super) order: Vec<usize>,
    warnings: Vec<Warning>,
    /// The newest time that any event told.
    pub(super) now: SystemTime,
    pub(super) begun: Option<SystemTime>,
}

impl Step {
    fn new(name: String) -> Self {
        Self {
            name,
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
            number: None,
            parts: Vec::new(),
            warnings: Vec::new(),
            fresh: Vec::new(),
            unprinted: 0,
            tail: VecDeque::new(),
            outputs: [None, None],
            before: Duration::ZERO,
            waiting_since: None,
            waiting: 0,
        }
    }

    /// Returns whether it ran to an end and was not started again.
    pub(super) fn is_completed(&self) -> bool {
        self.started.is_some() && self.completed.is_some()
    }

    /// Returns whether it was stopped because another failed.
    pub(super) fn is_canceled(&self) -> bool {
        self.error.ends_with(CANCELED)
    }

    /// Returns whether it failed by itself.
    pub(super) fn has_failed(&self) -> bool {
        !self.error.is_empty() && !self.is_canceled()
    }

    /// Returns how long it has run, all runs together.
    pub(super) fn duration(&self, now: SystemTime) -> Duration {
        let current = self.started.map(|start| units::elapsed(start, self.completed.unwrap_or(now)));
        self.before + current.unwrap_or_default()
    }

    fn push_line(&mut self, line: Line) {
        self.tail.push_back(line.clone());
        if self.tail.len() > TAIL_LINES {
            self.tail.pop_front();
        }
        self.unprinted += line.text.len();
        self.fresh.push(line);
    }

    /// Returns the lines not yet printed, which then are.
    pub(super) fn take_fresh(&mut self) -> Vec<Line> {
        self.unprinted = 0;
        std::mem::take(&mut self.fresh)
    }

    fn log(&mut self, log: &Log, colors: Colors) {
        let at = units::elapsed(self.started.unwrap_or(log.timestamp), log.timestamp);
        let slot = &mut self.outputs[usize::from(log.stream == Stream::Stderr)];
        let output =
            slot.get_or_insert_with(|| Output { sanitizer: Sanitizer::new(colors), line: String::new(), began: at });
        let text = output.sanitizer.push(&log.data);
        let mut whole = Vec::new();
        for piece in text.split_inclusive('\n') {
            if output.line.is_empty() {
                output.began = at;
            }
            output.line.push_str(piece);
            if piece.ends_with('\n') || output.line.len() > LONGEST_LINE {
                output.line.truncate(output.line.trim_end_matches('\n').len());
                whole.push(Line { at: output.began, text: std::mem::take(&mut output.line) });
            }
        }
        for line in whole {
            self.push_line(line);
        }
    }

    /// Gives out lines that never got their newline: the step is over.
    fn flush(&mut self) {
        for slot in 0..self.outputs.len() {
            let Some(mut output) = self.outputs[slot].take() else { continue };
            output.line.push_str(&output.sanitizer.finish());
            if !output.line.is_empty() {
                self.push_line(Line { at: output.began, text: output.line });
            }
        }
    }
}

impl Trace {
    pub(super) fn new(options: DisplayOptions) -> Self {
        Self {
            options,
            steps: Vec::new(),
            by_digest: BTreeMap::new(),
            updates: BTreeSet::new(),
            order: Vec::new(),
            warnings: Vec::new(),
            now: SystemTime::UNIX_EPOCH,
            begun: None,
        }
    }

    /// Takes an event.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Vertex(vertex) => self.vertex(vertex),
            Event::Status(status) => self.status(status),
            Event::Log(log) => self.log(log),
            Event::Warning(warning) => self.warning(warning),
        }
    }

    /// Returns a foreign text as it can stand inside a line.
    pub(super) fn shown(&self, text: &str) -> String {
        self.defused(sanitize::escape(text))
    }

    /// Returns a line that no runner takes for a command.
    pub(super) fn defused(&self, line: String) -> String {
        match self.options.commands {
            Commands::Defuse => sanitize::defuse_commands(&line),
            Commands::PassOn => line,
        }
    }

    fn advance(&mut self, time: SystemTime) {
        self.now = self.now.max(time);
    }

    fn touch(&mut self, index: usize) {
        self.updates.insert(index);
        let now = self.now;
        let step = &mut self.steps[index];
        step.waiting_since.get_or_insert(now);
        step.waiting += 1;
    }

    fn vertex(&mut self, vertex: &Vertex) {
        let name = self.shown(&vertex.name);
        let index = *self.by_digest.entry(vertex.digest.clone()).or_insert_with(|| {
            self.steps.push(Step::new(String::new()));
            self.steps.len() - 1
        });
        for time in [vertex.started, vertex.completed].into_iter().flatten() {
            self.advance(time);
        }
        let error = self.shown(&vertex.error);
        let step = &mut self.steps[index];
        let Some(started) = vertex.started else {
            // A step that is only announced again keeps what is known of it.
            if step.started.is_none() {
                (step.name, step.error, step.cached) = (name, error, vertex.cached);
            }
            return;
        };
        if step.started.is_none() {
            self.order.push(index);
            self.begun.get_or_insert(started);
        } else if step.started != Some(started) && step.completed.is_some() {
            step.before = step.duration(self.now);
        }
        let before = (step.started, step.completed, step.cached);
        let changed =
            before != (Some(started), vertex.completed, vertex.cached) || step.error != error || step.name != name;
        (step.started, step.completed, step.cached) = (Some(started), vertex.completed, vertex.cached);
        (step.name, step.error) = (name, error);
        if vertex.completed.is_some() {
            step.flush();
        }
        if changed {
            self.touch(index);
        }
    }

    fn status(&mut self, status: &Status) {
        let Some(&index) = self.by_digest.get(&status.vertex) else { return };
        self.advance(status.timestamp);
        let id = self.shown(&status.id);
        let parts = &mut self.steps[index].parts;
        match parts.iter_mut().find(|part| part.status.id == status.id) {
            Some(part) => (part.status, part.updated) = (status.clone(), true),
            None => parts.push(Part { id, status: status.clone(), updated: true, printed: None }),
        }
        self.touch(index);
    }

    fn log(&mut self, log: &Log) {
        let Some(&index) = self.by_digest.get(&log.vertex) else { return };
        self.advance(log.timestamp);
        let colors = self.options.colors;
        self.steps[index].log(log, colors);
        self.touch(index);
    }

    fn warning(&mut self, warning: &Warning) {
        self.warnings.push(warning.clone());
        let Some(&index) = self.by_digest.get(&warning.vertex) else { return };
        let text = self.shown(&warning.short);
        self.steps[index].warnings.push(text);
        self.touch(index);
    }

    /// Tells the last lines of each failed step once more.
    pub(super) fn failures(&mut self, out: &mut String) {
        for index in self.order.clone() {
            self.steps[index].flush();
            let step = &self.steps[index];
            // Of one that printed nothing, all is said already.
            if !step.has_failed() || step.tail.is_empty() {
                continue;
            }
            let _ = writeln!(out, "------\n > {}:", step.name);
            for line in &step.tail {
                let _ = writeln!(out, "{} {}", units::log_time(line.at), self.defused(line.text.clone()));
            }
            out.push_str("------\n");
        }
    }

    /// Lists all warnings.
    pub(super) fn all_warnings(&self, out: &mut String) {
        match self.warnings.len() {
            0 => return,
            1 => out.push_str("\n 1 warning found:\n"),
            count => {
                let _ = writeln!(out, "\n {count} warnings found:");
            }
        }
        for warning in &self.warnings {
            let _ = writeln!(out, " - {}", self.shown(&warning.short));
            if self.options.warnings == WarningDetail::Full {
                self.explain(warning, out);
            }
        }
    }

    fn explain(&self, warning: &Warning, out: &mut String) {
        for text in warning.detail.iter().chain(std::iter::once(&warning.url)).filter(|text| !text.is_empty()) {
            let _ = writeln!(out, "   {}", self.shown(text));
        }
        if warning.file.is_empty() || warning.ranges.is_empty() {
            return;
        }
        let location = Location {
            file: warning.file.clone(),
            text: Arc::clone(&warning.text),
            ranges: warning.ranges.clone(),
            mark: None,
        };
        for line in diag::excerpt(&location).lines() {
            // Tabs of the file are worth keeping: they are part of its layout.
            let shown = line.split('\t').map(|piece| self.shown(piece)).collect::<Vec<_>>().join("\t");
            let _ = writeln!(out, "{shown}");
        }
    }
}
