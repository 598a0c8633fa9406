//! What a source op asks of a git repository, and which names git may be given.

use super::error::GitError;
use crate::digest::Digest;
use crate::dockerfile::giturl::{self, GitUrl};
use crate::llb::SourceOp;

/// Longest name of a ref.
const LONGEST_REF: usize = 255;

/// A tree of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSpec {
    /// The repository.
    pub remote: Remote,
    /// Branch, tag, full name of a ref, or commit; empty for the default branch.
    pub reference: String,
    /// Commit that must be found, or the beginning of its name.
    pub checksum: String,
    /// Directory that is wanted; empty for all.
    pub subdir: String,
    /// Whether `.git` is kept.
    pub keep_git_dir: bool,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
    /// Where file times come from: `commit`, or else the checkout.
    pub mtime: String,
    /// Whether the checksum is fetched as the commit, whatever the reference says.
    pub fetch_by_commit: bool,
    /// Ids of secrets: a header value, and a token.
    pub header_secret: String,
    /// Id of the secret with a token.
    pub token_secret: String,
    /// Id of the ssh agent; empty for none.
    pub ssh: String,
    /// Keys of ssh servers, as in a `known_hosts`; empty where they are not known.
    pub known_hosts: String,
}

/// A repository's address, checked: git takes no part of it for an option, a command or a file of this machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// `http`, `https`, `ssh` or `git`.
    pub scheme: String,
    /// User and password of a web server, as they stand in the URL.
    pub(super) user: String,
    /// Host, with its port.
    pub host: String,
    /// What git is given: no user and password of a web server are in it.
    pub url: String,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

impl Remote {
    /// Checks an address.
    ///
    /// # Errors
    ///
    /// When it is of a kind that is not fetched from, or could be taken for something else.
    pub fn parse(text: &str) -> Result<Self, GitError> {
        let wrong = |reason| GitError::Name { what: "git remote", text: shown(text), reason };
        let url = giturl::parse(text).ok_or_else(|| wrong("it is no https://, ssh://, http:// or git:// URL"))?;
        check_parts(&url).map_err(wrong)?;
        let web = url.scheme.starts_with("http");
        let remote = match url.remote.split_once("://") {
            Some((scheme, rest)) if web && !url.user.is_empty() => {
                let rest = rest.strip_prefix(&url.user).and_then(|rest| rest.strip_prefix('@')).unwrap_or(rest);
                format!("{scheme}://{rest}")
            }
            _ => url.remote.clone(),
        };
        let user = if web { url.user } else { String::new() };
        Ok(Self { scheme: url.scheme, user, host: url.host, url: remote })
    }

    /// Returns what tells users of one repository apart, without what is secret of them.
    pub(super) fn user_key(&self) -> Digest {
        Digest::compute(&self.user)
    }
}

fn check_parts(url: &GitUrl) -> Result<(), &'static str> {
    let parts = [&url.user, &url.host, &url.path, &url.remote];
    let user = giturl::percent_decoded(&url.user).ok_or("its user is not encoded well")?;
    if parts.iter().any(|part| part.chars().any(char::is_control)) || user.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    if url.host.is_empty() {
        return Err("it names no host");
    }
    if parts.iter().any(|part| part.starts_with('-')) || url.path.trim_start_matches('/').starts_with('-') {
        return Err("a part of it begins with `-`");
    }
    if url.scheme == "ssh" && url.user.contains(':') {
        return Err("ssh takes no password in a URL");
    }
    Ok(())
}

/// Drops what stands before the `@`, which may be a password, and what follows the `?`.
fn shown(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let start = text.find("://").map_or(0, |at| at + 3);
    let authority = text[start..].split('/').next().unwrap_or_default();
    let shown = authority.rfind('@').map_or(text, |at| &text[start + at + 1..]);
    shown.chars().filter(|c| !c.is_control()).take(LONGEST_REF).collect()
}

/// Checks a ref by git's own rules, and some more.
///
/// # Errors
///
/// When it is no name of a ref.
pub fn check_ref(name: &str) -> Result<(), GitError> {
    let wrong = |reason| GitError::Name { what: "git ref", text: name.chars().take(LONGEST_REF).collect(), reason };
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let part = |part: &str| part.is_empty() || part.starts_with(['.', '-']) || part.ends_with(".lock");
    match name {
        name if name.starts_with('-') => Err(wrong("it begins with `-`")),
        name if name.len() > LONGEST_REF => Err(wrong("it is too long")),
        name if name.contains(forbidden) => Err(wrong("it has a character that no ref has")),
        name if name.contains("..") || name.contains("@{") => Err(wrong("it has `..` or `@{`")),
        "@" => Err(wrong("it is no name")),
        name if name.ends_with('.') || name.split('/').any(part) => Err(wrong("a part of it is no name")),
        _ => Ok(()),
    }
}

/// Returns whether it is the whole name of a commit: 40 or 64 hexadecimal digits in lower case, as BuildKit wants them.
pub fn is_sha(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl GitSpec {
    /// Asks for all of a commit of a repository.
    pub(super) fn of_commit(remote: Remote, commit: &str) -> Self {
        Self {
            remote,
            reference: commit.to_owned(),
            checksum: String::new(),
            subdir: String::new(),
            keep_git_dir: false,
            skip_submodules: false,
            mtime: String::new(),
            fetch_by_commit: false,
            header_secret: String::new(),
            token_secret: String::new(),
            ssh: String::new(),
            known_hosts: String::new(),
        }
    }

    /// Reads a source op.
    ///
    /// # Errors
    ///
    /// When a name in it is none, or it asks for what is not there.
    pub fn from_op(op: &SourceOp) -> Result<Self, GitError> {
        let rest = op.identifier.strip_prefix("git://").unwrap_or(&op.identifier);
        let (address, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let attr = |name: &str| op.attrs.get(name).cloned().unwrap_or_default();
        let full = op.attrs.get("git.fullurl").map_or(address, String::as_str);
        let remote = match giturl::parse(full) {
            Some(_) => Remote::parse(full)?,
            None => Remote::parse(&format!("https://{full}"))?,
        };
        let (reference, subdir) = giturl::fragment_parts(fragment);
        if !reference.is_empty() {
            check_ref(&reference)?;
        }
        let refused = |name: &&String| name.starts_with("git.sig.") || name.contains("bundle");
        if let Some(name) = op.attrs.keys().find(refused) {
            return Err(GitError::Unsupported { name: name.clone() });
        }
        let checksum = attr("git.checksum");
        if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(GitError::Checksum { text: checksum });
        }
        Ok(Self {
            remote,
            reference,
            checksum,
            subdir,
            keep_git_dir: attr("git.keepgitdir") == "true",
            skip_submodules: attr("git.skipsubmodules") == "true",
            mtime: attr("git.mtime"),
            fetch_by_commit: attr("git.fetchbycommit") == "true",
            header_secret: attr("git.authheadersecret"),
            token_secret: attr("git.authtokensecret"),
            ssh: attr("git.mountsshsock"),
            known_hosts: attr("git.knownsshhosts"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn g1_names_that_git_could_take_for_something_else() {
        for name in [
            "--upload-pack=x",
            "-x",
            "refs/heads/-x",
            "refs/heads/--output=x",
            "../../x",
            "a..b",
            "a//b",
            "/a",
            "a/",
            "a b",
            "a\nb",
            "a\u{7f}",
            "a~1",
            "a^{}",
            "a:b",
            "a*",
            "a?",
            "a[b",
            "a\\b",
            "@",
            "a@{1}",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a.",
            "",
            &"a".repeat(256),
        ] {
            assert!(check_ref(name).is_err(), "{name:?}");
        }
        for name in ["main", "refs/heads/a-b", "v1.0", "refs/pull/1/head", "ä", "a@b", &"a".repeat(255)] {
            assert!(check_ref(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn g1_remotes_that_git_could_take_for_something_else() {
        for text in [
            "ext::sh -c x",
            "file:///etc",
            "/etc",
            "../x",
            "-oProxyCommand=x@h:p",
            "ssh://-oProxyCommand=x/p",
            "ssh://git@-x/p",
            "git@h:-x",
            "https://-x/p.git",
            "https:///p.git",
            "ftp://h/p.git",
            "https://h/p%0a.git",
            "https://h/%00.git",
            "https://u%0d:p@h/p.git",
            "ssh://u:p@h/p",
        ] {
            assert!(Remote::parse(text).is_err(), "{text:?}");
        }
        for text in ["https://h/p.git", "git@h:a/b.git", "ssh://git@h:22/p", "http://127.0.0.1:1/p.git", "git://h/p"] {
            assert_eq!(Remote::parse(text).expect(text).url, text);
        }
    }

    #[test]
    fn g7_a_remote_is_shown_and_used_without_its_password() {
        let remote = Remote::parse("https://user:pass@h:1/p.git").expect("valid");
        assert_eq!((remote.url.as_str(), remote.user.as_str()), ("https://h:1/p.git", "user:pass"));
        assert_eq!((format!("{remote:?}"), remote.to_string()), (remote.url.clone(), remote.url.clone()));
        let error = Remote::parse("https://user:pass@/p.git").expect_err("no host").to_string();
        assert!(!error.contains("pass"), "{error}");
    }

    #[test]
    fn ops_are_read() {
        let attrs = [("git.fullurl", "git@h:a/b.git"), ("git.keepgitdir", "true"), ("git.mountsshsock", "default")];
        let attrs = attrs.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let op = SourceOp { identifier: "git://h/a/b.git#main:dir".into(), attrs };
        let spec = GitSpec::from_op(&op).expect("valid");
        assert_eq!(
            (spec.remote.url.as_str(), spec.reference.as_str(), spec.subdir.as_str()),
            ("git@h:a/b.git", "main", "dir")
        );
        assert!(spec.keep_git_dir && !spec.skip_submodules && spec.ssh == "default");
        let bare = SourceOp { identifier: "git://github.com/a/b.git".into(), ..SourceOp::default() };
        assert_eq!(GitSpec::from_op(&bare).expect("valid").remote.url, "https://github.com/a/b.git");
        for (name, value) in [("git.checksum", "xyz"), ("git.bundle", "x"), ("git.sig.pubkey", "x")] {
            let attrs = [(name.to_owned(), value.to_owned())].into_iter().collect();
            assert!(GitSpec::from_op(&SourceOp { attrs, ..bare.clone() }).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_harmless(name in "[-a-z./@~^:{} \\PC]{0,20}") {
            if check_ref(&name).is_ok() {
                prop_assert!(!name.starts_with('-') && !name.contains("..") && !name.chars().any(char::is_control));
                prop_assert!(!name.contains([':', '*', '^', ' ']));
            }
        }

        #[test]
        fn an_accepted_remote_is_harmless(text in "(https://|ssh://|git://|git@)?[-a-z@:/%0.\\n]{0,24}") {
            if let Ok(remote) = Remote::parse(&text) {
                prop_assert!(!remote.url.starts_with('-') && !remote.url.chars().any(char::is_control));
                prop_assert!(!remote.host.starts_with('-') && !remote.host.is_empty());
                let again = Remote::parse(&remote.url).expect("what git is given is a remote");
                prop_assert_eq!(again.url, remote.url);
            }
        }
    }
}
