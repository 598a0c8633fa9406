//! One process in a container.
//!
//! In: an [`ExecSpec`]: a program, a root tree and mounts, all as descriptors. Out: its output as it comes, and how it ended.
//!
//! ```text
//! rbuild ──spawn──▶ A: `__init`        reads the step from its stdin (a socket), finds the user, makes mount points
//!   │ socket          │ fork, new pid namespace
//!   │                 └──▶ B: pid 1     namespaces, mounts, pivot, limits, seccomp, identity, execve of the program
//!   │◀── report ──────┘ when B has ended: exit status, or the stage that failed; mount points are removed again
//! ```
//!
//! Another program may do the last steps of B, and another knob may leave out the pid namespace: see [`ExecOptions`].
//!
//! Invariants: nothing is attached to a path of the host; what a container executes first is a sealed copy of this program;
//! when rbuild dies A kills B, and with it its pid namespace; the program's environment is the step's and nothing else.

mod error;
mod external;
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod hostfiles;
pub mod init;
mod launch;
mod message;
mod platforms;
mod process;
mod sandbox;
mod target;
mod user;
mod wire;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use error::{ExecError, Stage};
pub use external::Search;
pub use launch::{Executor, Output};
pub use message::proxy_variables;
pub use platforms::{Machine, MachineOptions, Unable};

use crate::cni::{Dns, Pool};
use crate::llb::ops::{LinuxResources, NetMode, SecurityMode, Ulimit};

/// Host name of a step that names none.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// What holds for all steps of a build.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// The program that has `__init`; this one, outside tests.
    pub program: PathBuf,
    /// What the caller grants beyond the sandbox.
    pub entitlements: Entitlements,
    /// The host's resolver configuration.
    pub resolv_conf: PathBuf,
    /// What the host's resolver uses itself when it listens on 127.0.0.53.
    pub resolv_conf_upstream: PathBuf,
    /// What steps resolve names with, in place of what the host or their network says; what is empty is not replaced.
    pub dns: Dns,
    /// What starts the program of a step.
    pub runtime: Runtime,
    /// The parent of the control groups of steps that name none; with one, every step has a group of its own.
    pub group_parent: String,
    /// Whether limits were asked for, so that a machine where they cannot hold is told of before anything runs.
    pub groups_wanted: bool,
    /// Whether steps see the processes that rbuild sees, and `/proc` as it does.
    pub share_processes: bool,
    /// The AppArmor profile of steps in the sandbox.
    pub apparmor_profile: Option<String>,
    /// Whether steps in the sandbox may make all system calls; needs the entitlement `security.insecure`.
    pub unfiltered: bool,
    /// Whether what steps start from is made with the first of them and not before: where there may be none.
    pub lazy: bool,
}

/// What starts the program of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Runtime {
    /// rbuild itself.
    #[default]
    BuiltIn,
    /// An OCI runtime of the machine, such as runc or crun.
    Program(Search),
}

/// The network of steps that ask for none in particular.
#[derive(Debug, Clone, Default)]
pub enum DefaultNetwork {
    /// The host's.
    #[default]
    Host,
    /// One of their own with nothing but a loopback device.
    None,
    /// One that plugins have connected.
    Pool(Pool),
}

impl Default for ExecOptions {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            entitlements: Entitlements::default(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            resolv_conf_upstream: PathBuf::from("/run/systemd/resolve/resolv.conf"),
            dns: Dns::default(),
            runtime: Runtime::default(),
            group_parent: String::new(),
            groups_wanted: false,
            share_processes: false,
            apparmor_profile: None,
            unfiltered: false,
            lazy: false,
        }
    }
}

/// Privileges beyond the sandbox, all off unless the caller names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`.
    pub network_host: bool,
    /// `security.insecure`.
    pub security_insecure: bool,
}

/// One process and what it sees.
#[derive(Debug)]
pub struct ExecSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment as `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory; made if missing.
    pub cwd: String,
    /// User and optional group; empty for root.
    pub user: String,
    /// Host name; empty for the default.
    pub hostname: String,
    /// Lines for `/etc/hosts`: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// Network.
    pub network: NetMode,
    /// Confinement.
    pub security: SecurityMode,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Parent of the control group; empty for the default.
    pub cgroup_parent: String,
    /// Limits by a control group.
    pub resources: Option<LinuxResources>,
    /// Size of `/dev/shm` in bytes; 0 for 64 MiB.
    pub shm_size: u64,
    /// The root file system.
    pub root: RootTree,
    /// Further mounts.
    pub mounts: Vec<ExecMount>,
}

/// The root file system.
#[derive(Debug)]
pub struct RootTree {
    /// A detached, writable mount.
    pub tree: OwnedFd,
    /// Whether the process may not write to it.
    pub readonly: bool,
}

/// One mount.
#[derive(Debug)]
pub struct ExecMount {
    /// Where.
    pub dest: String,
    /// Whether the process may not write to it.
    pub readonly: bool,
    /// What.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug)]
pub enum MountSource {
    /// A path in a tree.
    Tree {
        /// A detached mount.
        tree: OwnedFd,
        /// Path in it, resolved inside it; empty for all of it.
        selector: String,
    },
    /// A path in a directory of this process's mount namespace, such as a cache.
    HostDir {
        /// The directory.
        dir: OwnedFd,
        /// Path in it, resolved inside it; empty for all of it.
        selector: String,
    },
    /// A file or directory of the machine, with what is mounted below it.
    HostPath {
        /// It, opened with `O_PATH`.
        path: OwnedFd,
    },
    /// A device of the machine.
    Device {
        /// Its node, opened with `O_PATH`.
        node: OwnedFd,
    },
    /// Memory.
    Tmpfs {
        /// Limit in bytes; 0 for none.
        size: u64,
    },
    /// A file in memory.
    Secret {
        /// Content.
        data: SecretData,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
    /// A unix socket.
    SshAgent {
        /// The socket, opened with `O_PATH`.
        socket: OwnedFd,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
}

/// Bytes that are never printed and are overwritten when dropped.
pub struct SecretData(Vec<u8>);

impl SecretData {
    /// Takes over the bytes.
    pub fn new(data: Vec<u8>) -> Self {
        Self(data)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretData({} bytes)", self.0.len())
    }
}

impl Drop for SecretData {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

/// Which of the two streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatusKind {
    /// With this code.
    Exited(u8),
    /// By this signal.
    Signaled(i32),
}

impl ExitStatusKind {
    /// Returns the code a shell would show: 128 and the number for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => i32::from(code),
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How the process ended.
    pub status: ExitStatusKind,
    /// Mount points that could not be removed again, because the step put something in them.
    pub stubs_left: Vec<String>,
    /// What the caller should know, such as groups that could not be dropped.
    pub notices: Vec<String>,
    /// Whether the kernel killed a process because the limit of memory was reached.
    pub out_of_memory: bool,
}
