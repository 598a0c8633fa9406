//! eStargz: gzip that can be read file by file (stargz-snapshotter, docs/estargz.md).
//!
//! ```text
//! member  headers up to the first data           every member is a gzip stream of its own, so that a reader can begin there
//! member  data of a file, padding, headers       a file of more than [`CHUNK`] has a member per chunk
//! …
//! member  a tar of one file: the table of contents, JSON
//! footer  an empty member that says where that tar begins
//! ```
//!
//! In: a tar as a stream. Out: the blob, and what its descriptor must say. Invariants: the tar is kept byte for byte, with its end
//! marker, so that who reads the blob as plain gzip sees the same files, and the table stands behind that end; the output depends
//! on tar and level only; of the tar a few chunks are in memory, and of each member of it a line of the table.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::compress::Pool;
use super::entry::{Entry, EntryKind, MAX_EXTENDED};
use super::gzip;
use super::tar_reader::TarReader;
use super::tar_writer;
use crate::digest::{DiffId, Digest, Hasher};
use crate::sys::dir::Time;

const BLOCK: usize = 512;
/// Data of one member, as BuildKit's writer cuts it.
const CHUNK: u64 = 4 << 20;
/// Headers between data may be many.
const LONGEST: usize = 8 << 20;
/// Zeros at the end of a tar.
const MARKER: u64 = 2 * BLOCK as u64;
const TABLE: &str = "stargz.index.json";

/// What a descriptor says of an eStargz blob.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Toc {
    /// Digest of the table of contents.
    pub digest: Digest,
    /// Size of the tar, table included.
    pub size: u64,
}

/// The annotation with the digest of the table.
const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// The annotation with the size of the tar.
const TOC_SIZE: &str = "io.containers.estargz.uncompressed-size";

impl Toc {
    /// Returns the annotations of a descriptor.
    pub fn annotations(&self) -> [(String, String); 2] {
        [(TOC_DIGEST.into(), self.digest.to_string()), (TOC_SIZE.into(), self.size.to_string())]
    }

    /// Reads the annotations of a descriptor.
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let (digest, size) = (annotations.get(TOC_DIGEST)?, annotations.get(TOC_SIZE)?);
        Some(Self { digest: digest.parse().ok()?, size: size.parse().ok()? })
    }
}

/// A line of the table; names are the format's.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    name: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    modified: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    /// Number of the member until all are written, then where it begins.
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    chunk_digest: String,
}

#[derive(Serialize)]
struct Table<'a> {
    version: u32,
    entries: &'a [Line],
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Line {
    fn of(entry: &Entry) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let xattrs = entry.xattrs.iter().map(|(name, value)| (text(name), STANDARD.encode(value)));
        let is_device = matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        let device = if is_device { entry.device } else { (0, 0) };
        Self {
            name: text(&entry.name),
            r#type: kind(entry.kind),
            size: entry.size,
            modified: modified(entry.mtime),
            link_name: text(&entry.link),
            mode: u64::from(entry.mode),
            uid: u64::from(entry.uid),
            gid: u64::from(entry.gid),
            dev_major: u64::from(device.0),
            dev_minor: u64::from(device.1),
            xattrs: xattrs.collect(),
            ..Self::default()
        }
    }
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "reg",
        EntryKind::HardLink => "hardlink",
        EntryKind::Symlink => "symlink",
        EntryKind::CharDevice => "char",
        EntryKind::BlockDevice => "block",
        EntryKind::Directory => "dir",
        EntryKind::Fifo => "fifo",
    }
}

/// RFC 3339 in whole seconds; empty for what is none to the format.
fn modified(time: Time) -> String {
    let seconds = time.seconds + i64::from(time.nanoseconds >= 500_000_000);
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|_| seconds != 0);
    let text = time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_default()
}

/// Where in the tar the stream is.
#[derive(Debug)]
enum State {
    /// In the headers of a member, the bytes of which are kept, and how many more belong to an extended header.
    Headers { bytes: Vec<u8>, extended: u64 },
    /// In data: bytes of the file that are left, of its chunk that are left, padding that follows.
    Data { file: u64, chunk: u64, padding: u64 },
    /// In padding.
    Padding(u64),
    /// After the end marker's first block, with how many zeros so far.
    End(u64),
    /// In the table of a blob that was eStargz already, which is left out.
    OldTable,
}

/// The file whose data is passing.
#[derive(Debug)]
struct Passing {
    first: usize,
    size: u64,
    whole: Hasher,
    chunk: Hasher,
}

/// Makes an eStargz blob of the tar that is written to it.
#[derive(Debug)]
pub(super) struct EstargzWriter<W> {
    out: W,
    level: u32,
    pool: Pool<(Vec<u8>, u32), io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    /// Members given to the pool, and where those that came back end.
    members: u64,
    ends: Vec<u64>,
    written: u64,
    lines: Vec<Line>,
    state: State,
    passing: Option<Passing>,
    tar: Hasher,
}

/// A blob that is written.
#[derive(Debug)]
pub(super) struct Finished<W> {
    pub(super) out: W,
    pub(super) diff_id: DiffId,
    pub(super) toc: Toc,
}

fn refused(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn headers() -> State {
    State::Headers { bytes: Vec::new(), extended: 0 }
}

impl<W: Write> EstargzWriter<W> {
    pub(super) fn new(out: W, level: u32, threads: usize) -> Self {
        Self {
            out,
            level,
            pool: Pool::new(threads, |(data, level)| gzip::member(data, level)),
            buffer: Vec::new(),
            members: 0,
            ends: Vec::new(),
            written: 0,
            lines: Vec::new(),
            state: headers(),
            passing: None,
            tar: Hasher::new(),
        }
    }

    /// Writes the table of contents and the footer.
    pub(super) fn finish(mut self) -> io::Result<Finished<W>> {
        let zeros = match &self.state {
            State::Headers { bytes, .. } if bytes.is_empty() => 0,
            State::End(zeros) => *zeros,
            State::OldTable => MARKER,
            _ => return Err(refused("the tar ends too early")),
        };
        self.end_marker(zeros)?;
        self.end_member()?;
        while let Some(member) = self.pool.next()? {
            self.append(&member?)?;
        }
        let starts = |number: u64| number.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        for line in self.lines.iter_mut().filter(|line| !line.chunk_digest.is_empty()) {
            line.offset = starts(line.offset);
        }
        let table = serde_json::to_vec(&Table { version: 1, entries: &self.lines })?;
        let at = self.written;
        let tar = table_tar(&table)?;
        self.tar.update(&tar);
        self.append(&gzip::member(tar, self.level)?)?;
        self.out.write_all(&footer(at))?;
        let toc = Toc { digest: Digest::compute(&table), size: self.tar.length() };
        Ok(Finished { out: self.out, diff_id: DiffId(self.tar.finish()), toc })
    }

    /// Completes the end marker, without which the table would be one of the layer's files.
    fn end_marker(&mut self, zeros: u64) -> io::Result<()> {
        self.pass(&[0; MARKER as usize][zeros.min(MARKER) as usize..])
    }

    fn append(&mut self, member: &[u8]) -> io::Result<()> {
        self.written += member.len() as u64;
        self.ends.push(self.written);
        self.out.write_all(member)
    }

    /// Gives what has gathered to the compressing threads.
    fn end_member(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        while self.pool.is_full() {
            let Some(member) = self.pool.next()? else { break };
            self.append(&member?)?;
        }
        self.members += 1;
        let capacity = self.buffer.len().min(CHUNK as usize);
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(capacity));
        self.pool.submit((data, self.level))
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tar.update(bytes);
        self.buffer.extend_from_slice(bytes);
        let in_data = matches!(self.state, State::Data { .. });
        if !in_data && self.buffer.len() >= LONGEST { self.end_member() } else { Ok(()) }
    }

    /// Takes some of `bytes` and returns how many.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.state {
            State::Headers { .. } => self.take_header(bytes),
            State::Data { chunk, .. } => {
                let count = usize::try_from(*chunk).unwrap_or(usize::MAX).min(bytes.len());
                self.take_data(&bytes[..count])?;
                Ok(count)
            }
            State::Padding(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                if *left == 0 {
                    self.state = headers();
                }
                self.pass(&bytes[..count])?;
                Ok(count)
            }
            State::End(_) => self.take_rest(bytes),
            State::OldTable => Ok(bytes.len()),
        }
    }

    /// After the end there should be zeros; a table of contents that stands there is made anew.
    fn take_rest(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.iter().take_while(|byte| **byte == 0).count();
        if let State::End(zeros) = &mut self.state {
            *zeros += count as u64;
        }
        self.pass(&bytes[..count])?;
        // What is no zero is taken up again in the next state.
        if count < bytes.len() {
            if let State::End(zeros) = self.state {
                self.end_marker(zeros)?;
            }
            self.state = State::OldTable;
        }
        Ok(count)
    }

    fn take_header(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let State::Headers { bytes: gathered, extended } = &mut self.state else { return Ok(0) };
        let wanted = if *extended > 0 { *extended } else { (BLOCK - gathered.len() % BLOCK) as u64 };
        let count = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes.len());
        gathered.extend_from_slice(&bytes[..count]);
        if *extended > 0 {
            *extended -= count as u64;
        } else if gathered.len().is_multiple_of(BLOCK) {
            self.header()?;
        }
        Ok(count)
    }

    /// Looks at the block that has just come in whole.
    fn header(&mut self) -> io::Result<()> {
        let State::Headers { bytes, extended } = &mut self.state else { return Ok(()) };
        let block = tar::Header::from_byte_slice(&bytes[bytes.len() - BLOCK..]);
        if block.as_bytes() == &[0; BLOCK] {
            let bytes = std::mem::take(bytes);
            self.state = State::End(BLOCK as u64);
            return self.pass(&bytes);
        }
        if matches!(block.as_old().linkflag[0], b'x' | b'L' | b'K') {
            let size = block.entry_size()?;
            if size > MAX_EXTENDED || bytes.len() as u64 > 4 * MAX_EXTENDED {
                return Err(refused("an extended tar header is too long"));
            }
            *extended = size.next_multiple_of(BLOCK as u64);
            return Ok(());
        }
        let bytes = std::mem::take(bytes);
        let entry = TarReader::new(&bytes[..]).next().map_err(|error| refused(crate::diag::chain(&error)))?;
        let entry = entry.ok_or_else(|| refused("a tar header of an unknown type cannot be kept in eStargz"))?;
        if entry.sparse.is_some() {
            return Err(refused("a sparse file of a tar cannot be kept in eStargz"));
        }
        self.state = headers();
        self.pass(&bytes)?;
        self.member(&entry)
    }

    fn member(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = Line::of(entry);
        if line.name.trim_start_matches(['.', '/']) == TABLE {
            return Err(refused(format!("a layer with a file called /{TABLE} cannot be made eStargz")));
        }
        if entry.kind == EntryKind::File && entry.size == 0 {
            line.digest = Digest::compute(b"").to_string();
        }
        self.lines.push(line);
        if entry.size == 0 {
            return Ok(());
        }
        let (whole, chunk) = (Hasher::new(), Hasher::new());
        self.passing = Some(Passing { first: self.lines.len() - 1, size: entry.size, whole, chunk });
        let padding = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
        self.start_chunk(entry.size, padding)
    }

    fn start_chunk(&mut self, file: u64, padding: u64) -> io::Result<()> {
        self.end_member()?;
        self.state = State::Data { file, chunk: file.min(CHUNK), padding };
        Ok(())
    }

    fn take_data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let State::Data { file, chunk, padding } = &mut self.state else { return Ok(()) };
        (*file, *chunk) = (*file - bytes.len() as u64, *chunk - bytes.len() as u64);
        let (left, is_over, padding) = (*file, *chunk == 0, *padding);
        if let Some(passing) = &mut self.passing {
            passing.chunk.update(bytes);
            if passing.size > CHUNK {
                passing.whole.update(bytes);
            }
        }
        self.pass(bytes)?;
        if !is_over {
            return Ok(());
        }
        self.end_chunk(left);
        match left {
            0 if padding == 0 => self.state = headers(),
            0 => self.state = State::Padding(padding),
            _ => self.start_chunk(left, padding)?,
        }
        Ok(())
    }

    /// Notes the chunk that has just ended, with `left` bytes of the file still to come.
    fn end_chunk(&mut self, left: u64) {
        let Some(passing) = &mut self.passing else { return };
        let digest = std::mem::take(&mut passing.chunk).finish().to_string();
        let done = passing.size - left;
        let start = (done - 1) / CHUNK * CHUNK;
        let first = passing.first;
        if start > 0 {
            let name = self.lines[first].name.clone();
            self.lines.push(Line { name, r#type: "chunk", chunk_offset: start, ..Line::default() });
        }
        let whole = (left == 0).then(|| match passing.size > CHUNK {
            true => std::mem::take(&mut passing.whole).finish().to_string(),
            false => digest.clone(),
        });
        if let Some(line) = self.lines.last_mut() {
            // Of the last chunk the format leaves the size out, unless it is a full one.
            line.chunk_size = if done - start == CHUNK { CHUNK } else { 0 };
            (line.chunk_digest, line.offset) = (digest, self.members);
        }
        if let Some(whole) = whole {
            self.lines[first].digest = whole;
        }
    }
}

impl<W: Write> Write for EstargzWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.take(rest)?;
            rest = &rest[count..];
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn table_tar(table: &[u8]) -> io::Result<Vec<u8>> {
    let entry = Entry {
        kind: EntryKind::File,
        name: TABLE.into(),
        link: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        size: table.len() as u64,
        mtime: Time { seconds: 0, nanoseconds: 0 },
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    };
    let mut tar = tar_writer::header(&entry).map_err(io::Error::other)?;
    tar.extend_from_slice(table);
    tar.resize(tar.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    Ok(tar)
}

/// An empty gzip member of 51 bytes with the offset in its extra field.
fn footer(at: u64) -> Vec<u8> {
    let field = format!("{at:016x}STARGZ");
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];
    footer.extend_from_slice(&(field.len() as u16 + 4).to_le_bytes());
    footer.extend_from_slice(b"SG");
    footer.extend_from_slice(&(field.len() as u16).to_le_bytes());
    footer.extend_from_slice(field.as_bytes());
    // A last stored block of no bytes, then checksum and length, which are zero.
    footer.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    footer.resize(footer.len() + 8, 0);
    footer
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn entry(name: &str, kind: EntryKind, size: u64) -> Entry {
        let time = Time { seconds: 1_700_000_000, nanoseconds: 0 };
        let (link, xattrs) = (Vec::new(), vec![(b"user.a".to_vec(), vec![0, 255])]);
        let (mode, uid, gid, device) = (0o644, 1, 2, (0, 0));
        Entry { kind, name: name.into(), link, mode, uid, gid, size, mtime: time, device, xattrs, sparse: None }
    }

    fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut tar = tar_writer::header(&entry("d/", EntryKind::Directory, 0)).expect("header");
        for (name, data) in files {
            tar.extend(tar_writer::header(&entry(name, EntryKind::File, data.len() as u64)).expect("header"));
            tar.extend(data);
            tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        tar
    }

    fn pack(tar: &[u8], threads: usize, piece: usize) -> Finished<Vec<u8>> {
        let mut writer = EstargzWriter::new(Vec::new(), 3, threads);
        tar.chunks(piece).for_each(|piece| writer.write_all(piece).expect("write"));
        writer.finish().expect("finish")
    }

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        flate2::bufread::MultiGzDecoder::new(bytes).read_to_end(&mut all).expect("gunzip");
        all
    }

    /// Reads the table the way a reader of the format finds it.
    fn table(blob: &[u8]) -> (usize, Vec<u8>) {
        let footer = &blob[blob.len() - 51..];
        assert_eq!((&footer[12..14], &footer[32..38]), (&b"SG"[..], &b"STARGZ"[..]));
        let at = usize::from_str_radix(std::str::from_utf8(&footer[16..32]).expect("text"), 16).expect("hex");
        let tar = gunzip(&blob[at..blob.len() - 51]);
        let mut reader = TarReader::new(&tar[..]);
        let entry = reader.next().expect("tar").expect("member");
        assert_eq!(entry.name, TABLE.as_bytes());
        let mut bytes = Vec::new();
        reader.data().read_to_end(&mut bytes).expect("table");
        (at, bytes)
    }

    fn check(files: &[(String, Vec<u8>)], piece: usize) {
        let tar = tar(files);
        let packed = pack(&tar, 1, piece);
        let blob = &packed.out;
        assert_eq!(*blob, pack(&tar, 3, 1 << 20).out, "threads and pieces make no difference");
        let whole = gunzip(blob);
        assert!(whole.starts_with(&tar), "who reads it as gzip finds the tar");
        assert_eq!((packed.diff_id.0, packed.toc.size), (Digest::compute(&whole), whole.len() as u64));
        let (_, table) = table(blob);
        assert_eq!(packed.toc.digest, Digest::compute(&table));
        let table: Value = serde_json::from_slice(&table).expect("json");
        let lines = table["entries"].as_array().expect("entries");
        assert_eq!(lines[0]["xattrs"]["user.a"], "AP8=");
        for (name, data) in files {
            let own: Vec<&Value> = lines.iter().filter(|line| line["name"] == **name).collect();
            assert_eq!(own[0]["digest"], Digest::compute(data).to_string());
            let mut read = Vec::new();
            for line in own.iter().filter(|line| line["offset"] != Value::Null) {
                let number = |key: &str| line[key].as_u64().unwrap_or(0) as usize;
                assert_eq!(number("chunkOffset"), read.len());
                let rest = data.len() - read.len();
                let size = if number("chunkSize") == 0 { rest } else { number("chunkSize") };
                let mut chunk = vec![0; size];
                let mut member = flate2::bufread::GzDecoder::new(&blob[number("offset")..]);
                member.read_exact(&mut chunk).expect("a member per chunk");
                assert_eq!(line["chunkDigest"], Digest::compute(&chunk).to_string());
                read.extend(chunk);
            }
            assert!(read == *data, "{name}");
        }
    }

    #[test]
    fn every_file_can_be_read_alone() {
        let long = |length: usize| (0..length).map(|at| (at / 7) as u8).collect::<Vec<u8>>();
        let chunk = CHUNK as usize;
        let sizes = [0, 1, 511, 512, 513, chunk, chunk + 1];
        let files: Vec<(String, Vec<u8>)> = sizes.iter().map(|size| (format!("d/{size}"), long(*size))).collect();
        check(&files, 100_000);
        check(&[("d/n".repeat(90), vec![1; 700])], 1);
    }

    #[test]
    fn what_was_estargz_gets_one_table() {
        let tar = tar(&[("d/a".into(), b"one".to_vec())]);
        let once = pack(&tar, 1, 4096);
        let twice = pack(&gunzip(&once.out), 1, 700);
        assert_eq!((once.out, once.diff_id), (twice.out, twice.diff_id));
        // A tar without its end marker gets one, or the table would be taken for a file.
        assert_eq!(pack(&tar[..tar.len() - 2 * BLOCK], 1, 4096).out, pack(&tar, 1, 4096).out);
        assert_eq!(pack(&tar[..tar.len() - BLOCK], 1, 4096).out, pack(&tar, 1, 4096).out);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let fails = |tar: &[u8]| {
            let mut writer = EstargzWriter::new(Vec::new(), 3, 1);
            writer.write_all(tar).and_then(|()| writer.finish().map(drop)).is_err()
        };
        let good = tar(&[("d/a".into(), b"one".to_vec())]);
        assert!(!fails(&good));
        assert!(fails(&good[..good.len() - 2 * BLOCK - 100]), "it ends in a member");
        assert!(fails(&tar(&[(TABLE.into(), b"{}".to_vec())])));
        assert!(fails(&[7; 4096]));
        let mut global = good;
        global[156] = b'g';
        assert!(fails(&global));
    }

    proptest! {
        #[test]
        fn any_files_come_back(
            files in proptest::collection::btree_map("[a-z]{1,120}", proptest::collection::vec(any::<u8>(), 0..3000), 0..8),
            piece in 1usize..3000,
        ) {
            check(&files.into_iter().collect::<Vec<_>>(), piece);
        }
    }
}
