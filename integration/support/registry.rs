//! Debian's docker-registry on a free port of this machine, with its own directory.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is special about a registry: lines of its configuration, in which `DIR` stands for its directory.
#[derive(Debug, Default, Clone)]
pub(crate) struct Form {
    /// Lines of the section `http`, indented by two.
    pub(crate) http: String,
    /// Whole sections.
    pub(crate) rest: String,
    /// Whether it writes down what it is asked.
    pub(crate) logs: bool,
    /// Whether a certificate for it is to be made, which is that of no authority.
    pub(crate) own_certificate: bool,
}

/// Section that lets [`USER`] in with [`PASSWORD`].
pub(crate) const LOGIN: &str = "auth:\n  htpasswd:\n    realm: test\n    path: DIR/htpasswd\n";

fn own_tls() -> String {
    "  tls:\n    certificate: DIR/cert.pem\n    key: DIR/key.pem\n".into()
}

/// A running registry; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    process: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    directory: tempfile::TempDir,
}

/// bcrypt of `secret`, cost 5.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
/// The account of a registry started by [`Registry::with_login`].
pub(crate) const USER: &str = "builder";
/// Its password.
pub(crate) const PASSWORD: &str = "secret";

impl Registry {
    /// Starts a registry that lets everybody in.
    pub(crate) fn start() -> Self {
        Self::configured(&Form::default())
    }

    /// Starts a registry that lets everybody in and writes down what it was asked.
    pub(crate) fn with_access_log() -> Self {
        Self::configured(&Form { logs: true, ..Form::default() })
    }

    /// The requests so far, one a line: `"GET /v2/… HTTP/1.1"` with what goes before and after. Only of a registry that writes an
    /// access log.
    pub(crate) fn requests(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory().join("access")).expect("access log");
        text.lines().map(str::to_owned).collect()
    }

    /// Starts a registry that lets [`USER`] in with [`PASSWORD`].
    pub(crate) fn with_login() -> Self {
        Self::configured(&Form { rest: LOGIN.into(), ..Form::default() })
    }

    /// Starts a registry that speaks TLS with a certificate for 127.0.0.1 that nobody knows, `cert.pem` in its directory.
    pub(crate) fn with_tls() -> Self {
        Self::configured(&Form { own_certificate: true, http: own_tls(), ..Form::default() })
    }

    /// Starts a registry. Another program may take the port between our choice and the registry's start; then it is another
    /// port's turn.
    pub(crate) fn configured(form: &Form) -> Self {
        (0..5)
            .find_map(|_| Self::try_launch(form))
            .expect("docker-registry (Debian package docker-registry) did not start")
    }

    fn try_launch(form: &Form) -> Option<Self> {
        let directory = tempfile::tempdir().expect("temp dir");
        let port = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
        let host = format!("127.0.0.1:{port}");
        let log = match form.logs {
            true => "log:\n  accesslog:\n    disabled: false\n",
            false => "log:\n  level: error\n  accesslog:\n    disabled: true\n",
        };
        let Form { http, rest, .. } = form;
        let config = format!(
            "version: 0.1\n{log}storage:\n  filesystem:\n    \
             rootdirectory: DIR/data\nhttp:\n  addr: {host}\n  secret: fixed\n{http}{rest}"
        );
        write(directory.path(), "config.yml", &config);
        write(directory.path(), "htpasswd", &format!("{USER}:{HASH}\n"));
        if form.own_certificate {
            make_certificate(directory.path());
        }
        let access = std::fs::File::create(directory.path().join("access")).expect("log");
        let log = std::fs::File::create(directory.path().join("log")).expect("log");
        let mut process = Command::new("docker-registry")
            .args(["serve".as_ref(), directory.path().join("config.yml").as_os_str()])
            .stdout(access)
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed (Debian package docker-registry)");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline && process.try_wait().expect("wait").is_none() {
            if TcpStream::connect(&host).is_ok() {
                return Some(Self { process, host, directory });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // It may have ended by itself already.
        let _ = process.kill();
        let _ = process.wait();
        None
    }

    /// The directory of the registry, for files that should go with it.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn make_certificate(directory: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .current_dir(directory)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl is installed").success());
}

fn write(directory: &Path, name: &str, text: &str) {
    let text = text.replace("DIR", directory.to_str().expect("temp paths are UTF-8"));
    std::fs::write(directory.join(name), text).expect("write");
}

impl Drop for Registry {
    fn drop(&mut self) {
        // A registry that ended by itself has failed its test already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
