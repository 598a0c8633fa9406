//! What can go wrong with a git repository.

use std::io;

use crate::diag::{Diagnose, Kind};
use crate::snapshot::SnapshotError;
use crate::source::http::HttpError;
use crate::store::StoreError;

/// A repository that cannot be had. Remotes are kept without user and password.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program is not on this machine.
    #[error("failed to fetch {remote}: the program git is not on this machine")]
    NoGit {
        /// The repository.
        remote: String,
    },
    /// The program cannot be started.
    #[error("failed to start git")]
    Start {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name is none, or one that git could take for something else.
    #[error("invalid {what} {text:?}: {reason}")]
    Name {
        /// `git ref`, `git remote`.
        what: &'static str,
        /// The text.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An attribute that this version does nothing about, and that must not be ignored.
    #[error("{name} is not there in this version of rbuild")]
    Unsupported {
        /// The attribute.
        name: String,
    },
    /// A checksum is no commit, or the beginning of one.
    #[error("invalid checksum {text} for Git URL, expected hex commit hash")]
    Checksum {
        /// The text.
        text: String,
    },
    /// A whole commit is needed to fetch by.
    #[error("fetch-by-commit requires a full commit SHA checksum, got {text:?}")]
    NoCommit {
        /// The text.
        text: String,
    },
    /// It is another commit.
    #[error("expected checksum to match {expected}, got {found}")]
    Mismatch {
        /// What was asked for.
        expected: String,
        /// What was found, with ` or ` between a tag and its commit.
        found: String,
    },
    /// There is no such branch, tag or commit.
    #[error("repository {remote} does not contain ref {reference}")]
    NoRef {
        /// The repository.
        remote: String,
        /// The name.
        reference: String,
    },
    /// The repository is empty, or does not say which branch is its main one.
    #[error("could not find default branch for repository: {remote}")]
    NoDefault {
        /// The repository.
        remote: String,
    },
    /// Git says no.
    #[error("failed to {action} {remote}: {said}")]
    Failed {
        /// What was being done.
        action: &'static str,
        /// The repository.
        remote: String,
        /// Git's words.
        said: String,
        /// Host, as it stands in the names of secrets.
        host: String,
    },
    /// Git took more than it may.
    #[error("failed to {action} {remote}: {reason}")]
    Limit {
        /// What was being done.
        action: &'static str,
        /// The repository.
        remote: String,
        /// Which limit.
        reason: String,
    },
    /// A directory that is wanted is none, or is behind a link.
    #[error("invalid subdir {subdir:?} of {remote}: {part:?} is not a directory")]
    Subdir {
        /// The repository.
        remote: String,
        /// What was asked for.
        subdir: String,
        /// The part at fault.
        part: String,
    },
    /// What a submodule says of itself is not usable.
    #[error("refused submodule {path:?} of {remote}: {reason}")]
    Submodule {
        /// The repository it is in.
        remote: String,
        /// Where it is.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A submodule cannot be had.
    #[error("failed to fetch submodule {path:?}")]
    InSubmodule {
        /// Where it is.
        path: String,
        /// Why.
        #[source]
        source: Box<GitError>,
    },
    /// The source needs an ssh agent that was not given.
    #[error("failed to fetch {remote}: ssh agent {id}: not found")]
    SshMissing {
        /// The repository.
        remote: String,
        /// Its id.
        id: String,
    },
    /// A secret cannot stand in a header.
    #[error("secret {id} cannot be sent: it is no header value")]
    SecretInvalid {
        /// Its id.
        id: String,
    },
    /// The server sends us elsewhere, where it cannot be followed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The state directory cannot be written or read.
    #[error("failed to work on {remote} in the state directory")]
    Io {
        /// The repository.
        remote: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layer with the files cannot be made.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Words of git that mean that the server wants to know who asks.
const LOGIN: [&str; 5] =
    ["could not read Username", "Authentication failed", "returned error: 401", "returned error: 403", "not found"];

impl Diagnose for GitError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoGit { .. } | Self::Start { .. } | Self::Io { .. } => Kind::Machine,
            Self::Name { .. } | Self::Unsupported { .. } | Self::Checksum { .. } | Self::NoCommit { .. } => {
                Kind::Dockerfile
            }
            Self::SshMissing { .. } | Self::SecretInvalid { .. } => Kind::Usage,
            Self::InSubmodule { source, .. } => source.kind(),
            Self::Http(error) => error.kind(),
            Self::Snapshot(error) => error.kind(),
            Self::Store(error) => error.kind(),
            _ => Kind::Remote,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoGit { .. } => vec![
                "install it (`apt-get install git`, `apk add git`, `dnf install git`), or check the sources out before the \
                 build and COPY them"
                    .into(),
            ],
            Self::Failed { said, host, .. } => failure_hint(said, host).into_iter().collect(),
            Self::NoRef { reference, .. } if is_short_sha(reference) => vec![format!(
                "`{reference}` is no branch or tag; a commit must be given in full, or as `?checksum={reference}` beside its branch"
            )],
            Self::NoRef { .. } => vec!["check the name: `git ls-remote URL` lists branches and tags".into()],
            Self::NoDefault { .. } => vec!["name a branch: `URL#BRANCH`".into()],
            Self::Mismatch { .. } => {
                vec!["if the new commit is the one you want, write it as the checksum; else the ref was moved".into()]
            }
            Self::SshMissing { id, .. } => {
                vec![format!("give it with `--ssh {id}` (the agent of $SSH_AUTH_SOCK) or `--ssh {id}=SOCKET`")]
            }
            Self::SecretInvalid { id } => vec![format!("{id} must be one line of printable ASCII characters")],
            Self::InSubmodule { source, .. } => {
                let mut hints = source.hints();
                hints.push("or leave submodules out: add `?submodules=false` to the URL".into());
                hints
            }
            Self::Http(error) => error.hints(),
            Self::Snapshot(error) => error.hints(),
            Self::Store(error) => error.hints(),
            _ => Vec::new(),
        }
    }
}

fn is_short_sha(text: &str) -> bool {
    (4..40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn failure_hint(said: &str, host: &str) -> Option<String> {
    if said.contains("Permission denied (publickey") {
        return Some("the ssh agent has no key that the server accepts: look with `ssh-add -l`".into());
    }
    if said.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        return Some(
            "the server has another key than it had before: if that is right, remove its line from git/known_hosts in the \
             state directory"
                .into(),
        );
    }
    LOGIN.iter().any(|words| said.contains(words)).then(|| {
        format!(
            "if it needs a login, give a token with `--secret id=GIT_AUTH_TOKEN,env=VARIABLE` (for this host alone: \
             `id=GIT_AUTH_TOKEN.{host}`)"
        )
    })
}
