//! Reads a tar member by member, the way Go's archive/tar reads it, so that nobody sees other files than BuildKit does.
//!
//! In: a stream. Out: [`Entry`] values and their data. Invariants: a size in a PAX record always wins; extended headers apply
//! to the next member only, never to one another; whatever is malformed fails the whole tar.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use super::LayerError;
use super::entry::{Entry, EntryKind, MAX_ENTRIES, MAX_EXTENDED, MAX_NAME, MAX_XATTR};
use super::sparse::{self, Segment};
use super::times;
use crate::sys::dir::Time;

const BLOCK: usize = 512;
const XATTR: &str = "SCHILY.xattr.";
const MAP: &str = "GNU.sparse.map";

/// Header fields of a member before PAX records are applied.
type Records = BTreeMap<String, Vec<u8>>;

/// Reads members of a tar.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    input: BufReader<R>,
    /// Bytes read so far.
    offset: u64,
    /// Where the current member starts.
    start: u64,
    /// Data of the current member not read yet.
    left: u64,
    /// Padding after that data.
    padding: u64,
    entries: u64,
}

/// Extended headers met before a member.
#[derive(Default)]
struct Extended {
    records: Records,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(input: R) -> Self {
        let input = BufReader::with_capacity(128 << 10, input);
        Self { input, offset: 0, start: 0, left: 0, padding: 0, entries: 0 }
    }

    /// Returns the next member, skipping what was not read of the one before.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut extended = Extended::default();
        let mut pending = false;
        loop {
            self.skip()?;
            self.start = self.offset;
            let Some(block) = self.header()? else {
                return if pending { Err(self.malformed("extended header without a member")) } else { Ok(None) };
            };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(LayerError::Limit { what: "the number of tar entries", limit: MAX_ENTRIES });
            }
            let header = Header::parse(&block).map_err(|reason| self.malformed(reason))?;
            self.left = header.size;
            self.padding = padding(header.size);
            match header.flag {
                // A later extended header of a kind replaces an earlier one.
                b'x' => extended.records = self.records()?,
                b'L' => extended.name = Some(self.long_text()?),
                b'K' => extended.link = Some(self.long_text()?),
                // To Go, whose reading counts, this is a member, and what was said before was said of it.
                b'g' => {
                    self.records()?;
                    (extended, pending) = (Extended::default(), false);
                    continue;
                }
                _ => return self.member(header, &block, extended).map(Some),
            }
            pending = true;
        }
    }

    /// Returns the data of the current member; of a file with holes, that of its segments one after the other.
    pub(crate) fn data(&mut self) -> impl Read + '_ {
        Data(self)
    }

    /// Reads the stream to its end, which may be after that of the tar.
    pub(crate) fn finish(mut self) -> Result<(), LayerError> {
        io::copy(&mut self.input, &mut io::sink()).map(drop).map_err(|source| LayerError::Read { source })
    }

    fn malformed(&self, reason: impl Into<String>) -> LayerError {
        LayerError::Malformed { offset: self.start, reason: reason.into() }
    }

    /// Reads a header; none at the end, which is two blocks of zeros or, as some writers leave these out, the end of the
    /// stream.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.block()? {
            Some(second) if second != [0; BLOCK] => Err(self.malformed("a single block of zeros")),
            _ => Ok(None),
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        if self.input.fill_buf().map_err(|source| LayerError::Read { source })?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        Ok(Some(block))
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), LayerError> {
        match self.input.read_exact(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.malformed("it ends too early")),
            Err(source) => Err(LayerError::Read { source }),
            Ok(()) => {
                self.offset += buffer.len() as u64;
                Ok(())
            }
        }
    }

    fn skip(&mut self) -> Result<(), LayerError> {
        let mut left = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        while left > 0 {
            let buffer = self.input.fill_buf().map_err(|source| LayerError::Read { source })?;
            if buffer.is_empty() {
                return Err(self.malformed("it ends too early"));
            }
            let count = (buffer.len() as u64).min(left);
            self.input.consume(count as usize);
            self.offset += count;
            left -= count;
        }
        Ok(())
    }

    /// Reads the whole data of an extended header.
    fn extended_data(&mut self) -> Result<Vec<u8>, LayerError> {
        if self.left > MAX_EXTENDED {
            return Err(LayerError::Limit { what: "an extended tar header", limit: MAX_EXTENDED });
        }
        let mut data = vec![0; self.left as usize];
        self.left = 0;
        self.read_exact(&mut data)?;
        Ok(data)
    }

    fn long_text(&mut self) -> Result<Vec<u8>, LayerError> {
        let data = self.extended_data()?;
        Ok(text(&data).to_vec())
    }

    fn records(&mut self) -> Result<Records, LayerError> {
        let data = self.extended_data()?;
        parse_records(&data).map_err(|reason| self.malformed(reason))
    }

    fn member(&mut self, header: Header, block: &[u8], extended: Extended) -> Result<Entry, LayerError> {
        let mut entry = header.entry();
        let size = apply_records(&mut entry, &extended.records).map_err(|reason| self.malformed(reason))?;
        // Empty ones say nothing.
        entry.name = extended.name.filter(|name| !name.is_empty()).unwrap_or(entry.name);
        entry.link = extended.link.filter(|link| !link.is_empty()).unwrap_or(entry.link);
        entry.kind = kind(header.flag, &entry.name).map_err(|reason| self.malformed(reason))?;
        entry.size = if entry.kind == EntryKind::File { size.unwrap_or(header.size) } else { 0 };
        self.left = entry.size;
        self.padding = padding(entry.size);
        self.read_sparse_map(&mut entry, (header.flag, block), &extended.records)?;
        check_limits(&entry)?;
        Ok(entry)
    }

    fn read_sparse_map(&mut self, entry: &mut Entry, header: (u8, &[u8]), records: &Records) -> Result<(), LayerError> {
        let (flag, block) = header;
        let numbers = if flag == b'S' {
            let size = number(&block[483..495]).and_then(|size| u64::try_from(size).ok());
            entry.size = size.ok_or_else(|| self.malformed("sparse file with a malformed size"))?;
            self.old_sparse_map(block)?
        } else if entry.kind == EntryKind::File && records.keys().any(|key| key.starts_with("GNU.sparse.")) {
            let Some(numbers) = self.pax_sparse_map(entry, records)? else { return Ok(()) };
            numbers
        } else {
            return Ok(());
        };
        let segments = sparse::segments(&numbers, entry.size).map_err(|reason| self.malformed(reason))?;
        if segments.iter().map(|segment| segment.length).sum::<u64>() != self.left {
            return Err(self.malformed("sparse map and data differ in size"));
        }
        entry.sparse = Some(segments);
        Ok(())
    }

    fn old_sparse_map(&mut self, block: &[u8]) -> Result<Vec<u64>, LayerError> {
        let pairs = |bytes: &[u8]| sparse::header_pairs(bytes, number);
        let mut numbers = pairs(&block[386..482]).map_err(|reason| self.malformed(reason))?;
        let mut more = block[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            numbers.extend(pairs(&block[..504]).map_err(|reason| self.malformed(reason))?);
            self.check_map(numbers.len() as u64 * 12)?;
            more = block[504] != 0;
        }
        Ok(numbers)
    }

    fn pax_sparse_map(&mut self, entry: &mut Entry, records: &Records) -> Result<Option<Vec<u64>>, LayerError> {
        let value = |key: &str| records.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
        let (major, minor) = (value("GNU.sparse.major"), value("GNU.sparse.minor"));
        let form = (major.as_deref().unwrap_or(""), minor.as_deref().unwrap_or(""));
        let map = value(MAP);
        let in_data = form == ("1", "0");
        if !in_data && map.is_none() && form != ("0", "0") && form != ("0", "1") {
            return Ok(None);
        }
        if let Some(name) = records.get("GNU.sparse.name").filter(|name| !name.is_empty()) {
            entry.name.clone_from(name);
        }
        if let Some(size) = value("GNU.sparse.size").or_else(|| value("GNU.sparse.realsize")) {
            entry.size = sparse::decimal(size.as_bytes()).map_err(|reason| self.malformed(reason))?;
        }
        if in_data {
            self.map_in_data().map(Some)
        } else {
            self.map_in_record(&map, value("GNU.sparse.numblocks")).map(Some)
        }
    }

    fn map_in_record(&self, map: &Option<String>, count: Option<String>) -> Result<Vec<u64>, LayerError> {
        let numbers = sparse::parse_list(map.as_deref().unwrap_or("")).map_err(|reason| self.malformed(reason))?;
        let count = sparse::decimal(count.unwrap_or_default().as_bytes()).map_err(|reason| self.malformed(reason))?;
        if count.checked_mul(2) != Some(numbers.len() as u64) {
            return Err(self.malformed("sparse map of another length than stated"));
        }
        Ok(numbers)
    }

    /// Reads the map that form 1.0 puts before the data: a count, then that many pairs, each number on a line.
    fn map_in_data(&mut self) -> Result<Vec<u64>, LayerError> {
        let mut data: Vec<u8> = Vec::new();
        let mut at = 0;
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = 1u64;
        while (numbers.len() as u64) < wanted {
            let Some(end) = data[at..].iter().position(|byte| *byte == b'\n') else {
                self.check_map(data.len() as u64)?;
                self.left = self.left.checked_sub(BLOCK as u64).ok_or_else(|| self.malformed("sparse map too long"))?;
                let mut block = [0; BLOCK];
                self.read_exact(&mut block)?;
                data.extend_from_slice(&block);
                continue;
            };
            let value = sparse::decimal(&data[at..at + end]).map_err(|reason| self.malformed(reason))?;
            at += end + 1;
            if numbers.is_empty() {
                wanted = value.saturating_mul(2).saturating_add(1);
            }
            numbers.push(value);
        }
        Ok(numbers.split_off(1))
    }

    fn check_map(&self, length: u64) -> Result<(), LayerError> {
        if length > MAX_EXTENDED {
            return Err(LayerError::Limit { what: "a sparse file's map", limit: MAX_EXTENDED });
        }
        Ok(())
    }
}

struct Data<'a, R>(&'a mut TarReader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.0.left).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        let count = self.0.input.read(&mut buffer[..limit])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.left -= count as u64;
        self.0.offset += count as u64;
        Ok(count)
    }
}

struct Header {
    flag: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    uid: i64,
    gid: i64,
    size: u64,
    mtime: i64,
    device: (i64, i64),
}

impl Header {
    fn parse(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        check_sum(block)?;
        let old = tar::Header::from_byte_slice(block).as_old();
        let field = |bytes: &[u8], error| number(bytes).ok_or(error);
        let size = u64::try_from(field(&old.size, "malformed size")?).map_err(|_| "negative size")?;
        let mut header = Self {
            flag: old.linkflag[0],
            name: text(&old.name).to_vec(),
            link: text(&old.linkname).to_vec(),
            mode: field(&old.mode, "malformed mode")? as u32 & 0o7777,
            uid: field(&old.uid, "malformed uid")?,
            gid: field(&old.gid, "malformed gid")?,
            size,
            mtime: field(&old.mtime, "malformed mtime")?,
            device: (0, 0),
        };
        header.parse_ustar(block)?;
        Ok(header)
    }

    /// Reads what POSIX and GNU added to the oldest form, each marked by its magic.
    fn parse_ustar(&mut self, block: &[u8; BLOCK]) -> Result<(), &'static str> {
        let header = tar::Header::from_byte_slice(block);
        let posix = &block[257..263] == b"ustar\0";
        if !posix && &block[257..265] != b"ustar  \0" {
            return Ok(());
        }
        // Both forms have the device numbers in the same place.
        let ustar = tar::Header::as_ustar(header)
            .map_or((&block[329..337], &block[337..345]), |ustar| (&ustar.dev_major[..], &ustar.dev_minor[..]));
        let device = number(ustar.0).zip(number(ustar.1));
        self.device = device.ok_or("malformed device number")?;
        let end = if &block[508..] == b"tar\0" { 476 } else { 500 };
        let prefix = text(&block[345..end]);
        if posix && !prefix.is_empty() {
            self.name = [prefix, b"/", &self.name].concat();
        }
        Ok(())
    }

    fn entry(&self) -> Entry {
        Entry {
            kind: EntryKind::File,
            name: self.name.clone(),
            link: self.link.clone(),
            mode: self.mode,
            uid: id(self.uid),
            gid: id(self.gid),
            size: self.size,
            mtime: Time { seconds: self.mtime, nanoseconds: 0 },
            device: (
                u32::try_from(self.device.0).unwrap_or(u32::MAX),
                u32::try_from(self.device.1).unwrap_or(u32::MAX),
            ),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

/// Ids that do not fit become the one id no file can have, which is refused when the file is made.
fn id(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// Returns the bytes before the first NUL.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Some old writers added up signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let stated = number(&block[148..156]).ok_or("malformed checksum")?;
    let bytes = || block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    if stated == unsigned || stated == signed { Ok(()) } else { Err("wrong checksum") }
}

/// Reads a numeric field: octal text, or base 256 if the first bit is set; none if malformed or over 63 bits.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 { base256(field) } else { octal(field) }
}

fn base256(field: &[u8]) -> Option<i64> {
    let inverted = if field[0] & 0x40 != 0 { 0xff } else { 0 };
    let mut value = 0u64;
    for (at, byte) in field.iter().enumerate() {
        let byte = (byte ^ inverted) & if at == 0 { 0x7f } else { 0xff };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if inverted == 0 { value } else { !value })
}

fn octal(field: &[u8]) -> Option<i64> {
    let edge = |byte: &u8| *byte == b' ' || *byte == 0;
    let Some(start) = field.iter().position(|byte| !edge(byte)) else { return Some(0) };
    let end = field.iter().rposition(|byte| !edge(byte)).map_or(start, |at| at + 1);
    let digits = text(&field[start..end]);
    if digits.is_empty() || !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    i64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// Reads `LENGTH KEY=VALUE\n` records.
fn parse_records(mut data: &[u8]) -> Result<Records, String> {
    let mut records = Records::new();
    let mut map: Vec<Vec<u8>> = Vec::new();
    while !data.is_empty() {
        let (key, value, rest) = parse_record(data).ok_or("malformed extended header")?;
        data = rest;
        let names_text = matches!(key, "path" | "linkpath" | "uname" | "gname");
        if if names_text { value.contains(&0) } else { key.contains('\0') } {
            return Err("NUL in an extended header".into());
        }
        // Form 0.0 of sparse files repeats a pair of keys, offsets and lengths in turn.
        match key {
            "GNU.sparse.offset" | "GNU.sparse.numbytes" => {
                if (key == "GNU.sparse.numbytes") != (map.len() % 2 == 1) || value.contains(&b',') {
                    return Err("malformed sparse map".into());
                }
                map.push(value.to_vec());
            }
            _ => drop(records.insert(key.to_owned(), value.to_vec())),
        }
    }
    if !map.is_empty() {
        records.insert(MAP.to_owned(), map.join(&b','));
    }
    Ok(records)
}

fn parse_record(data: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(sparse::decimal(&data[..space]).ok()?).ok()?;
    if length < space + 2 || length > data.len() || data[length - 1] != b'\n' {
        return None;
    }
    let record = &data[space + 1..length - 1];
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let key = std::str::from_utf8(&record[..equals]).ok()?;
    if key.is_empty() { None } else { Some((key, &record[equals + 1..], &data[length..])) }
}

/// Applies PAX records to a member and returns the size they state; an empty value leaves the header's.
fn apply_records(entry: &mut Entry, records: &Records) -> Result<Option<u64>, String> {
    let mut size = None;
    for (key, value) in records.iter().filter(|(key, value)| !value.is_empty() || key.starts_with(XATTR)) {
        let malformed = || format!("malformed {key}");
        let number = || sparse::decimal(value).map_err(|_| malformed());
        match key.as_str() {
            "path" => entry.name.clone_from(value),
            "linkpath" => entry.link.clone_from(value),
            "uid" => entry.uid = u32::try_from(number()?).unwrap_or(u32::MAX),
            "gid" => entry.gid = u32::try_from(number()?).unwrap_or(u32::MAX),
            "size" => size = Some(number()?),
            "mtime" => {
                let text = std::str::from_utf8(value).map_err(|_| malformed())?;
                entry.mtime = times::parse(text).ok_or_else(malformed)?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    entry.xattrs.push((name.as_bytes().to_vec(), value.clone()));
                }
            }
        }
    }
    Ok(size)
}

fn kind(flag: u8, name: &[u8]) -> Result<EntryKind, String> {
    Ok(match flag {
        b'0' | 0 if flag == 0 && name.ends_with(b"/") => EntryKind::Directory,
        b'0' | 0 | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => return Err(format!("unknown member type {:?}", char::from(other))),
    })
}

fn check_limits(entry: &Entry) -> Result<(), LayerError> {
    if entry.name.len().max(entry.link.len()) as u64 > MAX_NAME {
        return Err(LayerError::Limit { what: "the length of a name in a tar", limit: MAX_NAME });
    }
    if entry.xattrs.iter().any(|(_, value)| value.len() as u64 > MAX_XATTR) {
        return Err(LayerError::Limit { what: "an extended attribute in a tar", limit: MAX_XATTR });
    }
    Ok(())
}

/// Returns the segments of a member's data: one for a file without holes.
pub(crate) fn segments_of(entry: &Entry) -> Vec<Segment> {
    entry.sparse.clone().unwrap_or_else(|| vec![Segment { offset: 0, length: entry.size }])
}
