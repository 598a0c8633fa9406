//! `# syntax=`: which frontend reads the file.

use crate::support::build::{Project, User};

const OWN: [&str; 6] = [
    "# syntax=docker/dockerfile:1\n",
    "#syntax=docker/dockerfile:1.7-labs\n",
    "#!/usr/bin/env rbuild\n# syntax = docker.io/docker/dockerfile\n",
    "# syntax=mirror.example/hub/docker/dockerfile:1.4 --with words\n",
    "\u{feff}# escape=`\n# syntax=docker/dockerfile:labs\n",
    "# syntax=dockerfile.v0\n",
];

#[test]
fn dockers_frontend_is_the_one_at_hand() {
    for head in OWN {
        let project = Project::with(User::Rootless, &format!("{head}FROM scratch\nLABEL a=b\n"));
        let _ = project.build(&[]).success().silent_about("frontend");
        let logged = project.build(&["--debug"]).success();
        assert_eq!(logged.count("the frontend asked for is the built-in one"), 1, "{}", logged.stderr);
    }
}

#[test]
fn a_newer_version_is_told_and_built() {
    for tag in ["1.27", "1.99-labs", "2", "master"] {
        let project =
            Project::with(User::Rootless, &format!("# syntax=docker/dockerfile:{tag}\nFROM scratch\nLABEL a=b\n"));
        let name =
            format!("the frontend \"docker/dockerfile:{tag}\" may be newer than the built-in one, which is 1.26");
        let output = project.build(&["--debug"]).success().says(&format!("\n 1 warning found:\n - {name}"));
        let _ = output.says(&format!(">>> # syntax=docker/dockerfile:{tag}\n"));
    }
}

#[test]
fn another_frontend_is_refused_in_every_form() {
    let forms = [
        ("# syntax=team/other:1\nFROM scratch\n", 1),
        ("#!/bin/x\n#syntax=team/other:1 more\nFROM scratch\n", 2),
        ("// syntax=team/other:1\nanything\n", 1),
        ("{\"syntax\": \"team/other:1\"}", 1),
        ("# escape=`\n# syntax=docker.io/team/other:1\nFROM scratch\n", 2),
        ("# syntax=team/dockerfile:1\nFROM scratch\n", 1),
    ];
    for (text, line) in forms {
        let output = Project::with(User::Rootless, text).build(&[]).failure(3);
        let output = output.says(&format!("Dockerfile:{line}\n")).says(" is not there in this version of rbuild");
        let _ = output.says("hint: remove the line if the file is a Dockerfile");
    }
}

#[test]
fn the_build_argument_comes_first() {
    let project = Project::with(User::Rootless, "# syntax=team/other:1\nFROM scratch\nLABEL a=b\n");
    let _ = project.build(&["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1 --opt"]).success();
    let own = Project::with(User::Rootless, "# syntax=docker/dockerfile:1\nFROM scratch\n");
    let refused = own.build(&["--build-arg", "BUILDKIT_SYNTAX=team/other:1"]).failure(2);
    let _ = refused.says("BUILDKIT_SYNTAX: the frontend \"team/other:1\" is not there").says("leave out `--build-arg");
    let newer = own.build(&["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1.30"]).success();
    let _ = newer.says("docker/dockerfile:1.30\" may be newer");
}
