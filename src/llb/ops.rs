//! The ops of LLB as plain data (BuildKit `solver/pb/ops.proto`; field numbers stand in `encode`).
//!
//! An index of -1 stands for "scratch" where an input is meant, and for "no output" where an output is meant.

use std::collections::BTreeMap;

use crate::digest::Digest;

/// One operation with the inputs it works on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Op {
    /// Edges it depends on, in order.
    pub inputs: Vec<Input>,
    /// What it does; none only for the last op of a definition, whose single input is the result.
    pub kind: Option<OpKind>,
    /// Platform; only exec ops and platform-specific sources carry one.
    pub platform: Option<crate::image::Platform>,
}

/// One output of another op.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Input {
    /// Digest of the op's bytes.
    pub digest: Digest,
    /// Which output.
    pub index: i64,
}

/// What an op does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpKind {
    /// Runs a process.
    Exec(Box<ExecOp>),
    /// Brings content from outside.
    Source(SourceOp),
    /// Changes files.
    File(FileOp),
    /// Puts trees on top of each other.
    Merge(MergeOp),
    /// Takes the difference of two trees.
    Diff(DiffOp),
}

/// Runs a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOp {
    /// The process.
    pub meta: Meta,
    /// What it sees.
    pub mounts: Vec<Mount>,
    /// Network.
    pub network: NetMode,
    /// Confinement.
    pub security: SecurityMode,
    /// Secrets given as environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// Devices by CDI name.
    pub cdi_devices: Vec<CdiDevice>,
}

/// A process to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment as `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User and optional group.
    pub user: String,
    /// Proxy settings, outside the cache key.
    pub proxy_env: Option<ProxyEnv>,
    /// Lines for `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// Host name; empty for the default.
    pub hostname: String,
    /// Resource limits.
    pub ulimit: Vec<Ulimit>,
    /// cgroup to run below.
    pub cgroup_parent: String,
    /// Whether parents made for mount points are removed after the step.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that count as success besides 0.
    pub valid_exit_codes: Vec<i32>,
}

/// Proxy variables of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyEnv {
    /// `http_proxy`.
    pub http_proxy: String,
    /// `https_proxy`.
    pub https_proxy: String,
    /// `ftp_proxy`.
    pub ftp_proxy: String,
    /// `no_proxy`.
    pub no_proxy: String,
    /// `all_proxy`.
    pub all_proxy: String,
}

/// A host name and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIp {
    /// Name.
    pub host: String,
    /// Address.
    pub ip: String,
}

/// A resource limit; -1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// A secret as an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEnv {
    /// Id of the secret.
    pub id: String,
    /// Variable.
    pub name: String,
    /// Whether the step may run without it.
    pub optional: bool,
}

/// A device by its CDI name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiDevice {
    /// Name.
    pub name: String,
    /// Whether the step may run without it.
    pub optional: bool,
}

/// A mount of a process; the one at `/` is the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// Input mounted, or -1.
    pub input: i64,
    /// Path inside the input; empty for all of it.
    pub selector: String,
    /// Where it is mounted.
    pub dest: String,
    /// Output its changes become, or -1.
    pub output: i64,
    /// Whether writing is refused.
    pub readonly: bool,
    /// Kind.
    pub mount_type: MountType,
    /// Set for tmpfs: size in bytes, 0 for no limit.
    pub tmpfs_size: Option<i64>,
    /// Set for caches.
    pub cache: Option<CacheOpt>,
    /// Set for secrets.
    pub secret: Option<FileOpt>,
    /// Set for ssh sockets.
    pub ssh: Option<FileOpt>,
    /// Set for results of other requests.
    pub result_id: String,
    /// Whether the content counts for the cache key.
    pub content_cache: ContentCache,
}

/// Kinds of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountType {
    /// A tree.
    #[default]
    Bind = 0,
    /// A secret as a file.
    Secret = 1,
    /// An ssh agent's socket.
    Ssh = 2,
    /// A directory that outlives the build.
    Cache = 3,
    /// Memory.
    Tmpfs = 4,
}

/// A persistent cache directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheOpt {
    /// Its id.
    pub id: String,
    /// What happens when two steps want it.
    pub sharing: Sharing,
}

/// What happens when two steps want one cache directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Both use it.
    #[default]
    Shared = 0,
    /// Each has its own.
    Private = 1,
    /// The second waits.
    Locked = 2,
}

/// A secret or ssh socket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileOpt {
    /// Id of what is mounted.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Whether the step may run without it.
    pub optional: bool,
}

/// Whether a mount's content counts for the cache key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentCache {
    /// As the kind of mount says.
    #[default]
    Default = 0,
    /// Yes.
    On = 1,
    /// No.
    Off = 2,
}

/// Network of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetMode {
    /// The worker's default.
    #[default]
    Unset = 0,
    /// The host's.
    Host = 1,
    /// Loopback only.
    None = 2,
}

/// Confinement of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecurityMode {
    /// The sandbox.
    #[default]
    Sandbox = 0,
    /// All privileges the caller has; an entitlement.
    Insecure = 1,
}

/// Brings content from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceOp {
    /// `scheme://…`.
    pub identifier: String,
    /// Options by name.
    pub attrs: BTreeMap<String, String>,
}

/// Changes files by actions, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileOp {
    /// The actions.
    pub actions: Vec<FileAction>,
}

/// One change; its inputs are numbered through the op's inputs first and the results of former actions after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAction {
    /// What is changed, or -1 for an empty tree.
    pub input: i64,
    /// What is copied from, or -1.
    pub secondary_input: i64,
    /// Output the result becomes, or -1.
    pub output: i64,
    /// The change.
    pub kind: FileActionKind,
}

/// Kinds of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileActionKind {
    /// Copies files.
    Copy(CopyAction),
    /// Makes a file.
    Mkfile(MkfileAction),
    /// Makes a directory.
    Mkdir(MkdirAction),
    /// Removes files.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// Copies files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyAction {
    /// Path or pattern in the source.
    pub src: String,
    /// Path in the destination; a trailing `/` means a directory.
    pub dest: String,
    /// Owner of the copies.
    pub owner: Option<ChownOpt>,
    /// Permission bits of the copies, or -1 to keep.
    pub mode: i32,
    /// Whether a link named by `src` is followed.
    pub follow_symlink: bool,
    /// Whether a directory's contents are copied, not the directory.
    pub dir_copy_contents: bool,
    /// Whether an archive is unpacked.
    pub attempt_unpack: bool,
    /// Whether missing parents of `dest` are made.
    pub create_dest_path: bool,
    /// Whether `src` may hold wildcards.
    pub allow_wildcard: bool,
    /// Whether a wildcard may match nothing.
    pub allow_empty_wildcard: bool,
    /// Time of the copies in nanoseconds since 1970, or -1 to keep.
    pub timestamp: i64,
    /// What is copied below the source; all if empty.
    pub include_patterns: Vec<String>,
    /// What is left out.
    pub exclude_patterns: Vec<String>,
    /// Whether something of another type is replaced.
    pub always_replace: bool,
    /// Symbolic mode, `u+x`.
    pub mode_str: String,
    /// Paths that must exist.
    pub required_paths: Vec<String>,
}

/// Makes a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MkfileAction {
    /// Path.
    pub path: String,
    /// Permission bits.
    pub mode: i32,
    /// Content.
    pub data: Vec<u8>,
    /// Owner.
    pub owner: Option<ChownOpt>,
    /// Time in nanoseconds since 1970, or -1 for now.
    pub timestamp: i64,
}

/// Makes a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MkdirAction {
    /// Path.
    pub path: String,
    /// Permission bits.
    pub mode: i32,
    /// Whether missing parents are made, and an existing directory is fine.
    pub make_parents: bool,
    /// Owner.
    pub owner: Option<ChownOpt>,
    /// Time in nanoseconds since 1970, or -1 for now.
    pub timestamp: i64,
}

/// Removes files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RmAction {
    /// Path or pattern.
    pub path: String,
    /// Whether a missing path is fine.
    pub allow_not_found: bool,
    /// Whether `path` may hold wildcards.
    pub allow_wildcard: bool,
}

/// Makes a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SymlinkAction {
    /// What it points to.
    pub oldpath: String,
    /// Where it is.
    pub newpath: String,
    /// Owner.
    pub owner: Option<ChownOpt>,
    /// Time in nanoseconds since 1970, or -1 for now.
    pub timestamp: i64,
}

/// An owner and a group, each optional.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChownOpt {
    /// User.
    pub user: Option<UserOpt>,
    /// Group.
    pub group: Option<UserOpt>,
}

/// A user or group, by number or by a name that a tree's own files resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserOpt {
    /// By number.
    ById(u32),
    /// By name.
    ByName {
        /// The name.
        name: String,
        /// The input whose `/etc/passwd` or `/etc/group` is asked.
        input: i64,
    },
}

/// Puts trees on top of each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergeOp {
    /// Inputs, bottom first.
    pub inputs: Vec<i64>,
}

/// Takes the difference of two trees; -1 is the empty tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffOp {
    /// What is subtracted.
    pub lower: i64,
    /// What it is subtracted from.
    pub upper: i64,
}

/// What is said about an op beside its bytes; never hashed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpMetadata {
    /// Whether the cache must not be asked.
    pub ignore_cache: bool,
    /// Descriptions by key, such as `llb.customname`.
    pub description: BTreeMap<String, String>,
    /// Steps shown as one.
    pub progress_group: Option<ProgressGroup>,
    /// Resource limits of the process.
    pub resources: Option<LinuxResources>,
}

/// Steps that are shown as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Identity.
    pub id: String,
    /// Name shown.
    pub name: String,
    /// Whether another group may take over.
    pub weak: bool,
}

/// Resource limits of a process; 0 and empty mean not set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinuxResources {
    /// Memory in bytes.
    pub memory: i64,
    /// Memory and swap in bytes, -1 for unlimited.
    pub memory_swap: i64,
    /// CPU shares.
    pub cpu_shares: u64,
    /// CPU period in microseconds.
    pub cpu_period: u64,
    /// CPU quota in microseconds.
    pub cpu_quota: i64,
    /// CPUs, `0-3,5`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
}
