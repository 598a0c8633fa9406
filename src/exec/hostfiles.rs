//! `/etc/hosts` and `/etc/resolv.conf` of a step.
//!
//! In: names, and the host's resolver configuration. Out: text. With the host's network its configuration is kept as it is;
//! with a network of its own, resolvers on the host's loopback cannot be reached and are replaced.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::{DEFAULT_HOSTNAME, ExecOptions};

/// More than any resolver reads.
const MAX_RESOLV_CONF: u64 = 1 << 20;

/// What BuildKit falls back to: public resolvers.
const PUBLIC_RESOLVERS: [&str; 4] = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];

/// The stub resolver of systemd.
const SYSTEMD_STUB: &str = "127.0.0.53";

/// Returns the text of `/etc/hosts`.
pub(super) fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let hostname = if hostname.is_empty() { DEFAULT_HOSTNAME } else { hostname };
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// Reads the host's configuration as a step with the host's network sees it.
pub(super) fn host_resolv_conf(options: &ExecOptions) -> String {
    let text = read(&options.resolv_conf);
    if nameservers(&text).is_empty() { with_public_resolvers(&text) } else { text }
}

/// Reads the host's configuration as a step with a network of its own can use it.
pub(super) fn isolated_resolv_conf(options: &ExecOptions) -> String {
    let mut text = read(&options.resolv_conf);
    if nameservers(&text) == [SYSTEMD_STUB] {
        text = read(&options.resolv_conf_upstream);
    }
    without_loopback(&text)
}

/// What is missing or no text has no resolver in it.
fn read(path: &Path) -> String {
    let bytes = std::fs::File::open(path).and_then(|file| crate::sys::fds::read_at_most(&file, MAX_RESOLV_CONF));
    bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

fn nameserver(line: &str) -> Option<&str> {
    let mut words = line.split_ascii_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

fn nameservers(text: &str) -> Vec<&str> {
    text.lines().filter_map(nameserver).collect()
}

fn is_loopback(address: &str) -> bool {
    let bare = address.split('%').next().unwrap_or(address);
    bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn without_loopback(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines().filter(|line| !nameserver(line).is_some_and(is_loopback)) {
        kept.push_str(line);
        kept.push('\n');
    }
    if nameservers(&kept).is_empty() { with_public_resolvers(&kept) } else { kept }
}

fn with_public_resolvers(text: &str) -> String {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for address in PUBLIC_RESOLVERS {
        let _ = writeln!(text, "nameserver {address}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_names_the_sandbox_and_the_extra_hosts() {
        let text = hosts("", &[("a.example".into(), "10.0.0.1".into())]);
        let expected =
            "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\ta.example\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn loopback_resolvers_are_replaced() {
        for (text, expected) in [
            ("nameserver 127.0.0.1\nnameserver 1.1.1.1\nsearch x\n", "nameserver 1.1.1.1\nsearch x\n"),
            ("nameserver ::1\nnameserver fe80::1%eth0\n", "nameserver fe80::1%eth0\n"),
        ] {
            assert_eq!(without_loopback(text), expected);
        }
        assert!(without_loopback("nameserver 127.0.0.11\n").starts_with("nameserver 8.8.8.8\n"));
        assert!(without_loopback("").contains("nameserver 8.8.4.4\n"));
    }

    #[test]
    fn the_stub_of_systemd_is_looked_through_only_without_the_hosts_network() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (stub, upstream) = (temp.path().join("stub"), temp.path().join("upstream"));
        std::fs::write(&stub, "nameserver 127.0.0.53\noptions edns0\n").expect("write");
        std::fs::write(&upstream, "nameserver 192.0.2.1\n").expect("write");
        let options = ExecOptions { resolv_conf: stub, resolv_conf_upstream: upstream, ..ExecOptions::default() };
        assert_eq!(host_resolv_conf(&options), "nameserver 127.0.0.53\noptions edns0\n");
        assert_eq!(isolated_resolv_conf(&options), "nameserver 192.0.2.1\n");
    }
}
