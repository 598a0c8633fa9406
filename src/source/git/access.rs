//! How to talk to a server: credentials for web servers, keys for ssh.

use std::ffi::OsString;
use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::GitSource;
use super::command::Access;
use super::error::GitError;
use super::spec::{GitSpec, Remote};
use crate::secrets::{Agent, AgentProxy};
use crate::source::http::HttpError;
use crate::source::http::transfer::{Request, basic};

/// Hosts on which a token is good for all repositories, as with `actions/checkout`.
const SHARED: [&str; 2] = ["https://github.com/", "https://www.github.com/"];

impl GitSource {
    /// Finds the credentials for a repository.
    pub(super) fn access(&self, spec: &GitSpec) -> Result<Access, GitError> {
        match spec.remote.scheme.as_str() {
            "ssh" => self.ssh(spec),
            "http" | "https" => Ok(match self.authorization(spec)? {
                Some(value) => with_header(&spec.remote, &value),
                None => Access::default(),
            }),
            _ => Ok(Access::default()),
        }
    }

    /// A header or a token for this host, else for any, else the user in the URL.
    pub(super) fn authorization(&self, spec: &GitSpec) -> Result<Option<String>, GitError> {
        let scoped = |id: &str| format!("{id}.{}", spec.remote.host);
        let (header, token) = (&spec.header_secret, &spec.token_secret);
        for (id, name, is_token) in [
            (header, scoped(header), false),
            (token, scoped(token), true),
            (header, header.clone(), false),
            (token, token.clone(), true),
        ] {
            let Some(secret) = Some(()).filter(|()| !id.is_empty()).and_then(|()| self.secrets.secret(&name)) else {
                continue;
            };
            let value = secret.expose().trim_ascii_end();
            let value = match is_token {
                true => format!("basic {}", STANDARD.encode([b"x-access-token:", value].concat())).into_bytes(),
                false => value.to_vec(),
            };
            let text = HeaderValue::from_bytes(&value).ok().and_then(|value| value.to_str().ok().map(str::to_owned));
            return text.map(Some).ok_or(GitError::SecretInvalid { id: name });
        }
        let (user, password) = spec.remote.user.split_once(':').unwrap_or((&spec.remote.user, ""));
        if spec.remote.user.is_empty() {
            return Ok(None);
        }
        let value = basic(user, password).and_then(|value| value.to_str().ok().map(str::to_owned));
        let wrong = GitError::Name { what: "git remote", text: spec.remote.to_string(), reason: "its user is no text" };
        value.map(Some).ok_or(wrong)
    }

    fn ssh(&self, spec: &GitSpec) -> Result<Access, GitError> {
        let mut access = Access::default();
        let id = if spec.ssh.is_empty() { "default" } else { &spec.ssh };
        let missing = || GitError::SshMissing { remote: spec.remote.to_string(), id: id.to_owned() };
        let agent = self.agents.get(id).ok_or_else(missing)?;
        let failed = |source| GitError::Io { remote: spec.remote.to_string(), source };
        access.env.push(("SSH_AUTH_SOCK", self.agent_socket(agent, &mut access.agent).map_err(failed)?));
        let (hosts, strict) = self.known_hosts(spec)?;
        let mut command = OsString::from(
            "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o ForwardAgent=no -o ClearAllForwardings=yes \
             -o PermitLocalCommand=no -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \
             -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=",
        );
        command.push(strict);
        command.push(" -o UserKnownHostsFile=");
        command.push(hosts);
        access.env.push(("GIT_SSH_COMMAND", command));
        access.env.push(("GIT_SSH_VARIANT", "ssh".into()));
        Ok(access)
    }

    /// A socket that ssh can be given. Keys of files are behind one that is served as long as `proxy` is kept.
    fn agent_socket(&self, agent: &Agent, proxy: &mut Option<Arc<AgentProxy>>) -> std::io::Result<OsString> {
        let keys = match agent {
            Agent::Socket { path, .. } => return Ok(path.clone().into_os_string()),
            Agent::Keys(_) => agent.clone(),
        };
        let store = self.snapshots.store();
        let (name, dir) = store.scratch().make_dir()?;
        *proxy = Some(Arc::new(AgentProxy::open(keys, &dir)?.0));
        Ok(store.scratch_path().join(name).join(AgentProxy::NAME).into_os_string())
    }

    /// The keys the source names, and no other; else those that were met before, and new ones of hosts not met before.
    fn known_hosts(&self, spec: &GitSpec) -> Result<(OsString, &'static str), GitError> {
        if spec.known_hosts.is_empty() {
            return Ok((quoted(self.root.join("known_hosts").as_os_str()), "accept-new"));
        }
        let scratch = self.snapshots.store().scratch();
        let name = scratch.unused();
        let written =
            scratch.dir().create_file(&name, 0o600).and_then(|mut f| f.write_all(spec.known_hosts.as_bytes()));
        written.map_err(|source| GitError::Io { remote: spec.remote.to_string(), source })?;
        let path = self.snapshots.store().scratch_path().join(name);
        Ok((quoted(path.as_os_str()), "yes"))
    }

    /// Asks a web server where a repository is now, after git was sent elsewhere. Credentials go along only if the place is at
    /// the same host.
    pub(super) async fn moved(&self, spec: &GitSpec) -> Result<Option<(Remote, bool)>, GitError> {
        const SERVICE: &str = "/info/refs";
        let asked = format!("{}{SERVICE}?service=git-upload-pack", spec.remote.url.trim_end_matches('/'));
        let invalid = |error: String| HttpError::Url { url: spec.remote.to_string(), reason: error };
        let url = Url::parse(&asked).map_err(|error| invalid(error.to_string()))?;
        let authorization = self.authorization(spec)?;
        let value = authorization.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
        let response = self.http.transfer().send(&Request::plain(url.clone(), value)).await?;
        let mut found = response.url().clone();
        let same = crate::registry::Origin::of(&found) == crate::registry::Origin::of(&url);
        let Some(path) = found.path().strip_suffix(SERVICE).map(str::to_owned) else { return Ok(None) };
        found.set_path(&path);
        found.set_query(None);
        if found.path() == url.path().trim_end_matches(SERVICE) && same {
            return Ok(None);
        }
        Ok(Some((Remote::parse(found.as_str())?, same)))
    }

    /// Returns the spec of a repository that moved; none if it did not.
    pub(super) async fn follow(&self, spec: &GitSpec, error: &GitError) -> Result<Option<GitSpec>, GitError> {
        let GitError::Failed { said, .. } = error else { return Ok(None) };
        let redirected =
            ["301", "302", "303", "307", "308"].iter().any(|code| said.contains(&format!("returned error: {code}")));
        if !redirected {
            return Ok(None);
        }
        let Some((mut remote, same)) = self.moved(spec).await? else { return Ok(None) };
        let mut spec = spec.clone();
        if same {
            remote.user = spec.remote.user;
        } else {
            spec.header_secret.clear();
            spec.token_secret.clear();
        }
        spec.remote = remote;
        Ok(Some(spec))
    }
}

/// Returns whether what is sent to one repository may be sent to another.
pub(super) fn shares_tokens(one: &Remote, other: &Remote) -> bool {
    let shared = SHARED.iter().any(|prefix| one.url.starts_with(prefix) && other.url.starts_with(prefix));
    shared || one.url == other.url
}

/// A header that git sends to this repository only, or to all of a host that is known to share tokens.
fn with_header(remote: &Remote, value: &str) -> Access {
    let shared = SHARED.iter().find(|prefix| remote.url.starts_with(**prefix));
    let scope = shared.copied().unwrap_or(&remote.url);
    let header = (format!("http.{scope}.extraHeader"), format!("Authorization: {value}"));
    Access { config: vec![header], ..Access::default() }
}

/// Git gives the command to a shell, and ssh takes `%` and quotes of its own.
fn quoted(path: &std::ffi::OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut text = b"'\"".to_vec();
    for byte in path.as_bytes() {
        match byte {
            b'\'' => text.extend_from_slice(b"'\\''"),
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', *byte]),
            b'%' => text.extend_from_slice(b"%%"),
            byte => text.push(*byte),
        }
    }
    text.extend_from_slice(b"\"'");
    OsString::from_vec(text)
}
