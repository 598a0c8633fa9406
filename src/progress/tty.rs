//! Progress on a terminal: a tree of steps, drawn over itself at each tick.
//!
//! ```text
//! [+] Building 3.2s (4/7)
//!  => CACHED [base 1/2] FROM docker.io/library/alpine            0.0s
//!  => [base 2/2] RUN make                                        3.1s
//!  => => # cc -o main main.c
//! ```
//!
//! Invariants: no line is wider than the terminal, so that moving up by as many lines as were drawn always meets the first;
//! what scrolled out of reach is never drawn again.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::event::Event;
use super::trace::{Step, Trace};
use super::{Colors, DisplayOptions, Painter, units};

/// Most lines of output shown below a running step.
const LOG_LINES: usize = 6;
/// Room below which a name is not worth showing.
const SMALLEST_NAME: usize = 12;

/// The terminal display.
#[derive(Debug)]
pub(super) struct Tty {
    trace: Trace,
    colors: Colors,
    columns: usize,
    rows: usize,
    drawn: usize,
}

/// A line of the tree before it is drawn.
#[derive(Debug)]
struct Row {
    text: String,
    color: &'static str,
    /// Whether what it shows goes on: such rows stay when room is short.
    running: bool,
}

impl Tty {
    pub(super) fn new(options: DisplayOptions) -> Self {
        let (columns, rows) = options.size;
        let colors = options.colors;
        Self { trace: Trace::new(options), colors, columns: columns.into(), rows: rows.into(), drawn: 0 }
    }

    fn draw(&mut self, whole: bool, out: &mut String) {
        if self.trace.begun.is_none() {
            return;
        }
        let mut rows = self.rows(whole);
        if !whole {
            rows = fit(rows, self.rows.saturating_sub(2));
        }
        out.push_str("\x1b[?25l");
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn);
        }
        let _ = write!(out, "\r{}\x1b[K\n", clip(&self.header(whole), self.columns));
        for row in &rows {
            match self.colors {
                Colors::Keep if !row.color.is_empty() => {
                    let _ = writeln!(out, "\x1b[{}m{}\x1b[0m\x1b[K", row.color, row.text);
                }
                _ => {
                    let _ = writeln!(out, "{}\x1b[K", row.text);
                }
            }
        }
        out.push_str("\x1b[J\x1b[?25h");
        self.drawn = rows.len() + 1;
    }

    fn header(&self, whole: bool) -> String {
        let steps = self.trace.steps.iter();
        let (total, completed) = (self.trace.steps.len(), steps.filter(|step| step.is_completed()).count());
        let begun = self.trace.begun.unwrap_or(self.trace.now);
        let seconds = units::elapsed(begun, self.trace.now).as_secs_f64();
        let finished = if whole && completed == total { " FINISHED" } else { "" };
        format!("[+] Building {seconds:.1}s ({completed}/{total}){finished}")
    }

    fn rows(&self, whole: bool) -> Vec<Row> {
        let running = self.trace.order.iter().filter(|index| !self.trace.steps[**index].is_completed()).count();
        // Output is shown only where every running step and the header find room as well.
        let mut room = if whole { 0 } else { self.rows.saturating_sub(2 + running) };
        let mut rows = Vec::new();
        for step in self.trace.order.iter().map(|index| &self.trace.steps[*index]) {
            self.step_rows(step, &mut rows);
            let lines = step.tail.len().min(LOG_LINES);
            if !step.is_completed() && lines > 0 && room > lines {
                room -= lines;
                rows.extend(step.tail.iter().skip(step.tail.len() - lines).map(|line| self.log_row(&line.text)));
            }
        }
        rows
    }

    fn step_rows(&self, step: &Step, rows: &mut Vec<Row>) {
        let (label, color) = match () {
            () if step.is_canceled() => ("CANCELED ", "33"),
            () if !step.error.is_empty() => ("ERROR ", "31"),
            () if step.cached => ("CACHED ", "34"),
            () if step.is_completed() => ("", "34"),
            () => ("", ""),
        };
        let running = !step.is_completed();
        let seconds = step.duration(self.trace.now).as_secs_f64();
        rows.extend(self.row(&format!("{label}{}", step.name), "", seconds).map(|text| Row { text, color, running }));
        for part in &step.parts {
            let Some(started) = part.status.started else { continue };
            let end = part.status.completed.unwrap_or(self.trace.now);
            let seconds = units::elapsed(started, end).as_secs_f64();
            let amount = units::amount(part.status.current, part.status.total);
            let color = if part.status.completed.is_some() { "34" } else { "" };
            let row = self.row(&format!("=> {}", part.id), &amount, seconds);
            rows.extend(row.map(|text| Row { text, color, running: part.status.completed.is_none() && running }));
        }
        for warning in &step.warnings {
            let row = self.row(&format!("WARN: {warning}"), "", 0.0);
            rows.extend(row.map(|text| Row { text, color: "33", running: false }));
        }
    }

    /// One line: the name to the left, amount after it if there is room, the time to the right.
    fn row(&self, name: &str, amount: &str, seconds: f64) -> Option<String> {
        let seconds = if seconds < 0.05 { 0.0 } else { seconds };
        let timer = format!("{seconds:.1}s");
        let left = self.columns.checked_sub(4 + timer.len() + 1)?;
        let shown_amount = if amount.is_empty() || left <= amount.len() + 20 { "" } else { amount };
        let room = left - if shown_amount.is_empty() { 0 } else { shown_amount.len() + 1 };
        if room < SMALLEST_NAME {
            return None;
        }
        let mut text = format!(" => {}", clip(name, room));
        if !shown_amount.is_empty() {
            let _ = write!(text, " {shown_amount}");
        }
        let padding = self.columns.saturating_sub(width(&text) + timer.len());
        Some(format!("{text}{}{timer}", " ".repeat(padding)))
    }

    fn log_row(&self, text: &str) -> Row {
        let text = clip(&format!(" => => # {}", text.replace('\t', " ")), self.columns);
        Row { text, color: "2", running: true }
    }
}

/// Leaves out the oldest rows that are over, then the oldest at all.
fn fit(rows: Vec<Row>, limit: usize) -> Vec<Row> {
    let mut excess = rows.len().saturating_sub(limit);
    let mut kept: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        if excess > 0 && !row.running {
            excess -= 1;
        } else {
            kept.push(row);
        }
    }
    kept.split_off(excess.min(kept.len()))
}

/// The columns a character takes on a terminal.
fn columns(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200d | 0xfe00..=0xfe0f | 0x20d0..=0x20ff => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 => 2,
        0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// Cuts a text to so many columns; colour sequences take none, and are switched off behind a cut.
fn clip(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut used, mut colored) = (0, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            colored = true;
            out.push(c);
            out.extend(chars.by_ref().take_while(|c| *c != 'm'));
            out.push('m');
            continue;
        }
        used += columns(c);
        if used > limit {
            out.push_str(if colored { "\x1b[0m" } else { "" });
            break;
        }
        out.push(c);
    }
    out
}

impl Painter for Tty {
    fn event(&mut self, event: &Event, _out: &mut String) {
        self.trace.event(event);
        // Only the tail is drawn here.
        for step in &mut self.trace.steps {
            drop(step.take_fresh());
        }
    }

    fn tick(&mut self, now: SystemTime, out: &mut String) {
        self.trace.now = self.trace.now.max(now);
        self.draw(false, out);
    }

    fn resize(&mut self, size: (u16, u16)) {
        (self.columns, self.rows) = (size.0.into(), size.1.into());
    }

    fn finish(&mut self, out: &mut String) {
        self.draw(true, out);
        self.trace.failures(out);
        self.trace.all_warnings(out);
    }
}
