//! `/etc/hosts` and `/etc/resolv.conf` of a step.
//!
//! In: names, and what says how names are resolved: `[dns]` of the settings, else the network of the step, else the host. Out:
//! text. With the host's network its configuration is kept as it is; with a network of its own, resolvers on the host's loopback
//! cannot be reached and are replaced.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::{DEFAULT_HOSTNAME, ExecError, ExecOptions};
use crate::cni::Dns;

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
    let text = replaced(&read(&options.resolv_conf), &options.dns);
    if nameservers(&text).is_empty() { with_public_resolvers(&text) } else { text }
}

/// Reads the host's configuration as a step with a network of its own can use it, which may say itself how names are resolved.
pub(super) fn isolated_resolv_conf(options: &ExecOptions, network: &Dns) -> String {
    let mut text = read(&options.resolv_conf);
    if nameservers(&text) == [SYSTEMD_STUB] {
        text = read(&options.resolv_conf_upstream);
    }
    let chosen = |own: &[String], network: &[String]| if own.is_empty() { network } else { own }.to_vec();
    let dns = Dns {
        nameservers: chosen(&options.dns.nameservers, &network.nameservers),
        search: chosen(&options.dns.search, &network.search),
        options: chosen(&options.dns.options, &network.options),
    };
    let text = replaced(&text, &dns);
    // Resolvers that were named on purpose are believed to be within reach.
    if dns.nameservers.is_empty() { without_loopback(&text) } else { text }
}

/// Says what cannot stand in `/etc/resolv.conf`.
pub(super) fn check(dns: &Dns) -> Result<(), ExecError> {
    let wrong = |key, value: &String, reason| Err(ExecError::Dns { key, value: value.clone(), reason });
    if let Some(value) = dns.nameservers.iter().find(|text| !text.split('%').next().is_some_and(is_address)) {
        return wrong("nameservers", value, "no address");
    }
    let no_word = |text: &&String| text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control());
    let words = [("nameservers", &dns.nameservers), ("searchDomains", &dns.search), ("options", &dns.options)];
    let found = words.iter().find_map(|(key, words)| words.iter().find(no_word).map(|word| (*key, word)));
    found.map_or(Ok(()), |(key, word)| wrong(key, word, "no word"))
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Puts what is said elsewhere in place of what the text says about the same.
fn replaced(text: &str, dns: &Dns) -> String {
    let mut lines: Vec<String> = dns.nameservers.iter().map(|address| format!("nameserver {address}")).collect();
    let search: Vec<&str> = dns.search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
    if !search.is_empty() {
        lines.push(format!("search {}", search.join(" ")));
    }
    if !dns.options.is_empty() {
        lines.push(format!("options {}", dns.options.join(" ")));
    }
    let is_replaced = |line: &&str| match line.split_ascii_whitespace().next() {
        Some("nameserver") => !dns.nameservers.is_empty(),
        Some("search" | "domain") => !dns.search.is_empty(),
        Some("options") => !dns.options.is_empty(),
        _ => false,
    };
    if *dns == Dns::default() {
        return text.to_owned();
    }
    lines.extend(text.lines().filter(|line| !is_replaced(line)).map(str::to_owned));
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
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
        assert_eq!(isolated_resolv_conf(&options, &Dns::default()), "nameserver 192.0.2.1\n");
    }

    fn dns(nameservers: &[&str], search: &[&str], options: &[&str]) -> Dns {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Dns { nameservers: owned(nameservers), search: owned(search), options: owned(options) }
    }

    #[test]
    fn settings_come_before_the_network_and_that_before_the_host() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("resolv.conf");
        std::fs::write(
            &path,
            "# host\nnameserver 127.0.0.1\nnameserver 192.0.2.9\ndomain host.example\noptions edns0\n",
        )
        .expect("write");
        for (settings, network, host, isolated) in [
            (
                dns(&[], &[], &[]),
                dns(&["10.0.0.1"], &[], &[]),
                "# host\nnameserver 127.0.0.1\nnameserver 192.0.2.9\ndomain host.example\noptions edns0\n",
                "nameserver 10.0.0.1\n# host\ndomain host.example\noptions edns0\n",
            ),
            (
                dns(&["127.0.0.1"], &["a.example", "."], &[]),
                dns(&["10.0.0.1"], &["n.example"], &["ndots:3"]),
                "nameserver 127.0.0.1\nsearch a.example\n# host\noptions edns0\n",
                "nameserver 127.0.0.1\nsearch a.example\noptions ndots:3\n# host\n",
            ),
            (
                dns(&[], &["."], &["ndots:1", "rotate"]),
                dns(&[], &[], &[]),
                "options ndots:1 rotate\n# host\nnameserver 127.0.0.1\nnameserver 192.0.2.9\n",
                "options ndots:1 rotate\n# host\nnameserver 192.0.2.9\n",
            ),
        ] {
            let options = ExecOptions { resolv_conf: path.clone(), dns: settings, ..ExecOptions::default() };
            assert_eq!(host_resolv_conf(&options), host);
            assert_eq!(isolated_resolv_conf(&options, &network), isolated);
        }
    }

    #[test]
    fn what_is_no_word_for_a_resolver_is_refused() {
        for (settings, reason) in [
            (dns(&["resolver"], &[], &[]), "nameservers of [dns] in buildkitd.toml: \"resolver\" is no address"),
            (
                dns(&["::1%a\nsearch x"], &[], &[]),
                "nameservers of [dns] in buildkitd.toml: \"::1%a\\nsearch x\" is no word",
            ),
            (dns(&[], &["a b"], &[]), "searchDomains of [dns] in buildkitd.toml: \"a b\" is no word"),
            (dns(&[], &[], &[""]), "options of [dns] in buildkitd.toml: \"\" is no word"),
        ] {
            assert_eq!(check(&settings).expect_err(reason).to_string(), reason);
        }
        assert!(check(&dns(&["1.1.1.1", "fe80::1%eth0"], &["a"], &["edns0"])).is_ok());
    }
}
