//! The fuzz targets of `integration/fuzz` without libFuzzer: each over its corpus and a bounded number of mutations of it,
//! the same ones in every run. Long runs: `integration/run fuzz TARGET SECONDS`.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[path = "fuzz/src/lib.rs"]
mod targets;

/// Mutations per target: those that touch the disk or compress get fewer.
fn mutations(target: &str) -> usize {
    match target {
        "decompress" | "stdin_context" | "overlay_layers" => 200,
        "tar_apply" | "resolve_in_root" | "records_log" | "explain_annotation" => 400,
        "llb_encode" | "image_config" => 400,
        _ => 4000,
    }
}

/// Longest input that mutation makes.
const MAX_INPUT: usize = 8 << 10;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fuzz").join(name)
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("readable");
    entries
        .map(|entry| entry.expect("entry").path().file_stem().expect("name").to_string_lossy().into_owned())
        .collect()
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = folder("corpus").join(target);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect(target).map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("readable")).collect()
}

/// A generator of numbers that are the same in every run.
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Bytes that mean something to one parser or another.
const TELLING: &[u8] = b"\0\n\r\t \"'\\$`{}[]()<>#:;,=/@%&|*?!.-_~^0179aAzZ\x1b\x7f\x80\x9b\xff\xc2\xef";

fn mutate(seeds: &[Vec<u8>], random: &mut Xorshift) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let (from, to) = (random.below(input.len() + 1), random.below(input.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        match random.below(7) {
            0 if !input.is_empty() => input[from.min(to.saturating_sub(1))] ^= 1 << random.below(8),
            1 => input.insert(from, TELLING[random.below(TELLING.len())]),
            2 if from < input.len() => input[from] = TELLING[random.below(TELLING.len())],
            3 => input.truncate(to),
            4 => drop(input.drain(from..to)),
            5 => {
                let piece = input[from..to].repeat(1 + random.below(8));
                input.splice(from..from, piece);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let tail = &other[random.below(other.len() + 1)..];
                input.truncate(from);
                input.extend_from_slice(tail);
            }
        }
        input.truncate(MAX_INPUT);
    }
    input
}

/// Runs one target and returns the inputs it fails on.
fn failures(name: &str, target: targets::Target) -> Vec<String> {
    let seeds = corpus(name);
    assert!(!seeds.is_empty(), "{name} has no corpus");
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let mutated = (0..mutations(name)).map(|_| mutate(&seeds, &mut random));
    let inputs = seeds.iter().cloned().chain(mutated.collect::<Vec<_>>());
    let failed = inputs.filter(|input| catch_unwind(AssertUnwindSafe(|| target(input))).is_err());
    failed.take(3).map(|input| format!("{name}: \"{}\"", input.escape_ascii())).collect()
}

/// A test per target, so that they run beside each other and a failure names the target.
macro_rules! smoke {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                let name = stringify!($name);
                let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
                let failures = failures(name, *target);
                assert!(failures.is_empty(), "{}", failures.join("\n"));
            }
        )*

        /// The names that have a test here.
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

smoke!(
    attestation,
    auth_file,
    buildkitd_toml,
    cache_config,
    cache_spec,
    cdi_spec,
    cni_config,
    cni_record,
    cni_reply,
    content_disposition,
    csv_size_duration,
    decompress,
    digest,
    dockerfile,
    dockerignore,
    git_ref,
    git_source,
    git_url,
    image_config,
    image_location,
    link_header,
    llb_encode,
    location,
    log_sanitize,
    manifest,
    mount_spec,
    overlay_layers,
    passwd_user,
    records_log,
    explain_annotation,
    explain_record,
    redact,
    reference,
    registry_answer,
    resolve_in_root,
    seccomp_prog,
    shlex,
    ssh_agent_frame,
    ssh_key,
    stdin_context,
    tar_apply,
    tar_read,
    tar_roundtrip,
    usage_log,
    www_authenticate,
);

#[test]
fn every_target_has_a_test_a_binary_and_a_corpus() {
    let known: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(TESTED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), known);
    assert_eq!(names_in(&folder("fuzz_targets")), known);
    assert_eq!(names_in(&folder("corpus")), known);
    let package = fs::read_to_string(folder("Cargo.toml")).expect("Cargo.toml");
    for name in known {
        assert!(package.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
        let binary = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).expect("readable");
        assert!(binary.contains(&format!("run(\"{name}\", data)")), "{name}");
    }
}

#[test]
#[should_panic(expected = "a target of that name")]
fn a_target_that_is_not_there_is_not_run() {
    targets::run("none", b"");
}

/// The names another reader finds; none if it refuses the archive or says anything about it.
fn names_by(program: &str, tar: &Path) -> Option<Vec<String>> {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("TZ", "UTC");
    if program == "tar" {
        command.args(["--quoting-style=literal", "--no-wildcards"]);
    }
    let output = command.arg("-tf").arg(tar).output().expect(program);
    // A list cut short by an error is still a list: what we must not do is to find more.
    let listed = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    (output.status.success() && output.stderr.is_empty()).then_some(listed)
}

/// Whether a link, device or directory (in old tars a file whose name ends in a slash) states a size: Go's reader, and so every image tool, finds no data after it, GNU tar
/// skips as much as is stated.
fn sizes_without_data(tar: &[u8]) -> bool {
    tar.chunks_exact(512).any(|block| {
        let stated = block[124..136].iter().any(|byte| !matches!(byte, 0 | b' ' | b'0'));
        matches!(block[156], 0 | b'1'..=b'6') && stated
    })
}

/// T5: what one reader takes for data, another must not take for members.
#[test]
fn t5_other_readers_find_the_same_members() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let file = temp.path().join("t.tar");
    let seeds: Vec<Vec<u8>> = corpus("tar_read");
    let mut random = Xorshift(7);
    let mutated: Vec<Vec<u8>> = (0..150).map(|_| mutate(&seeds, &mut random)).collect();
    let (mut compared, mut refused) = (0, 0);
    for tar in seeds.iter().chain(&mutated) {
        let Ok(members) = rbuild::layer::fuzzing::members(tar) else {
            refused += 1;
            continue;
        };
        let plain = |name: &[u8]| name.iter().all(|byte| byte.is_ascii_graphic()) && !name.contains(&b'\\');
        if sizes_without_data(tar) || members.iter().any(|member| !plain(&member.name)) {
            continue;
        }
        fs::write(&file, tar).expect("written");
        let ours: Vec<String> = members.iter().map(|m| String::from_utf8_lossy(&m.name).into_owned()).collect();
        for program in ["tar", "bsdtar"] {
            let Some(theirs) = names_by(program, &file) else { continue };
            let bare = |names: &[String]| names.iter().map(|n| n.trim_end_matches('/').to_owned()).collect::<Vec<_>>();
            // Go's reader, and so every Go tool, leaves the records of global headers out; the members are the same.
            let global = tar.chunks(512).any(|block| block.get(156) == Some(&b'g'));
            assert_eq!(ours.len(), theirs.len(), "{program} on \"{}\"", tar.escape_ascii());
            assert!(
                global || bare(&ours) == bare(&theirs),
                "{ours:?}, {theirs:?} by {program} on \"{}\"",
                tar.escape_ascii()
            );
            compared += 1;
        }
    }
    assert!(compared >= 10 && refused >= 10, "{compared} compared, {refused} refused");
}

fn lowered_size(dockerfile: &str) -> (usize, Duration) {
    let start = Instant::now();
    let shown = targets::lowered(dockerfile.as_bytes());
    (shown.len(), start.elapsed())
}

/// Twice the Dockerfile is twice the ops, and no shape of a large one takes a time that grows with its square.
#[test]
fn large_dockerfiles_are_lowered_in_linear_space_and_bounded_time() {
    let runs =
        |count: usize| "FROM base\n".to_owned() + &(0..count).map(|n| format!("RUN step {n}\n")).collect::<String>();
    let stages = |count: usize| {
        let stage = |n: usize| format!("FROM base AS s{n}\nRUN step {n}\nCOPY --from=s{} /a /b\n", n.saturating_sub(1));
        "FROM base AS s0\n".to_owned() + &(1..count).map(stage).collect::<String>()
    };
    let settings = |count: usize| {
        let line = |n: usize| format!("ENV A{}=$A{}x\nLABEL l{}=v\nWORKDIR /w{n}\n", n % 10, n % 10 + 1, n % 10);
        "FROM base\n".to_owned() + &(0..count / 3).map(line).collect::<String>()
    };
    let shapes: [(&dyn Fn(usize) -> String, usize); 3] = [(&runs, 5000), (&stages, 300), (&settings, 5000)];
    for (shape, count) in shapes {
        let (half, _) = lowered_size(&shape(count / 2));
        let (whole, time) = lowered_size(&shape(count));
        assert!(half > 50 * count, "{half} bytes for {count}");
        assert!(whole < half * 22 / 10, "{half} bytes became {whole}");
        // Some hundred times what it takes: a square would show.
        assert!(time < Duration::from_secs(120), "{count} took {time:?}");
    }
}
