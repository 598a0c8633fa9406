//! What went wrong, in the form a user sees it: a kind, a message, places in files, and what to type.
//!
//! In: the typed errors of the stations, through [`Diagnose`]. Out: a [`Diagnostic`], which the command line prints and
//! turns into an exit code. Nothing here knows any station.

mod excerpt;
mod suggest;

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

#[cfg(test)]
pub(crate) use tests::table;

pub use excerpt::excerpt;
pub use suggest::{Case, did_you_mean, nearest, suggest};

/// What kind of failure it is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A step of the build failed, or an internal error.
    Build,
    /// The command line or a configuration file is wrong.
    Usage,
    /// The Dockerfile or the build context is wrong.
    Dockerfile,
    /// An image, registry or other source could not be had or written.
    Remote,
    /// The machine refuses what is needed: namespaces, disk space, permissions.
    Machine,
    /// A disk has no space left; otherwise like [`Kind::Machine`].
    DiskFull,
    /// The user or the system asked to stop, with this signal's number.
    Interrupted(i32),
}

impl Kind {
    /// Returns the process exit code, as documented in the README.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Build => 1,
            Kind::Usage => 2,
            Kind::Dockerfile => 3,
            Kind::Remote => 4,
            Kind::Machine | Kind::DiskFull => 5,
            Kind::Interrupted(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(0)),
        }
    }
}

/// Lines of a file, 1-based and inclusive; 0 stands for the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineRange {
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

/// A place in a text file that an error points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Name shown to the user.
    pub file: String,
    /// The whole text of the file.
    pub text: Arc<str>,
    /// The lines meant, in order.
    pub ranges: Vec<LineRange>,
    /// The offending words, marked where they stand first in the ranges, if on one line.
    pub mark: Option<String>,
}

/// An error as the user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of failure it is.
    pub kind: Kind,
    /// One message, the causes joined by `: `.
    pub message: String,
    /// Where it is, most specific first.
    pub locations: Vec<Location>,
    /// What the user can do, each a command to type or a short sentence.
    pub hints: Vec<String>,
    /// Further problems of the same kind, found in the same go.
    pub further: Vec<Diagnostic>,
}

/// An error that can say what a user needs to know of it.
pub trait Diagnose: Error {
    /// Returns what kind of failure it is.
    fn kind(&self) -> Kind;

    /// Returns what the user can do about it.
    fn hints(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the places it points to.
    fn locations(&self) -> Vec<Location> {
        Vec::new()
    }
}

impl Diagnostic {
    /// Builds a diagnostic with no location and no hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), locations: Vec::new(), hints: Vec::new(), further: Vec::new() }
    }

    /// Builds a diagnostic from a station's error and its chain of causes.
    pub fn from_error(error: &dyn Diagnose) -> Self {
        let message = chain(error);
        let kind = if is_disk_full(error.source()) { Kind::DiskFull } else { error.kind() };
        Self { locations: error.locations(), hints: error.hints(), ..Self::new(kind, message) }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a place.
    #[must_use]
    pub fn located(mut self, location: Location) -> Self {
        self.locations.push(location);
        self
    }

    /// Says, before what went wrong, what was being done.
    #[must_use]
    pub fn while_doing(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self.further = self.further.into_iter().map(|further| further.while_doing(what)).collect();
        self
    }

    /// Renders excerpts, message and hints as text for a terminal or a log, ending in a newline; one block a problem.
    pub fn render(&self) -> String {
        let blocks = std::iter::once(self).chain(&self.further);
        blocks.map(Self::render_block).collect::<Vec<_>>().join("\n")
    }

    fn render_block(&self) -> String {
        let mut out = String::new();
        for location in &self.locations {
            out.push_str(&excerpt(location));
        }
        let _ = writeln!(out, "error: {}", without_middle(&self.message));
        for hint in &self.hints {
            let _ = writeln!(out, "hint: {hint}");
        }
        out
    }
}

/// Characters of a message that are shown, of its beginning and of its end.
const MESSAGE: (usize, usize) = (1600, 400);

/// Leaves out the middle of a message that quotes something without end; why it was quoted stands before and behind.
fn without_middle(message: &str) -> String {
    let count = message.chars().count();
    if count <= MESSAGE.0 + MESSAGE.1 {
        return message.to_owned();
    }
    let begin: String = message.chars().take(MESSAGE.0).collect();
    let end: String = message.chars().skip(count - MESSAGE.1).collect();
    format!("{begin} […] {end}")
}

/// Joins an error and its causes with `: `, leaving out a cause that its parent already says.
pub fn chain(error: &(dyn Error + '_)) -> String {
    let mut message = without_number(error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = without_number(error.to_string());
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

/// Drops ` (os error 2)`, which the standard library puts after words that say the same.
fn without_number(mut text: String) -> String {
    const LEAD: &str = " (os error ";
    while let Some(start) = text.find(LEAD) {
        let digits = text[start + LEAD.len()..].bytes().take_while(u8::is_ascii_digit).count();
        let end = start + LEAD.len() + digits;
        if digits == 0 || text.as_bytes().get(end) != Some(&b')') {
            break;
        }
        text.replace_range(start..=end, "");
    }
    text
}

/// Returns whether a full disk is among the causes: whatever a station was doing, that is what the user must know.
fn is_disk_full(mut cause: Option<&(dyn Error + 'static)>) -> bool {
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            // An error inside an I/O error is not among its sources.
            if full || error.get_ref().is_some_and(|inner| is_disk_full(Some(inner))) {
                return true;
            }
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a table of `testdata/tables`: a row of JSON per line, made of what other programs answer.
    pub(crate) fn table<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
        let path = format!("{}/testdata/tables/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect("table");
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn causes_are_joined_without_numbers() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to open x")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(chain(&Outer(std::io::Error::from_raw_os_error(2))), "failed to open x: No such file or directory");
        assert_eq!(without_number("a (os error b)".into()), "a (os error b)");
    }

    #[test]
    fn messages_without_end_keep_their_beginning_and_their_end() {
        let text = Diagnostic::new(Kind::Build, format!("before {} exit code: 1", "é".repeat(1 << 20))).render();
        assert!(text.len() < 5000 && text.starts_with("error: before é") && text.ends_with("exit code: 1\n"), "{text}");
    }

    #[test]
    fn each_problem_has_a_block_of_its_own() {
        let mut first = Diagnostic::new(Kind::Usage, "a").hinted("b");
        first.further.push(Diagnostic::new(Kind::Usage, "c"));
        assert_eq!(first.while_doing("x").render(), "error: x: a\nhint: b\n\nerror: x: c\n");
    }
}
