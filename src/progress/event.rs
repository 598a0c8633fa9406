//! The events of a build, shaped after BuildKit's SolveStatus so that `--progress=rawjson` is its JSON.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::diag::LineRange;
use crate::digest::Digest;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A step appeared or changed state; the newest of one digest replaces the former.
    Vertex(Vertex),
    /// Part of a step made progress, such as the download of a layer.
    Status(Status),
    /// A step printed something.
    Log(Log),
    /// The build should warn the user.
    Warning(Warning),
}

/// A step and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// Identity of the step.
    pub digest: Digest,
    /// Digests of the steps it depends on.
    pub inputs: Vec<Digest>,
    /// Name as shown, `[stage 2/3] RUN make`.
    pub name: String,
    /// When it started.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
    /// Whether its result came from a cache.
    pub cached: bool,
    /// Why it failed; empty while it has not. `canceled` marks a step stopped because another failed.
    pub error: String,
}

/// Progress of a part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Name of the part, unique in its step: `sha256:…`, `exporting layers`.
    pub id: String,
    /// The step.
    pub vertex: Digest,
    /// Bytes or pieces done.
    pub current: u64,
    /// Bytes or pieces in all, 0 if not known.
    pub total: u64,
    /// When this was measured.
    pub timestamp: SystemTime,
    /// When the part started.
    pub started: Option<SystemTime>,
    /// When the part ended.
    pub completed: Option<SystemTime>,
}

impl Status {
    /// Makes one of a part that is over and moved so many bytes, or none that count.
    pub fn over(vertex: Digest, id: String, bytes: u64, (started, completed): (SystemTime, SystemTime)) -> Self {
        let (started, timestamp, completed) = (Some(started), completed, Some(completed));
        Self { id, vertex, current: bytes, total: 0, timestamp, started, completed }
    }
}

/// Which output of a process a text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Output of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The step.
    pub vertex: Digest,
    /// Which output.
    pub stream: Stream,
    /// The bytes as the process wrote them: foreign, to be sanitised by whoever displays them.
    pub data: Vec<u8>,
    /// When they were read.
    pub timestamp: SystemTime,
}

/// A lint warning, or another that does not end the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The step it belongs to.
    pub vertex: Digest,
    /// 1 for lint rules.
    pub level: u8,
    /// `Rule: message (line n)`.
    pub short: String,
    /// Longer explanations.
    pub detail: Vec<String>,
    /// Where to read more.
    pub url: String,
    /// File it points to.
    pub file: String,
    /// Whole text of that file.
    pub text: Arc<str>,
    /// Lines it points to.
    pub ranges: Vec<LineRange>,
}

impl Warning {
    /// Makes one that belongs to no step and no file.
    pub fn notice(text: impl Into<String>) -> Self {
        Self {
            vertex: Digest::compute("rbuild.notices"),
            level: 1,
            short: text.into(),
            detail: Vec::new(),
            url: String::new(),
            file: String::new(),
            text: "".into(),
            ranges: Vec::new(),
        }
    }
}

/// Takes events from any thread; must not block for long.
pub trait Sink: Send + Sync + fmt::Debug {
    /// Takes one event.
    fn send(&self, event: Event);
}

/// A sink that drops all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Sink for NoProgress {
    fn send(&self, _event: Event) {}
}
