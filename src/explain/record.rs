//! What is kept of a build: its steps and what their keys are made of, as JSON.

use serde::{Deserialize, Serialize};

use super::redact::redact;
use crate::digest::Digest;

/// The format that is written; others are not read.
const VERSION: u32 = 1;

/// Larger records are not read.
const LIMIT: usize = 16 << 20;

/// Longer values are kept as their digest.
const LONGEST: usize = 4 << 10;

/// Whether and how a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// It ran.
    Ran,
    /// A cache had its result.
    Cached,
    /// Nobody needed it.
    Covered,
    /// It failed.
    Failed,
    /// It was stopped.
    Canceled,
    /// The build ended before.
    NotReached,
}

/// What an ingredient is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What is run, or what is done to files.
    Command,
    /// A variable that only ARG declares.
    Arg,
    /// A variable of ENV or of the base image.
    Env,
    /// A variable that both ARG and ENV declare.
    Variable,
    /// What a source resolved to.
    Base,
    /// A mount.
    Mount,
    /// The platform.
    Platform,
    /// Anything else.
    Setting,
    /// A file; never in a record, only in what differs.
    File,
}

/// A part of a step's own key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingredient {
    /// What it is.
    pub kind: Kind,
    /// Its name; unique among those of one kind and step.
    pub name: String,
    /// Its value, or a digest of it.
    pub value: String,
    /// Whether the value is not to be shown: only its digest is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Digest of the value, where a part of that is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Digest>,
}

impl Ingredient {
    /// Makes an ingredient; of a long value the digest is kept, and nothing of what looks like a secret.
    pub fn new(kind: Kind, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        if value.len() > LONGEST {
            return Self { kind, name, value: Digest::compute(&value).to_string(), hidden: true, whole: None };
        }
        let kept = redact(&value);
        let whole = (kept != value).then(|| Digest::compute(&value));
        Self { kind, name, value: kept.into_owned(), hidden: false, whole }
    }

    /// Keeps a digest in place of the value.
    #[must_use]
    pub fn hide(self) -> Self {
        if self.hidden {
            return self;
        }
        let digest = self.whole.clone().unwrap_or_else(|| Digest::compute(&self.value));
        Self { value: digest.to_string(), hidden: true, whole: None, ..self }
    }
}

/// What a step reads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepInput {
    /// The step it comes from, which stands before.
    pub step: usize,
    /// Which output.
    pub output: usize,
    /// The content key, if it was made: then that decides, and not where the content comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// The list of files of that content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// As it is shown.
    pub name: String,
    /// Platform of the result it is for, where there are several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// How it ended.
    pub outcome: StepOutcome,
    /// Whether it was told not to use the cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_cache: bool,
    /// Whether it is a source, which is read when something needs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub source: bool,
    /// The cache that had its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Its own key.
    pub ingredients: Vec<Ingredient>,
    /// What it reads.
    pub inputs: Vec<StepInput>,
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    version: u32,
    /// Names the build.
    pub id: String,
    /// Where results were looked up, in this order.
    pub caches: Vec<String>,
    /// The flag that keeps steps from using the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<String>,
    /// The steps, each after those it reads.
    pub steps: Vec<Step>,
    /// What was said of the build when it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<super::Report>,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is larger than any record is.
    #[error("the record has {size} bytes, more than {LIMIT}")]
    TooLarge {
        /// How many it has.
        size: usize,
    },
    /// It is not JSON, or not that of a record.
    #[error("the record cannot be read")]
    Json(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("the record has version {version}, this program reads {VERSION}")]
    Version {
        /// Its version.
        version: u32,
    },
    /// A step reads one that does not stand before it.
    #[error("step {step} of the record reads one that does not come before it")]
    Order {
        /// The step.
        step: usize,
    },
}

impl BuildRecord {
    /// Starts a record without steps.
    pub fn new(id: String) -> Self {
        Self { version: VERSION, id, caches: Vec::new(), no_cache: None, steps: Vec::new(), report: None }
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// When it is not one this program has written.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > LIMIT {
            return Err(RecordError::TooLarge { size: bytes.len() });
        }
        let record: Self = serde_json::from_slice(bytes)?;
        if record.version != VERSION {
            return Err(RecordError::Version { version: record.version });
        }
        let backward = |(at, step): (usize, &Step)| step.inputs.iter().any(|input| input.step >= at).then_some(at);
        match record.steps.iter().enumerate().find_map(backward) {
            Some(step) => Err(RecordError::Order { step }),
            None => Ok(record),
        }
    }

    /// Returns the record as it is kept.
    ///
    /// # Errors
    ///
    /// When it would be too large to be read again.
    pub fn write(&self) -> Result<Vec<u8>, RecordError> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > LIMIT { Err(RecordError::TooLarge { size: bytes.len() }) } else { Ok(bytes) }
    }
}
