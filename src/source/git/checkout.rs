//! The files of a commit: written by git into a scratch folder, then taken into a new layer.
//!
//! Invariants: git writes only into the scratch folder; what it wrote is a hostile tree, entered without following a link.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;

use super::command::{Git, Log};
use super::error::GitError;
use super::repository::{CommitTime, Repository, Work};
use super::spec::is_sha;
use super::submodule::{self, Submodule};
use super::{GitSource, Resolved};
use crate::snapshot::Chain;
use crate::store::Scratch;
use crate::sys::dir::{self, Dir, Time};

/// A folder of the scratch folder; removed when dropped.
struct Folder<'a> {
    scratch: &'a Scratch,
    name: OsString,
    path: PathBuf,
    dir: Dir,
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        // What cannot be removed now goes with the scratch folder.
        drop(self.scratch.dir().remove_all(&self.name));
    }
}

impl GitSource {
    /// Makes a layer of a commit's files.
    pub(super) async fn check_out(&self, resolved: &Resolved, log: &Log) -> Result<Chain, GitError> {
        let spec = &resolved.spec;
        let failed = |source| GitError::Io { remote: spec.remote.to_string(), source };
        let store = self.snapshots.store();
        let (name, dir) = store.scratch().make_dir().map_err(failed)?;
        let folder = Folder { path: store.scratch_path().join(&name), scratch: store.scratch(), name, dir };
        let tree = folder.path.join("tree");
        folder.dir.make_dir(OsStr::new("tree"), 0o755).map_err(failed)?;
        self.write(resolved, Place { tree: &tree, depth: 0 }, log).await?;
        let time = match spec.mtime.as_str() {
            "commit" => Some(self.with_commit(resolved, log, &CommitTime).await?),
            _ => None,
        };
        let root = folder.dir.open_dir(OsStr::new("tree")).map_err(failed)?;
        let from = below(&root, &spec.subdir).map_err(|part| GitError::Subdir {
            remote: spec.remote.to_string(),
            subdir: spec.subdir.clone(),
            part,
        })?;
        let active = self.snapshots.prepare(&Chain::empty())?;
        take(&from, &active.dir()?, time).map_err(failed)?;
        Ok(self.snapshots.commit(active, &format!("git {} of {}", resolved.sha, spec.remote))?)
    }

    fn unused_path(&self) -> PathBuf {
        let store = self.snapshots.store();
        store.scratch_path().join(store.scratch().unused())
    }

    /// Writes a commit's files into a folder, and those of its submodules.
    fn write<'a>(
        &'a self,
        resolved: &'a Resolved,
        place: Place<'a>,
        log: &'a Log,
    ) -> BoxFuture<'a, Result<(), GitError>> {
        Box::pin(async move {
            let files = Files { resolved, tree: place.tree, index: self.unused_path() };
            // The lock is free again before the submodules' are taken: one may be the very repository it is in.
            let submodules = self.with_commit(resolved, log, &files).await?;
            for submodule in submodules {
                let inside = |source| GitError::InSubmodule { path: submodule.path.clone(), source: Box::new(source) };
                self.write_submodule(resolved, &submodule, place, log).await.map_err(inside)?;
            }
            Ok(())
        })
    }

    async fn write_submodule(
        &self,
        parent: &Resolved,
        submodule: &Submodule,
        place: Place<'_>,
        log: &Log,
    ) -> Result<(), GitError> {
        let refused = |reason: &str| GitError::Submodule {
            remote: parent.spec.remote.to_string(),
            path: submodule.path.clone(),
            reason: reason.to_owned(),
        };
        if place.depth >= submodule::DEPTH {
            return Err(refused("it is too deep in others"));
        }
        let spec = submodule::spec_of(&parent.spec, submodule)?;
        let root = Dir::open(place.tree).map_err(|source| GitError::Io { remote: spec.remote.to_string(), source })?;
        below(&root, &submodule.path).map_err(|_| refused("its path is not a directory of the checkout"))?;
        let resolved = self.resolve(&spec, log).await?;
        let tree = place.tree.join(&submodule.path);
        self.write(&resolved, Place { tree: &tree, depth: place.depth + 1 }, log).await
    }
}

/// Where a repository is checked out.
#[derive(Clone, Copy)]
struct Place<'a> {
    tree: &'a Path,
    /// In how many others it is.
    depth: usize,
}

/// Writes the files of a commit, and lists its submodules where they are wanted.
struct Files<'a> {
    resolved: &'a Resolved,
    tree: &'a Path,
    index: PathBuf,
}

impl Work for Files<'_> {
    type Output = Vec<Submodule>;

    fn run<'r>(&'r self, repository: &'r Repository<'r>) -> BoxFuture<'r, Result<Vec<Submodule>, GitError>> {
        Box::pin(async move {
            let spec = &self.resolved.spec;
            empty(self.tree).map_err(|source| GitError::Io { remote: spec.remote.to_string(), source })?;
            match spec.keep_git_dir && spec.subdir.is_empty() {
                true => with_git_dir(repository, self.resolved, self.tree).await?,
                false => files_only(repository, self.tree, &self.index).await?,
            }
            if spec.skip_submodules { Ok(Vec::new()) } else { submodule::list(repository).await }
        })
    }
}

/// Opens a directory below another; each part must be one, and no link. Returns the part that is not.
fn below(root: &Dir, path: &str) -> Result<Dir, String> {
    let mut dir = root.reopen().map_err(|_| path.to_owned())?;
    let mut walked = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        walked = if walked.is_empty() { part.to_owned() } else { format!("{walked}/{part}") };
        if part == ".." {
            return Err(walked);
        }
        dir = dir.open_dir(OsStr::new(part)).map_err(|_| walked.clone())?;
    }
    Ok(dir)
}

/// A second attempt starts with nothing again.
fn empty(tree: &Path) -> io::Result<()> {
    let dir = Dir::open(tree)?;
    dir.names()?.iter().try_for_each(|name| dir.remove_all(name))
}

/// Writes the files of a commit and nothing else.
async fn files_only(repository: &Repository<'_>, tree: &Path, index: &Path) -> Result<(), GitError> {
    let git = Git { work_tree: Some(tree.to_owned()), index: Some(index.to_owned()), ..repository.git.clone() };
    let commit = format!("{}^{{commit}}", repository.sha);
    let written = git.run("check out", &["read-tree", "--reset", "-u", &commit]).await;
    // What cannot be removed now goes with the scratch folder.
    let _ = std::fs::remove_file(index);
    written.map(drop)
}

/// Writes the files of a commit with a repository of their own, as a shallow clone has it.
async fn with_git_dir(repository: &Repository<'_>, resolved: &Resolved, tree: &Path) -> Result<(), GitError> {
    let git_dir = tree.join(".git");
    let git = Git { work_tree: Some(tree.to_owned()), ..repository.git.on(&git_dir) };
    let format = format!("--object-format={}", if resolved.sha.len() == 64 { "sha256" } else { "sha1" });
    git.ask("make a repository for", &["init", "--quiet", "--template=", &format]).await?;
    let refspec = match is_sha(&resolved.reference) {
        true => repository.local_ref(),
        false => format!("+{}:{}", repository.local_ref(), resolved.reference),
    };
    let local = Git { local: Some(repository.path.clone()), ..git.clone() };
    let fetch =
        ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-head-ok", "--depth=1", "--", "origin"];
    let args: Vec<&str> = fetch.into_iter().chain([refspec.as_str()]).collect();
    local.run("check out", &args).await?;
    let commit = format!("{}^{{commit}}", resolved.sha);
    git.run("check out", &["checkout", "--quiet", "--force", "--detach", &commit, "--"]).await?;
    let config = git_dir.join("config");
    let config = config.to_string_lossy();
    for (name, value) in
        [("remote.origin.url", git.remote.url.as_str()), ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")]
    {
        git.ask("check out", &["config", "--file", &config, name, value]).await?;
    }
    Ok(())
}

/// Moves what is in one directory to another, and gives all of it one time if there is one.
fn take(from: &Dir, to: &Dir, time: Option<i64>) -> io::Result<()> {
    for name in from.names()? {
        from.rename(&name, to, &name)?;
    }
    match time {
        Some(seconds) => stamp(to, Time { seconds, nanoseconds: 0 }),
        None => Ok(()),
    }
}

fn stamp(dir: &Dir, time: Time) -> io::Result<()> {
    for name in dir.names()? {
        if dir.stat(&name)?.is_dir() {
            stamp(&dir.open_dir(&name)?, time)?;
        } else {
            dir.set_time(&name, time)?;
        }
    }
    dir::set_time_of(dir, time)
}
