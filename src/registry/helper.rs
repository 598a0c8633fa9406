//! Docker's credential helpers: programs `docker-credential-NAME` that know passwords.
//!
//! In: a helper's name, a server. Out: an account. Invariants: only programs in absolute directories of the search path
//! outside the workspace are run; what is exchanged is bounded in size and time.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::credentials::Account;
use super::error::CredentialsError;
use super::url::{Secret, foreign_text};
use crate::sys::programs;

const STDIN_LIMIT: usize = 4 << 10;
const STDOUT_LIMIT: u64 = 64 << 10;
const NAME_LIMIT: usize = 64;

/// Where helpers are looked for.
#[derive(Debug, Clone)]
pub struct HelperSearch {
    /// The directories of PATH; those that are not absolute are passed over.
    pub directories: Vec<PathBuf>,
    /// The build context and the checkout, whose programs are not ours to run.
    pub workspaces: Vec<PathBuf>,
    /// Longest time a helper may take.
    pub timeout: Duration,
}

impl Default for HelperSearch {
    fn default() -> Self {
        Self { directories: Vec::new(), workspaces: Vec::new(), timeout: Duration::from_secs(30) }
    }
}

impl HelperSearch {
    fn find(&self, name: &str) -> Result<PathBuf, CredentialsError> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if name.is_empty() || name.len() > NAME_LIMIT || !name.bytes().all(valid) {
            return Err(failed(name, "its name may have letters, digits, `.`, `_` and `-` only"));
        }
        let program = format!("docker-credential-{name}");
        let found = programs::find(&program, &self.directories, &self.workspaces, Path::is_file);
        found.ok_or_else(|| failed(name, "it is in no directory of PATH"))
    }

    /// Asks a helper for the account of a server.
    pub(crate) async fn ask(&self, name: &str, server: &str) -> Result<Account, CredentialsError> {
        let program = self.find(name)?;
        if server.len() > STDIN_LIMIT {
            return Err(failed(name, "the name of the registry is too long"));
        }
        let (output, success) = tokio::time::timeout(self.timeout, run(&program, server))
            .await
            .map_err(|_| failed(name, &format!("it did not answer within {} s", self.timeout.as_secs())))?
            .map_err(|e| failed(name, &e.to_string()))?;
        if output.len() as u64 > STDOUT_LIMIT {
            return Err(failed(name, "its answer is too long"));
        }
        if !success {
            let text = String::from_utf8_lossy(&output);
            // The protocol's one way to say that there is no account.
            return match text.trim().starts_with("credentials not found") {
                true => Ok(Account::Anonymous),
                false => Err(failed(name, &foreign_text(&text))),
            };
        }
        parse(&output).ok_or_else(|| failed(name, "its answer is not the JSON it should be"))
    }
}

fn failed(helper: &str, reason: &str) -> CredentialsError {
    CredentialsError::Helper { helper: foreign_text(helper), reason: reason.to_owned() }
}

async fn run(program: &Path, server: &str) -> std::io::Result<(Vec<u8>, bool)> {
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.current_dir("/").spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that answers without reading closes the pipe, which is its right.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(STDOUT_LIMIT + 1).read_to_end(&mut output).await?;
    }
    if output.len() as u64 > STDOUT_LIMIT {
        child.kill().await?;
        return Ok((output, false));
    }
    Ok((output, child.wait().await?.success()))
}

fn parse(output: &[u8]) -> Option<Account> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let answer: Answer = serde_json::from_slice(output).ok()?;
    let secret = Secret::new(answer.secret);
    // Docker's sign that the secret is an identity token.
    Some(match answer.username.as_str() {
        "<token>" => Account::Identity { token: secret },
        "" if secret.expose().is_empty() => Account::Anonymous,
        _ => Account::Password { username: answer.username, password: secret },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plant(directory: &Path, name: &str, script: &str) {
        std::fs::create_dir_all(directory).expect("mkdir");
        let path = directory.join(format!("docker-credential-{name}"));
        crate::sys::programs::plant(&path, &format!("#!/bin/sh\n{script}\n"));
    }

    fn search(directories: &[&Path]) -> HelperSearch {
        let directories = directories.iter().map(|d| d.to_path_buf()).collect();
        HelperSearch { directories, timeout: Duration::from_millis(1500), ..HelperSearch::default() }
    }

    #[tokio::test]
    async fn helpers_answer() {
        let temp = tempfile::tempdir().expect("temp dir");
        plant(temp.path(), "good", r#"read s; echo "{\"Username\":\"u\",\"Secret\":\"p $s $1\"}""#);
        plant(temp.path(), "identity", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        plant(temp.path(), "none", "echo 'credentials not found in native keychain'; exit 1");
        let search = search(&[temp.path()]);
        let good = Account::Password { username: "u".into(), password: Secret::new("p r.io get") };
        assert_eq!(search.ask("good", "r.io").await.expect("account"), good);
        let identity = Account::Identity { token: Secret::new("t") };
        assert_eq!(search.ask("identity", "r.io").await.expect("account"), identity);
        assert_eq!(search.ask("none", "r.io").await.expect("account"), Account::Anonymous);
    }

    #[tokio::test]
    async fn r10_helpers_that_are_not_run() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (bin, workspace) = (temp.path().join("bin"), temp.path().join("work"));
        let marker = temp.path().join("ran");
        let script = format!("touch {}; echo '{{}}'", marker.display());
        plant(&bin, "x", &script);
        plant(&workspace.join("tools"), "planted", &script);
        std::os::unix::fs::symlink(workspace.join("tools"), temp.path().join("link")).expect("symlink");
        let mut search = search(&[Path::new(""), Path::new("."), Path::new("bin"), &workspace.join("tools")]);
        search.directories.push(temp.path().join("link"));
        search.workspaces = vec![workspace];
        for name in ["../../bin/x", "x/../x", "", "a b", "x", "planted", &"x".repeat(65)] {
            assert!(search.ask(name, "r.io").await.is_err(), "{name}");
        }
        assert!(!marker.exists());
    }

    #[tokio::test]
    async fn r10_helpers_that_misbehave() {
        let temp = tempfile::tempdir().expect("temp dir");
        plant(temp.path(), "hangs", "sleep 20");
        plant(temp.path(), "floods", "yes");
        plant(temp.path(), "garbles", "echo nonsense");
        plant(temp.path(), "fails", "echo 'locked'; exit 2");
        let search = search(&[temp.path()]);
        for (name, reason) in [
            ("hangs", "did not answer"),
            ("floods", "too long"),
            ("garbles", "not the JSON"),
            ("fails", "locked"),
            ("absent", "no directory"),
        ] {
            let error = search.ask(name, "r.io").await.expect_err(name).to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}
