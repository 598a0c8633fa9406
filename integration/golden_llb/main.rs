//! Compares what Dockerfiles are lowered to with BuildKit's own output, case by case.
//!
//! `RBUILD_GOLDEN_LLB=DIR` picks another folder than `testdata/golden/llb`; arguments pick cases by a part of their name.
//! Every case of the folder is run. Cases in [`NOT_YET`] are known to differ; one that no longer does fails the test, as
//! does any other that differs.

mod bridge;
mod case;
mod compare;
mod decode;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use case::{Case, Outcome};

/// Cases that do not pass yet.
const NOT_YET: &[&str] = &[];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let folder = folder();
    let names = case_names(&folder);
    assert!(!names.is_empty(), "no cases in {}", folder.display());
    let mut bad = 0;
    let mut passed = 0;
    for name in names.iter().filter(|n| wanted.is_empty() || wanted.iter().any(|w| n.contains(w.as_str()))) {
        let Outcome { differences, notes } = outcome(&folder, name);
        if !notes.is_empty() {
            report(name, &notes);
        }
        let expected_to_differ = NOT_YET.contains(&name.as_str());
        match (differences.is_empty(), expected_to_differ) {
            (true, false) => passed += 1,
            (true, true) => {
                bad += 1;
                report(name, &["passes now: take it off the list".to_owned()]);
            }
            (false, true) => report(&format!("{name} (known)"), &differences),
            (false, false) => {
                bad += 1;
                report(name, &differences);
            }
        }
    }
    report(&format!("golden llb: {passed} passed, {bad} failed, {} known to differ", NOT_YET.len()), &[]);
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A panic is a difference too, and the other cases still run.
fn outcome(folder: &Path, name: &str) -> Outcome {
    let run = || Case::read(folder, name).run();
    let panicked = |_| Outcome { differences: vec!["panicked".to_owned()], ..Outcome::default() };
    std::panic::catch_unwind(run).unwrap_or_else(panicked)
}

fn folder() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let given = std::env::var_os("RBUILD_GOLDEN_LLB");
    given.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden/llb"), PathBuf::from)
}

fn case_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("folder of cases");
    let entries = entries.map(|e| e.expect("entry").path()).filter(|p| p.is_dir());
    let mut names: Vec<String> = entries.map(|p| p.file_name().expect("name").to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[expect(clippy::print_stdout, reason = "a test's report")]
fn report(title: &str, lines: &[String]) {
    println!("{title}");
    lines.iter().for_each(|line| println!("    {line}"));
}
