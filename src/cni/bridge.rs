//! The network of `networkMode = "bridge"`: BuildKit's, a bridge of its own with addresses, masquerading and a firewall.
//!
//! Invariant: a bridge that was not there before is marked, and goes with the last namespace on it, whichever process made it;
//! one that somebody else made stays.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::attachment::Network;
use super::choice::NetworkOptions;
use super::config::NetworkConfig;
use super::{CniError, turn};
use crate::sys::{idmap, netlink};

/// The alias of bridges that were made here.
const MADE_HERE: &str = "made by rbuild";
/// What BuildKit's own images name the plugins they bring along.
pub(super) const BUNDLED: &str = "buildkit-cni-";
const PLUGINS: [&str; 4] = ["loopback", "bridge", "host-local", "firewall"];
/// The kernel's limit.
const MAX_NAME: usize = 15;

/// Describes the network.
pub(super) fn network(options: &NetworkOptions) -> Result<Network, CniError> {
    let NetworkOptions { bridge_name, bridge_subnet, .. } = options;
    check_name(bridge_name)?;
    check_subnet(bridge_subnet)?;
    let (prefix, dirs) = match bundled(&options.search_path) {
        Some(dirs) => (BUNDLED, dirs),
        None => ("", options.binary_dirs.clone()),
    };
    let [loopback, bridge, ipam, firewall] = PLUGINS.map(|name| format!("{prefix}{name}"));
    // That of firewalld belongs to the machine's root.
    let whole = idmap::users().is_ok_and(|users| idmap::is_whole(&users));
    let backend = if whole { "" } else { "iptables" };
    let json = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "buildkit",
        "loadOnlyInlinedPlugins": true,
        "plugins": [
            { "type": loopback },
            {
                "type": bridge, "bridge": bridge_name, "isDefaultGateway": true, "ipMasq": true,
                "ipam": { "type": ipam, "ranges": [[{ "subnet": bridge_subnet }]] },
            },
            { "type": firewall, "backend": backend, "ingressPolicy": "same-bridge" },
        ],
    });
    let config = NetworkConfig::parse(json.to_string().as_bytes()).expect("the built-in network is one");
    Ok(Network { config, dirs, bridge: Some(bridge_name.clone()) })
}

fn check_name(name: &str) -> Result<(), CniError> {
    let wrong = |reason| CniError::Setting { key: "bridgeName", value: name.to_owned(), reason };
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(wrong("a device has a name of 1 to 15 bytes"));
    }
    match name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
        || [".", ".."].contains(&name)
    {
        true => Err(wrong("no device can be called so")),
        false => Ok(()),
    }
}

fn check_subnet(subnet: &str) -> Result<(), CniError> {
    let wrong = |reason| CniError::Setting { key: "bridgeSubnet", value: subnet.to_owned(), reason };
    let Some((address, length)) = subnet.split_once('/') else { return Err(wrong("it has no length")) };
    let address: IpAddr = address.parse().map_err(|_| wrong("it is no network"))?;
    // A network with a gateway and one address more.
    let most = if address.is_ipv4() { 30 } else { 126 };
    match length.parse::<u8>() {
        Ok(length) if length <= most => Ok(()),
        _ => Err(wrong("there is no room for a step in it")),
    }
}

/// The directories of the plugins that came with BuildKit, if all are there.
fn bundled(search_path: &[PathBuf]) -> Option<Vec<PathBuf>> {
    let find = |name: &str| {
        let file = format!("{BUNDLED}{name}");
        search_path.iter().find(|dir| Path::is_file(&dir.join(&file))).cloned()
    };
    let mut dirs = PLUGINS.iter().map(|name| find(name)).collect::<Option<Vec<_>>>()?;
    dirs.sort();
    dirs.dedup();
    Some(dirs)
}

/// Returns whether there is a device of this name.
pub(super) fn is_there(name: &str) -> io::Result<bool> {
    netlink::link(name).map(|link| link.is_some())
}

/// Marks a bridge that a plugin has just made.
pub(super) fn mark(name: &str) -> io::Result<()> {
    netlink::link(name)?.map_or(Ok(()), |link| netlink::set_alias(link.index, MADE_HERE))
}

/// Removes a bridge that was made here, if nothing is on it. Who else is about to put something on it removes it itself, so whoever is
/// over does not wait for that.
pub(super) async fn remove_unused(name: &str) -> Result<(), CniError> {
    let Some(_turn) = turn::try_alone().await? else {
        tracing::debug!(bridge = name, "the bridge is left to another build, which sets up a network");
        return Ok(());
    };
    let failed = |source| CniError::Record { action: "remove the bridge", source };
    let links = netlink::links().map_err(failed)?;
    let Some(bridge) = links.iter().find(|link| link.name == name && link.alias == MADE_HERE) else { return Ok(()) };
    if links.iter().any(|link| link.master == bridge.index) {
        return Ok(());
    }
    tracing::debug!(bridge = name, "removing the bridge, which nothing is on any more");
    netlink::delete_link(bridge.index).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_subnets_that_cannot_be_are_refused() {
        let options = |name: &str, subnet: &str| NetworkOptions {
            bridge_name: name.into(),
            bridge_subnet: subnet.into(),
            ..NetworkOptions::default()
        };
        for (name, subnet, reason) in [
            ("", "10.0.0.0/16", "1 to 15 bytes"),
            ("sixteen-letters-", "10.0.0.0/16", "1 to 15 bytes"),
            ("a/b", "10.0.0.0/16", "no device"),
            ("..", "10.0.0.0/16", "no device"),
            ("b0", "10.0.0.0", "no length"),
            ("b0", "buildkit/16", "no network"),
            ("b0", "10.0.0.0/31", "no room"),
            ("b0", "fd00::/x", "no room"),
        ] {
            let error = network(&options(name, subnet)).expect_err(reason);
            assert!(error.to_string().contains(reason), "{error}");
            assert!(crate::diag::Diagnose::hints(&error)[0].contains(" = \""), "{error}");
        }
        let network = network(&options("b0", "10.0.0.0/16")).expect("valid");
        let kinds: Vec<&str> = network.config.plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
        assert_eq!(kinds, ["loopback", "bridge", "firewall"]);
    }

    #[test]
    fn plugins_that_came_with_buildkit_are_preferred() {
        let temp = tempfile::tempdir().expect("temp dir");
        let options = NetworkOptions { search_path: vec![temp.path().into()], ..NetworkOptions::default() };
        for name in PLUGINS {
            assert_eq!(network(&options).expect("valid").dirs, NetworkOptions::default().binary_dirs);
            std::fs::write(temp.path().join(format!("{BUNDLED}{name}")), "").expect("write");
        }
        let network = network(&options).expect("valid");
        assert_eq!(
            (network.dirs, network.config.plugins[1].kind.as_str()),
            (vec![temp.path().into()], "buildkit-cni-bridge")
        );
    }
}
