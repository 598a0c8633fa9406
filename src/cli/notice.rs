//! What the user should know though nothing failed.
//!
//! In: a text. Out: a line or a JSON object on standard error.

use std::io::Write;

use super::args::{BuildArgs, ProgressMode};
use super::display;
use crate::config::Environment;
use crate::progress::{Event, Mode, Warning, sanitize};

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
            let text = sanitize::message(&format!("warning: {text}\n"), display::commands(environment));
            let _ = std::io::stderr().write_all(text.as_bytes());
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
