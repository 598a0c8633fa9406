//! One CDI file: text to devices, checked.
//!
//! Unknown fields are errors, as in the reader BuildKit has: an edit that is not understood would be left out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// Why a file describes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The text is no JSON, or JSON of another shape.
    #[error("{0}")]
    Json(String),
    /// The text is no YAML, or YAML of another shape.
    #[error("{0}")]
    Yaml(String),
    /// A value is not allowed.
    #[error("{0}")]
    Value(String),
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Spec {
    /// Version of the format.
    pub cdi_version: String,
    /// `VENDOR/CLASS`.
    pub kind: String,
    /// Notes about all devices.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The devices.
    pub devices: Vec<Device>,
    /// What any of them brings along.
    #[serde(default)]
    pub container_edits: Edits,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Device {
    /// Its name within the kind.
    pub name: String,
    /// Notes about it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What it is.
    pub container_edits: Edits,
}

/// What a step is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Edits {
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// Nodes.
    pub device_nodes: Vec<DeviceNode>,
    /// Files and directories.
    pub mounts: Vec<HostMount>,
    /// Programs of the machine to run.
    pub hooks: Vec<Hook>,
    /// Network devices to move.
    pub net_devices: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Cache allocation.
    pub intel_rdt: Option<serde_json::Map<String, serde_json::Value>>,
    /// Groups.
    pub additional_gids: Vec<u32>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DeviceNode {
    /// Where the step sees it.
    pub path: String,
    /// Where the machine has it; the same path if empty.
    pub host_path: String,
    /// `c` and `u`, `b` or `p`; as the machine has it if empty.
    pub r#type: String,
    /// As the machine has it if 0.
    pub major: u32,
    /// As the machine has it if `major` is 0.
    pub minor: u32,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// What a control group would allow; steps have none of their own.
    pub permissions: String,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// A file or directory of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HostMount {
    /// Where the machine has it.
    pub host_path: String,
    /// Where the step sees it.
    pub container_path: String,
    /// Mount options.
    pub options: Vec<String>,
    /// Type of file system; `bind` if empty.
    pub r#type: String,
}

/// A program of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Hook {
    /// When it is run.
    pub hook_name: String,
    /// The program.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its variables.
    pub env: Vec<String>,
    /// How many seconds it may take.
    pub timeout: Option<i64>,
}

/// Reads a file, JSON or YAML: the text tells which it is, as one is written with a brace first and the other hardly ever.
///
/// # Errors
///
/// When it is neither, or has a field or value that CDI does not know.
pub fn parse(text: &[u8]) -> Result<Spec, SpecError> {
    let spec = match text.trim_ascii_start().first() {
        Some(b'{') | None => serde_json::from_slice(text).map_err(|error| SpecError::Json(error.to_string()))?,
        Some(_) => yaml(text)?,
    };
    Spec::check(&spec).map_err(SpecError::Value)?;
    Ok(spec)
}

/// Reads YAML as Go programs do, for which `0666` is octal. Anchors that multiply and deep nesting are refused.
fn yaml(text: &[u8]) -> Result<Spec, SpecError> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_slice_with_options(text, options).map_err(|error| SpecError::Yaml(error.to_string()))
}

impl Spec {
    fn check(&self) -> Result<(), String> {
        if !["0.", "1."].iter().any(|major| self.cdi_version.starts_with(major)) {
            return Err(format!("unknown cdiVersion {:?}", self.cdi_version));
        }
        let (vendor, class) = self.kind.split_once('/').unwrap_or_default();
        if !is_name(vendor, char::is_alphabetic, "_-.") || !is_name(class, char::is_alphabetic, "_-.") {
            return Err(format!("kind {:?} is not VENDOR/CLASS", self.kind));
        }
        let mut names = BTreeSet::new();
        for device in &self.devices {
            if !is_name(&device.name, char::is_alphanumeric, "_-.:") {
                return Err(format!("invalid device name {:?}", device.name));
            }
            if !names.insert(&device.name) {
                return Err(format!("device {:?} is there twice", device.name));
            }
            if device.container_edits == Edits::default() {
                return Err(format!("device {:?} has no containerEdits", device.name));
            }
            device.container_edits.check()?;
        }
        self.container_edits.check()
    }
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        let names = |variable: &&String| variable.find('=').is_none_or(|at| at == 0) || variable.contains('\0');
        if let Some(variable) = self.env.iter().find(names) {
            return Err(format!("invalid variable {variable:?}"));
        }
        if let Some(node) = self.device_nodes.iter().find(|node| !is_path(&node.path)) {
            return Err(format!("invalid path {:?} of a device node", node.path));
        }
        if let Some(node) = self.device_nodes.iter().find(|node| !["", "b", "c", "u", "p"].contains(&&*node.r#type)) {
            return Err(format!("invalid type {:?} of device node {}", node.r#type, node.path));
        }
        let paths = |mount: &&HostMount| !is_path(&mount.host_path) || !is_path(&mount.container_path);
        match self.mounts.iter().find(paths) {
            Some(mount) => Err(format!("invalid mount of {:?} at {:?}", mount.host_path, mount.container_path)),
            None => Ok(()),
        }
    }

    /// Returns what these edits ask for that no step is given.
    pub(super) fn refused(&self) -> Option<String> {
        if let Some(hook) = self.hooks.first() {
            return Some(format!("asks for the hook {} ({}), and hooks are not run", hook.hook_name, hook.path));
        }
        if !self.net_devices.is_empty() {
            return Some("asks for network devices (netDevices), which stay with the machine".to_owned());
        }
        if self.intel_rdt.is_some() {
            return Some("asks for cache allocation (intelRdt), which steps do not get".to_owned());
        }
        if self.additional_gids.iter().any(|gid| *gid != 0) {
            return Some("asks for further groups (additionalGids), and groups are those of the image".to_owned());
        }
        self.mounts.iter().find_map(HostMount::refused)
    }
}

impl DeviceNode {
    /// Returns where the machine has it.
    pub fn host(&self) -> &str {
        if self.host_path.is_empty() { &self.path } else { &self.host_path }
    }

    /// Tells whether it asks for owner or mode, which a node that is passed through keeps.
    pub fn has_owner_or_mode(&self) -> bool {
        self.file_mode.is_some() || self.uid.is_some() || self.gid.is_some()
    }
}

impl HostMount {
    /// Tells whether steps may not write to it.
    pub fn readonly(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }

    /// Mounts of steps never honour set-id bits and devices, and are seen by the step alone.
    fn refused(&self) -> Option<String> {
        const KNOWN: [&str; 10] =
            ["bind", "rbind", "ro", "rw", "nosuid", "nodev", "private", "rprivate", "slave", "rslave"];
        if !["", "bind", "none"].contains(&self.r#type.as_str()) {
            return Some(format!("asks for a mount of type {:?}, and only bind is there", self.r#type));
        }
        let unknown = self.options.iter().find(|option| !KNOWN.contains(&option.as_str()))?;
        Some(format!("asks for the mount option {unknown:?}, which is none of {}", KNOWN.join(", ")))
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0')
}

fn is_name(name: &str, first: fn(char) -> bool, between: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || between.contains(c);
    name.is_ascii()
        && name.starts_with(first)
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(devices: &str) -> String {
        format!(r#"{{"cdiVersion":"0.6.0","kind":"vendor1.com/device","devices":[{devices}]}}"#)
    }

    fn yaml_with(edits: &str) -> String {
        format!(
            "cdiVersion: 0.6.0\nkind: vendor1.com/device\ndevices:\n- name: \"0\"\n  containerEdits:\n    {edits}\n"
        )
    }

    #[test]
    fn yaml_says_what_json_says() {
        let json = r#"{"cdiVersion":"0.5.0","kind":"vendor1.com/device","annotations":{"a":"1"},
            "containerEdits":{"env":["ALL=void"],"deviceNodes":[{"path":"/dev/ctl","fileMode":438,"permissions":"rw"}],
              "hooks":[{"hookName":"createContainer","path":"/usr/bin/ctk","args":["ctk","hook","--folder","/usr/lib"]}],
              "mounts":[{"hostPath":"/usr/lib/a.so","containerPath":"/usr/lib/a.so","options":["ro","nosuid","nodev","bind"]}]},
            "devices":[{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/x0","uid":7}]}},{"name":"all","containerEdits":{"env":["X=#y: z"]}}]}"#;
        let yaml = "---\n# of the machine\ncdiVersion: 0.5.0\nkind: vendor1.com/device\nannotations: {a: \"1\"}\ncontainerEdits:\n  env:\n  - ALL=void\n  \
            deviceNodes:\n  - path: /dev/ctl\n    fileMode: 0666\n    permissions: rw\n  hooks:\n  - args:\n    - ctk\n    - hook\n    - --folder\n    - /usr/lib\n    \
            hookName: createContainer\n    path: /usr/bin/ctk\n  mounts:\n  - containerPath: /usr/lib/a.so\n    hostPath: /usr/lib/a.so\n    options:\n    - ro\n    \
            - nosuid\n    - nodev\n    - bind\ndevices:\n- containerEdits:\n    deviceNodes:\n    - path: /dev/x0\n      uid: 7\n  name: \"0\"\n- name: all\n  \
            containerEdits:\n    env: ['X=#y: z']\n";
        assert_eq!(parse(yaml.as_bytes()), parse(json.as_bytes()));
        assert!(parse(yaml.as_bytes()).is_ok());
    }

    #[test]
    fn reads_a_device_with_all_it_may_have() {
        let text = with(
            r#"{"name":"foo","annotations":{"a":"b"},"containerEdits":{"env":["FOO=injected"],
               "deviceNodes":[{"path":"/dev/x","hostPath":"/dev/null","type":"c","major":1,"minor":3,"fileMode":438,"permissions":"rw","uid":0,"gid":0}],
               "mounts":[{"hostPath":"/lib/x","containerPath":"/x","options":["ro","bind"]}]}}"#,
        );
        let spec = parse(text.as_bytes()).expect("valid");
        let edits = &spec.devices[0].container_edits;
        assert_eq!(
            (spec.kind.as_str(), edits.env.as_slice()),
            ("vendor1.com/device", ["FOO=injected".to_owned()].as_slice())
        );
        assert_eq!((edits.device_nodes[0].host(), edits.device_nodes[0].has_owner_or_mode()), ("/dev/null", true));
        assert!(edits.mounts[0].readonly());
        assert_eq!(edits.refused(), None);
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let named = |name: &str| with(&format!(r#"{{"name":"{name}","containerEdits":{{"env":["A=b"]}}}}"#));
        let edits = |edits: &str| with(&format!(r#"{{"name":"a","containerEdits":{edits}}}"#));
        for (text, message) in [
            (String::new(), "EOF while parsing"),
            ("cdiVersion: 0.6.0\n".to_owned(), "missing field `kind`"),
            (yaml_with("env: [x=y]\n    somethingNew: 1"), "unknown field `somethingNew`"),
            (yaml_with("env: [x]"), "invalid variable \"x\""),
            (yaml_with("env: [x=y]\n    env: [z=y]"), "duplicate"),
            (yaml_with("env: [x=y"), "line"),
            ("a: &a [1,1,1,1,1,1]\n".to_owned(), "unknown field `a`"),
            (named("a").replace("0.6.0", "2.0.0"), "unknown cdiVersion \"2.0.0\""),
            (named("a").replace("vendor1.com/device", "vendor1.com"), "kind \"vendor1.com\" is not VENDOR/CLASS"),
            (named("a").replace("vendor1.com/device", "1/device"), "kind \"1/device\" is not VENDOR/CLASS"),
            (named("a-"), "invalid device name \"a-\""),
            (named("a b"), "invalid device name \"a b\""),
            (with(r#"{"name":"a","containerEdits":{}}"#), "device \"a\" has no containerEdits"),
            (edits(r#"{"env":["=x"]}"#), "invalid variable \"=x\""),
            (edits(r#"{"env":["x"]}"#), "invalid variable \"x\""),
            (edits(r#"{"deviceNodes":[{"path":"dev/x"}]}"#), "invalid path \"dev/x\" of a device node"),
            (edits(r#"{"deviceNodes":[{"path":"/dev/x","type":"d"}]}"#), "invalid type \"d\" of device node /dev/x"),
            (edits(r#"{"mounts":[{"hostPath":"/x"}]}"#), "invalid mount of \"/x\" at \"\""),
            (edits(r#"{"somethingNew":1}"#), "unknown field `somethingNew`"),
        ] {
            let error = parse(text.as_bytes()).expect_err(&text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        let twice =
            with(r#"{"name":"a","containerEdits":{"env":["A=b"]}},{"name":"a","containerEdits":{"env":["A=b"]}}"#);
        assert_eq!(parse(twice.as_bytes()).expect_err("twice").to_string(), "device \"a\" is there twice");
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (edits, reason) in [
            (r#"{"hooks":[{"hookName":"createContainer","path":"/h","args":["h"]}]}"#, "the hook createContainer (/h)"),
            (r#"{"netDevices":[{"hostInterfaceName":"e","name":"f"}]}"#, "netDevices"),
            (r#"{"intelRdt":{"closID":"x"}}"#, "intelRdt"),
            (r#"{"additionalGids":[44]}"#, "additionalGids"),
            (r#"{"mounts":[{"hostPath":"/x","containerPath":"/y","type":"tmpfs"}]}"#, "type \"tmpfs\""),
            (r#"{"mounts":[{"hostPath":"/x","containerPath":"/y","options":["noexec"]}]}"#, "option \"noexec\""),
        ] {
            let spec = parse(with(&format!(r#"{{"name":"a","containerEdits":{edits}}}"#)).as_bytes()).expect(edits);
            let refused = spec.devices[0].container_edits.refused().expect(edits);
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
