//! Machines that refuse: files that cannot be read, states that cannot be written, namespaces that are not to be had.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use crate::support::build::{BASE, BOTH, Output, Project, User, binary, busybox, run};

const COPY_ALL: &str = "FROM scratch\nCOPY . /\n";

/// A file of the context that only root may read.
fn roots_own(project: &Project, path: &str) {
    let place = project.file(path, "private").context().join(path);
    std::os::unix::fs::chown(&place, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_remedy() {
    let project = Project::with(User::Rootless, COPY_ALL);
    roots_own(&project, "data/private");
    let output = project.build(&[]).failure(5).says("/data/private: Permission denied").says("data/private");
    let _ = output.complains(5, "failed to read", ".dockerignore").points_to("Dockerfile", 2, "COPY . /");
    std::fs::write(project.context().join(".dockerignore"), "data/private\n").unwrap();
    let _ = project.build(&[]).success();
    let root = Project::with(User::Root, COPY_ALL);
    roots_own(&root, "data/private");
    let _ = root.build(&[]).success();
}

#[test]
fn a_directory_that_cannot_be_read_is_named_with_the_remedy() {
    let project = Project::with(User::Rootless, COPY_ALL);
    project.file("data/inside", "");
    let place = project.context().join("data");
    std::os::unix::fs::chown(&place, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o700)).unwrap();
    let _ = project.build(&[]).complains(5, "/data: Permission denied", "chmod -R u+rX data");
}

#[test]
fn sockets_of_the_context_are_empty_files() {
    for user in BOTH {
        let project = Project::with(user, COPY_ALL);
        let _socket = UnixListener::bind(project.context().join("agent.sock")).unwrap();
        project.file("kept", "kept");
        let out = project.files(&[]);
        assert!(out.join("kept").exists());
        let socket = std::fs::symlink_metadata(out.join("agent.sock")).unwrap();
        assert!(socket.is_file() && socket.len() == 0, "{socket:?}");
    }
}

/// Runs a build by `sh`, after `before`, with the words that `sh` gets in front of it.
fn wrapped(project: &Project, user: &Project, words: &[&str], before: &str) -> Output {
    let mut command = user.command(words[0]);
    command.args(&words[1..]).args(["sh", "-c", &format!("{before}; exec \"$@\"",), "sh"]);
    command.args(["setpriv", "--bounding-set=-all", "--inh-caps=-all"]).arg(binary());
    command.args(["--progress", "plain", "--root"]).arg(project.state()).arg(project.context());
    run(command)
}

#[test]
fn without_user_namespaces_the_setting_and_its_remedy_are_named() {
    let project = Project::with(User::Rootless, COPY_ALL);
    let refuse = "echo 0 > /proc/sys/user/max_user_namespaces";
    let output = wrapped(&project, &project, &["unshare", "--user", "--map-root-user"], refuse);
    let message = "this machine refuses user namespaces: user.max_user_namespaces is 0";
    let _ = output.complains(5, message, "`sudo sysctl -w user.max_user_namespaces=15000`");
    assert!(!project.state().exists(), "nothing is begun before");
}

#[test]
fn ids_that_cannot_be_mapped_leave_one_and_it_is_said() {
    let project = Project::with(User::Rootless, &format!("{BASE}RUN [\"/bin/busybox\", \"id\", \"-u\"]\n"));
    let mut command = project.command("setpriv");
    command.arg("--no-new-privs").arg(binary()).args(["--progress", "plain", "--root"]).arg(project.state());
    command.args(busybox()).arg(project.context());
    let output = run(command).success().says("newuidmap refused to map ids").says("no_new_privs");
    let _ = output.says("only user 0 exists in the build");
}

#[test]
fn without_the_program_that_maps_ids_it_is_named() {
    let project = Project::with(User::Rootless, COPY_ALL);
    let inner = project.rbuild_command(&[]);
    let mut command = Command::new("unshare");
    let hide = "mkdir \"$0/up\" && mount -t tmpfs none \"$0/up\" && mkdir \"$0/up/a\" \"$0/up/b\" && \
        mount -t overlay -o \"lowerdir=/usr/bin,upperdir=$0/up/a,workdir=$0/up/b\" none /usr/bin && \
        rm /usr/bin/newuidmap && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", hide]).arg(project.home());
    command.arg(inner.get_program()).args(inner.get_args()).arg(project.context()).current_dir(project.home());
    command.env_clear().envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let _ = run(command).success().says("newuidmap is not installed").says("sudo apt-get install uidmap");
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    let project = Project::with(User::Rootless, COPY_ALL);
    let build = |root: &str| {
        let mut command = project.command(binary());
        command.args(["--root", root]).arg(project.context());
        run(command)
    };
    let _ =
        build("/usr/rbuild-state").complains(5, "the state folder \"/usr/rbuild-state\": Permission denied", "--root");
    let file = project.context().join("Dockerfile/state");
    let _ = build(file.to_str().unwrap()).complains(5, "Not a directory", "--root");
    std::fs::create_dir(project.home().join("shared")).unwrap();
    std::fs::set_permissions(project.home().join("shared"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let _ = build(project.home().join("shared").to_str().unwrap()).complains(5, "", "--root");
}

#[test]
fn a_state_directory_on_a_read_only_file_system() {
    let project = Project::with(User::Root, COPY_ALL);
    let place = project.home().join("ro");
    std::fs::create_dir(&place).unwrap();
    let mut command = project.command("unshare");
    let script = "mount -t tmpfs -o ro none \"$1\" && exec \"$2\" --root \"$1/state\" \"$3\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&place).arg(binary()).arg(project.context());
    let _ = run(command).complains(5, "/ro/state\": Read-only file system", "`--root DIR`");
}

#[test]
fn destinations_that_cannot_be_written() {
    let project = Project::with(User::Rootless, COPY_ALL);
    let nowhere = project.home().join("none/image.tar");
    let to = |dest: &str| format!("type=oci,dest={dest}");
    let hint = "make the directory first: `mkdir -p none`";
    // What would be in vain is not begun.
    let early = |output: Output| output.silent_about("COPY . /");
    let refused = "Permission denied";
    let _ = early(project.build(&["-o", &to(nowhere.to_str().unwrap())])).complains(5, "No such file", hint);
    let _ = early(project.build(&["-o", &to("/usr/image.tar")])).complains(5, refused, "that you may write to");
    for kind in ["local", "oci,tar=false"] {
        let output = format!("type={kind},dest=/usr/rbuild-out/below");
        let _ = early(project.build(&["-o", &output])).complains(5, refused, "write to");
    }
    for flag in ["--iidfile", "--metadata-file"] {
        let _ = early(project.build(&[flag, nowhere.to_str().unwrap()])).complains(5, "No such file", hint);
    }
    let _ = project.build(&["-o", "made", "-o", "type=oci,dest=made/image.tar", "--iidfile", "made/id"]).success();
}

#[test]
fn without_a_program_that_loads_images_nothing_is_begun() {
    let project = Project::with(User::Root, COPY_ALL);
    let mut command = project.rbuild_command(&["--load"]);
    command.arg(project.context()).env("PATH", "/nowhere");
    let _ = run(command).complains(5, "neither docker nor podman", "type=docker").silent_about("COPY . /");
}

#[test]
fn standard_output_that_nobody_reads() {
    let project = Project::with(User::Rootless, COPY_ALL);
    project.file("large", vec![7; 1 << 20]);
    let build = |args: &[&str], out: Stdio| {
        let mut command = project.rbuild_command(args);
        command.arg(project.context()).stdout(out);
        command.stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Output { code: output.status.code().unwrap_or(-1), stdout: String::new(), stderr }
    };
    let closed = || {
        let (reading, writing) = rbuild::sys::fds::pipe().unwrap();
        drop(reading);
        Stdio::from(writing)
    };
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    for output in ["type=tar,dest=-", "type=oci,dest=-"] {
        let _ = build(&["-o", output], closed()).complains(5, "standard output\": Broken pipe", "");
        let _ = build(&["-o", output], full()).complains(5, "standard output\": No space left", "");
    }
    let _ = build(&["-q"], full()).complains(5, "failed to write to standard output: No space left on device", "");
}

#[test]
fn a_closed_standard_error_is_no_failure() {
    let project = Project::with(User::Rootless, COPY_ALL);
    let (reading, writing) = rbuild::sys::fds::pipe().unwrap();
    drop(reading);
    let mut command = project.rbuild_command(&[]);
    command.arg(project.context()).stderr(writing);
    assert!(command.status().unwrap().success());
}
