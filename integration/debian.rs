//! A real Debian image, built, pushed and run by other tools.
//!
//! The base comes from a registry with OCI and with Docker media types. What is built is unpacked by umoci and run by runc, loaded and run
//! by a docker engine; a script inside says what it finds.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::build::{BASE, BOTH, Project, User, binary, busybox, run};
use crate::support::debian::{apt_settings, debian};
use crate::support::engine::Engine;
use crate::support::registry::Registry;

/// A group that the socket of the engine belongs to, and no user.
const SOCKET_GROUP: u32 = 4321;

const DOCKERFILE: &str = r#"ARG BASE
FROM $BASE:docker AS tools
RUN mkdir -p /out/bin && cp /bin/ls /out/bin/list && ln /out/bin/list /out/bin/again && ln -s list /out/bin/soft \
 && chown 77:88 /out/bin/list && chmod 2755 /out/bin/list && setcap cap_net_raw+ep /out/bin/list && mkdir -m 1777 /out/sticky

FROM $BASE:oci
ARG APT
COPY apt/ /etc/apt/
RUN if [ "$APT" = yes ]; then apt-get update && apt-get install -y --no-install-recommends less; fi
RUN useradd --create-home --uid 1500 --groups audio app \
 && install -d -o app -g app -m 2750 /srv/app && echo data > /srv/app/data && chown -R app:app /srv/app
RUN rm -rf /usr/share/doc /var/lib/apt/lists/* /var/cache/apt /usr/share/man && rm -f /etc/issue.net && mkdir /etc/issue.net && rm -rf /opt && echo file > /opt
RUN ln /etc/issue /etc/issue.hard && ln -s /srv/app /app && rm -rf /usr/share/zoneinfo; mkdir -p /usr/local/bin && cp /bin/cat /usr/local/bin/suid && chmod 4755 /usr/local/bin/suid
RUN cp /bin/cat /usr/local/bin/capable && setcap cap_net_bind_service+ep /usr/local/bin/capable && chown root:audio /home
COPY --from=tools --chown=app:audio /out /opt2/out
COPY --from=tools /out/bin /opt2/bin
COPY --chmod=0755 verify /usr/local/bin/verify
USER app
WORKDIR /srv/app/work
RUN id -un > who && pwd > where
ENV GREETING=hello
LABEL a=b
ENTRYPOINT ["/usr/local/bin/verify"]
CMD ["one", "two"]
"#;

/// Runs in the image.
const VERIFY: &str = r#"#!/bin/sh
echo "$GREETING $* $(id -u):$(id -g) $(id -Gn) $(pwd) $(cat who where | tr '\n' ' ')"
cat /app/data
stat -c '%n %A %U:%G' /srv/app /srv/app/data /srv/app/work /opt /etc/issue.net /usr/local/bin/suid /home /opt2/out/sticky
stat -c '%n %A %U:%G %h' /etc/issue.hard /opt2/out/bin/list /opt2/out/bin/again /opt2/bin/list
/usr/sbin/getcap /usr/local/bin/capable /opt2/bin/list
readlink /app /opt2/out/bin/soft
ls -d /usr/share/doc /usr/share/man /var/cache/apt 2>/dev/null
command -v less
true
"#;

const FOUND: &str = "\
hello one two 1500:1500 app audio /srv/app/work app /srv/app/work 
data
/srv/app drwxr-s--- app:app
/srv/app/data -rw-r--r-- app:app
/srv/app/work drwxr-xr-x app:app
/opt -rw-r--r-- root:root
/etc/issue.net drwxr-xr-x root:root
/usr/local/bin/suid -rwsr-xr-x root:root
/home drwxr-xr-x root:audio
/opt2/out/sticky drwxrwxrwt app:audio
/etc/issue.hard -rw-r--r-- root:root 2
/opt2/out/bin/list -rwxr-sr-x app:audio 2
/opt2/out/bin/again -rwxr-sr-x app:audio 2
/opt2/bin/list -rwxr-sr-x UNKNOWN:UNKNOWN 2
/usr/local/bin/capable cap_net_bind_service=ep
/opt2/bin/list cap_net_raw=ep
/srv/app
list
";

/// What [`VERIFY`] says.
fn found() -> String {
    let installed = if debian().source.is_some() { "/usr/bin/less\n" } else { "" };
    format!("{FOUND}{installed}")
}

#[test]
fn a_real_debian() {
    let registry = Registry::start();
    push_base(&registry);
    let engine = Engine::start(SOCKET_GROUP);
    std::thread::scope(|scope| {
        for user in BOTH {
            let (registry, engine) = (&registry, &engine);
            scope.spawn(move || build_and_run(user, registry, engine));
        }
    });
}

/// The base, by rbuild with OCI media types, and from there by skopeo with Docker's.
fn push_base(registry: &Registry) {
    let project = Project::with(User::Root, "FROM scratch\nADD rootfs.tar /\nCMD [\"/bin/sh\"]\n");
    fs::hard_link(&debian().tar, project.context().join("rootfs.tar"))
        .or_else(|_| fs::copy(&debian().tar, project.context().join("rootfs.tar")).map(drop))
        .unwrap();
    let _ = project.build(&["-t", &format!("{}/base:oci", registry.host), "--push"]).success();
    let name = |tag| format!("docker://{}/base:{tag}", registry.host);
    let _ = tool(
        "skopeo",
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--format",
            "v2s2",
            &name("oci"),
            &name("docker"),
        ],
    );
    let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &name("docker")]);
    assert!(raw.contains("application/vnd.docker.image.rootfs.diff.tar.gzip"), "{raw}");
}

fn tool(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    run(command).success().stdout
}

fn build_and_run(user: User, registry: &Registry, engine: &Engine) {
    let project = Project::with(user, DOCKERFILE);
    project.file("verify", VERIFY).file("apt/apt.conf.d/99machine", apt_settings());
    if let Some(source) = &debian().source {
        project.file("apt/sources.list", source);
    }
    let app = format!("{}/{user:?}/app:1", registry.host).to_lowercase();
    let base = format!("BASE={}/base", registry.host);
    let apt = if debian().source.is_some() { "APT=yes" } else { "APT=no" };
    let args = ["--build-arg", &base, "--build-arg", apt];
    let tar = project.home().join("docker.tar");
    let archive = format!("type=docker,dest={}", tar.display());
    let built = project.build(&[&args[..], &["-t", &app, "--push", "-o", &archive]].concat()).success();
    assert_eq!(built.count("Unpacking less "), usize::from(debian().source.is_some()), "{}", built.stderr);
    assert_eq!(by_runc(&project, &app), found(), "runc as {user:?}");
    let loaded = engine.docker(&["load", "-i", tar.to_str().unwrap()]).success();
    assert_eq!(loaded.stdout, format!("Loaded image: {app}\n"));
    assert_eq!(by_docker(engine, &app), found(), "docker as {user:?}");
}

fn by_runc(project: &Project, app: &str) -> String {
    let seen: serde_json::Value =
        serde_json::from_str(&tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{app}")])).unwrap();
    assert_eq!(seen["Labels"]["a"], "b");
    let layout = project.home().join("layout");
    let target = format!("oci:{}:app", layout.display());
    let _ = tool(
        "skopeo",
        &["copy", "-q", "--insecure-policy", "--src-tls-verify=false", &format!("docker://{app}"), &target],
    );
    let bundle = project.home().join("bundle");
    let _ = tool("umoci", &["unpack", "--image", &target[4..], bundle.to_str().unwrap()]);
    let config = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    fs::write(&config, spec.to_string()).unwrap();
    let state = project.home().join("runc");
    let id = project.home().file_name().unwrap().to_str().unwrap();
    tool("runc", &["--root", state.to_str().unwrap(), "run", "--bundle", bundle.to_str().unwrap(), id])
}

fn by_docker(engine: &Engine, tag: &str) -> String {
    engine.docker(&["run", "--rm", "--pull", "never", "--network", "none", tag]).success().stdout
}

/// A small image, made from the busybox of the machine.
fn small(user: User) -> Project {
    Project::with(
        user,
        &format!(
            "{BASE}RUN echo greeting > /greeting && chown 5:6 /greeting && chmod 4711 /greeting\nCMD [\"cat\", \"/greeting\"]\n"
        ),
    )
}

#[test]
fn load_hands_the_image_to_an_engine_whose_socket_the_user_may_use() {
    let engine = Engine::start(SOCKET_GROUP);
    for user in BOTH {
        let project = small(user);
        let tag = format!("loaded-{user:?}:1").to_lowercase();
        let context = project.context();
        let mut args = vec!["--load", "-t", &tag, "--label", "a=b"];
        args.extend(busybox());
        args.push(context.to_str().unwrap());
        let mut command = in_group(&project, user, &args);
        command.env("DOCKER_HOST", engine.host());
        let _ = run(command).success();
        let seen = engine.docker(&["image", "inspect", &tag]).success().stdout;
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen[0]["Config"]["Labels"]["a"], "b");
        assert_eq!(seen[0]["RepoTags"][0], tag.as_str());
        assert_eq!(by_docker(&engine, &tag), "greeting\n");
        // The loader's own words are passed on when it refuses.
        let mut refused = project.rbuild_command(&args);
        refused.env("DOCKER_HOST", "unix:///nowhere/socket");
        let _ = run(refused).failure(4).says("docker load failed").says("/nowhere/socket");
    }
}

/// The groups of a user who may use the engine are those that a login gives, not only the first.
fn in_group(project: &Project, user: User, args: &[&str]) -> Command {
    let plain = project.rbuild_command(args);
    if user == User::Root {
        return plain;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "rbuild-test", "--regid", "rbuild-test", "--groups", &SOCKET_GROUP.to_string(), "--"]);
    command.arg(binary()).args(plain.get_args().skip_while(|arg| *arg != "--root"));
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(project.home()).stdin(Stdio::null());
    command
}

#[test]
fn what_an_engine_pushed_is_a_base() {
    let (registry, engine) = (Registry::start(), Engine::start(SOCKET_GROUP));
    let project = small(User::Root);
    let tar = project.home().join("small.tar");
    let name = format!("{}/small:1", registry.host);
    let spec = format!("type=docker,name={name},dest={}", tar.display());
    let _ = project.build(&[&busybox()[..], &["-o", &spec]].concat()).success();
    let _ = engine.docker(&["load", "-i", tar.to_str().unwrap()]).success();
    let _ = engine.docker(&["push", &name]).success();
    for user in BOTH {
        let project = Project::with(user, &format!("FROM {name}\nRUN stat -c '%a %u:%g' /greeting > /seen\n"));
        assert_eq!(project.built(&[], "seen"), "4711 5:6\n");
    }
}
