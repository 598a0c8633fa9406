//! `buildkitd.toml`: where it is found, what of it counts, and what is said of the rest.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{text, tool, with_base};
use crate::support::build::{BOTH, Output, Project, User, binary, busybox, run};
use crate::support::table::{missing, project, rows};

/// Fewer rows would mean that the tables were not found.
const AT_LEAST: usize = 40;

const EVERY_KEY: &str = "testdata/config/every-key.toml";

#[test]
fn every_row_of_the_keys_names_tests_that_there_are() {
    let rows = rows(&fs::read_to_string(project("src/config/KEYS.md")).unwrap());
    assert!(rows.len() >= AT_LEAST, "{} rows", rows.len());
    let missing = missing(&rows);
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    let readme = fs::read_to_string(project("README.md")).unwrap();
    assert!(readme.contains("(src/config/KEYS.md)"));
}

fn written(project: &Project, content: &str) -> PathBuf {
    let path = project.home().join("buildkitd.toml");
    fs::write(&path, content).unwrap();
    project.own(&path);
    path
}

/// Builds with a configuration.
fn build(project: &Project, content: &str, args: &[&str]) -> Output {
    let path = written(project, content);
    project.build(&[&["--config", text(&path)], args].concat())
}

fn debug_config(project: &Project, args: &[&str]) -> Command {
    let mut command = project.command(binary());
    command.args(["debug", "config"]).args(args);
    command
}

const SMALL: &str = "FROM scratch\nCOPY Dockerfile /\n";

#[test]
fn every_key_is_accepted_without_a_warning() {
    let small = Project::with(User::Rootless, SMALL);
    let every = written(&small, &fs::read_to_string(project(EVERY_KEY)).unwrap());
    assert_eq!(run(debug_config(&small, &["--config", text(&every)])).success().stderr, "");
    let unused = "[grpc]\naddress = [\"unix:///run/a\"]\n[otel]\n[worker.containerd]\nmax-parallelism = 2\n[worker.oci]\nlabels = { a = \"b\" }\nrootless = false\n";
    for user in BOTH {
        let project = Project::with(user, SMALL);
        let quiet = build(&project, unused, &[]).success().silent_about("buildkitd.toml");
        let _ = quiet.silent_about("warning: /");
        let told = build(&project, unused, &["--debug"]).success();
        for (line, key) in [(1, "grpc"), (3, "otel"), (4, "worker.containerd"), (7, "worker.oci.labels")] {
            let said = format!("buildkitd.toml:{line}: `{key}` has no effect: ");
            assert_eq!(told.count(&said), 1, "{said} {}", told.stderr);
        }
    }
}

#[test]
fn what_is_unknown_or_without_effect_is_a_warning() {
    for user in BOTH {
        let project = Project::with(user, SMALL);
        let content = "max-parallelism = 1\n[worker.oci]\nmax-paralelism = 1\nproxySnapshotterPath = \"/run/s\"\n[registry.docker.io]\n";
        let told = build(&project, content, &[]).success();
        let file = written(&project, content);
        for said in [
            "1: unknown key `max-parallelism`, `max-parallelism` belongs below `[worker.oci]`\n",
            "3: unknown key `worker.oci.max-paralelism`, did you mean `max-parallelism`?\n",
            "4: `worker.oci.proxySnapshotterPath` has no effect: layers are kept by rbuild itself\n",
            "5: unknown key `registry.docker.io`, a name with dots stands in quotes: ",
        ] {
            assert_eq!(told.count(&format!("warning: {}:{said}", file.display())), 1, "{said} {}", told.stderr);
        }
        let _ = build(&project, content, &["-q"]).success().silent_about("warning");
    }
}

#[test]
fn what_cannot_be_read_is_an_error() {
    for user in BOTH {
        let project = Project::with(user, SMALL);
        let name = written(&project, "").display().to_string();
        let wrong = build(&project, "debug = true\n[worker.oci]\nmax-parallelism = \"four\"\n", &[]);
        let _ = wrong
            .complains(
                2,
                "`worker.oci.max-parallelism` is to be a whole number, but it is the string \"four\"",
                "write a whole number",
            )
            .says(&format!("{name}:3\n"))
            .says(">>> max-parallelism = \"four\"");
        let _ = build(&project, "root = \"a\n", &[]).complains(2, "", "the file is TOML").says(&format!("{name}:1\n"));
        fs::write(&name, b"# \xff\n").unwrap();
        let _ = project.build(&["--config", &name]).complains(2, "not UTF-8", "UTF-8").says(&format!("{name}:1\n"));
        let absent = project.build(&["--buildkitd-config", "/nowhere/b.toml"]);
        let _ = absent.complains(2, "failed to read configuration file /nowhere/b.toml", "--config FILE");
        let folder = project.build(&["--config", "/"]);
        let _ = folder.complains(2, "failed to read configuration file /: Is a directory", "--config FILE");
        let endless = project.build(&["--config", "/dev/zero"]);
        let _ = endless.complains(2, "longer than", "--config FILE");
    }
    let project = Project::with(User::Rootless, SMALL);
    let secret = written(&project, "");
    tool("chown", &["root:root", text(&secret)]);
    tool("chmod", &["600", text(&secret)]);
    let refused = project.build(&["--config", text(&secret)]);
    let _ = refused.complains(2, "Permission denied", &format!("chmod +r {}", secret.display()));
}

#[test]
fn the_file_is_searched_for_and_names_the_state_directory() {
    for (variable, folder) in [(None, ".config/buildkit"), (Some("XDG_CONFIG_HOME"), "xdg/buildkit")] {
        let project = Project::with(User::Rootless, SMALL);
        let (folder, state) = (project.home().join(folder), project.home().join("elsewhere"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("buildkitd.toml"), format!("root = {state:?}\n")).unwrap();
        project.own(project.home());
        let mut command = project.command(binary());
        command.arg(project.context());
        variable.map(|name| command.env(name, project.home().join("xdg")));
        let _ = run(command).success();
        assert!(state.join("blobs").is_dir());
        // A flag comes first.
        let other = project.home().join("other");
        let mut command = project.command(binary());
        command.arg("--root").arg(&other).arg(project.context());
        variable.map(|name| command.env(name, project.home().join("xdg")));
        let _ = run(command).success();
        assert!(other.join("blobs").is_dir());
    }
}

#[test]
fn the_effective_configuration_says_where_each_value_comes_from() {
    let project = Project::with(User::Rootless, SMALL);
    let file = written(
        &project,
        "debug = true\n[registry.\"a:1\"]\nhttp = true\n[worker.oci]\nSnapshotter = \"native\"\n[[worker.oci.gcpolicy]]\nall = true\n",
    );
    let name = file.display().to_string();
    let mut command = debug_config(&project, &["--config", &name, "--root", "/srv/x"]);
    command.env("HTTP_PROXY", "http://user:secret@proxy.example").env("RBUILD_TEST_SECRET", "secret");
    let printed = run(command).success().stdout;
    for line in [
        &format!("# configuration file: {name}\n"),
        "root = \"/srv/x\" # --root\n",
        &format!("log.level = \"debug\" # {name}:1\n").replace("log.level", "level"),
        &format!("[registry.\"a:1\"]\nhttp = true # {name}:3\n"),
        &format!("snapshotter = \"native\" # {name}:5\n"),
        &format!("[[worker.oci.gcpolicy]]\nall = true # {name}:7\n"),
        "networkMode = \"auto\" # default\n",
    ] {
        assert!(printed.contains(line), "{line:?} is not in:\n{printed}");
    }
    assert!(!printed.contains("secret"), "{printed}");
    // It is a file that means the same, and so it is printed again.
    let again = written(&project, &printed);
    let without =
        |text: &str| text.lines().map(|line| line.split(" # ").next().unwrap().to_owned() + "\n").collect::<String>();
    let second = run(debug_config(&project, &["--config", text(&again)])).success();
    assert_eq!((without(&second.stdout), second.stderr.as_str()), (without(&printed), ""));

    let mut command = debug_config(&project, &["--format", "json", "--debug"]);
    command.env("XDG_DATA_HOME", "/srv/data");
    let json = run(command).success();
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    let setting =
        |key: &str| json["settings"].as_array().unwrap().iter().find(|entry| entry["key"] == key).unwrap().clone();
    let expected = serde_json::json!({"key": "root", "value": "/srv/data/rbuild", "from": "environment", "origin": "$XDG_DATA_HOME"});
    assert_eq!((&json["file"], setting("root")), (&Value::Null, expected));
    assert_eq!((&setting("log.level")["value"], &setting("log.level")["from"]), (&"debug".into(), &"flag".into()));
}

#[test]
fn the_log_has_the_level_and_the_form_that_are_asked_for() {
    const DONE: &str = "opening the state directory";
    for user in BOTH {
        let project = Project::with(user, SMALL);
        for (content, args, logged) in [
            ("", &[][..], false),
            ("debug = true\n", &[], true),
            ("trace = true\n", &[], true),
            ("[log]\nlevel = \"debug\"\n", &[], true),
            ("debug = true\n[log]\nlevel = \"error\"\n", &[], false),
            ("[log]\nlevel = \"error\"\n", &["--debug"], true),
        ] {
            let output = build(&project, content, args).success();
            assert_eq!(output.count(DONE) > 0, logged, "{content:?} {args:?} {}", output.stderr);
        }
        let output = build(&project, "[log]\nformat = \"json\"\nlevel = \"debug\"\n", &[]).success();
        let lines = output.stderr.lines().filter(|line| line.starts_with('{'));
        let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect(line)).collect();
        let line = lines.iter().find(|line| line["msg"] == DONE).expect("logged");
        assert_eq!((&line["level"], &line["root"]), (&"debug".into(), &text(&project.state()).into()));
        let time = line["time"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.len() > 19, "{time}");
    }
}

#[test]
fn the_file_limits_what_may_be_allowed() {
    for user in BOTH {
        let project = Project::with(user, SMALL);
        let none = "debug = false\ninsecure-entitlements = []\n";
        let all = "insecure-entitlements = [\"network.host\", \"security.insecure\"]\n";
        for flags in [&["--allow", "network.host"][..], &["--allow=device,network.host"], &["--network", "host"]] {
            let place = format!("{}:2", project.home().join("buildkitd.toml").display());
            let refused = build(&project, none, flags);
            let _ = refused.complains(2, "network.host is not allowed by the configuration", &place);
            let _ = build(&project, all, flags).success();
            let _ = build(&project, "", flags).success();
        }
        let some = "insecure-entitlements = [\"network.host\"]\n";
        let refused = build(&project, some, &["--allow", "security.insecure"]);
        let _ = refused.complains(2, "security.insecure is not allowed", "insecure-entitlements");
        // Devices are allowed by themselves, unless there are none.
        let _ = build(&project, none, &["--allow", "device"]).success();
        let off = format!("{none}cdi.disabled = true\n");
        let _ = build(&project, &off, &["--allow", "device=a.example/b=c"]).complains(2, "device is not allowed", "");
    }
}

#[test]
fn what_cannot_be_kept_is_refused() {
    for user in BOTH {
        let project = Project::with(user, SMALL);
        let file = project.home().join("buildkitd.toml");
        for (content, line, what, hint) in [
            ("\nproxyNetwork = true\n", 2, "`proxyNetwork`", "--network none"),
            ("[frontend.\"dockerfile.v0\"]\nenabled = false\n", 2, "`frontend.\"dockerfile.v0\".enabled`", "remove"),
            ("[worker.oci]\nenabled = false\n", 2, "`worker.oci.enabled`", "remove"),
        ] {
            for args in [&[][..], &["--check"]] {
                let refused = build(&project, content, args);
                if args.is_empty() || content.contains("frontend") {
                    let _ = refused.complains(2, what, hint).says(&format!("{}:{line}", file.display()));
                } else {
                    let _ = refused.success();
                }
            }
        }
        let fine = "proxyNetwork = false\nfrontend.\"dockerfile.v0\".enabled = true\nworker.oci.enabled = true\n";
        let _ = build(&project, fine, &[]).success();
    }
}

#[test]
fn the_history_is_limited_by_number_and_age() {
    for user in BOTH {
        let project = Project::with(
            user,
            "FROM scratch AS a\nCOPY f /\nFROM scratch AS b\nCOPY f /\nFROM scratch AS c\nCOPY f /\n",
        );
        project.file("f", "x");
        let kept = || fs::read_dir(project.state().join("explain/builds")).unwrap().count();
        let all =
            |content: &str| ["a", "b", "c"].map(|target| build(&project, content, &["--target", target]).success());
        // Other targets are other projects, of which each has its own record.
        let _ = all("");
        assert_eq!(kept(), 3);
        let _ = all("[history]\nmaxEntries = 2\nmaxAge = \"1h\"\n");
        assert_eq!(kept(), 6);
        let _ = all("[history]\nmaxEntries = 2\n");
        assert_eq!(kept(), 2);
    }
}

#[test]
fn steps_run_one_at_a_time_where_the_file_says_so() {
    for user in BOTH {
        let stage = |name: &str| {
            format!(
                "FROM base AS {name}\nRUN --mount=type=cache,id=one,target=/c mkdir /c/busy && sleep 0.2 && rmdir /c/busy && touch /{name}\n"
            )
        };
        let copies = ["s1", "s2", "s3"].map(|name| format!("COPY --from={name} /{name} /\n")).concat();
        let stages = ["s1", "s2", "s3"].map(stage).concat();
        let project = with_base(user, &format!("{stages}FROM scratch\n{copies}"));
        let _ = build(&project, "[worker.oci]\nmax-parallelism = 1\n", &busybox()).success();
    }
}
