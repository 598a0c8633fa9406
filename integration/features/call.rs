//! `--call`: what a Dockerfile takes and offers, without a build.

use serde_json::{Value, json};

use crate::support::build::{BOTH, Project, User};

fn json_of(project: &Project, args: &[&str]) -> Value {
    let output = project.rbuild(&[args, &["--progress", "auto", "context"]].concat()).success();
    assert_eq!(output.stderr, "");
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
}

fn at(line: u32) -> Value {
    json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]})
}

const STAGES: &str = "
ARG inherited=box
ARG inherited2=box2
ARG unused=abc${inherited2}
# sfx is a suffix
ARG sfx=\"usy${inherited}\"

FROM scratch AS first
ARG sfx
# this is not assigned to anything
ARG FOO=123
# BAR is a number
ARG BAR=456

FROM scratch AS second
ARG unused
ARG BAZ

FROM scratch AS third
ARG ABC=a
# check=skip=all
ARG password

# target defines build target
FROM --platform=$TARGETPLATFORM third AS target
COPY --from=first /etc/passwd /

FROM second
";

#[test]
fn outline_lists_the_arguments_that_the_target_uses() {
    for user in BOTH {
        let project = Project::with(user, STAGES);
        let args = ["--target", "target", "--build-arg", "BAR=678"];
        let outline = json_of(&project, &[&args[..], &["--call", "outline,format=json"]].concat());
        assert_eq!((&outline["name"], &outline["description"]), (&json!("target"), &json!("defines build target")));
        let expected = json!([
            {"name": "inherited", "value": "box", "location": at(2)},
            {"name": "sfx", "value": "usybox", "description": "is a suffix", "location": at(6)},
            {"name": "FOO", "value": "123", "location": at(11)},
            {"name": "BAR", "value": "678", "description": "is a number", "location": at(13)},
            {"name": "ABC", "value": "a", "location": at(20)},
            {"name": "password", "location": at(22)},
        ]);
        assert_eq!(outline["args"], expected);
        let text = project.build(&[&args[..], &["--call=outline"]].concat()).success().stdout;
        let expected = "\
TARGET:      target
DESCRIPTION: defines build target

BUILD ARG   VALUE    DESCRIPTION
inherited   box      \nsfx         usybox   is a suffix
FOO         123      \nBAR         678      is a number
ABC         a        \npassword             \n\n";
        assert_eq!(text, expected);
    }
}

#[test]
fn outline_follows_arguments_that_are_made_of_others() {
    let text = "ARG FOO=123\nARG ABC=abc\nARG DEF=def\nARG FOO=${FOO}${ABC}\nARG BAR=${FOO}456\n\
                ARG FOO=${FOO}456${BAR}\nFROM scratch\nARG FOO\n";
    let project = Project::with(User::Rootless, text);
    let expected = json!([
        {"name": "ABC", "value": "abc", "location": at(2)},
        {"name": "BAR", "value": "123abc456", "location": at(5)},
        {"name": "FOO", "value": "123abc456123abc456", "location": at(6)},
    ]);
    assert_eq!(json_of(&project, &["--call", "outline,format=json"])["args"], expected);
}

#[test]
fn outline_lists_secrets_agents_and_caches() {
    let text = "
FROM scratch AS first
RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true

FROM scratch AS second
RUN --mount=type=secret,id=unused --mount=type=ssh,id=ssh2 true

FROM scratch AS third
ARG BAR
RUN --mount=type=secret,id=second${BAR} --mount=type=cache,target=/root/.cache true

FROM third AS target
COPY --from=first /foo /
RUN --mount=type=ssh,id=ssh3,required true
RUN --mount=type=ssh,id=ssh3 --mount=type=cache,id=own,target=/c true

FROM second
";
    let project = Project::with(User::Rootless, text);
    let args = ["--target", "target", "--build-arg", "BAR=678", "--call", "outline,format=json"];
    let outline = json_of(&project, &args);
    let secrets = json!([
        {"name": "passwd", "required": true, "location": at(3)},
        {"name": "second678", "location": at(10)},
    ]);
    assert_eq!(outline["secrets"], secrets);
    let agents =
        json!([{"name": "default", "location": at(3)}, {"name": "ssh3", "required": true, "location": at(14)}]);
    assert_eq!(outline["ssh"], agents);
    let caches = json!([{"ID": "/root/.cache", "location": at(10)}, {"ID": "own", "location": at(15)}]);
    assert_eq!(outline["cache"], caches);
    let told = project.build(&["--target", "target", "--call", "outline"]).success().stdout;
    assert!(told.contains("SECRET   REQUIRED\npasswd   true\n"), "{told}");
}

#[test]
fn targets_come_with_their_comments() {
    let text = "# build makes it\nFROM scratch AS build\n\n# unrelated\nFROM --platform=$BUILDPLATFORM build AS Lint\nFROM scratch\n";
    let project = Project::with(User::Rootless, text);
    let list = json_of(&project, &["--call", "targets,format=json"]);
    let expected = json!([
        {"name": "build", "description": "makes it", "base": "scratch", "location": at(2)},
        {"name": "lint", "base": "build", "platform": "$BUILDPLATFORM", "location": at(5)},
        {"default": true, "base": "scratch", "location": at(6)},
    ]);
    assert_eq!(list["targets"], expected);
    let told = project.build(&["--call", "targets"]).success();
    assert_eq!(told.stdout, "TARGET    DESCRIPTION\nbuild     makes it\nlint      \n(default) \n");
}

#[test]
fn describe_lists_what_can_be_called() {
    let project = Project::with(User::Rootless, "FROM scratch\n");
    let list = json_of(&project, &["--call", "subrequests.describe,format=json"]);
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["frontend.outline", "frontend.targets", "frontend.subrequests.describe"]);
    assert_eq!(list[0]["opts"], json!([{"name": "target", "description": "Target build stage"}]));
    assert_eq!((&list[1]["opts"], &list[2]["opts"], &list[0]["inputs"]), (&json!([]), &Value::Null, &Value::Null));
    let told = project.build(&["--call", "subrequests.describe"]).success();
    assert!(told.stdout.starts_with("NAME                 VERSION DESCRIPTION\noutline "), "{}", told.stdout);
}

#[test]
fn a_dockerfile_that_cannot_be_read_fails_each_call() {
    let project = Project::with(User::Rootless, "FROM scratch\nCOYP a b\n");
    for call in ["outline", "targets", "outline,format=json"] {
        let output = project.build(&["--call", call]).failure(3).says("unknown instruction: COYP");
        assert_eq!(output.stdout, "");
    }
    let _ = project.build(&["--call", "frobnicate"]).failure(2).says("the methods are build, check");
}
