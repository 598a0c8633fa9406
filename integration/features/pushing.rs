//! What a push sends, and when.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::with_base;
use crate::support::build::{BOTH, Project, User, busybox};
use crate::support::registry::Registry;

/// How long a test waits for what must come before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many layers a repository of a registry has.
fn layers(registry: &Registry, repository: &str) -> usize {
    let place =
        registry.directory().join("data/docker/registry/v2/repositories").join(repository).join("_layers/sha256");
    std::fs::read_dir(place).map_or(0, Iterator::count)
}

/// Answers one request, which lets the step that asks go on.
fn answer(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
}

#[test]
fn layers_are_sent_while_later_steps_run() {
    for user in BOTH {
        let registry = Registry::start();
        // The port is free until the listener below takes it again; until then the step is refused and asks once more.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ask = format!(
            "i=0; until wget -q -O /dev/null http://127.0.0.1:{port}/; do i=$((i+1)); [ $i -lt 600 ]; sleep 0.1; done"
        );
        let project = with_base(user, &format!("RUN echo first > /first\nRUN set -e; {ask}\n"));
        let name = format!("{}/early:1", registry.host);
        let mut args = busybox().to_vec();
        let context = project.context();
        args.extend(["-t", &name, "--push", context.to_str().unwrap()]);
        let mut build = project.rbuild_command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while layers(&registry, "early") < 3 {
            assert!(Instant::now() < deadline, "{} layers came before the last step ended", layers(&registry, "early"));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(build.try_wait().unwrap().is_none(), "the last step waits for this test");
        let manifests = registry.directory().join("data/docker/registry/v2/repositories/early/_manifests/tags");
        assert!(!Path::new(&manifests).exists(), "no name before all is there");
        answer(&TcpListener::bind(("127.0.0.1", port)).unwrap());
        assert!(build.wait().unwrap().success());
        assert!(manifests.join("1").exists());
    }
}

#[test]
fn layers_of_a_base_are_mounted_from_its_repository() {
    let registry = Registry::start();
    let base = Project::with(User::Root, "FROM scratch\nCOPY f /f\n");
    base.file("f", "one");
    let lib = format!("{}/lib:1", registry.host);
    let _ = base.build(&["-t", &lib, "--push"]).success();
    for user in BOTH {
        let project = Project::with(user, &format!("FROM {lib}\nCOPY g /g\n"));
        project.file("g", "");
        let name = format!("{}/app-{user:?}:1", registry.host).to_lowercase();
        let pushed = project.build(&["-t", &name, "--push", "--debug"]).success();
        assert_eq!(pushed.count("Mounted"), 1, "{}", pushed.stderr);
        let again = project.build(&["-t", &name, "--push", "--debug"]).success();
        assert_eq!(again.count("Existed"), 3, "{}", again.stderr);
    }
}
