//! From the name of a branch, tag or commit to the commit.
//!
//! In: what the spec says and what `git ls-remote` prints. Out: [`Found`]. The order of preference is BuildKit's: the full name,
//! then a branch, then a tag.

use std::collections::BTreeSet;

use tokio::sync::MutexGuard;

use super::command::{Git, Log};
use super::error::GitError;
use super::spec::{GitSpec, check_ref, is_sha};
use super::{GitSource, Resolved};

/// What a server says of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) reference: String,
    pub(super) sha: String,
    pub(super) peeled: Option<String>,
    /// The spec with the address that answered.
    pub(super) spec: GitSpec,
}

/// Returns the commit where the spec itself names it.
pub(super) fn stated(spec: &GitSpec) -> Result<Option<Resolved>, GitError> {
    let resolved = |reference: &str, sha: &str| Resolved {
        reference: reference.to_owned(),
        sha: sha.to_owned(),
        peeled: None,
        spec: spec.clone(),
    };
    if is_sha(&spec.reference) {
        matches(&spec.checksum, &spec.reference, None)?;
        return Ok(Some(resolved(&spec.reference, &spec.reference)));
    }
    if !spec.fetch_by_commit {
        return Ok(None);
    }
    if !is_sha(&spec.checksum) {
        return Err(GitError::NoCommit { text: spec.checksum.clone() });
    }
    let reference = match spec.reference.as_str() {
        "" => spec.checksum.clone(),
        name if name.starts_with("refs/") => name.to_owned(),
        name => format!("refs/heads/{name}"),
    };
    Ok(Some(resolved(&reference, &spec.checksum)))
}

/// Compares what was found with the checksum that is wanted.
pub(super) fn check(spec: &GitSpec, found: &Found) -> Result<(), GitError> {
    matches(&spec.checksum, &found.sha, found.peeled.as_deref())
}

fn matches(checksum: &str, sha: &str, peeled: Option<&str>) -> Result<(), GitError> {
    let wanted = checksum.to_ascii_lowercase();
    if sha.starts_with(&wanted) || peeled.is_some_and(|peeled| peeled.starts_with(&wanted)) {
        return Ok(());
    }
    let found = peeled.map_or_else(|| sha.to_owned(), |peeled| format!("{sha} or {peeled}"));
    Err(GitError::Mismatch { expected: checksum.to_owned(), found })
}

impl GitSource {
    /// Asks the server, and once more where it sends us elsewhere.
    pub(super) async fn ask(&self, spec: &GitSpec, log: &Log) -> Result<Found, GitError> {
        match self.list(spec, log).await {
            Err(error) => match self.follow(spec, &error).await? {
                Some(moved) => self.list(&moved, log).await,
                None => Err(error),
            },
            found => found,
        }
    }

    /// Lets one client at a time meet an ssh server, as each that does not know it yet would note its key.
    async fn meeting(&self, spec: &GitSpec) -> Option<MutexGuard<'_, BTreeSet<String>>> {
        if spec.remote.scheme != "ssh" || !spec.known_hosts.is_empty() {
            return None;
        }
        let mut met = self.met.lock().await;
        met.insert(spec.remote.host.clone()).then_some(met)
    }

    async fn list(&self, spec: &GitSpec, log: &Log) -> Result<Found, GitError> {
        let access = self.access(spec)?;
        let _meeting = self.meeting(spec).await;
        let git = Git { access: Some(&access), ..Git::new(&self.program, &spec.remote, log) };
        let action = "fetch remote";
        if spec.reference.is_empty() {
            let listed = git.run(action, &["ls-remote", "--symref", "--", "origin", "HEAD"]).await?;
            return default_branch(spec, &String::from_utf8_lossy(&listed));
        }
        let peeled = format!("{}^{{}}", spec.reference);
        let listed = git.run(action, &["ls-remote", "--", "origin", &spec.reference, &peeled]).await?;
        named(spec, &String::from_utf8_lossy(&listed))
    }
}

/// Reads `ref: refs/heads/main<tab>HEAD` and the commit of HEAD. The branch's name is the server's, and checked as such.
fn default_branch(spec: &GitSpec, listed: &str) -> Result<Found, GitError> {
    let lines = || listed.lines().filter_map(|line| line.split_once('\t')).filter(|(_, name)| *name == "HEAD");
    let branch = lines().find_map(|(target, _)| target.strip_prefix("ref: "));
    let sha = lines().map(|(sha, _)| sha).find(|sha| is_sha(sha));
    let unknown = || GitError::NoDefault { remote: spec.remote.to_string() };
    let (branch, sha) = branch.zip(sha).ok_or_else(unknown)?;
    check_ref(branch)?;
    if !branch.starts_with("refs/heads/") {
        return Err(unknown());
    }
    Ok(Found { reference: branch.to_owned(), sha: sha.to_owned(), peeled: None, spec: spec.clone() })
}

fn named(spec: &GitSpec, listed: &str) -> Result<Found, GitError> {
    let name = &spec.reference;
    let full = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
    let (exact, branch, tag) = (full("refs/"), full("refs/heads/"), full("refs/tags/"));
    let find = |wanted: &str| {
        let line = listed.lines().filter_map(|line| line.split_once('\t')).rfind(|(_, name)| *name == wanted);
        line.map(|(sha, _)| sha).filter(|sha| is_sha(sha)).map(str::to_owned)
    };
    let peeled = find(&format!("{tag}^{{}}"));
    // A branch or tag that is named in full counts as one, not as a full name: a tag is followed to its commit.
    let exact = Some(exact).filter(|exact| ![&branch, &tag].contains(&exact));
    let choices = exact.map(|name| (name, None)).into_iter().chain([(branch, None), (tag, peeled)]);
    let found = choices.into_iter().find_map(|(name, peeled)| find(&name).map(|sha| (name, sha, peeled)));
    let (reference, sha, peeled) =
        found.ok_or_else(|| GitError::NoRef { remote: spec.remote.to_string(), reference: name.clone() })?;
    Ok(Found { reference, sha, peeled, spec: spec.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::git::Remote;

    fn spec(reference: &str, checksum: &str) -> GitSpec {
        let remote = Remote::parse("https://h/a.git").expect("valid");
        let spec = GitSpec::of_commit(remote, reference);
        GitSpec { checksum: checksum.into(), ..spec }
    }

    fn sha(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    #[test]
    fn full_names_then_branches_then_tags() {
        let listed = [
            (sha('1'), "refs/heads/x"),
            (sha('2'), "refs/tags/x"),
            (sha('3'), "refs/tags/x^{}"),
            (sha('4'), "refs/tags/v"),
            (sha('5'), "refs/tags/v^{}"),
            (sha('6'), "refs/pull/1/head"),
            (sha('7'), "refs/heads/deep/x"),
        ];
        let listed: String = listed.iter().map(|(sha, name)| format!("{sha}\t{name}\n")).collect();
        for (name, reference, digit, peeled) in [
            ("x", "refs/heads/x", '1', None),
            ("heads/x", "refs/heads/x", '1', None),
            ("refs/heads/x", "refs/heads/x", '1', None),
            ("tags/x", "refs/tags/x", '2', None),
            ("v", "refs/tags/v", '4', Some('5')),
            ("refs/tags/v", "refs/tags/v", '4', Some('5')),
            ("pull/1/head", "refs/pull/1/head", '6', None),
            ("deep/x", "refs/heads/deep/x", '7', None),
        ] {
            let found = named(&spec(name, ""), &listed).expect(name);
            assert_eq!((found.reference.as_str(), found.sha), (reference, sha(digit)), "{name}");
            assert_eq!(found.peeled, peeled.map(sha), "{name}");
        }
        assert!(matches!(named(&spec("none", ""), &listed), Err(GitError::NoRef { .. })));
        assert!(named(&spec("x", ""), "xyz\trefs/heads/x\n").is_err(), "what is no commit");
    }

    #[test]
    fn g1_the_servers_default_branch_is_checked() {
        let listed = |name: &str| format!("ref: {name}\tHEAD\n{}\tHEAD\n", sha('1'));
        let found = default_branch(&spec("", ""), &listed("refs/heads/main")).expect("valid");
        assert_eq!((found.reference.as_str(), found.sha), ("refs/heads/main", sha('1')));
        for name in ["refs/heads/--output=x", "refs/heads/../x", "refs/tags/x", "-x"] {
            assert!(default_branch(&spec("", ""), &listed(name)).is_err(), "{name}");
        }
        assert!(matches!(default_branch(&spec("", ""), ""), Err(GitError::NoDefault { .. })));
    }

    #[test]
    fn commits_named_in_full_need_no_server() {
        let found = stated(&spec(&sha('a'), "aaa")).expect("matches").expect("known");
        assert_eq!((found.reference, found.sha), (sha('a'), sha('a')));
        assert!(matches!(stated(&spec(&sha('a'), "b")), Err(GitError::Mismatch { .. })));
        assert_eq!(stated(&spec("main", "")).expect("unknown"), None);
        let by_commit =
            |reference: &str, checksum: &str| GitSpec { fetch_by_commit: true, ..spec(reference, checksum) };
        let found = stated(&by_commit("main", &sha('c'))).expect("valid").expect("known");
        assert_eq!((found.reference.as_str(), found.sha), ("refs/heads/main", sha('c')));
        assert!(stated(&by_commit("main", "abc")).is_err());
        assert_eq!(stated(&by_commit("", &sha('c'))).expect("valid").expect("known").reference, sha('c'));
    }

    #[test]
    fn checksums_may_be_short_and_name_tag_or_commit() {
        let found =
            Found { reference: "refs/tags/v".into(), sha: sha('4'), peeled: Some(sha('5')), spec: spec("v", "") };
        for (checksum, fits) in [("", true), ("44", true), ("5555", true), ("6", false)] {
            assert_eq!(check(&spec("v", checksum), &found).is_ok(), fits, "{checksum}");
        }
        let error = check(&spec("v", "6"), &found).expect_err("other").to_string();
        assert!(error.contains(&sha('4')) && error.contains(&sha('5')), "{error}");
    }
}
