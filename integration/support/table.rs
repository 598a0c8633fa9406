//! Tables in Markdown whose last column names tests: their rows, and whether the tests are there.
//!
//! A name is `module::test` of these tests, `src/module::test` of those beside the code, or `kind/case` of `testdata/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Tables whose rows name tests have this as their last column.
const COLUMN: &str = "shown by";

/// Returns a path of this project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the rows of the tables that name tests: the first cell, and the names in the last.
pub(crate) fn rows(text: &str) -> Vec<(String, Vec<String>)> {
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
pub(crate) fn tests_of(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let tests = lines.iter().enumerate().filter(|(_, line)| **line == "#[test]" || line.starts_with("#[tokio::test"));
    let name = |at: usize| lines[at + 1..].iter().find_map(|line| function(line));
    tests.filter_map(|(at, _)| Some(name(at)?.to_owned())).collect()
}

fn function(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    rest.split_once('(').map(|(name, _)| name)
}

/// Tells whether a name of a table stands for a test or a case that there is.
pub(crate) fn exists(name: &str) -> bool {
    if let Some((module, test)) = name.rsplit_once("::") {
        let path = if module.starts_with("src/") { module.to_owned() } else { format!("integration/{module}") };
        return tests_of(&project(&format!("{}.rs", path.replace("::", "/")))).contains(test);
    }
    let folder = match name.split_once('/').map(|(kind, _)| kind) {
        Some("llb") => "testdata/golden/llb",
        Some("mistakes") => "testdata/mistakes",
        Some("dockerfile") => "testdata/dockerfile",
        _ => return false,
    };
    let case = name.split_once('/').map_or("", |(_, case)| case);
    !case.is_empty() && project(folder).join(case).is_dir()
}

/// Returns what is not there, a line a row.
pub(crate) fn missing(rows: &[(String, Vec<String>)]) -> Vec<String> {
    let missing = |(row, names): &(String, Vec<String>)| {
        let missing: Vec<&String> = names.iter().filter(|name| !exists(name)).collect();
        (!missing.is_empty()).then(|| format!("{row}: {missing:?}"))
    };
    rows.iter().filter_map(missing).collect()
}

#[test]
fn names_that_stand_for_nothing_are_found() {
    let table = "| what | shown by |\n| --- | --- |\n| a | `llb/none`, `features::language::gone`, `src/exec::none` |\n| b | |\n\n| c | d |\n";
    let expected = [
        ("a".to_owned(), vec!["llb/none".to_owned(), "features::language::gone".into(), "src/exec::none".into()]),
        ("b".to_owned(), vec![String::new()]),
    ];
    assert_eq!(rows(table), expected);
    assert!(rows(table).iter().flat_map(|(_, names)| names).all(|name| !exists(name)));
    assert_eq!(missing(&rows(table)).len(), 2);
    assert!(exists("support::table::names_that_stand_for_nothing_are_found"));
    assert!(
        exists("src/exec/target::e2_magic_links_are_refused") && exists("registry::security::r2_redirects_are_bounded")
    );
}
