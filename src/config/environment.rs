//! The process environment, read once.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The environment a run was started with.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    root_user: bool,
}

impl Environment {
    /// Reads the environment of this process; `root_user` says whether it was started by uid 0.
    pub fn read(root_user: bool) -> Self {
        Self { variables: std::env::vars_os().collect(), root_user }
    }

    /// Makes an environment of given variables.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, root_user: bool) -> Self {
        let variables = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self { variables, root_user }
    }

    /// Returns a variable as text; one that is not UTF-8 counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(OsStr::new(name)).and_then(|value| value.to_str())
    }

    /// Returns a variable's bytes.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.variables.get(OsStr::new(name)).map(|value| value.as_bytes().to_vec())
    }

    /// Returns the first of several variables that is set to something, as text.
    pub fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().filter_map(|name| self.text(name)).find(|value| !value.is_empty()).map(str::to_owned)
    }

    /// Returns a variable as a path, none where it is empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// Returns whether a variable is set to something other than nothing.
    pub fn is_set(&self, name: &str) -> bool {
        self.path(name).is_some()
    }

    /// Returns the user's home directory.
    pub fn home(&self) -> PathBuf {
        self.path("HOME").unwrap_or_else(|| PathBuf::from("/"))
    }

    /// Returns the state directory used where none is named: `/var/lib/rbuild` as root, else below `XDG_DATA_HOME`.
    pub fn default_root(&self) -> PathBuf {
        self.default_root_and_why().0
    }

    /// Returns that directory, and the variable it depends on.
    pub(super) fn default_root_and_why(&self) -> (PathBuf, Option<&'static str>) {
        const DATA: &str = "XDG_DATA_HOME";
        if self.root_user {
            return (PathBuf::from("/var/lib/rbuild"), None);
        }
        match self.path(DATA) {
            Some(data) => (data.join("rbuild"), Some(DATA)),
            None => (self.home().join(".local/share/rbuild"), Some("HOME")),
        }
    }

    /// Returns where `buildkitd.toml` is looked for: where BuildKit does, `/etc` also for who has no home.
    pub fn buildkitd_config(&self) -> PathBuf {
        let own = || self.path("XDG_CONFIG_HOME").or_else(|| self.path("HOME").map(|home| home.join(".config")));
        let folder = if self.root_user { None } else { own() };
        folder.unwrap_or_else(|| PathBuf::from("/etc")).join("buildkit/buildkitd.toml")
    }

    /// Returns the files that may hold registry credentials, the first existing one counting.
    pub fn auth_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.path("REGISTRY_AUTH_FILE").into_iter().collect();
        let docker = self.path("DOCKER_CONFIG").unwrap_or_else(|| self.home().join(".docker"));
        files.push(docker.join("config.json"));
        files.extend(self.path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")));
        files
    }

    /// Returns the absolute directories of `PATH`; relative ones, which a checkout could fill, are left out.
    pub fn search_path(&self) -> Vec<PathBuf> {
        let value = self.variables.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        std::env::split_paths(&value).filter(|dir| dir.is_absolute()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn state_directory_follows_the_user() {
        let root = Environment::from_pairs([], true);
        assert_eq!(root.default_root(), Path::new("/var/lib/rbuild"));
        let user = Environment::from_pairs([("HOME", "/home/a")], false);
        assert_eq!(user.default_root(), Path::new("/home/a/.local/share/rbuild"));
        let xdg = Environment::from_pairs([("HOME", "/home/a"), ("XDG_DATA_HOME", "/data")], false);
        assert_eq!(xdg.default_root(), Path::new("/data/rbuild"));
    }

    #[test]
    fn the_configuration_is_searched_for_where_buildkit_does() {
        for (pairs, root, file) in [
            (&[("HOME", "/root"), ("XDG_CONFIG_HOME", "/x")][..], true, "/etc/buildkit/buildkitd.toml"),
            (&[("HOME", "/home/a")], false, "/home/a/.config/buildkit/buildkitd.toml"),
            (&[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "")], false, "/home/a/.config/buildkit/buildkitd.toml"),
            (&[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/x")], false, "/x/buildkit/buildkitd.toml"),
            (&[], false, "/etc/buildkit/buildkitd.toml"),
        ] {
            let environment = Environment::from_pairs(pairs.iter().copied(), root);
            assert_eq!(environment.buildkitd_config(), Path::new(file), "{pairs:?}");
        }
    }

    #[test]
    fn relative_search_directories_are_left_out() {
        let environment = Environment::from_pairs([("PATH", ":.:bin:/usr/bin")], false);
        assert_eq!(environment.search_path(), [Path::new("/usr/bin")]);
    }
}
