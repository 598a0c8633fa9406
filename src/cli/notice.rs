//! What the user should know though nothing failed, and texts made fit for a terminal or a log.

use std::io::Write;

use super::args::{BuildArgs, ProgressMode};
use super::display;
use crate::config::Environment;
use crate::progress::{Commands, Event, Mode, Warning, sanitize};

/// Of a build that leaves nothing behind but its cache.
pub(super) const NO_OUTPUT: &str = "no output is asked for: the result stays in the state directory; --push, --load or --output say where it should go";

/// Tells one thing, in the form in which progress is told: quiet builds tell errors only.
pub(super) fn tell(args: &BuildArgs, environment: &Environment, text: &str) {
    match args.progress {
        _ if args.quiet => {}
        ProgressMode::Quiet => {}
        ProgressMode::Rawjson => tell_json(args, environment, text),
        ProgressMode::Auto | ProgressMode::Plain | ProgressMode::Tty => {
            // What stands here is told again by what follows from it; a closed standard error cannot be told.
            let _ = writeln!(std::io::stderr(), "{}", line(&format!("warning: {text}"), environment));
        }
    }
}

/// A program that reads JSON gets nothing else before the build has failed.
fn tell_json(args: &BuildArgs, environment: &Environment, text: &str) {
    let (_, options) = display::choose(args, environment);
    let mut json = crate::progress::display(Mode::RawJson, Box::new(std::io::stderr()), options);
    json.event(&Event::Warning(Warning::notice(text)));
    // A closed standard error cannot be told.
    let _ = json.finish();
}

/// Returns a text of several lines in which nothing moves a cursor or commands a runner: excerpts are foreign.
pub(super) fn printable(text: &str, environment: &Environment) -> String {
    text.split_inclusive('\n').map(|text| line(text.trim_end_matches('\n'), environment) + "\n").collect()
}

/// Tabs of a file are part of its layout, so they stay.
fn line(text: &str, environment: &Environment) -> String {
    let shown = text.split('\t').map(sanitize::escape).collect::<Vec<_>>().join("\t");
    match display::commands(environment) {
        Commands::Defuse => sanitize::defuse_commands(&shown),
        Commands::PassOn => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_cannot_command() {
        let plain = Environment::from_pairs([], false);
        assert_eq!(printable("a\tb\n\x1b[2Jc\n", &plain), "a\tb\n\\u{1b}[2Jc\n");
        let runner = Environment::from_pairs([("GITHUB_ACTIONS", "true")], false);
        assert!(!printable("::error::x\ny ##[group]z\n", &runner).contains("##["));
    }
}
