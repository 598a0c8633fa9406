//! `rbuild du`: what is stored, as `docker buildx du` shows it.
//!
//! In: flags. Out: a table, blocks of text or JSON on standard output.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::closed_output;
use super::prune::{StateArgs, filters, wrong};
use crate::config::Environment;
use crate::diag::Diagnostic;
use crate::driver::prune::disk_usage;
use crate::progress::sanitize;
use crate::store::prune::Item;

/// Flags of `rbuild du`.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// What to show: `until=24h` for what was not used so long, `id=…`, `type=…`, `parents=…`, `description~=REGEX`, `inuse`, `mutable`, `shared`, `private`; of several all must hold
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,

    /// What is printed.
    #[command(flatten)]
    listing: Listing,

    /// The state directory.
    #[command(flatten)]
    state: StateArgs,
}

/// How items are printed.
#[derive(Debug, Args)]
pub struct Listing {
    /// How to print: `table`, `pretty` or `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Print all that is known: `--format pretty`
    #[arg(long)]
    verbose: bool,
}

/// A form in which items are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Pretty,
    Json,
}

impl Listing {
    /// Returns the form.
    pub(super) fn format(&self) -> Result<Format, Diagnostic> {
        match self.format.as_deref() {
            None if self.verbose => Ok(Format::Pretty),
            None | Some("table") if !self.verbose => Ok(Format::Table),
            Some("pretty") => Ok(Format::Pretty),
            Some("json") if !self.verbose => Ok(Format::Json),
            Some("table" | "json") => Err(wrong("`--verbose` and `--format` ask for different things".to_owned())),
            other => Err(wrong(format!(
                "invalid value of --format: {:?} is not `table`, `pretty` or `json`; templates are not read by this version",
                other.unwrap_or_default()
            ))),
        }
    }
}

/// Shows what is stored.
pub(super) fn du(args: &DuArgs, environment: &Environment) -> Result<ExitCode, Diagnostic> {
    let format = args.listing.format()?;
    let (filter, until) = filters(&args.filters)?;
    let root = args.state.enter(environment)?;
    let mut items = disk_usage(&root)?;
    items.retain(|item| filter.matches(item) && item.last_used.saturating_add(until) <= now().max(item.last_used));
    items.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    print(&items, format, |items| totals(items, format))?;
    Ok(ExitCode::SUCCESS)
}

fn totals(items: &[Item], format: Format) -> String {
    if format == Format::Json {
        return String::new();
    }
    let sum = |wanted: fn(&Item) -> bool| human_size(items.iter().filter(|item| wanted(item)).map(|i| i.size).sum());
    format!("Reclaimable:\t{}\nTotal:\t\t{}\n", sum(|item| !item.in_use), sum(|_| true))
}

/// Prints items and what follows from all of them.
pub(super) fn print(items: &[Item], format: Format, end: impl Fn(&[Item]) -> String) -> Result<(), Diagnostic> {
    let mut text = match format {
        Format::Table => table(items),
        Format::Pretty => items.iter().map(pretty).collect(),
        Format::Json => items.iter().filter_map(json).collect(),
    };
    text.push_str(&end(items));
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(closed_output(&error)),
        Ok(()) => Ok(()),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What may still change is marked, as buildx marks it.
fn marked(item: &Item) -> String {
    format!("{}{}", item.id, if item.mutable { "*" } else { "" })
}

fn table(items: &[Item]) -> String {
    let width = items.iter().map(|item| marked(item).len()).max().unwrap_or(0).max(32) + 2;
    let mut text = format!("{:width$}{:15}{:14}LAST ACCESSED\n", "ID", "RECLAIMABLE", "SIZE");
    for item in items {
        let (size, ago) = (human_size(item.size), ago(now().saturating_sub(item.last_used)));
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{:width$}{:<15}{size:14}{ago}", marked(item), !item.in_use);
    }
    text
}

fn pretty(item: &Item) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            // Descriptions quote Dockerfiles; writing to a text cannot fail.
            let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = writeln!(text, "{:16}{value}", format!("{name}:"));
        }
    };
    line("ID", &item.id);
    line("Parents", &item.parents.join(", "));
    line("Created at", &date(item.created));
    line("Mutable", &item.mutable.to_string());
    line("Reclaimable", &(!item.in_use).to_string());
    line("Shared", "false");
    line("Size", &human_size(item.size));
    line("Description", &item.description);
    line("Usage count", &item.usage_count.to_string());
    line("Last used", &ago(now().saturating_sub(item.last_used)));
    line("Type", item.kind.name());
    text.push('\n');
    sanitize::message(&text, crate::progress::Commands::Defuse)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    created_at: String,
    description: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    last_used_at: String,
    mutable: bool,
    parents: &'a [String],
    reclaimable: bool,
    shared: bool,
    size: String,
    #[serde(rename = "Type")]
    kind: &'a str,
    usage_count: u64,
}

fn json(item: &Item) -> Option<String> {
    let row = Row {
        created_at: date(item.created),
        description: &item.description,
        id: &item.id,
        last_used_at: date(item.last_used),
        mutable: item.mutable,
        parents: &item.parents,
        reclaimable: !item.in_use,
        shared: false,
        size: format!("{}B", item.size),
        kind: item.kind.name(),
        usage_count: item.usage_count,
    };
    serde_json::to_string(&row).ok().map(|line| line + "\n")
}

fn date(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    let format = &time::format_description::well_known::Rfc3339;
    time.and_then(|time| time.format(format).ok()).unwrap_or_default()
}

/// Bytes in units of 1000, four digits of them.
pub(super) fn human_size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    while value >= 1000.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let decimals = if value >= 1000.0 { 0 } else { 3 - (value.max(1.0).log10() as usize) };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

fn ago(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let text = match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        3600..7200 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    };
    text + " ago"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_written_as_docker_writes_them() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (8224, "8.224kB"),
            (811_700_000, "811.7MB"),
            (10_250_000_000, "10.25GB"),
            (318_000_000, "318MB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        for (seconds, text) in [(0, "Less than a second ago"), (36 * 60, "36 minutes ago"), (43 * 3600, "43 hours ago")]
        {
            assert_eq!(ago(seconds), text);
        }
    }
}
