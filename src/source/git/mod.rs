//! Git repositories, fetched by the program git of this machine.
//!
//! ```text
//! spec ─▶ ls-remote ─▶ commit ─▶ fetch that commit ─▶ read-tree into a scratch folder ─▶ submodules ─▶ (subdir) ─▶ new layer
//!                                (bare repository)                                       (each likewise)
//! ```
//!
//! In: [`GitSpec`]s. Out: [`Resolved`], and a tree with the files. On disk:
//!
//! ```text
//! ROOT/git/HEX/lock     held while the repository is used
//! ROOT/git/HEX/repo/    what was fetched of one remote (HEX hashes it), bare; refs/rbuild/SHA for each commit that is complete
//! ROOT/git/known_hosts  keys of ssh servers met before
//! ```
//!
//! Invariants: names are checked before git runs (`spec`), git itself runs as `command` says; what is fetched is the commit that the
//! cache key names and no other; submodules are read and fetched by this program, not by git's scripts, each as a repository of its
//! own, without the credentials of the one it is in; a repository that is damaged is fetched anew.

mod access;
mod checkout;
mod command;
mod error;
mod refs;
mod repository;
mod spec;
mod submodule;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

pub use command::{GitLimits, Log, Program};
pub use error::GitError;
pub use spec::{GitSpec, Remote, check_ref, is_sha};

use super::SecretLookup;
use super::http::HttpSource;
use crate::secrets::Agent;
use crate::snapshot::{Chain, Snapshots};
use crate::store::{LockedFolder, Store};
use crate::sys::dir::Dir;
use refs::Found;
use repository::CommitTime;

/// A commit, and what it was found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Full name of the ref, or the commit itself where that was asked for.
    pub reference: String,
    /// What the ref points to: a commit, or an annotated tag.
    pub sha: String,
    /// The commit an annotated tag points to.
    pub peeled: Option<String>,
    /// The spec with the address that the repository has now.
    spec: GitSpec,
}

impl Resolved {
    /// Returns the name that goes into the cache key: the commit behind a tag, unless the tag itself is kept.
    pub fn key_sha(&self, spec: &GitSpec) -> &str {
        self.peeled.as_deref().filter(|_| !spec.keep_git_dir).unwrap_or(&self.sha)
    }
}

/// Returns the repositories there are in a state directory.
///
/// # Errors
///
/// When they cannot be listed.
pub fn stored(store: &Store) -> std::io::Result<Vec<LockedFolder>> {
    let dir = store.root_dir().open_dir(OsStr::new("git"))?;
    let mut folders = Vec::new();
    for name in dir.names()? {
        // Beside the repositories are the keys of servers.
        if dir.stat(&name)?.is_dir() {
            let folder =
                LockedFolder::new(dir.open_dir(&name)?, name.to_string_lossy().into_owned(), repository::REPO)?;
            folders.extend(folder);
        }
    }
    Ok(folders)
}

type Cells<T> = Mutex<BTreeMap<String, Arc<OnceCell<T>>>>;

/// Fetches repositories; within one build a ref is resolved once.
pub struct GitSource {
    program: Program,
    snapshots: Arc<Snapshots>,
    secrets: Arc<dyn SecretLookup>,
    agents: BTreeMap<String, Agent>,
    http: Arc<HttpSource>,
    root: PathBuf,
    dir: Dir,
    /// Hosts of ssh servers that were talked to, whose keys are known since.
    met: tokio::sync::Mutex<BTreeSet<String>>,
    found: Cells<Found>,
    trees: Cells<Chain>,
}

impl std::fmt::Debug for GitSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitSource").field("program", &self.program.path).finish_non_exhaustive()
    }
}

impl GitSource {
    /// Opens the place where repositories are kept; runs nothing yet.
    ///
    /// # Errors
    ///
    /// When that place cannot be made.
    pub fn open(
        program: Program,
        snapshots: Arc<Snapshots>,
        http: Arc<HttpSource>,
        secrets: Arc<dyn SecretLookup>,
        agents: BTreeMap<String, Agent>,
    ) -> Result<Self, GitError> {
        let store = snapshots.store();
        let (dir, root) = (store.folder("git")?, store.path().join("git"));
        let (met, found, trees) = Default::default();
        Ok(Self { program, snapshots, secrets, agents, http, root, dir, met, found, trees })
    }

    /// Finds the commit a spec names; the server is not asked where the spec names it in full.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not the one that is wanted.
    pub async fn resolve(&self, spec: &GitSpec, log: &Log) -> Result<Resolved, GitError> {
        if let Some(resolved) = refs::stated(spec)? {
            return Ok(resolved);
        }
        let cell = cell(&self.found, format!("{}\0{}\0{}", spec.remote.url, spec.remote.user_key(), spec.reference));
        let found = cell.get_or_try_init(|| self.ask(spec, log)).await?;
        refs::check(spec, found)?;
        let effective = GitSpec {
            remote: found.spec.remote.clone(),
            header_secret: found.spec.header_secret.clone(),
            token_secret: found.spec.token_secret.clone(),
            ..spec.clone()
        };
        Ok(Resolved {
            reference: found.reference.clone(),
            sha: found.sha.clone(),
            peeled: found.peeled.clone(),
            spec: effective,
        })
    }

    /// Makes the files of a commit available as a tree.
    ///
    /// # Errors
    ///
    /// When they cannot be had.
    pub async fn fetch(&self, spec: &GitSpec, log: &Log) -> Result<Chain, GitError> {
        let resolved = self.resolve(spec, log).await?;
        let flags = (spec.keep_git_dir, spec.skip_submodules, &spec.mtime, &resolved.reference);
        let name = format!("{}\0{}\0{}\0{flags:?}", spec.remote.url, resolved.sha, spec.subdir);
        let chain = cell(&self.trees, name);
        chain.get_or_try_init(|| self.check_out(&resolved, log)).await.cloned()
    }

    /// Returns the time of a commit, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// When the commit cannot be had.
    pub async fn commit_time(&self, spec: &GitSpec, log: &Log) -> Result<i64, GitError> {
        let resolved = self.resolve(spec, log).await?;
        self.with_commit(&resolved, log, &CommitTime).await
    }
}

fn cell<T>(cells: &Cells<T>, name: String) -> Arc<OnceCell<T>> {
    Arc::clone(cells.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default())
}
