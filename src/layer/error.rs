//! What can go wrong with the bytes of a layer or archive.

use std::io;

use super::decompress::Growth;
use super::entry::{MAX_DEPTH, MAX_NAME};
use crate::diag::{Diagnose, Kind};

/// An error while reading or writing a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream itself failed.
    #[error("failed to read the layer")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// The tar is not well-formed.
    #[error("malformed tar at byte {offset}: {reason}")]
    Malformed {
        /// Where the member starts.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry asks for something that is never done.
    #[error("refused tar entry {name:?}: {reason}")]
    Refused {
        /// The entry.
        name: String,
        /// Why.
        reason: String,
    },
    /// A limit was reached.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// An entry could not be written.
    #[error("failed to unpack {name:?}")]
    Unpack {
        /// The entry.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Owner or group is none that this user may give a file.
    #[error("cannot give {name:?} the owner {uid}:{gid}: these ids are not mapped in this user namespace")]
    UnmappedOwner {
        /// The entry.
        name: String,
        /// The owner.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// A tree could not be read.
    #[error("failed to read {path:?} of a layer")]
    Walk {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A path is longer than what any reader of layers takes.
    #[error("a layer cannot hold a path this long or this deep: {path:?}…")]
    TooDeep {
        /// How it starts.
        path: String,
    },
    /// The blob could not be written.
    #[error("failed to pack a layer")]
    Pack {
        /// Why.
        source: io::Error,
    },
}

impl Diagnose for LayerError {
    fn kind(&self) -> Kind {
        match self {
            // What the system did not raise comes from reading the content: cut, corrupt, or too much of it.
            Self::Unpack { source, .. } if source.raw_os_error().is_none() => Kind::Remote,
            Self::Unpack { .. } | Self::UnmappedOwner { .. } | Self::Walk { .. } | Self::Pack { .. } => Kind::Machine,
            Self::TooDeep { .. } => Kind::Build,
            _ => Kind::Remote,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::UnmappedOwner { .. } => more_ids(),
            Self::Unpack { source, .. } | Self::Read { source } if is_growth(source) => {
                vec!["no setting changes this limit: export an image that is meant to be so with compression=uncompressed".into()]
            }
            Self::TooDeep { .. } => vec![format!(
                "the limit is {MAX_DEPTH} directories and {MAX_NAME} bytes: remove the rest in the step that made it"
            )],
            _ => Vec::new(),
        }
    }
}

/// Says how a build gets more users than one.
pub fn more_ids() -> Vec<String> {
    vec![
        "give your user subordinate ids: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
            .into(),
        "and install newuidmap and newgidmap: sudo apt-get install uidmap".into(),
    ]
}

fn is_growth(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Growth>())
}

/// Turns the bytes of a name into text for a message.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(256).collect()
}
