//! Submodules: what `.gitmodules` says, read as data.
//!
//! In: the lines of `git config -z --list`, and the tree's own entries. Out: where each is, from where, at which commit. Git's
//! own submodule command is not used: what it has run in the past for hostile repositories is a list of its own.

use std::collections::BTreeMap;

use super::error::GitError;
use super::repository::Repository;
use super::spec::{GitSpec, Remote, is_sha};

/// Submodules in submodules, and so on.
pub(super) const DEPTH: usize = 10;
/// Submodules of one repository.
const COUNT: usize = 1000;

/// A submodule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Submodule {
    pub(super) path: String,
    pub(super) url: String,
    pub(super) commit: String,
}

#[derive(Debug, Default)]
struct Section {
    path: Option<String>,
    url: Option<String>,
    skipped: bool,
}

/// Lists the submodules of a commit.
pub(super) async fn list(repository: &Repository<'_>) -> Result<Vec<Submodule>, GitError> {
    let Repository { git, sha, .. } = repository;
    let commit = format!("{sha}^{{commit}}");
    let entry = git.ask("read", &["ls-tree", "-z", &commit, "--", ".gitmodules"]).await?;
    match entry.get(..6) {
        None => return Ok(Vec::new()),
        Some(b"100644" | b"100755") => {}
        Some(_) => return Err(refused(&git.remote.url, ".gitmodules", "it is no file")),
    }
    let blob = format!("{commit}:.gitmodules");
    let listed = git.ask("read .gitmodules of", &["config", "--blob", &blob, "-z", "--list"]).await?;
    let sections = parse(&git.remote.url, &listed)?;
    let mut args = vec!["ls-tree", "-z", &commit, "--"];
    args.extend(sections.keys().map(String::as_str));
    if sections.is_empty() {
        return Ok(Vec::new());
    }
    let entries = git.ask("read", &args).await?;
    Ok(joined(sections, &String::from_utf8_lossy(&entries)))
}

fn refused(remote: &str, path: &str, reason: &str) -> GitError {
    GitError::Submodule { remote: remote.to_owned(), path: path.to_owned(), reason: reason.to_owned() }
}

/// Reads `submodule.NAME.KEY<newline>VALUE<nul>…`; returns URLs by path.
fn parse(remote: &str, listed: &[u8]) -> Result<BTreeMap<String, String>, GitError> {
    let mut sections: BTreeMap<&str, Section> = BTreeMap::new();
    let text = std::str::from_utf8(listed).map_err(|_| refused(remote, ".gitmodules", "it is no UTF-8 text"))?;
    for line in text.split('\0').filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once('\n').unwrap_or((line, "true"));
        let Some((name, key)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.')) else { continue };
        let section = sections.entry(name).or_default();
        match key {
            "path" => section.path = Some(value.to_owned()),
            "url" => section.url = Some(value.to_owned()),
            "update" => section.skipped = value == "none",
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    for Section { path, url, skipped } in sections.into_values() {
        let (Some(path), Some(url), false) = (path, url, skipped) else { continue };
        check(&path, &url).map_err(|reason| refused(remote, &path.escape_default().to_string(), reason))?;
        found.insert(path, url);
    }
    match found.len() > COUNT {
        true => Err(refused(remote, ".gitmodules", "it names too many")),
        false => Ok(found),
    }
}

fn check(path: &str, url: &str) -> Result<(), &'static str> {
    let part = |part: &str| matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git");
    match () {
        () if path.chars().chain(url.chars()).any(char::is_control) => Err("it has a control character"),
        () if path.split('/').any(part) => Err("its path leads elsewhere"),
        () if path.starts_with('-') || url.starts_with('-') => Err("it begins with `-`"),
        () => Ok(()),
    }
}

/// Takes those that the tree has a commit for.
fn joined(mut urls: BTreeMap<String, String>, entries: &str) -> Vec<Submodule> {
    let commits = entries.split('\0').filter_map(|entry| {
        let (meta, path) = entry.split_once('\t')?;
        let commit = meta.strip_prefix("160000 commit ").filter(|commit| is_sha(commit))?;
        Some((path.to_owned(), commit.to_owned()))
    });
    commits.filter_map(|(path, commit)| urls.remove(&path).map(|url| Submodule { path, url, commit })).collect()
}

/// Returns what to ask for a submodule; it gets what its parent has only where that is for all of a host anyway.
pub(super) fn spec_of(parent: &GitSpec, submodule: &Submodule) -> Result<GitSpec, GitError> {
    let wrong = |reason: &str| refused(&parent.remote.url, &submodule.path, reason);
    let url = absolute(&parent.remote.url, &submodule.url).ok_or_else(|| wrong("its URL leads nowhere"))?;
    let remote = Remote::parse(&url)?;
    let safe = |scheme: &str| matches!(scheme, "https" | "ssh");
    if !safe(&remote.scheme) && remote.scheme != parent.remote.scheme {
        return Err(wrong("its URL is less protected than that of the repository it is in"));
    }
    if remote.scheme == "ssh" && parent.remote.scheme != "ssh" {
        return Err(wrong("it is reached by ssh, and the repository it is in is not, so it gets no ssh agent"));
    }
    let mut spec = GitSpec::of_commit(remote, &submodule.commit);
    spec.ssh.clone_from(&parent.ssh);
    spec.known_hosts.clone_from(&parent.known_hosts);
    spec.keep_git_dir = parent.keep_git_dir && parent.subdir.is_empty();
    if super::access::shares_tokens(&parent.remote, &spec.remote) {
        spec.header_secret.clone_from(&parent.header_secret);
        spec.token_secret.clone_from(&parent.token_secret);
    }
    Ok(spec)
}

/// Resolves `../other.git` against the remote, as git does.
fn absolute(remote: &str, url: &str) -> Option<String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Some(url.to_owned());
    }
    let mut base = remote.trim_end_matches('/').to_owned();
    let mut rest = url;
    loop {
        if let Some(tail) = rest.strip_prefix("../") {
            let start = base.find("://").map_or(0, |at| at + 3);
            let cut = base[start..].rfind(['/', ':']).map(|at| start + at)?;
            base.truncate(cut + usize::from(base.as_bytes()[cut] == b':'));
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("./") {
            rest = tail;
        } else {
            break;
        }
    }
    let between = if base.ends_with(':') { "" } else { "/" };
    Some(format!("{base}{between}{}", rest.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn relative_urls() {
        for (remote, url, expected) in [
            ("https://h/a/b.git", "../c.git", Some("https://h/a/c.git")),
            ("https://h/a/b.git/", "../../x/c.git", Some("https://h/x/c.git")),
            ("https://h/a/b.git", "./c", Some("https://h/a/b.git/c")),
            ("git@h:a/b.git", "../c.git", Some("git@h:a/c.git")),
            ("git@h:b.git", "../c.git", Some("git@h:c.git")),
            ("https://h/a", "https://other/c", Some("https://other/c")),
        ] {
            assert_eq!(absolute(remote, url).as_deref(), expected, "{remote} {url}");
        }
        assert_eq!(absolute("https://h/a", "../../../c"), None);
    }

    #[test]
    fn g3_what_gitmodules_may_not_say() {
        let listed = |path: &str, url: &str| format!("submodule.a.path\n{path}\0submodule.a.url\n{url}\0");
        for (path, url) in [
            ("sub\r", "https://h/x.git"),
            ("../x", "https://h/x.git"),
            ("a/../../x", "https://h/x.git"),
            (".git/hooks", "https://h/x.git"),
            ("a/.GIT/x", "https://h/x.git"),
            ("-x", "https://h/x.git"),
            ("sub", "-oProxyCommand=x"),
            ("sub", "https://h/x\r.git"),
            ("/sub", "https://h/x.git"),
        ] {
            assert!(parse("r", listed(path, url).as_bytes()).is_err(), "{path:?} {url:?}");
        }
        let fine = parse("r", listed("deps/sub", "../x.git").as_bytes()).expect("valid");
        assert_eq!(fine["deps/sub"], "../x.git");
        let skipped = format!("{}submodule.a.update\nnone\0", listed("a", "u"));
        assert!(parse("r", skipped.as_bytes()).expect("valid").is_empty());
    }

    #[test]
    fn g4_a_submodule_gets_no_credential_of_its_parent() {
        let parent = |url: &str| {
            let remote = Remote::parse(url).expect(url);
            let spec = GitSpec::of_commit(remote, "main");
            GitSpec { token_secret: "GIT_AUTH_TOKEN".into(), header_secret: "GIT_AUTH_HEADER".into(), ..spec }
        };
        let of = |parent: &GitSpec, url: &str| {
            spec_of(parent, &Submodule { path: "s".into(), url: url.into(), commit: "1".repeat(40) })
        };
        for url in ["https://other/x.git", "https://h/other/x.git", "../x.git", "https://github.com/x/y.git"] {
            let spec = of(&parent("https://h/a/b.git"), url).expect(url);
            assert_eq!((spec.token_secret.as_str(), spec.header_secret.as_str()), ("", ""), "{url}");
        }
        let github = of(&parent("https://github.com/a/b.git"), "../x.git").expect("valid");
        assert_eq!(github.token_secret, "GIT_AUTH_TOKEN");
        assert_eq!(of(&parent("https://github.com/a/b.git"), "https://h/x.git").expect("valid").token_secret, "");
        for url in ["http://h/x.git", "git://h/x", "git@h:x", "ext::sh", "file:///etc", "/etc"] {
            assert!(of(&parent("https://h/a.git"), url).is_err(), "{url}");
        }
    }

    proptest! {
        #[test]
        fn g3_no_listing_leads_out_of_the_checkout(listed in "(submodule[.](a|b|c[.]d)[.](path|url|update)\n[a./\\-:\r]{0,8}\0){0,5}") {
            for path in parse("r", listed.as_bytes()).unwrap_or_default().keys() {
                prop_assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.starts_with('-'));
            }
        }
    }
}
