//! Caches: keys that leave nothing out, and caches that somebody else wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rbuild::digest::Digest;
use rbuild::layer::decompress::Decoder;
use serde_json::{Value, json};

use super::{Scene, as_both, image, lines, tools};
use crate::support::build::{Output, Project, User, binary, run};
use crate::support::image::{Image, RawTar};
use crate::support::registry::Registry;

/// Instructions in groups of which each is the one before but for a byte or a word, and each builds something else.
///
/// What is mounted is never the base: of several mounts of one input BuildKit's content key, which must be ours, has their content
/// without telling which is mounted where.
const GROUPS: [&[&str]; 21] = [
    &[
        "RUN echo a > /o",
        "RUN echo b > /o",
        "RUN echo b > /p",
        "RUN [\"/bin/sh\", \"-c\", \"echo b > /p; echo c > /q\"]",
    ],
    &["RUN <<E\necho a > /o\nE", "RUN <<E\necho b > /o\nE"],
    &[
        "WORKDIR /w\nRUN chmod 777 /w",
        "WORKDIR /w\nRUN chmod 777 /w\nUSER 1\nRUN id > o",
        "WORKDIR /w\nRUN chmod 777 /w\nUSER 2\nRUN id > o",
        "WORKDIR /w\nRUN chmod 777 /w\nUSER 2:3\nRUN id > o",
    ],
    &["WORKDIR /a\nRUN pwd > o", "WORKDIR /b\nRUN pwd > o", "WORKDIR /b\nWORKDIR c\nRUN pwd > o"],
    &[
        "ENV A=1\nRUN env > /o",
        "ENV A=2\nRUN env > /o",
        "ENV B=2\nRUN env > /o",
        "ARG B=3\nRUN env > /o",
        "ARG B=4\nRUN env > /o",
    ],
    &["SHELL [\"/bin/sh\", \"-c\"]\nRUN echo $- > /o", "SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $- > /o"],
    &["RUN grep -c : /proc/net/dev > /o", "RUN --network=none grep -c : /proc/net/dev > /o"],
    &["RUN grep ^Seccomp: /proc/self/status > /o", "RUN --security=insecure grep ^Seccomp: /proc/self/status > /o"],
    &[
        "RUN --mount=from=other,source=/one,target=/m ls -a /m > /o",
        "RUN --mount=from=other,source=/two,target=/m ls -a /m > /o",
        "RUN --mount=from=other,source=/two,target=/n ls -a /m > /o 2>&1; ls -a /n >> /o",
        "RUN --mount=from=other,source=/two,target=/n,rw ls -a /m > /o 2>&1; ls -a /n >> /o; touch /n/x; echo $? >> /o",
        "RUN --mount=from=other,source=/two,target=/n ls -a /m > /o 2>&1; ls -a /n >> /o; touch /n/x; echo $? >> /o",
        "RUN --mount=source=sub,target=/n ls -a /m > /o 2>&1; ls -a /n >> /o; touch /n/x; echo $? >> /o",
    ],
    &[
        "RUN --mount=type=tmpfs,target=/m,size=8192 stat -f -c %b /m > /o",
        "RUN --mount=type=tmpfs,target=/m,size=16384 stat -f -c %b /m > /o",
        "RUN --mount=type=tmpfs,target=/n,size=16384 ls -d /m > /o 2>&1; stat -f -c %b /n >> /o",
    ],
    &[
        "RUN --mount=type=secret,id=s stat -c %a:%u:%g /run/secrets/s > /o",
        "RUN --mount=type=secret,id=s,mode=0444 stat -c %a:%u:%g /run/secrets/s > /o",
        "RUN --mount=type=secret,id=s,mode=0444,uid=5 stat -c %a:%u:%g /run/secrets/s > /o",
        "RUN --mount=type=secret,id=s,mode=0444,gid=5 stat -c %a:%u:%g /run/secrets/s > /o",
        "RUN --mount=type=secret,id=s,target=/s stat -c %a:%u:%g /run/secrets/s > /o 2>&1; ls -d /s >> /o",
    ],
    &[
        "RUN --mount=type=cache,target=/m stat -c %a:%u:%g /m > /o",
        "RUN --mount=type=cache,target=/m,id=a,mode=0700 stat -c %a:%u:%g /m > /o",
        "RUN --mount=type=cache,target=/m,id=b,mode=0700,uid=5 stat -c %a:%u:%g /m > /o",
        "RUN --mount=type=cache,target=/m,id=c,from=other,source=/one ls /m > /o",
        "RUN --mount=type=cache,target=/m,id=c,from=other,source=/two ls /m > /o",
    ],
    &[
        "COPY f /o",
        "COPY g /o",
        "COPY g /p",
        "COPY --chown=1:1 g /p",
        "COPY --chown=1:2 g /p",
        "COPY --chmod=600 g /p",
        "COPY --chmod=u+x g /p",
    ],
    &[
        "COPY sub /o",
        "COPY --exclude=one sub /o",
        "COPY --exclude=two sub /o",
        "COPY sub/* /o/",
        "COPY --parents sub/one /o/",
        "COPY --parents ./sub/./one /o/",
    ],
    &["COPY --link f /d/o", "COPY --link g /d/o", "COPY --link --chmod=600 g /d/o", "COPY --link --chown=1 g /d/o"],
    &["COPY --from=evil /one /o", "COPY --from=evil /two /o", "COPY --from=other /two /o"],
    &["COPY <<E /o\na\nE", "COPY <<E /o\nb\nE", "COPY <<F /p\nb\nF", "COPY <<F /p/\nb\nF"],
    &["ADD a.tar /o/", "ADD --unpack=false a.tar /o/", "ADD b.tar /o/", "ADD --chown=3 b.tar /o/"],
    &[
        "LABEL a=1",
        "LABEL a=2",
        "EXPOSE 1",
        "EXPOSE 2",
        "STOPSIGNAL 9",
        "VOLUME /a",
        "VOLUME /b",
        "ENTRYPOINT [\"a\"]",
        "CMD a",
        "CMD [\"a\"]",
        "MAINTAINER a",
    ],
    &[
        "HEALTHCHECK CMD a",
        "HEALTHCHECK CMD b",
        "HEALTHCHECK --interval=2s CMD b",
        "HEALTHCHECK --retries=2 CMD b",
        "HEALTHCHECK NONE",
        "ONBUILD RUN a",
        "ONBUILD RUN b",
        "ONBUILD COPY a b",
    ],
    // What the base says of itself counts as much: the last two differ in ONBUILD and HEALTHCHECK alone.
    &[
        "FROM scratch\nCOPY f /o",
        "FROM other\nCOPY f /o",
        "FROM onbuild\nCOPY f /o",
        "FROM onbuild2\nCOPY f /o",
        "FROM health\nCOPY f /o",
        "FROM health2\nCOPY f /o",
    ],
];

/// An image as it was built: its configuration and files, but for times and what is made of them.
fn built(layout: &Path) -> (Value, Vec<Vec<String>>) {
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |descriptor: &Value| {
        layout.join("blobs/sha256").join(&descriptor["digest"].as_str().unwrap()["sha256:".len()..])
    };
    let manifest = read(&blob(&read(&layout.join("index.json"))["manifests"][0]));
    let mut config = read(&blob(&manifest["config"]));
    config["created"] = json!(null);
    config["rootfs"] = json!(null);
    let history = config["history"].as_array_mut().unwrap();
    // The base has no history: the exporter fills it in with what its layers are called, which is what made them first.
    history.retain(|entry| entry["comment"] != "buildkit.exporter.image.v0");
    history.iter_mut().for_each(|entry| entry["created"] = json!(null));
    let layers = manifest["layers"].as_array().unwrap().iter().map(|layer| files(&blob(layer)));
    (config, layers.collect())
}

/// The members of a layer.
fn files(blob: &Path) -> Vec<String> {
    let mut tar = Vec::new();
    Decoder::new(fs::File::open(blob).unwrap()).unwrap().read_to_end(&mut tar).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let (header, path) = (entry.header(), entry.path().unwrap().display().to_string());
        let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap(), header.entry_type());
        format!("{path} {owner:?} {:?} {}", entry.link_name().unwrap(), Digest::compute(content))
    });
    entries.collect()
}

/// A project with all that [`GROUPS`] use.
fn workshop(user: User) -> (Project, Vec<String>) {
    let project = Project::new(user);
    project.file("f", "f").file("g", "g").file("sub/one", "1").file("sub/two", "2");
    let archive = |content: &str| RawTar::default().file("in", 0o644, content).end();
    project.file("a.tar", archive("a")).file("b.tar", archive("b"));
    fs::write(project.home().join("s"), "x").unwrap();
    project.own(&project.home().join("s"));
    let base = |mark: &str| {
        Image::of([
            tools(),
            RawTar::default().dir("one").file("one/1", 0o644, "1").dir("two").file("two/2", 0o644, mark),
        ])
    };
    let named = |name: &str, image: Image| image.named(&project, name);
    let images = [
        named("evil", base("2")),
        named("other", base("3")),
        named("onbuild", base("2").with("OnBuild", json!(["LABEL a=1"]))),
        named("onbuild2", base("2").with("OnBuild", json!(["LABEL a=2"]))),
        named("health", base("2").with("Healthcheck", json!({ "Test": ["CMD", "a"] }))),
        named("health2", base("2").with("Healthcheck", json!({ "Test": ["CMD", "b"] }))),
    ];
    let flags = ["--secret", "id=s,src=s", "--allow", "security.insecure"].map(str::to_owned);
    let args = images.concat().into_iter().chain(flags).collect();
    (project, args)
}

/// Builds a group with one state directory, one after another, and each once more with a new one.
fn c1(user: User, group: &[&str]) {
    let (project, args) = workshop(user);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let build = |root: &Path, instruction: &str| {
        let start = if instruction.starts_with("FROM") { "" } else { "FROM evil\n" };
        project.file("Dockerfile", format!("{start}{instruction}\n"));
        let out = project.home().join("out");
        let _ = fs::remove_dir_all(&out);
        let mut command = project.command(binary());
        command.arg("--root").arg(root).args(["--progress", "plain", "-o", "type=oci,tar=false,dest=out"]);
        let _ = run({
            command.args(&args).arg(project.context());
            command
        })
        .success();
        built(&out)
    };
    let mut seen = BTreeSet::new();
    for instruction in group {
        let with_cache = build(&project.state(), instruction);
        let fresh = project.home().join("fresh");
        let without = build(&fresh, instruction);
        let _ = Command::new("rm").arg("-rf").arg(&fresh).status().unwrap();
        assert_eq!(with_cache, without, "{user:?}: {instruction} after others of {group:?}");
        assert!(seen.insert(format!("{without:?}")), "{instruction} builds what another one of its group builds");
    }
}

#[test]
fn c1_whatever_changes_a_result_changes_its_key() {
    // Users take turns, as keys are made in one place.
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || {
                for (index, group) in GROUPS.iter().enumerate().filter(|(index, _)| index % 2 == part) {
                    c1(if index % 3 == 0 { User::Root } else { User::Rootless }, group);
                }
            });
        }
    });
}

/// Sockets that listen on TCP and belong to a process or one of its descendants.
fn listening(of: u32) -> Vec<String> {
    let text = |path: String| fs::read_to_string(path).unwrap_or_default();
    let processes: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let id: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = text(format!("/proc/{id}/stat"));
            Some((id, stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut family = BTreeSet::from([of]);
    while let Some((id, _)) = processes.iter().find(|(id, parent)| family.contains(parent) && !family.contains(id)) {
        family.insert(*id);
    }
    let mut found = Vec::new();
    for id in family {
        let links = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        let own: BTreeSet<String> =
            links.filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.to_str()?.to_owned())).collect();
        for table in ["tcp", "tcp6"] {
            for line in text(format!("/proc/{id}/net/{table}")).lines() {
                let words: Vec<&str> = line.split_ascii_whitespace().collect();
                let is_own = words.get(9).is_some_and(|inode| own.contains(&format!("socket:[{inode}]")));
                if is_own && words[3] == "0A" {
                    found.push(format!("{id} {line}"));
                }
            }
        }
    }
    found
}

#[test]
fn c3_a_build_listens_on_no_port() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(!listening(std::process::id()).is_empty(), "the search finds what is there");
    drop(listener);
    let registry = Registry::start();
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        scene
            .project
            .file("Dockerfile", "FROM evil\nRUN --mount=type=secret,id=s sleep 5\nRUN --mount=type=ssh sleep 5\n");
        let key = scene.project.home().join("key");
        let mut keygen = scene.project.command("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
        let _ = run(keygen).success();
        let reference = format!("{}/c3-{user:?}", registry.host).to_lowercase();
        let (ssh, cache) =
            (format!("default={}", key.display()), format!("type=registry,ref={reference}:cache,mode=max"));
        let mut command = scene.command(&[
            "--ssh",
            &ssh,
            "--secret",
            "id=s,src=key",
            "-t",
            &reference,
            "--push",
            "--cache-to",
            &cache,
        ]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut looked = 0;
        let status = loop {
            assert_eq!(listening(child.id()), Vec::<String>::new());
            looked += 1;
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(status.success() && looked > 20, "{looked} {said}");
    });
}

/// A cache in a directory of the project, with a config of these bytes.
struct Forged<'a> {
    scene: &'a Scene,
    dir: PathBuf,
}

impl<'a> Forged<'a> {
    fn new(scene: &'a Scene) -> Self {
        let dir = scene.project.home().join("cache");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { scene, dir }
    }

    fn place(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(&digest["sha256:".len()..])
    }

    fn blob(&self, media_type: &str, content: &[u8]) -> Value {
        let digest = Digest::compute(content).to_string();
        fs::write(self.place(&digest), content).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    }

    /// Writes manifest and index.
    fn finish(&self, config: &Value, layers: &[Value]) {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
        });
        let mut entry = self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        fs::write(self.dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())
            .unwrap();
        self.scene.project.own(&self.dir);
    }

    fn with_config(self, config: &[u8]) -> Self {
        let descriptor = self.blob(CACHE_CONFIG, config);
        self.finish(&descriptor, &[]);
        self
    }

    /// Builds with the cache, and with nothing else that could be a hit; the result must be the Dockerfile's.
    fn build(&self) -> Output {
        let _ = Command::new("rm").arg("-rf").arg(self.scene.project.state()).status().unwrap();
        let from = format!("type=local,src={}", self.dir.display());
        let out = format!("type=local,dest={}", self.scene.project.home().join("out").display());
        let output = self.scene.build(STEP, &["--cache-from", &from, "-o", &out]).success();
        assert_eq!(fs::read_to_string(self.scene.project.home().join("out/o")).unwrap(), TEXT);
        output
    }

    /// The same where the cache is of no use; says so once, or not at all where nothing in it is wrong.
    fn misses(&self, case: &str, notices: usize) {
        let output = self.build();
        let seen = (output.count("CACHED"), output.count("building without the cache"));
        assert_eq!(seen, (0, notices), "{case}: {}", output.stderr);
    }
}

/// What the step makes, what a thief would have it make, and the Dockerfile that does.
const TEXT: &str = "made by the step\n";
const EVIL: &str = "made by a thief!\n";
const STEP: &str = "FROM evil\nRUN echo made by the step > /o\n";

const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

#[test]
fn c4_a_hostile_graph_is_a_miss() {
    let digest = Digest::compute("x").to_string();
    let record = |links: &str| format!(r#"{{"digest":"{digest}","inputs":[[{links}]]}}"#);
    let layer = |parent: &str| format!(r#"{{"blob":"{digest}","parent":{parent}}}"#);
    let config = |layers: &str, records: &str| format!(r#"{{"layers":[{layers}],"records":[{records}]}}"#);
    let root = format!(r#"{{"digest":"{digest}"}}"#);
    let result = |number: &str| {
        format!(r#"{{"digest":"{digest}","layers":[{{"layer":{number},"createdAt":"2026-01-01T00:00:00Z"}}]}}"#)
    };
    let many = (0..14_000).map(|_| root.as_str()).collect::<Vec<_>>().join(",");
    let deep: String =
        (0..20_000).map(|n| format!(r#",{{"digest":"{digest}","inputs":[[{{"link":{n}}}]]}}"#)).collect();
    let cases: [(&str, String, usize); 25] = [
        ("a record that is its own input", config("", &record(r#"{"link":0}"#)), 1),
        ("two records in a circle", config("", &format!("{},{}", record(r#"{"link":1}"#), record(r#"{"link":0}"#))), 1),
        ("a link to nothing", config("", &record(r#"{"link":7}"#)), 1),
        ("a link to -1", config("", &format!("{root},{}", record(r#"{"link":-1}"#))), 1),
        ("a link to 2^31", config("", &format!("{root},{}", record(r#"{"link":2147483648}"#))), 1),
        ("a link to 2^63 - 1", config("", &format!("{root},{}", record(r#"{"link":9223372036854775807}"#))), 1),
        ("a link to 2^63", config("", &format!("{root},{}", record(r#"{"link":9223372036854775808}"#))), 1),
        ("a link to 1e99", config("", &format!("{root},{}", record(r#"{"link":1e99}"#))), 1),
        ("a link to nothing said", config("", &format!("{root},{}", record("null"))), 1),
        ("an input without links", config("", &format!(r#"{{"digest":"{digest}","inputs":[[]]}}"#)), 1),
        ("a layer on itself", config(&layer("0"), ""), 1),
        ("layers in a circle", config(&format!("{},{}", layer("1"), layer("0")), ""), 1),
        ("a layer on -2", config(&layer("-2"), ""), 1),
        ("a layer on 2^63", config(&layer("9223372036854775808"), ""), 1),
        ("a result that is layer -1", config(&layer("-1"), &result("-1")), 1),
        ("a result that is layer 2^63 - 1", config(&layer("-1"), &result("9223372036854775807")), 1),
        ("a result whose blob is not there", config(&layer("-1"), &result("0")), 0),
        ("the same digest again and again", config("", &many), 0),
        ("a digest that is a path", config("", r#"{"digest":"sha256:../../../../etc/passwd"}"#), 1),
        ("a digest that is none", config("", r#"{"digest":"random:x"}"#), 1),
        ("a chain of twenty thousand", config("", &format!("{root}{deep}")), 1 - usize::from(deep.len() < 4 << 20)),
        ("two million brackets", "[".repeat(2_000_000), 1),
        ("two million braces", r#"{"records":"#.repeat(200_000), 1),
        ("nothing", String::new(), 1),
        ("null", "null".to_owned(), 1),
    ];
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        for (case, config, notices) in &cases {
            Forged::new(&scene).with_config(config.as_bytes()).misses(case, *notices);
        }
    });
}

#[test]
fn c4_what_is_too_large_is_not_read() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        // A gigabyte, which is as large as it says or larger.
        for size in [1_u64 << 30, 100, 1 << 62] {
            let forged = Forged::new(&scene);
            let digest = Digest::compute("large").to_string();
            fs::File::create(forged.place(&digest)).unwrap().set_len(1 << 30).unwrap();
            forged.finish(&json!({ "mediaType": CACHE_CONFIG, "digest": digest, "size": size }), &[]);
            forged.misses(&format!("a config of {size} bytes"), 1);
        }
        let forged = Forged::new(&scene).with_config(b"{}");
        fs::File::create(forged.dir.join("index.json")).unwrap().set_len(1 << 30).unwrap();
        forged.misses("an index of a gigabyte", 1);
    });
}

/// A cache that is a hit, written by the binary itself, once for a scene.
fn sound<'a>(scene: &'a Scene) -> Forged<'a> {
    let (forged, kept) = (Forged::new(scene), scene.project.home().join("sound"));
    fs::remove_dir_all(&forged.dir).unwrap();
    let made = kept.exists();
    if !made {
        let to = format!("type=local,dest={},mode=max", kept.display());
        let _ = scene.build(STEP, &["--no-cache", "--cache-to", &to]).success();
    }
    assert!(Command::new("cp").arg("-a").arg(&kept).arg(&forged.dir).status().unwrap().success());
    if !made {
        let hit = forged.build();
        assert_eq!(hit.count("failed to load") + hit.count("building without"), 0, "{}", hit.stderr);
        assert!(hit.count("CACHED") > 0, "{}", hit.stderr);
    }
    forged
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Forged<'_> {
    fn read(&self, digest: &str) -> Vec<u8> {
        fs::read(self.place(digest)).unwrap()
    }

    fn manifest(&self) -> Value {
        let index: Value = serde_json::from_slice(&fs::read(self.dir.join("index.json")).unwrap()).unwrap();
        serde_json::from_slice(&self.read(index["manifests"][0]["digest"].as_str().unwrap())).unwrap()
    }

    /// The digest of the layer that the step made, and its tar.
    fn layer(&self) -> (String, Vec<u8>) {
        let manifest = self.manifest();
        let unpacked = |layer: &Value| {
            let digest = layer["digest"].as_str().unwrap().to_owned();
            let mut tar = Vec::new();
            Decoder::new(&self.read(&digest)[..]).unwrap().read_to_end(&mut tar).unwrap();
            (digest, tar)
        };
        let holds = |(_, tar): &(String, Vec<u8>)| tar.windows(TEXT.len()).any(|part| part == TEXT.as_bytes());
        manifest["layers"].as_array().unwrap().iter().map(unpacked).find(holds).expect("the step's layer")
    }

    /// Changes what the manifest says of the step's layer.
    fn describe_layer(&self, change: impl Fn(&mut Value)) -> (Value, Vec<Value>) {
        let (digest, _) = self.layer();
        let manifest = self.manifest();
        let mut layers = manifest["layers"].as_array().unwrap().clone();
        change(layers.iter_mut().find(|layer| layer["digest"] == digest.as_str()).unwrap());
        (manifest["config"].clone(), layers)
    }

    /// Makes the layer that the step made another one, honestly named; what it says of its tar stays unless `honest`.
    fn exchange_layer(&self, honest: bool) {
        let (old, mut tar) = self.layer();
        let at = tar.windows(TEXT.len()).position(|part| part == TEXT.as_bytes()).unwrap();
        tar[at..at + TEXT.len()].copy_from_slice(EVIL.as_bytes());
        let new = self.blob("", &gzip(&tar));
        let (config, layers) = self.describe_layer(|layer| {
            layer["digest"] = new["digest"].clone();
            layer["size"] = new["size"].clone();
            if honest {
                layer["annotations"]["containerd.io/uncompressed"] = json!(Digest::compute(&tar).to_string());
            }
        });
        let config = String::from_utf8(self.read(config["digest"].as_str().unwrap())).unwrap();
        let config = self.blob(CACHE_CONFIG, config.replace(&old, new["digest"].as_str().unwrap()).as_bytes());
        self.finish(&config, &layers);
    }
}

#[test]
fn c5_other_bytes_than_were_named_are_not_used() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        // A byte of a blob, under its old name.
        let forged = sound(&scene);
        let (digest, _) = forged.layer();
        let mut bytes = forged.read(&digest);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(forged.place(&digest), bytes).unwrap();
        assert_eq!(forged.build().count("failed to load"), 1);
        // A blob that is what its name says, but not the tar it stands for.
        let forged = sound(&scene);
        forged.exchange_layer(false);
        let output = forged.build();
        assert_eq!(output.count("failed to load"), 1, "{}", output.stderr);
        // Sizes and digests of descriptors.
        for (field, value) in
            [("size", json!(1)), ("size", json!(1_u64 << 62)), ("digest", json!(Digest::compute("y").to_string()))]
        {
            let forged = sound(&scene);
            let (config, layers) = forged.describe_layer(|layer| layer[field] = value.clone());
            forged.finish(&config, &layers);
            let _ = forged.build();
        }
        // A config that is not what the manifest names.
        let forged = sound(&scene);
        let config = forged.manifest()["config"]["digest"].as_str().unwrap().to_owned();
        fs::write(forged.place(&config), forged.read(&config).to_ascii_uppercase()).unwrap();
        forged.misses("a config of other bytes", 1);
    });
}

/// What C2 says of caches without signatures: who may write the links decides the result, so that this is a hit.
#[test]
fn c5_the_search_would_find_a_wrong_result() {
    let scene = Scene::with(User::Root, &image(|tar| tar));
    let forged = sound(&scene);
    forged.exchange_layer(true);
    let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| forged.build()));
    assert!(wrong.is_err(), "a forged link is a hit");
    assert_eq!(fs::read_to_string(scene.project.home().join("out/o")).unwrap(), EVIL);
}

#[test]
fn c6_links_and_pipes_of_a_cache_directory_are_misses() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let pipe = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        for name in ["layer", "config", "index"] {
            for how in ["its own content by a link", "a file of the host", "a pipe", "a directory", "a device"] {
                let forged = sound(&scene);
                let place = match name {
                    "layer" => forged.place(&forged.layer().0),
                    "config" => forged.place(forged.manifest()["config"]["digest"].as_str().unwrap()),
                    _ => forged.dir.join("index.json"),
                };
                let moved = scene.project.home().join("moved");
                fs::rename(&place, &moved).unwrap();
                match how {
                    "its own content by a link" => symlink(&moved, &place).unwrap(),
                    "a file of the host" => symlink("/etc/shadow", &place).unwrap(),
                    "a pipe" => pipe(&place),
                    "a directory" => fs::create_dir(&place).unwrap(),
                    _ => symlink("/dev/zero", &place).unwrap(),
                }
                scene.project.own(&forged.dir);
                let output = forged.build();
                let notices = output.count("failed to load") + output.count("building without the cache");
                assert_eq!(notices, 1, "{name} {how}: {}", output.stderr);
                assert!(!output.stderr.contains("root:"), "{}", output.stderr);
            }
        }
        // Directories on the way.
        for name in ["blobs", "blobs/sha256"] {
            let forged = sound(&scene);
            let moved = scene.project.home().join("moved-dir");
            let _ = fs::remove_dir_all(&moved);
            fs::rename(forged.dir.join(name), &moved).unwrap();
            symlink(&moved, forged.dir.join(name)).unwrap();
            forged.misses(name, 1);
        }
        // Names that lead out.
        for digest in ["sha256:../../../../../etc/shadow", "../../x", "sha256:", "SHA256:00", "md5:00"] {
            let forged = Forged::new(&scene);
            let entry = json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 100,
                "annotations": { "org.opencontainers.image.ref.name": "latest" },
            });
            fs::write(forged.dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())
                .unwrap();
            forged.misses(digest, 1);
        }
    });
}

#[test]
fn c7_a_base_says_nothing_of_the_cache_unless_it_is_named() {
    let registry = Registry::start();
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let steps = "FROM evil\nRUN echo true > /o; echo ran it\n";
        let reference = format!("{}/c7-{user:?}:1", registry.host).to_lowercase();
        let _ = scene.build(steps, &["-t", &reference, "--push", "--cache-to", "type=inline"]).success();
        let on_top = format!("FROM {reference} AS base\nRUN true\n{steps}COPY --from=base /o /p\n");
        for dockerfile in [steps, &on_top] {
            for (args, expected) in [(&[][..], &["ran it"][..]), (&["--cache-from", &reference], &[])] {
                assert!(Command::new("rm").arg("-rf").arg(scene.project.state()).status().unwrap().success());
                let output = scene.build(dockerfile, args).success();
                assert_eq!(lines(&output), expected, "{}", output.stderr);
            }
        }
    });
}

#[test]
fn c9_a_cache_mount_is_one_of_its_state_directory_and_its_start() {
    as_both(|user| {
        let mut scene = Scene::with(user, &image(|tar| tar.dir("seed").file("seed/one", 0o644, "")));
        scene.image("other", &image(|tar| tar.dir("seed").file("seed/two", 0o644, "")));
        let step = |flags: &str| {
            format!("RUN --mount=type=cache,id=shared,target=/m{flags} ls -A /m; touch /m/poison; true\n")
        };
        let seen = |dockerfile: &str| lines(&scene.build(dockerfile, &["--no-cache"]).success());
        assert!(seen(&format!("FROM evil\n{}", step(""))).is_empty());
        assert_eq!(seen(&format!("FROM evil\n{}", step(""))), ["poison"]);
        // One that starts from something is no other's.
        assert_eq!(seen(&format!("FROM evil\n{}", step(",from=evil,source=/seed"))), ["one"]);
        assert_eq!(seen(&format!("FROM evil\n{}", step(",from=other,source=/seed"))), ["two"]);
        // Nor does it leave with a cache that is exported, or come into another state directory.
        let cache = scene.project.home().join("cache");
        let to = format!("type=local,dest={},mode=max", cache.display());
        let _ =
            scene.build(&format!("FROM evil\n{}RUN true\n", step("")), &["--no-cache", "--cache-to", &to]).success();
        assert!(Command::new("rm").arg("-rf").arg(scene.project.state()).status().unwrap().success());
        let mut all = BTreeMap::new();
        for blob in fs::read_dir(cache.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()) {
            if fs::read(&blob).unwrap().starts_with(&[0x1f, 0x8b]) {
                all.insert(blob.clone(), files(&blob));
            }
        }
        assert!(!all.is_empty() && all.values().flatten().all(|line| !line.contains("poison")), "{all:?}");
        let from = format!("type=local,src={}", cache.display());
        let output = scene.build(&format!("FROM evil\nENV a=b\n{}", step("")), &["--cache-from", &from]).success();
        assert!(lines(&output).is_empty(), "{}", output.stderr);
    });
}

/// BuildKit's rule, which the flag's documentation states: what a secret says is no part of a key.
#[test]
fn s6_another_secret_is_no_other_step() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let build = |value: &str, mount: &str| {
            let place = scene.project.home().join("s");
            fs::write(&place, value).unwrap();
            scene.project.own(&place);
            let dockerfile =
                format!("FROM evil\nRUN --mount=type=secret,id=s{mount} echo ran with $(wc -c < /run/secrets/s)\n");
            lines(&scene.build(&dockerfile, &["--secret", "id=s,src=s"]).success())
        };
        assert_eq!(build("a", ""), ["ran with 1"]);
        assert!(build("bb", "").is_empty());
        assert_eq!(build("bb", ",mode=0444"), ["ran with 2"]);
    });
}
