//! Targets of what is kept and configured: cache records, `buildkitd.toml`, what standard input is taken for.

use std::error::Error;
use std::fs;
use std::io::{Cursor, Write as _};

use rbuild::cli::fuzzing::looks_like_archive;
use rbuild::config::{ConfigError, fuzzing::buildkitd};
use rbuild::diag::Diagnostic;
use rbuild::digest::Digest;
use rbuild::explain::{self, BuildRecord, files::List};
use rbuild::image::media::Compression;
use rbuild::layer::archive::is_archive;
use rbuild::layer::compress::Compressor;
use rbuild::layer::decompress::{Codec, detect};
use rbuild::solver::{CacheStore as _, Record};
use rbuild::store::records::{Codec as RecordCodec, Records};
use serde_json::Value;

struct Plain;

impl RecordCodec<Value> for Plain {
    fn encode(&self, result: &Value) -> Option<Value> {
        Some(result.clone())
    }

    fn decode(&self, value: &Value) -> Result<Value, Box<dyn Error + Send + Sync>> {
        Ok(value.clone())
    }
}

/// A record of a build with any damage is refused or compared with itself: then nothing differs, and it is written as it was read.
/// A list of files likewise.
pub fn explain_record(data: &[u8]) {
    if let Ok(record) = BuildRecord::read(data) {
        let report = explain::compare(&record, Some(&record), &|_| Some(data.to_vec()));
        assert_eq!(report.steps.len(), record.steps.len());
        assert_eq!(BuildRecord::read(&record.write().expect("no longer than it was")).expect("read before"), record);
    }
    if let Some(list) = List::read(data) {
        assert!(list.differences(&list).is_empty());
    }
}

/// A log of cache records with any damage opens, takes a record, and has it when it is opened again; what was readable before
/// is there after.
pub fn records_log(data: &[u8]) {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("records.log"), data).expect("log");
    let record = Record { digest: Digest::compute("record"), links: Vec::new(), content: Vec::new() };
    let records = Records::open(dir.path(), Plain).expect("damage is a miss");
    let known = records.root(&Digest::compute("known"));
    let item = records.save(&record, Some(&Value::from("result"))).expect("saved");
    assert!(!records.results(&item).is_empty());
    let again = Records::open(dir.path(), Plain).expect("opened again");
    assert_eq!(again.root(&record.digest).as_ref(), Some(&item));
    assert!(!again.results(&item).is_empty(), "the result is there");
    assert_eq!(again.root(&Digest::compute("known")), known);
    let stored = again.results(&item);
    again.forget(&item, &stored[0].id);
    assert!(Records::open(dir.path(), Plain).expect("opened again").results(&item).is_empty(), "it is forgotten");
}

/// A configuration is read or refused with a place in the file; reading it again gives the same.
pub fn buildkitd_toml(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match buildkitd(&text) {
        Ok(settings) => assert_eq!(buildkitd(&text).ok(), Some(settings)),
        Err(error) => {
            if let ConfigError::Syntax { location, .. } = &error {
                let last = text.matches('\n').count() as u32 + 1;
                assert!(location.ranges.iter().all(|range| range.start >= 1 && range.end <= last), "{location:?}");
            }
            assert!(!Diagnostic::from_error(&error).render().is_empty());
        }
    }
}

/// Standard input is taken for a context only if it is compressed or has a tar's magic; whatever is compressed here is.
pub fn stdin_context(data: &[u8]) {
    let head = &data[..data.len().min(512)];
    let tar = data.get(257..262) == Some(b"ustar");
    if looks_like_archive(head) {
        assert!(tar || detect(data) != Codec::None || data.starts_with(b"\x1f\x8b") || data.starts_with(b"BZh"));
    } else {
        assert!(!tar);
        assert!(!data.starts_with(b"\x28\xb5\x2f\xfd"));
    }
    let _ = is_archive(&mut Cursor::new(data)).expect("reading memory");
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut compressor = Compressor::new(Vec::new(), compression, 1, 1).expect("compressor");
        compressor.write_all(data).expect("writing memory");
        let packed = compressor.finish().expect("finished");
        assert!(looks_like_archive(&packed[..packed.len().min(512)]));
    }
}
