//! Progress as BuildKit's `SolveStatus` JSON, one object a line, as `--progress=rawjson` of buildx and buildctl gives it.
//!
//! In: events. Out: `{"vertexes":[…]}`, `{"statuses":[…]}`, `{"logs":[…]}` or `{"warnings":[…]}`, with Go's field names,
//! base64 for bytes, and times as RFC 3339 with nanoseconds. Foreign bytes are in base64 or in JSON strings, in which control
//! and reordering characters are escaped too.

use std::fmt::Write as _;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::event::{Event, Log, Status, Stream, Vertex, Warning};
use super::{Commands, Painter};
use crate::image::canonical;

/// The JSON display.
#[derive(Debug)]
pub(super) struct RawJson {
    commands: Commands,
}

impl RawJson {
    pub(super) fn new(commands: Commands) -> Self {
        Self { commands }
    }
}

#[derive(Debug, Default, Serialize)]
struct SolveStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[JsonVertex<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[JsonStatus<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[JsonLog<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[JsonWarning<'a>; 1]>,
}

#[derive(Debug, Serialize)]
struct JsonVertex<'a> {
    digest: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Debug, Serialize)]
struct JsonStatus<'a> {
    id: &'a str,
    vertex: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Debug, Serialize)]
struct JsonLog<'a> {
    vertex: &'a str,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Debug, Serialize)]
struct JsonWarning<'a> {
    vertex: &'a str,
    #[serde(skip_serializing_if = "is_zero_level")]
    level: u8,
    #[serde(skip_serializing_if = "String::is_empty")]
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfo<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<JsonRange>,
}

#[derive(Debug, Serialize)]
struct SourceInfo<'a> {
    filename: &'a str,
    data: String,
    language: &'static str,
}

#[derive(Debug, Serialize)]
struct JsonRange {
    start: Position,
    end: Position,
}

#[derive(Debug, Serialize)]
struct Position {
    line: u32,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_zero_level(value: &u8) -> bool {
    *value == 0
}

fn time(time: SystemTime) -> String {
    // Times beyond year 9999 have no RFC 3339 form; no clock tells them.
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn vertex(vertex: &Vertex) -> SolveStatus<'_> {
    let vertex = JsonVertex {
        digest: vertex.digest.as_str(),
        inputs: vertex.inputs.iter().map(|digest| digest.as_str()).collect(),
        name: &vertex.name,
        started: vertex.started.map(time),
        completed: vertex.completed.map(time),
        cached: vertex.cached,
        error: &vertex.error,
    };
    SolveStatus { vertexes: Some([vertex]), ..SolveStatus::default() }
}

fn status(status: &Status) -> SolveStatus<'_> {
    let status = JsonStatus {
        id: &status.id,
        vertex: status.vertex.as_str(),
        total: status.total,
        current: status.current,
        timestamp: time(status.timestamp),
        started: status.started.map(time),
        completed: status.completed.map(time),
    };
    SolveStatus { statuses: Some([status]), ..SolveStatus::default() }
}

fn log(log: &Log) -> SolveStatus<'_> {
    let stream = match log.stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let (data, timestamp) = (base64(&log.data), time(log.timestamp));
    SolveStatus {
        logs: Some([JsonLog { vertex: log.vertex.as_str(), stream, data, timestamp }]),
        ..SolveStatus::default()
    }
}

fn warning(warning: &Warning) -> SolveStatus<'_> {
    let source_info = (!warning.file.is_empty()).then(|| SourceInfo {
        filename: &warning.file,
        data: base64(warning.text.as_bytes()),
        language: "Dockerfile",
    });
    let range =
        |r: &crate::diag::LineRange| JsonRange { start: Position { line: r.start }, end: Position { line: r.end } };
    let warning = JsonWarning {
        vertex: warning.vertex.as_str(),
        level: warning.level,
        short: base64(warning.short.as_bytes()),
        detail: warning.detail.iter().map(|text| base64(text.as_bytes())).collect(),
        url: &warning.url,
        source_info,
        range: warning.ranges.iter().map(range).collect(),
    };
    SolveStatus { warnings: Some([warning]), ..SolveStatus::default() }
}

/// JSON lets control characters above U+001F stand as they are; a terminal the file is shown on would not.
fn escape_rest(json: &str, commands: Commands, out: &mut String) {
    for c in json.chars() {
        if c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else if c == '#' && commands == Commands::Defuse {
            // A runner looks for `##[` in any line; inside JSON it can be spelt another way.
            out.push_str("\\u0023");
        } else {
            out.push(c);
        }
    }
    out.push('\n');
}

impl Painter for RawJson {
    fn event(&mut self, event: &Event, out: &mut String) {
        let object = match event {
            Event::Vertex(v) => vertex(v),
            Event::Status(s) => status(s),
            Event::Log(l) => log(l),
            Event::Warning(w) => warning(w),
        };
        escape_rest(&String::from_utf8_lossy(&canonical::to_vec(&object)), self.commands, out);
    }

    fn tick(&mut self, _now: SystemTime, _out: &mut String) {}

    fn finish(&mut self, _out: &mut String) {}
}
