//! What a build was made of, beside its cache: an annotation of the cache's manifest.
//!
//! ```text
//! manifest.annotations["rbuild.explain.v1"] = base64(zstd(JSON {"record": …, "lists": {NAME: list of files}}))
//! ```
//!
//! In: a build's record and the lists it names. Out: the annotation, and the same back from foreign text. An annotation needs no
//! request of its own, is copied with the manifest, and no registry removes it as a blob that nothing names; BuildKit does not look
//! at it. Invariants: equal builds give equal text: what differs from one run to the next (ids, where results were found) is left
//! out; the text is at most [`LIMIT`] bytes, for which the longest lists are left out; what is read is bounded and may be anything.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::RemoteCacheError;
use crate::explain::{BuildRecord, StepOutcome};
use crate::image::media::Compression;
use crate::layer::compress::{Compressor, ZSTD_LEVEL};
use crate::layer::decompress::Decoder;

/// The annotation's name.
pub const ANNOTATION: &str = "rbuild.explain.v1";
/// Longest text: BuildKit reads no manifest of more than 1 MiB, and the layers of a large cache take most of that.
const LIMIT: usize = 384 << 10;
/// Most bytes of JSON that are read.
const PLAIN_LIMIT: u64 = 64 << 20;

/// A record and the lists of files it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildNote {
    /// The record.
    pub record: BuildRecord,
    /// Lists by name.
    pub lists: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Outgoing<'a> {
    record: &'a BuildRecord,
    lists: &'a BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Incoming {
    record: serde_json::Value,
    lists: BTreeMap<String, String>,
}

impl BuildNote {
    /// Takes of a record what others can use, with the lists that `list` has.
    pub fn new(record: &BuildRecord, list: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        let mut record = record.clone();
        (record.id, record.caches, record.report) = (String::new(), Vec::new(), None);
        for step in &mut record.steps {
            step.cache = None;
            if matches!(step.outcome, StepOutcome::Cached | StepOutcome::Covered) {
                step.outcome = StepOutcome::Ran;
            }
        }
        let names = record.steps.iter().flat_map(|step| &step.inputs).filter_map(|input| input.files.clone());
        let text = |name: &str| String::from_utf8(list(name)?).ok();
        let lists = names.filter_map(|name| Some((name.clone(), text(&name)?))).collect();
        Self { record, lists }
    }

    /// Returns the annotation's text; none if the record alone is too long.
    pub fn encode(&self) -> Option<String> {
        let mut lists = self.lists.clone();
        loop {
            let text = STANDARD.encode(compressed(&Outgoing { record: &self.record, lists: &lists })?);
            if text.len() <= LIMIT {
                return Some(text);
            }
            let longest = lists.iter().max_by_key(|(_, list)| list.len()).map(|(name, _)| name.clone())?;
            lists.remove(&longest);
        }
    }

    /// Reads an annotation.
    ///
    /// # Errors
    ///
    /// When it is not what this program writes.
    pub fn decode(text: &str) -> Result<Self, RemoteCacheError> {
        let invalid = |error: &dyn std::fmt::Display| {
            RemoteCacheError::invalid(format!("what is said of the build it is of cannot be read: {error}"))
        };
        if text.len() > LIMIT {
            return Err(invalid(&format!("it is longer than {LIMIT} bytes")));
        }
        let bytes = STANDARD.decode(text).map_err(|error| invalid(&error))?;
        let mut plain = Vec::new();
        let decoder = Decoder::new(&bytes[..]).map_err(|error| invalid(&error))?;
        decoder.take(PLAIN_LIMIT + 1).read_to_end(&mut plain).map_err(|error| invalid(&error))?;
        if plain.len() as u64 > PLAIN_LIMIT {
            return Err(invalid(&format!("it has more than {PLAIN_LIMIT} bytes")));
        }
        let Incoming { record, lists } = serde_json::from_slice(&plain).map_err(|error| invalid(&error))?;
        let record = serde_json::to_vec(&record).map_err(|error| invalid(&error))?;
        let record = BuildRecord::read(&record).map_err(|error| invalid(&crate::diag::chain(&error)))?;
        Ok(Self { record, lists })
    }
}

fn compressed(outgoing: &Outgoing<'_>) -> Option<Vec<u8>> {
    // Neither of them can fail in memory.
    let plain = serde_json::to_vec(outgoing).ok()?;
    let mut out = Compressor::new(Vec::new(), Compression::Zstd, ZSTD_LEVEL, 1).ok()?;
    out.write_all(&plain).ok()?;
    out.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{Ingredient, Kind, Step, StepInput};

    fn sample() -> BuildRecord {
        let input = |name: &str| StepInput { files: Some(name.into()), ..StepInput::default() };
        let step = |name: &str, inputs| Step {
            name: name.into(),
            platform: String::new(),
            outcome: StepOutcome::Cached,
            ignore_cache: false,
            source: false,
            cache: Some("somewhere".into()),
            ingredients: vec![Ingredient::new(Kind::Arg, "TOKEN", "hunter2").hide()],
            inputs,
        };
        let mut record = BuildRecord::new("id".into());
        record.steps =
            vec![step("context", Vec::new()), step("COPY", vec![input("short"), input("long"), input("gone")])];
        record
    }

    fn noise(length: usize) -> String {
        let digests = (0..length / 64 + 1).map(|n| crate::digest::Digest::compute(n.to_string()).hex().to_owned());
        digests.collect::<String>()
    }

    #[test]
    fn what_is_written_is_read_and_says_nothing_of_the_run() {
        let list = |name: &str| (name != "gone").then(|| format!("list {name}").into_bytes());
        let written = BuildNote::new(&sample(), list);
        assert_eq!(written.lists.len(), 2);
        let text = written.encode().expect("short");
        let read = BuildNote::decode(&text).expect("own");
        assert_eq!(read, written);
        let mut other = sample();
        (other.id, other.caches, other.steps[0].outcome) = ("other".into(), vec!["x".into()], StepOutcome::Ran);
        assert_eq!(BuildNote::new(&other, list).encode(), Some(text));
        assert_eq!((read.record.id.as_str(), &read.record.steps[1].cache), ("", &None));
        assert!(!serde_json::to_string(&read.record).expect("json").contains("hunter2"));
    }

    #[test]
    fn long_lists_are_left_out_first() {
        let list = |name: &str| Some(if name == "long" { noise(2 << 20) } else { noise(1000) }.into_bytes());
        let text = BuildNote::new(&sample(), list).encode().expect("fits");
        assert!(text.len() <= LIMIT);
        let names: Vec<String> = BuildNote::decode(&text).expect("own").lists.into_keys().collect();
        assert_eq!(names, ["gone", "short"]);
    }

    #[test]
    fn anything_else_is_an_error() {
        let packed = |json: &[u8]| {
            let mut out = Compressor::new(Vec::new(), Compression::Zstd, 1, 1).expect("zstd");
            out.write_all(json).expect("write");
            STANDARD.encode(out.finish().expect("finish"))
        };
        let bomb = packed(&vec![b' '; PLAIN_LIMIT as usize + 2]);
        for text in ["", "x", "eA==", &packed(b"{}"), &packed(b"[]"), &packed(br#"{"record":{},"lists":{}}"#), &bomb] {
            assert!(BuildNote::decode(text).is_err());
        }
        assert!(BuildNote::decode(&"A".repeat(LIMIT + 4)).is_err());
    }
}
