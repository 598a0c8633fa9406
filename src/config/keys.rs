//! Every key of `buildkitd.toml`, those of its old spellings too.

use super::gc;
use super::key::{Checked, Key, List, Named, Part, Read, Unread};
use super::settings::{
    CdiSettings, DnsSettings, FrontendSettings, HistorySettings, KeyPair, LogFormat, LogLevel, LogSettings,
    NetworkMode, OciSettings, RegistryHost, Seccomp, Settings, Snapshotter, SystemSettings,
};
use crate::diag::suggest;

const NO_DAEMON: &str = "there is no daemon";
const NO_CONTAINERD: &str = "steps run without containerd";
const NO_CACHE_SIGNATURES: &str = "caches of GitHub Actions are not signed in this version of rbuild";

/// The file.
pub(super) static FILE: &[Key<Settings>] = &[
    Key::new("root", Read::Text(|s, text| s.root = some(text).map(Into::into))),
    Key::new("debug", Read::Bool(|s, on| s.debug = on)),
    Key::new("trace", Read::Bool(|s, on| s.trace = on)),
    Key::new("insecure-entitlements", Read::Words(entitlements)),
    Key::new("proxyNetwork", Read::Bool(|s, on| s.proxy_network = on)),
    Key::quiet(
        "provenanceEnvDir",
        Read::Text(|s, text| s.provenance_env_dir = some(text).map(Into::into)),
        "this version of rbuild writes no provenance",
    ),
    Key::new("log", Read::Inner(&Part { keys: LOG, of: |s: &mut Settings| &mut s.log })),
    Key::quiet("grpc", Read::Inner(&Checked { keys: GRPC }), NO_DAEMON),
    Key::quiet("otel", Read::Inner(&Checked { keys: OTEL }), NO_DAEMON),
    Key::new("cdi", Read::Inner(&Part { keys: CDI, of: |s: &mut Settings| &mut s.cdi })),
    Key::new("dns", Read::Inner(&Part { keys: DNS, of: |s: &mut Settings| s.dns.get_or_insert_default() })),
    Key::new("history", Read::Inner(&Part { keys: HISTORY, of: |s: &mut Settings| s.history.get_or_insert_default() })),
    Key::new("worker", Read::Table(WORKER)),
    Key::new(
        "registry",
        Read::Inner(&Named { keys: REGISTRY, of: |s: &mut Settings, host| s.registries.entry(host).or_default() }),
    ),
    Key::new("frontend", Read::Table(FRONTEND)),
    Key::new("system", Read::Inner(&Part { keys: SYSTEM, of: |s: &mut Settings| &mut s.system })),
    Key::new("cache", Read::Table(CACHE)),
    // As the documentation of BuildKit spells it.
    Key::quiet("ghacache", Read::Inner(&Checked { keys: GHA }), NO_CACHE_SIGNATURES),
];

static LOG: &[Key<LogSettings>] = &[
    Key::new("format", Read::Word(|log, word| one_of(word, FORMATS).map(|format| log.format = format))),
    Key::new("level", Read::Word(|log, word| one_of(word, LEVELS).map(|level| log.level = level))),
];

const FORMATS: &[(&str, Option<LogFormat>)] =
    &[("text", Some(LogFormat::Text)), ("json", Some(LogFormat::Json)), ("", None)];

/// Those that logrus knows.
const LEVELS: &[(&str, Option<LogLevel>)] = &[
    ("error", Some(LogLevel::Error)),
    ("warn", Some(LogLevel::Warn)),
    ("info", Some(LogLevel::Info)),
    ("debug", Some(LogLevel::Debug)),
    ("trace", Some(LogLevel::Trace)),
    ("warning", Some(LogLevel::Warn)),
    ("fatal", Some(LogLevel::Error)),
    ("panic", Some(LogLevel::Error)),
    ("", None),
];

static GRPC: &[Key<Unread>] = &[
    Key::new("address", TEXTS),
    Key::new("debugAddress", TEXT),
    Key::new("uid", NUMBER),
    Key::new("gid", NUMBER),
    Key::new("securityDescriptor", TEXT),
    Key::new("tls", Read::Table(&[Key::new("cert", TEXT), Key::new("key", TEXT), Key::new("ca", TEXT)])),
];

static OTEL: &[Key<Unread>] = &[Key::new("socketPath", TEXT)];

static CDI: &[Key<CdiSettings>] = &[
    Key::new("disabled", Read::Bool(|cdi, on| cdi.disabled = on)),
    Key::new("specDirs", Read::Texts(|cdi, dirs| cdi.dirs = dirs.into_iter().map(Into::into).collect())),
    Key::new("autoAllowed", Read::Texts(|cdi, devices| cdi.auto_allowed = devices)),
];

static DNS: &[Key<DnsSettings>] = &[
    Key::new("nameservers", Read::Texts(|dns, list| dns.nameservers = list)),
    Key::new("options", Read::Texts(|dns, list| dns.options = list)),
    Key::new("searchDomains", Read::Texts(|dns, list| dns.search_domains = list)),
];

static HISTORY: &[Key<HistorySettings>] = &[
    Key::new("maxAge", Read::Seconds(|history, seconds| history.max_age = seconds)),
    Key::new("maxEntries", Read::Number(|history, number| natural(number).map(|number| history.max_entries = number))),
];

static SYSTEM: &[Key<SystemSettings>] = &[
    Key::quiet("platformsCacheMaxAge", Read::Seconds(|_, _| ()), "the platforms are found out in each build"),
    Key::new(
        "maxRegistryConcurrency",
        Read::Number(|system, number| {
            let number = usize::try_from(number).ok().filter(|number| *number > 0);
            system.max_registry_concurrency = Some(number.ok_or("it must be greater than zero")?);
            Ok(())
        }),
    ),
];

static REGISTRY: &[Key<RegistryHost>] = &[
    Key::new("mirrors", Read::Texts(|host, list| host.mirrors = list)),
    Key::new("http", Read::Bool(|host, on| host.http = Some(on))),
    Key::new("insecure", Read::Bool(|host, on| host.insecure = Some(on))),
    Key::new("ca", Read::Texts(|host, files| host.authorities = files.into_iter().map(Into::into).collect())),
    Key::new(
        "keypair",
        Read::Inner(&List { keys: KEYPAIR, put: |host: &mut RegistryHost, pairs| host.keypairs = pairs }),
    ),
    Key::new("tlsconfigdir", Read::Texts(|host, dirs| host.tls_dirs = dirs.into_iter().map(Into::into).collect())),
    Key::new("trusted-realms", Read::Texts(|host, realms| host.trusted_realms = realms)),
];

static KEYPAIR: &[Key<KeyPair>] = &[
    Key::new("key", Read::Text(|pair, file| pair.key = file.into())),
    Key::new("cert", Read::Text(|pair, file| pair.certificate = file.into())),
];

static FRONTEND: &[Key<Settings>] = &[
    Key::new("dockerfile.v0", Read::Inner(&Part { keys: DOCKERFILE, of: |s: &mut Settings| &mut s.dockerfile })),
    Key::quiet(
        "gateway.v0",
        Read::Inner(&Part { keys: GATEWAY, of: |s: &mut Settings| &mut s.gateway }),
        "no image is ever run as a frontend",
    ),
];

static DOCKERFILE: &[Key<FrontendSettings>] =
    &[Key::new("enabled", Read::Bool(|frontend, on| frontend.enabled = Some(on)))];

static GATEWAY: &[Key<FrontendSettings>] = &[
    Key::new("enabled", Read::Bool(|frontend, on| frontend.enabled = Some(on))),
    Key::new("allowedRepositories", Read::Texts(|frontend, list| frontend.allowed_repositories = list)),
];

static CACHE: &[Key<Settings>] = &[Key::quiet("gha", Read::Inner(&Checked { keys: GHA }), NO_CACHE_SIGNATURES)];

static GHA: &[Key<Unread>] = &[
    Key::new("sign", Read::Table(&[Key::new("command", TEXTS), Key::new("cmd", TEXT)])),
    Key::new("verify", Read::Table(&[Key::new("required", BOOL), Key::new("policy", Read::Table(GHA_POLICY))])),
];

static GHA_POLICY: &[Key<Unread>] = &[
    Key::new("timestampThreshold", NUMBER),
    Key::new("tlogThreshold", NUMBER),
    Key::new("certificateIssuer", TEXT),
    Key::new("subjectAlternativeName", TEXT),
    Key::new("issuer", TEXT),
    Key::new("githubWorkflowTrigger", TEXT),
    Key::new("githubWorkflowSHA", TEXT),
    Key::new("githubWorkflowName", TEXT),
    Key::new("githubWorkflowRepository", TEXT),
    Key::new("githubWorkflowRef", TEXT),
    Key::new("buildSignerURI", TEXT),
    Key::new("buildSignerDigest", TEXT),
    Key::new("runnerEnvironment", TEXT),
    Key::new("sourceRepositoryURI", TEXT),
    Key::new("sourceRepositoryDigest", TEXT),
    Key::new("sourceRepositoryRef", TEXT),
    Key::new("sourceRepositoryIdentifier", TEXT),
    Key::new("sourceRepositoryOwnerURI", TEXT),
    Key::new("sourceRepositoryOwnerIdentifier", TEXT),
    Key::new("buildConfigURI", TEXT),
    Key::new("buildConfigDigest", TEXT),
    Key::new("buildTrigger", TEXT),
    Key::new("runInvocationURI", TEXT),
    Key::new("sourceRepositoryVisibilityAtSigning", TEXT),
];

static WORKER: &[Key<Settings>] = &[
    Key::new("oci", Read::Inner(&Part { keys: OCI, of: |s: &mut Settings| &mut s.oci })),
    Key::quiet("containerd", Read::Inner(&Checked { keys: CONTAINERD }), NO_CONTAINERD),
];

static OCI: &[Key<OciSettings>] = &[
    Key::new("enabled", Read::Bool(|oci, on| oci.enabled = Some(on))),
    Key::quiet("labels", Read::Pairs(|oci, labels| oci.labels = labels), "there is one worker, so that none is chosen"),
    Key::new("platforms", Read::Words(platforms)),
    Key::new("snapshotter", Read::Word(|oci, word| one_of(word, SNAPSHOTTERS).map(|kind| oci.snapshotter = kind))),
    Key::quiet("rootless", Read::Bool(|oci, on| oci.rootless = on), "who starts rbuild decides"),
    Key::new("noProcessSandbox", Read::Bool(|oci, on| oci.no_process_sandbox = on)),
    Key::new("gc", Read::Bool(|oci, on| oci.gc.off = !on)),
    Key::new("gckeepstorage", Read::Space(|oci, space| oci.gc.keep_storage = space)),
    Key::new("reservedSpace", Read::Space(|oci, space| oci.gc.limits.reserved = space)),
    Key::new("maxUsedSpace", Read::Space(|oci, space| oci.gc.limits.max_used = space)),
    Key::new("minFreeSpace", Read::Space(|oci, space| oci.gc.limits.min_free = space)),
    Key::new(
        "gcpolicy",
        Read::Inner(&List { keys: gc::POLICY, put: |oci: &mut OciSettings, list| oci.gc.policies = list }),
    ),
    Key::new("networkMode", Read::Word(|oci, word| one_of(word, NETWORKS).map(|mode| oci.network.mode = mode))),
    Key::new("cniConfigPath", Read::Text(|oci, text| oci.network.cni_config = some(text).map(Into::into))),
    Key::new("cniBinaryPath", Read::Text(|oci, text| oci.network.cni_plugins = some(text).map(Into::into))),
    Key::new("cniPoolSize", Read::Number(|oci, number| natural(number).map(|number| oci.network.cni_pool = number))),
    Key::new("bridgeName", Read::Text(|oci, text| oci.network.bridge_name = some(text))),
    Key::new("bridgeSubnet", Read::Text(|oci, text| oci.network.bridge_subnet = some(text))),
    Key::nothing("userRemapUnsupported", Read::Text(|_, _| ()), "BuildKit does not support it either"),
    Key::new("binary", Read::Text(|oci, text| oci.binary = some(text))),
    Key::nothing("proxySnapshotterPath", Read::Text(|_, _| ()), "layers are kept by rbuild itself"),
    Key::new("defaultCgroupParent", Read::Text(|oci, text| oci.cgroup_parent = some(text))),
    Key::quiet("stargzSnapshotter", Read::Anything, "layers are kept by rbuild itself"),
    Key::new("apparmor-profile", Read::Text(|oci, text| oci.apparmor_profile = some(text))),
    // BuildKit has no such key: it filters where the kernel can.
    Key::new("seccomp", Read::Word(|oci, word| one_of(word, FILTERS).map(|filter| oci.seccomp = filter))),
    Key::new("selinux", Read::Bool(|oci, on| oci.selinux = on)),
    Key::new(
        "max-parallelism",
        // BuildKit takes 0 and less as no limit.
        Read::Number(|oci, number| {
            oci.max_parallelism = usize::try_from(number).ok().filter(|number| *number > 0);
            Ok(())
        }),
    ),
];

const FILTERS: &[(&str, Seccomp)] =
    &[("default", Seccomp::Default), ("unconfined", Seccomp::Unconfined), ("", Seccomp::Default)];

const NETWORKS: &[(&str, NetworkMode)] = &[
    ("auto", NetworkMode::Auto),
    ("host", NetworkMode::Host),
    ("cni", NetworkMode::Cni),
    ("bridge", NetworkMode::Bridge),
    ("none", NetworkMode::None),
    ("", NetworkMode::Auto),
];

const SNAPSHOTTERS: &[(&str, Snapshotter)] = &[
    ("auto", Snapshotter::Auto),
    ("overlayfs", Snapshotter::Overlayfs),
    ("fuse-overlayfs", Snapshotter::FuseOverlayfs),
    ("native", Snapshotter::Native),
    // Layers are fetched when they are needed anyway.
    ("stargz", Snapshotter::Auto),
    ("", Snapshotter::Auto),
];

static CONTAINERD: &[Key<Unread>] = &[
    Key::new("address", TEXT),
    Key::new("enabled", BOOL),
    Key::new("labels", Read::Pairs(|_, _| ())),
    Key::new("platforms", TEXTS),
    Key::new("namespace", TEXT),
    Key::new(
        "runtime",
        Read::Table(&[Key::new("name", TEXT), Key::new("path", TEXT), Key::new("options", Read::Anything)]),
    ),
    Key::new("gc", BOOL),
    Key::new("gckeepstorage", SPACE),
    Key::new("reservedSpace", SPACE),
    Key::new("maxUsedSpace", SPACE),
    Key::new("minFreeSpace", SPACE),
    Key::new("gcpolicy", Read::Inner(&List { keys: CONTAINERD_POLICY, put: |_: &mut Unread, _: Vec<Unread>| () })),
    Key::new("networkMode", TEXT),
    Key::new("cniConfigPath", TEXT),
    Key::new("cniBinaryPath", TEXT),
    Key::new("cniPoolSize", NUMBER),
    Key::new("bridgeName", TEXT),
    Key::new("bridgeSubnet", TEXT),
    Key::new("snapshotter", TEXT),
    Key::new("apparmor-profile", TEXT),
    Key::new("selinux", BOOL),
    Key::new("max-parallelism", NUMBER),
    Key::new("defaultCgroupParent", TEXT),
    Key::new("rootless", BOOL),
];

static CONTAINERD_POLICY: &[Key<Unread>] = &[
    Key::new("all", BOOL),
    Key::new("filters", TEXTS),
    Key::new("keepDuration", Read::Seconds(|_, _| ())),
    Key::new("keepBytes", SPACE),
    Key::new("reservedSpace", SPACE),
    Key::new("maxUsedSpace", SPACE),
    Key::new("minFreeSpace", SPACE),
];

const BOOL: Read<Unread> = Read::Bool(|_, _| ());
const TEXT: Read<Unread> = Read::Text(|_, _| ());
const TEXTS: Read<Unread> = Read::Texts(|_, _| ());
const NUMBER: Read<Unread> = Read::Number(|_, _| Ok(()));
const SPACE: Read<Unread> = Read::Space(|_, _| ());

/// BuildKit takes an empty text as none.
fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn natural<N: TryFrom<i64>>(number: i64) -> Result<N, String> {
    N::try_from(number).map_err(|_| "it must not be negative".into())
}

fn one_of<V: Copy>(word: &str, known: &[(&str, V)]) -> Result<V, String> {
    if let Some((_, value)) = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
        return Ok(*value);
    }
    let names = known.iter().map(|(name, _)| *name).filter(|name| !name.is_empty());
    match suggest(word, names.clone()) {
        Some(near) => Err(format!("unknown value {word:?}, did you mean {near:?}?")),
        None => Err(format!("unknown value {word:?}, it is one of {}", names.collect::<Vec<_>>().join(", "))),
    }
}

fn entitlements(settings: &mut Settings, list: Vec<String>) -> Result<(), String> {
    const KNOWN: &[(&str, ())] = &[("network.host", ()), ("security.insecure", ()), ("device", ())];
    list.iter().try_for_each(|name| one_of(name, KNOWN))?;
    settings.entitlements = Some(list);
    Ok(())
}

fn platforms(oci: &mut OciSettings, list: Vec<String>) -> Result<(), String> {
    let parsed: Result<_, _> = list.iter().map(|text| text.parse()).collect();
    oci.platforms = parsed.map_err(|error: crate::image::platform::PlatformError| crate::diag::chain(&error))?;
    Ok(())
}
