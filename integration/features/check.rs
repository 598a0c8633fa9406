//! `--check`: warnings without a build.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::build::{BOTH, Project, User};

const WARNED: &str = "FROM scratch AS One\nENV A b\nFROM scratch\nMAINTAINER me\nENV T=$NOPE\n";

fn json_of(project: &Project, args: &[&str], code: i32) -> Value {
    let output = project.rbuild(&[args, &["context"]].concat());
    assert_eq!(output.code, code, "{}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
}

#[test]
fn warnings_are_printed_and_end_with_one() {
    for user in BOTH {
        let project = Project::with(user, WARNED);
        let output = project.build(&["--check"]).failure(1);
        let expected = "\
Check complete, 4 warnings have been found!

WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Stage name 'One' should be lowercase
Dockerfile:1
--------------------
   1 | >>> FROM scratch AS One
   2 |     ENV A b
   3 |     FROM scratch
--------------------

WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
\"ENV key=value\" should be used instead of legacy \"ENV key value\" format
Dockerfile:2
--------------------
   1 |     FROM scratch AS One
   2 | >>> ENV A b
   3 |     FROM scratch
   4 |     MAINTAINER me
--------------------

WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/
Maintainer instruction is deprecated in favor of using label
Dockerfile:4
--------------------
   2 |     ENV A b
   3 |     FROM scratch
   4 | >>> MAINTAINER me
   5 |     ENV T=$NOPE
   6 |     
--------------------

WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/
Usage of undefined variable '$NOPE'
Dockerfile:5
--------------------
   3 |     FROM scratch
   4 |     MAINTAINER me
   5 | >>> ENV T=$NOPE
   6 |     
--------------------
";
        assert_eq!(output.stdout, expected);
        assert!(!output.stderr.contains("error:"), "{}", output.stderr);
        for more in ["--call=check", "--call=lint", "--call=check,format=text"] {
            assert_eq!(project.build(&[more]).failure(1).stdout, expected);
        }
        assert_eq!(project.build(&["--call=check,ignorestatus"]).success().stdout, expected);
    }
}

#[test]
fn a_clean_dockerfile_says_so() {
    let project = Project::with(User::Rootless, "FROM scratch\nCOPY nothing /\n");
    let output = project.build(&["--check"]).success();
    assert_eq!(output.stdout, "Check complete, no warnings found.\n");
    let one = Project::with(User::Rootless, "FROM scratch\nMAINTAINER me\n");
    assert!(one.build(&["--check"]).failure(1).stdout.starts_with("Check complete, 1 warning has been found!\n"));
}

#[test]
fn the_json_is_buildkits_and_alone() {
    let text = "FROM scratch\nMAINTAINER a<b\n";
    let project = Project::with(User::Rootless, text);
    let result = json_of(&project, &["--call=check,format=json"], 1);
    let expected = json!({
        "warnings": [{
            "ruleName": "MaintainerDeprecated",
            "description": "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            "url": "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
            "detail": "Maintainer instruction is deprecated in favor of using label",
            "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]},
        }],
        "sources": [{
            "filename": "Dockerfile",
            "data": "RlJPTSBzY3JhdGNoCk1BSU5UQUlORVIgYTxiCg==",
            "language": "Dockerfile",
        }],
    });
    assert_eq!(result, expected);
    let quiet = project.rbuild(&["--call=check,format=json", "--progress=auto", "context"]);
    assert_eq!(quiet.stderr, "");
    assert!(quiet.stdout.starts_with("{\n  \"warnings\": [\n    {\n      \"ruleName\": "), "{}", quiet.stdout);
    let clean = Project::with(User::Rootless, "FROM scratch\nLABEL a=b\n");
    assert_eq!(json_of(&clean, &["--call=check,format=json"], 0)["warnings"], Value::Null);
}

#[test]
fn what_would_stop_the_build_is_in_the_json_and_told() {
    let project =
        Project::with(User::Rootless, "FROM scratch\nMAINTAINER x\nCOPY --from=later / /\nFROM scratch AS later\n");
    let result = json_of(&project, &["--call=check,format=json"], 3);
    let message = "cannot copy from stage \"later\", it needs to be defined before current stage \"stage-0\"";
    assert_eq!(result["buildError"]["message"], message);
    let range = json!({"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]});
    assert_eq!(result["buildError"]["location"], range);
    assert_eq!(result["warnings"][0]["ruleName"], "MaintainerDeprecated");
    let told = project.build(&["--check"]).failure(3).says(message).says(">>> COPY --from=later / /");
    assert!(told.stdout.starts_with("Check complete, 1 warning has been found!\n"), "{}", told.stdout);
    let broken = Project::with(User::Rootless, "FROM scratch\nCOYP a b\nENV\n");
    let result = json_of(&broken, &["--call=check,format=json"], 3);
    let lines = json!([{"start": {"line": 2}, "end": {"line": 2}}, {"start": {"line": 3}, "end": {"line": 3}}]);
    assert_eq!(result["buildError"]["location"]["ranges"], lines);
    assert!(broken.build(&["--check"]).failure(3).stdout.is_empty());
}

#[test]
fn all_stages_are_checked_or_those_of_the_target() {
    let text = "FROM scratch AS a\nENV X=$ONE\nFROM scratch AS b\nENV X=$TWO\n";
    let project = Project::with(User::Rootless, text);
    let all = project.build(&["--check"]).failure(1);
    assert!(all.stdout.contains("$ONE") && all.stdout.contains("$TWO"), "{}", all.stdout);
    let one = project.build(&["--check", "--target=a"]).failure(1);
    assert!(one.stdout.contains("'$ONE'") && !one.stdout.contains("'$TWO'"), "{}", one.stdout);
}

#[test]
fn check_options_count() {
    let text = "# check=skip=MaintainerDeprecated;error=true\nFROM scratch\nMAINTAINER me\nENV A b\n";
    let project = Project::with(User::Rootless, text);
    let output = project.build(&["--check"]).failure(3);
    let violation = "lint violation found for rules: LegacyKeyValueFormat";
    assert!(output.stdout.starts_with("Check complete, 1 warning"), "{}", output.stdout);
    let _ = output.says(violation);
    let _ = project.build(&[]).failure(3).says(violation).says("LegacyKeyValueFormat: ");
    let off = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"];
    let _ = project.build(&[&["--check"], &off[..]].concat()).success();
    let _ = project.build(&off).success().silent_about("LegacyKeyValueFormat");
    let bad = project.build(&["--check", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skipp=all"]);
    let _ = bad.failure(3).says("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option \"skipp\"");
    let experimental = "# check=experimental=all\n# what it is\nFROM scratch AS a\nLABEL a=b\n";
    let described = Project::with(User::Rootless, experimental).build(&["--check"]).failure(1);
    assert!(described.stdout.contains("InvalidDefinitionDescription"), "{}", described.stdout);
    let commented = "FROM scratch\n# check=skip=LegacyKeyValueFormat // old habits\nENV A b\n";
    let _ = Project::with(User::Rootless, commented).build(&["--check"]).success();
}

#[test]
fn a_build_sums_its_warnings_up() {
    let project = Project::with(User::Rootless, WARNED);
    let output = project.build(&[]).success();
    let end = "\n 3 warnings found:\n - StageNameCasing: Stage name 'One' should be lowercase (line 1)\n";
    let _ = output.says(end).says(" - UndefinedVar: Usage of undefined variable '$NOPE' (line 5)\n");
    let _ = project.build(&["--debug"]).success().says("rule/undefined-var/").says(">>> ENV T=$NOPE");
}

#[test]
fn foreign_text_in_a_warning_moves_no_cursor() {
    let project = Project::with(User::Rootless, "FROM scratch\nMAINTAINER \x1b[2J\u{202e}x\n");
    let output = project.build(&["--check"]).failure(1);
    assert!(!output.stdout.contains(['\x1b', '\u{202e}']), "{:?}", output.stdout);
}

#[test]
fn rawjson_carries_the_warnings_of_a_build() {
    let project = Project::with(User::Rootless, "FROM scratch\nMAINTAINER me\n");
    let output = project.build(&["--progress", "rawjson"]).success();
    let statuses = output.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let warnings: Vec<Value> = statuses.filter_map(|status| Some(status.get("warnings")?[0].clone())).collect();
    let lint: Vec<&Value> = warnings.iter().filter(|warning| warning.get("url").is_some()).collect();
    let decoded = |value: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(lint.len(), 1, "{warnings:?}");
    let warning = lint[0];
    let short = "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)";
    assert_eq!(decoded(&warning["short"]), short);
    assert!(decoded(&warning["detail"][0]).starts_with("The MAINTAINER instruction is deprecated"));
    assert_eq!(
        (&warning["level"], &warning["range"]),
        (&json!(1), &json!([{"start": {"line": 2}, "end": {"line": 2}}]))
    );
    assert_eq!(decoded(&warning["sourceInfo"]["data"]), "FROM scratch\nMAINTAINER me\n");
    assert!(warning["vertex"].as_str().unwrap().starts_with("sha256:"));
}
