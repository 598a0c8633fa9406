//! Mirrors: who is asked, in which order, and what the debug log says of it.

use std::net::TcpListener;

use super::{Settings, blob_reads, blobs_served};
use crate::support::build::{BOTH, User};
use crate::support::pki::{Authority, tls};
use crate::support::registry::{Form, LOGIN, Registry};

/// A registry that writes down what it is asked, and has `names` at once.
fn stocked(form: Form, names: &[&str]) -> Registry {
    let registry = Registry::configured(&Form { logs: true, ..form });
    for name in names {
        let _ = Settings::default().push(User::Root, &format!("{}/{name}", registry.host)).success();
    }
    registry
}

#[test]
fn the_debug_log_says_which_host_served_each_blob() {
    let mirror = stocked(Form::default(), &["library/base:1"]);
    let settings =
        Settings::toml(format!("debug = true\n[registry.\"docker.io\"]\n  mirrors = [\"{}\"]\n", mirror.host));
    for user in BOTH {
        let before = mirror.requests().len();
        let output = settings.pull(user, "base:1").success();
        let served = blobs_served(&output);
        assert!(!served.is_empty(), "{}", output.stderr);
        for (host, path) in &served {
            assert_eq!(host, &mirror.host);
            assert!(path.starts_with("v2/library/base/blobs/sha256:") && path.ends_with("?ns=docker.io"), "{path}");
        }
        let output =
            output.says("do request method=GET url=http://").says("docker-distribution-api-version=\"registry/2.0\"");
        let _ = output.silent_about("registry-1.docker.io");
        assert_eq!(blob_reads(&mirror.requests()[before..]), served.len(), "the mirror says the same");
        // Without it nothing of that is said.
        let quiet = Settings::of("docker.io", &format!("mirrors = [\"{}\"]", mirror.host));
        let _ = quiet.pull(user, "base:1").success().silent_about("do request");
    }
}

#[test]
fn mirrors_are_asked_in_order_and_the_registry_last() {
    let empty = stocked(Form::default(), &[]);
    let full = stocked(Form::default(), &["lib/base:1"]);
    let origin = stocked(Form::default(), &["lib/base:1", "lib/other:1"]);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mirrors = format!("mirrors = [\"{dead}\", \"{}\", \"https://{}/\"]", empty.host, full.host);
    let settings = Settings::toml(format!("debug = true\n[registry.\"{}\"]\n{mirrors}\n", origin.host));
    for user in BOTH {
        let before = (blob_reads(&origin.requests()), blob_reads(&full.requests()));
        let output = settings.pull(user, &format!("{}/lib/base:1", origin.host)).success();
        // One that cannot be reached is told once, and not waited for again.
        assert_eq!(
            output.count(&format!("the mirror {dead} is of no use for {}", origin.host)),
            1,
            "{}",
            output.stderr
        );
        assert_eq!(output.count(&format!("do request method=GET url=http://{dead}")), 1, "{}", output.stderr);
        assert!(blobs_served(&output).iter().all(|(host, _)| *host == full.host), "{}", output.stderr);
        // Who had the manifest is asked for the blobs first.
        assert_eq!(output.count(&format!("url=http://{}/v2/lib/base/blobs", empty.host)), 0, "{}", output.stderr);
        assert_eq!(blob_reads(&origin.requests()), before.0);
        assert!(blob_reads(&full.requests()) > before.1);
        let output = settings.pull(user, &format!("{}/lib/other:1", origin.host)).success();
        assert!(blobs_served(&output).iter().all(|(host, _)| *host == origin.host), "{}", output.stderr);
        assert!(blob_reads(&origin.requests()) > before.0);
        // What nobody has is the registry's to say.
        let missing = settings.pull(user, &format!("{}/lib/missing:1", origin.host)).failure(4);
        let _ = missing.says(&format!("{}/lib/missing:1: not found", origin.host));
    }
}

#[test]
fn a_mirror_has_settings_of_its_own() {
    let authority = Authority::new();
    let secure =
        Form { http: tls(&authority.server(), Some(&authority.certificate())), rest: LOGIN.into(), ..Form::default() };
    let mirror = Registry::configured(&Form { logs: true, ..secure });
    let client = authority.client();
    let section = format!(
        "[registry.\"{host}\"]\n  ca = [\"{}\"]\n  [[registry.\"{host}\".keypair]]\n    key = \"{}\"\n    cert = \"{}\"\n",
        authority.certificate().display(),
        client.key.display(),
        client.certificate.display(),
        host = mirror.host
    );
    let origin = stocked(Form::default(), &["lib/base:1"]);
    let mirrors = format!("debug = true\n[registry.\"{}\"]\n  mirrors = [\"{}\"]\n", origin.host, mirror.host);
    for user in BOTH {
        let settings = Settings::toml(format!("{mirrors}{section}")).login(&mirror.host);
        let _ = settings.push(user, &format!("{}/lib/base:1", mirror.host)).success();
        let output = settings.pull(user, &format!("{}/lib/base:1", origin.host)).success();
        assert!(blobs_served(&output).iter().all(|(host, _)| *host == mirror.host), "{}", output.stderr);
        let _ = output.silent_about("YnVpbGRlcjpzZWNyZXQ").says("authorization=[redacted]");
        // Without them the registry itself serves, and the user is told why.
        let output = Settings::toml(&mirrors).pull(user, &format!("{}/lib/base:1", origin.host)).success();
        assert!(blobs_served(&output).iter().all(|(host, _)| *host == origin.host), "{}", output.stderr);
        let _ = output.says(&format!("the mirror {} is of no use", mirror.host)).says("http = false");
    }
}

#[test]
fn a_file_may_call_docker_hub_by_its_other_names() {
    let mirror = stocked(Form::default(), &["library/base:1"]);
    for name in ["index.docker.io", "registry-1.docker.io"] {
        let settings = Settings::of(name, &format!("mirrors = [\"{}\"]", mirror.host));
        let _ = settings.pull(User::Rootless, "base:1").success();
    }
}
