//! Ctrl-C and SIGTERM: all stops, nothing stays, the exit code says which signal it was.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::images::{Image, Pulls};
use super::{Running, in_progress, names, state_is_good, wait_for};
use crate::support::build::{BASE, BOTH, Project, User, busybox};
use crate::support::image::RawTar;
use crate::support::registry::Registry;
use crate::support::script::plant;

const BOTH_SIGNALS: [(&str, i32); 2] = [("INT", 130), ("TERM", 143)];

/// Checks that a build of something small works and leaves the state as it should be.
fn works(project: &Project) {
    project.file("Dockerfile", format!("{BASE}RUN echo fine\n"));
    let _ = project.build(&busybox()).success();
    state_is_good(project);
}

#[test]
fn in_a_run() {
    for user in BOTH {
        // The shell of the step ignores what it can.
        let script = "trap '' INT TERM HUP; echo be''gun; sleep 1000 & setsid sleep 1000 & sleep 1000";
        let project = Project::with(user, &format!("{BASE}RUN {script}\n"));
        // The last one comes when a terminal goes away, but anybody may send it.
        for (signal, code) in BOTH_SIGNALS.into_iter().chain([("HUP", 129)]) {
            let mut running = Running::start(&project, &busybox());
            running.until("begun");
            let said = running.interrupt(signal, code);
            assert!(said.contains("stopped by signal"), "{said}");
        }
        works(&project);
    }
}

#[test]
fn in_a_pull_and_before() {
    for user in BOTH {
        let project = Project::new(user);
        let pulls = Pulls::start(Image::get());
        pulls.stall_after(50);
        project.file("Dockerfile", format!("FROM {}/app\n", pulls.host()));
        for (signal, code) in BOTH_SIGNALS {
            pulls.stall_after(50);
            let running = Running::start(&project, &["-o", "out"]);
            wait_for("a stalled layer", || pulls.is_stalled() && in_progress(&project) > 0);
            running.interrupt(signal, code);
        }
        // Connections are made, and nobody answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        project.file("Dockerfile", format!("FROM {}/app\n", silent.local_addr().unwrap()));
        let mut running = Running::start(&project, &[]);
        running.until("load metadata for");
        running.interrupt("INT", 130);
        works(&project);
    }
}

#[test]
fn in_a_context_that_does_not_come() {
    for user in BOTH {
        let project = Project::new(user);
        for (signal, code) in BOTH_SIGNALS {
            let (log, mut command) = (project.home().join("log"), project.rbuild_command(&["-"]));
            let mut child = command.stdin(Stdio::piped()).stderr(File::create(&log).unwrap()).spawn().unwrap();
            let tar = RawTar::default().file("Dockerfile", 0o644, vec![b'#'; 5000]).0;
            let mut pipe = child.stdin.take().unwrap();
            pipe.write_all(&tar[..2000]).unwrap();
            wait_for("the first step", || fs::read_to_string(&log).unwrap().contains("load build definition"));
            let (sent, id) = (Instant::now(), child.id().to_string());
            assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
            assert_eq!(child.wait().unwrap().code(), Some(code), "{}", fs::read_to_string(&log).unwrap());
            assert!(sent.elapsed() < Duration::from_secs(5));
        }
        works(&project);
    }
}

#[test]
fn a_failed_build_does_not_wait_for_what_is_being_packed() {
    for user in BOTH {
        let random = "RUN dd if=/dev/urandom of=/random bs=1M count=150\nRUN echo fai''ls; false\n";
        let project = Project::with(user, &format!("{BASE}{random}"));
        let slow = "type=oci,dest=image.tar,compression=zstd,compression-level=22";
        let mut running = Running::start(&project, &[&busybox()[..], &["-o", slow]].concat());
        running.until("fails");
        let failed = Instant::now();
        assert_eq!(running.end().code(), Some(1), "{}", running.said());
        assert!(failed.elapsed() < Duration::from_secs(4), "{:?}", failed.elapsed());
    }
}

#[test]
fn in_exports() {
    for user in BOTH {
        let project = Project::with(user, &format!("{BASE}RUN dd if=/dev/urandom of=/random bs=1M count=24\n"));
        let warm = [&busybox()[..], &["-o", "type=oci,dest=first.tar"]].concat();
        let _ = project.build(&warm).success();
        for output in
            ["type=oci,dest=out/image.tar", "type=tar,dest=out/files.tar", "type=oci,dest=out/layout,tar=false"]
        {
            for (signal, code) in BOTH_SIGNALS {
                interrupted(&project, output, (signal, code));
            }
        }
        works(&project);
    }
}

/// Stops an export as soon as it has begun; what it wrote must not stay.
fn interrupted(project: &Project, output: &str, (signal, code): (&str, i32)) {
    let out = project.home().join("out");
    fs::create_dir_all(&out).unwrap();
    project.own(&out);
    let args = [&busybox()[..], &["-o", output]].concat();
    let mut running = Running::start(project, &args);
    running.until("exporting to");
    let family = super::descendants(running.id());
    running.signal(signal);
    let status = running.end();
    // It may have been quicker than the signal.
    if !status.success() {
        assert_eq!(status.code(), Some(code), "{}", running.said());
        running.nothing_is_left(&family);
        let left: Vec<String> = names(&out).into_iter().filter(|name| name != "layout").collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!out.join("layout/index.json").exists());
        super::blobs_are_good(&out.join("layout"));
    }
    fs::remove_dir_all(&out).unwrap();
}

#[test]
fn in_a_push_and_a_pipe_that_stand_still() {
    for user in BOTH {
        let project = Project::with(user, &format!("{BASE}RUN dd if=/dev/urandom of=/random bs=1M count=2\n"));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let push = format!("type=image,name={}/app,push=true", silent.local_addr().unwrap());
        let mut running = Running::start(&project, &[&busybox()[..], &["-o", &push]].concat());
        running.until("pushing");
        running.interrupt("TERM", 143);

        let (running, _pipe) = writing_to_a_full_pipe(&project);
        running.interrupt("INT", 130);
        works(&project);
    }
}

#[test]
fn in_a_load() {
    for user in BOTH {
        let project = Project::with(user, BASE);
        for (signal, code) in BOTH_SIGNALS {
            let running = loading(&project, "trap '' INT TERM; touch $HOME/started; sleep 1000 & sleep 1000");
            running.interrupt(signal, code);
        }
        // One that the interrupt of a terminal ends too must not be what the build ends with.
        let running = loading(&project, "touch $HOME/started; exec sleep 1000");
        running.interrupt("INT", 130);
        works(&project);
    }
}

/// Starts a build that waits for a docker that does this.
fn loading(project: &Project, script: &str) -> Running {
    let (bin, started) = (project.home().join("bin"), project.home().join("started"));
    fs::create_dir_all(&bin).unwrap();
    let _ = fs::remove_file(&started);
    let docker = bin.join("docker");
    // Not the file of before, which may be running.
    let _ = fs::remove_file(&docker);
    plant(&docker, &format!("#!/bin/sh\n{script}\n"));
    project.own(&bin);
    let mut command = project.rbuild_command(&[&busybox()[..], &["--load", "-t", "app:1"]].concat());
    command.arg(project.context()).env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", bin.display()));
    let running = Running::start_command(project, command);
    wait_for("the load", || started.exists());
    running
}

/// Starts an export to a pipe from which only one byte is read.
fn writing_to_a_full_pipe(project: &Project) -> (Running, File) {
    let pipe = project.home().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    project.own(&pipe);
    let mut reader = File::options().read(true).write(true).open(&pipe).unwrap();
    let running = Running::start(project, &[&busybox()[..], &["-o", "type=tar,dest=pipe"]].concat());
    reader.read_exact(&mut [0]).unwrap();
    (running, reader)
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for user in BOTH {
        let project = Project::with(user, BASE);
        let (mut running, _pipe) = writing_to_a_full_pipe(&project);
        running.signal("INT");
        // The first one stops the export, which would say so after a while; the second one says what it is.
        sleep(Duration::from_millis(50));
        running.signal("TERM");
        assert_eq!(running.end().code(), Some(143), "{}", running.said());
        works(&project);
    }
}

#[test]
fn in_a_file_that_takes_long_to_read() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY big /\n");
        project.file("big", "");
        File::options().write(true).open(project.context().join("big")).unwrap().set_len(64 << 30).unwrap();
        for (signal, code) in BOTH_SIGNALS {
            let mut running = Running::start(&project, &[]);
            running.until("transferring context: 68.72GB");
            sleep(Duration::from_millis(300));
            let begin = Instant::now();
            running.interrupt(signal, code);
            assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        }
        works(&project);
    }
}

/// Steps that finish, and one that does not end; busybox is three more.
const FINISHED: &str = "RUN echo one >/one\nRUN echo two >/two\n";

/// Builds with an empty state directory and counts the cached steps of [`BASE`] and [`FINISHED`].
fn cached_of_finished(project: &Project, from: &str) -> usize {
    project.file("Dockerfile", format!("{BASE}{FINISHED}"));
    let _ = fs::remove_dir_all(project.state());
    let output = project.build(&[&busybox()[..], &["--cache-from", from]].concat()).success();
    let _ = fs::remove_dir_all(project.state());
    output.count("CACHED")
}

#[test]
fn what_finished_is_exported_as_cache() {
    let registry = Registry::start();
    for user in BOTH {
        let project = Project::new(user);
        for (signal, code) in BOTH_SIGNALS {
            let directory = project.home().join(signal);
            let tag = format!("{}/{user:?}:{signal}", registry.host).to_lowercase();
            let local = format!("type=local,mode=max,dest={}", directory.display());
            let remote = format!("type=registry,mode=max,ref={tag}");
            let caches = [&busybox()[..], &["--cache-to", &local, "--cache-to", &remote]].concat();
            let dockerfile = format!("{BASE}{FINISHED}RUN echo be''gun; sleep 1000\n");
            project.file("Dockerfile", &dockerfile);
            let mut refused = Running::start(&project, &[&caches[..], &["--cache-failed=false"]].concat());
            refused.until("begun");
            let _ = refused.interrupt(signal, code);
            assert!(!directory.exists());
            let mut running = Running::start(&project, &caches);
            running.until("begun");
            let said = running.interrupt(signal, code);
            assert!(said.contains("the cache of the steps that finished is exported first"), "{said}");
            for from in [format!("type=local,src={}", directory.display()), tag.clone()] {
                assert_eq!(cached_of_finished(&project, &from), 4, "{from}");
            }
        }
    }
}

#[test]
fn a_push_that_stands_still_keeps_no_cache_from_being_exported() {
    let project = Project::with(User::Rootless, &format!("{BASE}{FINISHED}"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let push = format!("type=image,name={}/app,push=true", silent.local_addr().unwrap());
    let cache = project.home().join("cache");
    let to = format!("type=local,mode=max,dest={}", cache.display());
    let mut running = Running::start(&project, &[&busybox()[..], &["-o", &push, "--cache-to", &to]].concat());
    running.until("pushing");
    let _ = running.interrupt("TERM", 143);
    assert_eq!(cached_of_finished(&project, &format!("type=local,src={}", cache.display())), 4);
}

#[test]
fn a_second_signal_ends_the_export_of_the_cache() {
    let project = Project::with(User::Rootless, &format!("{BASE}{FINISHED}RUN echo be''gun; sleep 1000\n"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("type=registry,mode=max,ref={}/a:b", silent.local_addr().unwrap());
    let mut running = Running::start(&project, &[&busybox()[..], &["--cache-to", &to]].concat());
    running.until("begun");
    running.signal("INT");
    running.until("exporting cache to registry");
    let begin = Instant::now();
    running.signal("TERM");
    assert_eq!(running.end().code(), Some(143), "{}", running.said());
    assert!(begin.elapsed() < Duration::from_secs(4));
    works(&project);
}
