//! What a frontend asks of the outside: image configs, ignore files, times of remote sources.
//!
//! In: names and platforms. Out: small metadata, never file trees. The driver implements [`Bridge`]; tests use a table.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::diag::{Diagnose, Diagnostic, Kind};
use crate::digest::Digest;
use crate::image::{Platform, Reference};
use crate::llb::SourceOp;

/// How an image name is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolveMode {
    /// What is on this machine is used as far as the registry still says so.
    #[default]
    Default,
    /// The registry is always asked.
    Pull,
    /// What is on this machine is used.
    Local,
}

impl ResolveMode {
    /// Returns the value of the source attribute `image.resolvemode`; none for the default.
    pub fn attribute(self) -> Option<&'static str> {
        match self {
            ResolveMode::Default => None,
            ResolveMode::Pull => Some("pull"),
            ResolveMode::Local => Some("local"),
        }
    }
}

/// An image's identity and configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Digest of the manifest, or of the index if the name leads to one.
    pub digest: Digest,
    /// The configuration as stored.
    pub config: Vec<u8>,
}

/// Why the outside gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BridgeError {
    /// What kind of failure it is.
    pub kind: Kind,
    /// The whole message, causes included.
    pub message: String,
    /// What the user can do.
    pub hints: Vec<String>,
}

impl BridgeError {
    /// Takes over what a station's error says.
    pub fn from_error(error: &dyn Diagnose) -> Self {
        let Diagnostic { kind, message, hints, .. } = Diagnostic::from_error(error);
        Self { kind, message, hints }
    }

    /// Makes an error about something remote.
    pub fn remote(message: impl Into<String>) -> Self {
        Self { kind: Kind::Remote, message: message.into(), hints: Vec::new() }
    }
}

/// The answer to one question.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, BridgeError>>;

/// Answers a frontend's questions; several are asked at once.
pub trait Bridge: Send + Sync {
    /// Resolves an image name; `platform` chooses among those of an index.
    fn resolve_image<'a>(
        &'a self,
        reference: &'a Reference,
        platform: &'a Platform,
        mode: ResolveMode,
    ) -> Answer<'a, ResolvedImage>;

    /// Resolves an image of the OCI layout `store`; the reference carries the digest.
    fn resolve_oci_layout<'a>(
        &'a self,
        store: &'a str,
        reference: &'a Reference,
        platform: &'a Platform,
    ) -> Answer<'a, ResolvedImage>;

    /// Returns the first of `names` that exists in the local directory `local`, with its content.
    fn read_ignore<'a>(&'a self, local: &'a str, names: &'a [String]) -> Answer<'a, Option<(String, Vec<u8>)>>;

    /// Returns the time of an HTTP or git source in seconds since 1970: commit time, or `Last-Modified`.
    fn source_time<'a>(&'a self, source: &'a SourceOp) -> Answer<'a, Option<i64>>;

    /// Returns the first 1,024 bytes of a URL, to see whether a remote context is an archive.
    fn http_head<'a>(&'a self, url: &'a str) -> Answer<'a, Vec<u8>>;
}

impl fmt::Debug for dyn Bridge + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bridge")
    }
}
