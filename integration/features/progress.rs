//! The displays: plain, quiet, rawjson and tty.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine as _;
use serde_json::Value;

use super::{text, tool, with_base};
use crate::support::build::{BOTH, Project, binary, busybox, run};

#[test]
fn plain_reads_like_buildkits() {
    for user in BOTH {
        let project = with_base(user, "COPY a /a\nRUN echo out; echo err >&2\n");
        project.file("a", "");
        let first = project.build(&[&["-o", text(&project.home().join("out"))], &busybox()[..]].concat()).success();
        assert_eq!(first.stdout, "");
        let _ = first
            .says("#1 [internal] load build definition from Dockerfile\n#1 DONE ")
            .says("] RUN echo out; echo err >&2\n")
            .says(" out\n")
            .says(" err\n")
            .says("exporting to client directory");
        let _ = project.build(&busybox()).success().says(" CACHED\n");
    }
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
