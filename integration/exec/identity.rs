//! Users, groups, capabilities, environment, working directory.

use super::{Canary, Ran, Step};
use crate::support::rootfs::Rootfs;
use crate::support::rootless;
use crate::support::runtime;
use rbuild::exec::{ExecError, Stage};

fn stage_of(step: Step) -> (Stage, String) {
    match step.try_run() {
        Err(ExecError::Setup { stage, message }) => (stage, message),
        other => panic!("expected a failure of the set-up, got {other:?}"),
    }
}

#[test]
fn e2_a_working_directory_through_a_descriptor_is_an_error() {
    let (rootfs, canary) = (Rootfs::new(), Canary::new());
    for number in 0..64 {
        let script = format!("cat ../../../..{}/f", canary.path());
        let (stage, message) = stage_of(Step::new(&rootfs, &script).cwd(&format!("/proc/self/fd/{number}")));
        assert_eq!(stage, Stage::Workdir, "{message}");
    }
    let output = Step::new(&rootfs, "ls /proc/self/fd | tr '\\n' ' '").output();
    assert_eq!(output, "0 1 2 3 ");
}

#[test]
fn e2_a_missing_working_directory_is_made_for_the_user() {
    let (rootfs, canary) = (Rootfs::new(), Canary::new());
    rootfs.link("l", &format!("../../..{}", canary.path()));
    let step = Step::new(&rootfs, "pwd; stat -c %u:%g .").cwd("/a/b").user("1000:7");
    assert_eq!(step.output(), "/a/b\n1000:7\n");
    let output = Step::new(&rootfs, "pwd").cwd("/l/new").output();
    assert_eq!(output, format!("{}/new\n", canary.path()));
    assert_eq!(stage_of(Step::new(&rootfs, "true").cwd("/bin/busybox")).0, Stage::Workdir);
    canary.assert_untouched();
}

#[test]
fn e3_the_environment_is_the_steps_and_no_other_process_is_seen() {
    let rootfs = Rootfs::new();
    let env = ["PATH=/bin", "A=1", "E="].map(str::to_owned).to_vec();
    let step = Step::new(&rootfs, "").args(&["/bin/env"]).with(|spec| spec.env = env);
    assert_eq!(step.output(), "PATH=/bin\nA=1\nE=\nHOME=/root\n");
    let output =
        Step::new(&rootfs, "echo $$; cat /proc/[0-9]*/cmdline | grep -c __in[i]t").try_run().expect("ran").output;
    assert_eq!(output, "1\n0\n");
}

#[test]
fn e4_capabilities_are_the_default_ones_and_none_is_inherited() {
    let rootfs = Rootfs::new();
    let script = "grep ^Cap /proc/self/status | tr -d '\\t\\n'; grep -h ^NoNewPrivs /proc/self/status | tr -d '\\t\\n'; ulimit -Sn";
    let all = "00000000a80425fb";
    let none = "0000000000000000";
    for (user, effective) in [("", all), ("1000", none)] {
        let expected =
            format!("CapInh:{none}CapPrm:{effective}CapEff:{effective}CapBnd:{all}CapAmb:{none}NoNewPrivs:01024\n");
        assert_eq!(Step::new(&rootfs, script).user(user).output(), expected, "{user}");
    }
}

#[test]
fn e5_groups_are_the_images() {
    let rootfs = Rootfs::new();
    for (user, expected) in [
        ("", "0:0:0"),
        ("u", "1000:1000:1000 50"),
        ("1000", "1000:1000:1000 50"),
        ("1000:1000", "1000:1000:1000"),
        ("u:extra", "1000:50:50"),
        ("7", "7:0:0"),
    ] {
        let output = Step::new(&rootfs, "echo $(id -u):$(id -g):$(id -G)").user(user).output();
        assert_eq!(output.trim(), expected, "{user}");
    }
}

#[test]
fn e6_numbers_that_do_not_fit_are_errors() {
    let rootfs = Rootfs::new();
    rootfs.write("etc/passwd", "4294967296:x:0:0::/:/bin/sh\n");
    for user in ["4294967296", "4294967295", "-1", "+1", ":1", "00", "\u{0661}", "nobody"] {
        assert_eq!(stage_of(Step::new(&rootfs, "id -u").user(user)).0, Stage::User, "{user}");
    }
    let not_there = "2147483648";
    match Step::new(&rootfs, "id -u").user(not_there).try_run() {
        Ok(ran) => assert_eq!(ran.output.trim(), not_there),
        Err(ExecError::Setup { stage, message }) => {
            let beyond_runc = !runtime::is_built_in() && stage == Stage::Runtime;
            assert!(beyond_runc || (!rootless::is_real_root() && stage == Stage::Identity), "{message}");
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn e7_a_pipe_as_passwd_does_not_block() {
    let rootfs = Rootfs::new();
    std::fs::remove_file(rootfs.path("etc/passwd")).expect("remove");
    Step::new(&rootfs, "busybox mkfifo /etc/passwd").user("0:0").output();
    let (stage, message) = stage_of(Step::new(&rootfs, "id").user("u"));
    assert_eq!((stage, message.contains("not a regular file")), (Stage::User, true), "{message}");
}

#[test]
fn the_home_is_the_images_unless_given() {
    let rootfs = Rootfs::new();
    assert_eq!(Step::new(&rootfs, "echo $HOME").user("u").output(), "/home/u\n");
    let step = Step::new(&rootfs, "echo $HOME").with(|spec| spec.env.push("HOME=/h".to_owned()));
    assert_eq!(step.output(), "/h\n");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let rootfs = Rootfs::new();
    rootfs.write("tmp/data", "no program");
    let (stage, message) = stage_of(Step::new(&rootfs, "").args(&["nothing", "x"]));
    assert_eq!((stage, message.as_str()), (Stage::Program, "exec: \"nothing\": executable file not found in $PATH"));
    let (stage, message) = stage_of(Step::new(&rootfs, "").args(&["/nothing"]));
    assert_eq!((stage, message.to_lowercase().contains("no such file")), (Stage::Program, true), "{message}");
    let (stage, message) = stage_of(Step::new(&rootfs, "").args(&["/tmp/data"]));
    assert_eq!((stage, message.to_lowercase().contains("permission denied")), (Stage::Program, true), "{message}");
}

#[test]
fn e22_long_arguments_arrive_whole_or_are_refused() {
    let rootfs = Rootfs::new();
    for length in [65_535usize, 65_536, 65_537, 131_000] {
        let value = "x".repeat(length);
        let step = Step::new(&rootfs, "printf %s \"$V\" | wc -c").with(|spec| spec.env.push(format!("V={value}")));
        assert_eq!(step.output().trim(), length.to_string());
    }
    let long = "x".repeat(4 << 20);
    match Step::new(&rootfs, "").args(&["/bin/echo", &long]).try_run() {
        Err(ExecError::Setup { stage: Stage::Program, message }) => assert!(message.contains("Argument list too long")),
        // Container runtimes have started the step by then, and say it in its log.
        Ok(Ran { code: 1, output, .. }) if !runtime::is_built_in() => {
            assert!(output.to_lowercase().contains("argument list too long"), "{output}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(Step::new(&rootfs, "").args(&["/bin/echo", "a\0b"]).try_run(), Err(ExecError::Spec { .. })));
}

#[test]
#[ignore = "run in a user namespace with one id by as_user_e5"]
fn single_id_keeps_groups() {
    let rootfs = Rootfs::new();
    let ran = Step::new(&rootfs, "id -u; grep ^Gid: /proc/self/status").try_run().expect("ran");
    assert!(ran.output.starts_with("0\nGid:\t0\t0\t0\t0"), "{}", ran.output);
    assert_eq!(ran.outcome.notices.len(), 1);
    // The caller's supplementary groups are still there, under the number of those that are not mapped.
    let groups = Step::new(&rootfs, "grep ^Groups: /proc/self/status").try_run().expect("ran").output;
    let here = std::fs::read_to_string("/proc/self/status").expect("status");
    let here = here.lines().find(|line| line.starts_with("Groups:")).expect("groups");
    assert_eq!(groups.trim(), here.trim());
    let (stage, message) = stage_of(Step::new(&rootfs, "true").user("1000"));
    assert_eq!((stage, message.contains("not mapped")), (Stage::Identity, true), "{message}");
}
