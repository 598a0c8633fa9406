//! `frontend.subrequests.describe`: which questions can be asked. Like BuildKit's the list leaves out the lint.

use serde::Serialize;

use super::Answer;
use super::json::pretty;
use super::table::table;

#[derive(Debug, Serialize)]
struct Subrequest {
    name: &'static str,
    version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    description: &'static str,
    opts: Option<&'static [Named]>,
    inputs: Option<&'static [Named]>,
    metadata: Option<&'static [Named]>,
    refs: Option<&'static [Named]>,
}

#[derive(Debug, Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

const RESULT: &[Named] =
    &[Named { name: "result.json", description: "" }, Named { name: "result.txt", description: "" }];

const fn subrequest(name: &'static str, description: &'static str, opts: Option<&'static [Named]>) -> Subrequest {
    let metadata = Some(RESULT);
    Subrequest { name, version: "1.0.0", kind: "rpc", description, opts, inputs: None, metadata, refs: None }
}

const ALL: [Subrequest; 3] = [
    subrequest(
        "frontend.outline",
        "List all parameters current build target supports",
        Some(&[Named { name: "target", description: "Target build stage" }]),
    ),
    subrequest("frontend.targets", "List all targets current build supports", Some(&[])),
    subrequest("frontend.subrequests.describe", "List available subrequest types", None),
];

/// Lists the questions.
pub(super) fn answer() -> Answer {
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"]];
    let name = |name: &'static str| name.strip_prefix("frontend.").unwrap_or(name);
    rows.extend(ALL.iter().map(|request| [name(request.name), request.version, request.description]));
    Answer::new(pretty(&ALL), table(1, &rows))
}
