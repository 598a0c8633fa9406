//! Docker's `config.json` and podman's `auth.json`: accounts by registry, directly or through helpers.
//!
//! In: the path of such a file. Out: accounts; which of several files counts is [`super::keyring`]'s to say. Invariants: a file that is there and cannot be read as it should is an
//! error, never "no account"; an account is given for exactly the host (and port, and path) it is written for.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::credentials::Account;
use super::error::CredentialsError;
pub use super::helper::HelperSearch;
use super::url::Secret;
use crate::sys;

/// The key of Docker Hub, a URL of its first interface.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
const FILE_LIMIT: u64 = 4 << 20;
/// What the owner of a file looks like in a user namespace that does not map them.
const UNMAPPED: u32 = 65534;

/// The accounts of one file.
#[derive(Debug, Default)]
pub struct AuthFile {
    accounts: BTreeMap<String, Account>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
    search: HelperSearch,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    auths: Option<BTreeMap<String, Entry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl AuthFile {
    /// Reads the file at `path`; one that is not there holds no accounts.
    pub fn load(path: &Path, search: HelperSearch) -> Result<Self, CredentialsError> {
        match read(path)? {
            Some(text) => Self::parse(&path.display().to_string(), &text, search),
            None => Ok(Self { search, ..Self::default() }),
        }
    }

    /// Reads the text of such a file; `path` names it in errors.
    pub fn parse(path: &str, text: &[u8], search: HelperSearch) -> Result<Self, CredentialsError> {
        let bad = |reason: String| CredentialsError::File { path: path.to_owned(), reason };
        // The parser's own message may quote a password.
        let place = |e: serde_json::Error| bad(format!("invalid JSON at line {}, column {}", e.line(), e.column()));
        let document: Document = serde_json::from_slice(text).map_err(place)?;
        let mut accounts = BTreeMap::new();
        for (key, entry) in document.auths.unwrap_or_default() {
            let account = entry.account().ok_or_else(|| bad(format!("the entry for {key:?} is invalid")))?;
            if let Some(account) = account {
                accounts.insert(normalize(&key), account);
            }
        }
        let helpers = document.cred_helpers.unwrap_or_default();
        let helpers = helpers.into_iter().map(|(key, helper)| (normalize(&key), helper)).collect();
        Ok(Self { accounts, helpers, store: document.creds_store.filter(|s| !s.is_empty()), search })
    }

    /// Returns the account for a repository, where the file has one for it or for what it lies below.
    pub(crate) async fn find(&self, host: &str, repository: &str) -> Result<Account, CredentialsError> {
        let server = if host == "docker.io" { DOCKER_HUB } else { host };
        if let Some(helper) = self.helpers.get(&normalize(server)).or_else(|| self.helpers.get(host)) {
            return self.search.ask(helper, server).await;
        }
        if let Some(store) = &self.store {
            match self.search.ask(store, server).await? {
                Account::Anonymous => {}
                account => return Ok(account),
            }
        }
        let account = keys(host, repository).into_iter().find_map(|key| self.accounts.get(&key));
        Ok(account.cloned().unwrap_or(Account::Anonymous))
    }
}

impl Entry {
    /// Returns the account, none for an empty entry (a sign that a store has it), or nothing for an invalid one.
    fn account(self) -> Option<Option<Account>> {
        let given = |text: Option<String>| text.filter(|t| !t.is_empty());
        if let Some(token) = given(self.identitytoken) {
            return Some(Some(Account::Identity { token: Secret::new(token) }));
        }
        if let Some(token) = given(self.registrytoken) {
            return Some(Some(Account::Token { token: Secret::new(token) }));
        }
        let (username, password) = match given(self.auth) {
            Some(auth) => {
                let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
                let (username, password) = decoded.split_once(':')?;
                (username.to_owned(), password.trim_end_matches('\0').to_owned())
            }
            None => match (given(self.username), given(self.password)) {
                (Some(username), Some(password)) => (username, password),
                _ => return Some(None),
            },
        };
        Some(Some(Account::Password { username, password: Secret::new(password) }))
    }
}

/// Strips what older programs wrote around the host: a scheme and the version of an interface.
fn normalize(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    if matches!(bare, "index.docker.io" | "registry-1.docker.io") { "docker.io".into() } else { bare.into() }
}

/// Lists the keys an account for a repository may stand under, the longest first (containers-auth.json).
fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut key = format!("{host}/{repository}");
    let mut keys = vec![key.clone()];
    while let Some((parent, _)) = key.rsplit_once('/') {
        key = parent.to_owned();
        keys.push(key.clone());
    }
    keys
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    let shown = path.display().to_string();
    let failed = |source| CredentialsError::Read { path: shown.clone(), source };
    let bad = |reason: &str| Err(CredentialsError::File { path: shown.clone(), reason: reason.to_owned() });
    let file = match sys::dir::open_without_waiting(path) {
        Ok(file) => file,
        // A link to nothing is a mistake to be told, not an absent file.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.symlink_metadata().is_err() => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return bad("it is not a regular file");
    }
    if ![0, UNMAPPED, sys::effective_uid()].contains(&metadata.uid()) {
        return bad("it belongs to another user");
    }
    if metadata.mode() & 0o022 != 0 {
        return bad("others may write to it; remove that with `chmod go-w`");
    }
    let mut text = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_LIMIT { bad("it is larger than 4 MiB") } else { Ok(Some(text)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str) -> AuthFile {
        AuthFile::parse("config.json", text.as_bytes(), HelperSearch::default()).expect(text)
    }

    fn password(username: &str, password: &str) -> Account {
        Account::Password { username: username.into(), password: Secret::new(password) }
    }

    #[tokio::test]
    async fn finds_accounts() {
        let file = file(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"ghcr.io":{"auth":"YTpiOmM="},
            "https://old.io/v2/":{"username":"n","password":"q"},"r.io:5000":{"identitytoken":"t","auth":"dTo="},
            "q.io/team":{"auth":"dGVhbTp4"},"q.io":{"auth":"cTp4"},"empty.io":{},"tok.io":{"registrytoken":"z"}},
            "HttpHeaders":{"X":"y"},"credHelpers":null}"#,
        );
        for (host, repository, expected) in [
            ("docker.io", "library/alpine", password("u", "p")),
            ("ghcr.io", "o/a", password("a", "b:c")),
            ("old.io", "a", password("n", "q")),
            ("r.io:5000", "a", Account::Identity { token: Secret::new("t") }),
            ("tok.io", "a", Account::Token { token: Secret::new("z") }),
            ("q.io", "team/app", password("team", "x")),
            ("q.io", "teams/app", password("q", "x")),
            ("empty.io", "a", Account::Anonymous),
        ] {
            assert_eq!(file.find(host, repository).await.expect(host), expected, "{host}/{repository}");
        }
    }

    #[tokio::test]
    async fn r9_accounts_are_for_exactly_their_host() {
        let file = file(r#"{"auths":{"a.io":{"auth":"dTpw"},"b.io:5000":{"auth":"dTpw"}}}"#);
        for host in ["a.io.evil", "evil.a.io", "xa.io", "a.io:444", "b.io", "b.io:50001", "A.io.", "a.i"] {
            assert_eq!(file.find(host, "a.io").await.expect(host), Account::Anonymous, "{host}");
        }
    }

    #[test]
    fn r9_broken_files_are_errors_without_their_text() {
        for text in [
            r#"{"auths":{}} trailing"#,
            r#"{"auths":{"a.io":{"auth":"hunter2"}}}"#,
            r#"{"auths":{"a.io":{"auth":"aHVudGVyMg=="}}}"#,
            r#"{"auths":{"a.io":{"auth":hunter2}}}"#,
            r#"{"auths":["hunter2"]}"#,
            "",
        ] {
            let error = AuthFile::parse("config.json", text.as_bytes(), HelperSearch::default()).expect_err(text);
            let shown = crate::diag::chain(&error);
            assert!(!shown.contains("hunter2") && !shown.contains("aHVud"), "{shown}");
        }
    }

    #[test]
    fn r9_files_of_others_are_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("config.json");
        let load = || AuthFile::load(&path, HelperSearch::default());
        assert!(load().expect("absent is empty").accounts.is_empty());
        std::fs::write(&path, r#"{"auths":{"a.io":{"auth":"dTpw"}}}"#).expect("write");
        let permissions = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        permissions(0o644);
        assert_eq!(load().expect("own file").accounts.len(), 1);
        permissions(0o664);
        assert!(load().is_err(), "writable by others");
        permissions(0o644);
        std::os::unix::fs::chown(&path, Some(12345), None).expect("chown");
        assert!(load().is_err(), "of another user");
        std::fs::remove_file(&path).expect("rm");
        std::os::unix::fs::symlink("/nowhere", &path).expect("symlink");
        assert!(load().is_err(), "dangling link");
        std::fs::remove_file(&path).expect("rm");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("symlink");
        assert!(load().is_err(), "device");
        std::fs::remove_file(&path).expect("rm");
        std::fs::create_dir(&path).expect("mkdir");
        assert!(load().is_err(), "directory");
    }

    #[tokio::test]
    async fn r10_helpers_that_fail_are_errors() {
        for text in [r#"{"credsStore":"../../x"}"#, r#"{"credHelpers":{"a.io":"nowhere"}}"#] {
            assert!(file(text).find("a.io", "b").await.is_err(), "{text}");
        }
    }
}
