//! Settings: what the environment, docker's configuration and `buildkitd.toml` say, read once at start.
//!
//! In: environment variables and files. Out: [`Environment`] and [`Settings`], plain data that the driver hands to the stations
//! as their own small option structs. Invariant: no other station reads the environment. Leaves nothing on disk.

mod buildkitd;
mod environment;
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod inline;
mod key;
mod keys;
mod settings;
#[cfg(test)]
mod tests;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::diag::{Diagnose, Kind, Location};

pub use environment::Environment;
pub use gc::{GcPolicy, GcSettings, Limits};
pub use settings::{
    CdiSettings, DnsSettings, FrontendSettings, HistorySettings, KeyPair, LogFormat, LogLevel, LogSettings,
    NetworkMode, NetworkSettings, OciSettings, RegistryHost, Seccomp, Settings, Snapshotter, SystemSettings,
};

/// A configuration file, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// The file; none if there is none.
    pub file: Option<PathBuf>,
    /// What it says.
    pub settings: Settings,
    /// What it gives, in order.
    pub given: Vec<Given>,
    /// What the user should know: keys that are unknown or have no effect, each with file and line.
    pub warnings: Vec<String>,
    /// What the log should say: tables that are about what rbuild does not have.
    pub notes: Vec<String>,
}

/// A value that a file gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The key, by the names of BuildKit.
    pub path: Vec<Segment>,
    /// The value, as TOML.
    pub value: String,
    /// The line of the key.
    pub line: u32,
}

/// A part of the path of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A name.
    Name(String),
    /// The place in a list of tables, from 0.
    Index(usize),
}

impl Segment {
    /// Writes a path as `worker.oci.gcpolicy[0].all`.
    pub fn join<'a>(path: impl IntoIterator<Item = &'a Segment>) -> String {
        let mut text = String::new();
        for segment in path {
            match segment {
                Segment::Name(name) if text.is_empty() => text = buildkitd::quoted(name),
                Segment::Name(name) => text = format!("{text}.{}", buildkitd::quoted(name)),
                Segment::Index(at) => text = format!("{text}[{at}]"),
            }
        }
        text
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error("{reason}")]
    Syntax {
        /// What is wrong.
        reason: String,
        /// Where.
        location: Box<Location>,
        /// What to do about it.
        hint: String,
    },
    /// The file is too long to be one.
    #[error("configuration file {} is longer than {LONGEST} bytes", path.display())]
    Long {
        /// The file.
        path: PathBuf,
    },
}

impl Diagnose for ConfigError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn hints(&self) -> Vec<String> {
        match self {
            ConfigError::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                vec![format!("make it readable (`chmod +r {}`), or name another with `--config FILE`", path.display())]
            }
            ConfigError::Read { .. } => {
                vec!["name a file that can be read with `--config FILE`, or leave the flag out".into()]
            }
            ConfigError::Long { .. } => vec!["name another with `--config FILE`".into()],
            ConfigError::Syntax { hint, .. } => vec![hint.clone()],
        }
    }

    fn locations(&self) -> Vec<Location> {
        match self {
            ConfigError::Read { .. } | ConfigError::Long { .. } => Vec::new(),
            ConfigError::Syntax { location, .. } => vec![(**location).clone()],
        }
    }
}

impl Configuration {
    /// Reads the configuration: `explicit` if given (it must exist), else the first of BuildKit's places that exists.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not valid.
    pub fn load(explicit: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        if let Some(path) = explicit {
            return read(path);
        }
        match read(&environment.buildkitd_config()) {
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            result => result,
        }
    }
}

/// Longer files are none.
const LONGEST: u64 = 4 << 20;

fn read(path: &Path) -> Result<Configuration, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        return Err(ConfigError::Long { path: path.into() });
    }
    buildkitd::parse_bytes(&path.display().to_string(), &bytes)
}
