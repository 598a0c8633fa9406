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

#[cfg(test)]
mod tests {
    use super::*;

    /// What BuildKit's `describe` makes of its three definitions, to the letter.
    const JSON: &str = r#"[
  {
    "name": "frontend.outline",
    "version": "1.0.0",
    "type": "rpc",
    "description": "List all parameters current build target supports",
    "opts": [
      {
        "name": "target",
        "description": "Target build stage"
      }
    ],
    "inputs": null,
    "metadata": [
      {
        "name": "result.json",
        "description": ""
      },
      {
        "name": "result.txt",
        "description": ""
      }
    ],
    "refs": null
  },
  {
    "name": "frontend.targets",
    "version": "1.0.0",
    "type": "rpc",
    "description": "List all targets current build supports",
    "opts": [],
    "inputs": null,
    "metadata": [
      {
        "name": "result.json",
        "description": ""
      },
      {
        "name": "result.txt",
        "description": ""
      }
    ],
    "refs": null
  },
  {
    "name": "frontend.subrequests.describe",
    "version": "1.0.0",
    "type": "rpc",
    "description": "List available subrequest types",
    "opts": null,
    "inputs": null,
    "metadata": [
      {
        "name": "result.json",
        "description": ""
      },
      {
        "name": "result.txt",
        "description": ""
      }
    ],
    "refs": null
  }
]"#;

    const TEXT: &str = "\
NAME                 VERSION DESCRIPTION
outline              1.0.0   List all parameters current build target supports
targets              1.0.0   List all targets current build supports
subrequests.describe 1.0.0   List available subrequest types
";

    #[test]
    fn the_answer_is_buildkits_to_the_letter() {
        assert_eq!((answer().json.as_str(), answer().text.as_str()), (JSON, TEXT));
    }
}
