//! The network of steps, as settings and environment have it.

use std::path::PathBuf;

use crate::cni::{Dns, Mode, NetworkOptions};
use crate::config::{DnsSettings, Environment, NetworkMode, NetworkSettings};

/// What BuildKit's own image sets so that steps have a bridge where nothing is configured.
const BRIDGE_AUTO: &str = "BUILDKIT_NETWORK_BRIDGE_AUTO";

/// Fills in what is not said.
pub(super) fn options(settings: &NetworkSettings, environment: &Environment) -> NetworkOptions {
    let bridge =
        environment.text(BRIDGE_AUTO).is_some_and(|value| ["1", "t", "T", "true", "True", "TRUE"].contains(&value));
    let mode = match settings.mode {
        NetworkMode::Auto if bridge => Mode::Bridge,
        NetworkMode::Auto => Mode::Auto,
        NetworkMode::Host => Mode::Host,
        NetworkMode::Cni => Mode::Cni,
        NetworkMode::Bridge => Mode::Bridge,
        NetworkMode::None => Mode::None,
    };
    let beside = || environment.buildkitd_config().with_file_name("cni.json");
    let defaults = NetworkOptions::default();
    let dirs = |list: &PathBuf| std::env::split_paths(list).filter(|dir| dir.is_absolute()).collect();
    NetworkOptions {
        mode,
        config: settings.cni_config.clone().unwrap_or_else(beside),
        binary_dirs: settings.cni_plugins.as_ref().map_or_else(|| defaults.binary_dirs.clone(), dirs),
        pool_size: settings.cni_pool,
        bridge_name: settings.bridge_name.clone().unwrap_or_else(|| defaults.bridge_name.clone()),
        bridge_subnet: settings.bridge_subnet.clone().unwrap_or_else(|| defaults.bridge_subnet.clone()),
        ..defaults
    }
}

/// Returns what steps resolve names with.
pub(super) fn dns(settings: Option<&DnsSettings>) -> Dns {
    let DnsSettings { nameservers, options, search_domains } = settings.cloned().unwrap_or_default();
    Dns { nameservers, search: search_domains, options }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_buildkit_has_it() {
        let settings = NetworkSettings::default();
        let root = options(&settings, &Environment::from_pairs([], true));
        assert_eq!((root.mode, root.config.to_str()), (Mode::Auto, Some("/etc/buildkit/cni.json")));
        assert_eq!((root.bridge_name.as_str(), root.bridge_subnet.as_str()), ("buildkit0", "10.10.0.0/16"));
        assert_eq!((root.binary_dirs[0].to_str(), root.pool_size), (Some("/opt/cni/bin"), 0));
        let user = options(&settings, &Environment::from_pairs([("HOME", "/home/a")], false));
        assert_eq!(user.config.to_str(), Some("/home/a/.config/buildkit/cni.json"));
        for (value, mode) in [("1", Mode::Bridge), ("true", Mode::Bridge), ("0", Mode::Auto), ("", Mode::Auto)] {
            let environment = Environment::from_pairs([(BRIDGE_AUTO, value)], true);
            assert_eq!(options(&settings, &environment).mode, mode, "{value}");
            let host = NetworkSettings { mode: NetworkMode::Host, ..settings.clone() };
            assert_eq!(options(&host, &environment).mode, Mode::Host, "{value}");
        }
    }

    #[test]
    fn several_directories_may_be_named() {
        let settings = NetworkSettings { cni_plugins: Some("/a/b:c:/d".into()), ..NetworkSettings::default() };
        let dirs = options(&settings, &Environment::default()).binary_dirs;
        assert_eq!(dirs, [PathBuf::from("/a/b"), PathBuf::from("/d")]);
    }
}
