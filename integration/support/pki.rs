//! A private authority, and certificates of it, made with OpenSSL.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority in its own directory, which everybody can read.
#[derive(Debug)]
pub(crate) struct Authority {
    dir: tempfile::TempDir,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// An RSA key, which registries want for tokens, or the faster kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Ec,
    Rsa,
}

impl Kind {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Ec => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::Rsa => &["-newkey", "rsa:2048"],
        }
    }
}

impl Authority {
    /// Makes one.
    pub(crate) fn new() -> Self {
        Self::named("test authority")
    }

    /// Makes one with a name.
    pub(crate) fn named(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("rbuild-pki-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let this = Self { dir };
        this.make_self_signed("ca", &["-subj", &format!("/CN={name}")]);
        this
    }

    /// Makes a certificate that is its own authority, as the guides to registries have it.
    pub(crate) fn self_signed(&self, names: &str) -> Pair {
        self.make_self_signed("own", &["-subj", "/CN=own", "-addext", &format!("subjectAltName={names}")])
    }

    fn make_self_signed(&self, name: &str, rest: &[&str]) -> Pair {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        let files = ["-nodes", "-days", "2", "-keyout", &key, "-out", &certificate];
        self.run(&[&["req", "-x509"], Kind::Ec.arguments(), rest, &files].concat());
        self.open_to_all(&key);
        Pair { certificate: self.path(&certificate), key: self.path(&key) }
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The directory with all that it made.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str]) {
        let made =
            Command::new("openssl").args(arguments).current_dir(self.dir()).output().expect("openssl is installed");
        assert!(made.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
    }

    fn open_to_all(&self, name: &str) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Issues a certificate that holds for `days`, fewer than none for one that has expired. `names` are OpenSSL's
    /// (`IP:127.0.0.1,DNS:a.test`); none for a client.
    pub(crate) fn issue(&self, name: &str, names: &str, kind: Kind, days: &str) -> Pair {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let alternative = format!("subjectAltName={names}");
        let extension: &[&str] = if names.is_empty() { &[] } else { &["-addext", &alternative] };
        let subject = format!("/CN={name}");
        let start = [&["req"], kind.arguments(), &["-nodes", "-subj", &subject]].concat();
        self.run(&[&start, extension, &["-keyout", &key, "-out", &request]].concat());
        let start = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        self.run(&[&start[..], &["-copy_extensions", "copy", "-days", days, "-out", &certificate]].concat());
        self.open_to_all(&key);
        Pair { certificate: self.path(&certificate), key: self.path(&key) }
    }

    /// Issues a certificate for this machine's address.
    pub(crate) fn server(&self) -> Pair {
        self.issue("server", "IP:127.0.0.1", Kind::Ec, "2")
    }

    /// Issues a certificate for a client.
    pub(crate) fn client(&self) -> Pair {
        self.issue("client", "", Kind::Ec, "2")
    }
}

/// Lines of the section `http` for TLS with a certificate, and with clients of an authority only where one is given.
pub(crate) fn tls(pair: &Pair, clients: Option<&Path>) -> String {
    let clients = clients.map(|file| format!("    clientcas:\n      - {}\n", file.display())).unwrap_or_default();
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
    format!("  tls:\n    certificate: {certificate}\n    key: {key}\n{clients}")
}
