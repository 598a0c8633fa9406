//! From an [`ExecSpec`] to the message for the child: checks what the caller may ask for, and opens sources.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::groups::{self, Setting};
use super::wire::{Confinement, External, Filter, Group, Limit, Network, Processes, Step, StepMount, StepSource};
use super::{DEFAULT_HOSTNAME, Entitlements, ExecError, ExecMount, ExecOptions, ExecSpec, Executor, MountSource};
use super::{hostfiles, target};
use crate::llb::ops::{NetMode, ProxyEnv, SecurityMode, Ulimit};
use crate::sys::dir::Dir;
use crate::sys::{apparmor, fds, mount};

/// Size of `/dev/shm` when a step names none.
const DEFAULT_SHM: u64 = 64 << 20;

/// Returns the proxy variables of a step, each in lower and upper case.
pub fn proxy_variables(proxy: &ProxyEnv) -> Vec<String> {
    let values = [
        ("http_proxy", &proxy.http_proxy),
        ("https_proxy", &proxy.https_proxy),
        ("ftp_proxy", &proxy.ftp_proxy),
        ("no_proxy", &proxy.no_proxy),
        ("all_proxy", &proxy.all_proxy),
    ];
    let set = values.into_iter().filter(|(_, value)| !value.is_empty());
    set.flat_map(|(name, value)| [format!("{}={value}", name.to_uppercase()), format!("{name}={value}")]).collect()
}

/// Builds the message; descriptor 0 is the root's.
pub(super) fn build(
    executor: &Executor,
    runtime: Option<External>,
    spec: ExecSpec,
) -> Result<(Step, Vec<OwnedFd>), ExecError> {
    let options = &executor.options;
    let network = network(spec.network, options.entitlements)?;
    let confinement = confinement(spec.security, options.entitlements)?;
    let apparmor = apparmor(options, confinement)?;
    check_text(&spec)?;
    let group = group(executor, &spec)?;
    let mut descriptors = vec![spec.root.tree];
    let group = group.map(|(directory, name, settings)| {
        descriptors.push(directory);
        Group { fd: descriptors.len() - 1, name, settings }
    });
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for mount in spec.mounts {
        mounts.push(step_mount(mount, &mut descriptors)?);
    }
    // A mount below another one comes after it, whatever order they were given in.
    mounts.sort_by_key(|mount| mount.dest.matches('/').count());
    let resolv_conf = match network {
        Network::Host => executor.host_resolv_conf.clone(),
        Network::Own => executor.isolated_resolv_conf.clone(),
    };
    let hosts = hostfiles::hosts(&spec.hostname, &spec.extra_hosts);
    let hostname = if spec.hostname.is_empty() { DEFAULT_HOSTNAME.to_owned() } else { spec.hostname };
    let limits = spec.ulimits.iter().map(limit).collect::<Result<_, _>>()?;
    let shm_size = if spec.shm_size == 0 { DEFAULT_SHM } else { spec.shm_size };
    let (args, env, cwd, user, readonly) = (spec.args, spec.env, spec.cwd, spec.user, spec.root.readonly);
    let step = Step {
        args,
        env,
        cwd,
        user,
        hostname,
        hosts,
        resolv_conf,
        network,
        confinement,
        limits,
        shm_size,
        readonly,
        mounts,
        processes: if options.share_processes { Processes::Shared } else { Processes::Own },
        filter: if options.unfiltered { Filter::None } else { Filter::Default },
        apparmor,
        runtime,
        group,
    };
    Ok((step, descriptors))
}

/// Refuses what was not granted.
pub(super) fn check_granted(mode: NetMode, security: SecurityMode, granted: Entitlements) -> Result<(), ExecError> {
    network(mode, granted)?;
    confinement(security, granted).map(drop)
}

/// Only what asks for a group has one.
fn group(executor: &Executor, spec: &ExecSpec) -> Result<Option<(OwnedFd, String, Vec<Setting>)>, ExecError> {
    let parent = if spec.cgroup_parent.is_empty() { &executor.options.group_parent } else { &spec.cgroup_parent };
    let limits = spec.resources.as_ref().map_or(Ok(Vec::new()), groups::settings);
    let settings = limits.map_err(|reason| ExecError::Spec { reason })?;
    if parent.is_empty() && settings.is_empty() {
        return Ok(None);
    }
    match executor.group(parent) {
        Ok((directory, name)) => Ok(Some((directory, name, settings))),
        // A parent that only the configuration names is about the machine that it was written for.
        Err(error) if spec.cgroup_parent.is_empty() && settings.is_empty() => {
            tracing::info!(error = %error, "the step gets no control group");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A profile that would not hold is worse than none.
fn apparmor(options: &ExecOptions, confinement: Confinement) -> Result<Option<String>, ExecError> {
    match &options.apparmor_profile {
        Some(profile) if confinement == Confinement::Sandbox && !apparmor::is_enabled() => {
            Err(ExecError::NoAppArmor { profile: profile.clone() })
        }
        profile => Ok(profile.clone()),
    }
}

fn network(mode: NetMode, granted: Entitlements) -> Result<Network, ExecError> {
    match mode {
        NetMode::Host if !granted.network_host => Err(ExecError::Entitlement { entitlement: "network.host" }),
        NetMode::Unset | NetMode::Host => Ok(Network::Host),
        NetMode::None => Ok(Network::Own),
    }
}

fn confinement(mode: SecurityMode, granted: Entitlements) -> Result<Confinement, ExecError> {
    match mode {
        SecurityMode::Insecure if !granted.security_insecure => {
            Err(ExecError::Entitlement { entitlement: "security.insecure" })
        }
        SecurityMode::Insecure => Ok(Confinement::Insecure),
        SecurityMode::Sandbox => Ok(Confinement::Sandbox),
    }
}

/// Programs take no NUL, and `/etc/hosts` has one entry a line.
fn check_text(spec: &ExecSpec) -> Result<(), ExecError> {
    // The value of a variable can be a secret: its name has to do.
    if let Some(variable) = spec.env.iter().find(|variable| variable.contains('\0')) {
        let name = variable.split('=').next().unwrap_or_default();
        return Err(ExecError::Spec { reason: format!("the variable {name:?} contains a NUL") });
    }
    let texts = spec.args.iter().chain([&spec.cwd, &spec.user, &spec.hostname]);
    if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
        return Err(ExecError::Spec { reason: format!("{text:?} contains a NUL") });
    }
    let mut hosts = spec.extra_hosts.iter().flat_map(|(name, address)| [name, address]).chain([&spec.hostname]);
    if let Some(word) = hosts.find(|word| word.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#')) {
        return Err(ExecError::Spec { reason: format!("{word:?} is no host name or address") });
    }
    if spec.args.is_empty() {
        return Err(ExecError::Spec { reason: "no program to run".to_owned() });
    }
    Ok(())
}

/// -1 is unlimited.
fn limit(ulimit: &Ulimit) -> Result<Limit, ExecError> {
    let value = |value: i64| match value {
        -1 => Ok(u64::MAX),
        value => u64::try_from(value)
            .map_err(|_| ExecError::Spec { reason: format!("invalid value {value} of limit {:?}", ulimit.name) }),
    };
    Ok(Limit { name: ulimit.name.to_lowercase(), soft: value(ulimit.soft)?, hard: value(ulimit.hard)? })
}

fn step_mount(mount: ExecMount, descriptors: &mut Vec<OwnedFd>) -> Result<StepMount, ExecError> {
    let dest = target::normalise(&mount.dest)?;
    let source =
        open_source(mount.source, descriptors).map_err(|source| ExecError::Source { dest: dest.clone(), source });
    Ok(StepMount { dest, readonly: mount.readonly, source: source? })
}

fn open_source(source: MountSource, descriptors: &mut Vec<OwnedFd>) -> io::Result<StepSource> {
    let (fd, selector) = match source {
        MountSource::Tmpfs { size } => return Ok(StepSource::Tmpfs { size }),
        MountSource::Secret { data, uid, gid, mode } => {
            descriptors.push(fds::sealed_bytes("rbuild-secret", data.bytes())?);
            return Ok(StepSource::Secret { fd: descriptors.len() - 1, uid, gid, mode });
        }
        MountSource::Device { node } => {
            descriptors.push(mount::clone_tree(&node, mount::Recursive::No)?);
            return Ok(StepSource::Device { fd: descriptors.len() - 1 });
        }
        MountSource::HostPath { path } => (mount::clone_tree(&path, mount::Recursive::Yes)?, String::new()),
        MountSource::Tree { tree, selector } => (tree, selector),
        MountSource::HostDir { dir, selector } => (clone_selected(&Dir::from(dir), &selector)?, String::new()),
        MountSource::SshAgent { socket, uid, gid, mode } => {
            fds::set_owner_and_mode(socket.as_fd(), uid, gid, mode)?;
            (mount::clone_tree(&socket, mount::Recursive::No)?, String::new())
        }
    };
    descriptors.push(fd);
    Ok(StepSource::Tree { fd: descriptors.len() - 1, selector })
}

/// The directory is one of this process's mount namespace, where alone its mount can be copied.
fn clone_selected(dir: &Dir, selector: &str) -> io::Result<OwnedFd> {
    let selected = target::open_inside(dir, selector)?;
    mount::clone_tree(&selected, mount::Recursive::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e12_what_was_not_granted_is_refused_by_name() {
        let none = Entitlements::default();
        let error = network(NetMode::Host, none).expect_err("not granted");
        assert_eq!(error.to_string(), "network.host is not allowed");
        let error = confinement(SecurityMode::Insecure, none).expect_err("not granted");
        assert_eq!(error.to_string(), "security.insecure is not allowed");
        let all = Entitlements { network_host: true, security_insecure: true };
        assert_eq!(network(NetMode::Host, all).expect("granted"), Network::Host);
        assert_eq!(confinement(SecurityMode::Insecure, all).expect("granted"), Confinement::Insecure);
        assert_eq!(network(NetMode::None, none).expect("always"), Network::Own);
    }

    #[test]
    fn proxies_are_set_in_both_cases() {
        let proxy = ProxyEnv { http_proxy: "http://p:1".into(), ..ProxyEnv::default() };
        assert_eq!(proxy_variables(&proxy), ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"]);
    }

    #[test]
    fn limits_know_unlimited_and_refuse_other_negatives() {
        let ulimit = |soft, hard| Ulimit { name: "NOFILE".into(), soft, hard };
        let expected = Limit { name: "nofile".into(), soft: 1, hard: u64::MAX };
        assert_eq!(limit(&ulimit(1, -1)).expect("valid"), expected);
        assert!(limit(&ulimit(-2, 1)).is_err());
    }
}
