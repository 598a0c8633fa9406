//! One case: its inputs, its expected outputs, and what differs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild::diag::LineRange;
use rbuild::dockerfile::lint::LintWarning;
use rbuild::frontend::{FrontendError, Lowered, PlatformResult, Request, lower};
use rbuild::image::Platform;
use serde_json::Value;

use crate::bridge::Table;
use crate::compare;

/// Which words an error must be told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// Any; where it is counts.
    Any,
    /// BuildKit's, as the problem itself knows them: nothing is excused here.
    BuildKits,
}

/// Inputs of a case, and where its outputs are.
pub(crate) struct Case {
    pub(crate) path: PathBuf,
    pub(crate) request: Request,
    pub(crate) table: Table,
}

impl Case {
    pub(crate) fn read(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let options = json(&path.join("options.json")).unwrap_or(Value::Null);
        let opt: BTreeMap<String, String> = match options.get("opt") {
            Some(opt) => serde_json::from_value(opt.clone()).expect("opt"),
            None => BTreeMap::new(),
        };
        let platforms: Vec<String> = match options.get("worker_platforms") {
            Some(list) => serde_json::from_value(list.clone()).expect("worker_platforms"),
            None => vec!["linux/amd64".into()],
        };
        let file = opt.get("filename").map_or("Dockerfile", String::as_str).to_owned();
        let request = Request {
            dockerfile: std::fs::read(path.join(&file)).expect("Dockerfile"),
            dockerfile_name: file,
            options: opt,
            worker_platforms: platforms.iter().map(|p| p.parse::<Platform>().expect("platform")).collect(),
            session: "SESSION".into(),
            ..Request::default()
        };
        let table = Table::read(folder, &path, options.get("http"));
        Self { path, request, table }
    }

    /// Lowers, and returns what differs from what is expected.
    pub(crate) fn run(&self, words: Words) -> Vec<String> {
        let mut differences = compare::encoding(&self.path);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let outcome = runtime.block_on(lower(&self.request, &self.table));
        let expected_error = std::fs::read_to_string(self.path.join("error.txt")).ok();
        match (outcome, expected_error) {
            (Ok(lowered), None) => self.compare(&lowered, &mut differences),
            (Err(error), Some(expected)) => self.compare_error(&error, &expected, words, &mut differences),
            (Err(error), None) => differences.push(format!("unexpected error: {error}")),
            (Ok(_), Some(expected)) => differences.push(format!("no error, expected {expected:?}")),
        }
        differences
    }

    fn compare(&self, lowered: &Lowered, differences: &mut Vec<String>) {
        let files = std::fs::read_dir(&self.path).expect("case").map(|e| e.expect("entry").file_name());
        let expected = files.filter(|name| name.to_string_lossy().starts_with("llb")).count();
        if expected != lowered.results.len() {
            differences.push(format!("{} definitions, expected {expected}", lowered.results.len()));
        }
        let single = lowered.results.len() == 1 && self.path.join("llb.json").exists();
        for result in &lowered.results {
            let suffix = match single {
                true => String::new(),
                false => format!(".{}", result.platform.to_string().replace('/', "-")),
            };
            self.compare_platform(result, &suffix, differences);
        }
        self.compare_warnings(&lowered.warnings, differences);
    }

    fn compare_platform(&self, result: &PlatformResult, suffix: &str, differences: &mut Vec<String>) {
        let Some(expected) = json(&self.path.join(format!("llb{suffix}.json"))) else {
            differences.push(format!("no llb{suffix}.json"));
            return;
        };
        compare::definition(result, &expected, differences);
        let expected = json(&self.path.join(format!("image{suffix}.json"))).expect("image.json");
        let config = serde_json::to_value(&result.config).expect("config");
        compare::values("image", &config, &expected, differences);
    }

    fn compare_warnings(&self, warnings: &[LintWarning], differences: &mut Vec<String>) {
        let expected = json(&self.path.join("warnings.json")).unwrap_or(Value::Array(Vec::new()));
        let mut rows: Vec<(u32, &str, &str, Value)> = warnings.iter().map(row).collect();
        rows.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        let found = Value::Array(rows.into_iter().map(|row| row.3).collect());
        compare::values("warnings", &found, &expected, differences);
    }

    fn compare_error(&self, error: &FrontendError, expected: &str, words: Words, differences: &mut Vec<String>) {
        let (lines, message) = expected.trim_end_matches('\n').split_once('\n').expect("two lines");
        let problem = error.problems.first().expect("problem");
        let found = problem.buildkit_message();
        if words == Words::BuildKits && found != message {
            differences.push(format!("error: {found:?}, expected {message:?}"));
        }
        let found: Vec<String> = problem.buildkit_lines().iter().map(u32::to_string).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(" ") };
        if format!("lines: {found}") != lines {
            differences.push(format!("error lines: {found}, expected {lines}"));
        }
        self.compare_warnings(&error.warnings, differences);
    }
}

fn row(warning: &LintWarning) -> (u32, &str, &str, Value) {
    let line = warning.lines.first().map_or(0, |r: &LineRange| r.start);
    let mut lines: Vec<u32> = warning.lines.iter().flat_map(|r| r.start..=r.end).collect();
    lines.dedup();
    let mut value = serde_json::json!({
        "rule": warning.rule.name(), "message": warning.message, "line": line, "lines": lines,
    });
    let url = warning.rule.url();
    if !url.is_empty() {
        value["url"] = Value::String(url);
    }
    (line, warning.rule.name(), &warning.message, value)
}

/// Reads a JSON file, if there is one.
pub(crate) fn json(path: &Path) -> Option<Value> {
    let text = std::fs::read(path).ok()?;
    Some(serde_json::from_slice(&text).expect("valid JSON"))
}
