//! EXPOSE: ports of `[ip:][hostport:]port[-end][/proto]`.

use std::net::IpAddr;
use std::str::FromStr;

use super::dispatch::At;
use super::error::Problem;
use super::image::Layer;
use super::lowering::Lowering;
use crate::dockerfile::goquote::{plain_list, quote};
use crate::dockerfile::lint::Rule;

/// A port specification, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Spec<'t> {
    ip: String,
    host_port: &'t str,
    port: &'t str,
    proto: &'t str,
}

const PORT_HINT: &str = "write a port from 1 to 65535 or a range: `EXPOSE 8080`, `EXPOSE 8000-8010/udp`";

impl Lowering<'_> {
    pub(crate) fn dispatch_expose(&mut self, at: At<'_>, ports: &[String]) -> Result<(), Problem> {
        let mut words = Vec::new();
        for port in ports {
            let env = &self.stages.get(at.stage).state.env;
            words.extend(self.lexer.words(port, env).map_err(Problem::from)?.0);
        }
        let mut exposed = Vec::new();
        for word in &words {
            let explain = |problem: Problem| problem.marking(word.as_str()).hinted(PORT_HINT);
            let spec = split(word).map_err(explain)?;
            self.check_port(at, word, &spec);
            exposed.extend(expand_range(&spec).map_err(explain)?);
        }
        let record = format!("EXPOSE {}", plain_list(&exposed));
        self.stages.get_mut(at.stage).image.config.exposed_ports.extend(exposed);
        self.record(at.stage, record, Layer::None);
        Ok(())
    }

    fn check_port(&mut self, at: At<'_>, word: &str, spec: &Spec<'_>) {
        if spec.proto != spec.proto.to_lowercase() {
            let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
            self.lint.instruction(Rule::ExposeProtoCasing, at.source, message);
        }
        if !spec.ip.is_empty() || !spec.host_port.is_empty() {
            let message =
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'");
            self.lint.instruction(Rule::ExposeInvalidFormat, at.source, message);
        }
    }
}

fn split(text: &str) -> Result<Spec<'_>, Problem> {
    let parts: Vec<&str> = text.split(':').collect();
    let (ip, host_port, last) = match parts.as_slice() {
        [port] => (String::new(), "", *port),
        [host_port, port] => (String::new(), *host_port, *port),
        [ip @ .., host_port, port] => (ip.join(":"), *host_port, *port),
        [] => (String::new(), "", ""),
    };
    let (port, proto) = last.split_once('/').unwrap_or((last, ""));
    let invalid = |what: String| Problem::new(format!("invalid port: {}: {what}", quote(text)));
    if port.is_empty() {
        return Err(invalid("no port specified".into()));
    }
    let proto = match proto.to_lowercase().as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => proto,
        _ => return Err(invalid(format!("invalid proto: {proto}"))),
    };
    Ok(Spec { ip, host_port, port, proto })
}

fn expand_range(spec: &Spec<'_>) -> Result<Vec<String>, Problem> {
    let ip = spec.ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(&spec.ip);
    if !ip.is_empty() && IpAddr::from_str(ip).is_err() {
        return Err(Problem::new(format!("invalid IP address: {ip}")));
    }
    let (port, host) = (spec.port, spec.host_port);
    let (first, last) = range(port).ok_or_else(|| Problem::new(format!("invalid containerPort: {port}")))?;
    if !host.is_empty() {
        let (from, to) = range(host).ok_or_else(|| Problem::new(format!("invalid hostPort: {host}")))?;
        if last - first != to - from && last != first {
            let message = format!("invalid ranges specified for container and host Ports: {port} and {host}");
            return Err(Problem::new(message));
        }
    }
    let proto = spec.proto.to_lowercase();
    Ok((first..=last).map(|port| format!("{port}/{proto}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port_number(first)?, port_number(last)?);
    (first <= last).then_some((first, last))
}

/// A number as Go reads it, sign included.
fn port_number(text: &str) -> Option<u16> {
    text.parse::<i64>().ok().and_then(|n| u16::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Result<Vec<String>, String> {
        split(text).and_then(|spec| expand_range(&spec)).map_err(|p| p.message)
    }

    #[test]
    fn reads_ports() {
        for (text, expected) in [
            ("80", vec!["80/tcp"]),
            ("80-82/UDP", vec!["80/udp", "81/udp", "82/udp"]),
            ("127.0.0.1:8080:80/sctp", vec!["80/sctp"]),
            ("[::1]:1:2", vec!["2/tcp"]),
            ("1-9:5", vec!["5/tcp"]),
        ] {
            assert_eq!(ports(text).expect(text), expected);
        }
    }

    #[test]
    fn refuses() {
        for (text, message) in [
            ("foo", "invalid containerPort: foo"),
            ("90-80", "invalid containerPort: 90-80"),
            ("70000", "invalid containerPort: 70000"),
            ("80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
            (":/tcp", "invalid port: \":/tcp\": no port specified"),
            ("host:1:1", "invalid IP address: host"),
            ("x:1", "invalid hostPort: x"),
            ("1-2:5-9", "invalid ranges specified for container and host Ports: 5-9 and 1-2"),
        ] {
            assert_eq!(ports(text).expect_err(text), message);
        }
    }
}
