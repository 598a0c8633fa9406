//! The text of `--ssh`: `default`, `NAME=SOCKET`, or `NAME=KEY,KEY`.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Keys, SecretError};

/// An ssh agent, or keys, as named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSpec {
    /// Its id.
    pub id: String,
    /// A socket or key files; none for the caller's agent.
    pub paths: Vec<PathBuf>,
    /// Whether the socket is passed on without a filter.
    pub raw: bool,
}

/// An agent that answers.
#[derive(Debug, Clone)]
pub enum Agent {
    /// One of the machine's.
    Socket {
        /// Its socket.
        path: PathBuf,
        /// Whether everything is passed on.
        raw: bool,
    },
    /// One in this process.
    Keys(Arc<Keys>),
}

impl SshSpec {
    /// Finds the agent, or makes one of the keys that are named; `own` is the caller's, for a specification without a path. A key
    /// file below `workspace` must be reached through no link.
    ///
    /// # Errors
    ///
    /// When there is none, or what is named is neither a socket nor a key.
    pub fn agent(&self, own: Option<&Path>, workspace: &Path) -> Result<Agent, SecretError> {
        let id = || self.id.clone();
        let own: Vec<PathBuf> = own.map(Path::to_owned).into_iter().collect();
        let paths = if self.paths.is_empty() { &own } else { &self.paths };
        let Some(first) = paths.first() else { return Err(SecretError::NoAgent { id: id() }) };
        let kind = |path: &PathBuf| {
            let kind = std::fs::metadata(path).map(|meta| meta.file_type());
            kind.map_err(|source| SecretError::Agent { id: id(), path: path.clone(), source })
        };
        for path in paths {
            if kind(path)?.is_socket() && paths.len() > 1 {
                return Err(SecretError::SocketAndMore { id: id(), path: path.clone() });
            }
        }
        if kind(first)?.is_socket() {
            // The build may look for it from another directory.
            let path = std::path::absolute(first).unwrap_or_else(|_| first.clone());
            return Ok(Agent::Socket { path, raw: self.raw });
        }
        if self.raw || self.paths.is_empty() {
            return Err(SecretError::NotSocket { id: id(), path: first.clone() });
        }
        Keys::read(&self.id, paths, workspace).map(|keys| Agent::Keys(Arc::new(keys)))
    }

    /// Parses the value of one `--ssh`.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let wrong = |problem: String| SecretError::Text { option: "--ssh", problem };
        let (id, value) = text.split_once('=').map_or((text, ""), |(id, value)| (id, value));
        let mut spec = Self { id: id.to_owned(), paths: Vec::new(), raw: false };
        for part in value.split(',').filter(|part| !part.is_empty()) {
            match part.strip_prefix("raw=") {
                Some("true" | "1" | "t" | "T" | "TRUE" | "True") => spec.raw = true,
                Some("false" | "0" | "f" | "F" | "FALSE" | "False") => spec.raw = false,
                Some(other) => return Err(wrong(format!("raw is true or false, not {other:?}"))),
                None => spec.paths.push(part.into()),
            }
        }
        if spec.id.is_empty() {
            return Err(wrong("it has no name".into()));
        }
        if spec.raw && spec.paths.len() != 1 {
            return Err(wrong("raw needs exactly one socket".into()));
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_sockets_and_nothing_else() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (socket, key) = (temp.path().join("socket"), temp.path().join("key"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        std::fs::write(&key, "key").expect("write");
        let agent = |text: &str, own: Option<&Path>| SshSpec::parse(text).expect("valid").agent(own, temp.path());
        let named = |path: &Path| format!("a={}", path.display());
        let is_socket = |found: Result<Agent, SecretError>| matches!(found, Ok(Agent::Socket { path, raw: false }) if path == socket);
        assert!(is_socket(agent(&named(&socket), None)));
        assert!(is_socket(agent("a", Some(&socket))));
        assert!(matches!(agent("a", None), Err(SecretError::NoAgent { .. })));
        assert!(matches!(agent("a", Some(&key)), Err(SecretError::NotSocket { .. })));
        assert!(matches!(agent(&named(&key), Some(&socket)), Err(SecretError::Key { .. })));
        std::fs::create_dir(temp.path().join("dir")).expect("mkdir");
        assert!(matches!(agent(&named(&temp.path().join("dir")), None), Err(SecretError::NotSocket { .. })));
        assert!(matches!(agent(&format!("{},raw=true", named(&key)), None), Err(SecretError::NotSocket { .. })));
        assert!(matches!(agent(&named(&temp.path().join("none")), None), Err(SecretError::Agent { .. })));
        let both = format!("{},{}", named(&key), socket.display());
        assert!(matches!(agent(&both, None), Err(SecretError::SocketAndMore { .. })));
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&key, &link).expect("symlink");
        assert!(matches!(agent(&named(&link), None), Err(SecretError::Link { .. })));
    }

    #[test]
    fn parses_names_sockets_and_keys() {
        let spec = |id: &str, paths: &[&str], raw| SshSpec {
            id: id.into(),
            paths: paths.iter().map(Into::into).collect(),
            raw,
        };
        let table = [
            ("default", spec("default", &[], false)),
            ("git=/run/agent.sock", spec("git", &["/run/agent.sock"], false)),
            ("git=a,b", spec("git", &["a", "b"], false)),
            ("git=/s,raw=true", spec("git", &["/s"], true)),
        ];
        for (text, expected) in table {
            assert_eq!(SshSpec::parse(text).expect(text), expected, "{text}");
        }
        for text in ["", "=x", "a=raw=true", "a=x,raw=maybe", "a=x,y,raw=true"] {
            assert!(SshSpec::parse(text).is_err(), "{text}");
        }
    }
}
