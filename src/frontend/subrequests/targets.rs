//! `frontend.targets`: the stages of a Dockerfile, from its text alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Answer;
use super::json::{Location, pretty};
use super::table::table;
use crate::frontend::outline::description;
use crate::frontend::{FrontendError, Options, Request, parse_all};

#[derive(Debug, Serialize)]
struct List<'a> {
    targets: Vec<Target<'a>>,
    sources: [String; 1],
}

#[derive(Debug, Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    base: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    platform: &'a str,
    location: Location,
}

/// Lists the stages.
pub(super) fn answer(request: &Request) -> Result<Answer, FrontendError> {
    let dockerfile = parse_all(request, &Options::parse(&request.options)?)?.dockerfile;
    let last = dockerfile.stages.len().saturating_sub(1);
    let targets = dockerfile.stages.iter().enumerate().map(|(at, stage)| Target {
        name: &stage.name,
        default: at == last,
        description: description(&stage.source.comments, &stage.name),
        base: &stage.base,
        platform: stage.platform.as_deref().unwrap_or_default(),
        location: Location::new(&stage.source.lines),
    });
    let list = List { targets: targets.collect(), sources: [STANDARD.encode(&request.dockerfile)] };
    Ok(Answer::new(pretty(&list), text(&list.targets)))
}

fn text(targets: &[Target<'_>]) -> String {
    let name = |target: &Target<'_>| match (target.name, target.default) {
        ("", true) => "(default)".to_owned(),
        (name, true) => format!("{name} (default)"),
        (name, false) => name.to_owned(),
    };
    let names: Vec<String> = targets.iter().map(name).collect();
    let mut rows = vec![["TARGET", "DESCRIPTION"]];
    rows.extend(names.iter().zip(targets).map(|(name, target)| [name.as_str(), target.description.as_str()]));
    table(1, &rows)
}
