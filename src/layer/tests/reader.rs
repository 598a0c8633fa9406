//! Malformed and ambiguous tars: one reading or an error.

use super::super::entry::{Entry, EntryKind};
use super::super::tar_reader::TarReader;
use super::{Scene, Tar, entry};
use crate::layer::LayerError;
use std::io::Read;

fn read(tar: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, LayerError> {
    let mut reader = TarReader::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut data = Vec::new();
        reader.data().read_to_end(&mut data).map_err(|source| LayerError::Read { source })?;
        found.push((entry, data));
    }
    Ok(found)
}

fn names(tar: &[u8]) -> Result<Vec<String>, LayerError> {
    Ok(read(tar)?.into_iter().map(|(entry, _)| String::from_utf8_lossy(&entry.name).into_owned()).collect())
}

/// Returns a member of the raw type `flag` with `data`.
fn special(flag: u8, name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = Tar::default().file(name, std::str::from_utf8(data).expect("text")).0;
    bytes[156] = flag;
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    [&parts.concat()[..], &[0; 1024]].concat()
}

#[test]
fn t5_pax_size_wins() {
    // The header says 0 bytes; the inner tar must be data, not members.
    let inner = Tar::default().file("smuggled", "x").0;
    let record = format!("13 size={:>4}\n", inner.len());
    let mut member = Tar::default().file("outer", "").0;
    seal(&mut member);
    let tar = join(&[&special(b'x', "p", record.replace("= ", "=").as_bytes()), &member, &inner]);
    let result = read(&tar);
    let found = result.expect("read");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1, inner);
}

#[test]
fn t5_pax_records_skip_other_headers() {
    let long = special(b'L', "././@LongLink", b"long-name\0");
    let pax = special(b'x', "p", b"12 path=pax\n");
    let member = Tar::default().file("plain", "x").0;
    // A size for the member is not one for the long name between.
    let size = special(b'x', "p", b"10 size=1\n");
    assert_eq!(names(&join(&[&pax, &long, &member])).expect("read"), ["long-name"]);
    assert_eq!(names(&join(&[&size, &long, &member])).expect("read"), ["long-name"]);
    assert_eq!(names(&join(&[&pax, &member, &member])).expect("read"), ["pax", "plain"]);
    let global = special(b'g', "g", b"15 path=global\n");
    assert_eq!(names(&join(&[&global, &member])).expect("read"), ["plain"]);
}

#[test]
fn empty_long_names_say_nothing() {
    let member = Tar::default().file("plain", "x").0;
    for empty in [&b"\0"[..], b""] {
        let long = special(b'L', "././@LongLink", empty);
        assert_eq!(names(&join(&[&long, &member])).expect("read"), ["plain"]);
    }
    let mut link = entry(EntryKind::HardLink, "l");
    link.link = b"target".to_vec();
    let (empty, link) = (special(b'K', "././@LongLink", b""), Tar::default().raw(&link, b"").0);
    assert_eq!(read(&join(&[&empty, &link])).expect("read")[0].0.link, b"target");
}

#[test]
fn t5_a_global_header_ends_what_was_said_of_the_next_member() {
    let global = special(b'g', "g", b"15 path=global\n");
    let member = Tar::default().file("plain", "x").0;
    for before in [special(b'x', "p", b"12 path=pax\n"), special(b'L', "././@LongLink", b"long-name\0")] {
        assert_eq!(names(&join(&[&before, &global, &member])).expect("read"), ["plain"]);
        assert!(names(&join(&[&before, &global])).expect("a member of its own").is_empty());
    }
}

#[test]
fn t5_malformed_records_fail() {
    for record in [
        "12 path=pa",
        "99 path=x\n",
        "-1 path=x\n",
        "+9 path=x\n",
        "9 pathxx\n",
        "7 =xyz\n",
        "0 path=x\n",
        " 9 path=x\n",
        "11 size=-1\n",
        "28 size=9223372036854775808 \n",
        "13 mtime=NaN\n",
        "12 path=a\0b\n",
        "11 size=0x1\n",
        "22 GNU.sparse.offset=1\n\n",
    ] {
        let tar = join(&[&special(b'x', "p", record.as_bytes()), &Tar::default().file("f", "x").0]);
        assert!(read(&tar).is_err(), "{record:?}");
    }
    assert!(read(&join(&[&special(b'x', "p", b"10 path=x\n")])).is_err(), "no member follows");
}

#[test]
fn t5_malformed_headers_fail() {
    let good = Tar::default().file("f", "text").0;
    let edits: [(&str, usize, &[u8]); 7] = [
        ("checksum", 148, b"0000000\0"),
        ("octal digit", 124, b"00000000009\0"),
        ("negative base 256", 124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("too large base 256", 124, b"\x80\x01\0\0\0\0\0\0\0\0\0\0"),
        ("base 256 of 64 bits", 124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("unknown type", 156, b"Z"),
        ("uid", 108, b"zzzzzzz\0"),
    ];
    for (what, at, bytes) in edits {
        let mut tar = good.clone();
        tar[at..at + bytes.len()].copy_from_slice(bytes);
        if at != 148 {
            seal(&mut tar);
        }
        assert!(read(&join(&[&tar])).is_err(), "{what}");
    }
}

#[test]
fn t5_truncation_fails() {
    let tar = Tar::default().file("f", &"x".repeat(600)).0;
    for length in [1, 511, 513, 600, 1024, 1500] {
        assert!(read(&tar[..length]).is_err(), "{length}");
    }
    // As Go reads it: an end without the two blocks of zeros is an end, a single block is none.
    assert_eq!(read(&tar).expect("read").len(), 1);
    let broken = [&tar[..], &[0; 512], &tar[..]].concat();
    assert!(read(&broken).is_err());
}

#[test]
fn sparse_forms_are_read() {
    let expected = [&[0u8; 1024][..], b"data", &[0; 2044], b"end"].concat();
    let records = |lines: &[(&str, &str)]| -> Vec<u8> {
        let record = |(key, value): &(&str, &str)| {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| rest + length.to_string().len() == *length).expect("length");
            format!("{length} {key}={value}\n")
        };
        special(b'x', "p", lines.iter().map(record).collect::<String>().as_bytes())
    };
    let data = Tar::default().file("GNUSparseFile.0/s", "dataend").0;
    let common = [("GNU.sparse.size", "3075"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.name", "s")];
    let with = |extra: &[(&str, &str)]| records(&[&common[..], extra].concat());
    let v00 = [
        ("GNU.sparse.major", "0"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.offset", "1024"),
        ("GNU.sparse.numbytes", "4"),
        ("GNU.sparse.offset", "3072"),
        ("GNU.sparse.numbytes", "3"),
    ];
    let v01 = [("GNU.sparse.map", "1024,4,3072,3")];
    let v10 = records(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "s"),
        ("GNU.sparse.realsize", "3075"),
    ]);
    let map = format!("{:\0<512}dataend", "2\n1024\n4\n3072\n3\n");
    let data10 = Tar::default().file("GNUSparseFile.0/s", &map).0;
    let mut old = Tar::default().file("s", "dataend").0;
    old[156] = b'S';
    old[257..265].copy_from_slice(b"ustar  \0");
    old[345..].iter_mut().take(167).for_each(|byte| *byte = 0);
    for (at, value) in [(386, 1024), (398, 4), (410, 3072), (422, 3), (483, 3075)] {
        old[at..at + 12].copy_from_slice(format!("{value:011o}\0").as_bytes());
    }
    seal(&mut old);
    for (form, tar) in [
        ("0.0", join(&[&with(&v00), &data])),
        ("0.1", join(&[&with(&v01), &data])),
        ("1.0", join(&[&v10, &data10])),
        ("old", join(&[&old])),
    ] {
        let scene = Scene::new();
        scene.apply_with(&tar, crate::layer::apply::ApplyOptions::layer(Default::default())).expect(form);
        assert_eq!(std::fs::read(scene.root().join("s")).expect("read"), expected, "{form}");
    }
    let wrong = with(&[("GNU.sparse.map", "1024,4,3072,4")]);
    assert!(read(&join(&[&wrong, &data])).is_err());
}

#[test]
fn long_names_and_large_ids_round_trip() {
    let mut file = entry(EntryKind::File, "");
    let cases =
        ["d/".repeat(80) + "f", "n".repeat(300), "n".repeat(100), "é".into(), "a/".repeat(20) + &"x".repeat(120)];
    for name in cases {
        file.name = name.clone().into_bytes();
        (file.uid, file.gid, file.size) = (3_000_000, 2_097_151, 1);
        file.xattrs = vec![(b"user.x".to_vec(), vec![0, 1, 255, b'\n'])];
        let tar = Tar::default().raw(&file, b"x").bytes();
        assert_eq!(read(&tar).expect("read"), [(file.clone(), b"x".to_vec())], "{name}");
    }
}
