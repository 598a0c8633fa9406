//! Steps that fail: what ended them, what they said last, and where they stand.

use crate::support::build::{BASE, BOTH, Output, Project, User, busybox};

fn step(user: User, instruction: &str) -> Output {
    Project::with(user, &format!("{BASE}{instruction}\n")).build(&busybox())
}

#[test]
fn a_failing_run_ends_with_its_last_lines_its_place_and_its_code() {
    for user in BOTH {
        let output = step(user, "RUN for i in $(seq 30); do echo line $i; done; echo oops; exit 7");
        let output = output.complains(1, "did not complete successfully: exit code: 7", "").points_to(
            "Dockerfile",
            4,
            "RUN for i in $(seq 30); do echo line $i; done; echo oops; exit 7",
        );
        let tail = output.stderr.rsplit("------\n > [base 3/3] RUN").next().unwrap();
        assert!(tail.contains(" line 30\n") && tail.contains(" oops\n------\n"), "{tail}");
        assert!(!tail.contains(" line 20\n"), "{tail}");
        let failed = output.stderr.lines().filter(|line| line.starts_with('#') && line.contains(" ERROR: "));
        assert_eq!(failed.count(), 1, "{}", output.stderr);
        assert!(
            output.stderr.trim_end().lines().last().is_some_and(|line| line.starts_with("error: failed to solve: "))
        );
    }
}

#[test]
fn what_a_step_prints_in_a_quiet_build_is_not_lost_to_the_excerpt() {
    let project = Project::with(User::Rootless, &format!("{BASE}RUN echo hi; false\n"));
    let [flag, value] = busybox();
    let quiet = project.build(&["--progress", "quiet", flag, value]).complains(1, "exit code: 1", "");
    let _ = quiet.silent_about("warning").points_to("Dockerfile", 4, "RUN echo hi; false");
}

#[test]
fn programs_that_cannot_be_started() {
    for user in BOTH {
        let _ = step(user, "RUN nosuch --x").complains(1, "exit code: 127", "install it").says("nosuch: not found");
        let exec = step(user, "RUN [\"nosuch\", \"--x\"]");
        let _ = exec.complains(1, "exec: \"nosuch\": executable file not found in $PATH", "install the program");
        let text = step(user, "RUN echo > /x\nRUN [\"/x\"]");
        let _ =
            text.complains(1, "exec: \"/x\": Permission denied", "chmod +x").points_to("Dockerfile", 5, "RUN [\"/x\"]");
        let format = step(user, "RUN echo no program > /x && chmod +x /x\nRUN [\"/x\"]");
        let _ = format.complains(1, "Exec format error", "`--platform`");
        let none = Project::with(user, "FROM scratch\nRUN true\n").build(&[]);
        let _ = none.complains(1, "exec: \"/bin/sh\": No such file or directory", "the image has no shell");
        let _ = step(user, "RUN sh -c 'kill -9 $$'; exit $?").complains(1, "exit code: 137", "want of memory");
        let unknown = step(user, "USER nobody2\nRUN true");
        let _ = unknown.complains(1, "no user \"nobody2\"", "give its number").points_to("Dockerfile", 5, "RUN true");
    }
}

#[test]
fn what_a_step_was_not_given() {
    let secret = step(User::Rootless, "RUN --mount=type=secret,id=key,required true");
    let _ = secret.complains(2, "secret key: not found", "`--secret id=key,src=FILE`");
    let network = step(User::Rootless, "RUN --network=host true");
    let _ = network.complains(2, "network.host is not allowed", "`--allow network.host`");
}

#[test]
fn no_error_holds_a_secret() {
    let instruction = "RUN --mount=type=secret,id=key,env=KEY test -n \"$KEY\" && false";
    let project = Project::with(User::Rootless, &format!("{BASE}{instruction}\n"));
    project.file("key", "s3cr3t-file");
    let key = format!("id=key,src={}", project.context().join("key").display());
    let [flag, value] = busybox();
    let args = [flag, value, "--secret", &key];
    let _ = project.build(&args).complains(1, "exit code: 1", "").silent_about("s3cr3t");
    for args in [
        &["--secret", "s3cr3t"][..],
        &["--secret", "id=x,value=s3cr3t"],
        &["--build-arg", "=s3cr3t"],
        &["--cache-to", "type=s3,secret_access_key=s3cr3t"],
        &["--cache-from", "s3cr3t=x,y"],
    ] {
        let _ = project.build(args).failure(2).silent_about("s3cr3t");
    }
    let context = "base=http://me:s3cr3t@127.0.0.1:1/a?token=s3cr3t";
    let fetched = project.build(&[flag, value, "--build-context", context]);
    let _ = fetched.complains(4, "127.0.0.1:1", "").silent_about("s3cr3t");
    let _ =
        project.rbuild(&["http://me:s3cr3t@127.0.0.1:1/a.git"]).complains(4, "127.0.0.1:1", "").silent_about("s3cr3t");
}

#[test]
fn rawjson_is_json_up_to_the_error() {
    let project = Project::with(User::Rootless, &format!("{BASE}MAINTAINER me\nRUN echo hi; false\n"));
    let [flag, value] = busybox();
    let output = project.build(&["--progress", "rawjson", flag, value]).complains(1, "exit code: 1", "");
    let json: Vec<serde_json::Value> =
        output.stderr.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
    assert!(json.iter().all(serde_json::Value::is_object));
    let rest: Vec<&str> = output.stderr.lines().skip(json.len()).collect();
    assert_eq!(rest[0], "Dockerfile:5", "{}", output.stderr);
    assert!(rest.iter().all(|line| !line.starts_with('{')), "{rest:?}");
    let errors = json.iter().filter(|line| line["vertexes"][0]["error"].is_string()).count();
    assert_eq!(errors, 1);
    assert!(json.iter().any(|line| line["warnings"].is_array()));
    project.file("Dockerfile", BASE);
    let output = project.build(&["--progress", "rawjson", flag, value]).success();
    for line in output.stderr.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.is_object()), "{line}");
    }
}
