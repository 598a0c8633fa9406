//! Tests of lists of patterns.

use super::*;
use crate::pattern::go::Token;
use crate::pattern::segments::Part;
use proptest::prelude::*;

fn matcher(patterns: &[&str]) -> Matcher {
    Matcher::new(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).expect("valid")
}

#[test]
fn one_pattern() {
    let cases = [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir", false),
        ("dir/**/", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "xfile", true),
        ("**/file", "file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file", "xfile", false),
        ("**/file*", "dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aze", false),
        ("a[^b-d]e", "aze", true),
        ("[*]", "*", true),
        ("[a\\]]", "]", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("a\\\\", "a\\", true),
        ("a\\*b", "a*b", true),
        ("**/foo/bar", "foo/bar", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a(b)c/def", "a(b)c/xyz", false),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3-py3-none-any.whl", true),
        ("docs", "docs/a/README.md", true),
        ("a^*", "a^b", true),
        ("日*", "日本", true),
        ("./x/../y", "y", true),
        ("x**y", "xa/y", true),
        ("x**y", "xay", false),
    ];
    for (pattern, path, want) in cases {
        assert_eq!(matcher(&[pattern]).matches_or_parent(path), want, "{pattern} {path}");
    }
}

#[test]
fn the_last_match_decides() {
    let cases: [(&[&str], &str, bool); 9] = [
        (&["*", "!fileutils.go"], "fileutils.go", false),
        (&["!fileutils.go", "*"], "fileutils.go", true),
        (&["docs", "!docs/README.md"], "docs/README.md", false),
        (&["docs", "!docs/README.md"], "docs/a/README.md", true),
        (&["docs/", "!docs/a"], "docs/a/b", false),
        (&["*.md", "!README.md", "**/README.md"], "README.md", true),
        (&["a", "!a/b", "a/b/c"], "a/b/c", true),
        (&["a", "!a/b", "a/b/c"], "a/b/d", false),
        (&["", "  ", " a "], "a", true),
    ];
    for (patterns, path, want) in cases {
        assert_eq!(matcher(patterns).matches_or_parent(path), want, "{patterns:?} {path}");
    }
}

#[test]
fn last_rule_is_the_one_that_decided() {
    let matcher = matcher(&["", "*.md", "!README.md", "x"]);
    assert!(matcher.has_exclusions());
    let cases = [("a.md", Some(1)), ("README.md", Some(2)), ("x", Some(3)), ("y", None)];
    for (path, want) in cases {
        assert_eq!(matcher.last_rule(path), want, "{path}");
    }
}

#[test]
fn f6_patterns_never_panic_or_explode() {
    let malformed = ["[", "\\", "[]a]", "a/[x-]", "!["];
    for pattern in malformed {
        assert!(matches!(Matcher::new(&[pattern.to_owned()]), Err(PatternError::Syntax { .. })), "{pattern}");
    }
    assert_eq!(Matcher::new(&["!".to_owned()]).expect_err("lone").to_string(), "illegal exclusion pattern: \"!\"");
    assert!(Matcher::new(&["a".repeat(MAX_PATTERN + 1)]).is_err());
    assert!(Matcher::new(&vec![String::new(); MAX_PATTERNS + 1]).is_err());
    for wildcard in ["a**b", "a*b*", "**/", "?*", "*/**"] {
        let matcher = matcher(&[&format!("{}z", wildcard.repeat(200))]);
        assert!(!matcher.matches_or_parent(&"a/b".repeat(1000)));
        assert!(!matcher.matches_or_parent(&"a".repeat(3000)));
    }
}

/// Every way is tried.
fn naive(parts: &[Part], path: &[char]) -> bool {
    let Some((first, rest)) = parts.split_first() else { return path.is_empty() };
    match first {
        Part::Rest => true,
        Part::Dirs => naive(rest, path) || (0..path.len()).any(|at| path[at] == '/' && naive(rest, &path[at + 1..])),
        Part::Go(Token::Star) => {
            naive(rest, path) || path.first().is_some_and(|c| *c != '/') && naive(parts, &path[1..])
        }
        Part::Go(token) => path.first().is_some_and(|c| token.matches(*c)) && naive(rest, &path[1..]),
    }
}

proptest! {
    #[test]
    fn agrees_with_a_naive_matcher(pattern in "[ab*?/]{1,9}", path in "[ab]{1,3}(/[ab]{1,3}){0,3}") {
        let compiled = Compiled::new(&pattern);
        if let Compiled::Parts(parts) = &compiled {
            let chars: Vec<char> = path.chars().collect();
            prop_assert_eq!(compiled.matches(&path), naive(parts, &chars), "{}", pattern);
        }
        let parent = path.match_indices('/').any(|(at, _)| compiled.matches(&path[..at]));
        prop_assert_eq!(compiled.matches_or_parent(&path), compiled.matches(&path) || parent, "{}", pattern);
    }

    #[test]
    fn walking_down_agrees_with_asking_for_the_path(
        patterns in prop::collection::vec("!?[ab*]{1,3}(/[ab*]{1,2}){0,2}", 1..5),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let matcher = Matcher::new(&patterns).expect("valid");
        let mut info = MatchInfo::default();
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.push(path.len());
        let mut last = false;
        for end in ends {
            (last, info) = matcher.matches_with(&path[..end], &info);
        }
        let (alone, _) = matcher.matches_with(&path, &MatchInfo::default());
        prop_assert_eq!(alone, matcher.matches_or_parent(&path));
        if !matcher.has_exclusions() {
            prop_assert_eq!(last, matcher.matches_or_parent(&path));
        }
    }

    #[test]
    fn never_panics(pattern in any::<String>(), path in any::<String>()) {
        if let Ok(matcher) = Matcher::new(&[pattern]) {
            let _ = (matcher.matches_or_parent(&path), matcher.matches_with(&path, &MatchInfo::default()));
        }
    }
}

/// A row of the table of patterns: whether each path is excluded, asked for at once and walking down to it.
#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Row {
    patterns: Vec<String>,
    paths: Vec<String>,
    matches: Vec<(bool, bool)>,
    exclusions: bool,
    error: Option<String>,
}

#[test]
fn matches_the_table_of_patterns_as_buildkit_does() {
    let rows = crate::diag::table::<Row>("patterns");
    let mut wrong = Vec::new();
    for row in &rows {
        let matcher = Matcher::new(&row.patterns);
        let (Ok(matcher), None) = (&matcher, &row.error) else {
            if matcher.is_ok() || row.error.is_none() {
                wrong.push(format!("{:?}: {:?} instead of {:?}", row.patterns, matcher.err(), row.error));
            }
            continue;
        };
        assert_eq!(matcher.has_exclusions(), row.exclusions, "{:?}", row.patterns);
        for (path, expected) in row.paths.iter().zip(&row.matches) {
            let step_by_step = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let walked = step_by_step
                .fold((false, MatchInfo::default()), |(_, info), end| matcher.matches_with(&path[..end], &info));
            let found = (matcher.matches_or_parent(path), walked.0);
            if found != *expected {
                wrong.push(format!("{:?} on {path:?}: {found:?} instead of {expected:?}", row.patterns));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}
