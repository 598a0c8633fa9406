//! Writes tar headers as Go's archive/tar does for containerd: ustar where it suffices, PAX records before it where not.
//!
//! In: members. Out: blocks. Invariants: equal members give equal bytes; times are whole seconds; no user or group names.

use std::collections::BTreeMap;

use super::entry::{Entry, EntryKind};
use super::error::shown;
use super::LayerError;

const BLOCK: usize = 512;
const NAME: usize = 100;
const PREFIX: usize = 155;

/// Returns the header blocks of a member; `entry.size` bytes of data, padded, follow those of a file.
pub(crate) fn header(entry: &Entry) -> Result<Vec<u8>, LayerError> {
    let mut records = records(entry);
    let split = split_name(&entry.name);
    if split.is_none() && (entry.name.len() > NAME || !entry.name.is_ascii()) {
        records.insert("path".into(), entry.name.clone());
    } else if !records.is_empty() && entry.name.len() > NAME {
        // With any record at all Go leaves the prefix field alone.
        records.insert("path".into(), entry.name.clone());
    }
    let mut blocks = Vec::new();
    let prefix = if records.is_empty() { split } else { None };
    if !records.is_empty() {
        blocks.extend_from_slice(&extended(&entry.name, &records)?);
    }
    let (prefix, name) = prefix.unwrap_or((b"", &entry.name));
    blocks.extend_from_slice(&member(entry, prefix, name));
    Ok(blocks)
}

/// What does not fit in the fields of a ustar header.
fn records(entry: &Entry) -> BTreeMap<String, Vec<u8>> {
    let mut records = BTreeMap::new();
    if entry.link.len() > NAME || !entry.link.is_ascii() {
        records.insert("linkpath".into(), entry.link.clone());
    }
    let numbers = [("uid", u64::from(entry.uid), 7), ("gid", u64::from(entry.gid), 7), ("size", entry.size, 11)];
    for (key, value, digits) in numbers {
        if value >= 1 << (3 * digits) {
            records.insert(key.into(), value.to_string().into_bytes());
        }
    }
    if !(0..1 << 33).contains(&entry.mtime.seconds) {
        records.insert("mtime".into(), entry.mtime.seconds.to_string().into_bytes());
    }
    for (key, value) in &entry.xattrs {
        records.insert(format!("SCHILY.xattr.{}", String::from_utf8_lossy(key)), value.clone());
    }
    records
}

/// Splits a long name in two for ustar's prefix and name fields, if it can be.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let end = if name.len() > PREFIX + 1 { PREFIX + 1 } else { name.len() - usize::from(name.ends_with(b"/")) };
    let slash = name[..end].iter().rposition(|byte| *byte == b'/')?;
    let rest = name.len() - slash - 1;
    if slash == 0 || rest > NAME || rest == 0 || slash > PREFIX {
        return None;
    }
    Some((&name[..slash], &name[slash + 1..]))
}

fn extended(name: &[u8], records: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, LayerError> {
    let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    if data.len() as u64 > super::entry::MAX_EXTENDED {
        return Err(LayerError::Limit { what: "an extended tar header", limit: super::entry::MAX_EXTENDED });
    }
    let mut fields = Fields::new(b'x');
    fields.text(0, NAME, &extended_name(name));
    for (at, width) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
        fields.octal(at, width, 0);
    }
    fields.octal(124, 12, data.len() as u64);
    let mut blocks = fields.finish().to_vec();
    blocks.extend_from_slice(&data);
    blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    Ok(blocks)
}

/// `dir/PaxHeaders.0/file`, as far as it is ASCII and fits.
fn extended_name(name: &[u8]) -> Vec<u8> {
    let at = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (dir, file) = name.split_at(at);
    let parts = [dir.strip_suffix(b"/").unwrap_or(dir), b"PaxHeaders.0", file];
    let joined = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'/');
    let mut ascii: Vec<u8> = joined.into_iter().filter(u8::is_ascii).take(NAME).collect();
    while ascii.ends_with(b"/") {
        ascii.pop();
    }
    ascii
}

/// The length at the start of a record counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() + rest != length {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn member(entry: &Entry, prefix: &[u8], name: &[u8]) -> [u8; BLOCK] {
    let mut fields = Fields::new(flag(entry.kind));
    fields.text(0, NAME, name);
    fields.octal(100, 8, u64::from(entry.mode));
    fields.octal(108, 8, u64::from(entry.uid));
    fields.octal(116, 8, u64::from(entry.gid));
    fields.octal(124, 12, entry.size);
    fields.octal(136, 12, u64::try_from(entry.mtime.seconds).unwrap_or(0));
    fields.text(157, NAME, &entry.link);
    fields.octal(329, 8, u64::from(entry.device.0));
    fields.octal(337, 8, u64::from(entry.device.1));
    fields.text(345, PREFIX, prefix);
    fields.finish()
}

fn flag(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}

/// Device numbers have no PAX record, so they must fit in their fields.
pub(crate) fn check_device(entry: &Entry) -> Result<(), LayerError> {
    if entry.device.0.max(entry.device.1) >= 1 << 21 {
        let reason = "its device number does not fit in a tar".to_owned();
        return Err(LayerError::Refused { name: shown(&entry.name), reason });
    }
    Ok(())
}

/// Fields of a header at their offsets.
struct Fields([u8; BLOCK]);

impl Fields {
    fn new(flag: u8) -> Self {
        let mut block = [0; BLOCK];
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        Self(block)
    }

    /// Writes what is ASCII of a text and fits; a name cut after a slash loses the slash, which would make it a directory.
    fn text(&mut self, at: usize, width: usize, text: &[u8]) {
        let ascii: Vec<u8> = text.iter().copied().filter(u8::is_ascii).collect();
        let mut fits = &ascii[..ascii.len().min(width)];
        while ascii.len() > width && fits.ends_with(b"/") {
            fits = &fits[..fits.len() - 1];
        }
        self.0[at..at + fits.len()].copy_from_slice(fits);
    }

    /// Writes octal digits and a NUL; a number with too many is in a PAX record and is written as zero here.
    fn octal(&mut self, at: usize, width: usize, value: u64) {
        let digits = width - 1;
        let value = if value < 1 << (3 * digits) { value } else { 0 };
        self.0[at..at + digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.octal(148, 7, sum);
        self.0[154] = 0;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for (length, expected) in [(0, "5 k=\n".to_owned()), (93, format!("99 k={}\n", "v".repeat(93)))] {
            assert_eq!(record("k", "v".repeat(length).as_bytes()), expected.as_bytes());
        }
        let over = record("k", "v".repeat(94).as_bytes());
        assert!(over.starts_with(b"101 k=") && over.len() == 101);
    }

    #[test]
    fn names_split_where_go_splits_them() {
        let long = [vec![b'd'; 60], vec![b'f'; 60]].join(&b'/');
        assert_eq!(split_name(&long), Some((&long[..60], &long[61..])));
        assert_eq!(split_name(&[b'a'; 100]), None);
        assert_eq!(split_name(&[b'a'; 200]), None);
        assert_eq!(split_name(&[vec![b'd'; 160], vec![b'f'; 10]].join(&b'/')), None);
    }
}
