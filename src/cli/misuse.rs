//! What is wrong with a command line, in the words of every other error: what, then what to type.
//!
//! In: an error of the argument parser. Out: a [`Diagnostic`]; the parser's own layout is for help and version only.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Cli;
use crate::diag::{Diagnostic, Kind, suggest};

/// Words that come before the flags.
const COMMANDS: [&str; 7] = ["build", "debug", "du", "explain", "help", "imagetools", "prune"];

/// Turns an error of the parser into a diagnostic; none for help and version, which are no errors.
pub(super) fn diagnostic(error: &clap::Error) -> Option<Diagnostic> {
    let told = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return None,
        ErrorKind::UnknownArgument => unknown_flag(error),
        ErrorKind::InvalidSubcommand => unknown_command(error),
        ErrorKind::InvalidValue => invalid_value(error),
        ErrorKind::ArgumentConflict => conflict(error),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => missing_command(error),
        _ => usage(first_line(error)).hinted(HELP),
    };
    Some(told)
}

fn missing_command(error: &clap::Error) -> Diagnostic {
    match error.render().to_string().contains("imagetools") {
        true => usage("`imagetools` wants a command".into())
            .hinted("write `rbuild imagetools create -t NAME SOURCE...` or `rbuild imagetools inspect NAME`"),
        false => usage("`debug` wants a command".into())
            .hinted("write `rbuild debug dump-llb [OPTIONS] [PATH]` or `rbuild debug config [OPTIONS]`"),
    }
}

/// Words up to this length are near to any other.
const SHORT: usize = 3;

const HELP: &str = "`rbuild --help` lists the flags and their values";

fn usage(message: String) -> Diagnostic {
    Diagnostic::new(Kind::Usage, message)
}

/// The parser's own words, without its colours, tips and usage.
fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

fn unknown_flag(error: &clap::Error) -> Diagnostic {
    let flag = text(error, ContextKind::InvalidArg);
    if !flag.starts_with('-') {
        return surplus(&flag);
    }
    let near = text(error, ContextKind::SuggestedArg);
    let told = usage(format!("unknown flag {flag}"));
    match near.as_str() {
        "" => told.hinted(HELP),
        near => told.hinted(format!("did you mean `{near}`?")),
    }
}

fn unknown_command(error: &clap::Error) -> Diagnostic {
    let word = text(error, ContextKind::InvalidSubcommand);
    let told = usage(format!("unknown command {word:?}"));
    let near = text(error, ContextKind::SuggestedSubcommand);
    match near.as_str() {
        "" => told.hinted(HELP),
        near => told.hinted(format!("did you mean `{near}`?")),
    }
}

fn invalid_value(error: &clap::Error) -> Diagnostic {
    let argument = text(error, ContextKind::InvalidArg);
    let flag = argument.split_whitespace().next().unwrap_or_default().to_owned();
    let (value, valid) = (text(error, ContextKind::InvalidValue), text(error, ContextKind::ValidValue));
    if value.is_empty() {
        return usage(format!("{flag} wants a value: {argument}")).hinted(HELP);
    }
    let told = usage(format!("invalid value of {flag}: {value:?} is none of {valid}"));
    match suggest(&value, valid.split(", ")).filter(|_| value.len() > SHORT) {
        Some(near) => told.hinted(format!("did you mean `{flag} {near}`?")),
        None => told.hinted(format!("write for example `{flag} {}`", valid.split(", ").next().unwrap_or_default())),
    }
}

/// The only conflict there is: words before a subcommand, or a second context, which the parser takes for one.
fn conflict(error: &clap::Error) -> Diagnostic {
    let word = text(error, ContextKind::InvalidSubcommand);
    match word.as_str() {
        "" => usage(first_line(error)).hinted(HELP),
        word if COMMANDS.contains(&word) => {
            usage(format!("`{word}` comes before its flags")).hinted(format!("write `rbuild {word} [OPTIONS] [PATH]`"))
        }
        word => surplus(word),
    }
}

/// A word behind the context: that of a command of two words, the first of which was taken for the context, or one too many.
fn surplus(word: &str) -> Diagnostic {
    let parser = <Cli as clap::CommandFactory>::command();
    let parent = parser.get_subcommands().find(|command| command.find_subcommand(word).is_some());
    match parent.map(clap::Command::get_name) {
        Some(parent) => usage(format!("`{parent} {word}` comes before its flags"))
            .hinted(format!("write `rbuild {parent} {word} [OPTIONS]`")),
        None => usage(format!("unexpected {word:?}: there is one context")).hinted("quote a value that has blanks"),
    }
}

/// Returns the command that a context which does not exist was meant to be.
pub(super) fn meant_command(context: &str) -> Option<&'static str> {
    let exact = COMMANDS.into_iter().find(|command| *command == context);
    exact.or_else(|| suggest(context, COMMANDS).filter(|_| context.len() > SHORT))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn every_command_is_known_where_a_context_is_expected() {
        let parser = <Cli as clap::CommandFactory>::command();
        let mut names: Vec<&str> = parser.get_subcommands().map(clap::Command::get_name).chain(["help"]).collect();
        names.sort_unstable();
        assert_eq!(names, COMMANDS);
        assert!(names.iter().all(|name| meant_command(name) == Some(name)));
    }

    #[test]
    fn each_mistake_has_its_words() {
        let table: [(&[&str], &str, &str); 12] = [
            (&["--taget=x"], "unknown flag --taget", "did you mean `--target`?"),
            (&["--frobnicate"], "unknown flag --frobnicate", HELP),
            (&["-Z"], "unknown flag -Z", HELP),
            (&["--progress=plian"], "invalid value of --progress: \"plian\" is none of auto", "`--progress plain`"),
            (&["--network", "bridge"], "\"bridge\" is none of default, host, none", ""),
            (&["a", "b"], "unexpected \"b\": there is one context", "quote"),
            (&["build", "a", "b"], "unexpected \"b\": there is one context", "quote"),
            (&["-t"], "--tag wants a value", HELP),
            (&["a", "build"], "`build` comes before its flags", "rbuild build [OPTIONS]"),
            (
                &["--debug", "imagetools", "create"],
                "`imagetools create` comes before its flags",
                "rbuild imagetools create",
            ),
            (&["--debug", "debug", "config"], "`debug config` comes before its flags", "rbuild debug config"),
            (&["debug", "dump-lb"], "unknown command \"dump-lb\"", "`dump-llb`"),
        ];
        for (words, message, hint) in table {
            let error = Cli::try_parse_from(std::iter::once(&"rbuild").chain(words)).expect_err("wrong");
            let told = diagnostic(&error).expect("an error");
            assert!(told.message.contains(message), "{words:?}: {told:?}");
            assert!(told.hints.concat().contains(hint), "{words:?}: {told:?}");
        }
        let help = Cli::try_parse_from(["rbuild", "--help"]).expect_err("help");
        assert_eq!(diagnostic(&help), None);
    }
}
