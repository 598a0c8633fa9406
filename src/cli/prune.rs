//! `rbuild prune`: removes what is stored, by the flags of `docker buildx prune`.
//!
//! In: flags. Out: what was removed, on standard output. It is never asked back, so `--force` changes nothing.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::du::{Format, Listing, print};
use crate::config::{Configuration, Environment};
use crate::diag::{Diagnostic, Kind, chain};
use crate::dockerfile::{duration, size};
use crate::driver::prune as heap;
use crate::rootless;
use crate::store::prune::{Filter, Policy, Space};

/// Flags of `rbuild prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove what rbuild keeps for itself, too
    #[arg(short = 'a', long)]
    all: bool,

    /// What to remove: `until=24h` for what was not used so long, `id=…`, `type=…`, `parents=…`, `description~=REGEX`, `inuse`, `mutable`, `shared`, `private`; of several all must hold
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,

    /// Ask nothing, as always
    #[arg(short = 'f', long)]
    force: bool,

    /// Bytes that always may stay
    #[arg(long, alias = "keep-storage", value_name = "BYTES")]
    reserved_space: Option<String>,

    /// Bytes that may stay at most
    #[arg(long, value_name = "BYTES")]
    max_used_space: Option<String>,

    /// Bytes that shall be free on the disk
    #[arg(long, value_name = "BYTES")]
    min_free_space: Option<String>,

    /// How long to wait for running builds to end
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    timeout: String,

    /// What is printed.
    #[command(flatten)]
    listing: Listing,

    /// The state directory.
    #[command(flatten)]
    state: StateArgs,
}

/// Which state directory is meant.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// State directory [default: $XDG_DATA_HOME/rbuild, /var/lib/rbuild as root]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Configuration file [default: that of buildkitd]
    #[arg(long, alias = "buildkitd-config", value_name = "FILE")]
    config: Option<PathBuf>,

    /// There is one builder, this program.
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
}

impl StateArgs {
    /// Returns the state directory, and becomes the user it belongs to.
    pub(super) fn enter(&self, environment: &Environment) -> Result<PathBuf, Diagnostic> {
        if self.builder.is_some() {
            return Err(wrong("`--builder` is refused: rbuild is its own builder".to_owned()).hinted("leave it out"));
        }
        let loaded =
            Configuration::load(self.config.as_deref(), environment).map_err(|e| Diagnostic::from_error(&e))?;
        let root = self.root.clone().or(loaded.settings.root).unwrap_or_else(|| environment.default_root());
        rootless::enter().map_err(|error| Diagnostic::from_error(&error))?;
        Ok(std::path::absolute(&root).unwrap_or(root))
    }
}

/// Removes what the flags say.
pub(super) fn prune(args: &PruneArgs, environment: &Environment) -> Result<ExitCode, Diagnostic> {
    let format = args.listing.format()?;
    let (policy, patience) = (args.policy()?, time("--timeout", &args.timeout)?);
    let root = args.state.enter(environment)?;
    let waiting = || {
        let text = format!("builds are running in {}: waiting for them to end\n", root.display());
        // A closed standard error cannot be told.
        let _ = std::io::stderr().write_all(text.as_bytes());
    };
    let pruned = heap::prune(&root, &policy, patience, waiting)?;
    print(&pruned.items, format, |items| {
        if format == Format::Json {
            return String::new();
        }
        format!("Total:\t{}\n", super::du::human_size(items.iter().map(|item| item.size).sum()))
    })?;
    if pruned.held == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let text = format!("builds are running in {}: {} more could not be removed", root.display(), pruned.held);
    Err(Diagnostic::new(Kind::Machine, text).hinted("try again when they have ended, or wait longer with --timeout"))
}

impl PruneArgs {
    fn policy(&self) -> Result<Policy, Diagnostic> {
        let (filter, keep_duration) = filters(&self.filters)?;
        Ok(Policy {
            all: self.all,
            filter,
            keep_duration,
            reserved: space("--reserved-space", self.reserved_space.as_deref())?,
            max_used: space("--max-used-space", self.max_used_space.as_deref())?,
            min_free: space("--min-free-space", self.min_free_space.as_deref())?,
        })
    }
}

/// Reads the filters, all of which must hold, and the seconds of `until`.
pub(super) fn filters(texts: &[String]) -> Result<(Filter, u64), Diagnostic> {
    let (mut terms, mut until) = (Vec::new(), 0);
    for text in texts {
        match text.split_once('=') {
            Some(("until" | "unused-for", value)) => {
                until = until.max(time("--filter until", value)?.as_secs());
            }
            _ => terms.push(text.as_str()),
        }
    }
    let joined: Vec<String> = if terms.is_empty() { Vec::new() } else { vec![terms.join(",")] };
    let filter =
        Filter::parse(&joined).map_err(|error| wrong(format!("invalid value of --filter: {}", chain(&error))))?;
    Ok((filter, until))
}

fn time(flag: &str, text: &str) -> Result<Duration, Diagnostic> {
    let parsed = duration::parse(text).ok().and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
    let expected = || wrong(format!("invalid value of {flag}: {text:?} is no duration such as 24h or 90s"));
    parsed.map(Duration::from_nanos).ok_or_else(expected)
}

fn space(flag: &str, text: Option<&str>) -> Result<Space, Diagnostic> {
    let Some(text) = text else { return Ok(Space::default()) };
    let told = |why: &dyn std::error::Error| wrong(format!("invalid value of {flag}: {}", chain(why)));
    let bytes = size::parse(text).map_err(|error| told(&error))?;
    Ok(Space::Bytes(u64::try_from(bytes).unwrap_or(0)))
}

pub(super) fn wrong(message: String) -> Diagnostic {
    Diagnostic::new(Kind::Usage, message)
}
