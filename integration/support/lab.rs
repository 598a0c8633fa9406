//! A network namespace that stands for a machine: Debian's CNI plugins work in it, and the real machine stays as it is.
//!
//! The plugin `bridge` is called through a script that notes each call. Leases lie in the directory of the lab, or below a
//! `/var/lib` of its own.

use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::build::{Output, Project, binary, run};
use super::script::plant;

/// Where Debian's containernetworking-plugins are.
const PLUGINS: &str = "/usr/lib/cni";
/// The address of the bridge.
pub(crate) const GATEWAY: &str = "10.99.0.1";
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The namespace, held by a process that does nothing.
#[derive(Debug)]
pub(crate) struct Lab {
    holder: Child,
    temp: TempDir,
}

impl Lab {
    /// Makes it, with the loopback device up.
    pub(crate) fn new() -> Self {
        let temp = TempDir::with_prefix("rbuild-lab-").unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs tmpfs /var/lib && ip link set lo up && echo up && exec sleep 100000";
        command.args(["--net", "--mount", "sh", "-c", script]);
        let mut holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "up\n");
        let lab = Self { holder, temp };
        fs::create_dir(lab.plugins()).unwrap();
        for entry in fs::read_dir(PLUGINS).expect("containernetworking-plugins is installed") {
            let path = entry.unwrap().path();
            symlink(&path, lab.plugins().join(path.file_name().unwrap())).unwrap();
        }
        lab.plugin("bridge", &format!("exec {PLUGINS}/bridge"));
        lab
    }

    /// Puts a script in place of a plugin; it notes calls first.
    pub(crate) fn plugin(&self, name: &str, script: &str) {
        let path = self.plugins().join(name);
        drop(fs::remove_file(&path));
        let calls = self.path("calls");
        let text = format!("#!/bin/sh\necho \"$CNI_COMMAND $CNI_ARGS\" >> {}\n{script}\n", calls.display());
        plant(&path, &text);
    }

    /// A path in the directory of the lab.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.path("bin")
    }

    /// Writes a configuration of CNI with these plugins behind the bridge's own keys, and returns its path.
    pub(crate) fn network(&self, bridge: &str, further: &str) -> PathBuf {
        let text = format!(
            r#"{{"cniVersion":"1.0.0","name":"lab","plugins":[
                {{"type":"loopback"}},
                {{"type":"bridge","bridge":"br-lab","isGateway":true,{bridge}
                  "ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.99.0.0/24"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}}{further}]}}"#,
            self.path("leases").display(),
        );
        let path = self.path("cni.conflist");
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes a `buildkitd.toml` whose `[worker.oci]` has the network of the lab and these lines, and returns its path.
    pub(crate) fn config(&self, lines: &str) -> PathBuf {
        if !self.path("cni.conflist").exists() {
            self.network("", "");
        }
        let text = format!(
            "[worker.oci]\ncniConfigPath = \"{}\"\ncniBinaryPath = \"/nonexistent:{}\"\n{lines}\n",
            self.path("cni.conflist").display(),
            self.plugins().display(),
        );
        let path = self.path("buildkitd.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// A command in the namespace.
    pub(crate) fn enter(&self, project: &Project, program: impl AsRef<OsStr>) -> Command {
        let mut command = project.command("nsenter");
        command.args(self.namespaces()).arg(program);
        command
    }

    /// Any command, as whoever it is for, in the namespace.
    pub(crate) fn around(&self, command: &Command) -> Command {
        let mut around = Command::new("nsenter");
        around.args(self.namespaces()).arg(command.get_program()).args(command.get_args()).env_clear();
        around.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        if let Some(dir) = command.get_current_dir() {
            around.current_dir(dir);
        }
        around
    }

    /// rbuild on a project in the namespace, with the `buildkitd.toml` of the lab.
    pub(crate) fn command(&self, project: &Project, args: &[&str]) -> Command {
        let mut command = self.enter(project, binary());
        command.arg("--root").arg(project.state()).args(["--progress", "plain", "--config"]);
        command.arg(self.path("buildkitd.toml")).args(super::build::busybox()).args(args).arg(project.context());
        command
    }

    /// Builds a project in the namespace.
    pub(crate) fn build(&self, project: &Project, args: &[&str]) -> Output {
        run(self.command(project, args))
    }

    /// Builds a project in the namespace and returns a file of the result.
    pub(crate) fn built(&self, project: &Project, args: &[&str], path: &str) -> String {
        let out = project.home().join("out");
        let spec = format!("type=local,dest={}", out.display());
        let _ = self.build(project, &[&["-o", &spec], args].concat()).success();
        fs::read_to_string(out.join(path)).unwrap()
    }

    fn namespaces(&self) -> [String; 2] {
        ["net", "mnt"].map(|kind| {
            let flag = if kind == "net" { "net" } else { "mount" };
            format!("--{flag}=/proc/{}/ns/{kind}", self.holder.id())
        })
    }

    /// What plugins that note their calls were asked: command and arguments.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// How often plugins that note their calls were asked this.
    pub(crate) fn count(&self, command: &str) -> usize {
        self.calls().iter().filter(|call| call.starts_with(command)).count()
    }

    /// Listens in the namespace at any address.
    pub(crate) fn listen(&self) -> (TcpListener, u16) {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        let listening = std::thread::spawn(move || {
            rbuild::sys::ns::join_network(namespace).unwrap();
            TcpListener::bind("0.0.0.0:0").unwrap()
        });
        let listener = listening.join().unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    /// Answers who connects with `go` as soon as `open` says so, and returns its port.
    pub(crate) fn gate(&self, open: impl Fn() -> bool + Send + 'static) -> u16 {
        let (listener, port) = self.listen();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                wait_for("what opens the gate", &open);
                drop(connection.unwrap().write_all(b"go\n"));
            }
        });
        port
    }

    /// Answers the first `count` who connect with `go`, when all are there.
    pub(crate) fn barrier(&self, count: usize) -> u16 {
        let (listener, port) = self.listen();
        std::thread::spawn(move || {
            let there: Vec<TcpStream> = listener.incoming().take(count).map(Result::unwrap).collect();
            there.into_iter().for_each(|mut connection| drop(connection.write_all(b"go\n")));
        });
        port
    }

    /// What a program prints in the namespace.
    pub(crate) fn tool(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        command.args(self.namespaces()).arg(program).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Lays a writable copy over a directory, for the namespace alone.
    pub(crate) fn over(&self, directory: &str) {
        let script = "mkdir -p $1 && mount -t tmpfs tmpfs $1 && mkdir $1/upper $1/work && \
            mount -t overlay overlay -o lowerdir=$0,upperdir=$1/upper,workdir=$1/work $0";
        let place = self.path(&format!("over-{}", directory.trim_start_matches('/')));
        self.tool("sh", &["-ec", script, directory, place.to_str().unwrap()]);
    }

    /// Names of the devices.
    pub(crate) fn links(&self) -> Vec<String> {
        let text = self.tool("ip", &["-o", "link"]);
        let name =
            |line: &str| line.split(": ").nth(1).unwrap_or_default().split('@').next().unwrap_or_default().to_owned();
        text.lines().map(name).collect()
    }

    /// Addresses that are taken.
    pub(crate) fn leases(&self) -> Vec<String> {
        let script = format!("find {} /var/lib/cni -type f 2>/dev/null || true", self.path("leases").display());
        let files = self.tool("sh", &["-c", &script]);
        let names = files.lines().filter_map(|file| file.rsplit('/').next());
        names.filter(|name| name.parse::<IpAddr>().is_ok()).map(str::to_owned).collect()
    }

    /// Rules of the firewall that name an address of the lab.
    pub(crate) fn rules(&self) -> Vec<String> {
        let text = self.tool("iptables-save", &[]);
        text.lines().filter(|line| line.contains("10.99.0.")).map(str::to_owned).collect()
    }

    /// Asserts that no build has left anything: no device but a bridge, no address, no rule, no record.
    pub(crate) fn assert_clean(&self, project: &Project) {
        // The kernel takes its time with namespaces whose last process was killed.
        wait_for("devices to go", || !self.links().iter().any(|name| name.starts_with("veth")));
        assert_eq!((self.leases(), self.rules()), (Vec::new(), Vec::new()));
        assert_eq!(records(&project.state()), Vec::<String>::new());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The records of networks in a state directory.
pub(crate) fn records(state: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(state.join("network")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "guard").collect()
}

/// Waits until something holds.
pub(crate) fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}
