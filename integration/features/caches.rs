//! Caches that builds share: directories, registries, images.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::{text, with_base};
use crate::support::build::{BOTH, Output, Project, User, busybox};
use crate::support::registry::Registry;

const STEPS: &str = "COPY a /a\nRUN cat /a > /b && date +%N > /time\nRUN cat /b > /c\n";
/// Three of [`STEPS`], two of the base.
const ALL: usize = 5;

/// A project with [`STEPS`] on busybox.
pub(super) fn project(user: User) -> Project {
    let project = with_base(user, STEPS);
    project.file("a", "one");
    project
}

/// Builds with an empty state directory.
pub(super) fn fresh(project: &Project, args: &[&str]) -> Output {
    forget(project);
    project.build(&[args, &busybox()].concat()).success()
}

/// Empties the state directory.
pub(super) fn forget(project: &Project) {
    let _ = fs::remove_dir_all(project.state());
}

/// The flag of a cache in the project's home.
pub(super) fn local(project: &Project, name: &str, key: &str) -> String {
    format!("type=local,{key}={}", project.home().join(name).display())
}

/// The layers of the cache in a directory, by digest.
pub(super) fn layers(cache: &Path) -> Vec<String> {
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = read(&cache.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let manifest = read(&cache.join("blobs/sha256").join(&digest["sha256:".len()..]));
    manifest["layers"].as_array().unwrap().iter().map(|l| l["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_directory_gives_every_step_and_the_same_files() {
    for user in BOTH {
        let project = project(user);
        let (to, from) = (local(&project, "cache", "dest"), local(&project, "cache", "src"));
        let time = |args: &[&str]| {
            let out = project.home().join("out");
            let spec = format!("type=local,dest={}", out.display());
            let output = fresh(&project, &[&["-o", &spec], args].concat());
            (output, fs::read_to_string(out.join("time")).unwrap())
        };
        let (first, written) = time(&["--cache-to", &format!("{to},mode=max")]);
        assert_eq!(first.count("CACHED"), 0);
        let (second, read) = time(&["--cache-from", &from]);
        assert_eq!(second.count("CACHED"), ALL, "{}", second.stderr);
        assert_eq!(read, written, "the step did not run again");
        project.file("a", "two");
        let (third, _) = time(&["--cache-from", &from]);
        assert_eq!(third.count("CACHED"), 2, "{}", third.stderr);
    }
}

#[test]
fn an_export_after_a_full_hit_repeats_the_import() {
    for user in BOTH {
        let project = project(user);
        for mode in ["max", "min"] {
            let (to, from) = (local(&project, mode, "dest"), local(&project, mode, "src"));
            let _ = fresh(&project, &["--cache-to", &format!("{to},mode={mode}")]);
            let again = local(&project, "again", "dest");
            let _ = fresh(&project, &["--cache-from", &from, "--cache-to", &format!("{again},mode={mode}")]);
            let index = |name: &str| fs::read(project.home().join(name).join("index.json")).unwrap();
            assert_eq!(index(mode), index("again"), "{mode}");
        }
    }
}

#[test]
fn a_full_hit_is_pushed_without_pulling_a_layer() {
    for user in BOTH {
        let registry = Registry::with_access_log();
        let host = &registry.host;
        let project = project(user);
        let cache = format!("type=registry,ref={host}/app:cache");
        let _ =
            fresh(&project, &["-t", &format!("{host}/app:1"), "--push", "--cache-to", &format!("{cache},mode=max")]);
        let before = registry.requests().len();
        for name in ["app:2", "other/app:1"] {
            let output = fresh(&project, &["-t", &format!("{host}/{name}"), "--push", "--cache-from", &cache]);
            assert_eq!(output.count("CACHED"), ALL, "{}", output.stderr);
            assert!(!project.state().join("snapshots/1").exists(), "nothing is unpacked");
        }
        let requests = registry.requests().split_off(before);
        let pulled: Vec<&String> = requests.iter().filter(|l| l.contains("\"GET ") && l.contains("/blobs/")).collect();
        assert!(pulled.is_empty(), "the cache's config is in its manifest: {pulled:?}");
        assert!(requests.iter().any(|line| line.contains("mount=sha256")), "{requests:?}");
        let sent = requests.iter().filter(|l| l.contains("\"PUT ") && l.contains("/blobs/uploads/")).count();
        assert!(sent <= 2, "no more than the two configurations: {requests:?}");
    }
}

/// What a full hit costs: one question to the new repository, one link a layer, and what is new: configuration and manifest.
#[test]
fn a_full_hit_asks_a_new_repository_once() {
    for user in BOTH {
        let registry = Registry::with_access_log();
        let host = &registry.host;
        let base = Project::with(user, "FROM scratch\nCOPY a /a\nCOPY b /b\n");
        base.file("a", "one").file("b", "two");
        let _ = base.build(&["-t", &format!("{host}/base:1"), "--push"]).success();
        let project = Project::with(user, &format!("FROM {host}/base:1\nCOPY c /c\nCOPY d /d\n"));
        project.file("c", "three").file("d", "four");
        let cache = format!("type=registry,ref={host}/cache:1");
        let _ = project.build(&["--cache-to", &format!("{cache},mode=max")]).success();
        let measured =
            |project: &Project| fs::read_to_string(project.state().join("usage.log")).unwrap().contains("\"scan\"");
        assert!(measured(&project), "a build that stores something is followed by a look at the limits");
        forget(&project);
        let before = registry.requests().len();
        let args = ["-t", &format!("{host}/new:1"), "--push", "--cache-from", &cache];
        let output = project.build(&args).success();
        assert_eq!(output.count("CACHED"), 3, "{}", output.stderr);
        let requests = registry.requests().split_off(before);
        let count = |method: &str, part: &str| {
            let method = format!("\"{method} /v2/new/");
            requests.iter().filter(|line| line.contains(&method) && line.contains(part)).count()
        };
        let found =
            [count("HEAD", ""), count("POST", "mount="), count("POST", ""), count("PUT", "/blobs/"), count("PUT", "")];
        assert_eq!(found, [1, 4, 5, 1, 2], "{requests:#?}");
        assert!(!measured(&project), "nothing was stored that limits are for");
    }
}

/// One changed line of the sources: what was made of other files, or of nothing that changed, is still had from the registry.
#[test]
fn one_changed_line_reruns_only_what_it_must() {
    for user in BOTH {
        let registry = Registry::start();
        let project = with_base(
            user,
            "COPY deps /deps\nRUN cat /deps > /made-of-deps\nCOPY src /src\nRUN head -n1 /src/main > /binary\n\
             FROM scratch\nCOPY --from=base /binary /binary\n",
        );
        project.file("deps", "deps").file("src/main", "line 1\nline 2\n");
        let reference = format!("{}/cache:c", registry.host);
        let to = format!("type=registry,ref={reference},mode=max");
        let states = |args: &[&str]| {
            let output = fresh(&project, args);
            let lines = output.stderr.lines().map(str::to_owned).collect::<Vec<_>>();
            let state = |command: &str| {
                let named = lines.iter().find(|line| line.starts_with('#') && line.ends_with(command));
                let step = named.unwrap_or_else(|| panic!("{command}: {}", output.stderr)).split_once(' ').unwrap().0;
                lines.contains(&format!("{step} CACHED"))
            };
            [
                "COPY deps /deps",
                "RUN cat /deps > /made-of-deps",
                "COPY src /src",
                "RUN head -n1 /src/main > /binary",
                "COPY --from=base /binary /binary",
            ]
            .map(state)
        };
        assert_eq!(states(&["--cache-to", &to]), [false; 5]);
        assert_eq!(states(&["--cache-from", &reference]), [true; 5]);
        project.file("src/main", "line 1\nline two\n");
        let expected = [true, true, false, false, true];
        assert_eq!(states(&["--cache-from", &reference]), expected, "what is made is the same, and what copies it");
        project.file("src/main", "line one\nline two\n");
        assert_eq!(states(&["--cache-from", &reference]), [true, true, false, false, false]);
    }
}

#[test]
fn an_image_carries_its_cache() {
    for user in BOTH {
        let registry = Registry::start();
        let project = project(user);
        let name = format!("{}/app:1", registry.host);
        let _ = fresh(&project, &["-t", &name, "--push", "--build-arg", "BUILDKIT_INLINE_CACHE=1"]);
        let output = fresh(&project, &["--cache-from", &name]);
        assert_eq!(output.count("CACHED"), ALL, "{}", output.stderr);
        let bare = format!("{}/bare:1", registry.host);
        let _ = fresh(&project, &["-t", &bare, "--push"]);
        let output = fresh(&project, &["--cache-from", &bare]).says("it has no cache");
        assert_eq!(output.count("CACHED"), 0);
    }
}

#[test]
fn several_caches_are_read_and_written_at_once() {
    for user in BOTH {
        let registry = Registry::start();
        let project = project(user);
        let (one, two) = (local(&project, "one", "dest"), local(&project, "two", "dest"));
        let three = format!("type=registry,ref={}/c:x,image-manifest=false", registry.host);
        let (one, two) = (format!("{one},mode=max"), format!("{two},mode=max,compression=zstd,tag=other"));
        let three = format!("{three},mode=max,compression=uncompressed");
        let _ = fresh(&project, &["--cache-to", &one, "--cache-to", &two, "--cache-to", &three]);
        let sources = [
            local(&project, "one", "src"),
            format!("{},tag=other", local(&project, "two", "src")),
            format!("{}/c:x", registry.host),
        ];
        for source in &sources {
            let out = format!("type=local,dest={}", project.home().join("out").display());
            let output =
                fresh(&project, &["--cache-from", "type=local,src=/nonexistent", "--cache-from", source, "-o", &out]);
            assert_eq!(output.count("CACHED"), ALL, "{source}: {}", output.stderr);
            assert_eq!(output.count("building without the cache"), 1, "{}", output.stderr);
        }
        assert_eq!(layers(&project.home().join("two")).len(), ALL);
    }
}

#[test]
fn a_tag_is_replaced_and_others_stay() {
    let project = project(User::Root);
    let to = |tag: &str| format!("{},mode=max,tag={tag}", local(&project, "cache", "dest"));
    for (tag, content) in [("a", "one"), ("b", "two"), ("a", "three")] {
        project.file("a", content);
        let _ = fresh(&project, &["--cache-to", &to(tag)]);
    }
    for (tag, content, cached) in [("a", "three", ALL), ("b", "two", ALL), ("a", "one", 2)] {
        project.file("a", content);
        let from = format!("{},tag={tag}", local(&project, "cache", "src"));
        assert_eq!(fresh(&project, &["--cache-from", &from]).count("CACHED"), cached, "{tag} {content}");
    }
}

/// A build of its own state directory, begun.
fn begin(project: &Project, number: usize, args: &[&str]) -> Child {
    let context = project.home().join(format!("context-{number}"));
    let state = project.home().join(format!("state-{number}"));
    fs::create_dir(&context).unwrap();
    fs::copy(project.context().join("Dockerfile"), context.join("Dockerfile")).unwrap();
    fs::write(context.join("a"), number.to_string()).unwrap();
    project.own(&context);
    let all = [args, &busybox(), &["--root", text(&state), text(&context)]].concat();
    project.rbuild_command(&all).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn twenty_processes_share_one_directory_and_one_tag() {
    const COUNT: usize = 20;
    let registry = Registry::start();
    for user in BOTH {
        let project = project(user);
        let directory = format!("{},mode=max", local(&project, "cache", "dest"));
        let reference = format!("{}/shared-{user:?}:c", registry.host).to_lowercase();
        let tag = format!("type=registry,ref={reference},mode=max");
        let (from, args) =
            (local(&project, "cache", "src"), ["--cache-to", &directory, "--cache-to", &tag, "--cache-strict"]);
        let running: Vec<Child> = (0..COUNT).map(|number| begin(&project, number, &args)).collect();
        for child in running {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(!project.home().join("cache/index.json.lock").exists());
        let found = |source: &str, number: usize| {
            project.file("a", number.to_string());
            let found = fresh(&project, &["--cache-from", source]).count("CACHED");
            assert!(found >= 2, "the common steps are there for all: {found}");
            found == ALL
        };
        // A directory can be locked, so it has the steps of all; of a registry's tag that is likely, but only one is certain.
        assert!((0..COUNT).step_by(6).all(|number| found(&from, number)));
        assert!((0..COUNT).any(|number| found(&reference, number)), "nobody was the last");
    }
}

#[test]
fn a_failed_build_keeps_what_the_tag_held() {
    let registry = Registry::start();
    for user in BOTH {
        let project = project(user);
        let dockerfile = fs::read_to_string(project.context().join("Dockerfile")).unwrap();
        let tag = format!("{}/kept-{user:?}:c", registry.host).to_lowercase();
        let (to, from) = (local(&project, "cache", "dest"), local(&project, "cache", "src"));
        let all = [format!("{to},mode=max"), format!("type=registry,ref={tag},mode=max")];
        let to: Vec<&str> = all.iter().flat_map(|to| ["--cache-to", to]).collect();
        let _ = fresh(&project, &to);
        project.file("a", "two").file("Dockerfile", format!("{dockerfile}RUN exit 7\n"));
        forget(&project);
        let _ = project.build(&[&to[..], &busybox()].concat()).failure(1);
        project.file("Dockerfile", &dockerfile);
        for content in ["one", "two"] {
            project.file("a", content);
            for source in [&from, &tag] {
                assert_eq!(fresh(&project, &["--cache-from", source]).count("CACHED"), ALL, "{source} {content}");
            }
        }
        // One that goes well replaces it, so that a tag does not grow for ever.
        let _ = fresh(&project, &to);
        project.file("a", "one");
        assert_eq!(fresh(&project, &["--cache-from", &from]).count("CACHED"), 2);
    }
}

/// The manifest of the last entry of a cache's directory, and a way to its blobs.
fn manifest(cache: &Path) -> (Value, impl Fn(&Value) -> Vec<u8>) {
    let folder = cache.join("blobs/sha256");
    let blob = move |descriptor: &Value| {
        fs::read(folder.join(&descriptor["digest"].as_str().unwrap()["sha256:".len()..])).unwrap()
    };
    let index: Value = serde_json::from_slice(&fs::read(cache.join("index.json")).unwrap()).unwrap();
    let manifest = serde_json::from_slice(&blob(index["manifests"].as_array().unwrap().last().unwrap())).unwrap();
    (manifest, blob)
}

#[test]
fn every_option_of_an_export_has_its_effect() {
    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let project = project(User::Rootless);
    let cache = project.home().join("cache");
    // One build writes all, so that layers are packed in many ways beside each other.
    let cases: [(&str, &str, &str, &[u8]); 8] = [
        ("compression=gzip", "image.manifest", GZIP, &[0x1f, 0x8b]),
        ("compression=estargz", "image.manifest", GZIP, &[0x1f, 0x8b]),
        (
            "compression=zstd",
            "image.manifest",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            &[0x28, 0xb5, 0x2f, 0xfd],
        ),
        ("compression=uncompressed", "image.manifest", "application/vnd.oci.image.layer.v1.tar", b"bin/"),
        ("compression=gzip,compression-level=0", "image.manifest", GZIP, &[0x1f, 0x8b]),
        ("compression=gzip,compression-level=9", "image.manifest", GZIP, &[0x1f, 0x8b]),
        ("image-manifest=false", "image.index", GZIP, &[0x1f, 0x8b]),
        ("oci-mediatypes=false", "distribution.manifest.list", DOCKER, &[0x1f, 0x8b]),
    ];
    let to =
        |number: usize, options: &str| format!("{},{options},mode=max,tag=t{number}", local(&project, "cache", "dest"));
    let targets: Vec<String> = cases.iter().enumerate().map(|(number, case)| to(number, case.0)).collect();
    let _ = fresh(&project, &targets.iter().flat_map(|to| ["--cache-to", to]).collect::<Vec<_>>());
    let mut sizes = Vec::new();
    for (number, (options, form, kind, magic)) in cases.into_iter().enumerate() {
        let from = format!("{},tag=t{number}", local(&project, "cache", "src"));
        let output = fresh(&project, &["--cache-from", &from, "-o", &format!("out-{number}")]);
        assert_eq!(output.count("CACHED"), ALL, "{options}: {}", output.stderr);
        assert_eq!(fs::read_to_string(project.home().join(format!("out-{number}/c"))).unwrap(), "one");
        assert!(!project.home().join(format!("out-{number}/stargz.index.json")).exists());
        let index: Value = serde_json::from_slice(&fs::read(cache.join("index.json")).unwrap()).unwrap();
        let name = "org.opencontainers.image.ref.name";
        let tagged = |entry: &&Value| entry["annotations"][name] == format!("t{number}");
        let entry = index["manifests"].as_array().unwrap().iter().find(tagged).unwrap();
        let (_, blob) = manifest(&cache);
        let manifest: Value = serde_json::from_slice(&blob(entry)).unwrap();
        assert!(manifest["mediaType"].as_str().unwrap().contains(form), "{options}: {manifest}");
        let list = manifest["layers"].as_array().or(manifest["manifests"].as_array()).unwrap();
        let layers: Vec<&Value> = list.iter().filter(|layer| layer["mediaType"] == kind).collect();
        assert_eq!(layers.len(), ALL, "{options}: {manifest}");
        for layer in &layers {
            let bytes = blob(layer);
            let is_tar = magic == b"bin/" && bytes.len().is_multiple_of(512);
            assert!(bytes.starts_with(magic) || is_tar, "{options}");
            let toc = layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"].is_string();
            let footer = bytes.len() > 51 && bytes[bytes.len() - 51..].windows(6).any(|part| part == b"STARGZ");
            assert_eq!((toc, footer), (options.contains("estargz"), options.contains("estargz")), "{options}");
        }
        sizes.push(layers.iter().map(|layer| layer["size"].as_u64().unwrap()).sum::<u64>());
    }
    assert!(sizes[5] < sizes[0] && sizes[0] < sizes[4], "levels 9, default, 0: {sizes:?}");
}

#[test]
fn force_compression_converts_what_was_pulled() {
    let registry = Registry::start();
    for user in BOTH {
        let base = project(user);
        let name = format!("{}/base-{user:?}:1", registry.host).to_lowercase();
        let _ = fresh(&base, &["-t", &name, "--push"]);
        let project = Project::with(user, &format!("FROM {name}\nRUN echo new > /new\n"));
        let of = |kind: &str, force: &str| {
            let to = format!("{},mode=max,compression={kind}{force}", local(&project, "cache", "dest"));
            let image = format!("type=oci,tar=false,dest=image,compression={kind}{force}");
            let _ = fs::remove_dir_all(project.home().join("cache"));
            let _ = fs::remove_dir_all(project.home().join("image"));
            forget(&project);
            let _ = project.build(&["--cache-to", &to, "-o", &image]).success();
            ["cache", "image"].map(|name| manifest(&project.home().join(name)).0["layers"].as_array().unwrap().clone())
        };
        for (kind, converted) in [("zstd", "+zstd"), ("estargz", "+gzip")] {
            for (force, expected) in [("", 1), (",force-compression=true", ALL + 1)] {
                let [cache, image] = of(kind, force);
                // BuildKit does not say of what it converted when it was made.
                let dated = cache.iter().filter(|layer| layer["annotations"]["buildkit/createdat"].is_string()).count();
                assert_eq!(dated, ALL + 2 - expected, "{kind}{force}: {cache:#?}");
                for layers in [cache, image] {
                    assert_eq!(layers.len(), ALL + 1);
                    let is_new = |layer: &&Value| {
                        let toc = &layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"];
                        layer["mediaType"].as_str().unwrap().ends_with(converted)
                            && toc.is_string() == (kind == "estargz")
                    };
                    assert_eq!(layers.iter().filter(is_new).count(), expected, "{kind}{force}: {layers:#?}");
                }
            }
        }
    }
}

#[test]
fn modes_digests_and_resets_of_a_directory() {
    for user in BOTH {
        let project =
            with_base(user, "FROM base AS made\nRUN echo made > /made\nFROM base\nCOPY --from=made /made /other\n");
        let cache = project.home().join("cache");
        let (to, from) = (local(&project, "cache", "dest"), local(&project, "cache", "src"));
        let _ = fresh(&project, &["--cache-to", &format!("{to},mode=min")]);
        let few = layers(&cache).len();
        let index: Value = serde_json::from_slice(&fs::read(cache.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let _ = fresh(&project, &["--cache-to", &format!("{to},mode=max")]);
        assert_eq!((few, layers(&cache).len()), (3, 4), "min has the layers of the result only");
        // The first one lost its tag, and has its digest still.
        let old = format!("{from},digest={digest}");
        let _ = fresh(&project, &["--cache-from", &old]).silent_about("building without the cache");
        let blobs = || fs::read_dir(cache.join("blobs/sha256")).unwrap().count();
        let before = blobs();
        let _ = fresh(&project, &["--cache-from", &from, "--cache-to", &format!("{to},mode=max,reset=true")]);
        assert!(blobs() < before, "{} of {before}", blobs());
        assert_eq!(blobs(), layers(&cache).len() + 2, "layers, configuration and manifest");
        let _ = fresh(&project, &["--cache-from", &old]).says("building without the cache");
        assert_eq!(fresh(&project, &["--cache-from", &from]).count("CACHED"), 4);
    }
}
