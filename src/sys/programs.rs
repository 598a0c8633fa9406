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

/// Writes a script that can be run at once. Another process does: a copy of our descriptor in a child that some other test has just
/// forked would keep it busy.
#[cfg(test)]
pub fn plant(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let status = std::process::Command::new("sh").args(["-c", write, "sh", text]).arg(path).status();
    assert!(status.expect("sh runs").success());
}
