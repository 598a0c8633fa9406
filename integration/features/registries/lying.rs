//! Mirrors that give wrong content: it comes from the next host, and nothing wrong is kept.

use std::fs;
use std::path::PathBuf;

use super::Settings;
use crate::support::build::{BOTH, Project, User};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::registry::Registry;
use rbuild::digest::Digest;

/// Bytes of the layer's only file: many chunks of a transfer, and as long when compressed.
const SIZE: u32 = 3 << 20;

fn noise() -> Vec<u8> {
    let next = |state: &mut u64, _| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((*state >> 40) as u8)
    };
    (0..SIZE).scan(1, next).collect()
}

/// Two registries that have the same image `lib/base:1`.
fn stocked() -> (Registry, Registry) {
    let (one, other) = (Registry::start(), Registry::start());
    let project = Project::with(User::Root, "FROM scratch\nCOPY f /f\n");
    project.file("f", noise());
    let names = [&one, &other].map(|registry| format!("{}/lib/base:1", registry.host));
    let _ = project.build(&["-t", &names[0], "-t", &names[1], "--push"]).success();
    (one, other)
}

/// The file of the registry's blob that `is_it`.
fn blob(registry: &Registry, is_it: impl Fn(&[u8]) -> bool) -> PathBuf {
    let folder = registry.directory().join("data/docker/registry/v2/blobs/sha256");
    let prefixes = fs::read_dir(folder).unwrap().flat_map(|prefix| fs::read_dir(prefix.unwrap().path()).unwrap());
    let files = prefixes.map(|entry| entry.unwrap().path().join("data"));
    let mut found: Vec<PathBuf> = files.filter(|file| is_it(&fs::read(file).unwrap())).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn layer(registry: &Registry) -> PathBuf {
    blob(registry, |content| content.len() > 1 << 20)
}

/// A way to make a blob wrong.
type Damage = (&'static str, fn(&mut Vec<u8>));

const DAMAGES: [Damage; 5] = [
    ("garbage from the first byte", |content| content.iter_mut().for_each(|byte| *byte ^= 0x55)),
    ("one bit in the middle", |content| {
        let middle = content.len() / 2;
        content[middle] ^= 1;
    }),
    ("its last byte", |content| *content.last_mut().unwrap() ^= 1),
    ("cut short", |content| content.truncate(content.len() / 2)),
    ("too long", |content| content.extend([0; 1000])),
];

fn damage(file: &PathBuf, how: fn(&mut Vec<u8>)) -> Vec<u8> {
    let good = fs::read(file).unwrap();
    let mut bad = good.clone();
    how(&mut bad);
    fs::write(file, bad).unwrap();
    good
}

/// Pulls the image and returns what the build said, with its file and its state checked.
fn pulled(user: User, origin: &str, mirror: &str, case: &str) -> String {
    let project = Project::with(user, &format!("FROM {origin}/lib/base:1\nCOPY Dockerfile /\n"));
    let out = project.home().join("out");
    let settings = Settings::of(origin, &format!("mirrors = [\"{mirror}\"]"));
    let output = settings.build(&project, &["-o", &format!("type=local,dest={}", out.display())]).success();
    assert!(fs::read(out.join("f")).unwrap() == noise(), "{case}: the file is another");
    let blobs = kept(&project);
    assert!(blobs.iter().any(|(name, _)| name.len() == 64), "{case}: nothing was kept");
    for (name, content) in blobs {
        assert_eq!(Digest::compute(&content).hex(), name, "{case}: a wrong blob is kept");
    }
    output.stderr
}

/// The blobs of a project's state directory.
fn kept(project: &Project) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(project.state().join("blobs/sha256")).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

#[test]
fn what_a_mirror_gives_wrongly_comes_from_the_registry_itself() {
    let (origin, mirror) = stocked();
    let notice = format!("the mirror {} is of no use for {}", mirror.host, origin.host);
    for (case, how) in DAMAGES {
        let file = layer(&mirror);
        let good = damage(&file, how);
        for user in BOTH {
            let said = pulled(user, &origin.host, &mirror.host, case);
            assert_eq!(said.matches(&notice).count(), 1, "{case}: {said}");
        }
        fs::write(&file, good).unwrap();
    }
    // The configuration, too.
    let config =
        blob(&mirror, |content| content.starts_with(b"{") && !content.windows(13).any(|w| w == b"schemaVersion"));
    let _ = damage(&config, |content| *content.last_mut().unwrap() = b' ');
    let said = pulled(User::Rootless, &origin.host, &mirror.host, "configuration");
    assert_eq!(said.matches(&notice).count(), 1, "{said}");
}

#[test]
fn what_all_hosts_give_wrongly_is_an_error_and_not_kept() {
    let (origin, mirror) = stocked();
    for registry in [&origin, &mirror] {
        let _ = damage(&layer(registry), |content| *content.last_mut().unwrap() ^= 1);
    }
    for user in BOTH {
        let project = Project::with(user, &format!("FROM {}/lib/base:1\nCOPY Dockerfile /\n", origin.host));
        let settings = Settings::of(&origin.host, &format!("mirrors = [\"{}\"]", mirror.host));
        let output = settings.build(&project, &["-o", "type=cacheonly"]).failure(4);
        assert_eq!(output.count(&format!("the mirror {} is of no use", mirror.host)), 1, "{}", output.stderr);
        let _ = output.says("has digest sha256:").says("push the image again");
        assert!(kept(&project).iter().all(|(_, content)| content.len() < 1 << 20), "the layer is kept");
        let snapshots = fs::read_dir(project.state().join("snapshots")).unwrap();
        assert_eq!(snapshots.count(), 0, "something was unpacked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_a_mirror_cuts_again_and_again_comes_from_the_registry_itself() {
    let (origin, mirror) = stocked();
    let digest = Digest::compute(fs::read(layer(&mirror)).unwrap());
    let cut = move |line: &str, _| match line.contains(digest.hex()) {
        true if line.starts_with("GET") => Fault::CutResponse(1 << 20),
        _ => Fault::Pass,
    };
    // What it gives after the first cut is nothing at all.
    let count = std::sync::atomic::AtomicUsize::new(0);
    let rule = move |line: &str, nth| match cut(line, nth) {
        Fault::CutResponse(_) if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0 => Fault::CutResponse(0),
        fault => fault,
    };
    let proxy = FaultProxy::start(&mirror.host, rule).await;
    let (host, through) = (origin.host.clone(), proxy.host.clone());
    let said = tokio::task::spawn_blocking(move || pulled(User::Rootless, &host, &through, "cut")).await.unwrap();
    assert_eq!(said.matches(&format!("the mirror {} is of no use", proxy.host)).count(), 1, "{said}");
    assert!(proxy.of_kind("GET blob").len() > 2, "{:?}", proxy.passed());
}
