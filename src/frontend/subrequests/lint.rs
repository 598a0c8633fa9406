//! `frontend.lint`: the warnings of a Dockerfile, and what would stop a build of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::json::{Location, pretty};
use super::{Answer, Stages, carry_out};
use crate::diag::{self, LineRange};
use crate::dockerfile::lint::LintWarning;
use crate::frontend::bridge::Bridge;
use crate::frontend::{FrontendError, Options, Request};

#[derive(Debug, Serialize)]
struct Results<'a> {
    /// Go prints a list that nothing was put into as null.
    warnings: Option<Vec<Warning<'a>>>,
    sources: [Source<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
}

#[derive(Debug, Serialize)]
struct Warning<'a> {
    #[serde(rename = "ruleName")]
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    detail: &'a str,
    location: Location,
}

#[derive(Debug, Serialize)]
struct Source<'a> {
    filename: &'a str,
    data: String,
    language: &'static str,
}

#[derive(Debug, Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

/// Checks the target, or all stages where none is named.
pub(super) async fn answer(request: &Request, bridge: &dyn Bridge) -> Result<Answer, FrontendError> {
    let options = Options::parse(&request.options)?;
    let stages = if options.target.is_empty() { Stages::All } else { Stages::Needed };
    let (outcome, warnings) = carry_out(request, &options, stages, bridge, |_, _| ()).await;
    let failure = outcome.err();
    let json = pretty(&json(request, &warnings, failure.as_ref()));
    let count = warnings.len();
    let text = text(request, warnings);
    Ok(Answer { warnings: count, failure, ..Answer::new(json, text) })
}

fn json<'a>(request: &'a Request, warnings: &'a [LintWarning], failure: Option<&FrontendError>) -> Results<'a> {
    let warning = |warning: &'a LintWarning| Warning {
        rule_name: warning.rule.name(),
        description: warning.rule.description(),
        url: warning.rule.url(),
        detail: &warning.message,
        location: Location::new(&warning.lines),
    };
    let build_error = failure.map(|error| {
        let lines: Vec<LineRange> = error.problems.iter().flat_map(|problem| problem.ranges.iter().copied()).collect();
        BuildError { message: error.to_string(), location: Location::merged(&lines) }
    });
    let data = STANDARD.encode(&request.dockerfile);
    Results {
        warnings: (!warnings.is_empty()).then(|| warnings.iter().map(warning).collect()),
        sources: [Source { filename: &request.dockerfile_name, data, language: "Dockerfile" }],
        build_error,
    }
}

fn text(request: &Request, mut warnings: Vec<LintWarning>) -> String {
    warnings.sort_by_key(|warning| warning.lines.first().map_or(0, |range| range.start));
    let file: std::sync::Arc<str> = String::from_utf8_lossy(&request.dockerfile).into();
    let mut out = String::new();
    for warning in warnings {
        let url = warning.rule.url();
        let page = if url.is_empty() { url } else { format!(" - {url}") };
        out.push_str(&format!("\nWARNING: {}{page}\n{}\n", warning.rule.name(), warning.message));
        if !warning.lines.is_empty() {
            let (name, text) = (request.dockerfile_name.clone(), file.clone());
            let location = diag::Location { file: name, text, ranges: warning.lines, mark: None };
            out.push_str(&diag::excerpt(&location));
        }
    }
    out
}
