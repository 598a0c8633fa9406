//! One case: its inputs, and what BuildKit made of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::layout::json;

/// A case of the folder.
pub(crate) struct Case {
    pub(crate) folder: PathBuf,
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) inputs: Inputs,
    pub(crate) cache_export: String,
    pub(crate) output: String,
    pub(crate) mutations: Vec<Mutation>,
}

/// What a build is given besides its context.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    pub(crate) dockerfile: String,
    pub(crate) opt: BTreeMap<String, String>,
    pub(crate) secret: BTreeMap<String, String>,
}

/// A change of the inputs, and the states of the steps after it.
#[derive(Debug)]
pub(crate) struct Mutation {
    pub(crate) name: String,
    pub(crate) changes: Vec<Value>,
    pub(crate) steps: Vec<(String, String)>,
}

impl Case {
    /// Reads a case.
    pub(crate) fn read(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let options = if path.join("options.json").exists() { json(&path.join("options.json")) } else { Value::Null };
        let map = |key: &str| -> BTreeMap<String, String> {
            options.get(key).map(|value| serde_json::from_value(value.clone()).unwrap()).unwrap_or_default()
        };
        let text = |key: &str| options[key].as_str().unwrap_or_default().to_owned();
        let file = options["opt"]["filename"].as_str().unwrap_or("Dockerfile").to_owned();
        let dockerfile = fs::read_to_string(path.join(file)).unwrap();
        let mutations =
            if path.join("mutations.json").exists() { json(&path.join("mutations.json")) } else { Value::Null };
        Self {
            inputs: Inputs { dockerfile, opt: map("opt"), secret: map("secret") },
            cache_export: text("cache_export"),
            output: text("output"),
            mutations: mutations.as_array().into_iter().flatten().map(mutation).collect(),
            folder: folder.to_owned(),
            name: name.to_owned(),
            path,
        }
    }

    /// The states of comparable steps in a column of `steps.txt` or its like.
    pub(crate) fn steps(&self, file: &str, column: &str) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.path.join(file)).unwrap();
        let mut lines = text.lines();
        let head = lines.next().unwrap();
        let at = head.split_whitespace().position(|word| word == column).unwrap();
        let name_at = head.find("STEP").unwrap();
        let step = |line: &str| {
            let state = line.split_whitespace().nth(at).unwrap().to_owned();
            (state, line[name_at..].to_owned())
        };
        let mut steps: Vec<_> = lines.map(step).filter(|(_, name)| is_comparable(name)).collect();
        steps.sort();
        steps
    }
}

fn mutation(value: &Value) -> Mutation {
    let steps: Vec<(String, String)> = serde_json::from_value(value["steps"].clone()).unwrap();
    let mut steps: Vec<_> = steps.into_iter().filter(|(_, name)| is_comparable(name)).collect();
    steps.sort();
    let changes = value["changes"].as_array().unwrap().clone();
    Mutation { name: value["name"].as_str().unwrap().to_owned(), changes, steps }
}

/// Whether a step's state says something: those of images and internal ones depend on timing.
pub(crate) fn is_comparable(name: &str) -> bool {
    let Some((head, command)) = name.split_once("] ") else { return false };
    let number = head.trim_start_matches('[').rsplit(' ').next().and_then(|number| number.split_once('/'));
    let is_step = number.is_some_and(|(step, of)| step.parse::<u32>().is_ok() && of.parse::<u32>().is_ok());
    head.starts_with('[') && is_step && !command.starts_with("FROM ")
}
