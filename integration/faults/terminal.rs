//! What is typed at a terminal, and its end: the whole foreground group of processes gets the signal, not rbuild alone.

use std::fs;
use std::process::Command;

use super::{Running, descendants, state_is_good, wait_for};
use crate::support::build::{BASE, BOTH, Project, binary, busybox};
use crate::support::git::{GitServer, Manner};
use crate::support::script::plant;
use crate::support::terminal::Terminal;

const CTRL_C: &[u8] = b"\x03";
const HIDDEN: &str = "\u{1b}[?25l";
const SHOWN: &str = "\u{1b}[?25h";

/// A build as somebody types it.
fn build(project: &Project, args: &[&str]) -> Command {
    let mut command = project.command(binary());
    command.arg("--root").arg(project.state()).args(busybox()).args(args).arg(project.context()).env("TERM", "xterm");
    command
}

/// Waits for the end, and checks exit code, screen, processes and mounts.
fn ends(mut running: Running, code: i32, with: impl FnOnce()) -> String {
    let family = descendants(running.id());
    with();
    let status = running.end();
    assert_eq!(status.code(), Some(code), "{status}:\n{}", running.said());
    running.nothing_is_left(&family);
    running.said()
}

/// Stops a build by Ctrl-C.
fn interrupted(running: Running, terminal: Terminal) {
    let log = running.log.clone();
    let _ = ends(running, 130, || terminal.press(CTRL_C));
    terminal.finish();
    let screen = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
    assert!(screen.contains("[+] Building") && screen.contains("stopped by signal 2"), "{screen}");
    assert!(screen.rfind(SHOWN) > screen.rfind(HIDDEN), "the cursor stays hidden: {screen:?}");
}

#[test]
fn ctrl_c_in_a_run() {
    for user in BOTH {
        let script = "trap '' INT HUP; echo be''gun; sleep 1000 & setsid sleep 1000 & sleep 1000";
        let project = Project::with(user, &format!("{BASE}RUN {script}\n"));
        let (mut running, terminal) = Running::start_on_terminal(&project, &build(&project, &[]));
        running.until("begun");
        interrupted(running, terminal);
        state_is_good(&project);
    }
}

#[test]
fn ctrl_c_in_a_fetch_that_hangs() {
    let server = GitServer::with(Manner { silent_on: Some("command=fetch"), ..Manner::default() });
    let _ = server.repository("slow").commit(&[("f", "content")]);
    for user in BOTH {
        let project = Project::with(user, &format!("FROM scratch\nADD {} /\n", server.url("slow")));
        let silences = || server.asked().iter().filter(|(line, _)| line == "SILENCE").count();
        let before = silences();
        let (running, terminal) = Running::start_on_terminal(&project, &build(&project, &[]));
        wait_for("the fetch", || silences() > before);
        interrupted(running, terminal);
        state_is_good(&project);
    }
}

#[test]
fn ctrl_c_in_a_load_that_hangs() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY Dockerfile /\n");
        let (bin, started) = (project.home().join("bin"), project.home().join("started"));
        fs::create_dir(&bin).unwrap();
        // It reads nothing; an interrupt it does not hear.
        let script = "#!/bin/sh\ntrap '' INT\ntouch $HOME/started\nsleep 1000\n";
        plant(&bin.join("docker"), script);
        project.own(&bin);
        let mut command = build(&project, &["--load", "-t", "app:1"]);
        command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", bin.display()));
        let (running, terminal) = Running::start_on_terminal(&project, &command);
        wait_for("the load", || started.exists());
        interrupted(running, terminal);
        state_is_good(&project);
    }
}

#[test]
fn a_terminal_that_goes_away_ends_the_build() {
    for user in BOTH {
        let script = "trap '' INT HUP; echo be''gun; sleep 1000 & sleep 1000";
        let project = Project::with(user, &format!("{BASE}RUN {script}\n"));
        for progress in ["tty", "plain"] {
            let command = build(&project, &["--progress", progress]);
            let (mut running, terminal) = Running::start_on_terminal(&project, &command);
            running.until("begun");
            let _ = ends(running, 129, || terminal.hang_up());
        }
        state_is_good(&project);
    }
}

#[test]
fn progress_is_drawn_on_a_terminal_that_can_be_drawn_on() {
    let project = Project::with(crate::support::build::User::Rootless, &format!("{BASE}RUN echo fine\n"));
    for (term, drawn) in [(Some("xterm"), true), (Some("dumb"), false), (None, true)] {
        for flags in [&[][..], &["--progress", "auto"]] {
            let mut command = build(&project, flags);
            command.env_remove("TERM").envs(term.map(|term| ("TERM", term)));
            let (mut running, terminal) = Running::start_on_terminal(&project, &command);
            assert!(running.end().success(), "{}", running.said());
            terminal.finish();
            let said = running.said();
            assert_eq!(said.contains("[+] Building"), drawn, "{term:?} {flags:?}: {said}");
            assert_eq!(said.contains("\u{1b}["), drawn, "{term:?} {flags:?}: {said:?}");
            assert_eq!(said.contains("#1 [internal] load build definition"), !drawn, "{term:?} {flags:?}: {said}");
            assert!(!drawn || said.rfind(SHOWN) > said.rfind(HIDDEN), "{said:?}");
        }
    }
}
