//! An agent in this process: it lists keys read from files, and signs with them. It is asked through [`AgentFilter`], as one behind a
//! socket is, and knows no other request.
//!
//! In: keys, and requests. Out: answers. Invariant: keys are neither added nor removed, by anybody.
//!
//! [`AgentFilter`]: super::AgentFilter

use std::path::{Path, PathBuf};

use super::SecretError;
use super::agent::{FAILURE, IDENTITIES_ANSWER, REQUEST_IDENTITIES, SIGN_REQUEST, SIGN_RESPONSE, number, string};
use super::key::{KeyError, SshKey};
use super::secret::from_file;

/// Keys to list and sign with.
#[derive(Debug)]
pub struct Keys(Vec<SshKey>);

impl Keys {
    /// Takes keys.
    pub fn new(keys: Vec<SshKey>) -> Self {
        Self(keys)
    }

    /// Reads the keys of files. One below `workspace`, which others may have written, must be reached through no link.
    pub(super) fn read(id: &str, paths: &[PathBuf], workspace: &Path) -> Result<Self, SecretError> {
        paths.iter().map(|path| read(id, path, workspace)).collect::<Result<_, _>>().map(Self)
    }

    /// Answers one request, without the frames around the two.
    pub fn answer(&self, request: &[u8]) -> Vec<u8> {
        match request {
            [REQUEST_IDENTITIES] => self.list(),
            [SIGN_REQUEST, rest @ ..] => self.sign(rest).unwrap_or_else(|| vec![FAILURE]),
            _ => vec![FAILURE],
        }
    }

    fn list(&self) -> Vec<u8> {
        let mut answer = vec![IDENTITIES_ANSWER];
        answer.extend((self.0.len() as u32).to_be_bytes());
        for key in &self.0 {
            answer.extend(text(key.blob()));
            answer.extend(text(key.comment().as_bytes()));
        }
        answer
    }

    fn sign(&self, request: &[u8]) -> Option<Vec<u8>> {
        let (blob, rest) = string(request)?;
        let (data, rest) = string(rest)?;
        let (flags, _) = number(rest)?;
        let key = self.0.iter().find(|key| key.blob() == blob)?;
        Some([&[SIGN_RESPONSE][..], &text(&key.sign(data, flags)?)].concat())
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn read(id: &str, path: &Path, workspace: &Path) -> Result<SshKey, SecretError> {
    let (id, path) = (id.to_owned(), path.to_owned());
    let bytes = from_file(&id, &path, workspace).map_err(|error| match error {
        SecretError::Read { id, path, source } => SecretError::Agent { id, path, source },
        SecretError::NotRegular { id, path } => SecretError::NotSocket { id, path },
        other => other,
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    SshKey::parse(bytes.expose(), &name).map_err(|source| match source {
        KeyError::Locked => SecretError::KeyLocked { id, path },
        source => SecretError::Key { id, path, source },
    })
}
