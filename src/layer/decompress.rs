//! Decompressing readers, chosen by what the bytes say.
//!
//! In: a stream. Out: its content, or the stream itself if it is not compressed. Invariants: bounded memory (a zstd window of at
//! most 128 MiB, an xz dictionary of as much) and bounded growth.

use std::fmt;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Largest zstd window, as a power of two: 128 MiB.
pub const ZSTD_WINDOW_LOG: u32 = 27;
/// Most memory an xz stream may ask for; level 9 takes 65 MiB.
pub const XZ_MEMORY: u64 = 128 << 20;
/// Most bytes that come out for one that goes in …
pub const MAX_RATIO: u64 = 200;
/// … beyond this many: a file of zeros, as databases and disk images make them, shrinks to a thousandth.
pub const RATIO_FREE: u64 = 4 << 30;

/// Compressed data that grows too much.
#[derive(Debug, thiserror::Error)]
#[error("compressed data grows beyond the limit of 4 GiB and {MAX_RATIO} times its size")]
pub struct Growth;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip, one or more members.
    Gzip,
    /// zstd.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

/// Bytes that [`detect`] needs to see.
const MAGIC: usize = 10;

/// Returns the compression that the first bytes of a stream tell.
pub fn detect(start: &[u8]) -> Codec {
    match start {
        [0x1f, 0x8b, 8, ..] => Codec::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
        // Frames to skip, 0x184D2A50 to 5F, which estargz-like writers put first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Codec::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Codec::Xz,
        _ => Codec::None,
    }
}

type Input<R> = BufReader<Counted<io::Chain<Cursor<Vec<u8>>, R>>>;

/// Decompresses a stream.
pub struct Decoder<'a> {
    codec: Codec,
    inner: Box<dyn Read + Send + 'a>,
    read: Arc<AtomicU64>,
    given: u64,
    free: u64,
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({:?}, {} bytes)", self.codec, self.given)
    }
}

impl<'a> Decoder<'a> {
    /// Looks at the first bytes of `input` and chooses.
    pub fn new<R: Read + Send + 'a>(mut input: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(MAGIC);
        input.by_ref().take(MAGIC as u64).read_to_end(&mut start)?;
        let codec = detect(&start);
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: Cursor::new(start).chain(input), count: Arc::clone(&read) };
        let inner = open(codec, BufReader::with_capacity(64 << 10, counted))?;
        Ok(Self { codec, inner, read, given: 0, free: RATIO_FREE })
    }

    /// Gives the stream another number of bytes than [`RATIO_FREE`] to grow.
    #[cfg(test)]
    pub(super) fn with_free(self, free: u64) -> Self {
        Self { free, ..self }
    }

    /// Returns how the stream is compressed.
    pub fn codec(&self) -> Codec {
        self.codec
    }
}

fn open<'a, R: Read + Send + 'a>(codec: Codec, input: Input<R>) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(input),
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Codec::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Codec::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags).map_err(io::Error::other)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
    })
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.given += count as u64;
        let allowed = self.read.load(Ordering::Relaxed).saturating_mul(MAX_RATIO).saturating_add(self.free);
        if self.codec != Codec::None && self.given > allowed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Growth));
        }
        Ok(count)
    }
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
