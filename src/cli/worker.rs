//! `[worker.oci]` as options of the stations that run steps and keep layers.

use super::args::BuildArgs;
use super::notice;
use crate::config::{Environment, OciSettings, Seccomp, Snapshotter};
use crate::diag::{Diagnostic, Kind};
use crate::exec::{ExecOptions, Runtime, Search};
use crate::snapshot::SnapshotKind;

/// Of a setting that hardens and does not hold here.
const NO_SELINUX: &str =
    "`selinux = true` of [worker.oci] is not supported: processes and files of steps get no labels";

/// What names a program is searched with: directories, and those that are not searched.
pub(super) type Places = (Vec<std::path::PathBuf>, Vec<std::path::PathBuf>);

/// Returns how steps run.
pub(super) fn exec_options(settings: &OciSettings, (directories, workspaces): Places) -> ExecOptions {
    let runtime = settings
        .binary
        .clone()
        .map_or(Runtime::BuiltIn, |name| Runtime::Program(Search { name, directories, workspaces }));
    ExecOptions {
        runtime,
        group_parent: settings.cgroup_parent.clone().unwrap_or_default(),
        share_processes: settings.no_process_sandbox,
        apparmor_profile: settings.apparmor_profile.clone(),
        unfiltered: settings.seccomp == Seccomp::Unconfined,
        ..ExecOptions::default()
    }
}

/// Returns how trees are made of layers.
///
/// # Errors
///
/// For a way that rbuild has not.
pub(super) fn snapshotter(settings: &OciSettings) -> Result<SnapshotKind, Diagnostic> {
    match settings.snapshotter {
        Snapshotter::Auto => Ok(SnapshotKind::Auto),
        Snapshotter::Overlayfs => Ok(SnapshotKind::Overlay),
        Snapshotter::Native => Ok(SnapshotKind::Native),
        Snapshotter::FuseOverlayfs => {
            let text = "snapshotter = \"fuse-overlayfs\" is not there in this version of rbuild";
            Err(Diagnostic::new(Kind::Usage, text).hinted(
                "write snapshotter = \"auto\": the kernel's own overlay needs no root since Linux 5.11, and where it is refused trees are copied",
            ))
        }
    }
}

/// Says what was asked for and does not hold.
pub(super) fn tell(args: &BuildArgs, environment: &Environment, settings: &OciSettings) {
    if settings.selinux {
        notice::tell(args, environment, NO_SELINUX);
    }
}
