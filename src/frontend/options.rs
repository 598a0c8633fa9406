//! Frontend options, by the names `buildctl --opt` uses, as typed settings.
//!
//! In: names and values. Out: [`Options`], checked. Unknown names mean nothing here, as other stations read the same map.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use super::bridge::ResolveMode;
use super::error::Problem;
use crate::dockerfile::csv;
use crate::dockerfile::text::parse_bool;
use crate::image::Platform;
use crate::llb::{HostIp, LinuxResources, NetMode, ProxyEnv, Ulimit};

/// The settings of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) target: String,
    pub(crate) filename: String,
    /// Remote main context, if one is given.
    pub(crate) context: Option<String>,
    pub(crate) context_subdir: Option<String>,
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Named contexts; names may end in `::platform`.
    pub(crate) contexts: BTreeMap<String, String>,
    pub(crate) shared_keys: BTreeMap<String, String>,
    pub(crate) local_sessions: BTreeMap<String, String>,
    pub(crate) target_platforms: Vec<Platform>,
    pub(crate) multi_platform: bool,
    pub(crate) resolve_mode: ResolveMode,
    pub(crate) no_cache: NoCache,
    pub(crate) hostname: String,
    pub(crate) extra_hosts: Vec<HostIp>,
    pub(crate) shm_size: i64,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) cgroup_parent: String,
    pub(crate) network: NetMode,
    pub(crate) resources: Option<LinuxResources>,
    pub(crate) cache_namespace: String,
    pub(crate) keep_git_dir: bool,
    pub(crate) proxy: Option<ProxyEnv>,
}

/// Which stages the cache is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum NoCache {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those with these names.
    Stages(Vec<String>),
}

impl NoCache {
    fn parse(value: Option<&String>) -> Self {
        match value.map(String::as_str) {
            None => NoCache::None,
            Some("") => NoCache::All,
            Some(list) => NoCache::Stages(list.split(',').map(str::to_lowercase).collect()),
        }
    }

    /// Tells whether a stage of this name is meant.
    pub(crate) fn applies_to(&self, stage: &str) -> bool {
        match self {
            NoCache::None => false,
            NoCache::All => true,
            NoCache::Stages(names) => names.contains(&stage.to_lowercase()),
        }
    }
}

impl Options {
    /// Reads and checks the options.
    pub(crate) fn parse(raw: &BTreeMap<String, String>) -> Result<Self, Problem> {
        refuse_removed(raw)?;
        let text = |name: &str| raw.get(name).cloned().unwrap_or_default();
        let build_args = with_prefix(raw, "build-arg:");
        let build_arg = |name: &str| build_args.get(name).filter(|v| !v.is_empty());
        let target_platforms = parse_platforms(&text("platform"))?;
        let multi = build_arg("BUILDKIT_MULTI_PLATFORM").cloned().unwrap_or_else(|| text("multi-platform"));
        let context_option = raw.get("contextkey").map_or("context", String::as_str);
        let hosts = parse_hosts(&text("add-hosts")).map_err(|e| wrap("failed to parse additional hosts", &e))?;
        let ulimits = parse_ulimits(&text("ulimit")).map_err(|e| {
            wrap("failed to parse ulimit", &e)
                .hinted(format!("write NAME=SOFT[:HARD], NAME one of {}", ULIMITS.join(", ")))
        })?;
        let resources = parse_resources(raw).map_err(|e| wrap("failed to parse resource limits", &e))?;
        Ok(Self {
            target: text("target"),
            filename: raw.get("filename").cloned().unwrap_or_else(|| "Dockerfile".into()),
            context: raw.get(context_option).cloned(),
            context_subdir: raw.get("contextsubdir").cloned(),
            labels: with_prefix(raw, "label:"),
            contexts: with_prefix(raw, "context:"),
            shared_keys: with_prefix(raw, "sharedkey:localdir:"),
            local_sessions: with_prefix(raw, "local-sessionid:"),
            multi_platform: parse_multi(&multi, target_platforms.len())?,
            target_platforms: once_each(target_platforms),
            resolve_mode: parse_resolve_mode(&text("image-resolve-mode"))?,
            no_cache: NoCache::parse(raw.get("no-cache")),
            hostname: build_arg("BUILDKIT_SANDBOX_HOSTNAME").cloned().unwrap_or_else(|| text("hostname")),
            extra_hosts: hosts,
            shm_size: parse_shm(&text("shm-size"))?,
            ulimits,
            cgroup_parent: text("cgroup-parent"),
            network: parse_network(&text("force-network-mode"))?,
            resources,
            cache_namespace: build_args.get("BUILDKIT_CACHE_MOUNT_NS").cloned().unwrap_or_default(),
            keep_git_dir: build_arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR").and_then(|v| parse_bool(v)) == Some(true),
            proxy: proxy(&build_args),
            build_args,
        })
    }
}

fn wrap(what: &str, cause: &str) -> Problem {
    Problem::usage(format!("{what}: {cause}"))
}

fn refuse_removed(raw: &BTreeMap<String, String>) -> Result<(), Problem> {
    let removed = |what: &str| Problem::usage(format!("support for {what} was removed in BuildKit 0.11"));
    if raw.get("override-copy-image").is_some_and(|v| !v.is_empty()) {
        return Err(removed("\"override-copy-image\""));
    }
    if raw.get("build-arg:BUILDKIT_DISABLE_FILEOP").and_then(|v| parse_bool(v)) == Some(true) {
        return Err(removed("\"BUILDKIT_DISABLE_FILEOP\" build-arg"));
    }
    Ok(())
}

fn with_prefix(raw: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let named = raw.range(prefix.to_owned()..).map_while(|(k, v)| Some((k.strip_prefix(prefix)?, v)));
    named.map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

fn parse_platforms(list: &str) -> Result<Vec<Platform>, Problem> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |text: &str| {
        Platform::from_str(text)
            .map(Platform::normalized)
            .map_err(|e| wrap(&format!("failed to parse target platform {text}"), &e.to_string()))
    };
    list.split(',').map(parse).collect()
}

/// The same platform asked for twice is one image, where it is first asked for.
fn once_each(platforms: Vec<Platform>) -> Vec<Platform> {
    let mut found: Vec<Platform> = Vec::new();
    for platform in platforms {
        if !found.contains(&platform) {
            found.push(platform);
        }
    }
    found
}

fn parse_multi(value: &str, platforms: usize) -> Result<bool, Problem> {
    if value.is_empty() {
        return Ok(platforms > 1);
    }
    match parse_bool(value) {
        None => Err(Problem::usage(format!("invalid boolean value for multi-platform: {value}"))),
        Some(false) if platforms > 1 => {
            Err(Problem::usage("conflicting config: returning multiple target platforms is not allowed"))
        }
        Some(multi) => Ok(multi),
    }
}

fn parse_resolve_mode(value: &str) -> Result<ResolveMode, Problem> {
    match value {
        "" | "default" => Ok(ResolveMode::Default),
        "pull" => Ok(ResolveMode::Pull),
        "local" => Ok(ResolveMode::Local),
        other => Err(Problem::usage(format!("invalid image-resolve-mode: {other}"))
            .hinted("use one of `default`, `pull`, `local`")),
    }
}

fn parse_network(value: &str) -> Result<NetMode, Problem> {
    match value {
        "" | "sandbox" => Ok(NetMode::Unset),
        "host" => Ok(NetMode::Host),
        "none" => Ok(NetMode::None),
        other => Err(Problem::usage(format!("invalid netmode {other}")).hinted("use one of `sandbox`, `host`, `none`")),
    }
}

fn parse_shm(value: &str) -> Result<i64, Problem> {
    if value.is_empty() {
        return Ok(0);
    }
    value.parse().map_err(|_| wrap("failed to parse shm size", &format!("{value:?} is not a number of bytes")))
}

fn parse_hosts(value: &str) -> Result<Vec<HostIp>, String> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let fields = csv::fields(value).map_err(|e| e.to_string())?;
    fields.iter().map(|field| parse_host(field)).collect()
}

fn parse_host(field: &str) -> Result<HostIp, String> {
    let lower = field.to_lowercase();
    let (host, ip) = lower.split_once('=').ok_or_else(|| format!("invalid key-value pair {field}"))?;
    let address = IpAddr::from_str(ip).map_err(|_| format!("failed to parse IP {ip}"))?;
    let address = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    Ok(HostIp { host: host.to_owned(), ip: address.to_string() })
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn parse_ulimits(value: &str) -> Result<Vec<Ulimit>, String> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let fields = csv::fields(value).map_err(|e| e.to_string())?;
    fields.iter().map(|field| parse_ulimit(field)).collect()
}

fn parse_ulimit(field: &str) -> Result<Ulimit, String> {
    let (name, limits) = field.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {field}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| text.parse::<i64>().map_err(|_| format!("invalid ulimit value {text:?} in {field}"));
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

fn parse_resources(raw: &BTreeMap<String, String>) -> Result<Option<LinuxResources>, String> {
    let text = |name: &str| raw.get(name).map_or("", String::as_str);
    let resources = LinuxResources {
        memory: positive("memory", text("memory"))?,
        memory_swap: swap(text("memswap"))?,
        cpu_shares: positive("cpushares", text("cpushares"))?,
        cpu_period: positive("cpuperiod", text("cpuperiod"))?,
        cpu_quota: positive("cpuquota", text("cpuquota"))?,
        cpuset_cpus: cpuset("cpusetcpus", text("cpusetcpus"))?,
        cpuset_mems: cpuset("cpusetmems", text("cpusetmems"))?,
    };
    Ok((resources != LinuxResources::default()).then_some(resources))
}

fn positive<T: FromStr + Default + PartialOrd>(name: &str, value: &str) -> Result<T, String> {
    if value.is_empty() {
        return Ok(T::default());
    }
    let number = value.parse::<T>().map_err(|_| format!("invalid {name} value: {value}: not a number"))?;
    if number <= T::default() {
        return Err(format!("invalid {name} value: {value}: must be > 0"));
    }
    Ok(number)
}

fn swap(value: &str) -> Result<i64, String> {
    match value {
        "" => Ok(0),
        "-1" => Ok(-1),
        _ => positive("memswap", value)
            .map_err(|_| format!("invalid memswap value: {value}: must be -1 (unlimited) or > 0")),
    }
}

/// Processors are numbered below this.
const MAX_CPUS: u32 = 8192;

fn cpuset(name: &str, value: &str) -> Result<String, String> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n < MAX_CPUS);
    let range = |part: &str| match part.split_once('-') {
        None => number(part).is_some(),
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
    };
    if value.is_empty() || value.split(',').all(range) {
        return Ok(value.to_owned());
    }
    Err(format!("invalid {name} value: {value}: expected numbers and ranges such as 0-3,5"))
}

/// Proxy settings need no ARG; in sorted order the lower-case spelling comes last and wins.
fn proxy(args: &BTreeMap<String, String>) -> Option<ProxyEnv> {
    let mut proxy = None;
    for (name, value) in args {
        let found = proxy.clone().unwrap_or_default();
        let value = value.clone();
        proxy = match name.to_lowercase().as_str() {
            "http_proxy" => Some(ProxyEnv { http_proxy: value, ..found }),
            "https_proxy" => Some(ProxyEnv { https_proxy: value, ..found }),
            "ftp_proxy" => Some(ProxyEnv { ftp_proxy: value, ..found }),
            "no_proxy" => Some(ProxyEnv { no_proxy: value, ..found }),
            "all_proxy" => Some(ProxyEnv { all_proxy: value, ..found }),
            _ => continue,
        };
    }
    proxy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Options, Problem> {
        Options::parse(&options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn reads_what_a_run_needs() {
        let options = parse(&[
            ("add-hosts", "DB=10.0.0.5,six=fe80::1"),
            ("ulimit", "nofile=1024:2048,nproc=64"),
            ("build-arg:HTTP_PROXY", "upper"),
            ("build-arg:http_proxy", "lower"),
            ("no-cache", "A,b"),
            ("memswap", "-1"),
        ]);
        let options = options.expect("valid");
        assert_eq!(options.extra_hosts[0], HostIp { host: "db".into(), ip: "10.0.0.5".into() });
        assert_eq!(options.ulimits[1], Ulimit { name: "nproc".into(), soft: 64, hard: 64 });
        assert_eq!(options.proxy.expect("proxy").http_proxy, "lower");
        assert!(options.no_cache.applies_to("a") && !options.no_cache.applies_to(""));
        assert_eq!(options.resources.expect("limits").memory_swap, -1);
    }

    #[test]
    fn refuses() {
        for (name, value, message) in [
            ("memory", "0", "failed to parse resource limits: invalid memory value: 0: must be > 0"),
            ("add-hosts", "x", "failed to parse additional hosts: invalid key-value pair x"),
            ("add-hosts", "x=y", "failed to parse additional hosts: failed to parse IP y"),
            ("force-network-mode", "x", "invalid netmode x"),
            ("image-resolve-mode", "x", "invalid image-resolve-mode: x"),
            ("multi-platform", "x", "invalid boolean value for multi-platform: x"),
            ("ulimit", "x=1", "failed to parse ulimit: invalid ulimit type: x"),
        ] {
            assert_eq!(parse(&[(name, value)]).expect_err(name).message, message);
        }
        assert!(parse(&[("cpusetcpus", "3-1")]).is_err());
        assert!(parse(&[("platform", "linux/amd64,linux/arm64"), ("multi-platform", "0")]).is_err());
    }
}
