//! Debian's nginx on a free port of this machine, with its own configuration and directory.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A running nginx; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    dir: tempfile::TempDir,
}

impl Nginx {
    /// Starts one with the lines of its `server` block.
    pub(crate) fn start(lines: &str) -> Self {
        // Another program may take the port between our choice and the start; then it is another port's turn.
        (0..5).find_map(|_| Self::try_start(lines)).expect("nginx (Debian package nginx-light) did not start")
    }

    /// The requests so far, as lines of its access log.
    pub(crate) fn requests(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn try_start(lines: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let place = dir.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {place}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log {place}/error.log;\nevents {{}}\nhttp {{\n{temporary}  \
             access_log {place}/access.log;\n  server {{\n    listen {host};\n    client_max_body_size 0;\n{lines}\n  }}\n}}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let log = std::fs::File::create(dir.path().join("out")).unwrap();
        let mut process = Command::new("nginx")
            .args(["-e", "error.log", "-p"])
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .stderr(log)
            .spawn()
            .expect("nginx is installed (Debian package nginx-light)");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline && process.try_wait().unwrap().is_none() {
            if TcpStream::connect(&host).is_ok() {
                return Some(Self { process, host, dir });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // It may have ended by itself already.
        let _ = process.kill();
        let _ = process.wait();
        None
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // An nginx that ended by itself has failed its test already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
