//! The table of the language: every row names tests, and every test named is there.
//!
//! In: `src/dockerfile/LANGUAGE.md` and the sources of the tests, as text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Tables whose rows name tests have this as their last column.
const COLUMN: &str = "shown by";

/// Fewer rows would mean that the tables were not found.
const AT_LEAST: usize = 60;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the rows of the tables that name tests: the first cell, and the names in the last.
fn rows(text: &str) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        match (line.starts_with('|'), cells.last()) {
            (true, Some(&COLUMN)) => inside = true,
            (true, Some(last)) if inside && !last.starts_with("---") => {
                let names = last.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
                rows.push((cells[0].to_owned(), names));
            }
            (true, _) => {}
            (false, _) => inside = false,
        }
    }
    rows
}

/// Returns the names of the tests of one file.
fn tests_of(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let tests = lines.iter().enumerate().filter(|(_, line)| **line == "#[test]");
    let name = |at: usize| lines[at + 1..].iter().find_map(|line| line.strip_prefix("fn ")?.split_once("()"));
    tests.filter_map(|(at, _)| Some(name(at)?.0.to_owned())).collect()
}

/// Tells whether a name of the table stands for a test or a case that there is.
fn exists(name: &str) -> bool {
    if let Some((kind, case)) = name.split_once('/') {
        let folder = match kind {
            "llb" => "testdata/golden/llb",
            "mistakes" => "testdata/mistakes",
            "dockerfile" => "testdata/dockerfile",
            _ => return false,
        };
        return !case.is_empty() && project(folder).join(case).is_dir();
    }
    let Some((module, test)) = name.rsplit_once("::") else { return false };
    tests_of(&project(&format!("integration/{}.rs", module.replace("::", "/")))).contains(test)
}

#[test]
fn every_row_names_tests_that_there_are() {
    let text = fs::read_to_string(project("src/dockerfile/LANGUAGE.md")).unwrap();
    let rows = rows(&text);
    assert!(rows.len() >= AT_LEAST, "{} rows", rows.len());
    let missing = |(row, names): &(String, Vec<String>)| {
        let missing: Vec<&String> = names.iter().filter(|name| !exists(name)).collect();
        (!missing.is_empty()).then(|| format!("{row}: {missing:?}"))
    };
    let missing: Vec<String> = rows.iter().filter_map(missing).collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn names_that_stand_for_nothing_are_found() {
    let table =
        "| what | shown by |\n| --- | --- |\n| a | `llb/none`, `features::language::gone` |\n| b | |\n\n| c | d |\n";
    let expected = [
        ("a".to_owned(), vec!["llb/none".to_owned(), "features::language::gone".to_owned()]),
        ("b".to_owned(), vec![String::new()]),
    ];
    assert_eq!(rows(table), expected);
    assert!(rows(table).iter().flat_map(|(_, names)| names).all(|name| !exists(name)));
    assert!(exists("features::language::names_that_stand_for_nothing_are_found"));
}

#[test]
fn the_readme_leads_to_the_table() {
    let readme = fs::read_to_string(project("README.md")).unwrap();
    assert!(readme.contains("(src/dockerfile/LANGUAGE.md)"));
}
