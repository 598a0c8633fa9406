//! Caches and state that were damaged or lost in part: builds go on without it, and what they export is whole again.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rbuild::digest::Digest;
use serde_json::Value;

use super::caches::{forget, fresh, layers, local, project};
use super::with_base;
use crate::support::build::{BOTH, Project, User, busybox};
use crate::support::registry::Registry;

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(&digest["sha256:".len()..])
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The configuration of the cache in a directory.
fn config(cache: &Path) -> Value {
    let index = json(&cache.join("index.json"));
    let manifest = json(&blob(cache, index["manifests"][0]["digest"].as_str().unwrap()));
    json(&blob(cache, manifest["config"]["digest"].as_str().unwrap()))
}

/// A result that is only needed on the way to the last: three steps and the base are the image, one layer is the stage's.
fn two_stages(user: User) -> Project {
    with_base(
        user,
        "FROM base AS made\nRUN date +%N > /made\nFROM base\nCOPY --from=made /made /other\nRUN cat /other > /b\n",
    )
}

/// Exports a cache twice to the same place, once without the layer of the stage; returns that layer.
fn lose_the_stage(project: &Project, to: &str, lose: impl FnOnce(&str)) -> String {
    let image = project.home().join("image");
    let copy = project.home().join("copy");
    let out = format!("type=oci,tar=false,dest={}", image.display());
    let also = format!("{},mode=max", local(project, "copy", "dest"));
    let _ = fresh(project, &["--cache-to", to, "--cache-to", &also, "-o", &out]);
    let last: BTreeSet<String> = layers(&image).into_iter().collect();
    let mut stage: Vec<String> = layers(&copy).into_iter().filter(|layer| !last.contains(layer)).collect();
    assert_eq!(stage.len(), 1, "{stage:?}");
    let stage = stage.remove(0);
    lose(&stage);
    stage
}

/// Builds from the cache and exports it again, with failures as errors: then it is whole, and loses no more.
fn heals(project: &Project, (to, from): (&str, &str)) {
    let strict = ["--cache-from", from, "--cache-to", to, "--cache-strict"];
    let healed = fresh(project, &strict).says("1 results were left out of the cache");
    assert_eq!(healed.count("CACHED"), 5, "{}", healed.stderr);
    let again = fresh(project, &strict).silent_about("left out of the cache");
    assert_eq!(again.count("CACHED"), 5, "{}", again.stderr);
}

#[test]
fn a_directory_that_lost_a_layer_is_exported_without_its_result() {
    for user in BOTH {
        let project = two_stages(user);
        let (to, from) = (format!("{},mode=max", local(&project, "cache", "dest")), local(&project, "cache", "src"));
        let cache = project.home().join("cache");
        let lost = lose_the_stage(&project, &to, |layer| fs::remove_file(blob(&cache, layer)).unwrap());
        heals(&project, (&to, &from));
        assert!(!layers(&cache).contains(&lost));
    }
}

#[test]
fn a_registry_that_lost_a_layer_is_exported_without_its_result() {
    for user in BOTH {
        let (registry, project) = (Registry::start(), two_stages(user));
        let reference = format!("{}/a/b:cache", registry.host);
        let to = format!("type=registry,ref={reference},mode=max");
        let _ = lose_the_stage(&project, &to, |layer| {
            let hex = &layer["sha256:".len()..];
            let data = registry.directory().join("data/docker/registry/v2");
            fs::remove_dir_all(data.join("blobs/sha256").join(&hex[..2]).join(hex)).unwrap();
            fs::remove_dir_all(data.join("repositories/a/b/_layers/sha256").join(hex)).unwrap();
        });
        heals(&project, (&to, &reference));
    }
}

#[test]
fn damaged_layers_of_a_directory_are_written_again() {
    for user in BOTH {
        let project = project(user);
        let (to, from) = (format!("{},mode=max", local(&project, "cache", "dest")), local(&project, "cache", "src"));
        let cache = project.home().join("cache");
        let out = format!("type=local,dest={}", project.home().join("out").display());
        let _ = fresh(&project, &["--cache-to", &to]);
        for layer in layers(&cache) {
            let bytes: Vec<u8> = fs::read(blob(&cache, &layer)).unwrap().iter().map(|byte| byte ^ 0x55).collect();
            fs::remove_file(blob(&cache, &layer)).unwrap();
            fs::write(blob(&cache, &layer), bytes).unwrap();
        }
        let _ = fresh(&project, &["--cache-from", &from, "--cache-to", &to, "-o", &out]).says("failed to load");
        for layer in layers(&cache) {
            let found = Digest::compute(fs::read(blob(&cache, &layer)).unwrap());
            assert_eq!(found.as_str(), layer, "what is in the cache is what its digest says");
        }
        let again = fresh(&project, &["--cache-from", &from, "-o", &out]).silent_about("failed to load");
        assert_eq!(again.count("CACHED"), 5, "{}", again.stderr);
    }
}

#[test]
fn without_the_records_of_the_state_directory_caches_are_read_and_written() {
    for user in BOTH {
        let project = project(user);
        let first = format!("{},mode=max", local(&project, "first", "dest"));
        let _ = fresh(&project, &["--cache-to", &first]);
        let broken = |from: &[&str], to: &str| {
            forget(&project);
            // A file where the records' directory should be.
            fs::create_dir_all(project.state()).unwrap();
            fs::write(project.state().join("records"), "in the way").unwrap();
            project.own(&project.state());
            let to = format!("{},mode=max", local(&project, to, "dest"));
            let all = [from, &["--cache-to", &to], &busybox()].concat();
            project.build(&all).success().says("building without the cache of the state directory")
        };
        let _ = broken(&[], "second").silent_about("failed to save");
        let from = local(&project, "second", "src");
        let third = broken(&["--cache-from", &from], "third").silent_about("failed to save");
        assert_eq!(third.count("CACHED"), 5, "{}", third.stderr);
        for name in ["second", "third"] {
            let config = config(&project.home().join(name)).to_string();
            assert!(config.contains("createdAt") && !config.contains("\"1970-"), "{name}: {config}");
            let read = fresh(&project, &["--cache-from", &local(&project, name, "src")]);
            assert_eq!(read.count("CACHED"), 5, "{name}: {}", read.stderr);
        }
    }
}

#[test]
fn a_registry_that_never_answers_is_a_miss() {
    for user in BOTH {
        let project = project(user);
        // Connections are taken by the kernel, and nobody reads what comes.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let reference = format!("{}/a/b:c", silent.local_addr().unwrap());
        let from = format!("type=registry,ref={reference},registry.insecure=true,timeout=300ms");
        let output = fresh(&project, &["--cache-from", &from]);
        let told = format!("building without the cache {reference}: it has not answered for 300ms");
        assert_eq!(output.count(&told), 1, "{}", output.stderr);
    }
}
