//! Git repositories over ssh: OpenSSH's own server on a port of this machine, keys behind an agent.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use super::ssh::Agent;
use super::text;
use crate::support::build::{BOTH, Project, User, run};
use crate::support::git::GitServer;

/// How long the server may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that lets the key of an agent in, as the project's user; ended when dropped.
struct Server {
    child: Child,
    port: u16,
    host_key: PathBuf,
}

impl Server {
    fn start(project: &Project) -> Self {
        // Root's server wants it, and no other user could make it.
        fs::create_dir_all("/run/sshd").unwrap();
        let host_key = project.home().join("host_key");
        let mut keygen = project.command("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key);
        let _ = run(keygen).success();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = project.home().join("sshd_config");
        let lines = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            host_key.display(),
            project.home().join("key.pub").display(),
        );
        fs::write(&config, lines).unwrap();
        let mut command = project.command("/usr/sbin/sshd");
        command.args(["-D", "-f"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let started = std::time::Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, host_key }
    }

    /// The host's key as a line of `known_hosts`.
    fn known(&self) -> String {
        let key = fs::read_to_string(self.host_key.with_extension("pub")).unwrap();
        format!("[127.0.0.1]:{} {}", self.port, key.rsplit_once(' ').unwrap().0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A repository that the project's user can read, with `f` and a branch.
fn repository(project: &Project) -> PathBuf {
    let server = GitServer::start();
    let repository = server.repository("app");
    repository.commit(&[("f", "over ssh"), ("dir/g", "below"), ("Dockerfile", "FROM scratch\nCOPY . /context/\n")]);
    let bare = project.home().join("app.git");
    repository.git(&["clone", "--quiet", "--bare", text(repository.dir()), text(&bare)]);
    project.own(&bare);
    bare
}

#[test]
fn repositories_come_over_ssh_with_the_keys_of_an_agent() {
    for user in BOTH {
        let project = Project::new(user);
        let (agent, bare) = (Agent::start(&project), repository(&project));
        let server = Server::start(&project);
        let name = if user == User::Root { "root" } else { "rbuild-test" };
        let url = format!("ssh://{name}@127.0.0.1:{}{}", server.port, bare.display());
        project.file("Dockerfile", format!("FROM scratch\nADD {url} /a/\nADD {url}#main:dir /b/\n"));
        let ssh = format!("default={}", agent.socket.display());
        let out = project.home().join("out");
        let spec = format!("type=local,dest={}", out.display());
        let build = |args: &[&str]| project.build(&[&["-o", spec.as_str()], args].concat());

        // Without an agent nothing is tried, and what to type is said.
        let _ = build(&[]).failure(2).says("--ssh").says("Dockerfile:");
        // A host that was never met is learnt, as BuildKit's client does.
        let _ = build(&["--ssh", &ssh]).success();
        assert_eq!(fs::read_to_string(out.join("a/f")).unwrap(), "over ssh");
        assert_eq!(fs::read_to_string(out.join("b/g")).unwrap(), "below");
        let known = find(&project.state(), "known_hosts").expect("known_hosts in the state directory");
        assert_eq!(fs::read_to_string(&known).unwrap().trim(), server.known());
        assert_eq!(fs::metadata(&known).unwrap().permissions().mode() & 0o022, 0);

        // As the context it needs no flag where the agent is the usual one, as with buildx.
        let mut command = project.rbuild_command(&["-o", spec.as_str(), &url]);
        command.env("SSH_AUTH_SOCK", &agent.socket);
        let _ = run(command).success();
        assert_eq!(fs::read_to_string(out.join("context/f")).unwrap(), "over ssh");

        // A host that shows another key than before is not talked to.
        let other = fs::read_to_string(project.home().join("second.pub")).unwrap();
        let forged = format!("[127.0.0.1]:{} {}\n", server.port, other.rsplit_once(' ').unwrap().0);
        fs::write(&known, forged).unwrap();
        let refused = build(&["--ssh", &ssh, "--no-cache"]).failure(4);
        let _ = refused.says("Host key verification failed").says("Dockerfile:");
        fs::write(&known, format!("{}\n", server.known())).unwrap();

        // Nor is one that takes none of the agent's keys.
        fs::copy(project.home().join("second.pub"), project.home().join("key.pub")).unwrap();
        let denied = build(&["--ssh", &ssh, "--no-cache"]).failure(4);
        let _ = denied.says("Permission denied").says("Dockerfile:");
        // A key file that it does take is as good as an agent.
        let key = format!("default={}", project.home().join("second").display());
        let _ = build(&["--ssh", &key, "--no-cache"]).success();
    }
}

/// Finds a file of this name below a directory.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    let found = entries.iter().find(|path| path.file_name().is_some_and(|known| known == name)).cloned();
    found.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}
