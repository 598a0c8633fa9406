//! What is known of a layer besides its files: ROOT/snapshots/ID/meta.json.
//!
//! In and out: [`LayerInfo`]. Invariant: the file is replaced whole, by a rename, so a reader sees one version of it.

use std::ffi::OsStr;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::Chain;
use crate::digest::{ChainId, DiffId, Digest};
use crate::image::media::Compression;
use crate::layer::{BlobInfo, Toc};
use crate::store::Scratch;
use crate::sys::dir::Dir;

const NAME: &str = "meta.json";

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerInfo {
    /// The digest of the layer as a tar, once known.
    pub diff_id: Option<DiffId>,
    /// The blob it came from, or was last packed into.
    #[serde(skip)]
    pub blob: Option<BlobInfo>,
    /// When it was made (RFC 3339), if whoever made it said so.
    pub created: Option<String>,
    /// What made it.
    pub description: String,
    /// Sum of the sizes of its files.
    pub size: u64,
    /// Identity of the stack it was unpacked as the top of.
    pub chain_id: Option<ChainId>,
    /// Whether it hides anything of layers below it.
    pub hides: bool,
    /// The stack it was made for.
    pub parent: Chain,
    /// How users were mapped when it was made.
    pub(super) owners: String,
    /// Which start of the machine it was made in.
    pub(super) boot: String,
    /// How many of its files got root as owner because theirs was not mapped.
    pub squashed: u64,
    /// How many device files were left out because this user could not make them.
    pub devices: u64,
    /// All blobs known to hold it.
    pub(super) blobs: Vec<StoredBlob>,
}

/// A blob as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredBlob {
    diff_id: DiffId,
    digest: Digest,
    size: u64,
    media_type: String,
    /// How it was packed; none for one that was pulled.
    pub level: Option<i32>,
    /// What is to be said of its table of contents, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    toc: Option<Toc>,
}

impl StoredBlob {
    pub(super) fn new(blob: &BlobInfo, level: Option<i32>) -> Self {
        let media_type = blob.compression.oci_layer().to_owned();
        Self {
            diff_id: blob.diff_id.clone(),
            digest: blob.digest.clone(),
            size: blob.size,
            media_type,
            level,
            toc: blob.toc.clone(),
        }
    }

    pub(super) fn info(&self) -> Option<BlobInfo> {
        let toc = self.toc.clone();
        let compression = if toc.is_some() { Compression::Estargz } else { Compression::of_layer(&self.media_type)? };
        let (diff_id, digest) = (self.diff_id.clone(), self.digest.clone());
        Some(BlobInfo { diff_id, digest, size: self.size, compression, toc })
    }
}

impl LayerInfo {
    /// Reads what is known of the layer in `folder`.
    pub(super) fn load(folder: &Dir) -> io::Result<Self> {
        let mut info: Self = serde_json::from_reader(io::BufReader::new(folder.open_file(OsStr::new(NAME))?))?;
        info.blob = info.blobs.last().and_then(StoredBlob::info);
        Ok(info)
    }

    /// Writes it into a folder that nobody else sees yet.
    pub(super) fn create(&self, folder: &Dir) -> io::Result<()> {
        self.write(folder, OsStr::new(NAME))
    }

    /// Replaces what is written in `folder`.
    pub(super) fn replace(&self, folder: &Dir, scratch: &Scratch) -> io::Result<()> {
        let name = scratch.unused();
        self.write(scratch.dir(), &name)?;
        scratch.dir().rename(&name, folder, OsStr::new(NAME))
    }

    fn write(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        dir.create_file(name, 0o600)?.write_all(&serde_json::to_vec(self)?)
    }

    /// Adds a blob that holds the layer.
    pub(super) fn add_blob(&mut self, blob: &BlobInfo, level: Option<i32>) {
        self.diff_id = Some(blob.diff_id.clone());
        let stored = StoredBlob::new(blob, level);
        self.blobs.retain(|known| *known != stored);
        self.blobs.push(stored);
        self.blob = Some(blob.clone());
    }
}
