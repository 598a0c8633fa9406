//! The bare repository that keeps what was fetched of one remote.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::command::{Access, Git, Log};
use super::error::GitError;
use super::spec::{GitSpec, is_sha};
use super::{GitSource, Resolved};
use crate::digest::Digest;
use crate::sys::dir::Dir;
use crate::sys::lock::FileLock;

/// Time between two attempts to get a repository that another build uses.
const RETRY: Duration = Duration::from_millis(50);
const LOCK: &str = "lock";
pub(super) const REPO: &str = "repo";

/// What git says when a repository of ours is at fault, not the server.
const DAMAGE: [&str; 8] = [
    "corrupt",
    "bad object",
    "unable to read",
    "not a git repository",
    "some local refs could not be updated",
    "unable to update local ref",
    "shallow file",
    "bad tree object",
];

/// A repository that is held, with the commit that was asked for in it.
pub(super) struct Repository<'a> {
    pub(super) git: Git<'a>,
    pub(super) path: PathBuf,
    /// The commit, or the annotated tag.
    pub(super) sha: String,
    _lock: FileLock,
}

impl Repository<'_> {
    pub(super) fn local_ref(&self) -> String {
        local_ref(&self.sha)
    }

    async fn commit_time(&self) -> Result<i64, GitError> {
        let commit = format!("{}^{{commit}}", self.sha);
        let printed = self.git.ask("read", &["show", "-s", "--format=%ct", &commit, "--"]).await?;
        let text = String::from_utf8_lossy(&printed);
        let invalid = || io::Error::other(format!("git printed {text:?} as the time of a commit"));
        let time = text.trim().parse().map_err(|_| invalid());
        time.map_err(|source| GitError::Io { remote: self.git.remote.to_string(), source })
    }
}

/// What is done with a repository while it is held; done again from the start if the repository turns out to be damaged.
pub(super) trait Work: Sync {
    /// What comes of it.
    type Output: Send;

    fn run<'r>(&'r self, repository: &'r Repository<'r>) -> BoxFuture<'r, Result<Self::Output, GitError>>;
}

/// Asks for the time of the commit.
pub(super) struct CommitTime;

impl Work for CommitTime {
    type Output = i64;

    fn run<'r>(&'r self, repository: &'r Repository<'r>) -> BoxFuture<'r, Result<i64, GitError>> {
        Box::pin(repository.commit_time())
    }
}

/// A commit has a ref of its own once it is here with all that belongs to it.
fn local_ref(sha: &str) -> String {
    format!("refs/rbuild/{sha}")
}

impl GitSource {
    /// Does something with the repository that has a commit; fetches it if it is not there, and again if what is there is
    /// damaged.
    pub(super) async fn with_commit<W: Work>(
        &self,
        resolved: &Resolved,
        log: &Log,
        work: &W,
    ) -> Result<W::Output, GitError> {
        match self.try_with_commit(&resolved.spec, resolved, log, work).await {
            Err(error) => match self.follow(&resolved.spec, &error).await? {
                Some(moved) => self.try_with_commit(&moved, resolved, log, work).await,
                None => Err(error),
            },
            result => result,
        }
    }

    async fn try_with_commit<W: Work>(
        &self,
        spec: &GitSpec,
        resolved: &Resolved,
        log: &Log,
        work: &W,
    ) -> Result<W::Output, GitError> {
        let failed = |source| GitError::Io { remote: spec.remote.to_string(), source };
        let format = if resolved.sha.len() == 64 { "sha256" } else { "sha1" };
        let name = Digest::compute(format!("{format}\0{}", spec.remote.url));
        let folder = crate::store::subdir(&self.dir, name.hex()).map_err(failed)?;
        let access = self.access(spec)?;
        let lock = wait(&folder).await.map_err(failed)?;
        let path = self.root.join(name.hex()).join(REPO);
        let git = Git::new(&self.program, &spec.remote, log).on(&path);
        let repository = Repository { git, path, sha: resolved.sha.clone(), _lock: lock };
        for fresh in [false, true] {
            if fresh {
                self.forget(&folder).map_err(failed)?;
            }
            let here = folder.try_stat(OsStr::new(REPO)).map_err(failed)?.is_some();
            if !here {
                self.init(&repository.git, &folder, format).await?;
            }
            let result = match fetch(&repository, &access, resolved).await {
                Ok(()) => work.run(&repository).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if here && !fresh && is_damage(&error) => {
                    tracing::debug!(%error, "fetching a repository anew");
                }
                result => return result,
            }
        }
        Err(failed(io::Error::other("it stays damaged")))
    }

    /// A repository appears whole, by one rename.
    async fn init(&self, git: &Git<'_>, folder: &Dir, format: &str) -> Result<(), GitError> {
        let failed = |source| GitError::Io { remote: git.remote.to_string(), source };
        let scratch = self.snapshots.store().scratch();
        let name = scratch.unused();
        let place = self.snapshots.store().scratch_path().join(&name);
        let format = format!("--object-format={format}");
        git.on(&place).ask("make a repository for", &["init", "--quiet", "--bare", "--template=", &format]).await?;
        scratch.dir().rename_new(&name, folder, OsStr::new(REPO)).map_err(failed)
    }

    fn forget(&self, folder: &Dir) -> io::Result<()> {
        let scratch = self.snapshots.store().scratch();
        let name = scratch.unused();
        match folder.rename(OsStr::new(REPO), scratch.dir(), &name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) => Ok(()),
            Ok(()) => scratch.dir().remove_all(&name),
        }
    }
}

/// Waits until no other build uses a repository.
async fn wait(folder: &Dir) -> io::Result<FileLock> {
    loop {
        if let Some(lock) = FileLock::try_exclusive(folder, OsStr::new(LOCK))? {
            return Ok(lock);
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn is_damage(error: &GitError) -> bool {
    let GitError::Failed { said, .. } = error else { return false };
    DAMAGE.iter().any(|words| said.contains(words))
}

/// Fetches a commit, as little of its history as the server lets us.
async fn fetch(repository: &Repository<'_>, access: &Access, resolved: &Resolved) -> Result<(), GitError> {
    let Repository { git, sha, .. } = repository;
    let peeled = format!("{}^{{commit}}", local_ref(sha));
    if git.ask("read", &["cat-file", "-e", &peeled]).await.is_ok() {
        return Ok(());
    }
    // What a git that was killed left would stop the next one; nobody else is here, for the lock is held.
    let _ = std::fs::remove_file(repository.path.join("shallow.lock"));
    let online = Git { access: Some(access), ..git.clone() };
    let refspec = format!("+{sha}:{}", local_ref(sha));
    let first = fetch_once(&online, &["--depth=1"], &[&refspec]).await;
    let first = match first {
        Err(error) if says(&error, &["--depth", "shallow"]) => fetch_once(&online, &[], &[&refspec]).await,
        result => result,
    };
    match first {
        // The ref has moved since it was asked for, or the server gives only what a ref points to.
        Err(error) if says(&error, &["not our ref", "unadvertised object", "couldn't find remote ref"]) => {
            fetch_all(repository, &online).await?;
        }
        result => result?,
    }
    let there = git.ask("read", &["cat-file", "-e", &peeled]).await;
    there.map(drop).map_err(|_| GitError::NoRef {
        remote: git.remote.to_string(),
        reference: if is_sha(&resolved.reference) { sha.clone() } else { format!("{} at {sha}", resolved.reference) },
    })
}

/// Fetches every branch and tag with its history, and marks the commit if it is among them.
async fn fetch_all(repository: &Repository<'_>, online: &Git<'_>) -> Result<(), GitError> {
    let shallow = repository.path.join("shallow").exists();
    let options: &[&str] = if shallow { &["--unshallow"] } else { &[] };
    let refspecs = ["+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*"];
    fetch_once(online, options, &refspecs).await?;
    let name = local_ref(&repository.sha);
    // Whether the commit is there is looked at next.
    let _ = repository.git.ask("read", &["update-ref", &name, &repository.sha]).await;
    Ok(())
}

async fn fetch_once(git: &Git<'_>, options: &[&str], refspecs: &[&str]) -> Result<(), GitError> {
    let common = ["fetch", "--no-tags", "--force", "--no-write-fetch-head", "--no-recurse-submodules"];
    let args: Vec<&str> = common.iter().chain(options).chain(&["--", "origin"]).chain(refspecs).copied().collect();
    git.run("fetch remote", &args).await.map(drop)
}

fn says(error: &GitError, words: &[&str]) -> bool {
    matches!(error, GitError::Failed { said, .. } if words.iter().any(|words| said.contains(words)))
}
