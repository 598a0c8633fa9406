//! The parts of what is hashed into an op's digest, one by one, for who compares two builds.
//!
//! In: an op. Out: ingredients, taken from the JSON that is hashed: ops with equal ingredients have equal digests.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{exec, file};
use crate::explain::{Ingredient, Kind};
use crate::image::Platform;
use crate::llb::{OpKind, Vertex};

/// Returns the ingredients of an op that has all it is made of in itself; a source has none but what it resolves to.
pub fn ingredients(vertex: &Vertex, platform: &Platform) -> Vec<Ingredient> {
    let inputs = vertex.op.inputs.len();
    match &vertex.op.kind {
        Some(OpKind::Exec(op)) => of_exec(exec::hashed(op, platform)),
        Some(OpKind::File(op)) => {
            let (actions, indexes) = file::hashed(op, inputs);
            let mut found = Vec::new();
            for (at, action) in actions.iter().enumerate() {
                let action = serde_json::from_slice(action).unwrap_or_default();
                flatten(Kind::Command, &format!("{}", at + 1), &action, &mut found);
            }
            if !indexes.is_empty() {
                found.push(Ingredient::new(Kind::Command, "order", format!("{indexes:?}")));
            }
            found
        }
        Some(OpKind::Merge(op)) => vec![Ingredient::new(Kind::Command, "inputs", format!("{:?}", op.inputs))],
        Some(OpKind::Diff(op)) => {
            vec![Ingredient::new(Kind::Command, "inputs", format!("{} {}", op.lower, op.upper))]
        }
        Some(OpKind::Source(_)) | None => Vec::new(),
    }
}

fn of_exec(mut key: Value) -> Vec<Ingredient> {
    let mut found = Vec::new();
    let mut take = |pointer: &str| key.pointer_mut(pointer).map(Value::take);
    let (args, env) = (take("/Exec/meta/args"), take("/Exec/meta/env"));
    let mounts = take("/Exec/mounts");
    found.push(Ingredient::new(Kind::Command, "", words(args.as_ref())));
    variables(&texts(env.as_ref()), &mut found);
    for (at, mount) in mounts.iter().flat_map(|mounts| mounts.as_array()).flatten().enumerate() {
        let dest = mount.get("dest").and_then(Value::as_str).unwrap_or_default();
        let name = format!("{} {dest}", at + 1);
        found.push(Ingredient::new(Kind::Mount, name, mount.to_string()));
    }
    for name in ["OS", "Arch", "Variant", "OSVersion", "OSFeatures"] {
        let value = key.get_mut(name).map(Value::take);
        if let Some(value) = value.filter(|value| !value.is_null()) {
            found.push(Ingredient::new(Kind::Platform, name, text(&value)));
        }
    }
    flatten(Kind::Setting, "", &key, &mut found);
    found
}

fn texts(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().map(text).collect()
}

/// A shell's command as it is written, others as a list.
fn words(args: Option<&Value>) -> String {
    match &texts(args)[..] {
        [shell, flag, command] if flag == "-c" => format!("{shell} -c {command}"),
        args => serde_json::to_string(args).unwrap_or_default(),
    }
}

/// Variables by name, and their order, which counts too.
fn variables(env: &[String], found: &mut Vec<Ingredient>) {
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for variable in env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        names.push(name);
        // A name that stands twice is told apart by how often it stood before.
        let mut unique = name.to_owned();
        while !seen.insert(unique.clone()) {
            unique.push('\'');
        }
        found.push(Ingredient::new(Kind::Env, unique, value));
    }
    let sorted: BTreeSet<&str> = names.iter().copied().collect();
    if names.iter().copied().ne(sorted) {
        found.push(Ingredient::new(Kind::Setting, "order of variables", names.join(" ")));
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// One ingredient a leaf, named by the way to it.
fn flatten(kind: Kind, path: &str, value: &Value, found: &mut Vec<Ingredient>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let space = if path.is_empty() { "" } else { " " };
                flatten(kind, &format!("{path}{space}{name}"), value, found);
            }
        }
        leaf => found.push(Ingredient::new(kind, path, text(leaf))),
    }
}
