//! From a logical line to an instruction: splits keyword, flags and arguments, reads heredocs, checks what is said.
//!
//! In: a line and, for heredocs, the lines behind it. Out: [`Statement`]s. Two steps, as in the language's reference
//! implementation: the shape of the line first ([`Raw`]), its meaning after; errors of the first do not name the line.

use super::args::{self, Args};
use super::copy;
use super::device;
use super::error::Problem;
use super::flags::{self, Flags, Takes};
use super::healthcheck;
use super::instruction::{CommandLine, Heredoc, InstructionKind, KeyValue, RunInstruction, SourceLine};
use super::lint::{Linter, Rule};
use super::mount;
use super::text::split_once_blank;
use crate::diag::{Case, did_you_mean, nearest};

/// The instructions there are.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What a line says.
#[derive(Debug)]
pub(crate) enum Statement {
    /// `FROM`.
    From(FromLine),
    /// Anything else.
    Other(InstructionKind),
}

/// `FROM`.
#[derive(Debug, Default)]
pub(crate) struct FromLine {
    /// Image or stage.
    pub(crate) base: String,
    /// Name as written.
    pub(crate) name: String,
    /// `--platform`.
    pub(crate) platform: Option<String>,
}

/// A line split into its parts.
#[derive(Debug)]
pub(crate) struct Raw {
    /// Keyword, upper-cased.
    pub(crate) keyword: String,
    /// Flag words.
    pub(crate) flags: Vec<String>,
    /// What follows, as its grammar gives it.
    pub(crate) body: Body,
}

/// Arguments, by grammar.
#[derive(Debug)]
pub(crate) enum Body {
    /// Items.
    Args(Args),
    /// Names and values.
    Pairs(Vec<KeyValue>),
    /// Another instruction, and its text with the blanks behind it; none if there is no text.
    Nested(Option<(Box<Raw>, String)>),
}

impl Raw {
    /// Splits a line.
    pub(crate) fn parse(line: &str, escape: char) -> Result<Self, Problem> {
        Self::parse_at(line, escape, 0)
    }

    fn parse_at(line: &str, escape: char, depth: usize) -> Result<Self, Problem> {
        let (word, rest) = split_once_blank(line.trim());
        let (flags, text) = flags::split(rest.unwrap_or_default(), escape);
        let text = text.trim();
        let keyword = word.to_ascii_uppercase();
        let body = match keyword.as_str() {
            "ENV" | "LABEL" => Body::Pairs(args::key_values(text, &keyword, escape)?),
            "ARG" => Body::Args(Args { items: args::words(text, escape), json: false }),
            "FROM" | "EXPOSE" => Body::Args(args::list(text)),
            "ADD" | "COPY" | "VOLUME" => Body::Args(args::json_or_list(text)?),
            "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" => Body::Args(args::json_or_whole(text)?),
            "MAINTAINER" | "USER" | "WORKDIR" | "STOPSIGNAL" => Body::Args(args::whole(text)),
            "HEALTHCHECK" => Body::Args(healthcheck::arguments(text)?),
            // Chains are refused later; deeper ones need not be read.
            "ONBUILD" if text.is_empty() || depth > 1 => Body::Nested(None),
            "ONBUILD" => {
                let (_, trigger) = split_once_blank(line.trim_start());
                let trigger = trigger.unwrap_or_default().to_owned();
                Body::Nested(Some((Box::new(Self::parse_at(text, escape, depth + 1)?), trigger)))
            }
            _ => Body::Args(Args::default()),
        };
        Ok(Self { keyword, flags, body })
    }

    /// Tells whether heredocs may follow.
    pub(crate) fn may_have_heredocs(&self) -> bool {
        let raw = match &self.body {
            Body::Nested(Some((inner, _))) => inner,
            _ => self,
        };
        matches!(raw.keyword.as_str(), "ADD" | "COPY" | "RUN") && matches!(&raw.body, Body::Args(args) if !args.json)
    }

    fn items(&self) -> &[String] {
        match &self.body {
            Body::Args(args) => &args.items,
            Body::Pairs(_) | Body::Nested(_) => &[],
        }
    }

    fn is_json(&self) -> bool {
        matches!(&self.body, Body::Args(args) if args.json)
    }

    fn no_flags(&self) -> Result<(), Problem> {
        Flags::check(&self.flags, &[]).map(drop)
    }

    fn command(&self) -> CommandLine {
        CommandLine { args: self.items().to_vec(), shell: !self.is_json() }
    }
}

/// Reads what a line says.
pub(crate) fn interpret(raw: &Raw, source: &SourceLine, lint: &mut Linter) -> Result<Statement, Problem> {
    let items = raw.items();
    let kind = match raw.keyword.as_str() {
        "FROM" => return from(raw, source, lint).map(Statement::From),
        "ARG" => arg(items, source, lint)?,
        "ENV" => InstructionKind::Env(pairs(raw)?),
        "LABEL" => InstructionKind::Label(pairs(raw)?),
        "MAINTAINER" => {
            let message = "Maintainer instruction is deprecated in favor of using label";
            lint.instruction(Rule::MaintainerDeprecated, source, message);
            InstructionKind::Maintainer(exactly_one(raw)?)
        }
        "WORKDIR" => InstructionKind::Workdir(exactly_one(raw)?),
        "USER" => InstructionKind::User(exactly_one(raw)?),
        // Its flags are ignored.
        "STOPSIGNAL" => InstructionKind::StopSignal(one_item(raw)?),
        "RUN" => run(raw)?,
        "CMD" | "ENTRYPOINT" => command(raw)?,
        "SHELL" => shell(raw)?,
        "COPY" => copy::copy(&raw.flags, items, &source.heredocs)?,
        "ADD" => copy::add(&raw.flags, items, &source.heredocs)?,
        "EXPOSE" => {
            let mut ports = at_least_one(raw)?;
            ports.sort();
            InstructionKind::Expose(ports)
        }
        "VOLUME" => InstructionKind::Volume(volumes(at_least_one(raw)?)?),
        "HEALTHCHECK" => healthcheck::interpret(&raw.flags, items, raw.is_json())?,
        "ONBUILD" => onbuild(raw, source)?,
        _ => return Err(unknown_instruction(&source.keyword)),
    };
    Ok(Statement::Other(kind))
}

fn unknown_instruction(keyword: &str) -> Problem {
    let near = did_you_mean(keyword, KEYWORDS, Case::Insensitive);
    let problem = Problem::meaning(format!("unknown instruction: {keyword}{near}")).marking(keyword);
    let text = match near.is_empty() {
        false => return problem.hinted(usage(nearest(keyword, KEYWORDS, Case::Insensitive).unwrap_or_default())),
        true if ["<<<<<<<", "=======", ">>>>>>>"].contains(&keyword) => {
            "a merge left this line: settle it, and remove it"
        }
        true if keyword.ends_with(':') => {
            "this looks like YAML: an instruction has no colon, and `--file` names the Dockerfile"
        }
        true => "if this line continues the one above, end that one with the escape character, or use a heredoc",
    };
    problem.hinted(text)
}

/// What an instruction looks like.
fn usage(keyword: &str) -> String {
    let arguments = match keyword {
        "ADD" | "COPY" => "SOURCE DESTINATION",
        "ARG" => "NAME[=DEFAULT]",
        "CMD" | "ENTRYPOINT" | "RUN" => "COMMAND",
        "ENV" | "LABEL" => "NAME=VALUE",
        "EXPOSE" => "PORT[/PROTOCOL]",
        "FROM" => "IMAGE",
        "HEALTHCHECK" => "CMD COMMAND",
        "MAINTAINER" => "NAME",
        "ONBUILD" => "INSTRUCTION",
        "SHELL" => "[\"PROGRAM\", \"ARGUMENT\"]",
        "STOPSIGNAL" => "SIGNAL",
        "USER" => "USER[:GROUP]",
        "VOLUME" | "WORKDIR" => "PATH",
        _ => "ARGUMENTS",
    };
    format!("write `{keyword} {arguments}`")
}

fn needs_one(keyword: &str) -> Problem {
    Problem::meaning(format!("{keyword} requires at least one argument")).hinted(usage(keyword))
}

fn at_least_one(raw: &Raw) -> Result<Vec<String>, Problem> {
    if raw.items().is_empty() {
        return Err(needs_one(&raw.keyword));
    }
    raw.no_flags()?;
    Ok(raw.items().to_vec())
}

fn one_item(raw: &Raw) -> Result<String, Problem> {
    match raw.items() {
        [item] => Ok(item.clone()),
        _ => {
            Err(Problem::meaning(format!("{} requires exactly one argument", raw.keyword)).hinted(usage(&raw.keyword)))
        }
    }
}

fn exactly_one(raw: &Raw) -> Result<String, Problem> {
    let item = one_item(raw)?;
    raw.no_flags()?;
    Ok(item)
}

fn from(raw: &Raw, source: &SourceLine, lint: &mut Linter) -> Result<FromLine, Problem> {
    let items = raw.items();
    lint_from(items, source, lint);
    let (base, name) = match items {
        [base] => (base, ""),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, name.as_str()),
        _ => {
            return Err(Problem::meaning("FROM requires either one or three arguments")
                .hinted("write `FROM image` or `FROM image AS name`"));
        }
    };
    if items.len() == 3 && !is_stage_name(&name.to_lowercase()) {
        let message = format!(
            "invalid name for build stage: {}, name can't start with a number or contain symbols",
            super::goquote::quote(name)
        );
        return Err(Problem::meaning(message)
            .marking(name)
            .hinted("a stage name is a letter, then letters, digits, `-`, `_` and `.`"));
    }
    let flags = Flags::check(&raw.flags, &[("platform", Takes::One)])?;
    let platform = Some(flags.one("platform")).filter(|platform| !platform.is_empty());
    if !name.is_empty() {
        lint_description("FROM", &[name.to_lowercase().as_str()], source, lint);
    }
    Ok(FromLine { base: base.clone(), name: name.to_owned(), platform })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}

fn lint_from(items: &[String], source: &SourceLine, lint: &mut Linter) {
    if let [_, _, name] = items
        && *name != name.to_lowercase()
    {
        lint.instruction(Rule::StageNameCasing, source, format!("Stage name '{name}' should be lowercase"));
    }
    let [_, word, _, ..] = items else { return };
    let keyword = &source.keyword;
    let same_case = if *keyword == keyword.to_lowercase() {
        *word == word.to_lowercase()
    } else {
        *keyword != keyword.to_uppercase() || *word == word.to_uppercase()
    };
    if !same_case {
        let message = format!("'{word}' and '{keyword}' keywords' casing do not match");
        lint.instruction(Rule::FromAsCasing, source, message);
    }
}

fn lint_description(keyword: &str, names: &[&str], source: &SourceLine, lint: &mut Linter) {
    let Some(comment) = source.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&first) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { names[0] };
    let message = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    lint.instruction(Rule::InvalidDefinitionDescription, source, message);
}

/// `ARG`; its flags are ignored.
fn arg(items: &[String], source: &SourceLine, lint: &mut Linter) -> Result<InstructionKind, Problem> {
    if items.is_empty() {
        return Err(needs_one("ARG"));
    }
    let mut args = Vec::new();
    for item in items {
        args.push(match item.split_once('=') {
            Some(("", _)) => return Err(blank_name("ARG").marking(item.as_str())),
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (item.clone(), None),
        });
    }
    let names: Vec<&str> = args.iter().map(|(name, _)| name.as_str()).collect();
    lint_description("ARG", &names, source, lint);
    Ok(InstructionKind::Arg(args))
}

fn blank_name(keyword: &str) -> Problem {
    Problem::meaning(format!("{keyword} names can not be blank")).hinted(usage(keyword))
}

fn pairs(raw: &Raw) -> Result<Vec<KeyValue>, Problem> {
    raw.no_flags()?;
    let Body::Pairs(pairs) = &raw.body else { return Err(needs_one(&raw.keyword)) };
    if pairs.is_empty() {
        return Err(needs_one(&raw.keyword));
    }
    if let Some(pair) = pairs.iter().find(|pair| pair.key.is_empty()) {
        return Err(blank_name(&raw.keyword).marking(format!("={}", pair.value)));
    }
    Ok(pairs.clone())
}

fn run(raw: &Raw) -> Result<InstructionKind, Problem> {
    let known = [("mount", Takes::Many), ("network", Takes::One), ("security", Takes::One), ("device", Takes::Many)];
    let flags = Flags::check(&raw.flags, &known)?;
    let mounts = flags.many("mount");
    for text in &mounts {
        mount::from_of(text).map_err(|error| {
            Problem::meaning(error.to_string())
                .marking(text.as_str())
                .hinted("name a stage with `FROM image AS name`, where ARGs may be used, and write `from=name`")
        })?;
    }
    let (network, security) = (flags.one("network"), flags.one("security"));
    if flags.has("network") && !matches!(network.as_str(), "default" | "none" | "host") {
        let message = format!("invalid network mode {}", super::goquote::quote(&network));
        return Err(Problem::meaning(message).marking(network).hinted("write default, none or host"));
    }
    if flags.has("security") && !matches!(security.as_str(), "sandbox" | "insecure") {
        let message = format!("security {} is not valid", super::goquote::quote(&security));
        return Err(Problem::meaning(message).marking(security).hinted("write sandbox or insecure"));
    }
    let devices = flags.many("device");
    let devices = devices.iter().map(|text| {
        device::parse(text).map_err(|error| {
            let hint = "write `--device=VENDOR/CLASS=NAME`, and `,required` behind it if the step fails without it";
            Problem::meaning(error.to_string()).marking(text.as_str()).hinted(hint)
        })
    });
    let devices = devices.collect::<Result<_, _>>()?;
    Ok(InstructionKind::Run(RunInstruction { command: raw.command(), mounts, network, security, devices }))
}

fn command(raw: &Raw) -> Result<InstructionKind, Problem> {
    raw.no_flags()?;
    Ok(match raw.keyword.as_str() {
        "CMD" => InstructionKind::Cmd(raw.command()),
        _ => InstructionKind::Entrypoint(raw.command()),
    })
}

fn shell(raw: &Raw) -> Result<InstructionKind, Problem> {
    raw.no_flags()?;
    if raw.items().is_empty() {
        return Err(needs_one("SHELL"));
    }
    if !raw.is_json() {
        return Err(Problem::meaning("SHELL requires the arguments to be in JSON form")
            .hinted("write `SHELL [\"/bin/bash\", \"-c\"]`"));
    }
    Ok(InstructionKind::Shell(raw.items().to_vec()))
}

fn volumes(items: Vec<String>) -> Result<Vec<String>, Problem> {
    let volumes: Vec<String> = items.iter().map(|item| item.trim().to_owned()).collect();
    match volumes.iter().any(String::is_empty) {
        true => Err(Problem::meaning("VOLUME specified can not be an empty string").hinted(usage("VOLUME"))),
        false => Ok(volumes),
    }
}

fn onbuild(raw: &Raw, source: &SourceLine) -> Result<InstructionKind, Problem> {
    let Body::Nested(Some((inner, trigger))) = &raw.body else { return Err(needs_one("ONBUILD")) };
    raw.no_flags()?;
    match inner.keyword.as_str() {
        "ONBUILD" => {
            let problem = Problem::meaning("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
            return Err(problem.marking("ONBUILD ONBUILD").hinted("write the instruction once behind one ONBUILD"));
        }
        keyword @ ("FROM" | "MAINTAINER") => {
            let problem = Problem::meaning(format!("{keyword} isn't allowed as an ONBUILD trigger"));
            return Err(problem.hinted("a trigger is any other instruction: `ONBUILD RUN COMMAND`"));
        }
        _ => {}
    }
    let mut text = trigger.clone();
    for Heredoc { body, name, .. } in &source.heredocs {
        text.push('\n');
        text.push_str(body);
        text.push_str(name);
    }
    Ok(InstructionKind::Onbuild(text))
}
