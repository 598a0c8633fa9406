//! `[worker.oci]`: container runtimes, snapshotters, control groups and what confines steps.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::{text, with_base};
use crate::support::build::{BOTH, Output, Project, User, binary, busybox, run};
use crate::support::script::plant;

/// Builds with these lines of `[worker.oci]` and further arguments.
fn build(project: &Project, lines: &str, args: &[&str]) -> Output {
    let config = project.config(&format!("[worker.oci]\n{lines}\n"));
    project.build(&[&busybox()[..], &["--config", text(&config)], args].concat())
}

/// A program in the project that the shell runs.
fn script(project: &Project, name: &str, lines: &str) -> String {
    let place = project.home().join(name);
    plant(&place, &format!("#!/bin/sh\n{lines}\n"));
    place.display().to_string()
}

#[test]
fn runc_and_crun_run_steps() {
    for user in BOTH {
        for runtime in ["runc", "crun", "/usr/bin/crun"] {
            let project = with_base(user, "RUN echo by $(cat /proc/1/comm) && echo $$ > /pid\nUSER 7\nRUN id -u\n");
            let output = build(&project, &format!("binary = {runtime:?}"), &["-o", "out"]).success();
            // The step is pid 1, as by the built-in executor, and what started it has gone.
            assert_eq!(fs::read_to_string(project.home().join("out/pid")).unwrap(), "1\n", "{runtime}");
            assert_eq!(output.count(" by sh\n"), 1, "{}", output.stderr);
            let failing = with_base(user, "RUN echo told && exit 7\n");
            let output = build(&failing, &format!("binary = {runtime:?}"), &[]).failure(1);
            let _ = output.says("exit code: 7").says("told");
            let missing = with_base(user, "RUN [\"nothing\"]\n");
            let output = build(&missing, &format!("binary = {runtime:?}"), &[]);
            assert_ne!(output.code, 0);
            let _ = output.says("exec: \"nothing\": executable file not found in $PATH").says("install the program");
        }
    }
}

/// Processes whose command line holds the text.
fn processes_with(text: &str) -> usize {
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1200 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    panic!("{what}");
}

/// Starts a build with these lines of `[worker.oci]`, waits until it has begun to do what `begun` sees, and kills it.
fn killed(project: &Project, lines: &str, args: &[&str], begun: impl Fn() -> bool) {
    let config = project.config(&format!("[worker.oci]\n{lines}\n"));
    let context = project.context();
    let all = [&busybox()[..], &["--config", text(&config), text(&context)], args].concat();
    let mut command = project.rbuild_command(&all);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the step did not start", begun);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_build_leaves_no_process_of_a_runtime() {
    for user in BOTH {
        for runtime in ["runc", "crun"] {
            let duration = format!("7{}.{}", std::process::id(), runtime.len());
            let project = with_base(user, &format!("RUN trap '' TERM; sleep {duration}; true\n"));
            killed(&project, &format!("binary = {runtime:?}"), &[], || processes_with(&duration) >= 2);
            wait_until("the step goes on", || processes_with(&duration) == 0);
        }
    }
}

#[test]
fn an_empty_binary_is_the_built_in_executor() {
    let project = with_base(User::Root, "RUN true\n");
    let _ = build(&project, "binary = \"\"", &[]).success();
}

#[test]
fn a_runtime_that_cannot_be_used_is_named_with_what_it_says() {
    let project = with_base(User::Root, "RUN true\n");
    let output = build(&project, "binary = \"no-such-runtime\"", &[]).failure(2);
    let output = output.says("the container runtime \"no-such-runtime\" is not installed");
    let _ = output.says("sudo apt-get install no-such-runtime");
    let broken = script(&project, "broken", "exit 3");
    let output = build(&project, &format!("binary = {broken:?}"), &[]).failure(2);
    let _ = output.says(&broken).says("`--version` failed").says("leave `binary` out of [worker.oci]");
    let lines = "[ \"$1\" = --version ] && echo runc version 9 && exit\n\
                 while [ \"$1\" != --log ]; do shift; done\n\
                 echo '{\"level\":\"error\",\"msg\":\"runc run failed: no such moon\"}' > \"$2\"\nexit 1";
    let failing = script(&project, "failing", lines);
    let output = build(&project, &format!("binary = {failing:?}"), &[]);
    assert_ne!(output.code, 0);
    let _ = output.says(&format!("{failing}: no such moon")).says("leave `binary` out of [worker.oci]");
}

#[test]
fn snapshotters_are_the_ones_named() {
    for user in BOTH {
        let project = with_base(user, "RUN echo a > /a\nRUN rm /a && echo b > /b\n");
        let native = build(&project, "snapshotter = \"native\"", &["-o", "out"]).success();
        assert_eq!(native.count("every step copies its base"), 1, "{}", native.stderr);
        assert!(project.home().join("out/b").exists() && !project.home().join("out/a").exists());
        let output = build(&project, "snapshotter = \"overlayfs\"", &["--no-cache"]).success();
        assert_eq!(output.count("every step copies its base"), 0, "{}", output.stderr);
        let output = build(&project, "snapshotter = \"fuse-overlayfs\"", &[]).failure(2);
        let _ = output.says("several hard links").says("snapshotter = \"auto\"");
    }
}

#[test]
fn copies_are_told_of_where_a_cache_leaves_steps_to_run_and_only_there() {
    for user in BOTH {
        let project = with_base(user, "RUN echo a > /a\n");
        let cache = project.home().join("cache");
        let to = format!("type=local,mode=max,dest={}", cache.display());
        let _ = build(&project, "snapshotter = \"native\"", &["--cache-to", &to]).success();
        fs::remove_dir_all(project.state()).unwrap();
        let from = format!("type=local,src={}", cache.display());
        let hit = build(&project, "snapshotter = \"native\"", &["--cache-from", &from]).success();
        assert_eq!(hit.count("every step copies its base"), 0, "{}", hit.stderr);
        let dockerfile = fs::read_to_string(project.context().join("Dockerfile")).unwrap();
        project.file("Dockerfile", format!("{dockerfile}RUN cat /a > /b\n"));
        let ran = build(&project, "snapshotter = \"native\"", &["--cache-from", &from, "-o", "out"]).success();
        assert_eq!(ran.count("every step copies its base"), 1, "{}", ran.stderr);
        assert!(project.home().join("out/b").exists());
    }
}

#[test]
fn overlayfs_where_it_is_refused_is_an_error() {
    let project = with_base(User::Root, "RUN true\n");
    let _state = super::nested::Overlay::mount(&project);
    let output = build(&project, "snapshotter = \"overlayfs\"", &[]);
    assert_ne!(output.code, 0);
    let _ = output.says("overlay").says("snapshotter = \"auto\"");
}

#[test]
fn without_a_process_sandbox_steps_see_what_rbuild_sees_and_leave_nothing_running() {
    for user in BOTH {
        for runtime in ["", "runc", "crun"] {
            let lines = format!("noProcessSandbox = true\nbinary = {runtime:?}");
            let duration = format!("8{}.{}", std::process::id(), 1 + runtime.len());
            let steps = format!(
                "RUN test $$ != 1 && grep -q rbuild /proc/[0-9]*/comm && echo s''een\n\
                 RUN (setsid sleep {duration} > /dev/null 2>&1 &); (sleep {duration} &); true\n\
                 RUN ! (echo x > /proc/sys/kernel/hostname) 2> /dev/null && ! (: > /proc/sysrq-trigger) 2> /dev/null\n"
            );
            let project = with_base(user, &steps);
            let output = build(&project, &lines, &[]).success();
            assert_eq!(output.count(" seen\n"), 1, "{}", output.stderr);
            assert_eq!(processes_with(&duration), 0, "{runtime}");
        }
    }
}

/// Runs rbuild where `/proc` is partly covered, as in a container, so that the kernel gives no fresh one to a user namespace.
fn with_covered_proc(project: &Project, args: &[&str]) -> Output {
    let mut command = std::process::Command::new("unshare");
    let covered = "mount -t tmpfs none /proc/scsi || mount -t tmpfs none /proc/acpi || exit 99; exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", covered, "sh"]);
    command.args(["setpriv", "--reuid", "rbuild-test", "--regid", "rbuild-test", "--init-groups", "--"]);
    command.arg(binary()).arg("--root").arg(project.state()).args(["--progress", "plain"]).args(args);
    command.arg(project.context()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", project.home());
    command.current_dir(project.home());
    run(command)
}

#[test]
fn where_proc_is_covered_the_error_names_the_setting_that_helps() {
    let project = with_base(User::Rootless, "RUN cat /proc/self/comm\n");
    let output = with_covered_proc(&project, &busybox());
    assert_ne!(output.code, 0, "{}", output.stderr);
    let _ = output.says("mount a fresh /proc").says("noProcessSandbox = true");
    for runtime in ["", "runc", "crun"] {
        let config = project.config(&format!("[worker.oci]\nnoProcessSandbox = true\nbinary = {runtime:?}\n"));
        let args = [&busybox()[..], &["--no-cache", "--config", text(&config)]].concat();
        let output = with_covered_proc(&project, &args).success();
        assert_eq!(output.count(" cat\n"), 1, "{runtime}: {}", output.stderr);
    }
}

#[test]
fn seccomp_is_off_only_where_that_was_granted() {
    for user in BOTH {
        for runtime in ["", "crun"] {
            let lines = format!("binary = {runtime:?}\nseccomp = \"unconfined\"");
            let project = with_base(user, "RUN grep ^Seccomp: /proc/self/status | tr '\\t' ' '\n");
            let output = build(&project, &lines, &[]).failure(2);
            let _ = output.says("needs the entitlement security.insecure").says("--allow security.insecure");
            let _ = build(&project, &lines, &["--allow", "security.insecure"]).success().says("Seccomp: 0");
            let lines = format!("binary = {runtime:?}\nseccomp = \"default\"");
            let _ = build(&project, &lines, &["--no-cache"]).success().says("Seccomp: 2");
        }
    }
}

#[test]
fn an_apparmor_profile_holds_or_is_an_error() {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    let project = with_base(User::Root, "RUN cat /proc/self/attr/current\n");
    if enabled {
        let _ = build(&project, "apparmor-profile = \"unconfined\"", &[]).success().says("unconfined");
    }
    let output = build(&project, "apparmor-profile = \"rbuild-no-such-profile\"", &["--no-cache"]);
    assert_ne!(output.code, 0);
    let output = output.says("the profile \"rbuild-no-such-profile\"").silent_about("unconfined\n");
    if !enabled {
        let _ = output.says("AppArmor is not enabled on this machine").says("leave `apparmor-profile` out");
    }
}

/// Returns whether root can give steps limits of memory and processors here.
fn has_groups() -> bool {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    ["cpu", "memory", "cpuset"].iter().all(|name| controllers.split_ascii_whitespace().any(|there| there == *name))
}

/// Groups that steps left behind.
fn groups_below(parent: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new("/sys/fs/cgroup").join(parent)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("rbuild-")).collect()
}

#[test]
fn limits_of_steps_hold_or_are_refused_with_the_reason() {
    let project = with_base(User::Root, "RUN true\n");
    let flags = ["--memory", "--memory-swap", "--cpu-shares", "--cpu-quota", "--cpu-period", "--cpuset-cpus"];
    if !has_groups() {
        for (flag, value) in flags.iter().zip(["64m", "64m", "512", "50000", "100000", "0"]) {
            let output = build(&project, "", &[flag, value, "--no-cache"]);
            assert_ne!(output.code, 0, "{flag}");
            let _ = output.says("steps cannot have limits here: there is no unified control group").says("systemd-run");
        }
        let output = build(&project, "", &["--cgroup-parent", "rbuild-it"]);
        assert_ne!(output.code, 0);
        let _ = output.says("steps cannot have limits here");
        return;
    }
    for runtime in ["", "runc", "crun"] {
        let shown = "RUN cd /sys/fs/cgroup && for f in memory.max memory.swap.max cpu.weight cpu.max cpuset.cpus; do \
                     echo $f=$(cat $f); done; cat /proc/self/cgroup\n";
        let project = with_base(User::Root, shown);
        let lines = format!("binary = {runtime:?}\ndefaultCgroupParent = \"rbuild-it-{runtime}\"");
        let limits = ["--memory", "64m", "--memory-swap", "64m", "--cpu-shares", "1024"];
        let more = ["--cpu-quota", "50000", "--resource", "cpuset-cpus=0"];
        let output = build(&project, &lines, &[&limits[..], &more].concat()).success();
        let expected = [
            "memory.max=67108864",
            "memory.swap.max=0",
            "cpu.weight=39",
            "cpu.max=50000 100000",
            "cpuset.cpus=0",
            "0::/\n",
        ];
        expected.iter().for_each(|line| assert_eq!(output.count(line), 1, "{runtime} {line}: {}", output.stderr));
        assert!(groups_below(&format!("rbuild-it-{runtime}")).is_empty());
        let greedy = with_base(User::Root, "RUN tail -c 256m /dev/zero\n");
        let output = build(&greedy, &lines, &limits).failure(1);
        let _ = output.says("the step needed more memory than its limit").says("give it more with `--memory`");
        assert!(groups_below(&format!("rbuild-it-{runtime}")).is_empty());
        let sleeping = with_base(User::Root, "RUN sleep 1000\n");
        let parent = format!("rbuild-it-{runtime}");
        killed(&sleeping, &lines, &["--memory", "64m"], || !groups_below(&parent).is_empty());
        wait_until("the group of the killed build stays", || groups_below(&parent).is_empty());
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/{parent}"));
    }
    let project = with_base(User::Rootless, "RUN true\n");
    let output = build(&project, "", &["--memory", "64m"]);
    assert_ne!(output.code, 0);
    let _ = output.says("steps cannot have limits here").says("systemd-run --user --scope -p Delegate=yes");
    without_root_in_a_delegated_group();
}

/// What `systemd-run --user --scope -p Delegate=yes` does, done by hand.
fn without_root_in_a_delegated_group() {
    let group = format!("/sys/fs/cgroup/rbuild-it-{}", std::process::id());
    let prepare = format!(
        "echo '+cpu +memory +cpuset' > /sys/fs/cgroup/cgroup.subtree_control; mkdir {group} && \
         chown rbuild-test {group} {group}/cgroup.procs {group}/cgroup.subtree_control {group}/cgroup.threads"
    );
    let _ = super::tool("sh", &["-c", &prepare]);
    let project = with_base(User::Rootless, "RUN cat /sys/fs/cgroup/memory.max; cat /proc/self/cgroup\n");
    let enter = format!("echo $$ > {group}/cgroup.procs && exec \"$@\"");
    let inner = project.rbuild_command(&[&busybox()[..], &["--memory", "64m", text(&project.context())]].concat());
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &enter, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().current_dir(project.home()).env("HOME", project.home());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = run(command).success();
    assert_eq!(output.count(" 67108864\n"), 1, "{}", output.stderr);
    assert_eq!(output.count(" 0::/\n"), 1, "{}", output.stderr);
    assert!(groups_below(&format!("rbuild-it-{}/rbuild", std::process::id())).is_empty());
    let _ = super::tool("find", &[&group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
}
