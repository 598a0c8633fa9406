//! `rbuild debug config`: the effective configuration, and where each value comes from.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{closed_output, display};
use crate::config::{Configuration, Environment, Flags};
use crate::diag::{Diagnostic, Kind};
use crate::progress::sanitize;

/// How the configuration is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ConfigFormat {
    /// A `buildkitd.toml`
    Toml,
    /// One JSON object
    Json,
}

/// Flags of `debug config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file [default: that of buildkitd]
    #[arg(long, alias = "buildkitd-config", value_name = "FILE")]
    config: Option<PathBuf>,

    /// State directory [default: $XDG_DATA_HOME/rbuild, /var/lib/rbuild as root]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Log what is done and why
    #[arg(short = 'D', long)]
    debug: bool,

    /// How it is printed: `toml` or `json`
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "toml", hide_possible_values = true)]
    format: ConfigFormat,
}

/// Prints it; what there is to warn of goes to standard error.
pub(super) fn print(args: &ConfigArgs, environment: &Environment) -> Result<(), Diagnostic> {
    let loaded = Configuration::load(args.config.as_deref(), environment);
    let configuration = loaded.map_err(|error| Diagnostic::from_error(&error))?;
    let shown = |text: &str| sanitize::message(text, display::commands(environment));
    for line in &configuration.warnings {
        // A closed standard error cannot be told.
        let _ = std::io::stderr().write_all(shown(&format!("warning: {line}\n")).as_bytes());
    }
    let flags = Flags { root: args.root.clone(), debug: args.debug };
    let effective = configuration.effective(&flags, environment);
    let text = match args.format {
        ConfigFormat::Toml => shown(&effective.toml()),
        ConfigFormat::Json => {
            let failed = |error| Diagnostic::new(Kind::Machine, format!("failed to write JSON: {error}"));
            format!("{}\n", serde_json::to_string_pretty(&effective.json()).map_err(failed)?)
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(closed_output(&error)),
        _ => Ok(()),
    }
}
