//! Why an op failed.

use crate::cdi::CdiError;
use crate::diag::{Diagnose, Kind};
use crate::exec::ExecError;

/// An op's failure; what a station says itself passes through unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// The process of a RUN ended otherwise than well.
    #[error("process {command:?} did not complete successfully: {status}")]
    Failed {
        /// Program and arguments, joined by spaces.
        command: String,
        /// `exit code: 2`, or the signal that ended it.
        status: String,
    },
    /// The process of a RUN ended otherwise than well, and the disk it wrote to is full.
    #[error("process {command:?} did not complete successfully: {status}; the disk of the state directory is full")]
    DiskFull {
        /// Program and arguments, joined by spaces.
        command: String,
        /// `exit code: 2`, or the signal that ended it.
        status: String,
    },
    /// The process of a RUN ended otherwise than well, after the kernel had killed a process of the step.
    #[error("process {command:?} did not complete successfully: {status}; the step needed more memory than its limit")]
    OutOfMemory {
        /// Program and arguments, joined by spaces.
        command: String,
        /// `exit code: 2`, or the signal that ended it.
        status: String,
    },
    /// A secret that a step requires was not given.
    #[error("secret {id}: not found")]
    SecretMissing {
        /// Its id.
        id: String,
    },
    /// An ssh agent that a step requires was not given.
    #[error("ssh agent {id}: not found")]
    SshMissing {
        /// Its id.
        id: String,
    },
    /// The socket of an ssh agent could not be made for a step.
    #[error("failed to make the socket of the ssh agent {id}")]
    SshSocket {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A step asks for what the caller did not grant.
    #[error(transparent)]
    NotGranted(#[from] ExecError),
    /// A step is not given a device.
    #[error(transparent)]
    Device(#[from] CdiError),
    /// The node or file of a device cannot be had from the machine.
    #[error("failed to open {path} for a device of the step")]
    DeviceFile {
        /// Where the machine has it.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Names of users are looked up in a tree that the step does not have.
    #[error("failed to look up the owner {name:?}: the step starts from nothing, which has no users")]
    NoUsers {
        /// The name.
        name: String,
    },
    /// The graph asks for something this version cannot do.
    #[error("{what} is not there in this version of rbuild")]
    Unsupported {
        /// What: `a git source`.
        what: String,
    },
    /// What is asked of a web server means nothing.
    #[error(transparent)]
    Http(Box<crate::source::http::HttpError>),
    /// What is asked of a git repository means nothing.
    #[error(transparent)]
    Git(Box<crate::source::git::GitError>),
    /// The graph contradicts itself.
    #[error("invalid step: {reason}")]
    Invalid {
        /// How.
        reason: String,
    },
    /// The copy of a tree could not be given its mode or owner.
    #[error("failed to copy {path}")]
    Copy {
        /// Path in the tree.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A step was given a tree whose layers lie elsewhere, which the solver never does.
    #[error("the layers of an input were not fetched")]
    NotFetched,
    /// A thread of this program ended unexpectedly.
    #[error("a worker thread of this program ended unexpectedly")]
    Thread(#[source] tokio::task::JoinError),
    /// The build is being stopped.
    #[error("canceled")]
    Canceled,
}

impl Diagnose for OpsError {
    fn kind(&self) -> Kind {
        match self {
            OpsError::NotGranted(error) => error.kind(),
            OpsError::Device(error) => error.kind(),
            OpsError::Unsupported { .. } | OpsError::Invalid { .. } | OpsError::NoUsers { .. } => Kind::Dockerfile,
            OpsError::Http(error) => error.kind(),
            OpsError::Git(error) => error.kind(),
            OpsError::SecretMissing { .. } | OpsError::SshMissing { .. } => Kind::Usage,
            OpsError::Copy { .. } | OpsError::SshSocket { .. } | OpsError::DeviceFile { .. } => Kind::Machine,
            OpsError::DiskFull { .. } => Kind::DiskFull,
            OpsError::Failed { .. }
            | OpsError::OutOfMemory { .. }
            | OpsError::NotFetched
            | OpsError::Thread(_)
            | OpsError::Canceled => Kind::Build,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            OpsError::SecretMissing { id } => {
                vec![format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`")]
            }
            OpsError::NotGranted(error) => error.hints(),
            OpsError::Device(error) => error.hints(),
            OpsError::DeviceFile { .. } => {
                vec!["check the paths in the CDI file that describes the device".into()]
            }
            OpsError::NoUsers { .. } => {
                vec!["with `--link` give numbers, `--chown=1000:1000`, or leave `--link` out".into()]
            }
            OpsError::OutOfMemory { .. } => vec!["give it more with `--memory`, or run less of it at once".into()],
            OpsError::Failed { status, .. } => failure_hint(status).into_iter().map(str::to_owned).collect(),
            OpsError::Http(error) => error.hints(),
            OpsError::Git(error) => error.hints(),
            OpsError::SshMissing { id } => {
                vec![format!(
                    "give it with `--ssh {id}` (the agent of $SSH_AUTH_SOCK), `--ssh {id}=SOCKET` or `--ssh {id}=KEYFILE`"
                )]
            }
            _ => Vec::new(),
        }
    }
}

/// What a shell's exit code tells beyond the program's own words.
fn failure_hint(status: &str) -> Option<&'static str> {
    match status {
        "exit code: 126" => {
            Some("126 stands for a file that is no program that can run here: `chmod +x` it, or check its first line")
        }
        "exit code: 127" => Some(
            "127 stands for a program that is not there: install it in an earlier step, or check its name and PATH",
        ),
        "exit code: 137" => Some("137 stands for a process that was killed, mostly for want of memory"),
        _ => None,
    }
}
