//! Programs of the machine that a build may start: none that a checkout or a context brings along.

use std::path::{Path, PathBuf};

/// Looks for a program in absolute `directories` that lie outside all `workspaces`, whatever links lead where.
pub fn find(
    name: &str,
    directories: &[PathBuf],
    workspaces: &[PathBuf],
    is_program: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let workspaces = real(workspaces);
    let candidates = outside(directories, &workspaces).into_iter().map(|dir| dir.join(name));
    candidates.into_iter().find(|path| is_program(path) && is_outside(path, &workspaces))
}

/// Returns the absolute `directories` that lie outside all `workspaces`.
pub fn outside(directories: &[PathBuf], workspaces: &[PathBuf]) -> Vec<PathBuf> {
    let workspaces = real(workspaces);
    directories.iter().filter(|dir| dir.is_absolute() && is_outside(dir, &workspaces)).cloned().collect()
}

fn real(paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().filter_map(|path| path.canonicalize().ok()).collect()
}

fn is_outside(path: &Path, workspaces: &[PathBuf]) -> bool {
    path.canonicalize().is_ok_and(|path| !workspaces.iter().any(|workspace| path.starts_with(workspace)))
}
