//! What can go wrong with a step, apart from the program itself ending with an error.

use std::io;
use std::path::PathBuf;

use crate::diag::{Diagnose, Kind};

/// A step could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The copy of this program that containers are started from could not be made.
    #[error("failed to prepare the program that starts containers")]
    Prepare {
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A privilege was asked for that the caller did not grant.
    #[error("{entitlement} is not allowed")]
    Entitlement {
        /// Its name, as `--allow` takes it.
        entitlement: &'static str,
    },
    /// The program that is to start containers is not there.
    #[error("the container runtime {name:?} is not installed")]
    NoRuntime {
        /// As configured.
        name: String,
    },
    /// The program that is to start containers is none, or does not answer.
    #[error("the container runtime {} cannot be used: {reason}", program.display())]
    Runtime {
        /// The program.
        program: PathBuf,
        /// What it did.
        reason: String,
    },
    /// A profile is to confine steps that this kernel knows nothing of.
    #[error("AppArmor is not enabled on this machine, and the profile {profile:?} cannot confine a step")]
    NoAppArmor {
        /// The profile.
        profile: String,
    },
    /// No control group can be made for a step that has limits.
    #[error("steps cannot have limits here: {reason}")]
    NoGroups {
        /// Why.
        reason: String,
    },
    /// Something that loosens the sandbox was configured and not granted.
    #[error("seccomp = \"unconfined\" needs the entitlement security.insecure")]
    Unfiltered,
    /// A mount target is one that no step may have.
    #[error("invalid mount target {target:?}: {reason}")]
    Target {
        /// As given.
        target: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The description of the step cannot be handed to the child.
    #[error("invalid step: {reason}")]
    Spec {
        /// What is wrong.
        reason: String,
    },
    /// A source of a mount cannot be used.
    #[error("failed to open the source of mount {dest}")]
    Source {
        /// Where it was to be mounted.
        dest: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The child could not be started or talked to.
    #[error("failed to {action}")]
    Launch {
        /// What was being done.
        action: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The container could not be set up or the program not be started in it.
    #[error("{message}")]
    Setup {
        /// The step of the set-up that failed.
        stage: Stage,
        /// What happened.
        message: String,
    },
    /// The step was stopped.
    #[error("canceled")]
    Canceled,
}

/// Steps of the set-up of a container, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Stage {
    /// Reading the description.
    Spec,
    /// The control group.
    Group,
    /// Finding the user in the image.
    User,
    /// Making mount points.
    Stubs,
    /// Entering the namespaces.
    Namespaces,
    /// Putting the root file system in place.
    Rootfs,
    /// `/dev`.
    Dev,
    /// `/proc`.
    Proc,
    /// `/sys`.
    Sys,
    /// The mounts of the step.
    Mounts,
    /// Making it the root.
    Pivot,
    /// Limits and keyring.
    Limits,
    /// The system call filter.
    Seccomp,
    /// User, groups and capabilities.
    Identity,
    /// The working directory.
    Workdir,
    /// Starting the program.
    Program,
    /// What the container runtime that was chosen does.
    Runtime,
}

impl Diagnose for ExecError {
    fn kind(&self) -> Kind {
        match self {
            Self::Entitlement { .. } | Self::NoRuntime { .. } | Self::Runtime { .. } | Self::Unfiltered => Kind::Usage,
            Self::Target { .. } => Kind::Dockerfile,
            Self::Setup {
                stage: Stage::Namespaces | Stage::Proc | Stage::Dev | Stage::Pivot | Stage::Runtime | Stage::Group,
                ..
            }
            | Self::Prepare { .. }
            | Self::NoAppArmor { .. }
            | Self::NoGroups { .. }
            | Self::Launch { .. } => Kind::Machine,
            Self::Canceled => Kind::Interrupted(2),
            Self::Spec { .. } | Self::Source { .. } | Self::Setup { .. } => Kind::Build,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Entitlement { entitlement } => vec![format!("grant it with `--allow {entitlement}`")],
            Self::Setup { stage: Stage::Proc, .. } => vec![
                "a fresh /proc is refused where the outer container masks its own: start that container with \
                 `--security-opt systempaths=unconfined`, or set `noProcessSandbox = true` in [worker.oci]: steps then see \
                 and may end the processes that rbuild sees"
                    .to_owned(),
            ],
            Self::NoGroups { .. } | Self::Setup { stage: Stage::Group, .. } => vec![
                "have a group delegated to rbuild: `systemd-run --user --scope -p Delegate=yes rbuild …`; or limit it as a whole: \
                 `systemd-run --user --scope -p MemoryMax=2G rbuild …`"
                    .to_owned(),
            ],
            Self::NoAppArmor { .. } => vec!["leave `apparmor-profile` out of [worker.oci]".to_owned()],
            Self::Unfiltered => vec![
                "grant it with `--allow security.insecure`, or leave `seccomp` out of [worker.oci]".to_owned(),
            ],
            Self::NoRuntime { name } => vec![format!(
                "install it (`sudo apt-get install {}`), or leave `binary` out of [worker.oci] to use the built-in executor",
                name.rsplit('/').next().unwrap_or(name)
            )],
            Self::Runtime { .. } | Self::Setup { stage: Stage::Runtime, .. } => {
                vec!["leave `binary` out of [worker.oci] to use the built-in executor".to_owned()]
            }
            Self::Setup { stage: Stage::Program, message } => program_hint(message).into_iter().collect(),
            Self::Setup { stage: Stage::User, .. } => {
                vec![
                    "make the user in an earlier step (`RUN useradd NAME`, `RUN adduser -D NAME`), or give its number"
                        .to_owned(),
                ]
            }
            Self::Setup { stage: Stage::Identity, message } if message.contains("not mapped") => {
                vec!["give your user more ids: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`"
                    .to_owned()]
            }
            _ => Vec::new(),
        }
    }
}

/// What to do about a program that could not be started; `message` is that of `process::start`.
fn program_hint(message: &str) -> Option<String> {
    // Container runtimes say the same in other cases.
    let message = message.to_lowercase();
    let says = |text: &str| message.contains(text);
    let no_shell = ["\"/bin/sh\": no such file", "\"/bin/sh\": stat /bin/sh: no such file", "`/bin/sh` not found"];
    if no_shell.into_iter().any(says) {
        Some("the image has no shell: start from one that has, or write `RUN [\"PROGRAM\", \"ARGUMENT\"]`".into())
    } else if says("not found in $path") || says("no such file") {
        Some(
            "install the program in an earlier step, or check its name and PATH; a script needs its interpreter too"
                .into(),
        )
    } else if says("permission denied") {
        Some("make it executable: `RUN chmod +x FILE`, or `COPY --chmod=755`".into())
    } else if says("exec format error") {
        Some("it is a program for another processor, or a script without `#!` line: see `--platform`".into())
    } else {
        None
    }
}
