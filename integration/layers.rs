//! The structure of `src`: imports go to a lower level only, and fenced crates stay behind their fences.
//!
//! In: the sources as text. Out: a list of what breaks a rule, empty when all is well.

use std::fs;
use std::path::{Path, PathBuf};

/// Level of each top-level module; a module may import lower levels only.
const LEVELS: &[(&str, u8)] = &[
    ("diag", 0),
    ("digest", 0),
    ("dockerfile", 0),
    ("image", 0),
    ("llb", 0),
    ("pattern", 0),
    ("progress", 0),
    ("explain", 1),
    ("solver", 1),
    ("sys", 1),
    ("cdi", 2),
    ("checksum", 2),
    ("cni", 2),
    ("layer", 2),
    ("registry", 2),
    ("secrets", 2),
    ("snapshot", 2),
    ("store", 2),
    ("exec", 3),
    ("remotecache", 3),
    ("source", 3),
    ("frontend", 4),
    ("ops", 4),
    ("export", 5),
    ("driver", 6),
    ("cli", 7),
    ("config", 7),
    ("rootless", 7),
];

/// Imports between siblings that the design allows.
const SIBLINGS: &[(&str, &[&str])] = &[
    ("diag", &["digest"]),
    ("dockerfile", &["diag", "digest", "pattern", "image"]),
    ("image", &["diag", "digest"]),
    ("llb", &["diag", "digest", "image"]),
    ("pattern", &["diag"]),
    ("progress", &["diag", "digest", "image"]),
    ("store", &["layer"]),
    ("snapshot", &["store", "layer"]),
    ("checksum", &["snapshot"]),
    ("cli", &["config", "rootless"]),
];

/// Crates that only some modules may name. `tempfile` is free.
const FENCES: &[(&str, &[&str])] = &[
    ("nix", &["sys"]),
    ("rustix", &["sys"]),
    ("libc", &["sys"]),
    ("reqwest", &["registry", "remotecache", "source", "github"]),
    ("tar", &["layer"]),
    ("flate2", &["layer"]),
    ("zstd", &["layer"]),
    ("bzip2", &["layer"]),
    ("liblzma", &["layer"]),
    ("clap", &["cli"]),
    ("toml", &["config"]),
    ("serde_saphyr", &["cdi"]),
    ("oci_spec", &["image", "source"]),
];

/// What a module of the lowest level does without: files, clocks, threads, the environment, and what brings them.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::env::var",
    "std::net::Tcp",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
];

fn level(module: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == module).map(|(_, level)| *level)
}

fn may_import(from: &str, to: &str) -> bool {
    let (Some(from_level), Some(to_level)) = (level(from), level(to)) else { return false };
    let sibling = || SIBLINGS.iter().any(|(name, allowed)| *name == from && allowed.contains(&to));
    from == to || to_level < from_level || (to_level == from_level && sibling())
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The words after each `PREFIX::` of a line of code.
fn paths_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let needle = format!("{prefix}::");
    let mut found = Vec::new();
    for (at, _) in line.match_indices(&needle) {
        let before = line[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
            let rest = &line[at + needle.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push(&rest[..end]);
        }
    }
    found
}

/// What one line of code breaks.
fn offences(module: &str, line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or("");
    let mut found = Vec::new();
    for target in paths_after(code, "crate") {
        if level(target).is_some() && !may_import(module, target) {
            found.push(format!("{module} may not import {target}"));
        }
    }
    if code.contains("crate::{") {
        found.push("name the module right behind `crate::`, so that the levels can be checked".to_owned());
    }
    if level(module) == Some(0) {
        found.extend(
            IMPURE.iter().filter(|word| code.contains(*word)).map(|word| format!("{module} is pure: no {word}")),
        );
    }
    for (name, allowed) in FENCES {
        if !paths_after(code, name).is_empty() && !allowed.contains(&module) {
            found.push(format!("{module} may not use the crate {name}"));
        }
    }
    found
}

/// The text up to a module of tests at its end.
fn before_tests(text: &str) -> &str {
    let is_tests = |at: &usize| {
        let item = text[*at..].trim_start_matches("#[cfg(test)]").trim_start();
        item.starts_with("mod ") && item.lines().next().is_some_and(|line| line.ends_with('{'))
    };
    let end = text.match_indices("#[cfg(test)]").map(|(at, _)| at).find(is_tests);
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn imports_go_down_and_crates_stay_fenced() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut found = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).expect("below src");
        let module = inside.components().next().expect("a name").as_os_str().to_string_lossy().replace(".rs", "");
        let text = fs::read_to_string(&file).expect("readable source");
        // Tests may use whatever they like, in files of their own as at the end of a file.
        if module == "lib"
            || inside.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests") || stem == "fake")
        {
            continue;
        }
        for (number, line) in before_tests(&text).lines().enumerate() {
            let offences = offences(&module, line);
            found.extend(offences.iter().map(|o| format!("{}:{}: {o}", inside.display(), number + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_folder_has_a_level() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).expect("src is readable") {
        let name = entry.expect("entry").file_name().to_string_lossy().replace(".rs", "");
        assert!(["lib", "main"].contains(&name.as_str()) || level(&name).is_some(), "{name} has no level");
    }
}

#[test]
fn the_check_itself_finds_offences() {
    assert_eq!(offences("solver", "use crate::store::Store;"), ["solver may not import store"]);
    assert_eq!(offences("ops", "let x = nix::unistd::getpid();"), ["ops may not use the crate nix"]);
    assert_eq!(offences("store", "use crate::solver::Op;"), Vec::<String>::new());
    assert_eq!(offences("image", "// crate::driver"), Vec::<String>::new());
    assert_eq!(offences("image", "std::fs::read(path)"), ["image is pure: no std::fs"]);
    assert_eq!(offences("ops", "use crate::{driver, cli};").len(), 1);
    let text = "a\n#[cfg(test)]\nuse b;\nc\n#[cfg(test)]\nmod tests {\n    d\n}\n";
    assert_eq!(before_tests(text), "a\n#[cfg(test)]\nuse b;\nc\n");
}
