//! Builds of a case: inputs as files and flags, the real binary, the states of its steps.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::case::{Case, Inputs, is_comparable};
use crate::layout::{Layout, assemble};
use crate::registry::BaseRegistry;
use crate::support::build::{Project, User, run};

/// A project that holds a case's inputs.
pub(crate) struct Workshop {
    pub(crate) project: Project,
    /// The folder of all cases, whose `base` is the store of `oci-layout://base` contexts.
    folder: PathBuf,
    contexts: PathBuf,
    user: User,
    inputs: Inputs,
}

impl Workshop {
    /// Lays out the inputs of a case.
    pub(crate) fn new(case: &Case, user: User, registry: &BaseRegistry) -> Self {
        let project = Project::new(user);
        let archive = case.path.join("context.tar");
        if archive.exists() {
            // As the user: a change of owner would take the special bits off.
            let mut tar = project.command("tar");
            tar.args(["--xattrs", "--xattrs-include=user.*", "--no-same-owner", "-p", "-x", "-C"])
                .arg(project.context());
            tar.stdin(fs::File::open(archive).unwrap());
            assert!(tar.status().unwrap().success(), "tar");
        } else if case.path.join("context").exists() {
            copy(&case.path.join("context"), &project.context());
            project.own(&project.context());
        }
        fs::write(project.home().join("buildkitd.toml"), registry.config()).unwrap();
        let (folder, contexts) = (case.folder.clone(), project.home().join("local"));
        if case.path.join("local").exists() {
            fs::create_dir(&contexts).unwrap();
            copy(&case.path.join("local"), &contexts);
            project.own(&contexts);
        }
        Self { project, folder, contexts, user, inputs: case.inputs.clone() }
    }

    /// Applies one change.
    pub(crate) fn change(&mut self, change: &Value) {
        let text = |key: &str| change[key].as_str().unwrap_or_else(|| panic!("{change}")).to_owned();
        let place = || self.project.context().join(text("path"));
        let owner = fs::metadata(self.project.context()).unwrap();
        match text("op").as_str() {
            "write" => {
                if let Some(parent) = place().parent() {
                    fs::create_dir_all(parent).unwrap();
                }
                fs::write(place(), text("data")).unwrap();
                fs::set_permissions(place(), fs::Permissions::from_mode(0o644)).unwrap();
            }
            "chmod" => {
                let mode = u32::from_str_radix(&text("mode"), 8).unwrap();
                fs::set_permissions(place(), fs::Permissions::from_mode(mode)).unwrap();
            }
            "mtime" => {
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(change["time"].as_u64().unwrap());
                fs::File::open(place()).unwrap().set_modified(time).unwrap();
            }
            "remove" if place().is_dir() => fs::remove_dir_all(place()).unwrap(),
            "remove" => fs::remove_file(place()).unwrap(),
            "symlink" => {
                let target = ["target", "to", "data"].iter().find_map(|key| change[*key].as_str()).unwrap();
                let _ = fs::remove_file(place());
                std::os::unix::fs::symlink(target, place()).unwrap();
            }
            "dockerfile" => {
                assert_eq!(self.inputs.dockerfile.matches(&text("old")).count(), 1);
                self.inputs.dockerfile = self.inputs.dockerfile.replace(&text("old"), &text("new"));
            }
            "opt" => self.inputs.opt.extend(set(change)),
            "secret" => self.inputs.secret.extend(set(change)),
            other => panic!("unknown change {other}"),
        }
        // Only what is new: a change of owner takes special bits off.
        if self.user == User::Rootless && matches!(change["op"].as_str(), Some("write" | "symlink")) {
            let (place, context) = (place(), self.project.context());
            let new = place.ancestors().take_while(|path| *path != context);
            new.for_each(|path| std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid())).unwrap());
        }
    }

    /// Builds with an empty state directory and returns the states of the comparable steps.
    pub(crate) fn build(&self, args: &[String]) -> Vec<(String, String)> {
        let _ = fs::remove_dir_all(self.project.state());
        let mut all: Vec<String> = vec!["--progress".into(), "rawjson".into()];
        all.extend(["--config".into(), self.home("buildkitd.toml"), "-f".into(), self.home("Dockerfile")]);
        fs::write(self.project.home().join("Dockerfile"), &self.inputs.dockerfile).unwrap();
        for (key, value) in &self.inputs.opt {
            all.extend(self.flags(key, value));
        }
        for (id, value) in &self.inputs.secret {
            let place = self.home(&format!("secret-{id}"));
            fs::write(&place, value).unwrap();
            all.extend(["--secret".into(), format!("id={id},src={place}")]);
        }
        all.extend_from_slice(args);
        all.push(self.project.context().to_str().unwrap().to_owned());
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let output = run(self.project.rbuild_command(&all)).success();
        states(&output.stderr)
    }

    /// The flags that stand for a frontend option.
    fn flags(&self, key: &str, value: &str) -> Vec<String> {
        match key.split_once(':') {
            Some(("build-arg", name)) => return one("--build-arg", format!("{name}={value}")),
            Some(("label", name)) => return one("--label", format!("{name}={value}")),
            Some(("context", name)) => return one("--build-context", format!("{name}={}", self.context(value))),
            _ => {}
        }
        match key {
            "target" | "platform" | "shm-size" | "memory" | "cgroup-parent" => one(&format!("--{key}"), value),
            "memswap" => one("--memory-swap", value),
            "cpushares" => one("--cpu-shares", value),
            "cpuperiod" => one("--cpu-period", value),
            "cpuquota" => one("--cpu-quota", value),
            "cpusetcpus" => one("--cpuset-cpus", value),
            "cpusetmems" => one("--cpuset-mems", value),
            // The frontend takes these two as arguments as well, and only so from the command line.
            "hostname" => one("--build-arg", format!("BUILDKIT_SANDBOX_HOSTNAME={value}")),
            "multi-platform" => one("--build-arg", format!("BUILDKIT_MULTI_PLATFORM={value}")),
            "image-resolve-mode" if value == "pull" => vec!["--pull".into()],
            // Names are asked of the registry in every mode, as nothing is kept of them.
            "image-resolve-mode" => Vec::new(),
            // It is where the case has its Dockerfile.
            "filename" => Vec::new(),
            "force-network-mode" => one("--network", value),
            "add-hosts" => each("--add-host", &value.replace('=', ":")),
            "ulimit" => each("--ulimit", value),
            "no-cache" if value.is_empty() => vec!["--no-cache".into()],
            "no-cache" => each("--no-cache-filter", value),
            other => panic!("no flag for option {other}"),
        }
    }

    /// A named context as the command line has it: local ones are the case's `local/NAME`, layouts are `base`.
    fn context(&self, value: &str) -> String {
        if let Some(name) = value.strip_prefix("local:") {
            return self.contexts.join(name).to_str().unwrap().to_owned();
        }
        let Some(digest) = value.strip_prefix("oci-layout://base@") else { return value.to_owned() };
        let layout = self.layout("base");
        assemble(&self.folder, &self.folder.join("base"), &layout.0);
        self.project.own(&layout.0);
        format!("oci-layout://{}@{digest}", layout.0.display())
    }

    /// A path in the project's home as text.
    pub(crate) fn home(&self, name: &str) -> String {
        self.project.home().join(name).to_str().unwrap().to_owned()
    }

    /// A place for a layout that the build writes, with nothing there.
    pub(crate) fn layout(&self, name: &str) -> Layout {
        let place = self.project.home().join(name);
        let _ = fs::remove_dir_all(&place);
        Layout(place)
    }

    /// Gives a directory that was made for the build to its user.
    pub(crate) fn give(&self, path: &Path) {
        self.project.own(path);
    }
}

fn set(change: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(change["set"].clone()).unwrap()
}

fn one(flag: &str, value: impl Into<String>) -> Vec<String> {
    vec![flag.to_owned(), value.into()]
}

fn each(flag: &str, list: &str) -> Vec<String> {
    list.split(',').flat_map(|value| one(flag, value)).collect()
}

/// Copies a context: files 0644, directories 0755, whatever the checkout's are.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let place: PathBuf = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), &place).unwrap();
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&place).unwrap();
            copy(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), &place).unwrap();
        }
        let mode = if kind.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// The states of the comparable steps, by the last that is said of each.
fn states(progress: &str) -> Vec<(String, String)> {
    let mut states: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in progress.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        for vertex in line["vertexes"].as_array().into_iter().flatten() {
            let name = vertex["name"].as_str().unwrap_or_default();
            if is_comparable(name) && vertex.get("completed").is_some() {
                let state = if vertex["cached"].as_bool() == Some(true) { "CACHED" } else { "RUN" };
                states.insert(vertex["digest"].as_str().unwrap().to_owned(), (state.to_owned(), name.to_owned()));
            }
        }
    }
    let mut states: Vec<_> = states.into_values().collect();
    states.sort();
    states
}
