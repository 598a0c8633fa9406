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

    /// Returns the directories with certificates for registries, those of the user first (containers-certs.d(5), and what Docker
    /// reads with and without privilege).
    pub fn certificate_directories(&self) -> Vec<PathBuf> {
        let own = self.path("XDG_CONFIG_HOME").unwrap_or_else(|| self.home().join(".config"));
        let docker = (!self.root_user).then(|| own.join("docker/certs.d"));
        let shared = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        [own.join("containers/certs.d")].into_iter().chain(docker).chain(shared).collect()
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

    /// Returns the files that may hold registry credentials, in the order in which they are asked: that which is named, docker's,
    /// podman's of this login, podman's own.
    pub fn auth_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.path("REGISTRY_AUTH_FILE").into_iter().collect();
        files.push(self.docker_config().join("config.json"));
        let of_root = || self.root_user.then(|| PathBuf::from("/run/containers/0"));
        let runtime = self.path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers")).or_else(of_root);
        files.extend(runtime.map(|dir| dir.join("auth.json")));
        let config = self.path("XDG_CONFIG_HOME").unwrap_or_else(|| self.home().join(".config"));
        files.push(config.join("containers/auth.json"));
        files
    }

    /// Returns docker's configuration directory.
    fn docker_config(&self) -> PathBuf {
        self.path("DOCKER_CONFIG").unwrap_or_else(|| self.home().join(".docker"))
    }

    /// Returns buildx's configuration directory, where `docker/login-action` leaves accounts with a scope.
    pub fn buildx_config(&self) -> PathBuf {
        self.path("BUILDX_CONFIG").unwrap_or_else(|| self.docker_config().join("buildx"))
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
    fn certificates_of_the_user_go_before_those_of_the_machine() {
        let user = Environment::from_pairs([("HOME", "/home/a")], false);
        let own = ["/home/a/.config/containers/certs.d", "/home/a/.config/docker/certs.d"];
        let shared = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
        assert_eq!(user.certificate_directories(), [own, shared].concat().iter().map(Path::new).collect::<Vec<_>>());
        let root = Environment::from_pairs([("XDG_CONFIG_HOME", "/c")], true);
        assert_eq!(root.certificate_directories()[..2], [Path::new("/c/containers/certs.d"), Path::new(shared[0])]);
    }

    #[test]
    fn credentials_are_where_docker_and_podman_leave_them() {
        let user = Environment::from_pairs([("HOME", "/home/a")], false);
        let expected = [Path::new("/home/a/.docker/config.json"), Path::new("/home/a/.config/containers/auth.json")];
        assert_eq!(user.auth_files(), expected);
        assert_eq!(user.buildx_config(), Path::new("/home/a/.docker/buildx"));
        let pairs = [("REGISTRY_AUTH_FILE", "/f"), ("DOCKER_CONFIG", "/d"), ("XDG_RUNTIME_DIR", "/r"), ("HOME", "/h")];
        let all = Environment::from_pairs(pairs, true);
        let expected = ["/f", "/d/config.json", "/r/containers/auth.json", "/h/.config/containers/auth.json"];
        assert_eq!(all.auth_files(), expected.map(Path::new));
        assert_eq!(all.buildx_config(), Path::new("/d/buildx"));
        let root = Environment::from_pairs([("HOME", "/root"), ("BUILDX_CONFIG", "/b")], true);
        assert_eq!(root.auth_files()[1], Path::new("/run/containers/0/auth.json"));
        assert_eq!(root.buildx_config(), Path::new("/b"));
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
