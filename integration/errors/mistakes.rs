//! Mistakes that users make in Dockerfiles, each with all that is told of it.
//!
//! A folder of `testdata/mistakes` holds a `Dockerfile` and what standard error says of it, `stderr`, to the letter.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::build::{Project, User};

/// Fewer would mean that the folder was not found.
const AT_LEAST: usize = 60;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mistakes");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

#[test]
fn what_is_told_of_each_mistake() {
    let cases = cases();
    assert!(cases.len() >= AT_LEAST, "{} cases", cases.len());
    let project = Project::new(User::Rootless);
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy();
        project.file("Dockerfile", fs::read(case.join("Dockerfile")).unwrap());
        let output = project.build(&["--progress", "quiet"]);
        let expected = fs::read_to_string(case.join("stderr")).unwrap();
        if output.code != 3 || output.stderr != expected {
            wrong.push(format!("{name}: code {}, expected:\n{expected}but it said:\n{}", output.code, output.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_mistake_has_its_line_and_a_hint() {
    for case in cases() {
        let told = fs::read_to_string(case.join("stderr")).unwrap();
        for block in told.split("\n\n") {
            let whole_file = block.contains("contains no stages to build");
            assert!(whole_file || block.contains(" | >>> "), "{}: no line:\n{told}", case.display());
            assert!(block.contains("error: failed to solve: "), "{}: no error:\n{told}", case.display());
            assert!(block.contains("\nhint: "), "{}: no hint:\n{told}", case.display());
        }
    }
}
