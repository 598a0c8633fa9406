//! Progress as lines, in BuildKit's form:
//!
//! ```text
//! #5 [stage 2/3] RUN make          a step's first lines, or the first after another's
//! #5 0.123 cc -o main main.c       its output, with the time since it started
//! #5 sha256:… 1.05MB / 3.37MB 0.2s a part of it
//! #5 ...                           another step follows before this one ended
//! #5 DONE 1.2s                     or CACHED, CANCELED, ERROR: why
//! ```
//!
//! Steps are numbered as they first appear. Steps run at once, lines come one after another, so one step is shown at a time
//! and the others wait: until it ends, until they waited ten seconds, or until their turn has come by how much they print.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::event::Event;
use super::trace::{Part, Step, Trace};
use super::{DisplayOptions, Painter, units};

/// How long the shown step keeps its place against a single other one as busy as itself.
const ANTI_FLICKER: f64 = 5.0;
/// A step that has waited longer is shown whatever the others do.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// So is one with more output than this, in bytes: what waits is kept in memory.
const MOST_WAITING: usize = 1 << 20;
/// A part is told again after this time …
const PART_INTERVAL: Duration = Duration::from_secs(5);
/// … or this much progress, as a fraction of the whole.
const PART_PROGRESS: f64 = 0.05;

/// The plain display.
#[derive(Debug)]
pub(super) struct Plain {
    trace: Trace,
    current: Option<usize>,
    numbered: usize,
    /// Steps whose end is printed.
    ended: BTreeSet<usize>,
}

impl Plain {
    pub(super) fn new(options: DisplayOptions) -> Self {
        Self { trace: Trace::new(options), current: None, numbered: 0, ended: BTreeSet::new() }
    }

    fn refresh(&mut self, out: &mut String) {
        let before = self.current;
        self.print_completed(out);
        let waiting: Vec<usize> = self.trace.updates.iter().copied().filter(|i| self.is_open(*i)).collect();
        if waiting.is_empty() {
            return self.show_any_open(out);
        }
        if let Some(current) = self.current.filter(|current| waiting.contains(current)) {
            self.print(current, out);
        }
        if let Some(next) = self.turn(&waiting, before) {
            self.print(next, out);
        }
    }

    fn is_open(&self, index: usize) -> bool {
        let step = &self.trace.steps[index];
        step.started.is_some() && !step.is_completed()
    }

    /// Steps that ended come first: the shown one, then the others as they ended.
    fn print_completed(&mut self, out: &mut String) {
        let steps = &self.trace.steps;
        let mut completed: Vec<usize> =
            self.trace.updates.iter().copied().filter(|index| steps[*index].is_completed()).collect();
        completed.sort_by_key(|index| (self.current != Some(*index), steps[*index].completed));
        for index in completed {
            self.print(index, out);
        }
    }

    fn show_any_open(&mut self, out: &mut String) {
        if self.current.is_some_and(|current| self.is_open(current)) {
            return;
        }
        if let Some(open) = self.trace.order.iter().copied().find(|index| self.is_open(*index)) {
            self.print(open, out);
        }
    }

    /// Returns the step to be shown now in place of the current one, if its turn has come.
    fn turn(&self, waiting: &[usize], before: Option<usize>) -> Option<usize> {
        let now = self.trace.now;
        let wait = |index: usize| {
            let since = self.trace.steps[index].waiting_since;
            since.map_or(Duration::ZERO, |since| units::elapsed(since, now))
        };
        let speed = |index: usize| self.trace.steps[index].waiting as f64 / wait(index).as_secs_f64().max(0.001);
        let large = |index: usize| self.trace.steps[index].unprinted > MOST_WAITING;
        let others = waiting.iter().copied().filter(|index| self.current != Some(*index));
        let busiest = others.clone().max_by(|a, b| speed(*a).total_cmp(&speed(*b)))?;
        let Some(current) = self.current.filter(|current| before == Some(*current)) else {
            return if self.current.is_none() { Some(busiest) } else { None };
        };
        if let Some(overdue) = others.clone().find(|index| wait(*index) > LONGEST_WAIT || large(*index)) {
            return Some(overdue);
        }
        let own = speed(current);
        let share = own / (own + others.map(speed).sum::<f64>());
        let turn_over = ANTI_FLICKER / (1.0 - share).max(f64::EPSILON) < wait(current).as_secs_f64();
        turn_over.then_some(busiest)
    }

    fn print(&mut self, index: usize, out: &mut String) {
        if self.print_late_warnings(index, out) {
            return;
        }
        let number = *self.trace.steps[index].number.get_or_insert_with(|| {
            self.numbered += 1;
            self.numbered
        });
        if self.current != Some(index) {
            self.head(index, number, out);
        }
        self.current = Some(index);
        let lines = self.trace.steps[index].take_fresh();
        let step = &mut self.trace.steps[index];
        let open_part = parts(step, number, out);
        for warning in step.warnings.drain(..) {
            let _ = writeln!(out, "#{number} WARN: {warning}");
        }
        for line in lines {
            let _ = writeln!(out, "#{number} {} {}", units::log_time(line.at), self.trace.defused(line.text));
        }
        self.trace.updates.remove(&index);
        let step = &mut self.trace.steps[index];
        if step.is_completed() && !open_part {
            self.current = None;
            (step.waiting, step.waiting_since) = (0, None);
            self.ended.insert(index);
            end(step, number, self.trace.now, out);
        }
    }

    /// A step that has ended is not shown again for a warning that comes after it; returns whether that was all.
    fn print_late_warnings(&mut self, index: usize, out: &mut String) -> bool {
        let step = &mut self.trace.steps[index];
        let late =
            step.is_completed() && self.ended.contains(&index) && !step.warnings.is_empty() && step.unprinted == 0;
        if !late {
            self.ended.remove(&index);
            return false;
        }
        for warning in step.warnings.drain(..) {
            let _ = writeln!(out, "#{} WARN: {warning}", step.number.unwrap_or_default());
        }
        self.trace.updates.remove(&index);
        true
    }

    fn head(&mut self, index: usize, number: usize, out: &mut String) {
        if let Some(old) = self.current {
            let step = &mut self.trace.steps[old];
            (step.waiting, step.waiting_since) = (0, None);
            let _ = writeln!(out, "#{} ...", step.number.unwrap_or_default());
        }
        if self.numbered > 1 || self.current.is_some() {
            out.push('\n');
        }
        let _ = writeln!(out, "#{number} {}", self.trace.steps[index].name);
    }
}

/// Prints the parts that changed enough; returns whether one of them goes on.
fn parts(step: &mut Step, number: usize, out: &mut String) -> bool {
    let mut open = false;
    for part in &mut step.parts {
        if !std::mem::take(&mut part.updated) || !is_news(part) {
            continue;
        }
        let status = &part.status;
        part.printed = Some((status.current, status.timestamp));
        let _ = write!(out, "#{number} {}", part.id);
        let amount = units::amount(status.current, status.total);
        if !amount.is_empty() {
            let _ = write!(out, " {amount}");
        }
        let end = status.completed.unwrap_or(status.timestamp);
        let seconds = status.started.map_or(0.0, |start| units::elapsed(start, end).as_secs_f64());
        if seconds > 0.01 {
            let _ = write!(out, " {seconds:.1}s");
        }
        out.push_str(if status.completed.is_some() { " done\n" } else { "\n" });
        open |= status.completed.is_none();
    }
    open
}

fn is_news(part: &Part) -> bool {
    let Some((amount, time)) = part.printed.filter(|_| part.status.completed.is_none()) else { return true };
    let progress = part.status.current.saturating_sub(amount) as f64 / part.status.total.max(1) as f64;
    let known = part.status.total > 0 && progress >= PART_PROGRESS;
    known || units::elapsed(time, part.status.timestamp) >= PART_INTERVAL
}

fn end(step: &Step, number: usize, now: SystemTime, out: &mut String) {
    let _ = match () {
        () if step.is_canceled() => writeln!(out, "#{number} CANCELED"),
        () if !step.error.is_empty() => writeln!(out, "#{number} ERROR: {}", step.error),
        () if step.cached => writeln!(out, "#{number} CACHED"),
        () => writeln!(out, "#{number} DONE {:.1}s", step.duration(now).as_secs_f64()),
    };
}

impl Painter for Plain {
    fn event(&mut self, event: &Event, out: &mut String) {
        self.trace.event(event);
        self.refresh(out);
    }

    fn tick(&mut self, now: SystemTime, out: &mut String) {
        self.trace.now = self.trace.now.max(now);
        self.refresh(out);
    }

    fn finish(&mut self, out: &mut String) {
        self.refresh(out);
        self.trace.failures(out);
        self.trace.all_warnings(out);
    }
}
