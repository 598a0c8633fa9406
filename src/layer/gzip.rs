//! One gzip member, compressed on all cores.
//!
//! In: bytes. Out: gzip (RFC 1952) and, on the side, the digest of the input. The input is cut into chunks; each is compressed on its
//! own with the 32 KiB before it as dictionary and flushed to a byte boundary, so that the pieces put together are one
//! deflate stream. Invariants: the output depends on input and level only, not on the number of threads; at most a few
//! chunks are in memory.

use std::io::{self, Write};
use std::sync::Arc;

use flate2::{Compress, Compression as Level, Crc, FlushCompress};

use super::compress::Pool;

/// Large enough that dictionary and flush cost nothing to speak of (512 KiB packs no better), small enough for 12 MB in all on two
/// cores.
pub(super) const CHUNK: usize = 256 << 10;
const WINDOW: usize = 32 << 10;
/// Magic, deflate, no flags, no time, no extra flags, unknown system: as Go writes it.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// Bytes tried at the start, middle and end of a chunk to see whether it compresses at all.
const SAMPLE: usize = 4 << 10;

/// A chunk to compress.
#[derive(Debug)]
struct Chunk {
    data: Arc<Vec<u8>>,
    /// The chunk before, for the dictionary.
    before: Option<Arc<Vec<u8>>>,
    last: bool,
    level: u32,
}

/// A chunk compressed.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    crc: Crc,
}

/// Compresses what is written to it.
#[derive(Debug)]
pub(super) struct GzipWriter<W> {
    out: W,
    level: u32,
    pool: Pool<Chunk, io::Result<Piece>>,
    buffer: Vec<u8>,
    before: Option<Arc<Vec<u8>>>,
    crc: Crc,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(mut out: W, level: u32, threads: usize) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        let buffer = Vec::with_capacity(CHUNK);
        Ok(Self { out, level, pool: Pool::new(threads, compress), buffer, before: None, crc: Crc::new() })
    }

    /// Compresses what is left and ends the member.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while let Some(piece) = self.pool.next()? {
            self.append(piece?)?;
        }
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.out)
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        let data = Arc::new(std::mem::replace(&mut self.buffer, Vec::with_capacity(if last { 0 } else { CHUNK })));
        let before = self.before.replace(Arc::clone(&data));
        while self.pool.is_full() {
            let Some(piece) = self.pool.next()? else { break };
            self.append(piece?)?;
        }
        self.pool.submit(Chunk { data, before, last, level: self.level })
    }

    fn append(&mut self, piece: Piece) -> io::Result<()> {
        self.crc.combine(&piece.crc);
        self.out.write_all(&piece.bytes)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == CHUNK {
            self.submit(false)?;
        }
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a whole member that holds `data`.
pub(super) fn member(data: Vec<u8>, level: u32) -> io::Result<Vec<u8>> {
    let piece = compress(Chunk { data: Arc::new(data), before: None, last: true, level })?;
    let mut member = HEADER.to_vec();
    member.extend_from_slice(&piece.bytes);
    member.extend_from_slice(&piece.crc.sum().to_le_bytes());
    member.extend_from_slice(&piece.crc.amount().to_le_bytes());
    Ok(member)
}

fn compress(chunk: Chunk) -> io::Result<Piece> {
    let mut crc = Crc::new();
    crc.update(&chunk.data);
    let level = if compresses(&chunk.data) { chunk.level } else { 0 };
    let mut deflate = Compress::new(Level::new(level), false);
    if let Some(before) = &chunk.before {
        deflate.set_dictionary(&before[before.len().saturating_sub(WINDOW)..]).map_err(io::Error::other)?;
    }
    let flush = if chunk.last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut bytes = Vec::with_capacity(chunk.data.len() / 2 + 64);
    loop {
        let read = deflate.total_in() as usize;
        deflate.compress_vec(&chunk.data[read..], &mut bytes, flush).map_err(io::Error::other)?;
        // Room that is left over means that all is flushed.
        if deflate.total_in() as usize == chunk.data.len() && bytes.len() < bytes.capacity() {
            return Ok(Piece { bytes, crc });
        }
        bytes.reserve(chunk.data.len() / 4 + 64);
    }
}

/// Looks at three samples: packed files cost 50 times less when stored as they are. Where some bytes are far more frequent than others
/// they compress for sure; else the fastest level is tried.
fn compresses(data: &[u8]) -> bool {
    if data.len() < 8 * SAMPLE {
        return true;
    }
    let starts = [0, (data.len() - SAMPLE) / 2, data.len() - SAMPLE];
    let samples = || starts.into_iter().map(|start| &data[start..start + SAMPLE]);
    if samples().any(is_uneven) {
        return true;
    }
    let mut deflate = Compress::new(Level::new(1), false);
    let mut out = Vec::with_capacity(SAMPLE * 2);
    samples().any(|sample| {
        deflate.reset();
        out.clear();
        let result = deflate.compress_vec(sample, &mut out, FlushCompress::Finish);
        result.is_err() || out.len() < SAMPLE - SAMPLE / 32
    })
}

/// Returns whether two bytes drawn from the sample are equal at least four times as often as if all values were equally frequent. Then
/// Huffman codes alone save more than [`compresses`] asks for.
fn is_uneven(sample: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    let equal: u64 = counts.iter().map(|count| count * count).sum();
    let drawn = sample.len() as u64;
    equal * 64 >= drawn * drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of which `zeros` in a hundred are zero and the others as good as random.
    fn mixed(zeros: u64) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..8 * SAMPLE).map(|_| if next() % 100 < zeros { 0 } else { (next() >> 32) as u8 }).collect()
    }

    #[test]
    fn uneven_bytes_need_no_trial() {
        assert!(is_uneven(b"a text is uneven, and so is a program, as some letters are rare"));
        assert!(is_uneven(&mixed(20)));
        assert!(!is_uneven(&mixed(0)) && !is_uneven(&mixed(5)));
    }

    #[test]
    fn what_is_random_is_stored_and_what_repeats_is_not() {
        assert!(!compresses(&mixed(0)));
        assert!(compresses(&mixed(20)));
        // All values are equally frequent, which only a trial sees through.
        let counted: Vec<u8> = (0..=255).cycle().take(8 * SAMPLE).collect();
        assert!(!is_uneven(&counted[..SAMPLE]) && compresses(&counted));
    }

    #[test]
    fn uneven_bytes_are_smaller_compressed() {
        let data = mixed(13);
        assert!(is_uneven(&data));
        let piece = compress(Chunk { data: Arc::new(data.clone()), before: None, last: true, level: 3 }).expect("gzip");
        assert!(piece.bytes.len() < data.len() - data.len() / 32, "{} of {}", piece.bytes.len(), data.len());
    }
}
