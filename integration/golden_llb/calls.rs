//! Answers of `--call`: the JSON of check, outline and targets against BuildKit's own.

use std::path::Path;

use rbuild::frontend::subrequests::{Call, call};
use rbuild::frontend::{FrontendError, Problem};
use serde_json::{Value, json};

use crate::case::{Case, json as read};
use crate::compare;

/// Calls, and the files of their results.
const CALLS: [(Call, &str); 3] = [(Call::Lint, "check"), (Call::Outline, "outline"), (Call::Targets, "targets")];

/// Answers all calls about a case, and returns what differs from what is expected.
pub(crate) fn differences(folder: &Path, name: &str) -> Vec<String> {
    let case = Case::read(folder, name);
    let mut differences = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    for (what, file) in CALLS {
        let outcome = runtime.block_on(call(&case.request, what, &case.table));
        let expected = read(&case.path.join(format!("{file}.json")));
        let refused = std::fs::read_to_string(case.path.join(format!("{file}.error"))).ok();
        match (outcome, expected, refused) {
            (Ok(answer), Some(mut expected), None) => {
                let mut found: Value = serde_json::from_str(&answer.json).expect("JSON");
                build_error(file, &mut found, &mut expected, answer.failure.as_ref(), &mut differences);
                compare::values(file, &found, &expected, &mut differences);
            }
            (Err(error), None, Some(message)) => {
                let found = error.problems.first().map_or("", Problem::buildkit_message);
                if found != message.trim_end_matches('\n') {
                    differences.push(format!("{file}: {found:?}, expected {message:?}"));
                }
            }
            (Ok(_), _, refused) => differences.push(format!("{file}: no error, expected {refused:?}")),
            (Err(error), ..) => differences.push(format!("{file}: unexpected error: {error}")),
        }
    }
    differences
}

/// Compares what stops a build: ours tells all mistakes and their own lines, so the first is put in BuildKit's words.
fn build_error(
    file: &str,
    found: &mut Value,
    expected: &mut Value,
    failure: Option<&FrontendError>,
    differences: &mut Vec<String>,
) {
    let take = |value: &mut Value| value.as_object_mut().and_then(|members| members.remove("buildError"));
    let (told, expected) = (take(found), take(expected).unwrap_or(Value::Null));
    if told.is_some() != failure.is_some() {
        differences.push(format!("{file}: buildError {told:?} for {failure:?}"));
    }
    let problem = failure.and_then(|failure| failure.problems.first());
    let position = |line: u32| if line == 0 { json!({}) } else { json!({"line": line}) };
    let found = problem.map_or(Value::Null, |problem| {
        let range = |line: u32| json!({"start": position(line), "end": position(line)});
        let ranges: Vec<Value> = problem.buildkit_lines().into_iter().map(range).collect();
        let location = if ranges.is_empty() { json!({}) } else { json!({"ranges": ranges}) };
        json!({"message": problem.buildkit_message(), "location": location})
    });
    compare::values(&format!("{file}: buildError"), &found, &expected, differences);
}
