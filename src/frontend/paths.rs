//! Paths inside images: joined, cleaned and freed of drive letters, lexically and by the rules of the image's system.
//!
//! In: texts from a Dockerfile. Out: texts with forward slashes. No file system is asked.

use crate::dockerfile::goquote::quote;
use crate::pattern::path::clean as clean_path;

use super::error::Problem;

/// What BuildKit puts before what is wrong with a drive letter.
pub(crate) const DRIVE: &str = "removing drive letter: ";

/// Whether a trailing `/` or `/.` is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// It is.
    Keep,
    /// It is not.
    Drop,
}

/// Joins path elements and cleans the result, as Go's `path.Join` does.
pub(crate) fn join(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|p| !p.is_empty()).collect();
    if parts.is_empty() { String::new() } else { clean_path(&parts.join("/")) }
}

/// Returns the last element of a path, as Go's `path.Base` does.
pub(crate) fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (path.is_empty(), trimmed.is_empty()) {
        (true, _) => ".",
        (_, true) => "/",
        _ => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Tells whether a path names more than itself.
pub(crate) fn has_wildcards(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
    false
}

/// Turns backslashes into slashes on Windows.
pub(crate) fn to_slash(path: &str, os: &str) -> String {
    if os == "windows" { path.replace('\\', "/") } else { path.to_owned() }
}

/// Tells whether a path is absolute on its system; drive letters do not make it so.
pub(crate) fn is_absolute(path: &str, os: &str) -> bool {
    strip_drive(path, os, Tail::Drop).is_ok_and(|p| p.starts_with('/'))
}

/// Returns an absolute path: `path` below `parent` unless it is absolute itself, in which case it is not cleaned.
pub(crate) fn normalize(parent: &str, path: &str, os: &str, tail: Tail) -> Result<String, Problem> {
    let written = to_slash(path, os);
    let strip = |path: &str| strip_drive(path, os, tail).map_err(|p| p.prefixed_upstream(DRIVE));
    let parent = strip(if parent.is_empty() { "/" } else { parent })?;
    let parent = if parent.starts_with('/') { parent } else { join(&["/", &parent]) };
    let mut new = strip(if written.is_empty() { &parent } else { &written })?;
    if !new.starts_with('/') {
        new = join(&[&parent, &new]);
    }
    if tail == Tail::Keep {
        keep_tail(&written, &mut new);
    }
    Ok(new)
}

/// Cleans a path below `parent` as file actions do.
pub(crate) fn action_path(parent: &str, path: &str, tail: Tail) -> String {
    let mut new = clean_path(path);
    if !new.starts_with('/') {
        new = join(&["/", parent, &new]);
    }
    if tail == Tail::Keep {
        keep_tail(path, &mut new);
    }
    new
}

fn keep_tail(written: &str, path: &mut String) {
    if written.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    } else if written.ends_with("/.") {
        path.push_str(if path == "/" { "." } else { "/." });
    }
}

/// Removes the drive letter on Windows, which must be that of the system drive.
pub(crate) fn strip_drive(path: &str, os: &str, tail: Tail) -> Result<String, Problem> {
    if os != "windows" {
        return Ok(path.to_owned());
    }
    let slashed = to_slash(path, os);
    if path.len() == 2 && path.ends_with(':') {
        return Err(Problem::new(format!("No relative path specified in {}", quote(path))));
    }
    if slashed.starts_with("//") {
        return Err(Problem::new("UNC paths are not supported"));
    }
    let rest = match slashed.split_once(':') {
        None => slashed.as_str(),
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => return Err(Problem::new("The specified path is not on the system drive (C:)")),
    };
    let mut clean = clean_path(rest);
    if tail == Tail::Keep && clean.len() > 1 && rest.ends_with('/') {
        clean.push('/');
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalizes() {
        for (parent, path, os, tail, expected) in [
            ("/w", "a/../b", "linux", Tail::Drop, "/w/b"),
            ("/w", "/a/../b/", "linux", Tail::Drop, "/a/../b/"),
            ("", "a/", "linux", Tail::Keep, "/a/"),
            ("/w", "./", "linux", Tail::Keep, "/w/"),
            ("/w", "a/.", "linux", Tail::Keep, "/w/a/."),
            ("/w", "", "linux", Tail::Drop, "/w"),
            ("\\app", ".\\sub\\", "windows", Tail::Keep, "/app/sub/"),
            ("", "C:\\app", "windows", Tail::Drop, "/app"),
        ] {
            assert_eq!(normalize(parent, path, os, tail).expect(path), expected, "{parent} {path}");
        }
        assert!(normalize("/", "D:\\x", "windows", Tail::Drop).is_err());
    }

    #[test]
    fn wildcards_and_bases() {
        assert!(has_wildcards("a/*") && has_wildcards("\\\\[a") && !has_wildcards("a\\*"));
        for (path, expected) in [("", "."), ("///", "/"), ("/a/b/", "b"), ("x", "x")] {
            assert_eq!(base(path), expected);
        }
        assert_eq!(action_path("/w", "/a/./b/", Tail::Keep), "/a/b/");
        assert_eq!(join(&["/", "..", "a"]), "/a");
    }
}
