//! Secrets and ssh agents given on the command line.
//!
//! In: the texts of `--secret` and `--ssh`, files and variables they name. Out: [`Secret`]s, and sockets behind which an
//! agent, the caller's or one of this process with keys from files, is only asked for keys and signatures. Invariants: the bytes of a secret are never printed, never written to disk and are
//! overwritten when dropped; a secret file in the workspace is reached through no link.

mod agent;
mod key;
mod keys;
mod proxy;
mod secret;
mod spec;
mod ssh;

pub use agent::{AgentFilter, Client, MAX_FRAME, Reply};
pub use key::{KeyError, SshKey};
pub use keys::Keys;
pub use proxy::AgentProxy;
pub use secret::{MAX_SECRET, Secret, read_secret};
pub use spec::{SecretOrigin, SecretSpec};
pub use ssh::{Agent, SshSpec};

use std::io;
use std::path::PathBuf;

use crate::diag::{Diagnose, Kind};

/// What is wrong with a secret or an ssh agent.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The text of an option cannot be understood.
    #[error("invalid value of {option}: {problem}")]
    Text {
        /// `--secret` or `--ssh`.
        option: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A variable is not set.
    #[error("failed to read secret {id}: the variable {name} is not set")]
    Unset {
        /// Id of the secret.
        id: String,
        /// The variable.
        name: String,
    },
    /// A file cannot be read.
    #[error("failed to read secret {id} from {}", path.display())]
    Read {
        /// Id of the secret.
        id: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file in the workspace is, or is reached through, a link.
    #[error("refused secret {id}: {} is a symbolic link in the workspace", link.display())]
    Link {
        /// Id of the secret.
        id: String,
        /// The link.
        link: PathBuf,
    },
    /// What a path names is no regular file.
    #[error("refused secret {id}: {} is not a regular file", path.display())]
    NotRegular {
        /// Id of the secret.
        id: String,
        /// The path.
        path: PathBuf,
    },
    /// No agent is named, and none is the caller's.
    #[error("failed to find the ssh agent {id}: the variable SSH_AUTH_SOCK is not set")]
    NoAgent {
        /// Id of the agent.
        id: String,
    },
    /// What `--ssh` names cannot be had.
    #[error("failed to open the ssh agent {id} at {}", path.display())]
    Agent {
        /// Id of the agent.
        id: String,
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What `--ssh` names is neither a socket nor a file.
    #[error("refused ssh agent {id}: {} is neither a socket nor a key file", path.display())]
    NotSocket {
        /// Id of the agent.
        id: String,
        /// The path.
        path: PathBuf,
    },
    /// A socket is named beside others.
    #[error("refused ssh agent {id}: {} is a socket, and the only thing that may be named then", path.display())]
    SocketAndMore {
        /// Id of the agent.
        id: String,
        /// The socket.
        path: PathBuf,
    },
    /// A key needs a passphrase.
    #[error("refused ssh agent {id}: the key in {} is locked by a passphrase", path.display())]
    KeyLocked {
        /// Id of the agent.
        id: String,
        /// The file.
        path: PathBuf,
    },
    /// A file holds no key that can be used.
    #[error("failed to read the ssh key {} of agent {id}", path.display())]
    Key {
        /// Id of the agent.
        id: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// A secret has too many bytes.
    #[error("refused secret {id}: it is longer than {MAX_SECRET} bytes")]
    TooLong {
        /// Id of the secret.
        id: String,
    },
}

impl Diagnose for SecretError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Text { option: "--secret", .. } => {
                vec!["write `--secret id=NAME,src=FILE` or `--secret id=NAME,env=VARIABLE`".to_owned()]
            }
            Self::Text { .. } => vec!["write `--ssh default`, `--ssh NAME=SOCKET` or `--ssh NAME=KEYFILE`".to_owned()],
            Self::NoAgent { .. } | Self::Agent { .. } => {
                vec!["start one with `eval $(ssh-agent)`, and give it keys with `ssh-add`".to_owned()]
            }
            Self::KeyLocked { path, .. } => vec![format!(
                "unlock it in an agent: `eval $(ssh-agent)`, `ssh-add {}`, then `--ssh default`",
                path.display()
            )],
            Self::Key { .. } => vec![
                "name a private key that `ssh-keygen -t ed25519`, `ecdsa` or `rsa` made, of at least 2048 bits for rsa"
                    .to_owned(),
            ],
            Self::SocketAndMore { id, .. } => {
                vec![format!("name one socket, `--ssh {id}=SOCKET`, or key files, `--ssh {id}=KEY,KEY`")]
            }
            Self::Unset { id, .. } => vec![format!("set the variable, or write `--secret id={id},src=FILE`")],
            Self::Link { link, .. } => {
                vec![format!(
                    "name the file that {} points to: whoever writes the workspace chose the link",
                    link.display()
                )]
            }
            Self::Read { id, .. } => {
                vec![format!("name a file that you may read: `--secret id={id},src=FILE`, or use `env=VARIABLE`")]
            }
            Self::NotSocket { .. } | Self::NotRegular { .. } | Self::TooLong { .. } => Vec::new(),
        }
    }
}
