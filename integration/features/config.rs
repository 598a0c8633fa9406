//! Image configuration, history and LLB as BuildKit makes them.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::image::Layout;
use super::with_base;
use crate::support::build::{BOTH, Project, User, busybox};

fn golden(case: &str, file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/golden/llb").join(case).join(file)
}

fn read_json(path: &PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn metadata_instructions_become_configuration() {
    for user in BOTH {
        let project = with_base(
            user,
            "ENV E=1\nEXPOSE 80 53/udp 8000-8001\nVOLUME /v1\nVOLUME [\"/v2\", \"/v3\"]\nSTOPSIGNAL SIGQUIT\nUSER 5:6\nWORKDIR /w\n\
             HEALTHCHECK --interval=5s --timeout=2s --start-period=1m --retries=4 CMD test -e /ok\nLABEL a=b \"c d\"=\"e f\"\nENTRYPOINT [\"/bin/sh\", \"-c\"]\n\
             CMD echo hello\nSHELL [\"/bin/busybox\", \"ash\", \"-c\"]\nONBUILD RUN true\nMAINTAINER someone\n",
        );
        let config = Layout::built(&project, &busybox()).config();
        let expected = json!({
            "User": "5:6",
            "ExposedPorts": {"53/udp": {}, "80/tcp": {}, "8000/tcp": {}, "8001/tcp": {}},
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "E=1"],
            "Entrypoint": ["/bin/sh", "-c"],
            "ArgsEscaped": true,
            "Cmd": ["/bin/sh", "-c", "echo hello"],
            "Healthcheck": {"Test": ["CMD-SHELL", "test -e /ok"], "Interval": 5_000_000_000_i64, "Timeout": 2_000_000_000_i64, "StartPeriod": 60_000_000_000_i64, "Retries": 4},
            "Volumes": {"/v1": {}, "/v2": {}, "/v3": {}},
            "WorkingDir": "/w",
            "OnBuild": ["RUN true"],
            "Labels": {"a": "b", "c d": "e f"},
            "StopSignal": "SIGQUIT",
            "Shell": ["/bin/busybox", "ash", "-c"],
        });
        assert_eq!(config["config"], expected);
        assert_eq!(config["author"], "someone");
    }
}

#[test]
fn commands_entry_points_and_checks_replace_what_is_inherited() {
    for user in BOTH {
        let base = Project::with(
            user,
            "FROM scratch\nCOPY f /f\nCMD [\"inherited\"]\nENTRYPOINT [\"/old\"]\nHEALTHCHECK CMD old\nSTOPSIGNAL SIGINT\nVOLUME /v\nUSER 7\nSHELL [\"/bin/ash\", \"-c\"]\n",
        );
        base.file("f", "");
        let layout = Layout::built(&base, &[]);
        let context = format!("lay=oci-layout://{}", layout.0.display());
        for (lines, cmd, entrypoint) in [
            ("LABEL a=b", json!(["inherited"]), json!(["/old"])),
            ("ENTRYPOINT [\"/new\"]", Value::Null, json!(["/new"])),
            ("CMD [\"own\"]\nENTRYPOINT [\"/new\"]", json!(["own"]), json!(["/new"])),
            ("ENTRYPOINT [\"/new\"]\nCMD [\"own\"]", json!(["own"]), json!(["/new"])),
            ("CMD own $X", json!(["/bin/ash", "-c", "own $X"]), json!(["/old"])),
            ("SHELL [\"/sh2\"]\nENTRYPOINT new", Value::Null, json!(["/sh2", "new"])),
            ("CMD []", Value::Null, json!(["/old"])),
            ("ENTRYPOINT []", Value::Null, Value::Null),
        ] {
            let project = Project::with(user, &format!("FROM lay\n{lines}\n"));
            let config = Layout::built(&project, &["--build-context", &context]).config()["config"].clone();
            let unset = |value: &Value| if value == &json!([]) { Value::Null } else { value.clone() };
            assert_eq!((unset(&config["Cmd"]), unset(&config["Entrypoint"])), (cmd, entrypoint), "{lines}");
            assert_eq!((&config["User"], &config["StopSignal"]), (&json!("7"), &json!("SIGINT")), "{lines}");
            assert_eq!(config["Volumes"], json!({"/v": {}}), "{lines}");
        }
        let project = Project::with(user, "FROM lay\nHEALTHCHECK NONE\nVOLUME /w\nUSER 8:9\nSTOPSIGNAL 9\n");
        let config = Layout::built(&project, &["--build-context", &context]).config()["config"].clone();
        assert_eq!(config["Healthcheck"]["Test"], json!(["NONE"]));
        assert_eq!(config["Volumes"], json!({"/v": {}, "/w": {}}));
        assert_eq!((&config["User"], &config["StopSignal"]), (&json!("8:9"), &json!("9")));
    }
}

#[test]
fn history_names_each_instruction_and_layers_match() {
    for user in BOTH {
        let project = with_base(user, "ENV A=1\nCOPY f /f\nWORKDIR /new\nRUN true\nCMD [\"x\"]\n");
        project.file("f", "");
        let layout = Layout::built(&project, &busybox());
        let config = layout.config();
        let lines: Vec<(String, bool)> = config["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                assert_eq!(entry["comment"], "buildkit.dockerfile.v0");
                assert!(entry["created"].is_string(), "{entry}");
                (entry["created_by"].as_str().unwrap().to_owned(), entry["empty_layer"] == true)
            })
            .collect();
        let expected = [
            ("COPY busybox /bin/busybox # buildkit", false),
            ("RUN /bin/busybox --install -s /bin # buildkit", false),
            ("ENV A=1", true),
            ("COPY f /f # buildkit", false),
            ("WORKDIR /new", false),
            ("RUN /bin/sh -c true # buildkit", false),
            ("CMD [\"x\"]", true),
        ];
        assert_eq!(lines, expected.map(|(text, empty)| (text.to_owned(), empty)));
        let diffs = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!((diffs.len(), layout.layers().len()), (5, 5));
        for (digest, diff) in layout.layers().iter().zip(diffs) {
            let place = layout.0.join("blobs/sha256").join(digest.replace("sha256:", ""));
            let sum = super::tool("sh", &["-c", &format!("zcat {} | sha256sum", place.display())]);
            assert_eq!(format!("sha256:{}", sum.split(' ').next().unwrap()), diff.as_str().unwrap());
        }
    }
}

/// What a build adds to the configuration that the frontend gives.
fn comparable(mut config: Value) -> Value {
    let object = config.as_object_mut().unwrap();
    object.remove("created");
    object.remove("rootfs");
    for entry in config["history"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("created");
    }
    config
}

/// Cases that need no files and run nothing, on busybox or on nothing.
const CASES: [&str; 7] = [
    "env-same-line-scope",
    "expansion-default-modifiers",
    "expansion-pattern-modifiers",
    "healthcheck-forms",
    "lint-cmd-forms",
    "lint-expose",
    "scratch-only-metadata",
];

#[test]
fn configurations_equal_the_golden_ones() {
    // The invented busybox of the cases has one layer, a PATH and a CMD, in two entries of history; so has this one.
    let base = Project::with(User::Root, "FROM scratch\nCOPY f /f\nCMD [\"sh\"]\n");
    base.file("f", "");
    let layout = Layout::built(&base, &[]);
    let context = format!("busybox=oci-layout://{}", layout.0.display());
    for case in CASES {
        let dockerfile = fs::read_to_string(golden(case, "Dockerfile")).unwrap();
        let inherited = if dockerfile.contains("FROM busybox") { 2 } else { 0 };
        let project = Project::with(User::Root, &dockerfile);
        let built = Layout::built(&project, &["--platform=linux/amd64", "--build-context", &context]);
        let (mut ours, mut theirs) = (comparable(built.config()), comparable(read_json(&golden(case, "image.json"))));
        if inherited > 0 {
            // Our own base has these two from its own build; that of the cases was built by an older program.
            for config in [&mut ours, &mut theirs] {
                let config = config["config"].as_object_mut().unwrap();
                config.remove("WorkingDir");
                config.remove("ArgsEscaped");
            }
        }
        assert_eq!(ours["config"], theirs["config"], "{case}");
        let own = |config: &Value| config["history"].as_array().unwrap()[inherited..].to_vec();
        assert_eq!(own(&ours), own(&theirs), "{case}");
        for key in ["architecture", "os", "author", "variant"] {
            assert_eq!(ours[key], theirs[key], "{case}: {key}");
        }
    }
}

/// Lines of `debug dump-llb`.
fn dump(project: &Project, args: &[&str]) -> Vec<Value> {
    let mut command = project.command(crate::support::build::binary());
    command.args(["debug", "dump-llb", "--root"]).arg(project.state()).args(args).arg(project.context());
    let output = crate::support::build::run(command).success();
    output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_llb_of_a_dockerfile_can_be_printed() {
    for user in BOTH {
        let dockerfile = "FROM scratch AS a\nCOPY <<EOF /x/f\ntext\nEOF\nFROM scratch\nCOPY --from=a /x /y\nENV A=1\n";
        let lines = dump(&Project::with(user, dockerfile), &[]);
        // The last one has no kind, only the result as its input.
        assert_eq!(lines.len(), 4);
        assert!(lines[3]["inputs"][0].as_str().unwrap().starts_with(lines[2]["digest"].as_str().unwrap()));
        assert_eq!(lines[2]["metadata"]["description"]["llb.customname"], "[stage-1 1/1] COPY --from=a /x /y");
        assert_eq!(lines[2]["lines"], json!([6]));
    }
}

#[test]
fn printed_llb_equals_the_golden_one() {
    let case = "platform-scratch-arm";
    let project = Project::with(User::Root, &fs::read_to_string(golden(case, "Dockerfile")).unwrap());
    let lines = dump(&project, &["--platform", "linux/arm/v7"]);
    let expected = read_json(&golden(case, "llb.json"));
    let expected = expected["ops"].as_array().unwrap();
    assert_eq!(lines.len(), expected.len());
    let mut digests = std::collections::BTreeMap::new();
    for (ours, theirs) in lines.iter().zip(expected) {
        digests.insert(ours["digest"].as_str().unwrap().to_owned(), theirs["digest"].as_str().unwrap().to_owned());
        // The session is named in the source of the context, and so in all digests after it.
        let mut text = ours["op"].to_string().replace("\"rbuild\"", "\"SESSION\"");
        for (own, golden) in &digests {
            text = text.replace(own, golden);
        }
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), theirs["op"]);
        assert_eq!(ours["lines"].as_array().map_or(0, Vec::len), theirs["lines"].as_array().map_or(0, Vec::len));
    }
}
