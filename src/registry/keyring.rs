//! All places where accounts may stand, asked one after the other until one has one.
//!
//! ```text
//! $DOCKER_AUTH_CONFIG ─▶ buildx's directory of the repository ─▶ $REGISTRY_AUTH_FILE ─▶ docker's config.json ─▶ podman's auth.json
//! ```
//!
//! In: [`Places`]. Out: [`Credentials`]. Files are read when they are asked, so that a login that is renewed during a long build
//! counts. Invariant: a place that is there and cannot be read is an error, not "no account", unless one before it has the account.

use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;

use super::auth_file::{AuthFile, HelperSearch};
use super::credentials::{Access, Account, Credentials};
use super::error::CredentialsError;

/// Registries of Docker's that let the accounts of its Hub in.
const OF_THE_HUB: [&str; 2] = ["dhi.io", "registry.scout.docker.com"];
/// The Hub's name in buildx's directories.
const HUB: &str = "registry-1.docker.io";
/// Directories below buildx's that are looked at, and how deep.
const DIRECTORIES: usize = 1000;
const DEPTH: usize = 16;

/// Where accounts may stand.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The text of `$DOCKER_AUTH_CONFIG`, which is that of a `config.json`.
    pub inline: Option<String>,
    /// The directory in which `docker/login-action` leaves accounts of one host, repository or action:
    /// `HOST[/REPOSITORY][@ACTION,…]/config.json`.
    pub scoped: Option<PathBuf>,
    /// Files, the first that has an account counting.
    pub files: Vec<PathBuf>,
}

/// The accounts of all places.
#[derive(Debug)]
pub struct Keyring {
    inline: Option<AuthFile>,
    scoped: Vec<Scoped>,
    files: Vec<PathBuf>,
    search: HelperSearch,
}

impl Keyring {
    /// Finds out what there is; a text or a first file that cannot be used is told now.
    pub fn open(places: &Places, search: HelperSearch) -> Result<Self, CredentialsError> {
        let text = places.inline.as_ref().filter(|text| !text.trim().is_empty());
        let inline = text.map(|text| AuthFile::parse("$DOCKER_AUTH_CONFIG", text.as_bytes(), search.clone()));
        if let Some(file) = places.files.iter().find(|file| file.exists()) {
            AuthFile::load(file, search.clone())?;
        }
        let mut scoped = Vec::new();
        if let Some(base) = &places.scoped {
            collect(base, base, &mut scoped);
        }
        Ok(Self { inline: inline.transpose()?, scoped, files: places.files.clone(), search })
    }

    async fn find(&self, host: &str, repository: &str, access: Access) -> Result<Account, CredentialsError> {
        let found = self.of(host, repository, access).await?;
        if found == Account::Anonymous && OF_THE_HUB.contains(&host) {
            return self.of("docker.io", repository, access).await;
        }
        Ok(found)
    }

    async fn of(&self, host: &str, repository: &str, access: Access) -> Result<Account, CredentialsError> {
        if let Some(inline) = &self.inline
            && let account @ (Account::Password { .. } | Account::Identity { .. } | Account::Token { .. }) =
                inline.find(host, repository).await?
        {
            return Ok(account);
        }
        let scoped = best(&self.scoped, host, repository, access).map(|scoped| &scoped.file);
        for file in scoped.into_iter().chain(&self.files) {
            let account = AuthFile::load(file, self.search.clone())?.find(host, repository).await?;
            if account != Account::Anonymous {
                tracing::debug!(host, repository, file = %file.display(), "found an account");
                return Ok(account);
            }
        }
        Ok(Account::Anonymous)
    }
}

impl Credentials for Keyring {
    fn account<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
        access: Access,
    ) -> BoxFuture<'a, Result<Account, CredentialsError>> {
        Box::pin(self.find(host, repository, access))
    }
}

/// A `config.json` for one host, perhaps for one repository, perhaps for some actions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scoped {
    host: String,
    repository: Option<String>,
    actions: Vec<String>,
    file: PathBuf,
}

impl Scoped {
    /// Reads what a directory below the base is for out of its name.
    fn parse(name: &str, file: PathBuf) -> Self {
        let (place, actions) = name.split_once('@').unwrap_or((name, ""));
        let (host, repository) = place.split_once('/').unwrap_or((place, ""));
        let actions = actions.split(',').map(str::trim).filter(|action| !action.is_empty());
        Self {
            host: host.into(),
            repository: Some(repository.to_owned()).filter(|repository| !repository.is_empty()),
            actions: actions.map(str::to_owned).collect(),
            file,
        }
    }

    fn is_for(&self, host: &str, repository: &str, access: Access) -> bool {
        let wanted = access.actions();
        self.host == if host == "docker.io" { HUB } else { host }
            && self.repository.as_ref().is_none_or(|own| own == repository)
            && self.actions.iter().all(|action| wanted.contains(&action.as_str()))
    }
}

/// One for the repository goes before one for the host, and then the one with more actions.
fn best<'a>(all: &'a [Scoped], host: &str, repository: &str, access: Access) -> Option<&'a Scoped> {
    let fitting = all.iter().filter(|scoped| scoped.is_for(host, repository, access));
    fitting.max_by_key(|scoped| (scoped.repository.is_some(), scoped.actions.len()))
}

/// Finds the files below a directory; one that cannot be listed holds none.
fn collect(base: &Path, directory: &Path, found: &mut Vec<Scoped>) {
    let depth = directory.strip_prefix(base).map_or(0, |below| below.components().count());
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut entries: Vec<PathBuf> = entries.flatten().take(DIRECTORIES).map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if found.len() >= DIRECTORIES || depth >= DEPTH {
            return;
        }
        let name = directory.strip_prefix(base).ok().and_then(Path::to_str).unwrap_or_default();
        if path.file_name().is_some_and(|name| name == "config.json") && !name.is_empty() {
            found.push(Scoped::parse(name, path));
        } else if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            collect(base, &path, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::url::Secret;
    use super::*;

    fn auth(name: &str) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("{name}:p"))
    }

    fn named(name: &str) -> Account {
        Account::Password { username: name.into(), password: Secret::new("p") }
    }

    fn plant(path: &Path, accounts: &[(&str, &str)]) {
        std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        std::fs::write(path, text(accounts)).expect("write");
    }

    fn text(accounts: &[(&str, &str)]) -> String {
        let entry = |(host, name): &(&str, &str)| format!("\"{host}\":{{\"auth\":\"{}\"}}", auth(name));
        format!("{{\"auths\":{{{}}}}}", accounts.iter().map(entry).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn reads_the_names_of_scoped_directories_as_buildx_does() {
        for (name, host, repository, actions) in [
            ("example.com", "example.com", None, &[][..]),
            ("example.com/a/b", "example.com", Some("a/b"), &[]),
            ("example.com/x@y,z", "example.com", Some("x"), &["y", "z"]),
            ("example.com/a/b@", "example.com", Some("a/b"), &[]),
            ("example.com/@foo", "example.com", None, &["foo"]),
            ("registry-1.docker.io@pull,push", "registry-1.docker.io", None, &["pull", "push"]),
            ("example.com:5000/x@y,z", "example.com:5000", Some("x"), &["y", "z"]),
        ] {
            let scoped = Scoped::parse(name, PathBuf::new());
            assert_eq!((scoped.host.as_str(), scoped.repository.as_deref()), (host, repository), "{name}");
            assert_eq!(scoped.actions, actions, "{name}");
        }
    }

    #[tokio::test]
    async fn scoped_directories_go_before_the_file() {
        let temp = tempfile::tempdir().expect("temp dir");
        let base = temp.path().join("buildx/config");
        let hub = "https://index.docker.io/v1/";
        plant(&base.join("ghcr.io/config.json"), &[("ghcr.io", "host")]);
        plant(&base.join("ghcr.io/o/app/config.json"), &[("ghcr.io", "app")]);
        plant(&base.join("ghcr.io/o/app@push/config.json"), &[("ghcr.io", "push")]);
        plant(&base.join("registry-1.docker.io@pull/config.json"), &[(hub, "hub")]);
        let file = temp.path().join("config.json");
        plant(&file, &[("ghcr.io", "file"), (hub, "file"), ("r.io", "file")]);
        let places = Places { inline: None, scoped: Some(base), files: vec![file] };
        let keyring = Keyring::open(&places, HelperSearch::default()).expect("keyring");
        for (host, repository, access, expected) in [
            ("ghcr.io", "o/app", Access::Pull, "app"),
            ("ghcr.io", "o/app", Access::Push, "push"),
            ("ghcr.io", "o/apps", Access::Push, "host"),
            ("docker.io", "library/alpine", Access::Pull, "hub"),
            ("r.io", "o/app", Access::Pull, "file"),
            ("dhi.io", "python", Access::Pull, "hub"),
        ] {
            let found = keyring.find(host, repository, access).await.expect(host);
            assert_eq!(found, named(expected), "{host}/{repository} {access:?}");
        }
        assert_eq!(keyring.find("x.io", "a", Access::Pull).await.expect("none"), Account::Anonymous);
    }

    #[tokio::test]
    async fn the_first_place_with_an_account_counts() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (docker, podman) = (temp.path().join("config.json"), temp.path().join("auth.json"));
        plant(&docker, &[("a.io", "docker"), ("b.io", "docker")]);
        plant(&podman, &[("b.io", "podman"), ("c.io", "podman"), ("c.io/team", "team"), ("c.io/team/app", "app")]);
        let inline = Some(text(&[("a.io", "inline")]));
        let files = vec![temp.path().join("absent"), docker.clone(), podman];
        let keyring = Keyring::open(&Places { inline, scoped: None, files: files.clone() }, HelperSearch::default());
        let keyring = keyring.expect("keyring");
        for (host, repository, expected) in [
            ("a.io", "x", "inline"),
            ("b.io", "x", "docker"),
            ("c.io", "x", "podman"),
            ("c.io", "team/other", "team"),
            ("c.io", "team/app", "app"),
            ("c.io", "teams/app", "podman"),
        ] {
            let found = keyring.find(host, repository, Access::Pull).await.expect(host);
            assert_eq!(found, named(expected), "{host}/{repository}");
        }
        plant(&docker, &[("b.io", "renewed")]);
        assert_eq!(keyring.find("b.io", "x", Access::Pull).await.expect("b.io"), named("renewed"));
        let places = Places { inline: Some("{".into()), scoped: None, files };
        assert!(Keyring::open(&places, HelperSearch::default()).is_err(), "a broken text is told");
    }

    #[tokio::test]
    async fn r9_a_file_that_is_broken_is_no_missing_account() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (first, second) = (temp.path().join("config.json"), temp.path().join("auth.json"));
        plant(&first, &[("a.io", "a")]);
        std::fs::write(&second, "{").expect("write");
        let places = Places { files: vec![first.clone(), second.clone()], ..Places::default() };
        let keyring = Keyring::open(&places, HelperSearch::default()).expect("the first is sound");
        assert_eq!(keyring.find("a.io", "x", Access::Pull).await.expect("found before"), named("a"));
        keyring.find("b.io", "x", Access::Pull).await.expect_err("the second is broken");
        let places = Places { files: vec![second, first], ..Places::default() };
        assert!(Keyring::open(&places, HelperSearch::default()).is_err());
    }
}
