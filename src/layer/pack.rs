//! A layer's directory to the bytes of a blob in one pass: walk, tar, diff id, compression.
//!
//! In: a layer's directory. Out: bytes, and the tar's digest. Invariant: memory does not depend on the size of the layer. Three kinds of threads
//! share the work: this one walks and writes, one hashes the tar, all cores compress; a small layer starts none of them.

use std::io::{self, Read, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::LayerError;
use super::compress::{Compressor, default_level, threads};
use super::diff::write_tar;
use super::estargz::{EstargzWriter, Finished, Toc};
use crate::digest::{DiffId, Digest, Hasher, HashingReader};
use crate::image::media::Compression;
use crate::sys::dir::Dir;

/// Tar bytes given to the hashing thread at once.
const CHUNK: usize = 128 << 10;

/// How to pack a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOptions {
    /// How to compress.
    pub compression: Compression,
    /// How hard; none for the default.
    pub level: Option<i32>,
    /// Times after this one (seconds since 1970) become this one.
    pub latest: Option<i64>,
}

impl PackOptions {
    /// Returns the options for `compression` at its default level.
    pub fn new(compression: Compression) -> Self {
        Self { compression, level: None, latest: None }
    }

    /// Returns the level that will be used.
    pub fn level(&self) -> i32 {
        self.level.unwrap_or_else(|| default_level(self.compression))
    }

    fn gzip_level(&self) -> u32 {
        u32::try_from(self.level()).unwrap_or(0).min(9)
    }
}

/// A blob that was written.
#[derive(Debug)]
pub struct Packed<W> {
    /// What it was written to.
    pub out: W,
    /// Digest of the tar in it.
    pub diff_id: DiffId,
    /// What is to be said of its table of contents, if it has one.
    pub toc: Option<Toc>,
}

/// Packs the layer in `root` into `out`.
pub fn pack<W: Write>(root: &Dir, options: PackOptions, out: W) -> Result<Packed<W>, LayerError> {
    let failed = |source| LayerError::Pack { source };
    if options.compression == Compression::Estargz {
        let mut writer = EstargzWriter::new(out, options.gzip_level(), threads());
        write_tar(root, options.latest, &mut writer)?;
        return Ok(writer.finish().map_err(failed)?.into());
    }
    let compressor = Compressor::new(out, options.compression, options.level(), threads()).map_err(failed)?;
    let mut tee = Tee::new(compressor);
    write_tar(root, options.latest, &mut tee)?;
    let (compressor, diff_id) = tee.finish().map_err(failed)?;
    Ok(Packed { out: compressor.finish().map_err(failed)?, diff_id: DiffId(diff_id), toc: None })
}

/// Compresses a tar into `out`; of one that ends in eStargz's table of contents, that is made anew for eStargz and else kept.
pub fn convert<W: Write>(tar: &mut impl Read, options: PackOptions, out: W) -> io::Result<Packed<W>> {
    if options.compression == Compression::Estargz {
        let mut writer = EstargzWriter::new(out, options.gzip_level(), threads());
        io::copy(tar, &mut writer)?;
        return Ok(writer.finish()?.into());
    }
    let mut tar = HashingReader::new(tar);
    let mut out = Compressor::new(out, options.compression, options.level(), threads())?;
    io::copy(&mut tar, &mut out)?;
    Ok(Packed { out: out.finish()?, diff_id: DiffId(tar.finish().0), toc: None })
}

impl<W> From<Finished<W>> for Packed<W> {
    fn from(finished: Finished<W>) -> Self {
        Self { out: finished.out, diff_id: finished.diff_id, toc: Some(finished.toc) }
    }
}

/// Writes to `out` and hashes: on another thread once there is more than one chunk.
#[derive(Debug)]
struct Tee<W> {
    out: W,
    buffer: Vec<u8>,
    hashing: Option<Hashing>,
}

/// A thread that hashes.
#[derive(Debug)]
struct Hashing {
    chunks: SyncSender<Vec<u8>>,
    thread: JoinHandle<Digest>,
}

impl Hashing {
    fn start() -> io::Result<Self> {
        let (chunks, queue) = sync_channel::<Vec<u8>>(2);
        let thread = std::thread::Builder::new().name("hash".into()).spawn(move || {
            let mut hasher = Hasher::new();
            queue.iter().for_each(|chunk| hasher.update(&chunk));
            hasher.finish()
        })?;
        Ok(Self { chunks, thread })
    }

    fn hash(&self, chunk: Vec<u8>) -> io::Result<()> {
        self.chunks.send(chunk).map_err(|_| io::Error::other("the hashing thread ended"))
    }

    fn finish(self) -> io::Result<Digest> {
        drop(self.chunks);
        self.thread.join().map_err(|_| io::Error::other("the hashing thread panicked"))
    }
}

impl<W: Write> Tee<W> {
    fn new(out: W) -> Self {
        Self { out, buffer: Vec::with_capacity(CHUNK), hashing: None }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        match &self.hashing {
            Some(hashing) => hashing.hash(chunk),
            None => self.hashing.insert(Hashing::start()?).hash(chunk),
        }
    }

    fn finish(mut self) -> io::Result<(W, Digest)> {
        self.out.write_all(&self.buffer)?;
        let Some(hashing) = self.hashing else { return Ok((self.out, Digest::compute(&self.buffer))) };
        hashing.hash(self.buffer)?;
        Ok((self.out, hashing.finish()?))
    }
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == CHUNK {
            self.pass_on()?;
        }
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
