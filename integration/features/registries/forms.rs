//! Each form of a registry, configured.

use super::{App, Settings, exercise, holds};
use crate::support::build::BOTH;
use crate::support::nginx::Nginx;
use crate::support::pki::{Authority, tls};
use crate::support::registry::{Form, LOGIN, Registry};
use crate::support::token_server::TokenServer;

#[test]
fn plain_http() {
    for user in BOTH {
        let registry = Registry::start();
        exercise(user, &registry.host, &Settings::of(&registry.host, "http = true"));
        // What is of this machine needs no words.
        exercise(user, &registry.host, &Settings::default());
    }
}

#[test]
fn tls_of_a_private_authority() {
    let authority = Authority::new();
    let form = Form { http: tls(&authority.server(), None), ..Form::default() };
    for user in BOTH {
        let registry = Registry::configured(&form);
        let ca = format!("ca = [\"{}\"]", authority.certificate().display());
        exercise(user, &registry.host, &Settings::of(&registry.host, &ca));
        exercise(user, &registry.host, &Settings::of(&registry.host, "insecure = true"));
    }
}

#[test]
fn tls_with_certificates_of_clients() {
    let authority = Authority::new();
    let form = Form { http: tls(&authority.server(), Some(&authority.certificate())), ..Form::default() };
    let client = authority.client();
    for user in BOTH {
        let registry = Registry::configured(&form);
        let (host, ca) = (&registry.host, authority.certificate());
        let (key, cert) = (client.key.display(), client.certificate.display());
        let lines = format!(
            "ca = [\"{}\"]\n[[registry.\"{host}\".keypair]]\n  key = \"{key}\"\n  cert = \"{cert}\"",
            ca.display()
        );
        exercise(user, host, &Settings::of(host, &lines));
    }
}

#[test]
fn a_login() {
    for user in BOTH {
        let registry = Registry::configured(&Form { rest: LOGIN.into(), ..Form::default() });
        exercise(user, &registry.host, &Settings::default().login(&registry.host));
    }
}

#[test]
fn a_token_server() {
    let authority = Authority::new();
    let tokens = TokenServer::start(&authority);
    let rest = tokens.registry_lines(&authority);
    for user in BOTH {
        let registry =
            Registry::configured(&Form { http: tls(&authority.server(), None), rest: rest.clone(), ..Form::default() });
        let (host, ca) = (&registry.host, authority.certificate());
        let lines = format!("ca = [\"{}\"]\ntrusted-realms = [\"{}\"]", ca.display(), tokens.host);
        exercise(user, host, &Settings::of(host, &lines).login(host));
    }
    let asked = tokens.asked();
    let push = "scope=repository%3Ateam%2Fapp%3Apull%2Cpush";
    assert!(asked.iter().any(|line| line.contains(push) && line.ends_with(" as builder")), "{asked:?}");
}

#[test]
fn a_proxy_of_another_registry() {
    for user in BOTH {
        let origin = Registry::start();
        let remote = format!("proxy:\n  remoteurl: http://{}\n", origin.host);
        let proxy = Registry::configured(&Form { rest: remote, logs: true, ..Form::default() });
        let settings = Settings::of(&origin.host, &format!("mirrors = [\"{}\"]", proxy.host));
        exercise(user, &origin.host, &settings);
        assert!(holds(&proxy, "lib/base"), "the proxy has what was pulled through it");
        assert!(
            proxy.requests().iter().all(|line| line.contains("\"GET ") || line.contains("\"HEAD ")),
            "nothing is pushed to it"
        );
        // It can be named itself, too.
        App::on(user, &format!("{}/lib/base:1", proxy.host), &origin.host).build_twice(&Settings::default());
    }
}

#[test]
fn mirrors_with_paths_behind_nginx() {
    for user in BOTH {
        let (first, second) = (Registry::start(), Registry::start());
        // As Harbor has its proxies: one host, and a path for each registry that is stood in for.
        let nginx = Nginx::start(&format!(
            "    location /v2/proxy.docker.io/ {{ proxy_pass http://{}/v2/; }}\n    location /v2/proxy.quay.io/ {{ proxy_pass http://{}/v2/; }}",
            first.host, second.host
        ));
        let direct = Settings::default();
        let _ = direct.push(user, &format!("{}/library/base:1", first.host)).success();
        let _ = direct.push(user, &format!("{}/lib/base:1", second.host)).success();
        let toml = format!(
            "[registry.\"docker.io\"]\n  mirrors = [\"{host}/proxy.docker.io\"]\n[registry.\"quay.io\"]\n  mirrors = [\"{host}/proxy.quay.io\"]\n",
            host = nginx.host
        );
        let settings = Settings::toml(toml);
        App::on(user, "base:1", &first.host).build_twice(&settings);
        App::on(user, "quay.io/lib/base:1", &second.host).build_twice(&settings);
        let requests = nginx.requests();
        for (path, registry) in [("proxy.docker.io/library/base", "docker.io"), ("proxy.quay.io/lib/base", "quay.io")] {
            let asked = format!("/v2/{path}/manifests/1?ns={registry} HTTP");
            assert!(
                requests.iter().any(|line| line.contains(&asked) && line.contains(" 200 ")),
                "{asked}: {requests:?}"
            );
        }
        assert!(
            requests.iter().any(|line| line.contains("/blobs/sha256:") && line.contains("?ns=docker.io")),
            "{requests:?}"
        );
    }
}
