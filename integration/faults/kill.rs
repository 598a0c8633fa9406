//! kill -9 in the middle of things: nothing runs on, nothing stays mounted, and the next build is as good as the first.

use std::thread::sleep;
use std::time::Duration;

use super::images::{Image, Pulls};
use super::{Running, in_progress, names, state_is_good, wait_for};
use crate::support::build::{BASE, BOTH, Project, busybox};
use crate::support::registry::Registry;

/// Arguments for busybox and an output.
fn with<'a>(args: &[&'a str]) -> Vec<&'a str> {
    busybox().into_iter().chain(args.iter().copied()).collect()
}

#[test]
fn in_a_run() {
    for user in BOTH {
        let project = Project::new(user);
        let steps = format!("{BASE}RUN echo $((40 + 2)) >/answer\n");
        let endless =
            "RUN echo be''gun; sleep 1000 & setsid sleep 1000 & i=0; while :; do echo $i >/f$i; i=$((i+1)); done";
        for delay in [0, 15, 120] {
            project.file("Dockerfile", format!("{steps}{endless}"));
            let mut running = Running::start(&project, &with(&["-o", "type=tar,dest=out.tar"]));
            running.until("begun");
            sleep(Duration::from_millis(delay));
            running.kill();
        }
        assert!(!project.home().join("out.tar").exists());
        project.file("Dockerfile", format!("{steps}RUN test ! -e /f0 && echo done"));
        let output = project.build(&with(&["-o", "out"])).success();
        // Two of the base, and the step before the one that was killed.
        assert_eq!(output.count("CACHED"), 3, "{}", output.stderr);
        assert_eq!(std::fs::read_to_string(project.home().join("out/answer")).unwrap(), "42\n");
        state_is_good(&project);
    }
}

#[test]
fn in_a_pull() {
    for user in BOTH {
        let project = Project::new(user);
        let pulls = Pulls::start(Image::get());
        project.file(
            "Dockerfile",
            format!("FROM {}/app\nRUN [\"/bin/busybox\", \"md5sum\", \"-c\", \"/sums\"]", pulls.host()),
        );
        for part in [1, 40, 99] {
            pulls.stall_after(part);
            let running = Running::start(&project, &[]);
            wait_for("a stalled layer", || pulls.is_stalled() && in_progress(&project) > 0);
            // What was sent may still be on its way through the decoder.
            sleep(Duration::from_millis(part));
            running.kill();
        }
        pulls.stall_never();
        let _ = project.build(&[]).success();
        state_is_good(&project);
        assert!(project.build(&[]).success().count("CACHED") > 0);
    }
}

/// A step that makes a layer whose packing takes a while.
const HEAVY: &str = "RUN dd if=/dev/urandom of=/random bs=1M count=24 && md5sum /random >/sums\n";

#[test]
fn while_packing() {
    for user in BOTH {
        let project = Project::with(user, &format!("{BASE}{HEAVY}RUN echo pack''ing\n"));
        for (round, delay) in [0, 60, 250].into_iter().enumerate() {
            // Each round packs: the layer is another one.
            let changed = format!("{BASE}RUN echo {round} >/round\n{HEAVY}RUN echo pack''ing\n");
            project.file("Dockerfile", changed);
            let mut running = Running::start(&project, &with(&["-o", "type=oci,dest=image.tar"]));
            running.until("packing\n");
            sleep(Duration::from_millis(delay));
            running.kill();
            super::blobs_are_good(&project.state());
        }
        let _ = project.build(&with(&["-o", "type=oci,dest=layout,tar=false"])).success();
        super::blobs_are_good(&project.home().join("layout"));
        state_is_good(&project);
    }
}

#[test]
fn in_an_export_and_in_a_push() {
    let registry = Registry::start();
    for user in BOTH {
        let project = Project::with(user, &format!("{BASE}{HEAVY}"));
        let _ = project.build(&with(&["-o", "type=oci,dest=image.tar"])).success();
        std::fs::remove_file(project.home().join("image.tar")).unwrap();
        let name = format!("{}/killed/{user:?}:1", registry.host).to_lowercase();
        let image = format!("type=image,name={name},push=true");
        for output in ["type=oci,dest=image.tar", "type=tar,dest=image.tar", image.as_str()] {
            for delay in [0, 20, 90] {
                let mut running = Running::start(&project, &with(&["-o", output]));
                running.until("exporting to");
                sleep(Duration::from_millis(delay));
                running.kill();
                let left = names(project.home());
                assert!(!left.iter().any(|name| name.starts_with(".rbuild-")), "{output}: {left:?}");
            }
        }
        let _ = project.build(&with(&["-o", &image])).success();
        state_is_good(&project);
        assert_copied(&name, &project);
    }
}

/// Checks that a registry has the whole image.
fn assert_copied(name: &str, project: &Project) {
    let to = format!("dir:{}", project.home().join("copy").display());
    let copied = std::process::Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{name}"), &to])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert!(names(&project.home().join("copy")).contains(&"manifest.json".to_owned()));
}
