//! The log of the program itself, on standard error: `--debug`, and `[log]` of `buildkitd.toml`.
//!
//! A line is text, or a JSON object with the members that logs of BuildKit have: `level`, `msg`, `time`, and what is told beside.

use std::fmt;
use std::io::Write;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::args::{BuildArgs, ProgressMode};
use crate::config::{LogFormat, LogLevel, Settings};
use crate::progress::{Commands, sanitize};

/// Standard error for log lines, which quote foreign names.
struct LogWriter(Commands);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = sanitize::message(&String::from_utf8_lossy(line), self.0);
        std::io::stderr().write_all(text.as_bytes()).map(|()| line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts it.
pub(super) fn start(args: &BuildArgs, settings: &Settings, commands: Commands) {
    let level = if args.debug { Some(LogLevel::Debug) } else { settings.log_level() };
    let filter = EnvFilter::new(directives(args.progress, level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let lines = lines.with_writer(move || LogWriter(commands));
    // A second subscriber can only come from a second call in one process, as in tests; the first stays.
    let _ = match settings.log.format {
        Some(LogFormat::Json) => tracing::subscriber::set_global_default(lines.event_format(JsonLines).finish()),
        Some(LogFormat::Text) | None => tracing::subscriber::set_global_default(lines.without_time().finish()),
    };
}

/// What libraries say is wanted by who wants everything.
fn directives(progress: ProgressMode, level: Option<LogLevel>) -> &'static str {
    match level {
        Some(LogLevel::Trace) => "debug,rbuild=trace",
        Some(LogLevel::Debug) => "warn,rbuild=debug",
        // A program that reads JSON gets no lines of a log, unless it asks.
        _ if progress == ProgressMode::Rawjson => "off",
        Some(LogLevel::Info) => "warn,rbuild=info",
        Some(LogLevel::Warn) | None => "warn",
        Some(LogLevel::Error) => "error",
    }
}

/// Writes an event as a JSON object on a line.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut put = |name: &str, value: &str| fields.0.insert(name.to_owned(), value.into());
        put("level", level_name(*event.metadata().level()));
        put("time", &OffsetDateTime::now_utc().format(&Rfc3339).map_err(|_| fmt::Error)?);
        writeln!(writer, "{}", serde_json::Value::Object(fields.0))
    }
}

/// As logrus has them.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// What is told of an event.
#[derive(Default)]
struct Fields(serde_json::Map<String, serde_json::Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: serde_json::Value) {
        let name = match field.name() {
            "message" => "msg",
            // These are the line's own.
            "level" => "fields.level",
            "time" => "fields.time",
            name => name,
        };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_flags_and_file() {
        let (plain, json) = (ProgressMode::Plain, ProgressMode::Rawjson);
        for (progress, level, expected) in [
            (plain, None, "warn"),
            (plain, Some(LogLevel::Error), "error"),
            (plain, Some(LogLevel::Warn), "warn"),
            (plain, Some(LogLevel::Info), "warn,rbuild=info"),
            (plain, Some(LogLevel::Debug), "warn,rbuild=debug"),
            (plain, Some(LogLevel::Trace), "debug,rbuild=trace"),
            (json, None, "off"),
            (json, Some(LogLevel::Info), "off"),
            (json, Some(LogLevel::Debug), "warn,rbuild=debug"),
        ] {
            assert_eq!(directives(progress, level), expected, "{level:?}");
        }
    }

    #[test]
    fn a_line_of_json_has_what_is_told_and_nothing_else_speaks_for_the_line() {
        #[derive(Clone, Default)]
        struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("whole").extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt().event_format(JsonLines).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(level = "mine", time = 7, host = %"a\u{1b}b", whole = true, below = -1, "said \"so\"");
        });
        let text = String::from_utf8(kept.0.lock().expect("whole").clone()).expect("text");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'));
        let time = line["time"].as_str().expect("time").to_owned();
        let expected = serde_json::json!({"level": "warning", "msg": "said \"so\"", "time": time, "host": "a\u{1b}b",
            "whole": true, "below": -1, "fields.level": "mine", "fields.time": 7});
        assert_eq!(line, expected);
    }
}
