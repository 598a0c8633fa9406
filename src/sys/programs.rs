//! Programs of the machine that a build may start: none that a checkout or a context brings along.

use std::path::{Path, PathBuf};

/// Looks for a program in absolute `directories` that lie outside all `workspaces`, whatever links lead where.
pub fn find(
    name: &str,
    directories: &[PathBuf],
    workspaces: &[PathBuf],
    is_program: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let real = |path: &Path| path.canonicalize().ok();
    let workspaces: Vec<PathBuf> = workspaces.iter().filter_map(|workspace| real(workspace)).collect();
    let outside = |path: &Path| real(path).is_some_and(|path| !workspaces.iter().any(|w| path.starts_with(w)));
    let candidates = directories.iter().filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
    candidates.into_iter().find(|path| is_program(path) && path.parent().is_some_and(outside) && outside(path))
}
