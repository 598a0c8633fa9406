//! HEALTHCHECK: its type, command, intervals and retries.
//!
//! In: flag words and arguments. Out: [`InstructionKind`].

use super::args::{self, Args};
use super::duration;
use super::error::Problem;
use super::flags::{Flags, Takes};
use super::goquote::quote;
use super::instruction::{HealthcheckInstruction, InstructionKind};

/// Shortest interval other than none, in nanoseconds.
const SHORTEST: i64 = 1_000_000;

/// Splits the type word from the command.
pub(crate) fn arguments(text: &str) -> Result<Args, Problem> {
    if text.is_empty() {
        return Ok(Args::default());
    }
    let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let command = args::json_or_whole(rest.trim_start())?;
    let mut items = vec![kind.to_owned()];
    items.extend(command.items);
    Ok(Args { items, json: command.json })
}

/// Reads HEALTHCHECK.
pub(crate) fn interpret(words: &[String], items: &[String], json: bool) -> Result<InstructionKind, Problem> {
    let Some((kind, command)) = items.split_first() else {
        return Err(Problem::meaning("HEALTHCHECK requires at least one argument"));
    };
    let check = match kind.to_uppercase().as_str() {
        // Its flags are ignored.
        "NONE" if command.is_empty() => {
            HealthcheckInstruction { test: vec!["NONE".to_owned()], ..HealthcheckInstruction::default() }
        }
        "NONE" => return Err(Problem::meaning("HEALTHCHECK NONE takes no arguments")),
        kind => with_flags(words, kind, command, json)?,
    };
    Ok(InstructionKind::Healthcheck(check))
}

fn with_flags(words: &[String], kind: &str, command: &[String], json: bool) -> Result<HealthcheckInstruction, Problem> {
    let known = ["interval", "timeout", "start-period", "start-interval", "retries"].map(|name| (name, Takes::One));
    let flags = Flags::check(words, &known)?;
    if kind != "CMD" {
        let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(kind));
        return Err(Problem::meaning(message).hinted("write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`"));
    }
    if command.is_empty() {
        return Err(Problem::meaning("Missing command after HEALTHCHECK CMD"));
    }
    let mut test = vec![if json { "CMD" } else { "CMD-SHELL" }.to_owned()];
    test.extend_from_slice(command);
    Ok(HealthcheckInstruction {
        test,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags.one("retries"))?,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<i64, Problem> {
    let text = flags.one(name);
    if text.is_empty() {
        return Ok(0);
    }
    let value = duration::parse(&text).map_err(|error| {
        Problem::meaning(error.to_string()).marking(text.as_str()).hinted("write a duration such as 30s or 1m30s")
    })?;
    match value {
        0 => Ok(0),
        SHORTEST.. => Ok(value),
        _ => Err(Problem::meaning(format!("Interval \"{name}\" cannot be less than 1ms")).marking(text)),
    }
}

fn retries(text: &str) -> Result<i64, Problem> {
    if text.is_empty() {
        return Ok(0);
    }
    let problem =
        |why: &str| Problem::meaning(format!("strconv.ParseInt: parsing {}: {why}", quote(text))).marking(text);
    // Go takes an underscore in no base but 0, and a sign, as Rust does.
    match text.parse::<i128>() {
        Ok(value) if value > i128::from(i32::MAX) || value < i128::from(i32::MIN) => Err(problem("value out of range")),
        Ok(value) if value < 0 => {
            Err(Problem::meaning(format!("--retries cannot be negative ({value})")).marking(text))
        }
        Ok(value) => Ok(value as i64),
        Err(_) => Err(problem("invalid syntax")),
    }
}
