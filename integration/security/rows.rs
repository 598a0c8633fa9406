//! The table of the rows, `ROWS.md`: every test it names is there, and every test that is named after a row is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::table::{missing, project, rows, tests_of};

/// Rows that nothing built so far can have: bake files, the runner's cache and commands, releases, signatures, telemetry.
const LATER: [&str; 12] = ["C2", "C8", "F9", "L3", "L4", "L5", "L6", "L7", "P2", "P4", "S2", "S7"];
/// How many rows each part of the list has.
const PARTS: [(&str, usize); 10] =
    [("E", 22), ("M", 12), ("T", 12), ("F", 9), ("R", 13), ("C", 9), ("G", 10), ("S", 7), ("L", 7), ("P", 4)];

/// What must hold before anybody builds a foreign Dockerfile: not only in a station's own tests.
const FIRST: &str = "E1 E2 E3 E4 E5 E6 E7 E8 E9 E10 E12 E13 E18 E19 M1 M2 M3 M4 M9 M12 T1 T2 T3 T4 T5 T6 T7 T8 T9 F1 F2 F3 \
                     R1 R2 R3 R4 R6 R7 R8 S1 L1 L2 P1 P3";

fn table() -> Vec<(String, Vec<String>)> {
    rows(&fs::read_to_string(project("integration/security/ROWS.md")).unwrap())
}

#[test]
fn every_row_names_tests_that_there_are() {
    let missing = missing(&table());
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_row_is_in_the_table_or_has_nothing_to_show_yet() {
    let seen: BTreeSet<String> = table().into_iter().map(|(row, _)| row).collect();
    let all = PARTS.iter().flat_map(|(part, count)| (1..=*count).map(move |number| format!("{part}{number}")));
    let (later, now): (BTreeSet<String>, BTreeSet<String>) = all.partition(|row| LATER.contains(&row.as_str()));
    assert_eq!(seen, now);
    assert_eq!(later.len(), LATER.len());
}

#[test]
fn what_comes_first_is_shown_by_whole_builds_or_stations_too() {
    let shown = |row: &str, name: &String| {
        let test = name.rsplit("::").next().unwrap();
        !name.starts_with("src/") && rows_of(test).iter().any(|named| named == row)
    };
    let table: BTreeMap<String, Vec<String>> = table().into_iter().collect();
    let missing: Vec<&str> =
        FIRST.split_ascii_whitespace().filter(|row| !table[*row].iter().any(|name| shown(row, name))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rows at the start of a test's name.
fn rows_of(name: &str) -> Vec<String> {
    let is_row = |word: &&str| {
        let number = word.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let part =
            word.len() - number.len() == 1 && PARTS.iter().any(|(part, _)| word.starts_with(&part.to_lowercase()));
        part && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    name.split('_').take_while(is_row).map(str::to_uppercase).collect()
}

#[test]
fn every_test_of_a_row_is_in_the_table() {
    assert_eq!(rows_of("l1_l2_what"), ["L1", "L2"]);
    assert!(rows_of("as_user_e5").is_empty() && rows_of("e_1").is_empty() && rows_of("x9_a").is_empty());
    let mut files = Vec::new();
    sources(&project("integration"), &mut files);
    sources(&project("src"), &mut files);
    let mut named = BTreeMap::<String, BTreeSet<String>>::new();
    for file in files {
        let path = file.strip_prefix(project("")).unwrap().with_extension("");
        let path = path.to_str().unwrap();
        let module = path.strip_prefix("integration/").map_or_else(|| path.to_owned(), |rest| rest.replace('/', "::"));
        for test in tests_of(&file) {
            for row in rows_of(&test) {
                named.entry(row).or_default().insert(format!("{module}::{test}"));
            }
        }
    }
    for (row, tests) in table() {
        let told: BTreeSet<String> = tests.into_iter().collect();
        let forgotten: Vec<String> = named.remove(&row).unwrap_or_default().difference(&told).cloned().collect();
        assert_eq!(forgotten, Vec::<String>::new(), "{row}");
    }
    assert!(named.is_empty(), "rows that are not in the table: {named:?}");
}
