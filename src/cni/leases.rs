//! Addresses that `host-local` has given to a namespace whose plugins did not live to answer.
//!
//! ```text
//! DATA/NETWORK/10.0.0.7      first line: the id of the namespace
//! ```
//!
//! In: a network and an id. Out: addresses, none where they are given by another plugin. A plugin that sets rules of the firewall
//! undoes them by the addresses that the device of the namespace has, so these must be known before it is asked. Nothing is written.

use std::fs;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::bridge::BUNDLED;
use super::config::NetworkConfig;

/// Where leases are unless a directory is named.
const DATA: &str = "/var/lib/cni/networks";
/// The plugin whose leases these are.
const PLUGIN: &str = "host-local";
/// More leases than are looked at: those of a /14.
const MOST: usize = 1 << 18;
/// More than a lease holds.
const MAX_LEASE: u64 = 1 << 10;

/// Returns the addresses of `id`, each as a network of its own.
pub(super) fn addresses(network: &NetworkConfig, id: &str) -> Vec<(IpAddr, u8)> {
    let mut found: Vec<(IpAddr, u8)> = folders(network).iter().flat_map(|folder| of_folder(folder, id)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn folders(network: &NetworkConfig) -> Vec<PathBuf> {
    let local = network.plugins.iter().filter_map(|plugin| plugin.ipam());
    let local = local.filter(|(kind, _)| kind.strip_prefix(BUNDLED).unwrap_or(kind) == PLUGIN);
    local.map(|(_, data)| Path::new(data.unwrap_or(DATA)).join(&network.name)).collect()
}

fn of_folder(folder: &Path, id: &str) -> Vec<(IpAddr, u8)> {
    // Without a folder there are no leases.
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let addresses = entries.take(MOST).flatten().filter_map(|entry| {
        let address: IpAddr = entry.file_name().to_str()?.parse().ok()?;
        is_of(&entry.path(), id).then_some((address, if address.is_ipv4() { 32 } else { 128 }))
    });
    addresses.collect()
}

fn is_of(lease: &Path, id: &str) -> bool {
    let mut text = String::new();
    // A lease that was given back meanwhile is nobody's.
    let read = fs::File::open(lease).and_then(|file| file.take(MAX_LEASE).read_to_string(&mut text));
    read.is_ok() && text.lines().next().is_some_and(|line| line.trim() == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_a_namespace_are_found_where_they_are_kept() {
        let temp = tempfile::tempdir().expect("temp dir");
        let folder = temp.path().join("n");
        fs::create_dir(&folder).expect("mkdir");
        for (name, text) in [
            ("10.0.0.7", "mine\r\neth0"),
            ("10.0.0.8", "mine-too\r\neth0"),
            ("fd00::7", "mine"),
            ("last_reserved_ip.0", "mine"),
            ("lock", "mine"),
        ] {
            fs::write(folder.join(name), text).expect("write");
        }
        let network = |kind: &str| {
            let text = format!(
                r#"{{"name":"n","plugins":[{{"type":"loopback"}},{{"type":"bridge","ipam":{{"type":"{kind}","dataDir":"{}"}}}}]}}"#,
                temp.path().display()
            );
            NetworkConfig::parse(text.as_bytes()).expect("valid")
        };
        let expected = ["10.0.0.7/32", "fd00::7/128"];
        let shown = |kind: &str, id: &str| -> Vec<String> {
            addresses(&network(kind), id).iter().map(|(address, length)| format!("{address}/{length}")).collect()
        };
        assert_eq!(
            (shown("host-local", "mine"), shown("buildkit-cni-host-local", "mine")),
            (expected.map(Into::into).into(), expected.map(Into::into).into())
        );
        assert_eq!((shown("host-local", "other").len(), shown("dhcp", "mine").len()), (0, 0));
    }
}
