//! Compares what is imported from and exported to caches with BuildKit's own exports, case by case.
//!
//! `RBUILD_GOLDEN_CACHE=DIR` picks another folder than `testdata/golden/cache`; arguments pick cases by a part of their name.
//! Every case of the folder is run, as root and as a user without privilege:
//!
//! * from BuildKit's exports, with an empty state directory, every step has the state that BuildKit gave it, and the image has
//!   the same layers; what such a build exports again has the bytes of BuildKit's configuration;
//! * what a build from nothing exports has exactly BuildKit's records and links, results of as many layers, stacked in the same
//!   way, and sound layers;
//! * each change of the inputs runs the steps that it ran there, and no others;
//! * the same for images that carry their cache.
//!
//! The images that builds start from come from a real registry, through a mirror in a `buildkitd.toml`, so that they have the
//! names that they had when BuildKit saw them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop with the place")]

mod build;
mod case;
mod checks;
mod layout;
mod records;
mod registry;

#[path = "../support"]
#[allow(dead_code, reason = "shared with the integration tests, which use all of it")]
mod support {
    pub(crate) mod build;
    pub(crate) mod registry;
    pub(crate) mod runtime;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use case::Case;
use registry::BaseRegistry;
use support::build::{BOTH, User};

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let folder = folder();
    let names = case_names(&folder);
    assert!(!names.is_empty(), "no cases in {}", folder.display());
    records::check_the_comparison();
    let registry = BaseRegistry::start(&folder);
    let (mut bad, mut passed) = (0, 0);
    for name in names.iter().filter(|n| wanted.is_empty() || wanted.iter().any(|w| n.contains(w.as_str()))) {
        for user in BOTH {
            let begin = Instant::now();
            let differences = run(&folder, name, user, &registry);
            let title = format!("{name} ({}, {:.1} s)", user_name(user), begin.elapsed().as_secs_f64());
            match differences.is_empty() {
                true => passed += 1,
                false => {
                    bad += 1;
                    report(&title, &differences);
                }
            }
        }
    }
    report(&format!("golden cache: {passed} passed, {bad} failed"), &[]);
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A case that cannot be run to its end differs too, and the others still have their turn.
fn run(folder: &Path, name: &str, user: User, registry: &BaseRegistry) -> Vec<String> {
    let checked = catch_unwind(AssertUnwindSafe(|| checks::all(&Case::read(folder, name), user, registry)));
    checked.unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).into()));
        vec![format!("stopped: {}", text.unwrap_or_default())]
    })
}

fn user_name(user: User) -> &'static str {
    match user {
        User::Root => "root",
        User::Rootless => "rootless",
    }
}

fn folder() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let given = std::env::var_os("RBUILD_GOLDEN_CACHE");
    given.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden/cache"), PathBuf::from)
}

/// Folders of cases are those with an export; `base` and the pool of blobs have none.
fn case_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("folder of cases");
    let entries = entries.map(|e| e.expect("entry").path()).filter(|p| p.join("cache-max.json").exists());
    let mut names: Vec<String> = entries.map(|p| p.file_name().expect("name").to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[expect(clippy::print_stdout, reason = "a test's report")]
fn report(title: &str, lines: &[String]) {
    println!("{title}");
    lines.iter().for_each(|line| println!("    {line}"));
}
