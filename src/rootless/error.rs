//! Why no namespace could be entered, and what to type.

use std::io;
use std::path::Path;

use crate::diag::{Diagnose, Kind};

/// Stage 0 failed.
#[derive(Debug, thiserror::Error)]
pub enum RootlessError {
    /// Something about this process could not be read.
    #[error("failed to read {what} of this process")]
    Inspect {
        /// What.
        what: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses new namespaces.
    #[error("this machine refuses user namespaces: {reason}")]
    Refused {
        /// Which setting does.
        reason: Refusal,
        /// What was refused.
        #[source]
        source: Box<RootlessError>,
    },
    /// A step after the namespaces were made failed.
    #[error("failed to {action}")]
    Namespace {
        /// What was being done.
        action: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A program is missing.
    #[error("{program} is not installed")]
    NoMapper {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
    },
    /// The caller has no further ids.
    #[error("{file} has no line for {user}")]
    NoSubids {
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// Name of the caller, or its number.
        user: String,
    },
    /// A file about ids could not be read.
    #[error("failed to read {file}")]
    Read {
        /// Which.
        file: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Ids could not be mapped.
    #[error("{program} refused to map ids (exit code {code})")]
    MapperFailed {
        /// `newuidmap`, `newgidmap`, or what stands for them where the ids are an outer container's.
        program: &'static str,
        /// Its exit code.
        code: u8,
    },
}

/// What refuses user namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// AppArmor, for programs without a profile (Ubuntu 23.10 and later).
    AppArmor,
    /// `user.max_user_namespaces` is 0.
    Limit,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian, Arch).
    Clone,
    /// The system call filter of an outer container.
    OuterFilter,
    /// Nothing that can be seen from here.
    Unknown,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AppArmor => "AppArmor allows them only to programs with a profile",
            Self::Limit => "user.max_user_namespaces is 0",
            Self::Clone => "kernel.unprivileged_userns_clone is 0",
            Self::OuterFilter => "the container this runs in filters the system call",
            Self::Unknown => "the kernel or a security module forbids them",
        })
    }
}

impl Refusal {
    fn remedy(self) -> &'static str {
        match self {
            Self::AppArmor => {
                "run `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give rbuild an AppArmor profile with `userns,`"
            }
            Self::Limit => "run `sudo sysctl -w user.max_user_namespaces=15000`",
            Self::Clone => "run `sudo sysctl -w kernel.unprivileged_userns_clone=1`",
            Self::OuterFilter => {
                "start the outer container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined`"
            }
            Self::Unknown => "run rbuild as root: `sudo rbuild …`",
        }
    }
}

/// Makes the error of namespaces that could not be made.
pub(super) fn refused(source: io::Error) -> RootlessError {
    let reason = diagnose(Path::new("/proc"));
    RootlessError::Refused {
        reason,
        source: Box::new(RootlessError::Namespace { action: "make the namespaces", source }),
    }
}

/// Makes the error of what failed in namespaces that were made: AppArmor, and filters of outer containers, let a namespace be made
/// and refuse what it is good for.
pub(super) fn within(action: &'static str) -> impl Fn(io::Error) -> RootlessError {
    move |source| refused_within(Path::new("/proc"), action, source)
}

fn refused_within(proc: &Path, action: &'static str, source: io::Error) -> RootlessError {
    let denied = source.kind() == io::ErrorKind::PermissionDenied;
    let error = RootlessError::Namespace { action, source };
    match diagnose(proc) {
        reason @ (Refusal::AppArmor | Refusal::OuterFilter) if denied => {
            RootlessError::Refused { reason, source: Box::new(error) }
        }
        _ => error,
    }
}

fn diagnose(proc: &Path) -> Refusal {
    let is = |path: &str, value: &str| std::fs::read_to_string(proc.join(path)).is_ok_and(|text| text.trim() == value);
    let status = std::fs::read_to_string(proc.join("self/status")).unwrap_or_default();
    if is("sys/user/max_user_namespaces", "0") {
        Refusal::Limit
    } else if is("sys/kernel/unprivileged_userns_clone", "0") {
        Refusal::Clone
    } else if is("sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        Refusal::AppArmor
    } else if status.lines().any(|line| line.split_ascii_whitespace().eq(["Seccomp:", "2"])) {
        Refusal::OuterFilter
    } else {
        Refusal::Unknown
    }
}

impl Diagnose for RootlessError {
    fn kind(&self) -> Kind {
        Kind::Machine
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Refused { reason, .. } => vec![reason.remedy().to_owned()],
            Self::NoMapper { .. } => {
                vec!["install it: `sudo apt-get install uidmap`, or `sudo dnf install shadow-utils`".to_owned()]
            }
            Self::NoSubids { user, .. } => vec![format!(
                "give the user ids: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`"
            )],
            Self::MapperFailed { program, .. } => vec![format!(
                "{program} must be set-user-ID root or have file capabilities, not run below no_new_privs or from a nosuid mount, and the ids must stand in /etc/subuid and /etc/subgid"
            )],
            Self::Inspect { .. } | Self::Namespace { .. } | Self::Read { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_refuses_is_named_with_its_remedy() {
        for (path, text, expected, remedy) in [
            ("sys/user/max_user_namespaces", "0\n", Refusal::Limit, "user.max_user_namespaces="),
            ("sys/kernel/unprivileged_userns_clone", "0\n", Refusal::Clone, "unprivileged_userns_clone=1"),
            ("sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", Refusal::AppArmor, "apparmor_restrict"),
            ("self/status", "Name:\tx\nSeccomp:\t2\n", Refusal::OuterFilter, "seccomp=unconfined"),
            ("self/status", "Seccomp:\t0\nSeccomp_filters:\t2\n", Refusal::Unknown, "sudo rbuild"),
        ] {
            let temp = tempfile::tempdir().expect("temp dir");
            let file = temp.path().join(path);
            std::fs::create_dir_all(file.parent().expect("parent")).expect("mkdir");
            std::fs::write(&file, text).expect("write");
            let reason = diagnose(temp.path());
            assert_eq!(reason, expected, "{path}");
            let source = RootlessError::Namespace { action: "x", source: io::ErrorKind::PermissionDenied.into() };
            let error = RootlessError::Refused { reason, source: Box::new(source) };
            assert!(error.hints()[0].contains(remedy), "{path}");
        }
    }

    const EPERM: i32 = 1;
    const ENOMEM: i32 = 12;
    const EACCES: i32 = 13;

    #[test]
    fn what_a_namespace_may_not_do_is_explained_too() {
        let temp = tempfile::tempdir().expect("temp dir");
        let place = temp.path().join("sys/kernel");
        std::fs::create_dir_all(&place).expect("mkdir");
        std::fs::write(place.join("apparmor_restrict_unprivileged_userns"), "1\n").expect("write");
        let told = |errno: i32| {
            let error = refused_within(temp.path(), "make mounts private", io::Error::from_raw_os_error(errno));
            (crate::diag::chain(&error), error.hints())
        };
        for denied in [EACCES, EPERM] {
            let (text, hints) = told(denied);
            assert!(text.contains("AppArmor") && text.contains("failed to make mounts private"), "{text}");
            assert!(hints[0].contains("apparmor_restrict_unprivileged_userns=0"), "{hints:?}");
        }
        let (text, hints) = told(ENOMEM);
        assert!(!text.contains("AppArmor") && hints.is_empty(), "{text}");
    }
}
