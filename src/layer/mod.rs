//! Layers as bytes: tar in and out, whiteouts, compression.
//!
//! In: streams of bytes, directories. Out: directories, streams of bytes, digests. Invariants: what a layer says never
//! leads outside the directory it is unpacked into; the same tree gives the same bytes, whatever the number of threads;
//! nothing whole is held in memory.
//!
//! On disk a layer has overlay's form: a removed file is a character device 0:0 of its name, a directory that hides what is
//! below it carries `user.overlay.opaque=y`.

pub(crate) mod ahead;
pub mod apply;
pub mod archive;
pub(crate) mod compare;
pub mod compress;
pub(crate) mod copy;
pub mod decompress;
pub mod diff;
pub(crate) mod entry;
mod error;
mod estargz;
#[doc(hidden)]
pub mod fuzzing;
mod gzip;
mod pack;
pub(crate) mod place;
mod sparse;
mod tar_reader;
pub(crate) mod tar_writer;
mod times;

pub use error::{LayerError, more_ids};
pub use estargz::Toc;
pub use pack::{PackOptions, Packed, convert, pack};

use crate::digest::{DiffId, Digest};
use crate::image::media::Compression;

/// The extended attribute that makes a directory hide what layers below have there, with the value [`OPAQUE_VALUE`].
pub const OPAQUE: &str = "user.overlay.opaque";
/// The value of [`OPAQUE`] that counts.
pub const OPAQUE_VALUE: &[u8] = b"y";
/// Attributes with this prefix are overlay's own and never content.
pub const OVERLAY_PREFIX: &str = "user.overlay.";

/// A layer as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// How the tar is compressed in the blob.
    pub compression: Compression,
    /// What is to be said of its table of contents, if it has one.
    pub toc: Option<Toc>,
}

#[cfg(test)]
mod tests;
