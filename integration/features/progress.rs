//! The displays: plain, quiet, rawjson and tty.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine as _;
use serde_json::Value;

use super::{text, tool, with_base};
use crate::support::build::{BOTH, Project, User, binary, busybox, run};
use crate::support::registry::Registry;
use crate::support::terminal::Terminal;

#[test]
fn plain_reads_like_buildkits() {
    for user in BOTH {
        let project = with_base(user, "COPY a /a\nRUN echo out; echo err >&2\n");
        project.file("a", "");
        let first = project.build(&[&["-o", text(&project.home().join("out"))], &busybox()[..]].concat()).success();
        assert_eq!(first.stdout, "");
        let _ = first
            .says("#1 [internal] load build definition from Dockerfile\n#1 transferring dockerfile: ")
            .says("] RUN echo out; echo err >&2\n")
            .says(" out\n")
            .says(" err\n")
            .says("exporting to client directory");
        let _ = project.build(&busybox()).success().says(" CACHED\n");
    }
}

/// What one build does that shows all of it: it pulls, reads a context with and without rules, and pushes. Its names are the
/// host of the registry and the directory of the result.
struct Whole {
    registry: Registry,
    project: Project,
}

impl Whole {
    fn new(user: User) -> Self {
        let registry = Registry::start();
        let base = Project::with(user, "FROM scratch\nCOPY f /f\n");
        base.file("f", "of the base");
        let _ = base.build(&["-t", &format!("{}/base:1", registry.host), "--push"]).success();
        let dockerfile = format!("FROM {}/base:1\nCOPY a* /a/\nCOPY --from=other b /b\n", registry.host);
        let project = Project::with(user, &dockerfile);
        project.file("a1", "12345").file("a2", "1234567").file("ignored", "x".repeat(5000)).file("not-used", "much");
        project.file(".dockerignore", "ignored\n");
        fs::create_dir(project.home().join("other")).unwrap();
        fs::write(project.home().join("other/b"), "123").unwrap();
        Self { registry, project }
    }

    fn args(&self) -> Vec<String> {
        let (name, other) = (format!("{}/app:1", self.registry.host), self.project.home().join("other"));
        let dest = self.project.home().join("copied");
        let other = format!("other={}", text(&other));
        let cache = format!("type=local,mode=max,dest={}", self.project.home().join("cache").display());
        let args = ["-t", &name, "--build-context", &other, "--push", "-o", text(&dest), "--cache-to", &cache];
        args.map(str::to_owned).to_vec()
    }

    /// Steps and, below each, its parts with how much they moved; `*` stands for a digest.
    fn expected(&self) -> Vec<(String, Vec<String>)> {
        let (host, project) = (&self.registry.host, &self.project);
        let size = |file: &str| fs::metadata(project.context().join(file)).unwrap().len();
        let step =
            |name: &str, parts: &[&str]| (name.to_owned(), parts.iter().map(|part| (*part).to_owned()).collect());
        vec![
            step(
                "[internal] load build definition from Dockerfile",
                &[&format!("transferring dockerfile: {}B", size("Dockerfile"))],
            ),
            step(&format!("[internal] load metadata for {host}/base:1"), &[]),
            step("[internal] load .dockerignore", &["transferring context: 8B"]),
            step("[context other] load .dockerignore", &["transferring other:"]),
            step("[internal] load build context", &["transferring context: 12B"]),
            step("[context other] load from client", &["transferring other: 3B"]),
            step(&format!("FROM {host}/base:1@*"), &[&format!("resolve {host}/base:1@*"), "*", "extracting *"]),
            step(
                "exporting to image",
                &[
                    "exporting layers",
                    "exporting manifest *",
                    "exporting config *",
                    &format!("naming to {host}/app:1"),
                    "pushing layers",
                    &format!("pushing manifest for {host}/app:1@*"),
                ],
            ),
            step("exporting to client directory", &["copying files"]),
            step(
                "exporting cache to client directory",
                &[
                    "preparing build cache for export",
                    "sending cache export",
                    "writing layer *",
                    "writing config *",
                    "writing cache image manifest *",
                ],
            ),
        ]
    }
}

/// Puts `*` in place of digests.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(part.len());
        shown.push_str(if end == 64 { "*" } else { "sha256:" });
        shown.push_str(if end == 64 { &part[end..] } else { part });
    }
    shown
}

#[test]
fn plain_names_steps_and_their_parts_as_buildkit_does() {
    for user in BOTH {
        let whole = Whole::new(user);
        let args = whole.args();
        let said = whole.project.build(&args.iter().map(String::as_str).collect::<Vec<_>>()).success().stderr;
        let said = without_digests(&said);
        for (step, parts) in whole.expected() {
            let number = said.lines().find(|line| line.contains(&step)).and_then(|line| line.split(' ').next());
            let number = number.unwrap_or_else(|| panic!("{step:?} is not in:\n{said}"));
            for part in parts {
                let begin = format!("{number} {part}");
                let done = said.lines().any(|line| line.starts_with(&begin) && line.ends_with(" done"));
                assert!(done, "{begin:?} is not in:\n{said}");
            }
        }
    }
}

#[test]
fn rawjson_has_the_same_steps_and_parts() {
    let whole = Whole::new(User::Rootless);
    let args = whole.args();
    let (code, lines, rest) = rawjson(&whole.project, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((code, rest.as_str()), (0, ""));
    let all = |key: &str| -> Vec<&Value> { lines.iter().filter_map(|l| l[key].as_array()).flatten().collect() };
    for (step, parts) in whole.expected() {
        let is_it = |vertex: &&&Value| without_digests(vertex["name"].as_str().unwrap_or_default()).contains(&step);
        let vertices = all("vertexes");
        let vertex = vertices.iter().find(is_it).unwrap_or_else(|| panic!("no {step:?}"));
        for part in parts {
            // The amount is a number of its own here.
            let (id, amount) = match part.rsplit_once(": ") {
                Some((id, amount)) => (format!("{id}:"), amount.trim_end_matches('B').parse::<u64>().ok()),
                None => (part.clone(), None),
            };
            let is_it = |status: &&&Value| {
                let same = status["vertex"] == vertex["digest"] && status["completed"].is_string();
                same && without_digests(status["id"].as_str().unwrap_or_default()) == id
            };
            let statuses = all("statuses");
            let status = statuses.iter().find(is_it).unwrap_or_else(|| panic!("no {id:?} of {step:?}"));
            assert!(amount.is_none_or(|amount| status["current"] == amount), "{status}");
        }
    }
}

#[test]
fn a_terminal_shows_the_same_steps_and_parts_and_quiet_none() {
    let whole = Whole::new(User::Rootless);
    let project = &whole.project;
    let command = |progress: &str| {
        let mut command = project.command(binary());
        command.arg("--root").arg(project.state()).args(["--progress", progress]).args(whole.args());
        command.arg(project.context()).env("TERM", "xterm").env("NO_COLOR", "1");
        command
    };
    let log = project.home().join("screen");
    let (terminal, mut shown) = Terminal::attach(&command("tty"), fs::File::create(&log).unwrap());
    let status = shown.status().unwrap();
    drop(shown);
    terminal.finish();
    let screen = fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{screen}");
    let last = without_digests(screen.rsplit("[+] Building").next().unwrap());
    for (step, parts) in whole.expected() {
        assert!(last.contains(&format!(" => {step}")) || last.contains(&step), "{step:?} is not in:\n{last}");
        for part in parts {
            assert!(last.contains(&format!(" => => {part}")), "{part:?} is not in:\n{last}");
        }
    }
    let quiet = run(command("quiet")).success();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn quiet_says_errors_only() {
    for user in BOTH {
        let project = with_base(user, "ARG FAIL\nRUN echo hidden words; test -z \"$FAIL\"\n");
        let out = project.home().join("out");
        let context = project.context();
        let build = |more: &[&str]| {
            let mut command = project.command(binary());
            command.arg("--root").arg(project.state()).args(["--progress=quiet", "-o", text(&out)]).args(busybox());
            command.args(more).arg(&context);
            run(command)
        };
        let fine = build(&[]).success();
        assert_eq!((fine.stdout.as_str(), fine.stderr.as_str()), ("", ""));
        let _ = build(&["--build-arg", "FAIL=1"]).failure(1).says("exit code: 1").says("Dockerfile:5");
    }
}

/// The lines of standard error that are there, each parsed.
fn rawjson(project: &Project, args: &[&str]) -> (i32, Vec<Value>, String) {
    let mut command = project.command(binary());
    command.arg("--root").arg(project.state()).args(["--progress", "rawjson"]).args(args).arg(project.context());
    let output = run(command);
    let mut lines = Vec::new();
    let mut rest = String::new();
    for line in output.stderr.lines() {
        match serde_json::from_str(line) {
            Ok(value) if rest.is_empty() => lines.push(value),
            _ => rest.push_str(&format!("{line}\n")),
        }
    }
    (output.code, lines, rest)
}

const KEYS: [(&str, &[&str]); 4] = [
    ("vertexes", &["digest", "inputs", "name", "started", "completed", "cached", "error", "progressGroup"]),
    ("statuses", &["id", "vertex", "name", "total", "current", "timestamp", "started", "completed"]),
    ("logs", &["vertex", "stream", "data", "timestamp"]),
    ("warnings", &["vertex", "level", "short", "detail", "url", "sourceInfo", "range"]),
];

#[test]
fn rawjson_is_one_solve_status_a_line() {
    for user in BOTH {
        let project = with_base(user, "RUN echo out; echo err >&2\nMAINTAINER nobody\n");
        let (code, lines, rest) = rawjson(&project, &busybox());
        assert_eq!((code, rest.as_str()), (0, ""));
        let known: BTreeMap<&str, &[&str]> = KEYS.into_iter().collect();
        for line in &lines {
            for (key, entries) in line.as_object().unwrap() {
                for entry in entries.as_array().unwrap() {
                    let unknown =
                        entry.as_object().unwrap().keys().find(|name| !known[key.as_str()].contains(&name.as_str()));
                    assert_eq!(unknown, None, "{line}");
                }
            }
        }
        let all = |key: &str| -> Vec<&Value> { lines.iter().filter_map(|l| l[key].as_array()).flatten().collect() };
        let logs: Vec<String> = all("logs")
            .iter()
            .map(|log| {
                let data = base64::engine::general_purpose::STANDARD.decode(log["data"].as_str().unwrap()).unwrap();
                format!("{}:{}", log["stream"], String::from_utf8(data).unwrap())
            })
            .collect();
        assert!(logs.contains(&"1:out\n".to_owned()) && logs.contains(&"2:err\n".to_owned()), "{logs:?}");
        let vertices = all("vertexes");
        let step = vertices
            .iter()
            .rfind(|v| v["name"].as_str().is_some_and(|name| name.ends_with("RUN echo out; echo err >&2")))
            .unwrap();
        assert!(step["completed"].is_string() && step["digest"].as_str().unwrap().starts_with("sha256:"));
        assert_eq!(step["inputs"].as_array().unwrap().len(), 1);
        assert!(!all("warnings").is_empty());
    }
}

#[test]
fn rawjson_of_a_failure_ends_with_the_error() {
    let project = with_base(crate::support::build::User::Rootless, "RUN exit 3\n");
    let (code, lines, rest) = rawjson(&project, &busybox());
    assert_eq!(code, 1);
    assert!(rest.starts_with("ERROR: ") || rest.contains("exit code: 3"), "{rest}");
    let failed = lines
        .iter()
        .filter_map(|l| l["vertexes"].as_array())
        .flatten()
        .any(|v| v["error"].as_str().is_some_and(|e| e.contains("exit code: 3")));
    assert!(failed);
}

#[test]
fn a_terminal_is_drawn_on_and_left_as_it_was() {
    for user in BOTH {
        let project = with_base(user, "RUN echo drawn words\nRUN printf 'evil \\033]0;title\\007\\033[2J\\n'\n");
        let place = project.home().join("build.sh");
        let words =
            ["--root", text(&project.state()), "--progress", "tty", "-o", text(&project.home().join("out"))].join(" ");
        let script = format!(
            "stty cols 100 rows 30\n{} {words} {} {}\necho code=$?\n",
            binary().display(),
            busybox().join(" "),
            project.context().display()
        );
        fs::write(&place, script).unwrap();
        project.own(&place);
        let mut command = project.command("script");
        command.args(["-qec", &format!("sh {}", place.display()), "/dev/null"]).env("TERM", "xterm");
        let said = run(command).success().stdout;
        assert!(said.contains("[+] Building") && said.contains("FINISHED") && said.contains("code=0"), "{said}");
        assert!(said.contains("\u{1b}["), "nothing was redrawn");
        assert!(!said.contains("\u{1b}]0;title") && !said.contains("\u{1b}[2J"), "{said:?}");
        let (hidden, shown) = (said.rfind("\u{1b}[?25l"), said.rfind("\u{1b}[?25h"));
        assert!(hidden.is_none() || shown > hidden, "the cursor stays hidden");
        let last = said.split("FINISHED").last().unwrap();
        assert!(last.contains("exporting to client directory") && last.trim_end().ends_with("code=0"), "{last:?}");
        assert_eq!(tool("find", &[text(&project.home().join("out/bin/busybox"))]).lines().count(), 1);
    }
}
