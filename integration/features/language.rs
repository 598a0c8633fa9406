//! The table of the language: every row names tests, and every test named is there.
//!
//! In: `src/dockerfile/LANGUAGE.md` and the sources of the tests, as text.

use std::fs;

use crate::support::table::{missing, project, rows};

/// Fewer rows would mean that the tables were not found.
const AT_LEAST: usize = 60;

#[test]
fn every_row_names_tests_that_there_are() {
    let text = fs::read_to_string(project("src/dockerfile/LANGUAGE.md")).unwrap();
    let rows = rows(&text);
    assert!(rows.len() >= AT_LEAST, "{} rows", rows.len());
    let missing = missing(&rows);
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_readme_leads_to_the_table() {
    let readme = fs::read_to_string(project("README.md")).unwrap();
    assert!(readme.contains("(src/dockerfile/LANGUAGE.md)"));
}
