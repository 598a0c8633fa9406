//! Finding the runtime, and which of the known ones it is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::exec::ExecError;
use crate::exec::wire::External;
use crate::sys::programs;

/// How long a runtime may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any version takes.
const MAX_VERSION: u64 = 4096;

/// What is looked for, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    /// A name, or a path.
    pub name: String,
    /// Absolute directories in which a name is looked for.
    pub directories: Vec<PathBuf>,
    /// Directories whose programs are not ours to run.
    pub workspaces: Vec<PathBuf>,
}

/// Returns the path of the program, without links.
pub(in crate::exec) fn find(search: &Search) -> Result<PathBuf, ExecError> {
    let named = Path::new(&search.name);
    let found = match search.name.contains('/') {
        true => is_program(named).then(|| named.to_owned()),
        false => programs::find(&search.name, &search.directories, &search.workspaces, is_program),
    };
    let real = found.and_then(|path| path.canonicalize().ok());
    real.filter(|path| path.to_str().is_some()).ok_or_else(|| ExecError::NoRuntime { name: search.name.clone() })
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Asks a runtime which one it is.
pub(in crate::exec) async fn ask(program: &Path) -> Result<External, ExecError> {
    let failed = |reason: String| ExecError::Runtime { program: program.to_owned(), reason };
    let told = tokio::time::timeout(PATIENCE, version(program)).await;
    let text = match told {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(failed(format!("`--version` failed: {error}"))),
        Err(_) => return Err(failed(format!("`--version` took longer than {} seconds", PATIENCE.as_secs()))),
    };
    let (options, keeps_attributes) = options(&text);
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    Ok(External { program: program.to_string_lossy().into_owned(), options, keeps_attributes })
}

async fn version(program: &Path) -> std::io::Result<String> {
    let mut command = Command::new(program);
    command.arg("--version").env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn()?;
    let mut text = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(MAX_VERSION).read_to_end(&mut text).await?;
    }
    match child.wait().await? {
        status if status.success() => Ok(String::from_utf8_lossy(&text).into_owned()),
        status => Err(std::io::Error::other(status.to_string())),
    }
}

/// Returns the options that keep a runtime from making control groups, and whether it leaves attributes of mounts as they are.
/// runc takes a failure to make groups for none when it is told that it is not root; what runtimes do that nobody knows is theirs.
fn options(version: &str) -> (&'static [&'static str], bool) {
    match version.split_ascii_whitespace().next() {
        Some("runc") => (&["--rootless=true"], true),
        Some("crun") => (&["--cgroup-manager=disabled"], false),
        _ => (&[], false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_runtimes_are_told_by_their_version() {
        assert_eq!(options("runc version 1.1.5+ds1\ncommit: x\n"), (&["--rootless=true"][..], true));
        assert_eq!(options("crun version 1.8.1\n"), (&["--cgroup-manager=disabled"][..], false));
        for other in ["youki version 0.5\n", ""] {
            assert_eq!(options(other), (&[][..], false));
        }
    }

    #[test]
    fn a_runtime_is_found_by_path_or_along_the_directories_and_named_when_it_is_not() {
        let temp = tempfile::tempdir().expect("temp dir");
        let program = temp.path().join("crun");
        let search = |name: &str| Search {
            name: name.to_owned(),
            directories: vec![temp.path().to_owned()],
            workspaces: Vec::new(),
        };
        std::fs::write(&program, "").expect("write");
        assert!(matches!(find(&search("crun")), Err(ExecError::NoRuntime { name }) if name == "crun"));
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let real = program.canonicalize().expect("there");
        assert_eq!(find(&search("crun")).expect("found"), real);
        assert_eq!(find(&search(program.to_str().expect("UTF-8"))).expect("found"), real);
        let in_the_workspace = Search { workspaces: vec![temp.path().to_owned()], ..search("crun") };
        assert!(find(&in_the_workspace).is_err());
    }
}
