//! What a build tells while it runs: events in, and displays that write them out.
//!
//! In: [`Event`]s, stamped by whoever emits them, and ticks that say what time it is. Out: text on an `io::Write` given by
//! the caller. Nothing here reads a clock, a terminal or the environment. Invariants: output of a process passes
//! [`sanitize::Sanitizer`], names and errors pass [`sanitize::escape`], whatever the display; the same events and ticks give
//! the same text.

pub mod event;
mod plain;
mod rawjson;
pub mod sanitize;
mod trace;
mod tty;
mod units;

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

pub use event::{Event, Log, Sink, Status, Stream, Vertex, Warning};
pub use sanitize::Colors;

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Lines, each step with a number: for logs.
    Plain,
    /// A tree that is drawn again and again: for terminals.
    Tty,
    /// Nothing.
    Quiet,
    /// BuildKit's `SolveStatus` as JSON, one object a line: for programs.
    RawJson,
}

/// Settings of a display.
#[derive(Debug, Clone)]
pub struct DisplayOptions {
    /// Whether colours are used and colours of the steps' output are kept.
    pub colors: Colors,
    /// Whether text that a CI runner would take for its own commands is broken up.
    pub commands: Commands,
    /// Whether warnings at the end come with explanations and excerpts.
    pub warnings: WarningDetail,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
}

/// What happens to lines that could be commands to a CI runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commands {
    /// They are passed on: nobody reads commands from this output.
    PassOn,
    /// They are broken by a zero-width space.
    Defuse,
}

/// How much is said of a warning when the build is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarningDetail {
    /// One line each.
    Short,
    /// Also the explanation, the address of the documentation and the lines of the file.
    Full,
}

impl Default for DisplayOptions {
    fn default() -> Self {
        Self { colors: Colors::Keep, commands: Commands::PassOn, warnings: WarningDetail::Short, size: (80, 24) }
    }
}

/// What a kind of display does; it writes to a buffer that [`Display`] passes on.
trait Painter: Send {
    fn event(&mut self, event: &Event, out: &mut String);
    fn tick(&mut self, now: SystemTime, out: &mut String);
    fn resize(&mut self, _size: (u16, u16)) {}
    fn finish(&mut self, out: &mut String);
}

/// Shows a build.
pub struct Display {
    painter: Option<Box<dyn Painter>>,
    out: Box<dyn Write + Send>,
    buffer: String,
    error: Option<io::Error>,
}

impl fmt::Debug for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Display").field("error", &self.error).finish_non_exhaustive()
    }
}

/// Makes a display that writes to `out`.
pub fn display(mode: Mode, out: Box<dyn Write + Send>, options: DisplayOptions) -> Display {
    let painter: Option<Box<dyn Painter>> = match mode {
        Mode::Plain => Some(Box::new(plain::Plain::new(options))),
        Mode::Tty => Some(Box::new(tty::Tty::new(options))),
        Mode::Quiet => None,
        Mode::RawJson => Some(Box::new(rawjson::RawJson::new(options.commands))),
    };
    Display { painter, out, buffer: String::new(), error: None }
}

impl Display {
    /// Takes an event.
    pub fn event(&mut self, event: &Event) {
        self.paint(|painter, out| painter.event(event, out));
    }

    /// Says what time it is; to be called some ten times a second. The terminal is drawn only then.
    pub fn tick(&mut self, now: SystemTime) {
        self.paint(|painter, out| painter.tick(now, out));
    }

    /// Says that the terminal has another size now.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        if let Some(painter) = &mut self.painter {
            painter.resize((columns, rows));
        }
    }

    /// Writes what is left, the output of failed steps once more, and the warnings; returns the first error of writing.
    pub fn finish(mut self) -> io::Result<()> {
        self.paint(|painter, out| painter.finish(out));
        match self.error {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    fn paint(&mut self, paint: impl FnOnce(&mut dyn Painter, &mut String)) {
        let Some(painter) = self.painter.as_deref_mut() else { return };
        self.buffer.clear();
        paint(painter, &mut self.buffer);
        // A reader that went away must not end the build; the error is reported at the end.
        if self.error.is_none() && !self.buffer.is_empty() {
            let written = self.out.write_all(self.buffer.as_bytes()).and_then(|()| self.out.flush());
            self.error = written.err();
        }
    }
}
