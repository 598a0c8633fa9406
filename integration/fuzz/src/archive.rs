//! Targets of the station `layer`: tar in and out, unpacking, compression.

use std::ffi::OsStr;
use std::io::{Cursor, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rbuild::image::media::Compression;
use rbuild::layer::apply::{ApplyOptions, Form, Unmapped, apply};
use rbuild::layer::compress::Compressor;
use rbuild::layer::decompress::{Codec, Decoder, MAX_RATIO, RATIO_FREE};
use rbuild::layer::fuzzing::{Member, members, write};
use rbuild::layer::{archive, diff};
use rbuild::sys::dir::Dir;

use super::feed::Feed;
use super::tree::Scene;

/// Any bytes are read or refused. Members hold no more than the input; names and links are as long as allowed; data has
/// the size stated, unless the file has holes; the same bytes give the same members.
pub fn tar_read(data: &[u8]) {
    let Ok(found) = members(data) else { return };
    assert!(found.iter().map(|member| member.data.len()).sum::<usize>() <= data.len(), "more data than there is");
    assert!(found.len() <= data.len() / 512, "more members than blocks");
    for member in &found {
        assert!(member.name.len() <= 4096 && member.link.len() <= 4096);
        assert!(member.data.len() as u64 <= member.size || member.flag != b'0');
        assert!(member.mode <= 0o7777 && (b'0'..=b'6').contains(&member.flag));
    }
    assert_eq!(members(data).ok(), Some(found), "a second reading differs");
}

const NAMES: [&str; 22] = [
    "a",
    "b",
    "d",
    "f",
    "a/b",
    "a/b/c",
    "d/x",
    "abs",
    "abs/file",
    "rel/file",
    "in",
    "in/x",
    "l",
    "l/a",
    "l/l/f",
    "../victim",
    "d/../../victim",
    "/a",
    "./",
    ".wh.f",
    "d/.wh.x",
    "a/.wh..wh..opq",
];

/// Reads an input as a list of members that know the scene they are unpacked in.
fn ops(feed: &mut Feed<'_>, scene: &Scene) -> Vec<Member> {
    let host = scene.host();
    let mut members = Vec::new();
    while !feed.is_empty() && members.len() < 40 {
        let flag = feed.choose(b"0001112225555634");
        let name = feed.choose(&NAMES);
        let target = match feed.byte() {
            0..64 => host.as_os_str().as_bytes().to_vec(),
            64..80 => b"/proc/self/cwd".to_vec(),
            80..96 => b"..".to_vec(),
            choice => NAMES[usize::from(choice) % NAMES.len()].as_bytes().to_vec(),
        };
        let bits = feed.byte();
        let hides = name.contains(".wh.") && bits & 1 == 0;
        let data = if flag == b'0' && !hides { vec![bits; usize::from(bits & 7) * 100] } else { Vec::new() };
        members.push(Member {
            flag,
            name: name.as_bytes().to_vec(),
            link: if matches!(flag, b'1' | b'2') { target } else { Vec::new() },
            mode: [0o644, 0o755, 0o4755, 0o000, 0o1777][usize::from(bits >> 3) % 5],
            owner: (0, 0),
            mtime: i64::from(bits) * 1_000_000,
            device: if bits & 2 == 0 { (0, 0) } else { (1, 3) },
            xattrs: if bits & 4 == 0 { Vec::new() } else { vec![(b"user.x".to_vec(), vec![bits])] },
            size: data.len() as u64,
            data,
        });
    }
    members
}

fn options(choice: u8) -> ApplyOptions {
    let form = if choice & 1 == 0 { Form::Layer } else { Form::Plain };
    ApplyOptions { form, owner: None, unmapped: Unmapped::Squash }
}

/// Whatever members come in whatever order into a tree that holds links to the outside: nothing outside changes. What was
/// unpacked can be packed, but for names that mean something in a layer; unpacking that in an empty tree and packing it again gives the same bytes.
pub fn tar_apply(data: &[u8]) {
    let mut feed = Feed(data);
    let options = options(feed.byte());
    let scene = Scene::new();
    let Ok(tar) = write(&ops(&mut feed, &scene)) else { return };
    let root = Dir::open(&scene.root()).expect("root");
    let result = apply(root.reopen().expect("root"), OsStr::new(""), tar.as_slice(), options.clone());
    scene.check();
    if result.is_err() || options.form == Form::Plain || has_reserved_name(&scene.root()) {
        return;
    }
    let packed = pack(&root);
    let fresh = Scene::new();
    let below = fresh.root().join("fresh");
    std::fs::create_dir(&below).expect("directory");
    let below = Dir::open(&below).expect("fresh");
    apply(below.reopen().expect("fresh"), OsStr::new(""), packed.as_slice(), options).expect("its own tar");
    fresh.check();
    assert_eq!(shown(&packed), shown(&pack(&below)), "a tree changes on its way through a tar");
}

/// A link may name a directory like a whiteout, which is made when something is put below; a tar cannot tell the two apart.
fn has_reserved_name(dir: &Path) -> bool {
    std::fs::read_dir(dir).expect("readable").map(|entry| entry.expect("entry")).any(|entry| {
        let below = entry.file_type().expect("type").is_dir() && has_reserved_name(&entry.path());
        below || entry.file_name().as_bytes().starts_with(b".wh.")
    })
}

fn pack(root: &Dir) -> Vec<u8> {
    let mut tar = Vec::new();
    diff::write_tar(root, None, &mut tar).expect("a tree can be packed");
    tar
}

fn shown(tar: &[u8]) -> Vec<String> {
    let members = members(tar).expect("its own tar");
    members.iter().map(|member| format!("{} {member:?}", member.name.escape_ascii())).collect()
}

/// Members that can be written are read as they were, and equal members give equal bytes.
pub fn tar_roundtrip(data: &[u8]) {
    let mut feed = Feed(data);
    let mut list = Vec::new();
    while !feed.is_empty() && list.len() < 20 {
        let flag = feed.choose(b"0123456");
        let name = feed.until_nul();
        let name = if name.is_empty() { b"x" } else { name };
        let link = if matches!(flag, b'1' | b'2') { feed.until_nul().to_vec() } else { Vec::new() };
        let stored = if flag == b'0' { feed.until_nul().to_vec() } else { Vec::new() };
        let key = feed.text();
        let xattrs = if key.is_empty() || key.contains('=') { Vec::new() } else { vec![(key.into(), vec![0, 10, 61])] };
        list.push(Member {
            flag,
            // A name that ends in a slash makes an old-style directory of a file, so only directories have one.
            name: if flag == b'5' { [name, b"/"].concat() } else { [name, b"x"].concat() },
            link,
            mode: u32::from(feed.byte()) << 4 & 0o7777,
            owner: (feed.number() as u32, feed.number() as u32),
            mtime: feed.number() as i64 >> 8,
            device: if matches!(flag, b'3' | b'4') { (feed.byte().into(), feed.byte().into()) } else { (0, 0) },
            xattrs,
            size: stored.len() as u64,
            data: stored,
        });
    }
    let long = |member: &Member| member.name.len().max(member.link.len()) > 4096;
    let Ok(tar) = write(&list) else { return };
    if list.iter().any(long) {
        return assert!(members(&tar).is_err(), "a name beyond the limit");
    }
    assert_eq!(members(&tar).expect("its own tar"), list, "written and read");
    assert_eq!(write(&list).ok(), Some(tar), "equal members, other bytes");
}

/// Any bytes are decompressed or refused, with bounded growth; how the input is cut makes no difference; and whatever is
/// compressed comes back.
pub fn decompress(data: &[u8]) {
    let at_once = decoded(data);
    if let Ok((_, length)) = &at_once {
        assert!(*length <= (data.len() as u64).saturating_mul(MAX_RATIO) + RATIO_FREE, "grew beyond the limit");
    }
    let bytewise = decoded(Bytewise(data));
    assert_eq!(at_once.is_ok(), bytewise.is_ok(), "the cut of the input decides");
    if let (Ok(one), Ok(other)) = (&at_once, &bytewise) {
        assert_eq!(one, other, "the cut of the input shows");
    }
    let _ = archive::is_archive(&mut Cursor::new(data)).expect("reading memory");
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut compressor = Compressor::new(Vec::new(), compression, 1, 1).expect("compressor");
        compressor.write_all(data).expect("writing memory");
        let packed = compressor.finish().expect("finished");
        let mut back = Vec::new();
        Decoder::new(packed.as_slice()).expect("decoder").read_to_end(&mut back).expect("its own output");
        assert_eq!(back, data, "compressed and decompressed");
    }
}

/// Codec, and a digest and the length of the content: content can be large.
fn decoded(input: impl Read + Send) -> std::io::Result<((Codec, String), u64)> {
    let mut decoder = Decoder::new(input)?;
    let codec = decoder.codec();
    let mut hasher = rbuild::digest::Hasher::new();
    let length = std::io::copy(&mut decoder, &mut hasher)?;
    Ok(((codec, hasher.finish().to_string()), length))
}

struct Bytewise<'a>(&'a [u8]);

impl Read for Bytewise<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}
