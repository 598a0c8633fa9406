//! Settings: what the environment, docker's configuration and `buildkitd.toml` say, read once at start.
//!
//! In: environment variables and files. Out: [`Environment`] and [`Settings`], plain data that the driver hands to the stations
//! as their own small option structs. Invariant: no other station reads the environment. Leaves nothing on disk.

mod buildkitd;
mod environment;
#[doc(hidden)]
pub mod fuzzing;
mod gc;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::diag::{Diagnose, Kind, LineRange, Location};

pub use environment::Environment;
pub use gc::{GcPolicy, GcSettings, Limits};

/// What a registry host is configured with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistryHost {
    /// Plain http is to be used.
    pub http: bool,
    /// Certificates are not checked, and plain http is tried when https is not answered.
    pub insecure: bool,
    /// Registries that are asked first.
    pub mirrors: Vec<String>,
}

/// The effective settings of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Registry hosts by `host[:port]`.
    pub registries: BTreeMap<String, RegistryHost>,
    /// Steps that may run at once; none for as many as there are processors.
    pub max_parallelism: Option<usize>,
    /// State directory named in the file.
    pub root: Option<PathBuf>,
    /// Directories with descriptions of devices; none where the file does not say.
    pub cdi_dirs: Option<Vec<PathBuf>>,
    /// Devices that steps may have without a grant.
    pub cdi_auto_allowed: Vec<String>,
    /// Whether no step is given a device.
    pub cdi_disabled: bool,
    /// How much may stay in the state directory.
    pub gc: GcSettings,
    /// Whether the file asks for debug output.
    pub debug: bool,
    /// What the user should know: keys that have no effect, each with file and line.
    pub warnings: Vec<String>,
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
            ConfigError::Syntax { .. } => Vec::new(),
        }
    }

    fn locations(&self) -> Vec<Location> {
        match self {
            ConfigError::Read { .. } => Vec::new(),
            ConfigError::Syntax { location, .. } => vec![(**location).clone()],
        }
    }
}

impl Settings {
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

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    buildkitd::parse(&path.display().to_string(), &text)
}

fn location(file: &str, text: &str, offset: usize) -> Location {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() as u32 + 1;
    Location { file: file.into(), text: text.into(), ranges: vec![LineRange { start: line, end: line }], mark: None }
}
