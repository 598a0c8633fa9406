//! Cache maps of the LLB ops, equal to BuildKit's.
//!
//! In: ops as plain data, and for sources what they resolved to. Out: [`OpKey`]: the digests, and per input a selector and
//! the paths whose content makes a content key. Pure; the one JSON encoder is `image::canonical`.
//!
//! What enters the digest of an exec op: arguments, environment, directory, user, host names (not their addresses), limits,
//! network, confinement, ids of secrets (not their values), and of each mount everything but its selector; of a cache mount
//! only a default id. Not in it: proxies, memory and CPU limits. Of a file op: the actions, a copy's source by base name.

mod exec;
mod file;
mod ingredients;
mod source;
#[cfg(test)]
mod tests;

pub use exec::exec;
pub use file::file;
pub use ingredients::ingredients;
pub use source::{BlobKey, GitKey, HeaderField, HttpKey, ImageKey, LocalKey, blob, git, http, image, local};

use serde::Serialize;

use crate::checksum::Selector;
use crate::digest::Digest;
use crate::image::canonical;
use crate::llb::{DiffOp, MergeOp};
use crate::solver::{CacheDigest, CacheMap, InputKey};

/// An op's cache map, and what its content keys are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpKey {
    /// Digests and selectors.
    pub map: CacheMap,
    /// Per input, the content that makes its content key, in hashing order; none where it has no such key.
    pub content: Vec<Option<Vec<Selector>>>,
}

impl OpKey {
    fn plain(digest: Digest, inputs: usize) -> Self {
        let map = CacheMap { digests: vec![CacheDigest::Stable(digest)], inputs: vec![InputKey::default(); inputs] };
        Self { map, content: vec![None; inputs] }
    }

    fn set_input(&mut self, input: usize, selector: Option<Digest>, content: Option<Vec<Selector>>) {
        self.map.inputs[input] = InputKey { selector, content: content.is_some() };
        self.content[input] = content;
    }
}

#[derive(Serialize)]
struct Indexed {
    #[serde(skip_serializing_if = "is_default")]
    input: i64,
}

/// Returns the key of a merge op.
pub fn merge(op: &MergeOp) -> OpKey {
    #[derive(Serialize)]
    struct Inputs {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        inputs: Vec<Indexed>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Key {
        r#type: &'static str,
        merge: Inputs,
    }
    let inputs = op.inputs.iter().map(|&input| Indexed { input }).collect();
    OpKey::plain(hash(&Key { r#type: "buildkit.merge.v0", merge: Inputs { inputs } }), op.inputs.len())
}

/// Returns the key of a diff op.
pub fn diff(op: &DiffOp) -> OpKey {
    #[derive(Serialize)]
    struct Sides {
        lower: Indexed,
        upper: Indexed,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Key {
        r#type: &'static str,
        diff: Sides,
    }
    let sides = Sides { lower: Indexed { input: op.lower }, upper: Indexed { input: op.upper } };
    let inputs = usize::from(op.lower != -1) + usize::from(op.upper != -1);
    OpKey::plain(hash(&Key { r#type: "buildkit.diff.v0", diff: sides }), inputs)
}

fn hash<T: Serialize>(value: &T) -> Digest {
    Digest::compute(canonical::to_vec(value))
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Hashes texts separated by NUL.
fn join(texts: &[&str]) -> Digest {
    Digest::compute(texts.join("\0"))
}

/// Drops what is listed twice or lies below another; the rest sorted.
fn outermost(mut paths: Vec<String>) -> Vec<String> {
    paths.sort();
    paths.dedup();
    let below = |path: &String, other: &String| {
        let prefix = if other.ends_with('/') { other.clone() } else { format!("{other}/") };
        path != other && path.starts_with(&prefix)
    };
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| below(path, other)));
    paths
}

/// Go's `path.Clean` for an absolute path.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
