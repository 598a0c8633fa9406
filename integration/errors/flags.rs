//! Command lines and configuration files that mean nothing.

use crate::support::build::{Project, User, binary, run};

/// Flags, the message, and what helps; all end with exit code 2.
const WRONG: [(&[&str], &str, &str); 49] = [
    (&["--taget=x"], "unknown flag --taget", "did you mean `--target`?"),
    (&["--frobnicate"], "unknown flag --frobnicate", "rbuild --help"),
    (&["--progress", "plian"], "invalid value of --progress: \"plian\"", "`--progress plain`"),
    (&["--network", "bridge"], "\"bridge\" is none of default, host, none", "`--network default`"),
    (&["--platform", "linux/amd46"], "unknown architecture \"amd46\"", "did you mean `linux/amd64`?"),
    (&["--platform", "linxu/amd64"], "unknown operating system \"linxu\"", "did you mean `linux/amd64`?"),
    (&["--platform", "foo"], "invalid value of --platform", "`--platform linux/amd64`"),
    (&["--platform", "a/b/c/d"], "invalid value of --platform", "`--platform linux/amd64`"),
    (&["--build-arg", "=x"], "invalid value of --build-arg: the name is missing", "`--build-arg NAME=VALUE`"),
    (&["--label", "=x"], "invalid value of --label: \"=x\"", "`--label NAME=VALUE`"),
    (&["--annotation", "x"], "invalid value of --annotation: \"x\"", "`--annotation NAME=VALUE`"),
    (&["--ulimit", "nofile"], "invalid ulimit argument: nofile", "NAME=SOFT[:HARD]"),
    (&["--ulimit", "nofle=1"], "invalid ulimit type: nofle", "nofile"),
    (&["--ulimit", "nofile=a"], "invalid ulimit value \"a\"", "NAME=SOFT[:HARD]"),
    (&["--ulimit", "nofile=9:1"], "less than or equal to hard limit", "NAME=SOFT[:HARD]"),
    (&["--shm-size", "much"], "invalid value of --shm-size", "`--shm-size 64m`"),
    (&["--shm-size=-1"], "invalid value of --shm-size", "`--shm-size 64m`"),
    (&["--add-host", "db"], "invalid value of --add-host: \"db\"", "`--add-host NAME:IP`"),
    (&["--add-host", "db:there"], "\"there\" is no address", "`--add-host NAME:IP`"),
    (&["--add-host", "db:host-gateway"], "\"host-gateway\" is no address", "`--add-host db:127.0.0.1`"),
    (&["-o", "type=iamge"], "unknown type \"iamge\"", "did you mean type=image?"),
    (&["-o", "type=oci,dst=x"], "unknown attribute \"dst\" for type=oci", "did you mean dest=?"),
    (&["-o", "type=oci"], "dest= is missing", "add dest="),
    (&["-o", "type=oci,dest=x,compression=lzma"], "unsupported compression \"lzma\"", "gzip"),
    (&["--push"], "a push needs a name", "--tag"),
    (&["--secret", "x"], "invalid value of --secret", "`--secret id=NAME,src=FILE`"),
    (&["--secret", "id=a,src=/nonexistent"], "failed to read secret a from /nonexistent: No such file", "id=a,src="),
    (&["--secret", "id=a,env=NOPE"], "the variable NOPE is not set", "set the variable"),
    (&["--ssh", "default"], "the variable SSH_AUTH_SOCK is not set", "ssh-agent"),
    (&["--build-context", "x"], "invalid value of --build-context: \"x\"", "`--build-context NAME=VALUE`"),
    (
        &["--build-context", "x=/nonexistent"],
        "invalid value of --build-context: \"x=/nonexistent\": failed to open \"/nonexistent\": No such file",
        "the value being a directory",
    ),
    (
        &["--build-context", "x=ftp://h.invalid"],
        "invalid value of --build-context: \"x=ftp://h.invalid\"",
        "the value being a directory",
    ),
    (&["--build-context", "x=docker-image://A:1"], "must be lowercase", "`docker-image://IMAGE`"),
    (&["--cache-from", "type=gha"], "--cache-from: no cache backend of type `gha` is there", "registry, local, inline"),
    (
        &["--cache-from", "type=lokal,src=x"],
        "--cache-from: no cache backend of type `lokal`",
        "did you mean type=local?",
    ),
    (&["--cache-to", "type=local,dst=x"], "--cache-to: dest= is missing", "add dest=DIRECTORY"),
    (&["--cache-to", "type=local,dest=x,mod=max"], "unknown attribute \"mod\"", "did you mean mode=?"),
    (&["--cache-to", "type=registry,ref=A"], "--cache-to: invalid reference format", "ref=HOST/NAME:TAG"),
    (&["--cache-to", "mode=max"], "`type=` is missing", "registry, local, inline"),
    (&["--allow", "network.hots"], "unknown entitlement \"network.hots\"", "did you mean `network.host`?"),
    (&["-t", "App:1"], "invalid value of --tag", "lower case"),
    (&["-t", "ghcr.io/Owner/App:V1"], "(Owner/App) must be lowercase", "write `--tag ghcr.io/owner/app:V1`"),
    (&["--sbom=true"], "`--sbom` is refused", "leave it out or say `false`"),
    (&["--provenance=mode=max"], "`--provenance` is refused", "leave it out or say `false`"),
    (&["--check", "--call=outline"], "ask for different things", "leave out one"),
    (
        &["--no-cache", "--no-cache-filter", "a"],
        "`--no-cache` and `--no-cache-filter` ask for different things",
        "leave out one",
    ),
    (&["--builder", "x"], "`--builder` is refused", "leave it out"),
    (&["--config", "/nonexistent"], "failed to read configuration file /nonexistent", "`--config FILE`"),
    (&["second"], "unexpected", "quote"),
];

#[test]
fn each_wrong_flag_is_named_with_what_to_type() {
    let project = Project::with(User::Rootless, "FROM scratch\nCOPY Dockerfile /\n");
    for (flags, message, hint) in WRONG {
        assert!(!hint.is_empty(), "{flags:?} has no remedy");
        let _ = project.build(flags).complains(2, message, hint);
    }
    assert!(project.build(&["-o", "type=local"]).complains(2, "dest= is missing", "add dest=").stdout.is_empty());
}

#[test]
fn contexts_that_are_none() {
    let project = Project::with(User::Rootless, "FROM scratch\n");
    let _ = project.rbuild(&["nowhere"]).complains(2, "failed to open the context \"nowhere\": No such file", "`.`");
    let _ = project.rbuild(&["context/Dockerfile"]).complains(2, "is not a directory", "-f context/Dockerfile .");
    let _ = project.rbuild(&["https://h.invalid/a.git?bad=1"]).complains(
        2,
        "unexpected query \"bad\"",
        "URL.git#REF:SUBDIR",
    );
    let mut command = project.command(binary());
    command.arg("buidl");
    let _ = run(command).complains(2, "\"buidl\"", "did you mean `rbuild build [OPTIONS]`?");
    let _ = project.rbuild(&["build"]).complains(2, "the context \"build\"", "did you mean `rbuild build [OPTIONS]`?");
    let layout = "x=oci-layout:///nonexistent";
    let _ = project.build(&["--build-context", layout]).complains(4, "OCI layout /nonexistent", "`index.json`");
}

#[test]
fn the_last_of_a_repeated_flag_counts() {
    let project = Project::with(User::Rootless, "FROM scratch AS a\nCOPY Dockerfile /a\nFROM scratch\n");
    let _ = project.build(&["--target", "nope", "--target", "a"]).success();
}

#[test]
fn configuration_errors_name_file_and_line() {
    let project = Project::with(User::Rootless, "FROM scratch\nCOPY Dockerfile /\n");
    let file = project.home().join("buildkitd.toml");
    let name = file.to_str().unwrap();
    let build = |text: &str| {
        std::fs::write(&file, text).unwrap();
        project.build(&["--config", name])
    };
    let _ = build("debug = false\nroot =\n").complains(2, "", "").says(&format!("{name}:2\n")).says(">>> root =");
    let typed = build("[registry.\"a\"]\nhttp = \"yes\"\n").complains(
        2,
        "is to be true or false, but it is the string \"yes\"",
        "write true or false behind",
    );
    let _ = typed.says(&format!("{name}:2\n")).says(">>> http = \"yes\"");
    let unknown = build("[registry.\"a\"]\nkeypairs = []\n").success();
    let _ = unknown.says(&format!("warning: {name}:2: unknown key `registry.a.keypairs`, did you mean `keypair`?"));
}

#[test]
fn help_names_the_flags_and_the_exit_codes() {
    let project = Project::new(User::Rootless);
    for words in [&["--help"][..], &["build", "--help"], &["debug", "dump-llb", "--help"]] {
        let mut command = project.command(binary());
        command.args(words);
        let output = run(command).success();
        assert_eq!(output.stderr, "");
        for text in ["--file <FILE>", "--build-arg <NAME[=VALUE]>", "--output <SPEC>", "--root <DIR>", "Usage: rbuild"]
        {
            assert!(output.stdout.contains(text), "{words:?}: {text}: {}", output.stdout);
        }
    }
    let mut command = project.command(binary());
    command.args(["debug", "config", "--help"]);
    assert!(run(command).success().stdout.contains("--format <FORMAT>"));
    let mut command = project.command(binary());
    command.arg("--help");
    assert!(run(command).stdout.contains("\n  3      the Dockerfile or the build context is wrong\n"));
}
