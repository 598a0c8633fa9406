//! `[worker.oci]` as options of the stations that run steps and keep layers.

use super::network;
use crate::config::{OciSettings, Seccomp, Settings, Snapshotter};
use crate::diag::{Diagnostic, Kind};
use crate::exec::{ExecOptions, Runtime, Search};
use crate::snapshot::SnapshotKind;

/// What names a program is searched with: directories, and those that are not searched.
pub(super) type Places = (Vec<std::path::PathBuf>, Vec<std::path::PathBuf>);

/// Returns how steps run.
pub(super) fn exec_options(settings: &Settings, (directories, workspaces): Places) -> ExecOptions {
    let dns = network::dns(settings.dns.as_ref());
    let settings = &settings.oci;
    let runtime = settings
        .binary
        .clone()
        .map_or(Runtime::BuiltIn, |name| Runtime::Program(Search { name, directories, workspaces }));
    ExecOptions {
        dns,
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
            let text = "snapshotter = \"fuse-overlayfs\" is refused: it files what a step writes through one of several hard links \
                        under another name (seen with 1.10), and layers would be wrong";
            Err(Diagnostic::new(Kind::Usage, text).hinted(
                "write snapshotter = \"auto\": the kernel's own overlay needs no root since Linux 5.11, and where it is refused trees are copied",
            ))
        }
    }
}
