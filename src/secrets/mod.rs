//! Secrets and ssh agents given on the command line.
//!
//! In: the texts of `--secret` and `--ssh`, files and variables they name. Out: [`Secret`]s, and frames for an agent that
//! only asks for keys and signatures. Invariants: the bytes of a secret are never printed, never written to disk and are
//! overwritten when dropped; a secret file in the workspace is reached through no link.

mod agent;
mod secret;
mod spec;
mod ssh;

pub use agent::{AgentFilter, Client, MAX_FRAME, Reply};
pub use secret::{MAX_SECRET, Secret, read_secret};
pub use spec::{SecretOrigin, SecretSpec};
pub use ssh::SshSpec;

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
            Self::Text { .. } => vec!["write `--ssh default` or `--ssh NAME=SOCKET`".to_owned()],
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
            Self::NotRegular { .. } | Self::TooLong { .. } => Vec::new(),
        }
    }
}
