//! What this machine runs: by its processor, or by emulators that the kernel knows.
//!
//! In: the platforms of a build's steps. Out: for each, nothing or why its programs do not run here. Nothing is left behind:
//! what is registered goes with the process.
//!
//! | platform | runs if |
//! | --- | --- |
//! | declared in `[worker.oci] platforms` | always: who says so knows |
//! | the processor's, in a version it has (`amd64/v1` to `v4`) | always |
//! | another | its smallest program does ([`probe`]): in 32 bit mode, or emulated |
//! | another, in a user namespace of our own (Linux 6.7) | a static QEMU is installed, which is registered for us alone ([`binfmt`]) |
//! | unknown here | left to the kernel |
//!
//! BuildKit's other way, a patched QEMU put in front of a step's arguments, is not taken: what the step starts in turn would
//! not be emulated by QEMU as distributions have it.

mod binfmt;
mod elf;
mod probe;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use futures_util::future::join_all;

use super::ExecError;
use crate::image::Platform;
use elf::Architecture;
use probe::{Verdict, probe};

/// What is known of a machine beyond itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineOptions {
    /// Platforms that are said to run.
    pub declared: Vec<Platform>,
    /// Absolute directories in which emulators are looked for.
    pub directories: Vec<PathBuf>,
    /// Directories whose programs are not ours to run.
    pub workspaces: Vec<PathBuf>,
    /// Whether this process is in a user namespace that was made for it alone.
    pub own_namespace: bool,
}

/// Why programs of a platform do not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unable {
    /// Neither the processor nor an emulator runs them.
    NoEmulator,
    /// An emulator is registered whose file containers do not see.
    OutOfReach,
    /// An emulator is registered and does not work.
    Broken,
    /// The processor is older.
    Version {
        /// The newest version it has: `v2`.
        newest: &'static str,
    },
    /// It is another operating system.
    System,
}

/// What was found out about a machine; must be kept as long as steps run.
#[derive(Debug, Default)]
pub struct Machine {
    declared: Vec<Platform>,
    verdicts: BTreeMap<&'static str, Verdict>,
    /// Keeps our own emulators registered.
    _handlers: Option<OwnedFd>,
}

impl Machine {
    /// Finds out whether programs of these platforms run here.
    pub async fn examine(options: &MachineOptions, platforms: &[Platform]) -> Self {
        let foreign = foreign(options, platforms);
        let verdicts = judge(&foreign).await;
        let machine = Self { declared: options.declared.clone(), verdicts, _handlers: None };
        let missing = |verdict: &Verdict| *verdict == Verdict::Unknown || *verdict == Verdict::OutOfReach;
        if !options.own_namespace || !machine.verdicts.values().any(missing) {
            return machine;
        }
        match machine.emulators(options, &foreign).map(|emulators| binfmt::register(&emulators)) {
            None => machine,
            Some(Ok(handlers)) => {
                tracing::debug!(platforms = ?machine.verdicts.keys(), "registered emulators for this build alone");
                Self { verdicts: judge(&foreign).await, _handlers: Some(handlers), ..machine }
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "no emulators can be registered for this build alone");
                machine
            }
        }
    }

    /// Returns an emulator for each architecture that needs one: ours hide what others registered, so it is all or none.
    fn emulators<'a>(
        &self,
        options: &MachineOptions,
        foreign: &[&'a Architecture],
    ) -> Option<Vec<(&'a Architecture, PathBuf)>> {
        let by_itself = |of: &&&Architecture| self.verdicts[of.name] == Verdict::Runs && is_own_32_bit(of.name);
        let emulated = foreign.iter().filter(|of| !by_itself(of));
        let find =
            |of: &&'a Architecture| Some((*of, binfmt::emulator(of, &options.directories, &options.workspaces)?));
        emulated.map(find).collect()
    }

    /// Tells why programs of a platform do not run here.
    ///
    /// # Errors
    ///
    /// [`ExecError::Foreign`], with what to do about it.
    pub fn check(&self, platform: &Platform) -> Result<(), ExecError> {
        let wanted = platform.clone().normalized();
        let declared = self.declared.iter().any(|declared| wanted.rank_for(declared).is_some());
        let unable = |why| Err(ExecError::Foreign { platform: Box::new(wanted.clone()), why });
        match self.verdicts.get(wanted.architecture.as_str()) {
            _ if declared => Ok(()),
            _ if wanted.os != "linux" => unable(Unable::System),
            Some(Verdict::Runs) => Ok(()),
            Some(Verdict::Unknown) => unable(Unable::NoEmulator),
            Some(Verdict::OutOfReach) => unable(Unable::OutOfReach),
            Some(Verdict::Fails) => unable(Unable::Broken),
            None => version(&wanted).map_or(Ok(()), unable),
        }
    }
}

/// Lists, once each, the known architectures that the processor does not have for its own.
fn foreign(options: &MachineOptions, platforms: &[Platform]) -> Vec<&'static Architecture> {
    let host = Platform::host();
    let mut found: BTreeMap<&str, &Architecture> = BTreeMap::new();
    for platform in platforms.iter().map(|platform| platform.clone().normalized()) {
        let declared = options.declared.iter().any(|declared| platform.rank_for(declared).is_some());
        if platform.os == "linux" && platform.architecture != host.architecture && !declared {
            found.extend(elf::architecture(&platform.architecture).map(|known| (known.name, known)));
        }
    }
    found.into_values().collect()
}

async fn judge(foreign: &[&'static Architecture]) -> BTreeMap<&'static str, Verdict> {
    let probes = foreign.iter().map(async |of| (of.name, probe(of).await));
    let judged = join_all(probes).await.into_iter().filter_map(|(name, verdict)| match verdict {
        Ok(verdict) => Some((name, verdict)),
        Err(error) => untried(name, &error),
    });
    judged.collect()
}

/// What cannot be found out shows when the step runs.
fn untried(name: &'static str, error: &io::Error) -> Option<(&'static str, Verdict)> {
    tracing::debug!(architecture = name, %error, "could not find out whether programs of this architecture run");
    None
}

/// Tells whether the kernel may run an architecture beside the processor's own with no emulator.
fn is_own_32_bit(name: &str) -> bool {
    matches!((Platform::host().architecture.as_str(), name), ("amd64", "386") | ("arm64", "arm"))
}

/// Compares the version of the processor's architecture; a version that is not known is left to the step.
fn version(wanted: &Platform) -> Option<Unable> {
    let number = |version: &str| version.strip_prefix('v').and_then(|number| number.parse::<u8>().ok());
    let newest = newest_version()?;
    let newer = wanted.architecture == "amd64" && number(&wanted.variant) > number(newest);
    newer.then_some(Unable::Version { newest })
}

/// Returns the newest of the versions of x86-64 that this processor has (System V ABI, table 3.1).
#[cfg(target_arch = "x86_64")]
fn newest_version() -> Option<&'static str> {
    macro_rules! has {
        ($($feature:tt)*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    let v2 = has!("cmpxchg16b" "popcnt" "sse3" "sse4.1" "sse4.2" "ssse3");
    let v3 = v2 && has!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe");
    let v4 = v3 && has!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl");
    Some(match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, ..) => "v2",
        _ => "v1",
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn newest_version() -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Diagnose;

    fn platform(text: &str) -> Platform {
        text.parse().expect(text)
    }

    fn machine(verdicts: &[(&'static str, Verdict)], declared: &[&str]) -> Machine {
        let declared = declared.iter().map(|text| platform(text)).collect();
        Machine { declared, verdicts: verdicts.iter().copied().collect(), _handlers: None }
    }

    #[test]
    fn verdicts_become_reasons() {
        let found = machine(
            &[
                ("arm64", Verdict::Unknown),
                ("s390x", Verdict::OutOfReach),
                ("arm", Verdict::Fails),
                ("386", Verdict::Runs),
            ],
            &[],
        );
        for (text, why) in [
            ("linux/arm64", Some(Unable::NoEmulator)),
            ("linux/arm64/v8", Some(Unable::NoEmulator)),
            ("linux/s390x", Some(Unable::OutOfReach)),
            ("linux/arm/v6", Some(Unable::Broken)),
            ("linux/386", None),
            ("windows/amd64", Some(Unable::System)),
            ("linux/wasm", None),
        ] {
            let told = found.check(&platform(text)).err().map(|error| match error {
                ExecError::Foreign { why, .. } => why,
                other => panic!("{other}"),
            });
            assert_eq!(told, why, "{text}");
        }
        assert!(found.check(&Platform::host()).is_ok());
    }

    #[test]
    fn what_is_declared_is_believed() {
        let found = machine(&[("arm64", Verdict::Unknown)], &["linux/arm64", "linux/amd64/v4"]);
        for text in ["linux/arm64", "linux/amd64/v4", "linux/amd64/v3"] {
            assert!(found.check(&platform(text)).is_ok(), "{text}");
        }
        let options = MachineOptions { declared: vec![platform("linux/arm64")], ..MachineOptions::default() };
        assert!(foreign(&options, &[platform("linux/arm64"), Platform::host()]).is_empty());
    }

    #[test]
    fn each_reason_says_what_to_type() {
        for (why, hint) in [
            (Unable::NoEmulator, "docker run --privileged --rm tonistiigi/binfmt --install arm64"),
            (Unable::NoEmulator, "apt-get install qemu-user-static binfmt-support"),
            (Unable::NoEmulator, "FROM --platform=$BUILDPLATFORM"),
            (Unable::OutOfReach, "flag F"),
            (Unable::Broken, "tonistiigi/binfmt --install arm64"),
            (Unable::Version { newest: "v2" }, "`--platform linux/arm64/v2`"),
        ] {
            let error = ExecError::Foreign { platform: Box::new(platform("linux/arm64")), why };
            assert!(error.hints().concat().contains(hint), "{:?}", error.hints());
        }
    }

    #[tokio::test]
    async fn an_examined_machine_knows_itself() {
        let host = Platform::host();
        let machine = Machine::examine(&MachineOptions::default(), &[host.clone(), platform("windows/amd64")]).await;
        assert!(machine.check(&host).is_ok() && machine.verdicts.is_empty());
    }
}
