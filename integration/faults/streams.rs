//! What a step writes and leaves behind: floods, and processes in the background.

use std::fs;
use std::process::Stdio;

use super::{Running, state_is_good};
use crate::support::build::{BASE, BOTH, Project, User, busybox};

/// The most memory a process had, as long as it runs.
fn peak(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_flood_does_not_fill_memory() {
    for user in BOTH {
        // More lines than bytes, more bytes than lines, and one line.
        let long = "long line ".repeat(20);
        let floods = [&format!("yes {long} | head -c 160m"), "tr '\\0' x </dev/zero | head -c 64m", "yes | head -c 6m"];
        for flood in if user == User::Root { &floods[..] } else { &floods[2..] } {
            let project = Project::with(user, &format!("{BASE}RUN {flood}\nRUN echo after\n"));
            let mut command = project.rbuild_command(&busybox());
            command.arg(project.context()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let mut most = 0;
            while child.try_wait().unwrap().is_none() {
                most = peak(child.id()).unwrap_or(0).max(most);
                std::thread::sleep(super::POLL);
            }
            assert!(child.wait().unwrap().success());
            assert!((1..100 << 10).contains(&most), "{flood}: {most} KiB");
        }
    }
}

#[test]
fn processes_in_the_background_do_not_hold_a_step() {
    for user in BOTH {
        let script = "sleep 1000 & setsid sleep 1000 & (sleep 1000 &) & echo ready >/ready";
        let project = Project::with(user, &format!("{BASE}RUN {script}\nRUN cat /ready\n"));
        let mut running = Running::start(&project, &busybox());
        running.until("ready\n");
        assert!(running.end().success(), "{}", running.said());
        running.nothing_is_left(&Default::default());
        state_is_good(&project);
    }
}
