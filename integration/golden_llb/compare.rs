//! Compares definitions, configurations and encodings by value, and says what differs.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild::digest::Digest;
use rbuild::frontend::PlatformResult;
use rbuild::llb::{Op, Vertex, encode, json};
use serde_json::{Value, json as value};

use crate::{case, decode};

/// Re-encodes every op of a case's expected definitions; bytes, digest and JSON must come out the same.
pub(crate) fn encoding(case: &Path) -> Vec<String> {
    let mut differences = Vec::new();
    for entry in std::fs::read_dir(case).expect("case") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if name.starts_with("llb") {
            let definition = case::json(&path).expect("definition");
            definition["ops"].as_array().expect("ops").iter().for_each(|op| recode(op, &mut differences));
        }
    }
    differences
}

fn recode(expected: &Value, differences: &mut Vec<String>) {
    let digest = expected["digest"].as_str().expect("digest");
    let op: Op = decode::op(&expected["op"]);
    let bytes = encode::op(&op);
    if STANDARD.encode(&bytes) != expected["raw"].as_str().expect("raw") {
        differences.push(format!("{digest}: encodes to other bytes"));
    } else if Digest::compute(&bytes).as_str() != digest {
        differences.push(format!("{digest}: other digest of the same bytes"));
    }
    values(&format!("{digest} as JSON"), &json::op(&op), &expected["op"], differences);
}

/// Compares a definition op for op.
pub(crate) fn definition(result: &PlatformResult, expected: &Value, differences: &mut Vec<String>) {
    values("platform", &value!(result.platform.to_string()), &expected["platform"], differences);
    values("epoch", &value!(result.epoch), &expected["epoch"], differences);
    values("ignore cache", &value!(result.ignore_cache), &flag(&expected["targetIgnoreCache"]), differences);
    let mut found: Vec<Value> = result.definition.vertices.iter().map(|v| row(v)).collect();
    if let Some((digest, bytes)) = result.definition.last_op() {
        let input = result.definition.result.as_ref().expect("result");
        let op = value!({"inputs": [{"digest": input.vertex.as_str()}]});
        found.push(value!({
            "digest": digest.as_str(), "inputs": [format!("{}:{}", input.vertex, input.index)],
            "op": op, "raw": STANDARD.encode(bytes),
        }));
    }
    let expected = expected["ops"].as_array().expect("ops");
    if found.len() != expected.len() {
        differences.push(format!("{} ops, expected {}", found.len(), expected.len()));
    }
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let before = differences.len();
        let mut here = Vec::new();
        values(&format!("op {at}"), found, expected, &mut here);
        // What follows from another digest below says nothing new.
        let own = |d: &String| ![".digest:", ".raw:", ".inputs"].iter().any(|part| d.contains(part));
        let first = differences.is_empty();
        differences.extend(here.into_iter().filter(|d| first || own(d)));
        if differences.len() > before + 12 {
            differences.truncate(before + 12);
        }
    }
}

fn flag(value: &Value) -> Value {
    Value::Bool(value.as_bool().unwrap_or(false))
}

/// Prints a vertex like a golden op.
fn row(vertex: &Vertex) -> Value {
    let inputs: Vec<String> = vertex.op.inputs.iter().map(|i| format!("{}:{}", i.digest, i.index)).collect();
    let mut row = value!({
        "digest": vertex.digest.as_str(),
        "inputs": inputs,
        "op": json::op(&vertex.op),
        "raw": STANDARD.encode(&vertex.bytes),
    });
    let metadata = &vertex.metadata;
    for (name, key) in [("name", "llb.customname"), ("command", "com.docker.dockerfile.v1.command")] {
        if let Some(text) = metadata.description.get(key).filter(|t| !t.is_empty()) {
            row[name] = value!(text);
        }
    }
    if metadata.ignore_cache {
        row["ignoreCache"] = value!(true);
    }
    if let Some(group) = &metadata.progress_group {
        row["progressGroup"] = value!(group.name);
        if group.weak {
            row["progressGroupWeak"] = value!(true);
        }
    }
    let lines: Vec<u32> = vertex.lines.iter().flat_map(|r| r.start..=r.end).collect();
    if !lines.is_empty() {
        row["lines"] = value!(lines);
    }
    row
}

/// Compares two JSON values and names the members that differ.
pub(crate) fn values(path: &str, found: &Value, expected: &Value, differences: &mut Vec<String>) {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let get = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                values(&format!("{path}.{key}"), &get(a), &get(b), differences);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                values(&format!("{path}[{at}]"), a, b, differences);
            }
        }
        _ if found != expected => differences.push(format!("{path}: {found}, expected {expected}")),
        _ => {}
    }
}
