//! Which network steps have that ask for none in particular: `networkMode` and the keys beside it.

use std::path::PathBuf;
use std::sync::Arc;

use super::attachment::Network;
use super::config::NetworkConfig;
use super::{CniError, bridge};
use crate::sys::ns;

/// Where plugins are looked for unless a directory is named: BuildKit's place, and those of distributions.
pub const BINARY_DIRS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// `networkMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// CNI if there is a configuration of it and the network is this process's to change, else the host's.
    #[default]
    Auto,
    /// What the configuration describes.
    Cni,
    /// The host's network.
    Host,
    /// A built-in bridge.
    Bridge,
    /// No network but the loopback device.
    None,
}

/// What is said about the network of steps.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// `networkMode`.
    pub mode: Mode,
    /// `cniConfigPath`.
    pub config: PathBuf,
    /// `cniBinaryPath`: directories.
    pub binary_dirs: Vec<PathBuf>,
    /// `cniPoolSize`: namespaces that are made ahead.
    pub pool_size: usize,
    /// `bridgeName`.
    pub bridge_name: String,
    /// `bridgeSubnet`.
    pub bridge_subnet: String,
    /// Absolute directories in which BuildKit's own plugins may be.
    pub search_path: Vec<PathBuf>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            config: "/etc/buildkit/cni.json".into(),
            binary_dirs: BINARY_DIRS.map(Into::into).to_vec(),
            pool_size: 0,
            bridge_name: "buildkit0".into(),
            bridge_subnet: "10.10.0.0/16".into(),
            search_path: Vec::new(),
        }
    }
}

/// What a step has that asks for nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// The host's network.
    Host,
    /// None.
    None,
    /// A namespace that plugins connect.
    Network(Arc<Network>),
}

/// Decides, and reads the configuration where there is one to be used.
///
/// # Errors
///
/// When a network is asked for that cannot be had: no configuration, no plugin, no right.
pub fn choose(options: &NetworkOptions) -> Result<Choice, CniError> {
    choose_with(options, || ns::may_configure_network().map_err(|source| CniError::Namespace { source }))
}

fn choose_with(options: &NetworkOptions, permitted: impl Fn() -> Result<bool, CniError>) -> Result<Choice, CniError> {
    let network = match options.mode {
        Mode::Host => return Ok(Choice::Host),
        Mode::None => return Ok(Choice::None),
        Mode::Auto if !options.config.exists() => return Ok(Choice::Host),
        Mode::Auto if !permitted()? => {
            tracing::debug!(config = %options.config.display(), "this user may not change the network: steps have the host's");
            return Ok(Choice::Host);
        }
        Mode::Cni if !permitted()? => return Err(CniError::Forbidden { mode: "cni" }),
        Mode::Bridge if !permitted()? => return Err(CniError::Forbidden { mode: "bridge" }),
        Mode::Auto | Mode::Cni => {
            let config = NetworkConfig::load(&options.config)?;
            Network { config, dirs: options.binary_dirs.clone(), bridge: None }
        }
        Mode::Bridge => bridge::network(options)?,
    };
    network.check()?;
    Ok(Choice::Network(Arc::new(network)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_follows_mode_configuration_plugins_and_rights() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (config, plugins) = (temp.path().join("cni.json"), temp.path().join("bin"));
        let there =
            NetworkOptions { config: config.clone(), binary_dirs: vec![plugins.clone()], ..NetworkOptions::default() };
        let told = |options: &NetworkOptions, permitted: bool| match choose_with(options, || Ok(permitted)) {
            Ok(Choice::Network(network)) => format!("network {}", network.name()),
            Ok(choice) => format!("{choice:?}"),
            Err(error) => error.to_string(),
        };
        let with = |mode| NetworkOptions { mode, ..there.clone() };
        for (mode, expected) in [(Mode::Auto, "Host"), (Mode::Host, "Host"), (Mode::None, "None")] {
            assert_eq!(told(&with(mode), true), expected);
        }
        let missing = format!("failed to read the CNI configuration {}", config.display());
        assert_eq!(told(&with(Mode::Cni), true), missing);
        std::fs::write(&config, r#"{"name":"n","type":"bridge"}"#).expect("write");
        let absent = format!("the CNI plugin \"bridge\" is not in {}", plugins.display());
        assert_eq!((told(&with(Mode::Cni), true), told(&with(Mode::Auto), true)), (absent.clone(), absent));
        std::fs::create_dir(&plugins).expect("mkdir");
        std::fs::write(plugins.join("bridge"), "").expect("write");
        assert_eq!(
            (told(&with(Mode::Cni), true), told(&with(Mode::Auto), true)),
            ("network n".into(), "network n".into())
        );
        let forbidden = "networkMode \"cni\" changes this machine's network, which this user may not".to_owned();
        assert_eq!((told(&with(Mode::Cni), false), told(&with(Mode::Auto), false)), (forbidden, "Host".into()));
        assert!(told(&with(Mode::Bridge), true).contains("the CNI plugin \"loopback\" is not in"));
    }
}
