//! Targets of the languages: Dockerfiles and what is written in them.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use rbuild::diag::Diagnostic;
use rbuild::digest::Digest;
use rbuild::dockerfile::lint::{CheckOptions, Linter};
use rbuild::dockerfile::mount::{MountSpec, Sharing};
use rbuild::dockerfile::word::{Lexer, MAX_LENGTH};
use rbuild::dockerfile::{csv, duration, gitref, giturl, mount, parse, size};
use rbuild::frontend::{self, Answer, Bridge, BridgeError, ResolveMode, ResolvedImage};
use rbuild::image::{Platform, Reference, canonical};
use rbuild::llb::{SourceOp, json};
use rbuild::pattern::{MatchInfo, Matcher, go, ignore};
use rbuild::source::git::{Remote, check_ref};
use rbuild::source::http::name;

use super::feed::Feed;

/// Any text is parsed, or refused with errors that can be shown. Lines of instructions, errors and warnings are lines of the
/// file, first before last.
pub fn dockerfile(data: &[u8]) {
    let Ok(checks) = CheckOptions::of_build(data, None) else { return };
    let last = data.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
    let inside = |ranges: &[rbuild::diag::LineRange]| {
        for range in ranges {
            assert!(range.start >= 1 && range.start <= range.end && range.end <= last, "{range:?} of {last} lines");
        }
    };
    let mut lint = Linter::new(checks);
    match parse::parse("Dockerfile", data, &mut lint) {
        Ok(file) => {
            let of_stages = file.stages.iter().flat_map(|stage| &stage.instructions);
            for instruction in file.meta_args.iter().chain(of_stages) {
                inside(&instruction.source.lines);
                assert!(!instruction.source.lines.is_empty(), "an instruction without a place");
            }
            for stage in &file.stages {
                inside(&stage.source.lines);
                assert_eq!(stage.name, stage.name.to_lowercase());
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty() && errors.len() <= parse::MAX_ERRORS + 1);
            for error in errors {
                assert!(error.line() <= last);
                assert!(!Diagnostic::from_error(&error).render().is_empty());
            }
        }
    }
    for warning in &lint.warnings {
        inside(&warning.lines);
        assert!(!warning.summary().is_empty());
    }
}

/// Answers with one base image, whatever is asked.
pub struct OneImage(pub Vec<u8>);

impl Bridge for OneImage {
    fn resolve_image<'a>(&'a self, _: &'a Reference, _: &'a Platform, _: ResolveMode) -> Answer<'a, ResolvedImage> {
        let image = ResolvedImage { digest: Digest::compute(&self.0), config: self.0.clone() };
        async { Ok(image) }.boxed()
    }

    fn resolve_oci_layout<'a>(&'a self, _: &'a str, _: &'a Reference, _: &'a Platform) -> Answer<'a, ResolvedImage> {
        async { Err(BridgeError::remote("no layout")) }.boxed()
    }

    fn read_ignore<'a>(&'a self, _: &'a str, _: &'a [String]) -> Answer<'a, Option<(String, Vec<u8>)>> {
        async { Ok(Some((".dockerignore".to_owned(), b"ignored\n!kept".to_vec()))) }.boxed()
    }

    fn source_time<'a>(&'a self, _: &'a SourceOp) -> Answer<'a, Option<i64>> {
        async { Ok(Some(1_700_000_000)) }.boxed()
    }

    fn http_head<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<u8>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

/// Lowers a Dockerfile on a base image of this configuration; what can be said of the outcome as text.
pub fn lowered(dockerfile: &[u8], config: &[u8]) -> String {
    let platform: Platform = "linux/amd64".parse().expect("platform");
    let request = frontend::Request {
        dockerfile_name: "Dockerfile".into(),
        dockerfile: dockerfile.to_vec(),
        options: BTreeMap::new(),
        worker_platforms: vec![platform],
        session: "s".into(),
        channel: frontend::channel_asked(dockerfile, None),
    };
    let bridge = OneImage(config.to_vec());
    // The bridge answers at once, so that there is nothing to wait for.
    let outcome = frontend::lower(&request, &bridge).now_or_never().expect("no waiting");
    match outcome {
        Err(error) => Diagnostic::from_error(&error).render(),
        Ok(lowered) => {
            let mut shown = Vec::new();
            for result in &lowered.results {
                let mut known = BTreeSet::new();
                for vertex in &result.definition.vertices {
                    assert_eq!(Digest::compute(&vertex.bytes), vertex.digest, "a digest of other bytes");
                    assert!(vertex.op.inputs.iter().all(|input| known.contains(&input.digest)), "inputs come first");
                    assert!(known.insert(vertex.digest.clone()), "a vertex twice");
                }
                let edge = result.definition.result.as_ref();
                assert!(edge.is_none_or(|edge| known.contains(&edge.vertex)), "a result that is no vertex");
                shown.extend(json::lines(&result.definition));
                shown.push(String::from_utf8_lossy(&canonical::to_vec(&result.config)).into_owned());
            }
            shown.extend(lowered.warnings.iter().map(rbuild::dockerfile::lint::LintWarning::summary));
            shown.join("\n")
        }
    }
}

/// The configuration of a base image.
pub const CONFIG: &[u8] =
    br#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"WorkingDir":"/w","User":"u",
"OnBuild":["RUN echo","COPY a b"]},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;

/// A Dockerfile is lowered twice to the same ops, configuration and warnings, or refused twice with the same words. Ops
/// come after their inputs, none twice, each under the digest of its bytes.
pub fn llb_encode(data: &[u8]) {
    assert_eq!(lowered(data, CONFIG), lowered(data, CONFIG));
}

/// Any word is expanded or refused, the result bounded, no name both set and unset. With all that is special kept, a word
/// without variables comes out as it went in. Words and the whole agree on which names were looked up.
pub fn shlex(data: &[u8]) {
    let mut feed = Feed(data);
    let flags = feed.byte();
    let env: Vec<(String, String)> =
        vec![("a".into(), feed.text()), ("B_1".into(), feed.text()), ("e".into(), String::new())];
    let text = feed.rest();
    let lexer = Lexer {
        escape: if flags & 1 == 0 { '\\' } else { '`' },
        raw_quotes: flags & 2 != 0,
        raw_escapes: flags & 4 != 0,
        skip_process_quotes: flags & 8 != 0,
        skip_unset: flags & 16 != 0,
    };
    let word = lexer.word(&text, &env);
    let words = lexer.words(&text, &env);
    assert_eq!(word.is_ok(), words.is_ok());
    if let (Ok(word), Ok((words, matched, unmatched))) = (&word, &words) {
        assert!(word.text.len() <= MAX_LENGTH);
        assert!(word.matched.is_disjoint(&word.unmatched));
        assert!(word.matched.iter().all(|name| env.iter().any(|(known, _)| known == name)));
        assert_eq!((&word.matched, &word.unmatched), (matched, unmatched));
        assert!(words.iter().map(String::len).sum::<usize>() <= MAX_LENGTH);
        if lexer.raw_quotes && lexer.raw_escapes && !text.contains('$') {
            assert_eq!(word.text, text);
        }
    }
    if let Err(error) = word {
        assert!(!Diagnostic::from_error(&error).render().is_empty());
    }
}

/// Any ignore file is read or refused. Without exceptions, whether a path matches does not depend on whether its parents are
/// asked first (with exceptions it does, in BuildKit too); the last rule that speaks of a path decides.
pub fn dockerignore(data: &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\0\0").unwrap_or(data.len());
    let (file, paths) = data.split_at(end);
    let paths = String::from_utf8_lossy(paths);
    let Ok(patterns) = ignore::read(file) else { return };
    for pattern in &patterns {
        assert!(!pattern.is_empty() && !pattern.contains('\n'), "{pattern:?}");
        let checked = go::check(pattern).is_ok();
        assert!(checked || go::matches(pattern, "x").is_err() || go::matches(pattern, "").is_ok());
    }
    let Ok(matcher) = Matcher::new(&patterns) else { return };
    for path in paths.split('\0').filter(|path| !path.is_empty()).take(20) {
        let path = rbuild::pattern::path::clean(path);
        if path.starts_with(['/', '.']) {
            continue;
        }
        let mut info = MatchInfo::default();
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut hidden = false;
        for end in ends {
            (hidden, info) = matcher.matches_with(&path[..end], &info);
        }
        let matches = matcher.matches_or_parent(&path);
        assert!(matcher.has_exclusions() || matches == hidden, "{path:?} and its parents under {patterns:?}");
        let decides = matcher.last_rule(&path).map(|rule| !patterns[rule].starts_with('!'));
        assert_eq!(decides.unwrap_or_default(), matches, "{path:?} by its last rule of {patterns:?}");
    }
}

/// A mount is read or refused; one that is read prints to a text that reads as the same.
pub fn mount_spec(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let from = mount::from_of(&text);
    match mount::parse(&text, &mut |value| Ok(value.to_owned())) {
        Ok(spec) => {
            let printed = printed(&spec);
            let again = mount::parse(&printed, &mut |value| Ok(value.to_owned()));
            assert_eq!(again.as_ref(), Ok(&spec), "{printed}");
            if let Ok(from) = from {
                assert_eq!(from, spec.from);
            }
        }
        Err(error) => assert!(!Diagnostic::from_error(&error).render().is_empty()),
    }
}

fn printed(spec: &MountSpec) -> String {
    let sharing = spec.sharing.map(|sharing| match sharing {
        Sharing::Shared => "shared",
        Sharing::Private => "private",
        Sharing::Locked => "locked",
    });
    let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
    let fields = [
        ("type", Some(spec.kind.name().to_owned())),
        ("from", text(&spec.from)),
        ("source", text(&spec.source)),
        ("target", text(&spec.target)),
        ("id", text(&spec.id)),
        ("env", spec.env.clone()),
        ("readonly", Some(spec.readonly.to_string())),
        ("size", Some(spec.size.to_string()).filter(|_| spec.size != 0)),
        ("sharing", sharing.map(str::to_owned)),
        ("required", Some("true".to_owned()).filter(|_| spec.required)),
        ("mode", spec.mode.map(|mode| format!("{mode:o}"))),
        ("uid", spec.uid.map(|uid| uid.to_string())),
        ("gid", spec.gid.map(|gid| gid.to_string())),
    ];
    let given = fields.iter().filter_map(|(key, value)| Some(quoted(&format!("{key}={}", value.as_ref()?))));
    given.collect::<Vec<_>>().join(",")
}

fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

/// A URL that git can use has no control character in what git is given when it has a scheme, a clean directory, and what git
/// is given is read as the same repository.
pub fn git_url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(url) = giturl::parse(&text) else { return };
    clean_subdir(&url.subdir);
    assert!(matches!(url.scheme.as_str(), "http" | "https" | "ssh" | "git"), "{}", url.scheme);
    if text.contains("://") && !url.remote.starts_with(&format!("{}@", url.user)) {
        assert!(!url.remote.contains(|c: char| c.is_ascii_control() || c == '#' || c == '?'), "{:?}", url.remote);
    }
    let again = giturl::parse(&url.remote).expect("what git is given is a URL");
    assert_eq!((&again.scheme, &again.user, &again.host), (&url.scheme, &url.user, &url.host));
    assert_eq!((&again.path, &again.remote), (&url.path, &url.remote));
    assert!(again.query.is_empty() && again.reference.is_empty() && again.subdir.is_empty(), "{again:?}");
}

fn clean_subdir(subdir: &str) {
    assert!(!subdir.starts_with('/') && !subdir.split('/').any(|part| part == ".."), "{subdir:?}");
}

/// A git reference names what git is given as [`git_url`] does; keys of the query that are not known are refused.
pub fn git_ref(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match gitref::parse(&text) {
        Ok(Some(found)) => {
            assert!(!text.starts_with("./") && !text.starts_with("../"));
            assert_eq!(found.indistinguishable_from_local, text.starts_with("github.com/"));
            assert!(found.remote.ends_with(&found.short_name) || found.remote.ends_with(".git"));
            assert!(matches!(found.mtime.as_str(), "" | "checkout" | "commit"));
            assert!(!found.unencrypted || matches!(found.url.scheme.as_str(), "http" | "git"));
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What git is given has no control character and begins with no `-`, and neither has a ref; it is accepted again as the same.
pub fn git_source(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(remote) = Remote::parse(&text) {
        assert!(!remote.url.starts_with('-') && !remote.host.starts_with('-') && !remote.host.is_empty(), "{remote:?}");
        assert!(!remote.url.chars().any(char::is_control), "{remote:?}");
        assert_eq!(Remote::parse(&remote.url).expect("what git is given").url, remote.url);
    }
    if check_ref(&text).is_ok() {
        assert!(!text.starts_with('-') && !text.contains("..") && !text.contains([':', ' ', '*', '^']), "{text:?}");
        assert!(!text.chars().any(char::is_control) && text.split('/').all(|part| !part.is_empty()), "{text:?}");
    }
}

/// The name of a file is one component, whatever URL and header say; a time that is read is printed as one that is read.
pub fn content_disposition(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (url, header) = text.split_once('\n').unwrap_or((&text, &text));
    for wanted in ["", url] {
        let found = name::file_name(url, wanted, Some(header));
        assert!(!matches!(found.as_str(), "" | "." | "..") && !found.contains('/'), "{found:?}");
        assert!(!found.chars().any(char::is_control), "{found:?}");
    }
    if let Some(time) = name::http_time(header).filter(|time| (0..10_000).contains(&time.year())) {
        assert_eq!(name::http_time(&name::print_time(time)), Some(time), "{header:?}");
    }
}

/// Fields that are quoted come back; a duration that is printed is read as the same; sizes are not negative.
pub fn csv_size_duration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(fields) = csv::fields(&text) {
        let line: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
        assert_eq!(csv::fields(&line.join(",")), Ok(fields));
    }
    if let Ok(size) = size::parse(&text) {
        assert!(size >= 0 || text.contains('-'), "{text:?} is {size}");
    }
    if let Ok(nanoseconds) = duration::parse(&text) {
        assert_eq!(duration::parse(&duration::format(nanoseconds)), Ok(nanoseconds), "{text:?}");
    }
}
