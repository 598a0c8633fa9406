//! Why a step has no network.

use std::io;
use std::path::PathBuf;

use crate::diag::{Diagnose, Kind};

/// No network could be set up, or not be taken down again.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The configuration cannot be read.
    #[error("failed to read the CNI configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The configuration is no network configuration.
    #[error("the CNI configuration {} is invalid: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A setting of the built-in network is wrong.
    #[error("{key} {value:?} is invalid: {reason}")]
    Setting {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A plugin is not installed.
    #[error("the CNI plugin {plugin:?} is not in {}", list(dirs))]
    NoPlugin {
        /// Its name.
        plugin: String,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// The machine's network is not this process's to change.
    #[error("networkMode {mode:?} changes this machine's network, which this user may not")]
    Forbidden {
        /// The mode.
        mode: &'static str,
    },
    /// No namespace could be made.
    #[error("failed to make a network namespace")]
    Namespace {
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// What is to be released could not be noted.
    #[error("failed to {action}")]
    Record {
        /// What was being done.
        action: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A plugin could not be started or talked to.
    #[error("failed to run the CNI plugin {plugin:?}")]
    Start {
        /// Its name.
        plugin: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A plugin says that it failed.
    #[error("the CNI plugin {plugin:?} failed to {verb} the network {network:?}: {message}")]
    Plugin {
        /// Its name.
        plugin: String,
        /// What it was to do.
        verb: &'static str,
        /// Name of the network.
        network: String,
        /// What it says.
        message: String,
    },
    /// A plugin's answer is none.
    #[error("the CNI plugin {plugin:?} gave no valid answer: {reason}")]
    Reply {
        /// Its name.
        plugin: String,
        /// What is wrong.
        reason: String,
    },
    /// It took too long.
    #[error("{what} took longer than {seconds} s")]
    TimedOut {
        /// What.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// The build was stopped.
    #[error("canceled")]
    Canceled,
}

fn list(dirs: &[PathBuf]) -> String {
    let names: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    if names.is_empty() { "any directory".into() } else { names.join(":") }
}

/// What always helps.
const HOST: &str =
    "or set networkMode = \"host\" in [worker.oci] of buildkitd.toml: steps then have the machine's network";

impl Diagnose for CniError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { .. } | Self::Config { .. } | Self::Setting { .. } => Kind::Usage,
            Self::Canceled => Kind::Interrupted(2),
            _ => Kind::Machine,
        }
    }

    fn hints(&self) -> Vec<String> {
        let first = match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "write it there, or name another with cniConfigPath in [worker.oci] of buildkitd.toml"
            }
            Self::Read { .. } | Self::Config { .. } | Self::Canceled => return Vec::new(),
            Self::Setting { key: "bridgeSubnet", .. } => {
                return vec!["write it as `bridgeSubnet = \"10.10.0.0/16\"`".into()];
            }
            Self::Setting { .. } => return vec!["write it as `bridgeName = \"buildkit0\"`".into()],
            Self::NoPlugin { .. } => {
                "install it: `sudo apt-get install containernetworking-plugins` puts plugins into /usr/lib/cni; name its directory \
                 with cniBinaryPath in [worker.oci] of buildkitd.toml"
            }
            Self::Forbidden { .. } => {
                "run rbuild as root (in a container, one that was started with `--privileged`), or in a network namespace of your own: `rootlesskit --net=slirp4netns \
                 --disable-host-loopback --copy-up=/etc --copy-up=/run --copy-up=/var/lib rbuild …`"
            }
            Self::Plugin { message, .. } if message.contains("iptables") => {
                "the plugin needs iptables (`sudo apt-get install iptables`), without which a network has no \"ipMasq\" and no \
                 firewall"
            }
            Self::Plugin { .. } | Self::Reply { .. } | Self::Start { .. } | Self::TimedOut { .. } => {
                "see the configuration of the network and the plugin's documentation; `--debug` shows each call"
            }
            Self::Namespace { .. } | Self::Record { .. } => return vec![HOST.trim_start_matches("or ").into()],
        };
        vec![first.into(), HOST.into()]
    }
}
