//! A result to where the user wants it: a registry, an archive, a directory, a daemon.
//!
//! ```text
//! --output text ─▶ spec::parse ─▶ ExportSpec ─┐
//! ImageResult (config, layers) ─▶ image::assemble ─▶ Image ─┬─▶ archive  oci and docker tars, also for `--load`
//!                                                           ├─▶ layout   OCI layout directories
//!                                                           └─▶ push     registries
//! manifests of registries ─▶ merge ─▶ an index
//! tree::Tree (a merged root) ───────────────────────────────┬─▶ files    a directory
//!                                                           └─▶ treetar  one tar
//! ```
//!
//! Invariants: the same image gives the same bytes, whatever the clock and the number of threads; a destination holds either
//! what it held before or the whole result; inside a destination directory no symbolic link is followed; nothing in an image
//! chooses a path, a program or a name on the host.

pub mod annotations;
pub mod archive;
pub mod checked;
mod complete;
pub mod destination;
mod draft;
pub mod error;
pub mod files;
pub mod image;
pub mod layout;
pub mod load;
pub mod merge;
pub mod metadata;
pub mod push;
pub mod spec;
pub mod stop;
mod sweep;
mod tarball;
pub mod tree;
pub mod treetar;

use std::io::{self, Read};
use std::sync::Arc;

use crate::digest::{DiffId, Digest};
use crate::image::media::Compression;
use crate::image::{ImageConfig, Platform, Reference};
use crate::layer::Toc;

pub use error::ExportError;
pub use image::{Image, ImageOptions, MediaTypes, assemble};
pub use spec::ExportSpec;

/// One platform's image as the build left it.
#[derive(Debug, Clone)]
pub struct ImageResult {
    /// The platform it runs on.
    pub platform: Platform,
    /// Its configuration as the frontend made it, still without layers and times.
    pub config: ImageConfig,
    /// The configuration of the image it started from.
    pub base_config: Option<ImageConfig>,
    /// Its layers, bottom first.
    pub layers: Vec<ExportLayer>,
    /// SOURCE_DATE_EPOCH of the build, in seconds.
    pub epoch: Option<i64>,
    /// Cache records to be kept in the configuration (`moby.buildkit.cache.v0`).
    pub inline_cache: Option<Vec<u8>>,
}

/// A layer that is ready to be written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size: u64,
    /// How the blob is compressed.
    pub compression: Compression,
    /// When the layer was made, RFC 3339.
    pub created: Option<String>,
    /// What made it; becomes its history where the frontend gave none.
    pub description: String,
    /// Repositories that are known to hold the blob, for mounting on push.
    pub origins: Vec<Reference>,
    /// What its descriptor says of its table of contents, if it has one.
    pub toc: Option<Toc>,
}

/// Gives the bytes of layer blobs. Called from blocking threads; may fetch what is not here yet.
pub trait Blobs: Send + Sync {
    /// Opens a blob from its start.
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>>;

    /// Takes notice of a blob that has other content than its digest says, so that it is not given again.
    fn reject(&self, _digest: &Digest) {}
}

impl<B: Blobs + ?Sized> Blobs for Arc<B> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        (**self).open(digest)
    }

    fn reject(&self, digest: &Digest) {
        (**self).reject(digest);
    }
}
