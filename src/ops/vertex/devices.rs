//! The devices of a step, opened on the machine and added to what the process sees.

use std::path::Path;

use crate::cdi::{CdiError, DeviceNode, Devices, Injection};
use crate::exec::{ExecMount, ExecSpec, MountSource};
use crate::llb::CdiDevice;
use crate::ops::OpsError;
use crate::sys::dir::{self, Kind, Stat};
use crate::sys::{fds, idmap};

/// Devices that are open.
pub(super) struct StepDevices {
    env: Vec<String>,
    mounts: Vec<ExecMount>,
    /// What the step's log should say.
    pub(super) notices: Vec<String>,
    /// Names of optional devices that are not there.
    pub(super) missing: Vec<String>,
}

impl StepDevices {
    /// Opens what the devices of a step come to.
    pub(super) fn open(devices: &Devices, wanted: &[CdiDevice]) -> Result<Self, OpsError> {
        let Injection { env, nodes, mounts, missing } = match wanted {
            [] => Injection::default(),
            wanted => devices.injection(wanted).map_err(|error: CdiError| OpsError::from(error))?,
        };
        let mut step = Self { env, mounts: Vec::new(), notices: Vec::new(), missing };
        for node in &nodes {
            step.open_node(node)?;
        }
        for mount in mounts {
            let path = open(&mount.host_path)?;
            let (dest, readonly) = (mount.container_path.clone(), mount.readonly());
            step.mounts.push(ExecMount { dest, readonly, source: MountSource::HostPath { path } });
        }
        Ok(step)
    }

    fn open_node(&mut self, node: &DeviceNode) -> Result<(), OpsError> {
        let path = node.host();
        let opened = open(path)?;
        let stat = dir::stat_of(&opened).map_err(|source| file_error(path, source))?;
        check(node, &stat).map_err(|reason| file_error(path, std::io::Error::other(reason)))?;
        if node.has_owner_or_mode() {
            self.notices.push(format!("{}: owner and mode stay those of {path} of the machine", node.path));
        }
        let whole = idmap::users().is_ok_and(|users| idmap::is_whole(&users));
        if !whole && stat.permissions() & 0o006 != 0o006 {
            self.notices.push(format!(
                "{}: without root the step can use it only as others may, and the mode of {path} of the machine is {:04o}",
                node.path,
                stat.permissions()
            ));
        }
        let source = MountSource::Device { node: opened };
        self.mounts.push(ExecMount { dest: node.path.clone(), readonly: false, source });
        Ok(())
    }

    /// Adds them to a step: variables and mounts take the place of those that have their name.
    pub(super) fn give(self, spec: &mut ExecSpec) {
        for variable in self.env {
            let name = variable.split('=').next().unwrap_or_default();
            let same = |other: &&mut String| other.split('=').next() == Some(name);
            match spec.env.iter_mut().find(same) {
                Some(other) => *other = variable,
                None => spec.env.push(variable),
            }
        }
        spec.mounts.retain(|mount| self.mounts.iter().all(|own| own.dest != mount.dest));
        spec.mounts.extend(self.mounts);
    }
}

/// What a description says of a node, the machine's node has to be: it is passed through, not made.
fn check(node: &DeviceNode, stat: &Stat) -> Result<(), String> {
    let found = match stat.kind() {
        Kind::CharDevice => "c",
        Kind::BlockDevice => "b",
        Kind::Fifo => "p",
        _ => return Err("it is no device node".to_owned()),
    };
    let wanted = if node.r#type == "u" { "c" } else { &node.r#type };
    if !wanted.is_empty() && wanted != found {
        return Err(format!("it is a node of type {found}, not {wanted}"));
    }
    let number = dir::device_numbers(stat.rdev);
    if found != "p" && node.major != 0 && number != (node.major, node.minor) {
        return Err(format!("it is device {}:{}, not {}:{}", number.0, number.1, node.major, node.minor));
    }
    Ok(())
}

fn open(path: &str) -> Result<std::os::fd::OwnedFd, OpsError> {
    fds::open_path(Path::new(path)).map_err(|source| file_error(path, source))
}

fn file_error(path: &str, source: std::io::Error) -> OpsError {
    OpsError::DeviceFile { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_to_be_what_its_description_says() {
        let stat = dir::stat_of(open("/dev/null").expect("there")).expect("stat");
        let node = |kind: &str, major, minor| DeviceNode { r#type: kind.into(), major, minor, ..DeviceNode::default() };
        for (node, expected) in [
            (node("", 0, 0), Ok(())),
            (node("c", 1, 3), Ok(())),
            (node("u", 0, 7), Ok(())),
            (node("b", 1, 3), Err("it is a node of type c, not b".to_owned())),
            (node("c", 1, 5), Err("it is device 1:3, not 1:5".to_owned())),
        ] {
            assert_eq!(check(&node, &stat), expected, "{node:?}");
        }
        let directory = dir::stat_of(open("/dev").expect("there")).expect("stat");
        assert_eq!(check(&node("", 0, 0), &directory), Err("it is no device node".to_owned()));
    }
}
