//! What the flags and instructions promise, build by build.

mod bases;
mod cache_faults;
mod cache_healing;
mod caches;
mod caching;
mod call;
mod check;
mod command_line;
mod config;
mod context;
mod copying;
mod devices;
mod explain;
mod git;
mod git_ssh;
mod http;
mod image;
mod imagetools;
mod language;
mod mounts;
mod nested;
mod network;
mod outputs;
mod packaged;
mod platforms;
mod podman;
mod privileges;
mod progress;
mod proxies;
mod prune;
mod pushing;
mod registries;
mod running;
mod settings;
mod sources;
mod ssh;
mod syntax;
mod worker;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::build::{BASE, Output, Project, User};

/// Starts a server on loopback that says `here` to whoever connects, and returns its port.
fn greeter() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            drop(connection.unwrap().write_all(b"here\n"));
        }
    });
    port
}

/// Makes a project whose Dockerfile goes on from the stage `base`, which has busybox.
fn with_base(user: User, rest: &str) -> Project {
    Project::with(user, &format!("{BASE}{rest}"))
}

/// Runs a command that gets `input` through a pipe.
fn fed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that needs no more closes its end; its exit code says whether that was right.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a tool of the machine and returns what it prints.
fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
