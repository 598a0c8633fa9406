//! Trees deeper than a stack, a table of descriptors or a path of the kernel is long.

use std::path::Path;
use std::process::Command;

use super::as_both;
use crate::support::build::{BASE, Output, Project, binary, busybox, run};

/// What many systems let a process open; a walk that keeps a descriptor for each level ends there.
const DESCRIPTORS: &str = "--nofile=1024:1024";

/// Row F5.
const DEPTH: usize = 5000;

fn nest(below: &Path, depth: usize) {
    let path = below.join("d/".repeat(depth));
    assert!(Command::new("mkdir").arg("-p").arg(path).status().unwrap().success());
}

/// The standard library removes trees by recursion.
fn remove(path: &Path) {
    assert!(Command::new("rm").arg("-rf").arg(path).status().unwrap().success());
}

fn depth(of: &Path) -> usize {
    let found = Command::new("find").arg(of).args(["-name", "d", "-printf", "d"]).output().unwrap();
    found.stdout.len()
}

fn build(project: &Project, args: &[&str]) -> Output {
    let mut command = project.command("prlimit");
    command.arg(DESCRIPTORS).arg(binary()).arg("--root").arg(project.state()).args(["--progress", "plain"]);
    command.args(args).args(busybox()).arg(project.context());
    run(command)
}

#[test]
fn f5_a_deep_context_is_copied_and_exported() {
    as_both(|user| {
        let project = Project::with(user, "FROM scratch\nCOPY . /all/\n");
        nest(&project.context(), DEPTH);
        project.own(&project.context());
        let out = project.home().join("out");
        let _ = build(&project, &["-o", &format!("type=local,dest={}", out.display())]).success();
        assert_eq!(depth(&out), DEPTH);
        // A second build finds all of it, and replaces what is there.
        let _ = build(&project, &["-o", &format!("type=local,mode=delete,dest={}", out.display())]).success();
        assert_eq!(depth(&out), DEPTH);
        let _ = build(&project, &["-o", "type=oci,dest=image.tar"]).failure(1).says("cannot hold a path this long");
        for tree in [project.context(), out, project.state()] {
            remove(&tree);
        }
    });
}

#[test]
fn f5_a_step_may_nest_directories() {
    as_both(|user| {
        // Made, copied, and half of them removed again on top of a layer that has them.
        let steps = "RUN for i in 1 2 3; do mkdir -p $P && cd -P $P; done\nFROM deep\nCOPY --from=deep /d /copy/\n\
                     RUN for i in 1 2; do cd -P $P; done; rm -r d; touch f\n";
        let path = "d/".repeat(1000);
        let project = Project::with(user, &format!("{BASE}FROM base AS deep\nENV P={path}\n{steps}"));
        let _ = build(&project, &["-o", "type=tar,dest=tree.tar"]).success();
        let listing = Command::new("tar").arg("-tf").arg(project.home().join("tree.tar")).output().unwrap();
        let names = String::from_utf8(listing.stdout).unwrap();
        let depth = |top: &str| {
            let below = names.lines().filter(|name| name.starts_with(top));
            below.map(|name| name.matches('/').count()).max()
        };
        assert_eq!((depth("d/"), depth("copy/")), (Some(2000), Some(3000)));
        let _ = build(&project, &["-o", "type=oci,dest=image.tar"]).failure(1).says("directories and 4096 bytes");
        // What fits is packed.
        project.file("Dockerfile", format!("{BASE}RUN mkdir -p {}\n", "d/".repeat(1000)));
        let _ = build(&project, &["-o", "type=oci,dest=image.tar"]).success();
        remove(&project.state());
    });
}

#[test]
fn f5_what_a_dead_build_left_is_swept_whatever_its_depth() {
    as_both(|user| {
        let project = Project::with(user, "FROM scratch\nCOPY Dockerfile /\n");
        let _ = build(&project, &[]).success();
        let left = project.state().join("tmp/77");
        nest(&left, DEPTH);
        project.own(&left);
        let _ = build(&project, &[]).success().silent_about("failed to remove");
        assert!(!left.exists());
    });
}
