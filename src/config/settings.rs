//! The settings, as the stations' users in `driver` and `cli` take them: plain data, a table of `buildkitd.toml` a struct.
//!
//! Invariant: what is not said is none or empty, so that a default is decided where the setting is used.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::GcSettings;
use crate::image::Platform;

/// What `buildkitd.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `root`: the state directory.
    pub root: Option<PathBuf>,
    /// `debug`: whether debug output is asked for; `log.level` comes first.
    pub debug: bool,
    /// `trace`: whether more than debug output is asked for; `log.level` comes first.
    pub trace: bool,
    /// `[log]`.
    pub log: LogSettings,
    /// `insecure-entitlements`: what `--allow` may grant; none where the file does not say.
    pub entitlements: Option<Vec<String>>,
    /// `proxyNetwork`: whether steps reach nothing but what a proxy lets them.
    pub proxy_network: bool,
    /// `provenanceEnvDir`: where files are that become part of provenance.
    pub provenance_env_dir: Option<PathBuf>,
    /// `[dns]`; none where the file has no such table.
    pub dns: Option<DnsSettings>,
    /// `[cdi]`.
    pub cdi: CdiSettings,
    /// `[history]`; none where the file has no such table.
    pub history: Option<HistorySettings>,
    /// `[worker.oci]`.
    pub oci: OciSettings,
    /// `[registry."HOST"]`, by the name that stands in the file.
    pub registries: BTreeMap<String, RegistryHost>,
    /// `[frontend."dockerfile.v0"]`.
    pub dockerfile: FrontendSettings,
    /// `[frontend."gateway.v0"]`.
    pub gateway: FrontendSettings,
    /// `[system]`.
    pub system: SystemSettings,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What failed; `fatal` and `panic` mean the same here.
    Error,
    /// What may be wrong.
    Warn,
    /// What happens.
    Info,
    /// What is done, and why.
    Debug,
    /// Everything.
    Trace,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text.
    Text,
    /// A JSON object.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// `format`.
    pub format: Option<LogFormat>,
    /// `level`.
    pub level: Option<LogLevel>,
}

/// `[dns]`: what steps resolve names with, instead of the host's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsSettings {
    /// `nameservers`; the host's where it is empty.
    pub nameservers: Vec<String>,
    /// `options`; the host's where it is empty.
    pub options: Vec<String>,
    /// `searchDomains`; the host's where it is empty.
    pub search_domains: Vec<String>,
}

/// `[cdi]`: devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CdiSettings {
    /// `disabled`: no step is given a device.
    pub disabled: bool,
    /// `specDirs`: directories with descriptions; the usual ones where it is empty.
    pub dirs: Vec<PathBuf>,
    /// `autoAllowed`: devices that steps may have without a grant.
    pub auto_allowed: Vec<String>,
}

/// `[history]`: records of builds. One beyond the number goes when it is older than the age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistorySettings {
    /// `maxAge`, in seconds.
    pub max_age: u64,
    /// `maxEntries`.
    pub max_entries: u64,
}

/// `[frontend."NAME"]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrontendSettings {
    /// `enabled`.
    pub enabled: Option<bool>,
    /// `allowedRepositories`: images that may be frontends, without tag; all where it is empty.
    pub allowed_repositories: Vec<String>,
}

/// `[system]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SystemSettings {
    /// `maxRegistryConcurrency`: connections to one registry at a time, at least 1.
    pub max_registry_concurrency: Option<usize>,
}

/// `[registry."HOST"]`: what a registry is configured with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistryHost {
    /// `mirrors`: registries that are asked first, in order: `host`, `host:port`, either with a path.
    pub mirrors: Vec<String>,
    /// `http`: whether plain HTTP is to be used. Unset is not the same as false: then a loopback host is asked in plain HTTP.
    pub http: Option<bool>,
    /// `insecure`: whether certificates go unchecked, and with `http` whether plain HTTP is tried only when TLS is not answered.
    pub insecure: Option<bool>,
    /// `ca`: files with certificates of authorities that are trusted besides the system's.
    pub authorities: Vec<PathBuf>,
    /// `[[registry."HOST".keypair]]`: certificates of this client.
    pub keypairs: Vec<KeyPair>,
    /// `tlsconfigdir`: directories in the manner of `/etc/docker/certs.d/HOST`: `*.crt` are authorities, `*.cert` with the `.key` beside
    /// it certificates of this client. One that is not there is passed over.
    pub tls_dirs: Vec<PathBuf>,
}

/// A certificate of this client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPair {
    /// `key`: file with the private key.
    pub key: PathBuf,
    /// `cert`: file with the certificate.
    pub certificate: PathBuf,
}

/// `networkMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// CNI if there is a configuration of it, else the host's network.
    #[default]
    Auto,
    /// The host's network.
    Host,
    /// A namespace that CNI plugins set up.
    Cni,
    /// A namespace on a bridge that is configured by `bridgeName` and `bridgeSubnet`.
    Bridge,
}

/// The network of steps: those keys of `[worker.oci]` that are about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkSettings {
    /// `networkMode`.
    pub mode: NetworkMode,
    /// `cniConfigPath`: the configuration of the plugins, a file `.conf`, `.json` or `.conflist`.
    pub cni_config: Option<PathBuf>,
    /// `cniBinaryPath`: the directory with the plugins.
    pub cni_plugins: Option<PathBuf>,
    /// `cniPoolSize`: namespaces that are kept ready.
    pub cni_pool: usize,
    /// `bridgeName`.
    pub bridge_name: Option<String>,
    /// `bridgeSubnet`, as `10.10.0.0/16`.
    pub bridge_subnet: Option<String>,
}

/// `snapshotter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Snapshotter {
    /// The best that works.
    #[default]
    Auto,
    /// Overlay mounts of the kernel.
    Overlayfs,
    /// Overlay mounts by a program.
    FuseOverlayfs,
    /// Copies.
    Native,
}

/// `seccomp`, a key of rbuild's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// The default profile of Docker and BuildKit.
    #[default]
    Default,
    /// No filter; only together with `--allow security.insecure`.
    Unconfined,
}

/// `[worker.oci]`: how steps run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OciSettings {
    /// `enabled`.
    pub enabled: Option<bool>,
    /// `labels`.
    pub labels: BTreeMap<String, String>,
    /// `platforms`: those that steps may run for; found out where it is empty. As written, not normalised.
    pub platforms: Vec<Platform>,
    /// `snapshotter`.
    pub snapshotter: Snapshotter,
    /// `rootless`.
    pub rootless: bool,
    /// `noProcessSandbox`: whether steps share the process ids and `/proc` of rbuild.
    pub no_process_sandbox: bool,
    /// `gc` and what belongs to it.
    pub gc: GcSettings,
    /// The network.
    pub network: NetworkSettings,
    /// `binary`: an OCI runtime, by name or path, that runs steps.
    pub binary: Option<String>,
    /// `defaultCgroupParent`: the control group in which those of steps are made.
    pub cgroup_parent: Option<String>,
    /// `apparmor-profile`.
    pub apparmor_profile: Option<String>,
    /// `seccomp`: the filter of system calls.
    pub seccomp: Seccomp,
    /// `selinux`: whether processes and files of steps are labelled.
    pub selinux: bool,
    /// `max-parallelism`: steps that may run at once; none for as many as there are processors.
    pub max_parallelism: Option<usize>,
}
