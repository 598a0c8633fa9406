//! `--check` and `--call`: questions about a Dockerfile, answered without a build.
//!
//! In: flags. Out: the answer on standard output, as text or, with `format=json`, as BuildKit's JSON and nothing else. Like
//! buildx a check that finds something ends with 1, unless `ignorestatus` is said.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use super::args::{BuildArgs, ProgressMode};
use super::display::{self, Screen};
use super::{closed_output, on_runtime, prepare, setup};
use crate::config::Environment;
use crate::diag::{Diagnostic, Kind, suggest};
use crate::dockerfile::csv;
use crate::dockerfile::text::parse_bool;
use crate::driver::{self, Called};
use crate::frontend::subrequests::Call;
use crate::progress::event::NoProgress;
use crate::progress::sanitize;

/// What can be called, by the names of buildx.
const CALLS: [(&str, Option<Call>); 6] = [
    ("build", None),
    ("check", Some(Call::Lint)),
    ("lint", Some(Call::Lint)),
    ("outline", Some(Call::Outline)),
    ("targets", Some(Call::Targets)),
    ("subrequests.describe", Some(Call::Describe)),
];

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Format {
    #[default]
    Text,
    Json,
}

/// A question as the flags put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    call: Call,
    format: Format,
    ignore_status: bool,
}

/// Returns the question that flags ask; none is a build.
///
/// # Errors
///
/// A [`Kind::Usage`] diagnostic that says what can be called.
pub(super) fn asked(args: &BuildArgs) -> Result<Option<Asked>, Diagnostic> {
    let asked = args.call.as_deref().filter(|text| !text.is_empty()).map(parse).transpose()?;
    let check = Asked { call: Call::Lint, format: Format::Text, ignore_status: false };
    match (args.check, asked) {
        (false, asked) => Ok(asked.flatten()),
        (true, None) => Ok(Some(check)),
        (true, Some(Some(asked))) if asked.call == Call::Lint => Ok(Some(asked)),
        (true, Some(_)) => {
            Err(wrong("`--check` and `--call` ask for different things").hinted("leave out one of them"))
        }
    }
}

fn wrong(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Kind::Usage, message)
}

fn parse(text: &str) -> Result<Option<Asked>, Diagnostic> {
    let told = |why: String| wrong(format!("invalid value of --call: {why}"));
    let fields = csv::fields(text).map_err(|error| told(error.to_string()))?;
    let (mut name, mut format, mut ignore_status) = (None, Format::Text, false);
    for field in &fields {
        match field.split_once('=') {
            None if field == "ignorestatus" => ignore_status = true,
            None if name.is_none() => name = Some(field.as_str()),
            Some(("format", "json")) => format = Format::Json,
            Some(("format", "" | "text")) => format = Format::Text,
            Some(("format", other)) => {
                return Err(told(format!("unknown format {other:?}")).hinted("the formats are text and json"));
            }
            Some(("ignorestatus", value)) => {
                let bad = || told(format!("ignorestatus={value} is neither true nor false"));
                ignore_status = parse_bool(value).ok_or_else(bad)?;
            }
            _ => return Err(told(format!("unexpected {field:?}")).hinted("write METHOD[,format=json][,ignorestatus]")),
        }
    }
    let name = name.ok_or_else(|| told("the method is missing".into()).hinted(methods()))?;
    match CALLS.iter().find(|(known, _)| *known == name) {
        Some((_, call)) => Ok(call.map(|call| Asked { call, format, ignore_status })),
        None => {
            let near = suggest(name, CALLS.iter().map(|(known, _)| *known));
            let hint = near.map_or_else(methods, |near| format!("did you mean `--call {near}`?"));
            Err(told(format!("unknown method {name:?}")).hinted(hint))
        }
    }
}

fn methods() -> String {
    format!("the methods are {}", CALLS.map(|(name, _)| name).join(", "))
}

/// Asks, and prints the answer.
///
/// # Errors
///
/// Those of the frontend: what stops a check would stop the build.
pub(super) fn call(args: &BuildArgs, environment: &Environment, asked: Asked) -> Result<ExitCode, Diagnostic> {
    let prepared = prepare(args, environment)?;
    let setup = setup(args, environment, &prepared, false);
    // Who reads JSON reads nothing else, unless progress is asked for.
    let answer = if asked.format == Format::Json && args.progress == ProgressMode::Auto {
        on_runtime(Arc::new(NoProgress), |sink, _| driver::call(setup, prepared.request, asked.call, sink))
    } else {
        let (screen, sink) = Screen::start(args, environment);
        let answer = on_runtime(sink, |sink, _| driver::call(setup, prepared.request, asked.call, sink));
        screen.finish();
        answer
    };
    finish(answer?, asked, environment)
}

fn finish(answer: Called, asked: Asked, environment: &Environment) -> Result<ExitCode, Diagnostic> {
    let text = match asked.format {
        Format::Json => format!("{}\n", answer.json),
        // It quotes the Dockerfile.
        Format::Text => sanitize::message(&told(&answer, asked.call), display::commands(environment)),
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.map_err(|error| closed_output(&error))?,
    }
    match answer.failure {
        Some(failure) => Err(failure),
        None if answer.warnings > 0 && !asked.ignore_status => Ok(ExitCode::FAILURE),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn told(answer: &Called, call: Call) -> String {
    let head = match (call, answer.warnings) {
        (Call::Lint, 0) if answer.failure.is_none() => "Check complete, no warnings found.\n".into(),
        (Call::Lint, 1) => "Check complete, 1 warning has been found!\n".into(),
        (Call::Lint, count) if count > 0 => format!("Check complete, {count} warnings have been found!\n"),
        _ => String::new(),
    };
    head + &answer.text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    fn of(words: &[&str]) -> Result<Option<Asked>, Diagnostic> {
        asked(&Cli::try_parse_from(std::iter::once(&"rbuild").chain(words)).expect("valid").build)
    }

    #[test]
    fn names_and_formats() {
        let text = |call| Some(Asked { call, format: Format::Text, ignore_status: false });
        let json = |call| Some(Asked { call, format: Format::Json, ignore_status: true });
        for (words, expected) in [
            (&[][..], None),
            (&["--call=build"], None),
            (&["--call="], None),
            (&["--check"], text(Call::Lint)),
            (&["--call=lint"], text(Call::Lint)),
            (&["--check", "--call", "check,format=json,ignorestatus"], json(Call::Lint)),
            (&["--call", "outline,format=text"], text(Call::Outline)),
            (&["--call=format=json,targets,ignorestatus=1"], json(Call::Targets)),
            (&["--call=subrequests.describe"], text(Call::Describe)),
        ] {
            assert_eq!(of(words), Ok(expected), "{words:?}");
        }
    }

    #[test]
    fn what_cannot_be_called_is_said() {
        for (words, message, hint) in [
            (&["--call=chek"][..], "unknown method \"chek\"", "`--call check`"),
            (&["--call=frobnicate"], "unknown method", "build, check, lint, outline"),
            (&["--call=format=json"], "the method is missing", "targets"),
            (&["--call=check,format=yaml"], "unknown format \"yaml\"", "text and json"),
            (&["--call=check,outline"], "unexpected \"outline\"", "METHOD"),
            (&["--call=check,ignorestatus=x"], "neither true nor false", ""),
            (&["--check", "--call=outline"], "different things", "leave out"),
            (&["--check", "--call=build"], "different things", "leave out"),
        ] {
            let told = of(words).expect_err("wrong");
            assert!(told.message.contains(message) && told.hints.concat().contains(hint), "{told:?}");
        }
    }
}
