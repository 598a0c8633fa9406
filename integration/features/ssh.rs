//! `RUN --mount=type=ssh`: a real agent behind a socket that only lists and signs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::{text, tool, with_base};
use crate::support::build::{BASE, BOTH, Project, User, busybox, run};

/// An agent with one key; ended when dropped.
pub(super) struct Agent {
    pub(super) socket: PathBuf,
    pid: String,
}

impl Agent {
    /// Starts an agent as the project's user.
    pub(super) fn start(project: &Project) -> Self {
        let socket = project.home().join("agent.sock");
        let mut command = project.command("ssh-agent");
        command.args(["-s", "-a"]).arg(&socket);
        let said = run(command).success().stdout;
        let pid = said.split("SSH_AGENT_PID=").nth(1).unwrap().split(';').next().unwrap().to_owned();
        let agent = Self { socket, pid };
        for name in ["key", "second"] {
            let key = project.home().join(name);
            let mut keygen = project.command("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", &format!("{name}@test"), "-f"]).arg(&key);
            let _ = run(keygen).success();
        }
        assert!(agent.add(project, &["key"]).status.success());
        agent
    }

    /// Runs ssh-add on the agent itself.
    fn add(&self, project: &Project, args: &[&str]) -> Output {
        project.command("ssh-add").args(args).env("SSH_AUTH_SOCK", &self.socket).output().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(&self.pid).status();
    }
}

/// A directory with the machine's programs of OpenSSH and what they load, as a context.
fn openssh(project: &Project) -> String {
    let dir = project.home().join("openssh");
    for program in ["ssh-add", "ssh-keygen"] {
        let path = format!("/usr/bin/{program}");
        let libraries = tool("ldd", &[&path]);
        let files = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned);
        for file in files.chain([path.clone()]) {
            let place = dir.join(file.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(&file, place).unwrap();
        }
    }
    for link in ["lib", "lib64"] {
        // Where the two are directories of their own, what the loader names is there already.
        let _ = symlink(format!("usr/{link}"), dir.join(link));
    }
    project.own(&dir);
    format!("openssh={}", dir.display())
}

#[test]
fn steps_list_and_sign_and_can_do_nothing_else() {
    for user in BOTH {
        let project = Project::new(user);
        let agent = Agent::start(&project);
        let script = "COPY --from=openssh . /\nCOPY <<EOF /etc/passwd\nroot:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\nEOF\n\
            COPY key.pub second /keys/\nRUN chmod 600 /keys/second; ssh-add -L > /before 2>&1; echo $SSH_AUTH_SOCK >> /before\n\
            RUN --mount=type=ssh ssh-add -L > /list; echo $SSH_AUTH_SOCK > /where; stat -c '%F %a %u:%g' $SSH_AUTH_SOCK > /stat; \
            echo text > /text; ssh-keygen -Y sign -q -f /keys/key.pub -n file /text; \
            ssh-add /keys/second 2> /add; ssh-add -D 2> /all; ssh-add -d /keys/key.pub 2> /remove; ssh-add -x 2>/dev/null < /dev/null; ssh-add -l > /left\n\
            RUN --mount=type=ssh,id=other,target=/a.sock,mode=0660,uid=1000,gid=7 stat -c '%F %a %u:%g' /a.sock > /own; SSH_AUTH_SOCK=/a.sock ssh-add -L > /other\n\
            USER app\nRUN --mount=type=ssh,uid=1000 ssh-add -L > /tmp/app\nRUN ls /run/buildkit /a.sock > /tmp/gone 2>&1 || true\n";
        let base = BASE.trim_end();
        project.file("Dockerfile", format!("{base}\nRUN mkdir -m 1777 /tmp\n{script}"));
        for name in ["key.pub", "second"] {
            project.file(name, fs::read(project.home().join(name)).unwrap());
        }
        let (context, ssh, out) = (project.context(), openssh(&project), project.home().join("out"));
        let other = format!("other={}", agent.socket.display());
        let mut args = vec!["--build-context", &ssh, "--ssh", "default", "--ssh", &other, "-o", text(&out)];
        args.extend(busybox());
        args.push(text(&context));
        let mut command = project.rbuild_command(&args);
        command.env("SSH_AUTH_SOCK", &agent.socket);
        let _ = run(command).success();
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        let key = fs::read_to_string(project.home().join("key.pub")).unwrap();
        assert!(!read("before").contains("ssh-ed25519") && read("before").ends_with("\n\n"), "{}", read("before"));
        assert_eq!((read("list"), read("other"), read("tmp/app")), (key.clone(), key.clone(), key.clone()));
        assert_eq!(read("where"), "/run/buildkit/ssh_agent.0\n");
        assert_eq!((read("stat"), read("own")), ("socket 600 0:0\n".into(), "socket 660 1000:7\n".into()));
        assert!(read("text.sig").starts_with("-----BEGIN SSH SIGNATURE-----"));
        assert!(read("add").contains("refused") && read("all").contains("Failed") && !read("remove").is_empty());
        assert!(read("left").contains("key@test") && read("left").lines().count() == 1);
        assert_eq!(read("tmp/gone").matches("No such file").count(), 2);
        let kept = agent.add(&project, &["-L"]);
        assert_eq!(String::from_utf8_lossy(&kept.stdout), key);
        let sockets = tool("find", &[text(&project.state()), "-type", "s"]);
        assert_eq!(sockets, "");
    }
}

#[test]
fn an_agent_that_is_missing_is_named() {
    for user in BOTH {
        let project = with_base(user, "RUN --mount=type=ssh,required=true true\n");
        let _ = project.build(&busybox()).failure(2).says("--ssh default").says("Dockerfile:4");
        let _ = project.build(&["--ssh", "default"]).failure(2).says("SSH_AUTH_SOCK").says("ssh-agent");
        let optional = with_base(user, "RUN --mount=type=ssh test -z \"$(ls /run/buildkit 2>/dev/null)\"\n");
        let _ = optional.build(&busybox()).success();
    }
}

/// Makes a key without a passphrase.
fn keygen(project: &Project, name: &str, args: &[&str]) -> PathBuf {
    let key = project.home().join(name);
    let mut command = project.command("ssh-keygen");
    command.args(["-q", "-N", "", "-C", &format!("{name}@test")]).args(args).arg("-f").arg(&key);
    let _ = run(command).success();
    key
}

/// Kinds of keys, and the forms of their files.
const KINDS: [(&str, &[&str]); 8] = [
    ("ed25519", &["-t", "ed25519"]),
    ("ecdsa256", &["-t", "ecdsa", "-b", "256"]),
    ("ecdsa384", &["-t", "ecdsa", "-b", "384"]),
    ("ecdsa521", &["-t", "ecdsa", "-b", "521"]),
    ("rsa", &["-t", "rsa", "-b", "2048"]),
    ("pkcs1", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
    ("pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
    ("sec1", &["-t", "ecdsa", "-b", "256", "-m", "PEM"]),
];

#[test]
fn key_files_list_and_sign_and_change_nothing() {
    for user in BOTH {
        let project = Project::new(user);
        let files: Vec<PathBuf> = KINDS.map(|(name, args)| keygen(&project, name, args)).into();
        let other = keygen(&project, "other", &["-t", "ed25519"]);
        let base = BASE.trim_end();
        let script = "COPY --from=openssh . /\nCOPY passwd /etc/passwd\nCOPY *.pub other /keys/\nRUN chmod 600 /keys/other\n\
            RUN --mount=type=ssh ssh-add -L > /list && cd /keys && for k in *256.pub ecdsa[35]*.pub rsa.pub pkcs?.pub sec1.pub ed25519.pub; do \
            echo text > t && rm -f t.sig && ssh-keygen -Y sign -q -f $k -n file t && (printf 'me '; cat $k) > allowed && \
            ssh-keygen -Y verify -f allowed -I me -n file -s t.sig < t >> /good && ! echo other | ssh-keygen -Y verify -f allowed -I me -n file -s t.sig > /dev/null || exit 1; done; \
            ssh-add /keys/other 2> /add; ssh-add -D 2> /all; ssh-add -d /keys/rsa.pub 2> /remove; ssh-add -x < /dev/null 2> /dev/null; ssh-add -L > /left\n\
            RUN --mount=type=ssh,id=second ssh-add -L > /second\n";
        project.file("Dockerfile", format!("{base}\nRUN mkdir -m 1777 /tmp\n{script}"));
        project.file("passwd", "root:x:0:0::/root:/bin/sh\n");
        for file in files.iter().chain([&other]) {
            let public = file.with_extension("pub");
            project.file(text(public.file_name().unwrap().as_ref()), fs::read(&public).unwrap());
        }
        project.file("other", fs::read(&other).unwrap());
        let (context, ssh, out) = (project.context(), openssh(&project), project.home().join("out"));
        let all = files.iter().map(|file| text(file)).collect::<Vec<_>>().join(",");
        // Relative to where the caller stands.
        let (default, second) = (format!("default={all}"), "second=other".to_owned());
        let args = ["--build-context", &ssh, "--ssh", &default, "--ssh", &second, "-o", text(&out)];
        let _ = project.rbuild(&[&args[..], &busybox(), &[text(&context)]].concat()).success();
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        // Only OpenSSH's own form has a comment.
        let halves = |list: &str| -> Vec<String> {
            list.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
        };
        let public = |file: &PathBuf| fs::read_to_string(file.with_extension("pub")).unwrap();
        let expected: String = files.iter().map(public).collect();
        assert_eq!(halves(&read("list")), halves(&expected));
        assert!(read("list").contains(" ed25519@test\n") && read("list").contains(" pkcs8\n"), "{}", read("list"));
        assert_eq!(read("good").matches("Good \"file\" signature for me").count(), KINDS.len(), "{}", read("good"));
        assert!(read("add").contains("refused") && read("all").contains("Failed") && !read("remove").is_empty());
        assert_eq!((read("left"), read("second")), (read("list"), public(&other)));
        // No line that is not of the public half is on disk.
        for file in &files {
            let key = fs::read_to_string(file).unwrap();
            let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with('-') && line.len() > 40).collect();
            // Unlocked keys of one kind begin with the same line, and `other` is there on purpose.
            let told = public(file) + &fs::read_to_string(&other).unwrap();
            for line in lines.iter().filter(|line| !told.contains(**line)) {
                let mut grep = Command::new("grep");
                grep.args(["-rlF", "-e", line]).args([&project.state(), &out]);
                assert_eq!(String::from_utf8_lossy(&grep.output().unwrap().stdout), "");
            }
        }
    }
}

#[test]
fn key_files_that_cannot_be_used_are_refused_with_the_way_out() {
    let project = with_base(User::Root, "RUN true\n");
    let build = |what: &str| project.build(&["--ssh", what]).failure(2);
    let mut locked = project.command("ssh-keygen");
    locked.args(["-q", "-t", "ed25519", "-N", "passphrase", "-f"]).arg(project.home().join("locked"));
    let _ = run(locked).success();
    let mut old = project.command("ssh-keygen");
    old.args(["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "passphrase", "-f"]).arg(project.home().join("old"));
    let _ = run(old).success();
    for name in ["locked", "old"] {
        let _ = build(&format!("default={name}")).says("locked by a passphrase").says(&format!("ssh-add {name}"));
    }
    let _ = build("default=locked.pub").says("locked.pub").says("holds no private key").says("ssh-keygen");
    fs::write(project.home().join("short"), "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNza\n-----END").unwrap();
    let _ = build("default=short").says("damaged");
    let _ = build("default=none").says("none").says("No such file");
    let _ = build("default=context").says("neither a socket nor a key file");
    let agent = Agent::start(&project);
    let _ = build(&format!("default=key,{}", agent.socket.display())).says("the only thing that may be named");
    symlink("key", project.home().join("link")).unwrap();
    let _ = build("default=link").says("symbolic link");
}

#[test]
fn a_long_state_directory_does_not_matter() {
    let project = with_base(User::Rootless, "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK\n");
    let agent = Agent::start(&project);
    let (state, context) = (project.home().join("a".repeat(120)), project.context());
    let mut command = project.command(crate::support::build::binary());
    command.arg("--root").arg(state).args(["--ssh", "default"]).args(busybox()).arg(context);
    command.env("SSH_AUTH_SOCK", &agent.socket);
    let _ = run(command).success();
}
