//! What a configuration rules out, and what it promises that could not be kept: said before anything is built.
//!
//! A setting that only makes things faster or prettier may have no effect. One that somebody relies on to hold steps back may not.

use std::path::Path;

use super::request::usage;
use crate::config::Configuration;
use crate::diag::Diagnostic;

/// Where a kernel with SELinux says so.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// Refuses what no build may be done with.
pub(super) fn check(configuration: &Configuration) -> Result<(), Diagnostic> {
    let settings = &configuration.settings;
    if settings.oci.enabled == Some(false) {
        let place = configuration.place(&["worker", "oci", "enabled"]);
        return Err(usage(format!("`worker.oci.enabled` is false ({place}), and there is no other worker"))
            .hinted("remove the line: steps are run by rbuild itself; or name another file with `--config FILE`"));
    }
    if settings.proxy_network {
        let place = configuration.place(&["proxyNetwork"]);
        return Err(usage(format!(
            "`proxyNetwork` ({place}) is refused: nothing holds steps to what a proxy lets pass"
        ))
        .hinted("set `proxyNetwork = false`, and take the network from steps with `--network none`"));
    }
    labels(configuration, Path::new(SELINUX).exists())
}

/// Where there are no labels nobody misses them.
fn labels(configuration: &Configuration, in_kernel: bool) -> Result<(), Diagnostic> {
    if !configuration.settings.oci.selinux || !in_kernel {
        return Ok(());
    }
    let place = configuration.place(&["worker", "oci", "selinux"]);
    Err(usage(format!("`worker.oci.selinux` ({place}) is refused: steps would run without labels"))
        .hinted("set `selinux = false`; steps are confined by namespaces, capabilities and system call filters"))
}

/// Refuses to read Dockerfiles where that is turned off.
pub(super) fn check_frontend(configuration: &Configuration) -> Result<(), Diagnostic> {
    if configuration.settings.dockerfile.enabled != Some(false) {
        return Ok(());
    }
    let place = configuration.place(&["frontend", "dockerfile.v0", "enabled"]);
    let text = format!("`frontend.\"dockerfile.v0\".enabled` is false ({place}), and there is no other frontend");
    Err(usage(text).hinted("remove the line, or name another file with `--config FILE`"))
}

/// Refuses what the user grants and the configuration does not.
pub(super) fn check_allowed(configuration: &Configuration, granted: &[String]) -> Result<(), Diagnostic> {
    let settings = &configuration.settings;
    let Some(allowed) = &settings.entitlements else { return Ok(()) };
    for name in granted.iter().map(|name| name.split('=').next().unwrap_or_default()) {
        // As with BuildKit, who has devices at all may grant them.
        if allowed.iter().any(|one| one == name) || (name == "device" && !settings.cdi.disabled) {
            continue;
        }
        let place = configuration.place(&["insecure-entitlements"]);
        return Err(usage(format!("{name} is not allowed by the configuration"))
            .hinted(format!("add {name:?} to `insecure-entitlements` at {place}, or do not ask for it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fuzzing::buildkitd;

    #[test]
    fn labels_are_missed_only_where_there_are_some() {
        for (text, in_kernel, fine) in [
            ("", true, true),
            ("worker.oci.selinux = false\n", true, true),
            ("worker.oci.selinux = true\n", false, true),
            ("worker.oci.selinux = true\n", true, false),
        ] {
            let checked = labels(&buildkitd(text).expect("valid"), in_kernel);
            assert_eq!(checked.is_ok(), fine, "{text} {in_kernel}");
            let told = checked.err().map(|error| error.message).unwrap_or_default();
            assert!(fine || told.contains("`worker.oci.selinux` (buildkitd.toml:1)"), "{told}");
        }
    }
}
