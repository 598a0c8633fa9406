//! `rbuild explain`, and what `--explain` prints after a build.

use std::io::Write;
use std::path::Path;
use std::sync::PoisonError;

use super::args::{AnswerFormat, BuildArgs, ExplainArgs, ProgressMode};
use super::{closed_output, display, notice};
use crate::config::{Configuration, Environment};
use crate::diag::{Diagnostic, Kind};
use crate::driver::explain::{Explained, Project, last};
use crate::progress::sanitize;

/// Prints why each step of the last build of a context ran or was cached.
pub(super) fn explain(args: &ExplainArgs, environment: &Environment) -> Result<(), Diagnostic> {
    let loaded = Configuration::load(args.config.as_deref(), environment).map_err(|e| Diagnostic::from_error(&e))?;
    let root = args.root.clone().or(loaded.settings.root).unwrap_or_else(|| environment.default_root());
    let file = args.file.as_deref().filter(|file| *file != "-").map(Path::new);
    let project = Project::new(&args.context, file, args.target.as_deref().unwrap_or_default());
    let report = last(&std::path::absolute(&root).unwrap_or(root), &project, args.against.as_deref())?;
    let text = match args.format {
        AnswerFormat::Text => sanitize::message(&report.text(), display::commands(environment)),
        AnswerFormat::Json => {
            let failed = |error| Diagnostic::new(Kind::Machine, format!("failed to write JSON: {error}"));
            format!("{}\n", serde_json::to_string_pretty(&report).map_err(failed)?)
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(closed_output(&error)),
        _ => Ok(()),
    }
}

/// Prints the report of a build where that was asked for.
pub(super) fn tell(args: &BuildArgs, environment: &Environment, explained: Option<&Explained>) {
    let Some(explained) = explained else { return };
    let report = explained.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(report) = report else { return };
    if args.progress == ProgressMode::Rawjson {
        for line in report.text().lines() {
            notice::tell(args, environment, line);
        }
        return;
    }
    let text = sanitize::message(&report.text(), display::commands(environment));
    // The build's own result counts; a closed standard error cannot be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
