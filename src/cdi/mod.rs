//! Devices that steps may be given, as files of the Container Device Interface (CDI 1.1) describe them.
//!
//! In: directories with descriptions, what `--allow device` grants, and the devices a step names. Out: [`Devices::granted`],
//! what the step is to have and its cache key to hold, and [`Devices::injection`], what that means: variables, nodes and
//! mounts of the machine. Invariants: directories are read once, when the first step names a device; what a description asks
//! for and cannot be done is an error, never left out. Leaves nothing on disk.

mod grant;
mod inventory;
mod spec;

use std::path::PathBuf;

pub use grant::{GrantError, Grants};
pub use inventory::{DeviceOptions, Devices, Granted, Injection, SPEC_DIRS};
pub use spec::{DeviceNode, HostMount, Spec, SpecError, parse};

use crate::diag::{Diagnose, Kind};

/// Why a step is not given a device.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// Nothing describes it.
    #[error("required device {name:?} is not registered")]
    NotRegistered {
        /// As the step names it.
        name: String,
        /// What can be done.
        hints: Vec<String>,
    },
    /// The caller has not granted it.
    #[error("{} requested by the build but not allowed", match names.as_slice() {
        [name] => format!("device {name} is"),
        names => format!("devices {} are", names.join(", ")),
    })]
    NotAllowed {
        /// Full names.
        names: Vec<String>,
    },
    /// Its description asks for something that cannot be done.
    #[error("device {name} cannot be given to a step: {} {reason}", file.display())]
    Unusable {
        /// Full name.
        name: String,
        /// The description.
        file: PathBuf,
        /// What it asks for.
        reason: String,
    },
}

impl Diagnose for CdiError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotRegistered { .. } | Self::NotAllowed { .. } => Kind::Usage,
            Self::Unusable { .. } => Kind::Machine,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NotRegistered { hints, .. } => hints.clone(),
            Self::NotAllowed { names } => {
                let flags: Vec<String> = names.iter().map(|name| format!("--allow device={name}")).collect();
                vec![format!("grant it with `{}`, or all devices with `--allow device`", flags.join(" "))]
            }
            Self::Unusable { .. } => {
                vec!["describe the device without it in another file, and name that file's device".to_owned()]
            }
        }
    }
}
