//! Git repositories and the servers that give them out: git's own `http-backend` behind a small web server of the test.
//!
//! The server counts requests, can ask for a login, and can send clients elsewhere.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

/// A repository with a work tree, in which commits are made.
pub(crate) struct Repository {
    dir: PathBuf,
}

impl Repository {
    /// Runs git in the work tree and returns what it prints.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(args).current_dir(&self.dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for (name, value) in [("NAME", "Test"), ("EMAIL", "test@example.com"), ("DATE", "2001-09-09T01:46:40Z")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Writes files, commits them, and returns the commit.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            let place = self.dir.join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "test"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Adds a commit of another repository as a submodule, without fetching it.
    pub(crate) fn submodule(&self, path: &str, url: &str, commit: &str) {
        let name = format!("submodule.{path}");
        self.git(&["config", "--file", ".gitmodules", &format!("{name}.path"), path]);
        self.git(&["config", "--file", ".gitmodules", &format!("{name}.url"), url]);
        self.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
        self.git(&["add", ".gitmodules"]);
        self.git(&["commit", "--quiet", "--message", "submodule"]);
    }

    /// Returns the path of the work tree.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// How long a question that gets no answer is left open at most.
const SILENCE: Duration = Duration::from_secs(90);

/// Method and path of a request, and `Authorization` if it was sent.
pub(crate) type Question = (String, Option<String>);

/// What a server does besides giving out repositories.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// Value of `Authorization` without which it says 401.
    pub(crate) login: Option<String>,
    /// Prefix of paths that are elsewhere, and where.
    pub(crate) moved: Option<(String, String)>,
    /// Text of questions that are not answered.
    pub(crate) silent_on: Option<&'static str>,
}

/// A web server; stopped when dropped.
pub(crate) struct GitServer {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    root: TempDir,
    asked: Arc<Mutex<Vec<Question>>>,
    stop: Arc<AtomicBool>,
}

impl GitServer {
    /// Starts a server that lets everyone in.
    pub(crate) fn start() -> Self {
        Self::with(Manner::default())
    }

    /// Starts a server.
    pub(crate) fn with(manner: Manner) -> Self {
        let root = TempDir::with_prefix("rbuild-git-").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (asked, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let service = Service { root: root.path().to_owned(), manner, asked: Arc::clone(&asked) };
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let service = service.clone();
                // A client that gives up is none of the server's business.
                std::thread::spawn(move || drop(service.answer(stream)));
            }
        });
        Self { host, root, asked, stop }
    }

    /// Makes an empty repository; what is committed is given out at once.
    pub(crate) fn repository(&self, name: &str) -> Repository {
        self.repository_with(name, &[])
    }

    /// Makes one with further options of `git init`.
    pub(crate) fn repository_with(&self, name: &str, options: &[&str]) -> Repository {
        let repository = Repository { dir: self.root.path().join(name) };
        fs::create_dir_all(&repository.dir).unwrap();
        repository.git(&[&["init", "--quiet", "--initial-branch=main"], options].concat());
        repository.git(&["config", "http.getanyfile", "false"]);
        repository
    }

    /// Returns the URL of a repository.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.host)
    }

    /// Returns what was asked for: method and path, and `Authorization` if it was sent.
    pub(crate) fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread sees the flag at its next connection.
        drop(TcpStream::connect(&self.host));
    }
}

#[derive(Clone)]
struct Service {
    root: PathBuf,
    manner: Manner,
    asked: Arc<Mutex<Vec<Question>>>,
}

impl Service {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let header = |name: &str| {
            let found = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
            found.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        let mut words = lines.first().map(String::as_str).unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        // A proxy is asked for the whole URL: it plays every host.
        let target = target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
        let authorization = header("authorization");
        self.asked.lock().unwrap().push((format!("{method} {target}"), authorization.clone()));
        let mut stream = stream;
        if let Some((from, to)) = &self.manner.moved
            && let Some(rest) = target.strip_prefix(from.as_str())
        {
            return write!(
                stream,
                "HTTP/1.1 301 Moved\r\nLocation: {to}{rest}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        if self.manner.login.is_some() && authorization != self.manner.login {
            return write!(
                stream,
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        let length: u64 = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = Vec::new();
        match header("transfer-encoding") {
            Some(_) => body = chunked(&mut reader)?,
            None => drop(reader.take(length).read_to_end(&mut body)?),
        }
        let says = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        if self.manner.silent_on.is_some_and(says) {
            self.asked.lock().unwrap().push(("SILENCE".into(), None));
            stream.set_read_timeout(Some(SILENCE))?;
            // Until the client goes.
            return stream.read(&mut [0]).map(drop);
        }
        let names = [
            ("CONTENT_TYPE", "content-type"),
            ("HTTP_CONTENT_ENCODING", "content-encoding"),
            ("GIT_PROTOCOL", "git-protocol"),
        ];
        let variables = names.map(|(variable, name)| (variable, header(name).unwrap_or_default()));
        stream.write_all(&self.backend(method, target, &variables, &body)?)
    }

    /// Runs git's CGI program.
    fn backend(
        &self,
        method: &str,
        target: &str,
        variables: &[(&str, String)],
        body: &[u8],
    ) -> std::io::Result<Vec<u8>> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        // A work tree's repository is in `.git`: the URL says `name.git`.
        let path = path.replacen(".git", "/.git", 1);
        let mut command = Command::new("git");
        command.arg("http-backend").env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_PROJECT_ROOT", &self.root).env("GIT_HTTP_EXPORT_ALL", "1");
        command.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query);
        command.env("CONTENT_LENGTH", body.len().to_string()).envs(variables.iter().cloned());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut stdin = child.stdin.take().unwrap();
        let body = body.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(&body));
        let mut output = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut output)?;
        child.wait()?;
        drop(writer.join());
        let text = String::from_utf8_lossy(&output);
        let status = text.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
        Ok([format!("HTTP/1.1 {status}\r\nConnection: close\r\n").as_bytes(), &output].concat())
    }
}

fn chunked(reader: &mut impl std::io::BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).unwrap_or(0);
        reader.by_ref().take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}
