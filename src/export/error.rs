//! What can go wrong on the way out, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::diag::{Diagnose, Kind};
use crate::digest::Digest;
use crate::registry::RegistryError;

/// A failed export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A value of `--output` is wrong.
    #[error("invalid output {text:?}: {problem}")]
    Spec {
        /// The whole value.
        text: String,
        /// What is wrong with it.
        problem: String,
        /// What could be typed instead.
        hint: Option<String>,
    },
    /// The options do not fit the image.
    #[error("cannot export: {problem}")]
    Options {
        /// What does not fit.
        problem: String,
    },
    /// The image configuration cannot be completed.
    #[error("invalid image config for export: {problem}")]
    Config {
        /// What is wrong.
        problem: String,
    },
    /// A destination could not be written.
    #[error("failed to write {path:?}")]
    Write {
        /// The destination, or the file inside it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A destination is not what it must be.
    #[error("refusing to write to {path:?}: {problem}")]
    Destination {
        /// The destination.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the result could not be read.
    #[error("failed to read {path:?} of the result")]
    Read {
        /// The file inside the result.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer could not be read.
    #[error("failed to read layer {digest}")]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer is not what its digest says.
    #[error("layer {digest} has other content than its digest says: {found}")]
    Mismatch {
        /// The blob.
        digest: Digest,
        /// What was found.
        found: String,
    },
    /// A registry did not take the image.
    #[error("failed to push {name}")]
    Push {
        /// The image or repository.
        name: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// No program that takes images was found.
    #[error("cannot load the image: neither docker nor podman is on PATH")]
    NoLoader,
    /// The program that takes images failed.
    #[error("{program} load failed: {output}")]
    Load {
        /// The program.
        program: String,
        /// What it said, on one line.
        output: String,
    },
    /// The program that takes images could not be run.
    #[error("failed to run {program}")]
    Loader {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ExportError {
    pub(crate) fn write<P: AsRef<Path>>(path: P) -> impl FnOnce(io::Error) -> Self + use<P> {
        let path = path.as_ref().to_owned();
        move |source| Self::Write { path, source }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn blob(digest: &Digest) -> impl FnOnce(io::Error) -> Self + use<> {
        let digest = digest.clone();
        move |source| Self::Blob { digest, source }
    }

    pub(crate) fn options(problem: impl Into<String>) -> Self {
        Self::Options { problem: problem.into() }
    }
}

impl Diagnose for ExportError {
    fn kind(&self) -> Kind {
        match self {
            Self::Spec { .. } | Self::Options { .. } | Self::Destination { .. } => Kind::Usage,
            Self::Config { .. } => Kind::Build,
            Self::Push { source, .. } => source.kind(),
            Self::Blob { .. } | Self::Load { .. } => Kind::Remote,
            Self::Mismatch { .. } | Self::Write { .. } | Self::Read { .. } | Self::NoLoader | Self::Loader { .. } => {
                Kind::Machine
            }
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Spec { hint, .. } => hint.iter().cloned().collect(),
            Self::Write { path, source } => write_hint(path, source),
            Self::Push { source, .. } => source.hints(),
            Self::Mismatch { .. } | Self::Blob { .. } => {
                vec!["run the same build again: the damaged layer was removed and is made anew".into()]
            }
            Self::NoLoader => vec![
                "install docker or podman, or write the image to a file: --output type=docker,dest=image.tar".into(),
            ],
            Self::Load { program, .. } if program == "docker" => {
                vec!["check that the docker daemon runs: docker info".into()]
            }
            _ => Vec::new(),
        }
    }
}

fn write_hint(path: &Path, source: &io::Error) -> Vec<String> {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            vec![format!(
                "free some space where {} is (df -h shows how much there is), or choose another dest=",
                path.display()
            )]
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            vec!["choose a place that you may write to".into()]
        }
        io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            vec![format!("make the directory first: `mkdir -p {}`", parent.display())]
        }
        _ => Vec::new(),
    }
}
