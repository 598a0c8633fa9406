//! What can go wrong in a file action.

use std::io;

use crate::checksum::ChecksumError;
use crate::diag::{Diagnose, Kind};

/// A failure of a file action.
#[derive(Debug, thiserror::Error)]
pub enum FileOpError {
    /// What is copied or removed does not exist.
    #[error("{path:?}: not found")]
    NotFound {
        /// The path, from the root of its tree.
        path: String,
    },
    /// The source could not be read, or changed.
    #[error(transparent)]
    Source(#[from] ChecksumError),
    /// The action has no tree to copy from.
    #[error("failed to copy {path}: the action names no source")]
    NoSource {
        /// What should be copied.
        path: String,
    },
    /// A file would replace a directory.
    #[error("cannot replace to directory {path} with file")]
    FileOverDirectory {
        /// The directory.
        path: String,
    },
    /// A directory would replace a file.
    #[error("cannot copy to non-directory: {path}")]
    DirectoryOverFile {
        /// The file.
        path: String,
    },
    /// A path that must name something below the root does not.
    #[error("invalid path {path:?}: it names no file below the root")]
    EmptyPath {
        /// The path as given.
        path: String,
    },
    /// Something could not be written.
    #[error("failed to {verb} {path}")]
    Write {
        /// What was being done.
        verb: &'static str,
        /// The path, from the root of the tree.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An archive could not be unpacked.
    #[error("failed to unpack {archive} into {path}")]
    Unpack {
        /// The archive, from the root of its tree.
        archive: String,
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: super::UnpackError,
    },
    /// A mode is neither a number nor symbolic.
    #[error("invalid mode {mode:?}")]
    Mode {
        /// The mode.
        mode: String,
    },
    /// Nobody in the build has these ids.
    #[error("cannot give files the owner {uid}:{gid}: the build has no such ids")]
    Unmapped {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// The ids of the build could not be looked up.
    #[error("failed to look up which users the build has")]
    Ids(#[source] io::Error),
    /// A user or group file cannot be used.
    #[error("failed to look up {name} in {file}")]
    Owner {
        /// Who was looked for.
        name: String,
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FileOpError {
    /// Returns the error for a failure to write `path`, which is below the root.
    pub(super) fn write(verb: &'static str, path: &[u8], source: io::Error) -> Self {
        Self::Write { verb, path: super::place::display(path), source }
    }
}

impl Diagnose for FileOpError {
    fn kind(&self) -> Kind {
        match self {
            Self::Source(error) => error.kind(),
            Self::Write { .. } | Self::Unmapped { .. } | Self::Ids(_) => Kind::Machine,
            Self::NotFound { .. } | Self::Mode { .. } | Self::EmptyPath { .. } => Kind::Dockerfile,
            Self::FileOverDirectory { .. } | Self::DirectoryOverFile { .. } => Kind::Dockerfile,
            Self::NoSource { .. } | Self::Owner { .. } | Self::Unpack { .. } => Kind::Build,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Source(error) => error.hints(),
            Self::Unmapped { .. } => crate::layer::more_ids(),
            Self::FileOverDirectory { path } => vec![format!("write `{path}/` to copy into the directory")],
            _ => Vec::new(),
        }
    }
}
