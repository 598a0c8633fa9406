//! Git references as this station uses them.

/// A git reference.
#[derive(Debug, Clone, Default)]
pub(crate) struct GitRef {
    pub(crate) remote: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) reference: String,
    pub(crate) subdir: String,
    pub(crate) checksum: String,
    pub(crate) mtime: String,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) submodules: Option<bool>,
    pub(crate) fetch_by_commit: bool,
    pub(crate) indistinguishable_from_local: bool,
    pub(crate) ssh: bool,
}
impl GitRef { pub(crate) fn is_ssh(&self) -> bool { self.ssh } }
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub(crate) struct GitError { git: bool }
impl GitError { pub(crate) fn is_git(&self) -> bool { self.git } }
pub(crate) fn parse(_: &str) -> Result<GitRef, GitError> { Err(GitError { git: false }) }
