//! What a push sends, and when.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{tool, with_base};
use crate::support::build::{BOTH, Output, Project, User, busybox, run};
use crate::support::fake_registry::{Answer, FakeRegistry};
use crate::support::fault_proxy::{Fault, FaultProxy, kind};
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

/// Builds a Dockerfile whose last step, which is appended to `steps`, waits until the repository has `count` layers.
fn sent_while_a_step_waits(
    user: User,
    registry: &Registry,
    steps: &str,
    more: &[&str],
    (repository, count): (&str, usize),
) {
    // The port is free until the listener below takes it again; until then the step is refused and asks once more.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ask = format!(
        "i=0; until wget -q -O /dev/null http://127.0.0.1:{port}/; do i=$((i+1)); [ $i -lt 600 ]; sleep 0.1; done"
    );
    let project = with_base(user, &format!("{steps}RUN set -e; {ask}\n"));
    let context = project.context();
    let args = [&busybox()[..], more, &[context.to_str().unwrap()]].concat();
    let mut build = project.rbuild_command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while layers(registry, repository) < count {
        assert!(Instant::now() < deadline, "{} layers came before the step ended", layers(registry, repository));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(build.try_wait().unwrap().is_none(), "the last step waits for this test");
    assert!(tags(registry, repository).is_empty(), "no name before all is there");
    answer(&TcpListener::bind(("127.0.0.1", port)).unwrap());
    assert!(build.wait().unwrap().success());
}

/// The names in a repository of a registry.
fn tags(registry: &Registry, repository: &str) -> Vec<String> {
    let place =
        registry.directory().join("data/docker/registry/v2/repositories").join(repository).join("_manifests/tags");
    let names = std::fs::read_dir(place).into_iter().flatten();
    names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn layers_are_sent_while_later_steps_run() {
    for user in BOTH {
        let registry = Registry::start();
        let name = format!("{}/early:1", registry.host);
        let steps = "RUN echo first > /first\n";
        sent_while_a_step_waits(user, &registry, steps, &["-t", &name, "--push"], ("early", 3));
        assert_eq!(tags(&registry, "early"), ["1"]);
    }
}

/// Steps of two stages; the last one is the second stage's, and needs the first.
const STAGES: &str =
    "FROM base AS one\nRUN echo first > /first\nRUN echo second > /second\nFROM base\nCOPY --from=one /first /copy\n";

#[test]
fn layers_of_a_cache_are_sent_while_later_steps_run() {
    for user in BOTH {
        let registry = Registry::start();
        let cache = format!("type=registry,ref={}/cache:c,mode=max", registry.host);
        // Those of the base, of the two steps and of the copy.
        sent_while_a_step_waits(user, &registry, STAGES, &["--cache-to", &cache], ("cache", 5));
        assert_eq!(tags(&registry, "cache"), ["c"]);
    }
}

#[test]
fn what_an_image_of_the_registry_gets_is_linked_into_the_cache_and_not_sent_twice() {
    let registry = Registry::with_access_log();
    let cache = format!("type=registry,ref={}/cache:c,mode=max", registry.host);
    let name = format!("{}/app:1", registry.host);
    // The base's two and the copy go into the image; only the two steps of the first stage are the cache's alone.
    let more = ["-t", &name, "--push", "--cache-to", &cache];
    sent_while_a_step_waits(User::Root, &registry, STAGES, &more, ("cache", 2));
    assert_eq!(layers(&registry, "app"), 5, "with the last step and the configuration");
    let sent = registry.requests().iter().filter(|line| line.contains("PUT /v2/cache/blobs/uploads/")).count();
    assert_eq!(sent, 3, "two layers and the configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_whose_registry_refuses_layers_early_breaks_no_build() {
    let server = FakeRegistry::start(|asked| match asked.line.split(' ').next().unwrap() {
        "POST" => Answer::new(403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
        _ => Answer::new(404, ""),
    })
    .await;
    let cache = format!("type=registry,ref={}/team/cache:c,mode=max", server.host);
    let build = move || {
        let project = with_base(User::Rootless, "RUN echo first > /first\n");
        project.build(&[&busybox()[..], &["--cache-to", &cache]].concat())
    };
    let output = tokio::task::spawn_blocking(build).await.unwrap();
    let _ = output.success().says("the cache was not exported");
}

/// A step whose layer is large and does not compress.
const LARGE: &str = "RUN head -c 40m /dev/urandom > /large\n";

#[test]
fn a_large_layer_is_sent_while_it_is_packed() {
    for user in BOTH {
        let registry = Registry::with_access_log();
        let project = with_base(user, LARGE);
        let name = format!("{}/app:1", registry.host);
        let _ = project.build(&[&busybox()[..], &["-t", &name, "--push"]].concat()).success();
        let sent = |method: &str| {
            registry.requests().iter().filter(|r| r.contains(&format!("{method} /v2/app/blobs/uploads/"))).count()
        };
        assert_eq!((sent("PATCH"), sent("PUT")), (1, 4), "{:#?}", registry.requests());
        // Reads all layers and compares their digests.
        let target = format!("dir:{}", project.home().join("image").display());
        let _ = tool("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{name}"), &target]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_sent_while_it_was_packed_is_sent_when_it_is_whole() {
    let registry = Registry::start();
    let rule = |line: &str, count: usize| match (kind(line).as_str(), count) {
        ("PATCH upload", 0) => Fault::CutRequest(1 << 20),
        _ => Fault::Pass,
    };
    let proxy = FaultProxy::start(&registry.host, rule).await;
    let name = format!("{}/app:1", proxy.host);
    let build = move || with_base(User::Rootless, LARGE).build(&[&busybox()[..], &["-t", &name, "--push"]].concat());
    let _ = tokio::task::spawn_blocking(build).await.unwrap().success();
    assert_eq!(proxy.of_kind("PATCH upload").len(), 1);
    let target = tempfile::tempdir().unwrap();
    let copied = format!("dir:{}", target.path().join("image").display());
    let _ = tool(
        "skopeo",
        &["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{}/app:1", registry.host), &copied],
    );
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
        let again = project.build(&["-t", &name, "--push", "--no-push-check", "--debug"]).success();
        assert_eq!(again.count("Existed"), 3, "{}", again.stderr);
    }
}

/// A registry that takes whatever it is given, and answers the first upload that is begun with `first`.
async fn accepting(first: u16) -> FakeRegistry {
    let begun = AtomicUsize::new(0);
    FakeRegistry::start(move |asked| match asked.line.split(' ').next().unwrap() {
        "POST" if begun.fetch_add(1, Ordering::Relaxed) == 0 && first != 202 => Answer::new(first, ""),
        "POST" => Answer::new(202, "").header("location", "/v2/team/app/blobs/uploads/1"),
        "PUT" => Answer::new(201, ""),
        "DELETE" => Answer::new(204, ""),
        _ => Answer::new(404, ""),
    })
    .await
}

/// Builds and pushes on a thread of its own, for the server of the test to go on.
async fn pushed(user: User, name: String, more: &'static [&'static str]) -> Output {
    let build = move || {
        let project = Project::with(user, "FROM scratch\nCOPY Dockerfile /\n");
        project.build(&[&["-t", &name, "--push"], more].concat())
    };
    tokio::task::spawn_blocking(build).await.unwrap()
}

#[test]
fn a_push_that_is_not_allowed_stops_the_build_before_its_steps_end() {
    for user in BOTH {
        let registry = Registry::with_login();
        // Nobody ever answers here, so that only the refusal can end the build.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let ask = format!("RUN wget -q -O /dev/null http://{}/\n", silent.local_addr().unwrap());
        let project = with_base(user, &ask);
        let name = format!("{}/team/app:1", registry.host);
        let cache = format!("type=local,dest={}", project.home().join("cache").display());
        let args = [&busybox()[..], &["-t", &name, "--push", "--cache-to", &cache]].concat();
        let output = project.build(&args);
        let output = output.failure(4).says(&format!("error: failed to push {}/team/app", registry.host));
        let output = output.says(&format!("hint: log in with `docker login {}`", registry.host));
        let _ = output.silent_about("stopping;").silent_about("canceled");
        assert!(!project.home().join("cache").exists(), "nothing is written of a build that could not be pushed");
    }
}

/// How many requests of each method for uploads there were.
fn uploads(registry: &FakeRegistry) -> [usize; 3] {
    let lines = registry.lines();
    ["POST", "PUT", "DELETE"].map(|method| {
        let is_one = |line: &&String| line.starts_with(method) && line.contains("/blobs/uploads/");
        lines.iter().filter(is_one).count()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_begun_carries_a_blob_or_is_taken_back() {
    for (user, more) in [(User::Root, &[][..]), (User::Rootless, &[]), (User::Root, &["--no-push-check"])] {
        let registry = accepting(202).await;
        let _ = pushed(user, format!("{}/team/app:1", registry.host), more).await.success();
        let [begun, carried, taken_back] = uploads(&registry);
        assert_eq!((carried, begun - taken_back), (2, 2), "{:?}", registry.lines());
        assert!(begun == 2 || more.is_empty(), "{:?}", registry.lines());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_begun_to_ask_is_taken_back_where_nothing_is_pushed() {
    for user in BOTH {
        for (more, expected) in [(&[][..], [1, 0, 1]), (&["--no-push-check"], [0, 0, 0])] {
            let registry = accepting(202).await;
            let host = registry.host.clone();
            let build = move || {
                let project = Project::with(user, &format!("FROM {host}/base\n"));
                project.build(&[&["-t", &format!("{host}/team/app:1"), "--push"], more].concat())
            };
            let output = tokio::task::spawn_blocking(build).await.unwrap();
            assert_ne!(output.code, 0);
            assert_eq!(uploads(&registry), expected, "{:?}", registry.lines());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_answer_the_check_is_pushed_to() {
    for (user, status) in [(User::Root, 404), (User::Rootless, 405)] {
        let registry = accepting(status).await;
        let name = format!("{}/team/app", registry.host);
        let output = pushed(user, format!("{name}:1"), &[]).await.success();
        let _ = output.says(&format!("not known whether {name} may be pushed to"));
        assert!(registry.lines().iter().any(|line| line == "PUT /v2/team/app/manifests/1"), "{:?}", registry.lines());
    }
}

/// How many layers are being sent at a moment.
#[derive(Default)]
struct AtOnce {
    begun: Mutex<usize>,
    more: Condvar,
    alone: AtomicBool,
}

impl AtOnce {
    /// Counts one more, and waits until there are two; a push of one after the other would never get there.
    fn meet(&self) {
        let mut begun = self.begun.lock().unwrap();
        *begun += 1;
        self.more.notify_all();
        let waited = self.more.wait_timeout_while(begun, PATIENCE, |begun| *begun < 2).unwrap().1;
        if waited.timed_out() {
            self.alone.store(true, Ordering::SeqCst);
        }
    }
}

/// A registry that answers the first layer it gets only once the next one has come too.
async fn expecting_two(at_once: Arc<AtOnce>) -> FakeRegistry {
    let upload = AtomicUsize::new(0);
    FakeRegistry::start(move |asked| match asked.line.split(' ').next().unwrap() {
        "POST" => {
            let place = format!("/v2/team/app/blobs/uploads/{}", upload.fetch_add(1, Ordering::Relaxed));
            Answer::new(202, "").header("location", place)
        }
        "PUT" => {
            // Layers are gzip; configuration and manifest are JSON, and prove nothing.
            if asked.body.starts_with(b"\x1f\x8b") {
                tokio::task::block_in_place(|| at_once.meet());
            }
            Answer::new(201, "")
        }
        "DELETE" => Answer::new(204, ""),
        _ => Answer::new(404, ""),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn layers_are_sent_at_once() {
    for user in BOTH {
        // The second time all is cached, so that nothing is sent before the push begins.
        let project = Arc::new(with_base(user, "RUN echo first > /first\nRUN echo second > /second\n"));
        for _ in 0..2 {
            let at_once = Arc::new(AtOnce::default());
            let registry = expecting_two(Arc::clone(&at_once)).await;
            let (name, project) = (format!("{}/team/app:1", registry.host), Arc::clone(&project));
            let build = move || project.build(&[&busybox()[..], &["-t", &name, "--push"]].concat()).success();
            let _ = tokio::task::spawn_blocking(build).await.unwrap();
            assert!(!at_once.alone.load(Ordering::SeqCst), "a layer was sent alone: {:?}", registry.lines());
            // Each in one request, or this would have looked at pieces of one.
            let begun = *at_once.begun.lock().unwrap();
            let pieces = registry.lines().iter().filter(|line| line.starts_with("PATCH ")).count();
            assert_eq!((begun, pieces), (4, 0), "{:?}", registry.lines());
        }
    }
}

/// Bytes that no compression makes fewer.
fn noise(seed: u32) -> Vec<u8> {
    let next = |state: &mut u32| {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        Some(state.to_le_bytes()[1])
    };
    (0..100_000).scan(seed, |state, _: u32| next(state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_gets_through_a_network_that_fails() {
    for user in BOTH {
        let registry = Registry::start();
        let direct = registry.host.clone();
        let fault = |line: &str, count: usize| match (kind(line).as_str(), count) {
            ("HEAD blob", 0) => Fault::Answer(504, String::new()),
            ("GET manifest", 0) => Fault::Answer(503, "retry-after: 0\r\n".into()),
            ("PUT manifest", 0) => Fault::Answer(429, "retry-after: 0\r\n".into()),
            ("GET blob" | "POST upload", 0) => Fault::Answer(502, String::new()),
            // The first that went well is the configuration.
            ("GET blob", 2) => Fault::CutResponse(1000),
            ("PUT upload", 0) => Fault::CutRequest(5000),
            _ => Fault::Pass,
        };
        let proxy = FaultProxy::start(&registry.host, fault).await;
        let through = proxy.host.clone();
        let (output, copied) = tokio::task::spawn_blocking(move || {
            let base = Project::with(User::Root, "FROM scratch\nCOPY f /f\n");
            base.file("f", noise(1));
            let _ = base.build(&["-t", &format!("{direct}/lib:1"), "--push"]).success();
            let project = Project::with(user, &format!("FROM {through}/lib:1\nCOPY g /g\n"));
            project.file("g", noise(2));
            let output = project.build(&["-t", &format!("{through}/app:1"), "--push"]).success();
            // It reads all of the image, and checks every digest.
            let mut skopeo = project.command("skopeo");
            skopeo.args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{direct}/app:1")]);
            skopeo.arg(format!("oci:{}:x", project.home().join("copy").display()));
            (output, run(skopeo))
        })
        .await
        .unwrap();
        let _ = copied.success();
        for faulty in ["HEAD blob", "GET manifest", "PUT manifest", "GET blob", "POST upload", "PUT upload"] {
            assert!(proxy.of_kind(faulty).len() > 1, "{faulty}: {:?}\n{}", proxy.passed(), output.stderr);
        }
    }
}
