//! Compares what Dockerfiles are lowered to with BuildKit's own output, case by case.
//!
//! `RBUILD_GOLDEN_LLB=DIR` picks another folder than `testdata/golden/llb` and `testdata/golden/corners`; arguments pick
//! cases by a part of their name.
//! Every case of the folder is run, and must not differ at all.

mod bridge;
mod case;
mod compare;
mod decode;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use case::Case;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut count = Count::default();
    for folder in folders() {
        let names = case_names(&folder);
        assert!(!names.is_empty(), "no cases in {}", folder.display());
        for name in names.iter().filter(|n| wanted.is_empty() || wanted.iter().any(|w| n.contains(w.as_str()))) {
            count.add(&folder, name);
        }
    }
    let Count { passed, bad } = count;
    report(&format!("golden llb: {passed} passed, {bad} failed"), &[]);
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many cases passed and failed.
#[derive(Default)]
struct Count {
    passed: usize,
    bad: usize,
}

impl Count {
    fn add(&mut self, folder: &Path, name: &str) {
        let differences = differences(folder, name);
        if differences.is_empty() {
            self.passed += 1;
        } else {
            self.bad += 1;
            report(name, &differences);
        }
    }
}

/// A panic is a difference too, and the other cases still run.
fn differences(folder: &Path, name: &str) -> Vec<String> {
    let run = || Case::read(folder, name).run();
    std::panic::catch_unwind(run).unwrap_or_else(|_| vec!["panicked".to_owned()])
}

fn folders() -> Vec<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let given = std::env::var_os("RBUILD_GOLDEN_LLB");
    let own = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden").join(name);
    given.map_or_else(|| vec![own("llb"), own("corners")], |given| vec![PathBuf::from(given)])
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
