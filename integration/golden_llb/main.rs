//! Compares what Dockerfiles are lowered to with BuildKit's own output, case by case.
//!
//! `RBUILD_GOLDEN_LLB=DIR` picks another folder than `testdata/golden/llb` and `testdata/golden/corners`; arguments pick
//! cases by a part of their name.
//! Every case of the folder is run, and must not differ at all. The answers to calls in `testdata/golden/calls` are compared as well.
//!
//! An input that is refused must be so on BuildKit's lines, and for the cases of this repository the problem must know
//! BuildKit's own words too, even where ours are others. Of another folder only the lines are compared: what a mistake is
//! called is ours to choose.

mod bridge;
mod calls;
mod case;
mod compare;
mod decode;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use case::{Case, Words};

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut count = Count::default();
    for (folder, compare) in folders() {
        let names = case_names(&folder);
        assert!(!names.is_empty(), "no cases in {}", folder.display());
        for name in names.iter().filter(|n| wanted.is_empty() || wanted.iter().any(|w| n.contains(w.as_str()))) {
            count.add(&folder, name, compare);
        }
    }
    let Count { passed, bad } = count;
    report(&format!("golden llb: {passed} passed, {bad} failed"), &[]);
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a case of a folder and returns what differs.
type Compare = fn(&Path, &str) -> Vec<String>;

/// How many cases passed and failed.
#[derive(Default)]
struct Count {
    passed: usize,
    bad: usize,
}

impl Count {
    /// A panic is a difference too, and the other cases still run.
    fn add(&mut self, folder: &Path, name: &str, compare: Compare) {
        let differences = std::panic::catch_unwind(|| compare(folder, name));
        let differences = differences.unwrap_or_else(|_| vec!["panicked".to_owned()]);
        if differences.is_empty() {
            self.passed += 1;
        } else {
            self.bad += 1;
            report(name, &differences);
        }
    }
}

fn lowering(folder: &Path, name: &str) -> Vec<String> {
    Case::read(folder, name).run(Words::BuildKits)
}

fn lowering_of_others(folder: &Path, name: &str) -> Vec<String> {
    Case::read(folder, name).run(Words::Any)
}

fn folders() -> Vec<(PathBuf, Compare)> {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let given = std::env::var_os("RBUILD_GOLDEN_LLB");
    let own = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden").join(name);
    match given {
        Some(given) => vec![(PathBuf::from(given), lowering_of_others)],
        None => vec![(own("llb"), lowering), (own("corners"), lowering), (own("calls"), calls::differences)],
    }
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
