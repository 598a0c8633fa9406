//! The devices of a machine by name, and what a step gets of them.
//!
//! Directories behind others come first where both have a device; two files of one directory that have it make it unusable,
//! as BuildKit's reader says. A file that cannot be read takes nothing away but its own devices; it is told when a device is
//! missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::spec::{self, DeviceNode, Edits, HostMount, Spec};
use super::{CdiError, Grants};
use crate::diag::suggest;
use crate::llb::CdiDevice;

/// Where descriptions are looked for, the last first.
pub const SPEC_DIRS: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];
/// The largest file that is read.
const MAX_FILE: u64 = 16 << 20;
/// How many devices an error lists.
const LISTED: usize = 20;

const CLASS: &str = "org.mobyproject.buildkit.device.class";
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// Which devices there may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Directories with descriptions; none if devices are turned off.
    pub dirs: Vec<PathBuf>,
    /// Devices, and kinds of them, that need no grant.
    pub auto_allowed: Vec<String>,
}

/// The devices of a machine.
#[derive(Debug, Default)]
pub struct Devices {
    options: DeviceOptions,
    grants: Grants,
    inventory: OnceLock<Inventory>,
}

/// What a step is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// Devices, as the cache key names them.
    pub devices: Vec<CdiDevice>,
    /// Names of optional devices that are not there.
    pub missing: Vec<String>,
}

/// What a step gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Injection {
    /// Variables, `NAME=value`, in order.
    pub env: Vec<String>,
    /// Nodes.
    pub nodes: Vec<DeviceNode>,
    /// Files and directories.
    pub mounts: Vec<HostMount>,
    /// Names of optional devices that are not there.
    pub missing: Vec<String>,
}

#[derive(Debug, Default)]
struct Inventory {
    /// By full name, `VENDOR/CLASS=NAME`.
    devices: BTreeMap<String, Known>,
    /// Files that give no devices, each with the reason.
    unread: Vec<String>,
}

#[derive(Debug, Clone)]
struct Known {
    file: Arc<PathBuf>,
    spec: Arc<Spec>,
    edits: Edits,
    annotations: BTreeMap<String, String>,
}

impl Devices {
    /// Knows where devices are described and which are granted; reads nothing yet.
    pub fn new(options: DeviceOptions, grants: Grants) -> Self {
        Self { options, grants, inventory: OnceLock::new() }
    }

    /// Tells what a step that names `wanted` is to have: the full names of the devices that are there. Where all devices are
    /// granted nothing is looked up, and names stay as written. BuildKit does both before it makes the cache key.
    ///
    /// # Errors
    ///
    /// When a device is not granted, or is required and not there.
    pub fn granted(&self, wanted: &[CdiDevice]) -> Result<Granted, CdiError> {
        if self.grants.all || wanted.is_empty() {
            return Ok(Granted { devices: wanted.to_vec(), missing: Vec::new() });
        }
        let mut granted = Granted::default();
        let mut named = Vec::new();
        for device in wanted {
            match self.grants.names.get(&device.name) {
                Some(Some(other)) => granted.devices.push(CdiDevice { name: other.clone(), ..device.clone() }),
                _ => named.push(device.clone()),
            }
        }
        let found = self.find(&named, &mut granted.missing)?;
        let free: BTreeSet<&str> = self.grants.names.keys().flat_map(|name| self.inventory().find(name)).collect();
        let refused: Vec<String> = found
            .iter()
            .filter(|name| !free.contains(**name) && !self.needs_no_grant(name))
            .map(ToString::to_string)
            .collect();
        if !refused.is_empty() {
            return Err(CdiError::NotAllowed { names: refused });
        }
        granted.devices.extend(found.into_iter().map(|name| CdiDevice { name: name.to_owned(), optional: false }));
        Ok(granted)
    }

    /// Tells what the devices of a step come to.
    ///
    /// # Errors
    ///
    /// When one is required and not there, or asks for what cannot be done.
    pub fn injection(&self, wanted: &[CdiDevice]) -> Result<Injection, CdiError> {
        let mut injection = Injection::default();
        let found = self.find(wanted, &mut injection.missing)?;
        let mut specs = BTreeSet::new();
        for name in found {
            let Some(known) = self.inventory().devices.get(name) else { continue };
            if specs.insert(Arc::clone(&known.file)) {
                injection.add(name, known, &known.spec.container_edits)?;
            }
            injection.add(name, known, &known.edits)?;
        }
        Ok(injection)
    }

    /// Returns full names, each once, in the order asked for.
    fn find(&self, wanted: &[CdiDevice], missing: &mut Vec<String>) -> Result<Vec<&str>, CdiError> {
        let mut names: Vec<&str> = Vec::new();
        for device in wanted {
            let found = self.inventory().find(&device.name);
            if found.is_empty() && !device.optional {
                return Err(CdiError::NotRegistered {
                    name: device.name.clone(),
                    hints: self.missing_hints(&device.name),
                });
            }
            if found.is_empty() {
                missing.push(device.name.clone());
            }
            for name in found {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    fn needs_no_grant(&self, name: &str) -> bool {
        let kind = name.split('=').next().unwrap_or_default();
        let noted = || self.inventory().devices.get(name).and_then(|known| known.annotations.get(AUTO_ALLOW));
        self.options.auto_allowed.iter().any(|allowed| allowed == name || allowed == kind)
            || noted().is_some_and(|text| crate::dockerfile::text::parse_bool(text) == Some(true))
    }

    fn missing_hints(&self, name: &str) -> Vec<String> {
        let inventory = self.inventory();
        let names: Vec<&str> = inventory.devices.keys().map(String::as_str).collect();
        let mut hints = Vec::new();
        if let Some(near) = suggest(name, names.iter().copied()) {
            hints.push(format!("did you mean `{near}`?"));
        }
        if !names.is_empty() {
            let more = if names.len() > LISTED { ", …" } else { "" };
            let listed = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
            hints.push(format!("devices there are: {listed}{more}"));
        }
        hints.extend(inventory.unread.iter().take(LISTED).map(|text| format!("not read: {text}")));
        let dirs: Vec<String> = self.options.dirs.iter().map(|dir| dir.display().to_string()).collect();
        hints.push(match dirs.is_empty() {
            true => "devices are turned off: remove `disabled` below [cdi] of buildkitd.toml".to_owned(),
            false => format!(
                "describe it in a CDI file (JSON or YAML) in {}, or name its directory in `specDirs` below [cdi] of buildkitd.toml",
                dirs.join(", ")
            ),
        });
        hints.push("leave out `required` if the step can do without it".to_owned());
        hints
    }

    fn inventory(&self) -> &Inventory {
        self.inventory.get_or_init(|| Inventory::read(&self.options.dirs))
    }
}

impl Injection {
    fn add(&mut self, name: &str, known: &Known, edits: &Edits) -> Result<(), CdiError> {
        if let Some(reason) = edits.refused() {
            return Err(CdiError::Unusable { name: name.to_owned(), file: known.file.to_path_buf(), reason });
        }
        self.env.extend(edits.env.iter().cloned());
        for node in &edits.device_nodes {
            self.nodes.retain(|other| other.path != node.path);
            self.nodes.push(node.clone());
        }
        for mount in &edits.mounts {
            self.mounts.retain(|other| other.container_path != mount.container_path);
            self.mounts.push(mount.clone());
        }
        Ok(())
    }
}

impl Inventory {
    fn read(dirs: &[PathBuf]) -> Self {
        let mut inventory = Self::default();
        for dir in dirs {
            inventory.read_dir(dir);
        }
        inventory
    }

    fn read_dir(&mut self, dir: &Path) {
        let (mut here, mut twice) = (BTreeMap::new(), BTreeSet::new());
        for path in files(dir) {
            match read(&path) {
                Ok(spec) => add(&mut here, &mut twice, path, spec),
                Err(reason) => self.unread.push(format!("{}: {reason}", path.display())),
            }
        }
        self.devices.extend(here);
        for name in twice {
            self.devices.remove(&name);
            self.unread.push(format!("{name}: more than one file in {} describes it", dir.display()));
        }
    }

    /// Returns full names: the device of this name; of a kind alone the first, of `KIND=*` all; else those of a class.
    fn find(&self, wanted: &str) -> Vec<&str> {
        let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
        let of_kind = || self.names().filter(|known| known.split('=').next() == Some(kind));
        let qualified = kind.split_once('/').is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty());
        let found: Vec<&str> = match name {
            _ if !qualified => Vec::new(),
            "" => of_kind().take(1).collect(),
            "*" => of_kind().collect(),
            _ => self.names().filter(|known| *known == wanted).collect(),
        };
        if !found.is_empty() {
            return found;
        }
        let in_class = |known: &&Known| known.annotations.get(CLASS).is_some_and(|class| class == wanted);
        self.devices.iter().filter(|(_, known)| in_class(known)).map(|(name, _)| name.as_str()).collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.devices.keys().map(String::as_str)
    }
}

/// Adds the devices of a file; `twice` are those that another file of its directory has too.
fn add(here: &mut BTreeMap<String, Known>, twice: &mut BTreeSet<String>, path: PathBuf, spec: Spec) {
    let (file, spec) = (Arc::new(path), Arc::new(spec));
    for device in &spec.devices {
        let mut annotations = spec.annotations.clone();
        annotations.extend(device.annotations.clone());
        let name = format!("{}={}", spec.kind, device.name);
        let (file, spec, edits) = (Arc::clone(&file), Arc::clone(&spec), device.container_edits.clone());
        if here.insert(name.clone(), Known { file, spec, edits, annotations }).is_some() {
            twice.insert(name);
        }
    }
}

/// Returns the descriptions in a directory in order; one that is not there has none.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let known =
        |path: &PathBuf| path.extension().is_some_and(|kind| kind == "json" || kind == "yaml") && path.is_file();
    let mut paths: Vec<PathBuf> = paths.filter(known).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<Spec, String> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE).read_to_end(&mut text).map_err(|error| error.to_string())?;
    spec::parse(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULL: &str = r#""containerEdits":{"deviceNodes":[{"path":"/dev/foo","hostPath":"/dev/null"}]}"#;

    fn file(kind: &str, devices: &str) -> String {
        format!(
            r#"{{"cdiVersion":"0.6.0","kind":"{kind}","devices":[{devices}],"containerEdits":{{"env":["ALL=1"]}}}}"#
        )
    }

    fn device(name: &str, value: &str, annotations: &str) -> String {
        format!(r#"{{"name":"{name}","annotations":{{{annotations}}},"containerEdits":{{"env":["V={value}"]}}}}"#)
    }

    /// Two directories: the second has `v.com/c=b` again, and a device twice.
    fn machine(grants: &[&str], auto_allowed: &[&str]) -> (tempfile::TempDir, Devices) {
        let temp = tempfile::tempdir().expect("temp dir");
        let dirs = [temp.path().join("one"), temp.path().join("two"), temp.path().join("absent")];
        let write = |dir: usize, name: &str, text: String| {
            std::fs::create_dir_all(&dirs[dir]).expect("dir");
            std::fs::write(dirs[dir].join(name), text).expect("file");
        };
        let class = format!(r#""{CLASS}":"gpu""#);
        let auto = format!(r#""{AUTO_ALLOW}":"true""#);
        write(0, "a.json", file("v.com/c", &[device("a", "1", &class), device("b", "1", "")].join(",")));
        write(1, "a.json", file("v.com/c", &[device("b", "2", ""), device("t", "1", "")].join(",")));
        write(1, "b.yaml", file("v.com/c", &[device("t", "2", ""), device("u", "3", &auto)].join(",")));
        write(1, "c.yaml", "cdiVersion: 0.6.0\n".to_owned());
        let yaml = "cdiVersion: 0.6.0\nkind: y.com/c\ndevices:\n- name: a\n  containerEdits:\n    env: [Y=1]\n";
        write(1, "f.yaml", yaml.to_owned());
        write(1, "d.txt", "not looked at".to_owned());
        write(0, "e.json", file("w.com/c", &format!(r#"{{"name":"n",{NULL}}}"#)));
        let options =
            DeviceOptions { dirs: dirs.to_vec(), auto_allowed: auto_allowed.iter().map(ToString::to_string).collect() };
        (temp, Devices::new(options, Grants::among(grants.iter().copied()).expect("valid")))
    }

    fn wanted(names: &[&str]) -> Vec<CdiDevice> {
        let device =
            |name: &&str| CdiDevice { name: name.trim_start_matches('?').to_owned(), optional: name.starts_with('?') };
        names.iter().map(device).collect()
    }

    #[test]
    fn names_kinds_classes_and_all_of_a_kind() {
        let (_temp, devices) = machine(&["device"], &[]);
        for (name, expected) in [
            ("v.com/c=a", vec!["v.com/c=a"]),
            ("v.com/c", vec!["v.com/c=a"]),
            ("v.com/c=", vec!["v.com/c=a"]),
            ("v.com/c=*", vec!["v.com/c=a", "v.com/c=b", "v.com/c=u"]),
            ("gpu", vec!["v.com/c=a"]),
            ("v.com/c=t", vec![]),
            ("y.com/c=a", vec!["y.com/c=a"]),
            ("v.com/d=a", vec![]),
            ("v.com", vec![]),
        ] {
            assert_eq!(devices.inventory().find(name), expected, "{name}");
        }
    }

    #[test]
    fn later_directories_come_first_and_a_files_own_edits_come_once() {
        let (_temp, devices) = machine(&["device"], &[]);
        let injection =
            devices.injection(&wanted(&["v.com/c=b", "v.com/c=*", "?x.com/y=z", "w.com/c=n"])).expect("there");
        assert_eq!(injection.env, ["ALL=1", "V=2", "ALL=1", "V=1", "ALL=1", "V=3", "ALL=1"]);
        assert_eq!((injection.nodes[0].path.as_str(), injection.nodes[0].host()), ("/dev/foo", "/dev/null"));
        assert_eq!(injection.missing, ["x.com/y=z"]);
    }

    #[test]
    fn what_is_missing_is_told_with_what_there_is() {
        let (_temp, devices) = machine(&["device"], &[]);
        let error = devices.injection(&wanted(&["v.com/c=aa"])).expect_err("not there");
        assert_eq!(error.to_string(), "required device \"v.com/c=aa\" is not registered");
        let CdiError::NotRegistered { hints, .. } = error else { panic!() };
        let hints = hints.join("\n");
        for part in [
            "did you mean `v.com/c=a`?",
            "devices there are: v.com/c=a, v.com/c=b, v.com/c=u, w.com/c=n, y.com/c=a",
            "c.yaml: ",
            "missing field `kind`",
            "not read: v.com/c=t: more than one file",
            "specDirs",
        ] {
            assert!(hints.contains(part), "{part}: {hints}");
        }
    }

    #[test]
    fn grants_decide_what_the_key_of_a_step_names() {
        let names = |grants: &[&str], auto: &[&str], asked: &[&str]| {
            let (_temp, devices) = machine(grants, auto);
            let granted = devices.granted(&wanted(asked)).map_err(|error| error.to_string())?;
            Ok::<_, String>(
                granted
                    .devices
                    .into_iter()
                    .map(|d| format!("{}{}", if d.optional { "?" } else { "" }, d.name))
                    .collect::<Vec<_>>(),
            )
        };
        let some = |names: &[&str]| Ok(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&["device"], &[], &["?x", "gpu"]), some(&["?x", "gpu"]));
        assert_eq!(names(&["device=v.com/c=a"], &[], &["?x", "gpu"]), some(&["v.com/c=a"]));
        assert_eq!(names(&["device=v.com/c=a,alias=mine"], &[], &["?mine"]), some(&["?v.com/c=a"]));
        assert_eq!(names(&["device=gpu"], &[], &["v.com/c"]), some(&["v.com/c=a"]));
        assert_eq!(names(&[], &[], &["?v.com/c=u"]), some(&["v.com/c=u"]));
        assert_eq!(names(&[], &["v.com/c"], &["v.com/c=b"]), some(&["v.com/c=b"]));
        assert_eq!(names(&[], &["w.com/c=n"], &["w.com/c"]), some(&["w.com/c=n"]));
        assert_eq!(names(&[], &[], &["?x.com/y=z"]), some(&[]));
        let error = names(&["device=w.com/c=n"], &[], &["v.com/c=*"]).expect_err("not granted");
        assert_eq!(error, "devices v.com/c=a, v.com/c=b are requested by the build but not allowed");
        let error = names(&[], &[], &["gpu"]).expect_err("not granted");
        assert_eq!(error, "device v.com/c=a is requested by the build but not allowed");
        assert!(names(&["device=v.com/c=a"], &[], &["x"]).expect_err("missing").contains("not registered"));
    }
}
