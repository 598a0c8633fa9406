//! What can go wrong while content is hashed.

use std::io;

use crate::diag::{Diagnose, Kind};

/// A failure to compute a content digest.
#[derive(Debug, thiserror::Error)]
pub enum ChecksumError {
    /// A selected path does not exist.
    #[error("{path:?}: not found")]
    NotFound {
        /// The path, from the root of the tree.
        path: String,
    },
    /// A file or directory could not be read.
    #[error("failed to read {path}")]
    Read {
        /// The path, from the root of the tree.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file was written to, replaced or removed while it was used.
    #[error("changed while building: {path}")]
    Changed {
        /// The path, from the root of the tree.
        path: String,
    },
    /// Links lead to links without end.
    #[error("too many links in {path}")]
    TooManyLinks {
        /// The path, from the root of the tree.
        path: String,
    },
    /// A path with wildcards cannot be parsed.
    #[error("invalid pattern {pattern:?}")]
    Glob {
        /// The path.
        pattern: String,
        /// Why.
        #[source]
        source: crate::pattern::go::BadPattern,
    },
    /// A pattern of includes or excludes cannot be parsed.
    #[error("invalid pattern {pattern:?}")]
    Pattern {
        /// The pattern, or all of them.
        pattern: String,
        /// Why.
        #[source]
        source: crate::pattern::PatternError,
    },
}

impl Diagnose for ChecksumError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { .. } => Kind::Machine,
            _ => Kind::Dockerfile,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                let path = path.trim_start_matches('/');
                vec![format!(
                    "make it readable (`chmod -R u+rX {path}`), or add the line `{path}` to .dockerignore if the build does not need it"
                )]
            }
            Self::Changed { path } => {
                let path = path.trim_start_matches('/');
                vec![format!("stop what writes {path} during the build, or add the line `{path}` to .dockerignore")]
            }
            Self::Glob { .. } => {
                vec![
                    "close the bracket; where a list is meant, its names are in double quotes: `COPY [\"a\", \"b\"]`"
                        .into(),
                ]
            }
            _ => Vec::new(),
        }
    }
}

/// Returns the error for `path`, which is below the root of the tree; what vanished between listing and use has changed.
pub(super) fn read_error(path: &[u8], source: io::Error) -> ChecksumError {
    let path = display(path);
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ChecksumError::Changed { path },
        _ => ChecksumError::Read { path, source },
    }
}

/// Returns a path below the root as shown to the user.
pub(super) fn display(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    if path.starts_with('/') { path.into_owned() } else { format!("/{path}") }
}
