//! Files and repositories of hosts that only a proxy can reach, and of hosts with a certificate of the user's own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use super::{text, tool};
use crate::support::build::{BOTH, Output, Project, run};
use crate::support::git::GitServer;

/// OpenSSL's own server, which gives out the files of a directory; ended when dropped.
struct Tls {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Tls {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| text(&dir.path().join(name)).to_owned();
        let names = "subjectAltName=DNS:localhost,DNS:files.test";
        let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3"];
        let rest = ["-subj", "/CN=test", "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"];
        let (key, certificate) = (path("key.pem"), path("cert.pem"));
        tool("openssl", &[&request[..], &rest, &["-keyout", &key, "-out", &certificate]].concat());
        fs::write(dir.path().join("file"), "over tls").unwrap();
        let mut command = std::process::Command::new("openssl");
        command.args(["s_server", "-WWW", "-accept", "127.0.0.1:0", "-key", &key, "-cert", &certificate]);
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = said.find(|line| line.starts_with("ACCEPT ")).expect("its port");
        let port = line.rsplit_once(':').unwrap().1.trim().parse().unwrap();
        // What else it says has to go somewhere.
        std::thread::spawn(move || said.count());
        Self { child, port, dir }
    }

    /// The certificate, at a place every user can read.
    fn certificate(&self, project: &Project) -> String {
        let place = project.home().join("ca.pem");
        fs::copy(self.dir.path().join("cert.pem"), &place).unwrap();
        project.own(&place);
        text(&place).to_owned()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy for TLS that leads to one port, whatever host is named; it notes what it was asked.
fn tunnel(to: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let noted = Arc::clone(&noted);
            // A client that gives up is none of the proxy's business.
            std::thread::spawn(move || drop(pass_on(client, to, &noted)));
        }
    });
    (host, asked)
}

fn pass_on(mut client: TcpStream, to: u16, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    asked.lock().unwrap().push(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned());
    let mut server = TcpStream::connect(("127.0.0.1", to))?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut into) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || drop(std::io::copy(&mut from, &mut into)));
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)
}

fn build(project: &Project, variables: &[(&str, &str)]) -> Output {
    let spec = format!("type=local,dest={}", project.home().join("out").display());
    let mut command = project.rbuild_command(&["-o", &spec, text(&project.context())]);
    command.envs(variables.iter().copied());
    run(command)
}

fn read(project: &Project, path: &str) -> String {
    fs::read_to_string(Path::new(&project.home()).join("out").join(path)).unwrap()
}

#[test]
fn a_certificate_of_ones_own_is_trusted_by_its_file() {
    let tls = Tls::start();
    for user in BOTH {
        let project = Project::with(user, &format!("FROM scratch\nADD https://localhost:{}/file /\n", tls.port));
        let refused = build(&project, &[]).failure(4).says("Dockerfile:2");
        let _ = refused.says("SSL_CERT_FILE");
        let _ = build(&project, &[("SSL_CERT_FILE", &tls.certificate(&project))]).success();
        assert_eq!(read(&project, "file"), "over tls");
    }
}

#[test]
fn a_proxy_of_the_environment_is_asked_for_files_and_repositories() {
    let server = GitServer::start();
    server.repository("app").commit(&[("f", "by proxy")]);
    let tls = Tls::start();
    let (tunnel, asked) = tunnel(tls.port);
    for user in BOTH {
        let file = format!(
            "FROM scratch\nADD https://files.test/file /\nADD http://repositories.test/app.git /app/\nADD {} /own/\n",
            server.url("app")
        );
        let project = Project::with(user, &file);
        let certificate = tls.certificate(&project);
        let proxies = [("HTTPS_PROXY", format!("http://{tunnel}")), ("http_proxy", format!("http://{}", server.host))];
        let mut variables: Vec<(&str, &str)> = proxies.iter().map(|(name, value)| (*name, value.as_str())).collect();
        variables.extend([("SSL_CERT_FILE", certificate.as_str()), ("NO_PROXY", "127.0.0.1")]);
        let _ = build(&project, &variables).success();
        assert_eq!((read(&project, "file"), read(&project, "app/f")), ("over tls".into(), "by proxy".into()));
        assert_eq!(read(&project, "own/f"), "by proxy");
        assert_eq!(std::mem::take(&mut *asked.lock().unwrap()).first().unwrap(), "CONNECT files.test:443 HTTP/1.1");
        // A host that is excepted is looked for itself, and this one is nowhere.
        let project = Project::with(user, "FROM scratch\nADD https://files.test/file /\n");
        variables.push(("NO_PROXY", "files.test"));
        let _ = build(&project, &variables).failure(4).says("Dockerfile:2");
        assert!(asked.lock().unwrap().is_empty());
    }
}
