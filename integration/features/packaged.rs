//! The image that the project's own Dockerfile makes of the static binary: built with rbuild, loaded into a real engine, and building
//! there.

use std::path::{Path, PathBuf};

use crate::support::build::{Project, User, run};
use crate::support::engine::Engine;

/// What an outer container must be started with, as the error says where it was not.
const UNCONFINED: [&str; 6] = [
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--security-opt",
    "systempaths=unconfined",
];

fn checkout(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// The binary that is shipped, which `integration/run` has built.
fn shipped() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let path = std::env::var_os("RBUILD_STATIC");
    path.expect("`integration/run test` names the static binary in RBUILD_STATIC").into()
}

#[test]
fn the_projects_own_image_builds_in_a_container() {
    let project = Project::new(User::Root);
    std::fs::copy(shipped(), project.context().join("rbuild")).unwrap();
    let engine = Engine::start(0);
    let dockerfile = checkout("Dockerfile");
    let mut command = project.rbuild_command(&["-t", "rbuild:test", "--load", "-f", &dockerfile]);
    command.arg(project.context()).env("DOCKER_HOST", engine.host());
    let _ = run(command).success();

    let run = ["run", "--rm", "--network", "none"];
    let version = engine.docker(&[&run[..], &["rbuild:test", "--version"]].concat()).success();
    assert!(version.stdout.starts_with("rbuild "), "{}", version.stdout);
    for name in ["out", "inner"] {
        std::fs::create_dir(project.home().join(name)).unwrap();
    }
    let volumes = [
        format!("{}:/src:ro", checkout("testdata/example")),
        "/bin:/host:ro".to_owned(),
        format!("{}:/out", project.home().join("out").display()),
        format!("{}:/state", project.home().join("inner").display()),
    ];
    let volumes: Vec<&str> = volumes.iter().flat_map(|volume| ["-v", volume.as_str()]).collect();
    let build =
        ["rbuild:test", "--root", "/state", "--build-context", "host=/host", "-o", "type=local,dest=/out", "/src"];
    let refused = engine.docker(&[&run[..], &volumes, &build].concat()).failure(5);
    for option in UNCONFINED {
        assert!(refused.stderr.contains(option), "{option}: {}", refused.stderr);
    }
    let _ = engine.docker(&[&run[..], &volumes, &UNCONFINED, &build].concat()).success();
    let greeting = std::fs::read_to_string(project.home().join("out/greeting")).unwrap();
    assert!(greeting.starts_with("Hello, "), "{greeting}");
}
