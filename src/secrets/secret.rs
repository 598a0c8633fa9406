//! The bytes of a secret, and how they are read.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::SecretError;
use super::spec::{SecretOrigin, SecretSpec};
use crate::sys::dir::{Dir, Kind, stat_of};
use crate::sys::file::PLAIN_READ;

/// Longest secret, BuildKit's number.
pub const MAX_SECRET: usize = 500 * 1024;

/// Bytes that nobody else may see. They can be neither printed nor copied by accident:
///
/// ```compile_fail
/// let secret = rbuild::secrets::Secret::new(b"key".to_vec());
/// format!("{secret:?}");
/// ```
/// ```compile_fail
/// let secret = rbuild::secrets::Secret::new(b"key".to_vec());
/// format!("{secret}");
/// ```
/// ```
/// let secret = rbuild::secrets::Secret::new(b"key".to_vec());
/// assert_eq!(secret.expose(), b"key");
/// ```
#[expect(missing_debug_implementations, reason = "its bytes must not be printed")]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes of a secret.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, for whoever hands them to the step.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes, for whoever fills them in.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Without a reader the compiler may leave the writes out.
    std::hint::black_box(bytes);
}

/// Reads a secret. What `env` returns is what the variable holds. A file below `workspace`, which others may have written,
/// must be reached through no link.
pub fn read_secret(
    spec: &SecretSpec,
    workspace: &Path,
    env: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<Secret, SecretError> {
    match &spec.origin {
        SecretOrigin::Env(name) => from_env(&spec.id, name, env),
        SecretOrigin::File(path) => from_file(&spec.id, path, workspace),
        SecretOrigin::ByName if env(&spec.id).is_some() => from_env(&spec.id, &spec.id, env),
        SecretOrigin::ByName => from_file(&spec.id, Path::new(&spec.id), workspace),
    }
}

fn from_env(id: &str, name: &str, env: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Secret, SecretError> {
    let unset = || SecretError::Unset { id: id.to_owned(), name: name.to_owned() };
    let secret = Secret::new(env(name).ok_or_else(unset)?);
    if secret.0.len() > MAX_SECRET {
        return Err(SecretError::TooLong { id: id.to_owned() });
    }
    Ok(secret)
}

pub(super) fn from_file(id: &str, path: &Path, workspace: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Read { id: id.to_owned(), path: path.to_owned(), source };
    let file = match below(path, workspace) {
        Some(inner) => open_in_workspace(id, &inner, workspace).map_err(|error| error.unwrap_or_else(failed))?,
        None => File::options().read(true).custom_flags(PLAIN_READ.bits() as i32).open(path).map_err(failed)?,
    };
    if stat_of(&file).map_err(failed)?.kind() != Kind::File {
        return Err(SecretError::NotRegular { id: id.to_owned(), path: path.to_owned() });
    }
    let mut secret = Secret::new(vec![0; MAX_SECRET + 1]);
    let length = fill(&file, &mut secret.0).map_err(failed)?;
    if length > MAX_SECRET {
        return Err(SecretError::TooLong { id: id.to_owned() });
    }
    // Exact size, so that no byte of it is moved by a later growth and stays behind.
    Ok(Secret::new(secret.0[..length].to_vec()))
}

fn fill(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Returns the path inside the workspace if it lies there by its name.
fn below(path: &Path, workspace: &Path) -> Option<PathBuf> {
    let absolute = workspace.join(path);
    let mut clean = PathBuf::new();
    for part in absolute.components() {
        match part {
            std::path::Component::ParentDir => _ = clean.pop(),
            std::path::Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean.strip_prefix(workspace).ok().map(Path::to_owned)
}

/// An error of its own, or one to be told as a failure to read.
struct Failure(Result<SecretError, io::Error>);

impl Failure {
    fn unwrap_or_else(self, told: impl FnOnce(io::Error) -> SecretError) -> SecretError {
        self.0.unwrap_or_else(told)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(Err(error))
    }
}

fn open_in_workspace(id: &str, path: &Path, workspace: &Path) -> Result<File, Failure> {
    let mut dir = Dir::open(workspace)?;
    let names: Vec<&OsStr> = path.iter().collect();
    let Some((last, parents)) = names.split_last() else {
        return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
    };
    let mut at = workspace.to_owned();
    for name in parents {
        at.push(name);
        refuse_link(id, &dir, name, &at)?;
        dir = dir.open_dir(name)?;
    }
    at.push(last);
    refuse_link(id, &dir, last, &at)?;
    Ok(dir.open_file(last)?)
}

/// Only for the message: opening refuses a link as well.
fn refuse_link(id: &str, dir: &Dir, name: &OsStr, path: &Path) -> Result<(), Failure> {
    match dir.stat(name)?.kind() {
        Kind::Symlink => Err(Failure(Ok(SecretError::Link { id: id.to_owned(), link: path.to_owned() }))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(workspace: &Path, path: &str) -> Result<Secret, SecretError> {
        let spec = SecretSpec { id: "key".into(), origin: SecretOrigin::File(path.into()) };
        read_secret(&spec, workspace, &|_| None)
    }

    #[test]
    fn s1_bytes_are_overwritten() {
        let mut bytes = b"very secret".to_vec();
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 11]);
    }

    #[test]
    fn s4_workspace_files_are_reached_through_no_link() {
        let outside = tempfile::tempdir().expect("temp dir");
        std::fs::write(outside.path().join("config.json"), "token").expect("write");
        let temp = tempfile::tempdir().expect("temp dir");
        let workspace = temp.path();
        std::fs::create_dir(workspace.join("dir")).expect("mkdir");
        std::fs::write(workspace.join("dir/key"), "mine").expect("write");
        symlink(outside.path().join("config.json"), workspace.join(".npmrc")).expect("symlink");
        symlink(outside.path(), workspace.join("parent")).expect("symlink");
        Dir::open(workspace).expect("open").make_node(OsStr::new("fifo"), 0o010_644, 0).expect("fifo");
        assert_eq!(read(workspace, "dir/../dir/key").expect("read").expose(), b"mine");
        for (path, link) in [(".npmrc", ".npmrc"), ("parent/config.json", "parent"), ("./dir/../.npmrc", ".npmrc")] {
            let error = read(workspace, path).err().expect(path);
            assert!(
                matches!(&error, SecretError::Link { link: found, .. } if *found == workspace.join(link)),
                "{error}"
            );
        }
        assert!(matches!(read(workspace, "fifo").err(), Some(SecretError::NotRegular { .. })));
        assert!(matches!(read(workspace, "dir").err(), Some(SecretError::NotRegular { .. })));
        assert!(matches!(read(workspace, "none").err(), Some(SecretError::Read { .. })));
        let named = outside.path().join("config.json");
        assert_eq!(read(workspace, named.to_str().expect("text")).expect("read").expose(), b"token");
    }

    #[test]
    fn s4_size_is_bounded() {
        let temp = tempfile::tempdir().expect("temp dir");
        for (size, fine) in [(0, true), (MAX_SECRET, true), (MAX_SECRET + 1, false)] {
            std::fs::write(temp.path().join("key"), vec![7; size]).expect("write");
            assert_eq!(read(temp.path(), "key").is_ok(), fine, "{size}");
        }
    }

    #[test]
    fn variables_are_secrets_too() {
        let env = |name: &str| (name == "TOKEN").then(|| b"abc".to_vec());
        let get = |text: &str| read_secret(&SecretSpec::parse(text).expect(text), Path::new("/nonexistent"), &env);
        assert_eq!(get("id=a,env=TOKEN").expect("read").expose(), b"abc");
        assert_eq!(get("id=TOKEN").expect("read").expose(), b"abc");
        assert!(matches!(get("id=a,env=OTHER").err(), Some(SecretError::Unset { .. })));
        assert!(matches!(get("id=other").err(), Some(SecretError::Read { .. })));
    }
}
