//! What plugins answer: the result of ADD, and errors.
//!
//! In: JSON of any version of the CNI specification. Out: [`Reply`], and messages. What of a result the build itself uses,
//! resolvers and addresses, is checked; the rest goes to the next plugin as it stands.

use std::net::IpAddr;

use serde_json::Value;

/// More resolvers, domains or addresses than a network has.
const MAX_ENTRIES: usize = 256;
/// How much of what a plugin says is told.
const MAX_MESSAGE: usize = 4 << 10;

/// What a network says about resolving names; what is empty is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of resolvers.
    pub nameservers: Vec<String>,
    /// Domains that are searched.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

/// The result of ADD.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    /// As it is, but for a version that is missing.
    pub(super) value: Value,
    pub(super) dns: Dns,
    /// Addresses that were given out, with the lengths of their networks.
    pub(super) addresses: Vec<(IpAddr, u8)>,
}

/// Reads a result.
pub(super) fn parse(text: &[u8], version: &str) -> Result<Reply, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    of_value(value, version)
}

/// Reads a result that was read before.
pub(super) fn of_value(mut value: Value, version: &str) -> Result<Reply, String> {
    let json = value.as_object_mut().ok_or("it is no JSON object")?;
    json.entry("cniVersion").or_insert_with(|| version.into());
    let dns = json.get("dns").map(dns).transpose()?.unwrap_or_default();
    let listed = json.get("ips").and_then(Value::as_array).into_iter().flatten().map(|ip| &ip["address"]);
    // Versions up to 0.2.0 know one address of each kind.
    let single = ["ip4", "ip6"].into_iter().filter_map(|key| json.get(key)).map(|ip| &ip["ip"]);
    let addresses = listed.chain(single).take(MAX_ENTRIES).map(address).collect::<Result<_, _>>()?;
    Ok(Reply { value, dns, addresses })
}

fn address(value: &Value) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("{value} is no address with the length of its network");
    let (address, length) = value.as_str().and_then(|text| text.split_once('/')).ok_or_else(wrong)?;
    let (address, length): (IpAddr, u8) = (address.parse().map_err(|_| wrong())?, length.parse().map_err(|_| wrong())?);
    if length > if address.is_ipv4() { 32 } else { 128 } { Err(wrong()) } else { Ok((address, length)) }
}

fn dns(value: &Value) -> Result<Dns, String> {
    let nameservers = words(value, "nameservers")?;
    if let Some(wrong) = nameservers.iter().find(|text| !is_nameserver(text)) {
        return Err(format!("the nameserver {wrong:?} is no address"));
    }
    let mut search = words(value, "search")?;
    if search.is_empty() {
        search = value
            .get("domain")
            .filter(|domain| domain.as_str() != Some(""))
            .map(word)
            .transpose()?
            .into_iter()
            .collect();
    }
    Ok(Dns { nameservers, search, options: words(value, "options")? })
}

/// Returns whether a text is an address, if need be with the device it is reached by.
pub(super) fn is_nameserver(text: &str) -> bool {
    text.split('%').next().is_some_and(|address| address.parse::<IpAddr>().is_ok())
}

fn words(value: &Value, key: &str) -> Result<Vec<String>, String> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MAX_ENTRIES => list.iter().map(word).collect(),
        Some(_) => Err(format!("dns.{key} is no list of at most {MAX_ENTRIES} texts")),
    }
}

/// A word of `/etc/resolv.conf`.
fn word(value: &Value) -> Result<String, String> {
    let plain = |text: &&str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    value.as_str().filter(plain).map(str::to_owned).ok_or_else(|| format!("{value} is no word for a resolver"))
}

/// Returns what a plugin that failed says: its error, or else what it wrote to standard error.
pub(super) fn failure(stdout: &[u8], stderr: &[u8], status: &str) -> String {
    let json: Option<Value> = serde_json::from_slice(stdout).ok();
    let part = |key: &str| json.as_ref().and_then(|json| json[key].as_str()).filter(|text| !text.is_empty());
    let message = match (part("msg"), part("details")) {
        (Some(message), Some(details)) => format!("{message}; {details}"),
        (Some(message), None) => message.to_owned(),
        (None, _) => lines(stderr).or_else(|| lines(stdout)).unwrap_or_else(|| format!("it ended with {status}")),
    };
    let code = json.as_ref().and_then(|json| json["code"].as_u64());
    let message = cut(&message);
    code.map_or_else(|| message.clone(), |code| format!("{message} (code {code})"))
}

fn lines(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(MAX_MESSAGE)..]);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_versions_are_read() {
        let dns = |servers: &[&str], search: &[&str], options: &[&str]| Dns {
            nameservers: servers.iter().map(|s| (*s).to_owned()).collect(),
            search: search.iter().map(|s| (*s).to_owned()).collect(),
            options: options.iter().map(|s| (*s).to_owned()).collect(),
        };
        for (text, expected, addresses) in [
            ("{}", dns(&[], &[], &[]), vec![]),
            (
                r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/16","gateway":"10.1.0.1"},{"address":"fd00::2/64"}],"dns":{"nameservers":["10.1.0.1","fe80::1%eth0"],"search":["a.example"],"options":["ndots:2"]}}"#,
                dns(&["10.1.0.1", "fe80::1%eth0"], &["a.example"], &["ndots:2"]),
                vec!["10.1.0.2/16", "fd00::2/64"],
            ),
            (
                r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.2/16"},"ip6":{"ip":"fd00::2/64"},"dns":{"domain":"b.example"}}"#,
                dns(&[], &["b.example"], &[]),
                vec!["10.1.0.2/16", "fd00::2/64"],
            ),
            (r#"{"dns":{"nameservers":null,"domain":""}}"#, dns(&[], &[], &[]), vec![]),
        ] {
            let reply = parse(text.as_bytes(), "0.4.0").expect(text);
            let found: Vec<String> =
                reply.addresses.iter().map(|(address, length)| format!("{address}/{length}")).collect();
            assert_eq!((&reply.dns, found), (&expected, addresses.into_iter().map(str::to_owned).collect()), "{text}");
            assert!(reply.value["cniVersion"].is_string(), "{text}");
        }
    }

    #[test]
    fn what_is_no_result_is_told() {
        for (text, reason) in [
            ("", "EOF"),
            ("7", "no JSON object"),
            (r#"{"ips":[{"address":"10.0.0.1"}]}"#, "no address"),
            (r#"{"ips":[{}]}"#, "no address"),
            (r#"{"ips":[{"address":"10.0.0.1/33"}]}"#, "no address"),
            (r#"{"dns":{"nameservers":["resolver"]}}"#, "is no address"),
            (r#"{"dns":{"search":["a b"]}}"#, "no word"),
            (r#"{"dns":{"options":["x\nnameserver 1.1.1.1"]}}"#, "no word"),
            (r#"{"dns":{"search":"a"}}"#, "no list"),
        ] {
            let error = parse(text.as_bytes(), "1.0.0").expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn failures_say_what_the_plugin_says() {
        for (stdout, stderr, expected) in [
            (
                r#"{"code":11,"msg":"no more addresses","details":"in 10.0.0.0/30"}"#,
                "",
                "no more addresses; in 10.0.0.0/30 (code 11)",
            ),
            (r#"{"code":7,"msg":"bad"}"#, "noise", "bad (code 7)"),
            ("", "one\n\n two\n", "one; two"),
            ("trouble", "", "trouble"),
            ("", "", "it ended with exit status: 1"),
        ] {
            assert_eq!(failure(stdout.as_bytes(), stderr.as_bytes(), "exit status: 1"), expected);
        }
        assert!(failure(&[b'x'; 1 << 20], b"", "").len() <= MAX_MESSAGE);
    }
}
