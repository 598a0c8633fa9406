//! Declared and real sizes without bound end in an error that names the limit.

use std::ffi::OsStr;
use std::io::{self, Read};

use super::super::decompress::{Decoder, MAX_RATIO};
use super::super::entry::{Entry, EntryKind};
use super::{Scene, Tar, entry, tar_writer};
use crate::diag::Diagnose;
use crate::layer::LayerError;
use crate::sys::dir::Dir;

fn limit(result: Result<crate::layer::apply::Applied, LayerError>) -> &'static str {
    match result {
        Err(LayerError::Limit { what, .. }) => what,
        other => panic!("expected a limit, got {other:?}"),
    }
}

#[test]
fn t7_names_records_and_attributes() {
    let scene = Scene::new();
    assert!(limit(scene.apply(&Tar::default().file(&"n".repeat(5000), ""))).contains("length of a name"));
    assert!(scene.apply(&Tar::default().file(&"d/".repeat(1500), "")).is_err());
    let mut file = entry(EntryKind::File, "f");
    file.xattrs = vec![(b"user.x".to_vec(), vec![b'x'; 70_000])];
    assert!(limit(scene.apply(&Tar::default().raw(&file, b""))).contains("attribute"));
    let mut header = Tar::default().file("p", "").0;
    header[156] = b'x';
    header[124..135].copy_from_slice(format!("{:011o}", 2 << 20).as_bytes());
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(limit(scene.apply(&Tar(header))).contains("extended"));
}

#[test]
fn t7_declared_sizes_allocate_nothing() {
    let scene = Scene::new();
    let huge = Entry { size: 1 << 62, ..entry(EntryKind::File, "f") };
    let tar = Tar(tar_writer::header(&huge).expect("header"));
    assert!(scene.apply(&tar).is_err());
}

#[test]
fn t7_expansion_is_bounded() {
    let zeros = io::repeat(0).take(400 << 20);
    let packed = zstd::encode_all(zeros, 1).expect("zstd");
    assert!((packed.len() as u64) * MAX_RATIO < 300 << 20);
    // A few GiB are free, or a step that writes zeros could not be pulled again.
    assert_eq!(io::copy(&mut Decoder::new(&packed[..]).expect("decoder"), &mut io::sink()).expect("zeros"), 400 << 20);
    let mut bounded = Decoder::new(&packed[..]).expect("decoder").with_free(64 << 20);
    let error = io::copy(&mut bounded, &mut io::sink()).expect_err("a bomb");
    assert!(error.to_string().contains("200 times its size"), "{error}");
    let hints = LayerError::Read { source: error }.hints();
    assert!(hints[0].contains("compression=uncompressed"), "{hints:?}");
}

#[test]
fn t7_what_is_remembered_of_a_layer_is_bounded() {
    // More than that in hard links that wait for the layers below, none of which is ever in memory with the others.
    let link = |number: u32| {
        let (name, link) =
            (format!("{}{number:06}", "n".repeat(90)), format!("{}/", "t".repeat(200)).repeat(19).into_bytes());
        tar_writer::header(&Entry { link, ..entry(EntryKind::HardLink, &name) }).expect("header")
    };
    let scene = Scene::new();
    let links = Pieces((0..1 << 20).map(link), io::Cursor::default());
    let options = crate::layer::apply::ApplyOptions::layer(crate::layer::apply::Unmapped::Refuse);
    let result = crate::layer::apply::apply(Dir::open(&scene.root()).expect("open"), OsStr::new(""), links, options);
    assert!(limit(result).contains("remembered"));
    // Directories that nobody describes are remembered too, a thousand for each name.
    let deep = |number: usize| format!("{number}/{}f", "d/".repeat(40));
    let files = (0..100).fold(Tar::default(), |tar, number| tar.file(&deep(number), ""));
    assert_eq!(Scene::new().apply(&files).expect("few enough").implicit.len(), 100 * 41 + 1);
}

/// A stream that is made while it is read.
struct Pieces<I>(I, io::Cursor<Vec<u8>>);

impl<I: Iterator<Item = Vec<u8>>> Read for Pieces<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.read(buffer)?;
        if count > 0 {
            return Ok(count);
        }
        let Some(next) = self.0.next() else { return Ok(0) };
        self.1 = io::Cursor::new(next);
        self.1.read(buffer)
    }
}

#[test]
fn t7_zstd_window_is_bounded() {
    // A frame header that asks for a window of 2 GiB.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    assert!(io::copy(&mut Decoder::new(&frame[..]).expect("decoder"), &mut io::sink()).is_err());
}

#[test]
fn t7_far_times_are_harmless() {
    for seconds in [i64::MIN, i64::MAX, -1] {
        let scene = Scene::new();
        let mut file = entry(EntryKind::File, "f");
        file.mtime.seconds = seconds;
        scene.apply(&Tar::default().raw(&file, b"x")).expect("apply");
        let time = std::fs::metadata(scene.root().join("f")).expect("stat").modified().expect("time");
        assert_eq!(time, std::time::UNIX_EPOCH, "{seconds}");
    }
}

#[test]
fn t7_many_gzip_members_end() {
    use std::io::Write;
    let empty = {
        let out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.finish().expect("gzip")
    };
    let mut bytes = empty.repeat(1_000_000);
    let mut last = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    last.write_all(b"end").expect("gzip");
    bytes.extend(last.finish().expect("gzip"));
    let mut text = String::new();
    Decoder::new(&bytes[..]).expect("decoder").read_to_string(&mut text).expect("read");
    assert_eq!(text, "end");
}
