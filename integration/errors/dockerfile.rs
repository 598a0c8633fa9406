//! Dockerfiles that cannot be built, and what they name that is not there.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use crate::support::build::{BOTH, Project, User, busybox};

#[test]
fn a_dockerfile_that_is_not_there() {
    for user in BOTH {
        let project = Project::new(user);
        let missing = "failed to read dockerfile: open Dockerfile: No such file or directory";
        let _ = project.build(&[]).complains(3, missing, "name the Dockerfile with `--file`");
        project.file("app.Dockerfile", "FROM scratch\n").file("app.Dockerfile.dockerignore", "");
        let _ = project.build(&[]).complains(3, missing, "the context has `app.Dockerfile`");
        let _ = project.build(&["-f", "nope"]).complains(3, "open nope: No such file", "current directory");
        let context = project.context();
        let directory = context.to_str().unwrap();
        let named = format!("`--file {directory}/Dockerfile`");
        let _ = project.build(&["-f", directory]).complains(3, "is not a regular file", &named);
        let _socket = UnixListener::bind(context.join("socket")).unwrap();
        let _ = project.build(&["-f", "socket"]).complains(3, "socket is not a regular file", "`--file -`");
    }
}

#[test]
fn an_unreadable_dockerfile_is_named() {
    let project = Project::with(User::Rootless, "FROM scratch\n");
    let place = project.context().join("Dockerfile");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&place, Some(0), Some(0)).unwrap();
    let _ = project.build(&[]).complains(3, "failed to read Dockerfile of the context: Permission denied", "chmod");
    let named = place.to_str().unwrap();
    let _ = project.build(&["-f", named]).complains(3, "Dockerfile: Permission denied", &format!("chmod +r {named}"));
}

#[test]
fn dockerfiles_with_nothing_in_them() {
    for (text, message) in [("", "the Dockerfile (Dockerfile) cannot be empty"), ("# only this\n", "no instructions")] {
        let _ = Project::with(User::Rootless, text).build(&[]).complains(3, message, "`FROM IMAGE`");
    }
}

/// A Dockerfile, the line that is wrong and its text, the message, and a hint.
const MISTAKES: [(&str, u32, &str, &str, &str); 13] = [
    ("FROM scratch\nCOYP a b\n", 2, "COYP a b", "unknown instruction: COYP (did you mean COPY?)", ""),
    ("FROM scratch\nCOPY a\n", 2, "COPY a", "COPY requires at least two arguments", "`COPY SOURCE DESTINATION`"),
    ("FROM scratch\nCOPY --form=x a b\n", 2, "COPY --form=x a b", "unknown flag: --form (did you mean from?)", ""),
    ("FROM scratch\nENV A=b c\n", 2, "ENV A=b c", "can't find = in \"c\"", "quote a value"),
    ("FROM scratch\nCOPY <<EOT /x\nabc\n", 2, "COPY <<EOT /x", "unterminated heredoc", "`EOT` must end it"),
    ("RUN true\nFROM scratch\n", 1, "RUN true", "no build stage in current context", "begin with `FROM image`"),
    ("FROM scratch\nRUN --mount=type=x true\n", 2, "RUN --mount=type=x true", "unsupported mount type", ""),
    ("FROM scratch\nEXPOSE a\n", 2, "EXPOSE a", "invalid", ""),
    ("FROM App:1\n", 1, "FROM App:1", "failed to parse stage name", "in lower case"),
    ("FROM $NOPE\n", 1, "FROM $NOPE", "should not be blank", ""),
    ("FROM scratch\nARG A\nENV B=${A:?set-me}\n", 3, "ENV B=${A:?set-me}", "set-me", ""),
    ("# syntax=team/other:1\nFROM scratch\n", 1, "# syntax", "the frontend \"team/other:1\" is not", "remove the line"),
    ("FROM scratch\nCOPY Dockerfile /x\nCOPY /x/y /\n", 3, "COPY /x/y /", "\"/x/y\": not found", "context directory"),
];

/// A Dockerfile whose RUN is not text, the line of the byte, and what is shown of it.
const NOT_TEXT: [(&[u8], u32, &str); 3] = [
    (b"RUN echo \xc3\xa9 \\\n  caf\xe9\n", 4, "byte 0xe9 in `caf\\xe9`"),
    (b"RUN <<EOF\ncd /\necho \xff\xfe\nEOF\n", 5, "byte 0xff in `echo \\xff\\xfe`"),
    (b"RUN cat <<A <<B\na\nA\nb\xe9\nB\n", 6, "byte 0xe9 in `b\\xe9`"),
];

#[test]
fn a_run_that_is_not_text_is_refused_where_it_is_needed() {
    for (run, line, shown) in NOT_TEXT {
        let text = [b"FROM scratch AS bad\nCOPY . /\n", run, b"FROM scratch\nCOPY f /\n"].concat();
        let project = Project::new(User::Rootless);
        project.file("Dockerfile", text).file("f", "");
        let output = project.build(&["--target", "bad"]).complains(3, shown, "iconv -f LATIN1 -t UTF-8");
        let _ = output.says(&format!("Dockerfile:{line}\n"));
        let _ = project.build(&[]).success();
    }
}

#[test]
fn bytes_that_are_not_text_are_kept_in_files_and_replaced_in_words() {
    let text: [&[u8]; 8] = [
        b"# caf\xe9\nFROM scratch AS base\nCOPY --from=host busybox /bin/sh\n",
        b"COPY <<'EOF' /data\nraw \xe9\xff\nEOF\n",
        b"ENV E=\xe9\n",
        b"RUN <<EOF\n#!/bin/sh\necho 'caf\xe9' > /script\nEOF\n",
        b"# \xff\nRUN echo one \\\n# \xe9\n two > /words\n",
        b"RUN [\"/bin/sh\", \"-c\", \"echo \xe9 $E > /json\"]\n",
        b"WORKDIR /\xe9\n",
        b"CMD echo \xe9\n",
    ];
    let project = Project::new(User::Rootless);
    project.file("Dockerfile", text.concat());
    let out = project.files(&busybox());
    for (file, content) in [
        ("data", &b"raw \xe9\xff\n"[..]),
        ("script", b"caf\xe9\n"),
        ("words", b"one two\n"),
        ("json", "\u{fffd} \u{fffd}\n".as_bytes()),
    ] {
        assert_eq!(std::fs::read(out.join(file)).unwrap(), content, "{file}");
    }
    assert!(out.join("\u{fffd}").is_dir());
}

#[test]
fn each_mistake_points_to_its_line() {
    for (text, line, shown, message, hint) in MISTAKES {
        let output = Project::with(User::Rootless, text).build(&[]).complains(3, message, hint);
        let shown = format!(" {line:>3} | >>> {shown}");
        let _ = output.says(&format!("Dockerfile:{line}\n")).says(&shown).says("error: failed to solve: ");
    }
}

#[test]
fn what_cannot_be_fetched_is_told_without_passwords() {
    for (source, message, hint) in [
        (
            "http://u:pw@127.0.0.1:1/x",
            "failed to fetch http://127.0.0.1:1/x: Connection refused",
            "nothing answers at 127.0.0.1",
        ),
        ("http://u:pw@127.0.0.1:1/a.git", "127.0.0.1:1/a.git", ""),
    ] {
        let text = format!("FROM scratch\nADD {source} /\n");
        let output = Project::with(User::Rootless, &text).build(&[]).complains(4, message, hint);
        let _ = output.says("Dockerfile:2\n").says("   2 | >>> ADD http://").says("error: failed to solve: ");
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_each_with_its_place() {
    let text = "FROM scratch\nCOYP a b\nRUN true\nENV\nHEALTHCHECK FOO\n";
    for args in [&[][..], &["--progress", "quiet"]] {
        let output = Project::with(User::Rootless, text).build(args).failure(3);
        let at = |text: &str| output.stderr.find(text).unwrap_or_else(|| panic!("{text:?}: {}", output.stderr));
        let places =
            ["Dockerfile:2\n", "instruction: COYP", "Dockerfile:4\n", "ENV requires", "Dockerfile:5\n", "(try CMD)"];
        assert!(places.map(at).is_sorted(), "{}", output.stderr);
        assert!(at("(try CMD)") < at("hint: write `HEALTHCHECK CMD command`"));
    }
}

#[test]
fn foreign_text_in_an_excerpt_moves_no_cursor() {
    let project = Project::with(User::Rootless, "FROM scratch\n\tCOYP \x1b[2J\u{202e}x\n");
    let output = project.build(&[]).complains(3, "unknown instruction", "").says("\tCOYP ");
    assert!(!output.stderr.contains(['\x1b', '\u{202e}']));
}

#[test]
fn a_stage_that_is_not_there() {
    let project = Project::with(User::Rootless, "FROM scratch AS builder\nCOPY Dockerfile /\nFROM builder AS final\n");
    let _ = project.build(&["--target", "buidler"]).complains(
        2,
        "target stage \"buidler\" could not be found (did you mean builder?)",
        "the stages are builder, final",
    );
    let unnamed = Project::with(User::Rootless, "FROM scratch\nCOPY Dockerfile /\n");
    let _ = unnamed.build(&["--target", "x"]).complains(2, "\"x\" could not be found", "`FROM IMAGE AS NAME`");
    let from = "FROM scratch\nCOPY --from=127.0.0.1:1/builder /x /y\n";
    let _ = Project::with(User::Rootless, from)
        .build(&[])
        .complains(4, "failed to reach registry 127.0.0.1:1: Connection refused", "nothing answers")
        .points_to("Dockerfile", 2, "COPY --from=127.0.0.1:1/builder /x /y");
}

#[test]
fn a_misspelt_stage_of_a_copy_is_suggested() {
    let text = "FROM scratch AS builder\nCOPY Dockerfile /\nFROM scratch\nCOPY --from=buidler /x /y\n";
    let project = Project::with(User::Rootless, text);
    let mut command = project.rbuild_command(&["context"]);
    // Whatever network there is, this proxy answers nothing.
    command.env("HTTPS_PROXY", "http://127.0.0.1:1").env("HTTP_PROXY", "http://127.0.0.1:1");
    let output = crate::support::build::run(command);
    let _ = output.complains(4, "buidler: failed to resolve", "did you mean `builder`?").points_to(
        "Dockerfile",
        4,
        "COPY --from=buidler /x /y",
    );
}

#[test]
fn a_source_that_is_not_there() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY src/main.txt /\n");
        project.file("src/mian.txt", "");
        let text = "COPY src/main.txt /";
        let missing = "\"/src/main.txt\": not found";
        let _ =
            project.build(&[]).complains(3, missing, "did you mean `src/mian.txt`?").points_to("Dockerfile", 2, text);
        project.file("src/main.txt", "").file(".dockerignore", "# notes\n\nsrc/*.txt\n");
        let hint =
            "line 3 of .dockerignore, `src/*.txt`, excludes it: remove that line, or add `!src/main.txt` after it";
        let _ = project.build(&[]).complains(3, missing, hint).points_to("Dockerfile", 2, text);
        project.file(".dockerignore", "src\n");
        let _ = project.build(&[]).complains(3, missing, "line 1 of .dockerignore, `src`,");
        project.file("Dockerfile.dockerignore", "a\n*.txt\nsrc/m*\n");
        let _ = project.build(&[]).complains(3, missing, "line 3 of Dockerfile.dockerignore, `src/m*`,");
    }
}

#[test]
fn lint_warnings_are_shown_once_where_they_belong() {
    let project = Project::with(User::Rootless, "from scratch\nCOPY Dockerfile /\nMAINTAINER me\n");
    let output = project.build(&[]).success().says("#1 WARN: MaintainerDeprecated").says("\n 2 warnings found:\n");
    assert_eq!(output.count("[internal] load build definition"), 1, "{}", output.stderr);
    let _ = project.build(&["--debug"]).success().says("Dockerfile:3\n").says(">>> MAINTAINER me");
}

#[test]
fn dump_llb_prints_json_lines_or_the_error() {
    let project = Project::with(User::Rootless, "FROM scratch\nCOPY --from=host busybox /\nRUN true\n");
    let context = project.context();
    let dump = |dockerfile: &str| {
        project.file("Dockerfile", dockerfile);
        let mut command = project.command(crate::support::build::binary());
        command.args(["debug", "dump-llb", "--root"]).arg(project.state()).args(busybox()).arg(&context);
        crate::support::build::run(command)
    };
    let output = dump("FROM scratch\nCOPY --from=host busybox /\nRUN true\n").success();
    let lines: Vec<serde_json::Value> = output.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(lines.len() >= 3, "{}", output.stdout);
    assert!(
        lines.iter().all(|line| line.as_object().is_some_and(|o| o.keys().any(|k| k.eq_ignore_ascii_case("digest"))))
    );
    let wrong = dump("FROM scratch\nCOYP a b\n").complains(3, "unknown instruction: COYP", "");
    assert_eq!(wrong.points_to("Dockerfile", 2, "COYP a b").stdout, "");
}
