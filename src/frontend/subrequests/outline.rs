//! `frontend.outline`: what the target takes from outside. Caches are listed too, for which BuildKit has a place and no entries.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::json::{Location, pretty};
use super::table::table;
use super::{Answer, Stages, carry_out};
use crate::frontend::bridge::Bridge;
use crate::frontend::outline::{Outline, Used};
use crate::frontend::{FrontendError, Options, Request};

#[derive(Debug, Serialize)]
struct Json<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Need<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Need<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache: Vec<Cache<'a>>,
    sources: [String; 1],
}

#[derive(Debug, Serialize)]
struct Arg<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    location: Location,
}

#[derive(Debug, Serialize)]
struct Need<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Debug, Serialize)]
struct Cache<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    location: Location,
}

/// Sums up the target.
pub(super) async fn answer(request: &Request, bridge: &dyn Bridge) -> Result<Answer, FrontendError> {
    let options = Options::parse(&request.options)?;
    let outline = carry_out(request, &options, Stages::Needed, bridge, |lowering, target| lowering.outline(target));
    match outline.await {
        (Ok(outline), aside) => {
            let json = pretty(&json(&outline, &request.dockerfile));
            Ok(Answer { aside, ..Answer::new(json, text(&outline)) })
        }
        (Err(error), warnings) => Err(FrontendError { warnings, ..error }),
    }
}

fn json<'a>(outline: &'a Outline, dockerfile: &[u8]) -> Json<'a> {
    let arg = |used: &'a Used| Arg {
        name: &used.name,
        description: &used.description,
        value: &used.value,
        location: Location::new(&used.lines),
    };
    let need =
        |used: &'a Used| Need { name: &used.name, required: used.required, location: Location::new(&used.lines) };
    let cache = |used: &'a Used| Cache { id: &used.name, location: Location::new(&used.lines) };
    Json {
        name: &outline.name,
        description: &outline.description,
        args: outline.args.iter().map(arg).collect(),
        secrets: outline.secrets.iter().map(need).collect(),
        ssh: outline.agents.iter().map(need).collect(),
        cache: outline.caches.iter().map(cache).collect(),
        sources: [STANDARD.encode(dockerfile)],
    }
}

fn text(outline: &Outline) -> String {
    let mut out = String::new();
    let mut add = |block: String| {
        out.push_str(&block);
        out.push('\n');
    };
    if !outline.name.is_empty() {
        let rows = [["TARGET:", outline.name.as_str()], ["DESCRIPTION:", outline.description.as_str()]];
        add(table(1, if outline.description.is_empty() { &rows[..1] } else { &rows }));
    }
    if !outline.args.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"]];
        rows.extend(outline.args.iter().map(|used| [used.name.as_str(), &used.value, &used.description]));
        add(table(3, &rows));
    }
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.agents)] {
        if !list.is_empty() {
            let mut rows = vec![[title, "REQUIRED"]];
            rows.extend(list.iter().map(|used| [used.name.as_str(), if used.required { "true" } else { "" }]));
            add(table(3, &rows));
        }
    }
    if !outline.caches.is_empty() {
        let rows: Vec<[&str; 1]> =
            std::iter::once(["CACHE"]).chain(outline.caches.iter().map(|used| [used.name.as_str()])).collect();
        add(table(3, &rows));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As BuildKit prints it: one table after the other, each with a blank line behind it; caches are ours.
    #[test]
    fn the_text_is_one_table_after_the_other() {
        let used = |name: &str, value: &str, description: &str, required| Used {
            name: name.into(),
            value: value.into(),
            description: description.into(),
            required,
            lines: Vec::new(),
        };
        let mut outline = Outline {
            name: "app".into(),
            description: "is built".into(),
            args: vec![used("VERSION", "1.2", "is shown", false), used("NO", "", "", false)],
            secrets: vec![used("token", "", "", true), used("longer-token", "", "", false)],
            agents: vec![used("default", "", "", false)],
            caches: Vec::new(),
        };
        let expected = "\
TARGET:      app
DESCRIPTION: is built

BUILD ARG   VALUE   DESCRIPTION
VERSION     1.2     is shown
NO                  \n
SECRET         REQUIRED
token          true
longer-token   \n
SSH       REQUIRED
default   \n
";
        assert_eq!(text(&outline), expected);
        outline.description.clear();
        outline.caches = vec![used("/root/.cache", "", "", false)];
        assert!(text(&outline).starts_with("TARGET: app\n\nBUILD ARG"));
        assert!(text(&outline).ends_with("\nCACHE\n/root/.cache\n\n"));
        assert_eq!(text(&Outline::default()), "");
    }
}
