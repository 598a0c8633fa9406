//! What a build is asked to do, resolved from the command line and the environment; plain data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::ops::{Agents, Secrets};

/// A whole build.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Where the context comes from.
    pub context: ContextSource,
    /// Where the Dockerfile comes from.
    pub dockerfile: DockerfileSource,
    /// Options of the frontend, by the names that `buildctl build --opt` takes.
    pub options: BTreeMap<String, String>,
    /// Directories of named local contexts, by name.
    pub locals: BTreeMap<String, PathBuf>,
    /// OCI layouts, by the name of the context.
    pub layouts: BTreeMap<String, LayoutSource>,
    /// Entitlements that are granted.
    pub allow: Vec<String>,
    /// Secrets.
    pub secrets: Secrets,
    /// Ssh agents.
    pub agents: Agents,
}

/// An image of an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutSource {
    /// The directory.
    pub path: PathBuf,
    /// The tag, if one is named.
    pub tag: Option<String>,
    /// The digest, if one is named; counts more than the tag.
    pub digest: Option<Digest>,
}

/// Where the build context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A tar, possibly compressed, on standard input.
    StdinTar {
        /// Its first bytes, already read.
        head: Vec<u8>,
    },
    /// What the option `context` of the frontend names: a git repository or a URL.
    Remote,
    /// Nothing: only the Dockerfile was given, on standard input.
    Empty,
}

impl Default for ContextSource {
    fn default() -> Self {
        ContextSource::Directory(PathBuf::from("."))
    }
}

/// Where the Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DockerfileSource {
    /// `Dockerfile`, or `dockerfile`, at the root of the context.
    #[default]
    Default,
    /// A file of this machine, or of the context where the context is a tar.
    File(PathBuf),
    /// Standard input, already read.
    Inline(Vec<u8>),
}
