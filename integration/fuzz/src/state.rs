//! Targets of what is kept and configured: cache records, `buildkitd.toml`, what standard input is taken for.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Cursor, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild::cdi;
use rbuild::cli::fuzzing::looks_like_archive;
use rbuild::config::{ConfigError, Configuration, Environment, Flags, fuzzing::buildkitd};
use rbuild::diag::Diagnostic;
use rbuild::digest::{DiffId, Digest};
use rbuild::explain::{self, BuildRecord, files::List};
use rbuild::image::Descriptor;
use rbuild::image::media::{Compression, OCI_LAYER_GZIP};
use rbuild::layer::archive::is_archive;
use rbuild::layer::compress::Compressor;
use rbuild::layer::decompress::{Codec, detect};
use rbuild::remotecache::config::CacheConfig;
use rbuild::remotecache::explained::BuildNote;
use rbuild::remotecache::{ExportTarget, ImportSpec, Imported, RemoteLayer, read, write};
use rbuild::solver::{CacheStore as _, ItemId, LinkQuery, Parent, Record, RecordGraph};
use rbuild::store::records::{Codec as RecordCodec, Records};
use rbuild::store::usage::Usage;
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

/// What a cache says of its build, with any damage, is refused or compared; what was read is written and read again.
pub fn explain_annotation(data: &[u8]) {
    let text = match std::str::from_utf8(data) {
        Ok(text) if text.starts_with('{') => STANDARD.encode(data),
        Ok(text) => text.trim_end().to_owned(),
        Err(_) => STANDARD.encode(data),
    };
    let Ok(read) = BuildNote::decode(&text) else { return };
    let list = |name: &str| read.lists.get(name).map(|list| list.clone().into_bytes());
    let report = explain::compare(&read.record, Some(&read.record), &list);
    assert_eq!(report.steps.len(), read.record.steps.len());
    let own = BuildNote::new(&read.record, list);
    if let Some(text) = own.encode() {
        assert_eq!(BuildNote::decode(&text).expect("own").record, own.record);
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

/// A description of devices is read or refused; each device of one that is read has a name that steps can write, as
/// `RUN --device` and as `--allow device` take it.
pub fn cdi_spec(data: &[u8]) {
    match cdi::parse(data) {
        Ok(spec) => {
            for device in &spec.devices {
                let name = format!("{}={}", spec.kind, device.name);
                let named = rbuild::dockerfile::device::parse(&format!("{name},required"));
                assert_eq!(named.map(|device| device.name).as_ref(), Ok(&name));
                assert!(cdi::Grants::among([format!("device={name}").as_str()]).is_ok(), "{name}");
                assert!(device.container_edits.device_nodes.iter().all(|node| node.path.starts_with('/')));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A log of usage with any damage is read, and says the same when it is rewritten; what is appended counts.
pub fn usage_log(data: &[u8]) {
    let usage = Usage::parse(data);
    assert_eq!(Usage::parse(&usage.encode()), usage);
    let longer = [data, b"\n{\"v\":1,\"at\":7,\"used\":[\"x\"]}\n"].concat();
    let count = |usage: &Usage| usage.used.get("x").map_or(0, |used| used.count);
    assert_eq!(count(&Usage::parse(&longer)), count(&usage).saturating_add(1));
}

/// A configuration is read or refused with a place in the file; reading it again gives the same, and so does reading what is printed of it.
pub fn buildkitd_toml(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match buildkitd(&text) {
        Ok(configuration) => {
            assert_eq!(buildkitd(&text).ok().as_ref(), Some(&configuration));
            let environment = Environment::from_pairs([("HOME", "/home/a")], false);
            let effective = |configuration: &Configuration| configuration.effective(&Flags::default(), &environment);
            let printed = effective(&configuration);
            let again = buildkitd(&printed.toml()).unwrap_or_else(|error| panic!("{error}\n{}", printed.toml()));
            assert_eq!(
                again.warnings.len(),
                again.warnings.iter().filter(|line| line.contains("has no effect")).count()
            );
            let keys = |json: &Value| -> Vec<(String, String)> {
                let settings = json["settings"].as_array().expect("list").iter();
                settings.map(|entry| (entry["key"].to_string(), entry["value"].to_string())).collect()
            };
            assert_eq!(keys(&effective(&again).json()), keys(&printed.json()), "{}", printed.toml());
            let policies = |configuration: &Configuration| configuration.settings.oci.gc.policies();
            assert_eq!(policies(&again).len(), policies(&configuration).len());
        }
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

/// An exported cache is refused, or is a graph in which every link is found again and every result has its layers; written, it
/// is read again, and written again it has the same bytes.
pub fn cache_config(data: &[u8]) {
    let Ok(config) = read::parse(data) else { return };
    let Ok(imported) = Imported::new(config.clone(), all_there(&config)) else { return };
    let mut graph: RecordGraph<Vec<RemoteLayer>> = RecordGraph::new();
    for number in 0..imported.len() {
        let record = imported.record(number).expect("record");
        for (input, links) in record.inputs.iter().enumerate() {
            for (selector, parent) in links {
                let link = LinkQuery { record: &record.digest, input, selector: selector.as_ref() };
                assert!(
                    imported.children(*parent, link).any(|child| child == number),
                    "{number} is found from {parent}"
                );
            }
        }
        let id = |number: &usize| ItemId::new(format!("item {number}"));
        let parent =
            |(selector, parent): &(Option<Digest>, usize)| Parent { item: id(parent), selector: selector.clone() };
        let links = record.inputs.iter().map(|links| links.iter().map(parent).collect()).collect();
        graph.add(&id(&number), &Record { digest: record.digest.clone(), links, content: Vec::new() });
        if let Some(result) = record.results.first() {
            let layers: Vec<RemoteLayer> = imported.layers(result).into_iter().cloned().collect();
            assert!(!layers.is_empty() && layers.len() <= config.layers.len().max(data.len()));
            graph.set_result(&id(&number), Some((result.created_at.system(), layers)));
        }
    }
    let written = write::write(&graph);
    let bytes = written.config.encode();
    let again = read::parse(&bytes).expect("what is written is read");
    assert_eq!(again, written.config);
    assert!(Imported::new(again, all_there(&written.config)).is_ok());
}

fn all_there(config: &CacheConfig) -> BTreeMap<Digest, RemoteLayer> {
    let layer = |blob: &Digest| RemoteLayer {
        descriptor: Descriptor::new(OCI_LAYER_GZIP, blob.clone(), 1),
        diff_id: DiffId(blob.clone()),
        created: None,
        description: String::new(),
    };
    config.layers.iter().map(|l| (l.blob.clone(), layer(&l.blob))).collect()
}

/// What a cache flag says is read or refused; an error holds no value of it, which may be a key to a store.
pub fn cache_spec(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = ImportSpec::parse(&text);
    let _ = ExportTarget::parse(&text);
    let secret = "hunter2-hunter2";
    let keyed = format!("{text},secret={secret}");
    let errors = [ImportSpec::parse(&keyed).err(), ExportTarget::parse(&keyed).err()];
    for error in errors.into_iter().flatten() {
        let rendered = Diagnostic::from_error(&error).render();
        assert!(!rendered.contains(secret), "{rendered}");
    }
}
