//! What is left unconfigured, or configured wrongly: each has an error that names what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Settings, own_copy};
use crate::features::text;
use crate::support::build::{BOTH, Output, Project, User};
use crate::support::pki::{Authority, Kind, tls};
use crate::support::registry::{Form, LOGIN, Registry};
use crate::support::token_server::TokenServer;

/// Tries to build on an image, and asserts that the one error says `message` and the hints `hint`.
fn refused(user: User, host: &str, settings: &Settings, message: &str, hint: &str) -> Output {
    told(settings.pull(user, &format!("{host}/lib/base:1")), message, hint)
}

fn told(output: Output, message: &str, hint: &str) -> Output {
    let output = output.failure(4);
    let errors: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{}", output.stderr);
    assert!(errors[0].contains(message), "{message:?} is not in:\n{}", output.stderr);
    let hints: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("hint: ")).collect();
    assert!(hints.iter().any(|line| line.contains(hint)), "{hint:?} is not in:\n{}", output.stderr);
    output.silent_about("(os error").silent_about("PRIVATE KEY")
}

fn ca(authority: &Authority) -> String {
    format!("ca = [\"{}\"]\n", authority.certificate().display())
}

#[test]
fn http_and_tls_taken_for_each_other() {
    let authority = Authority::new();
    let (plain, secure) =
        (Registry::start(), Registry::configured(&Form { http: tls(&authority.server(), None), ..Form::default() }));
    for user in BOTH {
        let host = &plain.host;
        let hint = format!("set `http = true` under [registry.\"{host}\"]");
        let _ = refused(user, host, &Settings::of(host, "http = false"), "it does not speak TLS", &hint);
        let host = &secure.host;
        let hint = format!("set `http = false` under [registry.\"{host}\"]");
        // Hosts of this machine are spoken to without TLS unless something says otherwise.
        for settings in [Settings::default(), Settings::of(host, "http = true")] {
            let _ = refused(user, host, &settings, "it speaks TLS and was asked over plain HTTP", &hint);
        }
        let pushed = Settings::default().push(user, &format!("{host}/lib/base:1"));
        let _ = told(pushed, "it speaks TLS and was asked over plain HTTP", &hint);
    }
}

#[test]
fn certificates_that_do_not_hold() {
    let authority = Authority::new();
    let start = |names: &str, days: &str| {
        let pair = authority.issue(&format!("server{days}{}", names.len()), names, Kind::Ec, days);
        Registry::configured(&Form { http: tls(&pair, None), ..Form::default() })
    };
    let (good, old, other) =
        (start("IP:127.0.0.1", "2"), start("IP:127.0.0.1", "-1"), start("DNS:a.test,IP:127.0.0.9", "2"));
    let known = |host: &str| Settings::of(host, &ca(&authority));
    for user in BOTH {
        let host = &good.host;
        let unknown = "failed to reach registry ";
        let hint = format!(
            "`ca = [\"FILE\"]` under [registry.\"{host}\"] of buildkitd.toml, or save it as /etc/docker/certs.d/{host}/ca.crt"
        );
        let output = refused(user, host, &Settings::of(host, "http = false"), unknown, &hint);
        let _ = output.says("its certificate is of an authority that is not known here");
        let _ = refused(user, &old.host, &known(&old.host), "its certificate has expired", "renew the certificate");
        let message = "its certificate is for a.test, 127.0.0.9";
        let _ = refused(user, &other.host, &known(&other.host), message, "have the certificate made for 127.0.0.1 too");
    }
    // Where the authorities cannot be read, that is said first.
    let variables = vec![("SSL_CERT_FILE", text(&good.directory().join("gone")).to_owned())];
    let settings = Settings { variables, ..Settings::of(&good.host, "http = false") };
    let _ = refused(User::Root, &good.host, &settings, "not known here", "of this machine could not be read");
}

#[test]
fn a_client_certificate_that_is_wanted() {
    let authority = Authority::new();
    let form = Form { http: tls(&authority.server(), Some(&authority.certificate())), ..Form::default() };
    let registry = Registry::configured(&form);
    let (host, known) = (&registry.host, ca(&authority));
    let hint = format!("`[[registry.\"{host}\".keypair]]`");
    let other = Authority::named("another authority");
    let stranger = other.client();
    let pair = format!(
        "{known}[[registry.\"{host}\".keypair]]\n  key = \"{}\"\n  cert = \"{}\"",
        stranger.key.display(),
        stranger.certificate.display()
    );
    for user in BOTH {
        let _ = refused(user, host, &Settings::of(host, &known), "it wants a client certificate", &hint);
        let pushed = Settings::of(host, &known).push(user, &format!("{host}/lib/base:1"));
        let _ = told(pushed, "it wants a client certificate", &hint);
        let message = "it does not accept our client certificate";
        let _ = refused(user, host, &Settings::of(host, &pair), message, "is of an authority that");
    }
}

/// Writes a file beside the authority's.
fn file(authority: &Authority, name: &str, text: &str) -> std::path::PathBuf {
    let place = authority.dir().join(name);
    fs::write(&place, text).unwrap();
    place
}

/// Settings with a certificate of the client and any key.
fn keypair(authority: &Authority, host: &str, certificate: &std::path::Path, key: &std::path::Path) -> String {
    let (ca, key, certificate) = (ca(authority), key.display(), certificate.display());
    format!("{ca}[[registry.\"{host}\".keypair]]\n  key = \"{key}\"\n  cert = \"{certificate}\"")
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let registry = Registry::configured(&Form { http: tls(&authority.server(), None), ..Form::default() });
    let host = &registry.host;
    let (pair, other) = (authority.client(), authority.issue("other", "", Kind::Ec, "2"));
    let (empty, locked) = (
        file(&authority, "empty.pem", "nothing"),
        file(
            &authority,
            "locked.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ),
    );
    let keypair = |key: &std::path::Path| keypair(&authority, host, &pair.certificate, key);
    let nowhere = authority.dir().join("nowhere.pem");
    for user in BOTH {
        for (lines, message, hint) in [
            (
                format!("ca = [\"{}\"]", nowhere.display()),
                format!("{} cannot be used: No such file", nowhere.display()),
                "",
            ),
            (
                format!("ca = [\"{}\"]", empty.display()),
                format!("{} cannot be used: there is no certificate", empty.display()),
                "openssl x509 -inform der",
            ),
            (
                keypair(&other.key),
                format!("{} cannot be used: it is not the key of {}", other.key.display(), pair.certificate.display()),
                "name the key",
            ),
            (
                keypair(&locked),
                format!("{} cannot be used: the key is encrypted", locked.display()),
                "openssl pkey -in",
            ),
            (keypair(&empty), format!("{} cannot be used: there is no private key", empty.display()), ""),
        ] {
            let output = Settings::of(host, &lines).pull(user, &format!("{host}/lib/base:1")).failure(4).says(&message);
            let _ = output.says(&format!("a certificate for {host} is not to be had")).says(hint);
        }
    }
}

#[test]
fn keys_that_only_root_may_read() {
    let authority = Authority::new();
    let registry = Registry::configured(&Form { http: tls(&authority.server(), None), ..Form::default() });
    let (host, pair) = (&registry.host, authority.client());
    let secret = file(&authority, "secret.key", &fs::read_to_string(&pair.key).unwrap());
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let output = Settings::of(host, &keypair(&authority, host, &pair.certificate, &secret))
        .pull(User::Rootless, &format!("{host}/lib/base:1"))
        .failure(4);
    let _ = output.says(&format!("{} cannot be used: Permission denied", secret.display())).says("chmod a+r");
    // In a directory that nobody named it is passed over, for the registry may not want it.
    let _ = Settings::of(host, &ca(&authority)).push(User::Root, &format!("{host}/lib/base:1")).success();
    let project = Project::with(User::Rootless, &format!("FROM {host}/lib/base:1\nCOPY Dockerfile /\n"));
    let below = format!(".config/containers/certs.d/{host}");
    own_copy(&project, &authority.certificate(), &format!("{below}/ca.crt"));
    own_copy(&project, &pair.certificate, &format!("{below}/client.cert"));
    let place = project.home().join(&below).join("client.key");
    fs::copy(&secret, &place).unwrap();
    let output = Settings::default().build(&project, &["--output", "type=cacheonly"]).success();
    let _ = output.says(&format!("{} cannot be used: Permission denied; it is left out", place.display()));
    // A half of a pair is a mistake.
    fs::remove_file(project.home().join(&below).join("client.cert")).unwrap();
    let output = Settings::default().build(&project, &["--output", "type=cacheonly", "--no-cache"]).failure(4);
    let _ = output.says(&format!("{} cannot be used: its certificate", place.display()));
}

#[test]
fn a_login_that_is_missing_or_wrong() {
    let authority = Authority::new();
    let tokens = TokenServer::start(&authority);
    let with_tokens =
        Form { http: tls(&authority.server(), None), rest: tokens.registry_lines(&authority), ..Form::default() };
    let (basic, token) =
        (Registry::configured(&Form { rest: LOGIN.into(), ..Form::default() }), Registry::configured(&with_tokens));
    let trusted = format!("{}trusted-realms = [\"{}\"]", ca(&authority), tokens.host);
    for user in BOTH {
        for (host, settings) in [(&basic.host, Settings::default()), (&token.host, Settings::of(&token.host, &trusted))]
        {
            let hint = format!("log in with `docker login {host}`");
            let message = format!("{host} refused access to lib/base (401");
            let _ = refused(user, host, &settings, &message, &hint);
            let pushed = settings.push(user, &format!("{host}/lib/base:1")).failure(4);
            let _ = pushed.says("refused access to lib/base (401").says(&hint);
        }
        // An account is not shown to a token server that nobody vouched for.
        let settings = Settings::of(&token.host, &ca(&authority)).login(&token.host);
        let output = refused(user, &token.host, &settings, "refused access", "to trusted-realms of");
        let _ = output.silent_about("YnVpbGRlcjpzZWNyZXQ");
    }
}

#[test]
fn a_push_to_a_proxy_of_another_registry() {
    let origin = Registry::start();
    let rest = format!("proxy:\n  remoteurl: http://{}\n", origin.host);
    let proxy = Registry::configured(&Form { rest, ..Form::default() });
    for user in BOTH {
        let output = Settings::default().push(user, &format!("{}/lib/base:1", proxy.host)).failure(4);
        let output = output.says(&format!("failed to push {}/lib/base", proxy.host)).says("405");
        let _ = output.says(&format!("hint: if {} is a proxy of another registry, push to that one", proxy.host));
    }
}
