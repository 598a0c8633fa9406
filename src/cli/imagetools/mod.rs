//! `rbuild imagetools`: images that are in registries and OCI layouts already, with the flags of `docker buildx imagetools`.
//!
//! In: flags, files with descriptors. Out: one driver call, and its answer on standard output.

mod create;
mod inspect;
mod template;
mod tree;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::closed_output;
use crate::config::{Configuration, Environment};
use crate::diag::{Diagnostic, Kind};
use crate::driver::Setup;
use crate::driver::imagetools::Location;
pub use create::CreateArgs;
pub use inspect::InspectArgs;

/// Subcommands of `imagetools`.
#[derive(Debug, Subcommand)]
pub enum ImagetoolsCommand {
    /// Makes an image of images that are in registries: an index of several platforms, or the same under another name
    #[command(args_override_self = true)]
    Create(CreateArgs),
    /// Shows an image of a registry
    #[command(args_override_self = true)]
    Inspect(InspectArgs),
}

/// What the registry client needs.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// Configuration file [default: that of buildkitd]
    #[arg(long, alias = "buildkitd-config", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Log what is done and why
    #[arg(short = 'D', long)]
    debug: bool,

    /// There is one builder, this program.
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
}

impl ClientArgs {
    /// Reads the configuration.
    fn setup(&self, environment: &Environment) -> Result<Setup, Diagnostic> {
        if self.builder.is_some() {
            return Err(wrong("`--builder` is refused: rbuild is its own builder").hinted("leave it out"));
        }
        let loaded = Configuration::load(self.config.as_deref(), environment);
        let Configuration { settings, warnings, notes, .. } = loaded.map_err(|e| Diagnostic::from_error(&e))?;
        let progress = super::args::ProgressMode::Auto;
        super::log::start((progress, self.debug), &settings, super::display::commands(environment));
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        notes.iter().for_each(|note| tracing::debug!("{note}"));
        let here = std::env::current_dir().ok().filter(|here| here.parent().is_some() && *here != environment.home());
        let workspaces = here.into_iter().collect();
        Ok(Setup { workspaces, ..super::registry_setup(&settings, environment) })
    }
}

/// Does what a subcommand says.
pub(super) fn imagetools(command: &ImagetoolsCommand, environment: &Environment) -> Result<ExitCode, Diagnostic> {
    match command {
        ImagetoolsCommand::Create(args) => create::create(args, environment),
        ImagetoolsCommand::Inspect(args) => inspect::inspect(args, environment),
    }
}

fn wrong(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Kind::Usage, message)
}

fn location(text: &str) -> Result<Location, Diagnostic> {
    Location::parse(text).map_err(|why| wrong(format!("{text}: {why}")))
}

fn print(bytes: &[u8]) -> Result<(), Diagnostic> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(closed_output(&error)),
        _ => Ok(()),
    }
}
