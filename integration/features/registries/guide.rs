//! The examples of "Configure BuildKit" in Docker's documentation, adapted in host names only.

use super::{Settings, blobs_served};
use crate::features::{fed, with_base};
use crate::support::build::{BOTH, Project, User, busybox};
use crate::support::gate::{Gate, Kind};
use crate::support::nginx::Nginx;
use crate::support::pki::{Authority, tls};
use crate::support::registry::{Form, Registry};

/// A registry with `library/alpine`, which is busybox here.
fn with_alpine() -> Registry {
    let registry = Registry::start();
    let project = with_base(User::Root, "");
    let name = format!("{}/library/alpine:latest", registry.host);
    let _ = project.build(&[&["-t", &name, "--push"][..], &busybox()].concat()).success();
    registry
}

#[test]
fn registry_mirror() {
    let registry = with_alpine();
    // The guide knows its mirror by the headers of its answers.
    let mirror = Nginx::start(&format!(
        "    location / {{ proxy_pass http://{}; add_header x-goog-hash \"crc32c=n03x6A==\" always; }}",
        registry.host
    ));
    let settings =
        Settings::toml(format!("debug = true\n[registry.\"docker.io\"]\n  mirrors = [\"{}\"]\n", mirror.host));
    for user in BOTH {
        let project = Project::new(user);
        let command = settings.command(&project, &["-f", "-"]);
        let output = fed(command, b"FROM alpine\nRUN echo \"hello world\"\n").success();
        assert!(blobs_served(&output).iter().all(|(host, _)| *host == mirror.host), "{}", output.stderr);
        let output = output.says("do request method=GET url=").says("fetch response received status=200 OK");
        let _ = output.says("x-goog-hash=\"crc32c=n03x6A==\"").says("hello world").silent_about("registry-1.docker.io");
    }
}

#[test]
fn setting_registry_certificates() {
    let authority = Authority::new();
    let http = tls(&authority.server(), Some(&authority.certificate()));
    let registry = Registry::configured(&Form { http, ..Form::default() });
    let (client, host) = (authority.client(), &registry.host);
    let settings = Settings::toml(format!(
        "debug = true\n[registry.\"{host}\"]\n  ca=[\"{}\"]\n  [[registry.\"{host}\".keypair]]\n    key=\"{}\"\n    cert=\"{}\"\n",
        authority.certificate().display(),
        client.key.display(),
        client.certificate.display()
    ));
    for user in BOTH {
        let pushed = settings.push(user, &format!("{host}/myimage:latest")).success();
        let _ = pushed.says(&format!("do request method=PUT url=https://{host}/v2/myimage/manifests/latest"));
        let _ = settings.pull(user, &format!("{host}/myimage:latest")).success();
    }
}

#[test]
fn max_parallelism() {
    for user in BOTH {
        for limit in [4, 1] {
            let gate = Gate::start(0, Kind::Other, Some(limit));
            let stages = (0..6).map(|stage| {
                let ask = format!("wget -q -O /answer http://{}/step/{stage}", gate.host);
                format!("FROM base AS s{stage}\nRUN {ask}\n")
            });
            let copies = (0..6).map(|stage| format!("COPY --from=s{stage} /answer /{stage}\n"));
            let file: String = stages.chain(["FROM scratch\n".to_owned()]).chain(copies).collect();
            let settings = Settings::toml(format!("[worker.oci]\n  max-parallelism = {limit}\n"));
            let _ = settings.build(&with_base(user, &file), &busybox()).success();
            assert_eq!(gate.most(Kind::Other), limit);
        }
    }
}
