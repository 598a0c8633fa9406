//! Caches that are not there, not sound, or not to be written: a miss or a warning, never a failed build.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rbuild::digest::Digest;

use super::caches::{forget, fresh, layers, local, project};
use crate::support::build::{BOTH, Project, User, busybox};
use crate::support::fake_registry::{Answer, Asked, End, FakeRegistry};
use crate::support::registry::Registry;

/// A project whose cache, with all steps, is in its home.
fn cached(user: User) -> (Project, PathBuf) {
    let project = project(user);
    let _ = fresh(&project, &["--cache-to", &format!("{},mode=max", local(&project, "cache", "dest"))]);
    let cache = project.home().join("cache");
    (project, cache)
}

fn write(path: &Path, content: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, content).unwrap();
}

/// Ways to spoil a file.
fn spoil(path: &Path, how: &str) {
    let bytes = fs::read(path).unwrap();
    match how {
        "gone" => fs::remove_file(path).unwrap(),
        "cut" => write(path, &bytes[..bytes.len() / 2]),
        "other" => write(path, &bytes.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>()),
        "empty" => write(path, b""),
        other => panic!("{other}"),
    }
}

const WAYS: [&str; 4] = ["gone", "cut", "other", "empty"];

fn outputs(project: &Project) -> [String; 3] {
    let home = project.home().display();
    [
        format!("type=local,dest={home}/out"),
        format!("type=oci,dest={home}/out.tar"),
        format!("type=oci,tar=false,dest={home}/layout"),
    ]
}

#[test]
fn a_spoilt_document_is_a_miss_with_one_notice() {
    for user in BOTH {
        for how in WAYS {
            let (project, cache) = cached(user);
            spoil(&cache.join("index.json"), how);
            let output = fresh(&project, &["--cache-from", &local(&project, "cache", "src")]);
            assert_eq!(
                (output.count("CACHED"), output.count("building without the cache")),
                (0, 1),
                "{}",
                output.stderr
            );
        }
        let (project, cache) = cached(user);
        let all = layers(&cache);
        for blob in fs::read_dir(cache.join("blobs/sha256")).unwrap().map(|e| e.unwrap().path()) {
            let name = format!("sha256:{}", blob.file_name().unwrap().to_str().unwrap());
            if !all.contains(&name) {
                spoil(&blob, "other");
            }
        }
        let output = fresh(&project, &["--cache-from", &local(&project, "cache", "src")]);
        assert_eq!((output.count("CACHED"), output.count("building without the cache")), (0, 1), "{}", output.stderr);
    }
}

#[test]
fn a_layer_that_is_lost_has_its_step_run() {
    for user in BOTH {
        for how in WAYS {
            let (project, cache) = cached(user);
            for layer in layers(&cache) {
                spoil(&cache.join("blobs/sha256").join(&layer["sha256:".len()..]), how);
            }
            let from = local(&project, "cache", "src");
            for spec in &outputs(&project) {
                let output = fresh(&project, &["--cache-from", &from, "-o", spec]);
                assert_eq!(output.count("failed to load"), 1, "{}", output.stderr);
            }
            let made = fs::read_to_string(project.home().join("out/c")).unwrap();
            assert_eq!(made, "one", "{how}");
        }
    }
}

#[test]
fn one_lost_layer_costs_no_more_than_its_steps() {
    let (project, cache) = cached(User::Rootless);
    let all = layers(&cache);
    let from = local(&project, "cache", "src");
    for layer in all {
        let path = cache.join("blobs/sha256").join(&layer["sha256:".len()..]);
        let bytes = fs::read(&path).unwrap();
        spoil(&path, "gone");
        for spec in &outputs(&project) {
            let _ = fresh(&project, &["--cache-from", &from, "-o", spec]);
        }
        assert_eq!(fs::read_to_string(project.home().join("out/c")).unwrap(), "one");
        write(&path, &bytes);
    }
    assert_eq!(fresh(&project, &["--cache-from", &from]).count("CACHED"), 5);
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning_or_what_the_user_says() {
    for user in BOTH {
        let registry = Registry::start();
        let project = project(user);
        project.file("file", "not a directory");
        let name = format!("{}/app:1", registry.host);
        let to = format!("type=local,dest={}", project.context().join("file").display());
        let _ = fresh(&project, &["-t", &name, "--push", "--cache-to", &to]).says("the cache was not exported");
        for args in [vec!["--cache-to", &to, "--cache-strict"], vec!["--cache-to", &format!("{to},ignore-error=false")]]
        {
            let strict = format!("{}/strict{}:1", registry.host, args.len());
            let all = [&args[..], &["-t", &strict, "--push"], &busybox()].concat();
            forget(&project);
            let output = project.build(&all);
            assert_ne!(output.code, 0);
            let _ = output.says("failed to export the cache");
            let pushed = fresh(&Project::with(user, &format!("FROM {strict}\n")), &[]);
            let _ = pushed.silent_about("ERROR");
        }
        let refused = fresh(&project, &["--cache-to", "type=registry,ref=127.0.0.1:1/a/b,mode=max"]);
        let _ = refused.says("the cache was not exported");
    }
}

/// Serves the cache of a directory under every name and tag; `fault` may answer in its place.
async fn serve(
    cache: &Path,
    fault: impl Fn(&Asked, Option<&[u8]>) -> Option<Answer> + Send + Sync + 'static,
) -> FakeRegistry {
    let index: serde_json::Value = serde_json::from_slice(&fs::read(cache.join("index.json")).unwrap()).unwrap();
    let root = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let blobs = cache.join("blobs/sha256");
    FakeRegistry::start(move |asked| {
        let last = asked.line.rsplit('/').next().unwrap_or("");
        let digest = if asked.line.contains("/manifests/") { &root } else { last };
        let hex = digest.parse::<Digest>().map(|digest| digest.hex().to_owned());
        let content = hex.ok().and_then(|hex| fs::read(blobs.join(hex)).ok());
        if let Some(answer) = fault(asked, content.as_deref()) {
            return answer;
        }
        match content {
            Some(content) if asked.line.contains("/manifests/") => {
                Answer::new(200, content).header("content-type", "application/vnd.oci.image.manifest.v1+json")
            }
            Some(content) => Answer::new(200, content),
            None => Answer::new(404, ""),
        }
    })
    .await
}

fn is_layer(asked: &Asked, layers: &[String]) -> bool {
    layers.iter().any(|layer| asked.line.ends_with(layer.as_str()))
}

type Fault = fn(&[u8]) -> Answer;

/// What a registry can say instead of content.
const FAULTS: [(&str, Fault); 6] = [
    ("500", |_| Answer::new(500, "")),
    ("429", |_| Answer::new(429, "").header("retry-after", "1")),
    ("cut", |content| {
        Answer::new(200, content[..content.len() / 2].to_vec())
            .header("content-length", content.len().to_string())
            .ends(End::Cut)
    }),
    ("404", |_| Answer::new(404, "")),
    ("other bytes", |content| Answer::new(200, content.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>())),
    ("too many", |content| Answer::new(200, [content, content].concat())),
];

#[test]
fn faults_of_a_registry_during_import_cost_only_the_cache() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    std::thread::scope(|scope| {
        for (name, fault) in FAULTS {
            for only_layers in [true, false] {
                let runtime = &runtime;
                scope.spawn(move || {
                    let (project, cache) = cached(User::Rootless);
                    let all = layers(&cache);
                    let server = runtime.block_on(serve(&cache, move |asked, content| {
                        let hit = is_layer(asked, &all) == only_layers;
                        hit.then(|| fault(content.unwrap_or(b"content")))
                    }));
                    let from = format!("type=registry,ref={}/a:b,registry.insecure=true", server.host);
                    let out = format!("type=local,dest={}", project.home().join("out").display());
                    let output = fresh(&project, &["--cache-from", &from, "-o", &out]);
                    let made = fs::read_to_string(project.home().join("out/c")).unwrap();
                    assert_eq!(made, "one", "{name}: {}", output.stderr);
                    let notices = output.count("failed to load") + output.count("building without the cache");
                    assert_eq!(notices, 1, "{name}: {}", output.stderr);
                });
            }
        }
    });
}

#[test]
fn a_layer_that_fails_while_it_is_pushed_has_its_step_run() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = Registry::start();
    for (name, fault) in [FAULTS[3], FAULTS[4]] {
        let (project, cache) = cached(User::Rootless);
        let all = layers(&cache);
        let server = runtime.block_on(serve(&cache, move |asked, content| {
            is_layer(asked, &all).then(|| fault(content.unwrap_or_default()))
        }));
        let from = format!("type=registry,ref={}/a:b,registry.insecure=true", server.host);
        let image = format!("{}/pushed:1", registry.host);
        let output = fresh(&project, &["--cache-from", &from, "-t", &image, "--push"]).says("failed to load");
        let pulled = Project::with(User::Rootless, &format!("FROM {image}\nRUN [ \"$(cat /c)\" = one ]\n"));
        let _ = pulled.build(&[]).success();
        assert_eq!(output.count("failed to load"), 1, "{name}: {}", output.stderr);
    }
}

#[test]
fn faults_of_a_registry_during_export_are_one_warning() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    type Refusal = fn() -> Answer;
    let statuses: [(&str, Refusal); 4] = [
        ("500", || Answer::new(500, "")),
        ("429", || Answer::new(429, "").header("retry-after", "1")),
        ("403", || Answer::new(403, "")),
        ("cut", || Answer::new(202, "x").header("content-length", "9").ends(End::Cut)),
    ];
    std::thread::scope(|scope| {
        for (name, answer) in statuses {
            let runtime = &runtime;
            scope.spawn(move || {
                let asked = Arc::new(AtomicUsize::new(0));
                let count = Arc::clone(&asked);
                let server = runtime.block_on(FakeRegistry::start(move |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                    answer()
                }));
                let project = project(User::Rootless);
                let to = format!("type=registry,ref={}/a:b,mode=max", server.host);
                let output = fresh(&project, &["--cache-to", &to]);
                assert_eq!(output.count("the cache was not exported"), 1, "{name}: {}", output.stderr);
                assert!(asked.load(Ordering::Relaxed) > 0, "{name}");
            });
        }
    });
}

/// Takes uploads like a registry without any blob; `fault` may answer in its place.
async fn receive(fault: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> FakeRegistry {
    FakeRegistry::start(move |asked| {
        let is = |method: &str| asked.line.starts_with(method);
        if let Some(answer) = fault(asked) {
            return answer;
        }
        if is("POST ") {
            return Answer::new(202, "").header("location", "/v2/a/blobs/uploads/1?state=x");
        }
        if is("PATCH ") {
            return Answer::new(202, "").header("location", "/v2/a/blobs/uploads/1?state=y");
        }
        Answer::new(if is("PUT ") { 201 } else { 404 }, "")
    })
    .await
}

#[test]
fn an_export_that_ends_half_way_is_one_warning_and_leaves_no_tag() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    type Failing = fn(&Asked) -> Option<Answer>;
    let is_put_of_manifest = |asked: &Asked| asked.line.starts_with("PUT ") && asked.line.contains("/manifests/");
    let faults: [(&str, Failing); 3] = [
        ("none", |_| None),
        ("manifest refused", |asked| {
            let hit = asked.line.starts_with("PUT ") && asked.line.contains("/manifests/");
            hit.then(|| Answer::new(400, ""))
        }),
        ("upload cut", |asked| {
            let hit = asked.line.contains("/blobs/uploads/1");
            hit.then(|| Answer::new(202, "x").header("content-length", "9").ends(End::Cut))
        }),
    ];
    std::thread::scope(|scope| {
        for (name, fault) in faults {
            let runtime = &runtime;
            scope.spawn(move || {
                let server = runtime.block_on(receive(fault));
                let project = project(User::Rootless);
                let out = format!("type=local,dest={}", project.home().join("out").display());
                let to = format!("type=registry,ref={}/a:b,registry.insecure=true,mode=max", server.host);
                let output = fresh(&project, &["--cache-to", &to, "-o", &out]);
                let failed = usize::from(name != "none");
                assert_eq!(output.count("the cache was not exported"), failed, "{name}: {}", output.stderr);
                assert_eq!(fs::read_to_string(project.home().join("out/c")).unwrap(), "one", "{name}");
                let asked = server.asked();
                let manifests = asked.iter().filter(|asked| is_put_of_manifest(asked)).count();
                assert_eq!(manifests == 0, name == "upload cut", "{name}: the manifest comes after all layers");
                let ended = asked.iter().rposition(|asked| asked.line.contains("/blobs/"));
                let named = asked.iter().position(is_put_of_manifest);
                assert!(named.is_none_or(|named| ended.is_some_and(|ended| ended < named)), "{name}");
            });
        }
    });
}

#[test]
fn what_finished_is_exported_though_a_later_step_fails() {
    for user in BOTH {
        let project = project(user);
        let dockerfile = fs::read_to_string(project.context().join("Dockerfile")).unwrap();
        let (to, from) = (local(&project, "cache", "dest"), local(&project, "cache", "src"));
        let to = format!("{to},mode=max");
        let fail = |more: &[&str]| {
            forget(&project);
            project.file("Dockerfile", format!("{dockerfile}RUN exit 7\n"));
            let output =
                project.build(&[&["--cache-to", &to], more, &busybox()].concat()).failure(1).says("exit code: 7");
            project.file("Dockerfile", &dockerfile);
            output
        };
        let _ = fail(&["--cache-failed=false"]);
        assert!(!project.home().join("cache").exists());
        let _ = fail(&[]);
        assert_eq!(fresh(&project, &["--cache-from", &from]).count("CACHED"), 5);
    }
}
