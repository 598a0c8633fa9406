//! `RUN --device` of the labs channel: devices that CDI files describe, for those that were granted them.

use std::path::Path;

use super::text;
use crate::support::build::{BASE, BOTH, Project, User, busybox};

const SYNTAX: &str = "# syntax=docker/dockerfile:1-labs\n";

/// In the manner of programs that write such files, which mostly write YAML.
const YAML: &str = "---
cdiVersion: 0.5.0
kind: vendor3.com/gpu
containerEdits:
  env:
  - VISIBLE=void
devices:
- name: \"0\"
  containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/null
      fileMode: 0666
- name: all
  containerEdits:
    hooks:
    - hookName: createContainer
      path: /usr/bin/ctk
      args: [ctk, hook, update-ldcache, --folder, /usr/lib]
";

/// A device that is `/dev/null` under another name, a file and a variable; and others.
fn machine(user: User, rest: &str) -> (Project, String) {
    let project = Project::with(user, &format!("{SYNTAX}{BASE}{rest}"));
    let dir = project.home().join("cdi");
    std::fs::create_dir(&dir).unwrap();
    let library = project.home().join("library");
    std::fs::write(&library, "of the machine\n").unwrap();
    let description = format!(
        r#"{{"cdiVersion": "0.6.0", "kind": "vendor1.com/device", "containerEdits": {{"env": ["KIND=all", "PATH=/bin"]}}, "devices": [
            {{"name": "foo", "containerEdits": {{"env": ["FOO=injected"],
              "deviceNodes": [{{"path": "/dev/dri/sink", "hostPath": "/dev/null"}}, {{"path": "/opt/zeros", "hostPath": "/dev/zero", "type": "c", "major": 1, "minor": 5}}],
              "mounts": [{{"hostPath": "{}", "containerPath": "/lib/library", "options": ["ro", "bind"]}}]}}}},
            {{"name": "hooked", "containerEdits": {{"hooks": [{{"hookName": "createContainer", "path": "/bin/hook"}}]}}}},
            {{"name": "gone", "containerEdits": {{"deviceNodes": [{{"path": "/dev/gone", "hostPath": "/dev/there-is-none"}}]}}}},
            {{"name": "free", "annotations": {{"org.mobyproject.buildkit.device.autoallow": "true"}}, "containerEdits": {{"env": ["FREE=1"]}}}}
        ]}}"#,
        library.display()
    );
    std::fs::write(dir.join("vendor1.json"), description).unwrap();
    std::fs::write(dir.join("other.yaml"), "cdiVersion: 0.6.0\n").unwrap();
    std::fs::write(dir.join("vendor3.yaml"), YAML).unwrap();
    let config = project.home().join("buildkitd.toml");
    std::fs::write(&config, format!("[cdi]\nspecDirs = [{:?}]\n", text(&dir))).unwrap();
    (project, text(&config).to_owned())
}

fn args<'a>(config: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["--config", config], rest, &busybox()[..]].concat()
}

#[test]
fn a_step_gets_nodes_variables_and_files_of_its_devices_and_no_other_step_does() {
    for user in BOTH {
        let (project, config) = machine(
            user,
            "RUN --device=vendor1.com/device=foo,required --device=vendor2.com/device=bar echo into > /dev/dri/sink && head -c 4 /opt/zeros | od -An -tx1 > /read \
             && echo $KIND $FOO $PATH > /env && cp /lib/library /copied && ! echo x 2>/dev/null > /lib/library && stat -c %t:%T /dev/dri/sink > /number\n\
             RUN ls -d /dev/dri /opt /lib/library > /left 2>/dev/null; echo \"$FOO\" >> /left\n",
        );
        let out = project.home().join("out");
        let spec = format!("type=local,dest={}", out.display());
        let flags = args(&config, &["--allow", "device=vendor1.com/device=foo", "-o", &spec]);
        let said = project.build(&flags).success();
        assert_eq!(said.count("the optional device vendor2.com/device=bar is not registered"), 1, "{}", said.stderr);
        let read = |name: &str| std::fs::read_to_string(Path::new(&out).join(name)).unwrap();
        assert_eq!((read("read"), read("number")), (" 00 00 00 00\n".into(), "1:3\n".into()));
        assert_eq!((read("env"), read("copied")), ("all injected /bin\n".into(), "of the machine\n".into()));
        assert_eq!(read("left"), "\n");
        // A step that is cached asks for no device, but still for its grant.
        let _ = project.build(&flags).success().says("CACHED");
        let _ = project.build(&args(&config, &[])).failure(2).says("device vendor1.com/device=foo is requested");
    }
}

#[test]
fn devices_are_granted_by_name_all_or_by_their_description() {
    for user in BOTH {
        let (project, config) = machine(user, "RUN --device=vendor1.com/device=foo,required true\n");
        let refused = project.build(&args(&config, &["--allow", "device=vendor1.com/device=free"])).failure(2);
        let refused = refused.says("device vendor1.com/device=foo is requested by the build but not allowed");
        let _ = refused.says("--allow device=vendor1.com/device=foo").says("Dockerfile:5");
        let _ = project.build(&args(&config, &["--allow", "device"])).success();
        let _ = project.build(&args(&config, &["--allow", "device=a,b"])).failure(2).says("alias=NAME");

        let (project, config) = machine(user, "RUN --device=mine,required [ $FOO = injected ]\n");
        let _ = project.build(&args(&config, &["--allow", "device=vendor1.com/device=foo,alias=mine"])).success();

        let (project, config) = machine(user, "RUN --device=vendor1.com/device=free [ $FREE$KIND = 1all ]\n");
        let _ = project.build(&args(&config, &[])).success();
    }
}

#[test]
fn what_cannot_be_given_says_why_and_what_there_is() {
    for user in BOTH {
        let run = |name: &str| {
            let (project, config) = machine(user, &format!("RUN --device={name},required true\n"));
            project.build(&args(&config, &["--allow", "device"]))
        };
        let missing = run("vendor1.com/device=fo").failure(2).says("Dockerfile:5");
        let missing = missing.says("required device \"vendor1.com/device=fo\" is not registered");
        let missing =
            missing.says("did you mean `vendor1.com/device=foo`?").says("other.yaml: ").says("missing field `kind`");
        let _ = missing.says("vendor1.com/device=free, vendor1.com/device=gone").says("specDirs");
        let hooked = run("vendor1.com/device=hooked");
        let _ =
            hooked.failure(5).says("vendor1.json asks for the hook createContainer (/bin/hook)").says("Dockerfile:5");
        let _ = run("vendor1.com/device=gone").failure(5).says("/dev/there-is-none").says("No such file");
    }
}

#[test]
fn the_labs_channel_has_devices_and_the_stable_one_names_it() {
    let (project, config) = machine(User::Root, "RUN --device=vendor1.com/device=free [ $FREE = 1 ]\n");
    let file = std::fs::read_to_string(project.context().join("Dockerfile")).unwrap();
    project.file("Dockerfile", file.replace("1-labs", "1"));
    let stable = project.build(&args(&config, &[])).failure(3);
    let stable = stable.says("device feature is only supported in Dockerfile frontend 1.14.0-labs or later");
    let _ = stable.says("# syntax=docker/dockerfile:1-labs").says("Dockerfile:5");
    let labs = "BUILDKIT_SYNTAX=docker/dockerfile-upstream:master-labs";
    let _ = project.build(&args(&config, &["--build-arg", labs])).success();
    let _ = project.build(&args(&config, &["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1.14-labs"])).success();
}

#[test]
fn descriptions_in_yaml_are_read_and_their_hooks_refused() {
    for user in BOTH {
        let step = "RUN --device=vendor3.com/gpu=0,required [ $VISIBLE = void ] && echo x > /dev/gpu0\n";
        let (project, config) = machine(user, step);
        let _ = project.build(&args(&config, &["--allow", "device=vendor3.com/gpu=0"])).success();
        let (project, config) = machine(user, "RUN --device=vendor3.com/gpu=all,required true\n");
        let hooked = project.build(&args(&config, &["--allow", "device"])).failure(5);
        let _ = hooked.says("vendor3.yaml asks for the hook createContainer (/usr/bin/ctk)").says("Dockerfile:5");
    }
}
