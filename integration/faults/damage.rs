//! A damaged state directory: a miss or a clear error, never a wrong image.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rbuild::digest::Digest;
use rbuild::layer::decompress::Decoder;
use serde_json::Value;

use super::images::{Image, Pulls};
use super::{blobs_are_good, names};
use crate::support::build::{BASE, BOTH, Project, User, busybox};
use crate::support::registry::Registry;

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Layers, oldest first; the list of those that are on disk is a file beside them.
fn layers(state: &Path) -> Vec<PathBuf> {
    let mut layers = entries(&state.join("snapshots"));
    layers.retain(|path| path.is_dir());
    layers.sort_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap());
    layers
}

fn blobs(state: &Path) -> Vec<PathBuf> {
    entries(&state.join("blobs/sha256"))
}

fn log(state: &Path) -> PathBuf {
    state.join("records/records.log")
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn remove(path: &Path) {
    fs::remove_dir_all(path).unwrap();
}

fn flip(path: &Path) {
    change(path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

type Damage = (&'static str, fn(&Path));

const DAMAGES: &[Damage] = &[
    ("a log cut in a line", |state| change(&log(state), |bytes| bytes.truncate(bytes.len() * 2 / 3))),
    ("garbage in the log", |state| {
        change(&log(state), |bytes| bytes.splice(0..0, *b"garbage\n{\"v\":1,\"item\":7}\n\0\xff\n").for_each(drop));
    }),
    ("an empty log", |state| change(&log(state), Vec::clear)),
    ("a directory for a log", |state| {
        fs::remove_file(log(state)).unwrap();
        fs::create_dir(log(state)).unwrap();
    }),
    ("no log", |state| remove(&state.join("records"))),
    ("the newest layer gone", |state| remove(layers(state).last().unwrap())),
    ("the oldest layer gone", |state| remove(&layers(state)[0])),
    ("all layers gone", |state| layers(state).iter().for_each(|layer| remove(layer))),
    ("no layers folder", |state| remove(&state.join("snapshots"))),
    ("files of a layer gone", |state| remove(&layers(state).last().unwrap().join("fs"))),
    ("files of the oldest layer gone", |state| remove(&layers(state)[0].join("fs"))),
    ("garbage about a layer", |state| change(&layers(state).last().unwrap().join("meta.json"), |b| b.truncate(9))),
    ("nothing about any layer", |state| {
        layers(state).iter().for_each(|layer| change(&layer.join("meta.json"), Vec::clear));
    }),
    ("flipped bits", |state| blobs(state).iter().for_each(|blob| flip(blob))),
    ("cut blobs", |state| blobs(state).iter().for_each(|blob| change(blob, |b| b.truncate(b.len() / 2)))),
    ("longer blobs", |state| blobs(state).iter().for_each(|blob| change(blob, |b| b.push(0)))),
    ("empty blobs", |state| blobs(state).iter().for_each(|blob| change(blob, Vec::clear))),
    ("no blobs", |state| blobs(state).iter().for_each(|blob| fs::remove_file(blob).unwrap())),
    ("no blob folder", |state| remove(&state.join("blobs"))),
    ("no chains", |state| remove(&state.join("chains"))),
    ("no scratch folder", |state| remove(&state.join("tmp"))),
];

/// All for root; nothing here depends on the user, so a part is enough to see that for the other.
fn some(user: User) -> impl Iterator<Item = &'static Damage> {
    DAMAGES.iter().step_by(if user == User::Root { 1 } else { 4 })
}

/// Checks an exported image: every blob, and every layer's diff id.
fn image_is_good(layout: &Path) {
    blobs_are_good(layout);
    let read = |digest: &Value| fs::read(blob_path(layout, digest)).unwrap();
    let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let index = json(fs::read(layout.join("index.json")).unwrap());
    let manifest = json(read(&index["manifests"][0]["digest"]));
    let config = json(read(&manifest["config"]["digest"]));
    let (layers, ids) = (manifest["layers"].as_array().unwrap(), config["rootfs"]["diff_ids"].as_array().unwrap());
    assert_eq!(layers.len(), ids.len());
    for (layer, id) in layers.iter().zip(ids) {
        let mut tar = Vec::new();
        Decoder::new(&read(&layer["digest"])[..]).unwrap().read_to_end(&mut tar).unwrap();
        assert_eq!(Digest::compute(&tar).to_string(), id.as_str().unwrap());
    }
}

fn blob_path(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
}

/// Builds, which works whatever the damage is, and checks what was made.
fn is_survived(project: &Project, damage: &str, expected: &str) {
    let (layout, files) = (project.home().join("layout"), project.home().join("files"));
    let outputs = ["-o", "type=oci,tar=false,dest=layout", "-o", "type=local,dest=files"];
    let args: Vec<&str> = busybox().into_iter().chain(outputs).collect();
    let output = project.build(&args);
    assert_eq!(output.code, 0, "{damage}:\n{}", output.stderr);
    image_is_good(&layout);
    assert_eq!(fs::read_to_string(files.join("all")).unwrap(), expected, "{damage}");
    fs::remove_dir_all(&layout).unwrap();
    fs::remove_dir_all(&files).unwrap();
    assert_eq!(names(&project.state().join("tmp")), ["guard"], "{damage}");
}

#[test]
fn built_layers() {
    for user in BOTH {
        let project = Project::new(user);
        let build = |text: &str| format!("{BASE}RUN echo {text} >/one\nCOPY file /two\nRUN cat /one /two >/all\n");
        project.file("file", "two\n");
        for (round, (name, damage)) in some(user).enumerate() {
            let text = format!("{round}");
            project.file("Dockerfile", build(&text));
            is_survived(&project, name, &format!("{text}\ntwo\n"));
            damage(&project.state());
            // Another build takes the numbers of the layers that are gone.
            let other = format!("other {text}");
            project.file("Dockerfile", build(&other));
            is_survived(&project, name, &format!("{other}\ntwo\n"));
            project.file("Dockerfile", build(&text));
            is_survived(&project, name, &format!("{text}\ntwo\n"));
        }
    }
}

#[test]
fn pulled_layers() {
    let pulls = Pulls::start(Image::get());
    for user in BOTH {
        let project = Project::with(
            user,
            &format!(
                "FROM {}/app\nRUN [\"/bin/busybox\", \"md5sum\", \"-c\", \"/sums\"]\n\
                 RUN [\"/bin/busybox\", \"cp\", \"/sums\", \"/all\"]\n",
                pulls.host()
            ),
        );
        let sums = project.built(&[], "sums");
        fs::remove_dir_all(project.home().join("out")).unwrap();
        for (name, damage) in some(user) {
            damage(&project.state());
            is_survived(&project, name, &sums);
        }
    }
}

#[test]
fn damaged_layers_are_not_pushed_but_made_anew() {
    let registry = Registry::start();
    for user in BOTH {
        let project = Project::with(user, &format!("{BASE}RUN echo one >/one\n"));
        let packed = [&busybox()[..], &["-o", "type=oci,dest=image.tar"]].concat();
        let _ = project.build(&packed).success();
        blobs(&project.state()).iter().for_each(|blob| flip(blob));
        let image = format!("type=image,name={}/damaged/{user:?}:1,push=true", registry.host).to_lowercase();
        let push = [&busybox()[..], &["-o", &image]].concat();
        let _ = project.build(&push).success();
        super::state_is_good(&project);
    }
}
