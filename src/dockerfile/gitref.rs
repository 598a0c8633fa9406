//! Git references as sources of ADD and as build contexts.
//!
//! In: a word. Out: [`GitRef`], nothing if the word means something else, or what is wrong with its query.

use super::giturl::{self, GitUrl};
use super::goquote::quote;
use super::text::parse_bool;

/// A git reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitRef {
    /// The URL's parts.
    pub url: GitUrl,
    /// What git is given; without a scheme for the bare `github.com/…` form.
    pub remote: String,
    /// Name of the repository.
    pub short_name: String,
    /// Branch, tag, commit or full reference name; empty for the default branch.
    pub reference: String,
    /// Commit that must be found, or the beginning of its name; empty if any will do.
    pub checksum: String,
    /// Directory to use; empty for all.
    pub subdir: String,
    /// Whether it is the bare `github.com/…` form, which only a context takes.
    pub indistinguishable_from_local: bool,
    /// Whether the connection is not encrypted.
    pub unencrypted: bool,
    /// Whether `.git` is kept, if said.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched, if said.
    pub submodules: Option<bool>,
    /// `checkout` or `commit`, where file times come from; empty if not said.
    pub mtime: String,
    /// Whether the checksum is fetched as the commit, whatever the reference says.
    pub fetch_by_commit: bool,
}

/// What is wrong with the query of a git reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitRefError {
    /// A key needs a value.
    #[error("query {} has no value", quote(key))]
    NoValue {
        /// The key.
        key: String,
    },
    /// A key is given twice.
    #[error("query {} has multiple values", quote(key))]
    MultipleValues {
        /// The key.
        key: String,
    },
    /// Two places say different things.
    #[error("{what} conflicts: {} vs {}", quote(first), quote(second))]
    Conflict {
        /// `ref` or `subdir`.
        what: &'static str,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Both a branch and a tag are given.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// A value is not one of those that are known.
    #[error("invalid {key} value: {}{expected}", quote(value))]
    InvalidValue {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The known values, in brackets, where they are not booleans.
        expected: &'static str,
    },
    /// A key does not exist.
    #[error("unexpected query {}", quote(key))]
    Unexpected {
        /// The key.
        key: String,
    },
}

/// Reads a word as a git reference; none if it is a path or another URL.
pub fn parse(word: &str) -> Result<Option<GitRef>, GitRefError> {
    if word.starts_with("./") || word.starts_with("../") {
        return Ok(None);
    }
    let bare = word.starts_with("github.com/");
    let url = if bare { giturl::parse(&format!("https://{word}")) } else { giturl::parse(word) };
    let Some(url) = url else { return Ok(None) };
    if !bare && url.scheme.starts_with("http") && !url.path.ends_with(".git") {
        return Ok(None);
    }
    let mut found = from_url(url, bare);
    found.load_query()?;
    Ok(Some(found))
}

fn from_url(url: GitUrl, bare: bool) -> GitRef {
    let remote = if bare { url.remote.trim_start_matches("https://").to_owned() } else { url.remote.clone() };
    let last = remote.rsplit('/').next().unwrap_or_default();
    GitRef {
        short_name: last.strip_suffix(".git").unwrap_or(last).to_owned(),
        reference: url.reference.clone(),
        checksum: String::new(),
        subdir: url.subdir.clone(),
        indistinguishable_from_local: bare,
        unencrypted: !bare && matches!(url.scheme.as_str(), "http" | "git"),
        keep_git_dir: None,
        submodules: None,
        mtime: String::new(),
        fetch_by_commit: false,
        remote,
        url,
    }
}

impl GitRef {
    fn load_query(&mut self) -> Result<(), GitRefError> {
        let (mut tag, mut branch) = (String::new(), String::new());
        for (key, values) in self.url.query.clone() {
            let [value] = values.as_slice() else { return Err(GitRefError::MultipleValues { key }) };
            let is_flag = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_flag {
                return Err(GitRefError::NoValue { key });
            }
            match key.as_str() {
                "ref" => self.set_reference(value)?,
                "tag" => value.clone_into(&mut tag),
                "branch" => value.clone_into(&mut branch),
                "subdir" => self.set_subdir(value)?,
                "checksum" | "commit" => self.checksum.clone_from(value),
                "keep-git-dir" => self.keep_git_dir = Some(flag(&key, value)?),
                "submodules" => self.submodules = Some(flag(&key, value)?),
                "fetch-by-commit" => self.fetch_by_commit = flag(&key, value)?,
                "mtime" => self.mtime = mtime(value)?,
                _ => return Err(GitRefError::Unexpected { key }),
            }
        }
        self.load_tag_and_branch(&tag, &branch)
    }

    fn load_tag_and_branch(&mut self, tag: &str, branch: &str) -> Result<(), GitRefError> {
        if !tag.is_empty() {
            self.set_reference(&prefixed("refs/tags/", tag))?;
        }
        match (tag, branch) {
            (_, "") => Ok(()),
            ("", branch) => self.set_reference(&prefixed("refs/heads/", branch)),
            _ => Err(GitRefError::BranchAndTag),
        }
    }

    fn set_reference(&mut self, value: &str) -> Result<(), GitRefError> {
        set("ref", &mut self.reference, value)
    }

    fn set_subdir(&mut self, value: &str) -> Result<(), GitRefError> {
        set("subdir", &mut self.subdir, value)
    }
}

fn set(what: &'static str, field: &mut String, value: &str) -> Result<(), GitRefError> {
    if !field.is_empty() && *field != value {
        return Err(GitRefError::Conflict { what, first: field.clone(), second: value.to_owned() });
    }
    value.clone_into(field);
    Ok(())
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn flag(key: &str, value: &str) -> Result<bool, GitRefError> {
    let invalid = || GitRefError::InvalidValue { key: key.to_owned(), value: value.to_owned(), expected: "" };
    if value.is_empty() { Ok(true) } else { parse_bool(value).ok_or_else(invalid) }
}

fn mtime(value: &str) -> Result<String, GitRefError> {
    if matches!(value, "checkout" | "commit") {
        return Ok(value.to_owned());
    }
    let expected = " (must be \"checkout\" or \"commit\")";
    Err(GitRefError::InvalidValue { key: "mtime".to_owned(), value: value.to_owned(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_git_from_the_rest() {
        let cases = [
            ("https://h/a/b.git", Some(("https://h/a/b.git", "b", "", ""))),
            ("https://h/b.git?tag=v1#:sub", Some(("https://h/b.git", "b", "refs/tags/v1", "sub"))),
            ("https://h/b.git?branch=refs/heads/x", Some(("https://h/b.git", "b", "refs/heads/x", ""))),
            ("git@h:a/b.git#main", Some(("git@h:a/b.git", "b", "main", ""))),
            ("ssh://git@h/b?ref=r&subdir=s", Some(("ssh://git@h/b", "b", "r", "s"))),
            ("github.com/a/b#r", Some(("github.com/a/b", "b", "r", ""))),
            ("https://h/a.tar.gz", None),
            ("https://h/a.git/x", None),
            ("ftp://h/a.git", None),
            ("./git@h:x", None),
            ("../a", None),
            ("a/b.git", None),
            ("", None),
        ];
        for (word, want) in cases {
            let found = parse(word).expect(word);
            let found = found
                .as_ref()
                .map(|r| (r.remote.as_str(), r.short_name.as_str(), r.reference.as_str(), r.subdir.as_str()));
            assert_eq!(found, want, "{word}");
        }
    }

    #[test]
    fn reads_the_flags_of_a_query() {
        let word = "http://h/a.git?keep-git-dir&submodules=0&mtime=commit&fetch-by-commit=true&commit=ab";
        let found = parse(word).expect("valid").expect("git");
        assert_eq!((found.keep_git_dir, found.submodules, found.fetch_by_commit), (Some(true), Some(false), true));
        assert_eq!((found.mtime.as_str(), found.checksum.as_str(), found.unencrypted), ("commit", "ab", true));
    }

    #[test]
    fn says_what_is_wrong_with_a_query() {
        let cases = [
            ("bad=1", "unexpected query \"bad\""),
            ("ref", "query \"ref\" has no value"),
            ("ref=a&ref=b", "query \"ref\" has multiple values"),
            ("ref=b#a", "ref conflicts: \"a\" vs \"b\""),
            ("subdir=b#a:c", "subdir conflicts: \"c\" vs \"b\""),
            ("tag=a&branch=b", "branch conflicts with tag"),
            ("keep-git-dir=x", "invalid keep-git-dir value: \"x\""),
            ("mtime=x", "invalid mtime value: \"x\" (must be \"checkout\" or \"commit\")"),
        ];
        for (query, want) in cases {
            let error = parse(&format!("https://h/a.git?{query}")).expect_err(query);
            assert_eq!(error.to_string(), want);
        }
    }
}
