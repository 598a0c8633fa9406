//! What rbuild is made of: dependencies, and the few places that start programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Versions that mended what had been found, of crates that rbuild has or may come to have.
const FLOORS: [(&str, [u64; 3]); 16] = [
    ("tar", [0, 4, 46]),
    ("h2", [0, 4, 16]),
    ("rustls-webpki", [0, 103, 13]),
    ("time", [0, 3, 47]),
    ("bytes", [1, 11, 1]),
    ("tokio", [1, 44, 2]),
    ("tracing-subscriber", [0, 3, 20]),
    ("anyhow", [1, 0, 103]),
    ("event-listener", [5, 4, 2]),
    ("crossbeam-epoch", [0, 9, 20]),
    ("memmap2", [0, 9, 11]),
    ("tonic", [0, 12, 3]),
    ("object_store", [0, 10, 2]),
    ("idna", [1, 0, 3]),
    ("zip", [2, 3, 0]),
    ("ruzstd", [0, 7, 3]),
];

/// What code under these licenses may be shipped with ours, which is Apache-2.0. CDLA-Permissive-2.0 is for data: Mozilla's
/// authorities, which come with rbuild for machines without any. It asks only that its text goes along where the data itself is
/// passed on, and asks nothing of what is made by use of it.
const LICENSES: [&str; 15] = [
    "Apache-2.0",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "CC0-1.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "OpenSSL",
    "BSL-1.0",
    "bzip2-1.0.6",
];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(['-', '+']).next().unwrap().split('.').map(|number| number.parse().unwrap()).collect()
}

#[test]
fn p3_every_dependency_is_pinned_and_from_the_registry() {
    let lock: toml::Table = fs::read_to_string(project("Cargo.lock")).unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages {
        let field = |name: &str| package.get(name).and_then(toml::Value::as_str).unwrap_or_default();
        let (name, version) = (field("name"), field("version"));
        if name == "rbuild" {
            continue;
        }
        assert_eq!(field("source"), "registry+https://github.com/rust-lang/crates.io-index", "{name}");
        let sum = field("checksum");
        assert!(sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name} {sum}");
        if let Some((_, floor)) = FLOORS.iter().find(|(floored, _)| *floored == name) {
            assert!(numbers(version) >= floor.to_vec(), "{name} {version} is older than {floor:?}");
        }
    }
}

/// Whether a license expression has a choice that [`LICENSES`] allows.
fn is_allowed(expression: &str) -> bool {
    let text = expression.replace('/', " OR ").replace(['(', ')'], " ");
    let fine = |one: &str| {
        let name = one.trim();
        name == "Apache-2.0 WITH LLVM-exception" || LICENSES.contains(&name)
    };
    // Where words are grouped, every word must be allowed, which is more than is needed.
    if expression.contains('(') {
        return text.split(" OR ").flat_map(|part| part.split(" AND ")).all(fine);
    }
    text.split(" OR ").any(|choice| choice.split(" AND ").all(fine))
}

#[test]
fn p3_licenses_allow_what_is_done() {
    for (expression, allowed) in
        [("MIT OR GPL-3.0", true), ("MIT AND GPL-3.0", false), ("MIT/Apache-2.0", true), ("", false)]
    {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform"]);
    cargo.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH)).current_dir(project(""));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100);
    let license = |package: &Value| package["license"].as_str().unwrap_or_default().to_owned();
    let refused: Vec<String> =
        packages.iter().filter(|p| !is_allowed(&license(p))).map(|p| format!("{} {}", p["name"], license(p))).collect();
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn p1_the_lock_file_is_what_ci_and_the_readme_build() {
    let run = fs::read_to_string(project("integration/run")).unwrap();
    let cargo: Vec<&str> = run
        .lines()
        .filter(|line| ["cargo build", "cargo test", "cargo clippy"].iter().any(|verb| line.contains(verb)))
        .collect();
    assert!(cargo.len() >= 3);
    assert!(cargo.iter().all(|line| line.contains("--locked")), "{cargo:?}");
}

/// Files that may start programs: the step itself, the runtime that the configuration names for it, the smallest program of a
/// platform, CNI plugins of the configuration's directories, docker or podman for `--load`, credential helpers, `newuidmap`.
const STARTERS: [&str; 13] = [
    "cni/plugin.rs",
    "exec/external/run.rs",
    "exec/external/search.rs",
    "exec/launch.rs",
    "exec/platforms/probe.rs",
    "exec/process.rs",
    "export/load.rs",
    "registry/helper.rs",
    "rootless/helper.rs",
    "source/git/command.rs",
    "sys/child.rs",
    "sys/proc.rs",
    "sys/ns.rs",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What starts a program, loads code, or asks a library that loads code.
const STARTS: [&str; 12] = [
    "Command::new",
    "proc::exec(",
    "execve",
    "execveat",
    "posix_spawn",
    "fexecve",
    "libc::system",
    "dlopen",
    "getpwnam",
    "getgrnam",
    "getgrouplist",
    "User::from_name",
];

fn starts_something(code: &str) -> bool {
    STARTS.iter().any(|call| code.contains(call))
}

#[test]
fn e18_programs_are_started_in_few_places_only() {
    assert!(starts_something("let c = Command::new(\"x\");") && !starts_something("let c = Commander::new();"));
    let src = project("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let is_test = file.components().any(|part| part.as_os_str() == "tests") || name.ends_with("tests.rs");
        let code = text.split("#[cfg(test)]").next().unwrap();
        let lines =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).filter(|line| starts_something(line));
        if !is_test && !STARTERS.contains(&name.as_str()) {
            found.extend(lines.map(|line| format!("{name}: {}", line.trim())));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
