//! Where certificates may lie.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Settings, exercise, own_copy};
use crate::features::text;
use crate::support::build::{BOTH, Project, User, run};
use crate::support::pki::{Authority, Pair, tls};
use crate::support::registry::{Form, Registry};

/// A registry with TLS and the clients of its authority alone.
fn strict(authority: &Authority) -> Registry {
    let http = tls(&authority.server(), Some(&authority.certificate()));
    Registry::configured(&Form { http, ..Form::default() })
}

/// Lays out a directory as `/etc/docker/certs.d/HOST` has it.
fn lay_out(project: &Project, below: &str, authority: &Authority, pair: &Pair) {
    for (file, name) in
        [(&authority.certificate(), "ca.crt"), (&pair.certificate, "client.cert"), (&pair.key, "client.key")]
    {
        own_copy(project, file, &format!("{below}/{name}"));
    }
}

/// Builds on an image that the registry has, as the user of `project`.
fn pull(project: &Project, settings: &Settings, host: &str) -> crate::support::build::Output {
    project.file("Dockerfile", format!("FROM {host}/lib/base:1\nCOPY Dockerfile /\n"));
    settings.build(project, &["--output", "type=cacheonly"])
}

/// A registry that has an image, and what it takes to get at it.
fn stocked() -> (Authority, Registry, Pair) {
    let authority = Authority::new();
    let (registry, pair) = (strict(&authority), authority.client());
    let host = &registry.host;
    let _ = configured(&authority, &pair, host).push(User::Root, &format!("{host}/lib/base:1")).success();
    (authority, registry, pair)
}

fn configured(authority: &Authority, pair: &Pair, host: &str) -> Settings {
    let lines = format!(
        "ca = [\"{}\"]\n[[registry.\"{host}\".keypair]]\n  key = \"{}\"\n  cert = \"{}\"",
        authority.certificate().display(),
        pair.key.display(),
        pair.certificate.display()
    );
    Settings::of(host, &lines)
}

#[test]
fn directories_of_the_user_are_those_of_podman_and_docker() {
    let (authority, registry, pair) = stocked();
    for (user, below) in [(User::Root, "containers"), (User::Rootless, "containers"), (User::Rootless, "docker")] {
        let project = Project::new(user);
        lay_out(&project, &format!(".config/{below}/certs.d/{}", registry.host), &authority, &pair);
        let _ = pull(&project, &Settings::default(), &registry.host).success();
        // Another registry's are another's.
        let project = Project::new(user);
        lay_out(&project, &format!(".config/{below}/certs.d/other:5000"), &authority, &pair);
        let _ = pull(&project, &Settings::default(), &registry.host).failure(4);
    }
    let project = Project::new(User::Rootless);
    lay_out(&project, &format!("config/containers/certs.d/{}", registry.host), &authority, &pair);
    let elsewhere = [("XDG_CONFIG_HOME", text(&project.home().join("config")).to_owned())];
    let _ = pull(&project, &Settings { variables: elsewhere.into(), ..Settings::default() }, &registry.host).success();
}

#[test]
fn directories_of_the_machine_are_read() {
    let (authority, registry, pair) = stocked();
    for below in ["/etc/docker", "/etc/containers"] {
        let project = Project::new(User::Root);
        lay_out(&project, &format!("etc/certs.d/{}", registry.host), &authority, &pair);
        project.file("Dockerfile", format!("FROM {}/lib/base:1\nCOPY Dockerfile /\n", registry.host));
        let build = Settings::default().command(&project, &["--output", "type=cacheonly"]);
        // In a namespace of its own, so that the machine's own directory is as it was.
        let mut command = Command::new("unshare");
        let script = "mkdir -p $0 && mount --bind $1 $0 && shift && exec \"$@\"";
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, below]);
        command.arg(project.home().join("etc")).arg(build.get_program()).args(build.get_args());
        command.env_clear().envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let _ = run(command).success();
    }
}

#[test]
fn authorities_may_be_files_a_directory_or_the_systems() {
    let authority = Authority::new();
    let form = Form { http: tls(&authority.server(), None), ..Form::default() };
    for user in BOTH {
        let registry = Registry::configured(&form);
        let host = &registry.host;
        let home = Project::new(user);
        own_copy(&home, &authority.certificate(), "authorities/own.crt");
        let directory = home.home().join("authorities");
        exercise(user, host, &Settings::of(host, &format!("ca = [\"{}\"]", directory.display())));
        exercise(user, host, &Settings::of(host, &format!("tlsconfigdir = [\"{}\"]", directory.display())));
        let name = format!("{host}/lib/base:1");
        let tls = || Settings::of(host, "http = false");
        let file = vec![("SSL_CERT_FILE", text(&directory.join("own.crt")).to_owned())];
        let _ = Settings { variables: file, ..tls() }.pull(user, &name).success();
        // OpenSSL's directories have links named by hashes; any certificate in them counts.
        fs::rename(directory.join("own.crt"), directory.join("0a1b2c3d.0")).unwrap();
        let dir = vec![("SSL_CERT_DIR", text(&directory).to_owned())];
        let _ = Settings { variables: dir, ..tls() }.pull(user, &name).success();
    }
}

#[test]
fn where_there_are_no_authorities_mozillas_count_besides_the_registrys_own() {
    let authority = Authority::new();
    let registry = Registry::configured(&Form { http: tls(&authority.server(), None), ..Form::default() });
    let host = &registry.host;
    for user in BOTH {
        let project = Project::with(user, &format!("FROM {host}/lib/base:1\nCOPY Dockerfile /\n"));
        let none = project.home().join("none");
        fs::create_dir(&none).unwrap();
        let settings = |lines: &str| Settings {
            variables: vec![("SSL_CERT_DIR", text(&none).to_owned())],
            ..Settings::toml(format!("debug = true\n[registry.\"{host}\"]\n{lines}\n"))
        };
        let bundled = "those of Mozilla that came with rbuild count";
        let refused = settings("http = false").build(&project, &["--output", "type=cacheonly"]).failure(4);
        let _ = refused.says(bundled).says("ca = [\"FILE\"]").silent_about("could not be read");
        let known = settings(&format!("ca = [\"{}\"]", authority.certificate().display()));
        let _ = known.push(user, &format!("{host}/lib/base:1")).success().says(bundled);
        // What is named and not there is not made up for.
        let gone = vec![("SSL_CERT_FILE", text(&none.join("gone.pem")).to_owned())];
        let refused = Settings { variables: gone, ..settings("http = false") };
        let refused = refused.build(&project, &["--output", "type=cacheonly"]).failure(4);
        let _ = refused.silent_about(bundled).says("could not be read").says("ca = [\"FILE\"]");
    }
}

#[test]
fn the_servers_own_certificate_may_be_its_authority() {
    // `openssl req -x509`, as the guides have it, makes one that is both.
    let authority = Authority::new();
    for (names, works) in [("IP:127.0.0.1", true), ("DNS:other.test", false)] {
        let own = authority.self_signed(names);
        let registry = Registry::configured(&Form { http: tls(&own, None), ..Form::default() });
        let ca = |file: &Path| Settings::of(&registry.host, &format!("ca = [\"{}\"]", file.display()));
        let name = format!("{}/lib/base:1", registry.host);
        let pushed = ca(&own.certificate).push(User::Rootless, &name);
        match works {
            true => drop(pushed.success()),
            false => drop(pushed.failure(4).says("its certificate is for other.test")),
        }
        let other = Settings::of(&registry.host, "http = false").push(User::Rootless, &name).failure(4);
        let _ = other.says("hint: ").says("that certificate itself");
    }
}

#[test]
fn the_certificate_is_taken_that_the_registry_asks_for() {
    let (authority, registry, pair) = stocked();
    let stranger = Authority::named("another authority");
    let other = stranger.client();
    let host = &registry.host;
    let pairs = [&other, &pair].map(|pair| {
        format!(
            "[[registry.\"{host}\".keypair]]\n  key = \"{}\"\n  cert = \"{}\"\n",
            pair.key.display(),
            pair.certificate.display()
        )
    });
    let lines = format!("ca = [\"{}\"]\n{}", authority.certificate().display(), pairs.concat());
    let _ = Settings::of(host, &lines).pull(User::Rootless, &format!("{host}/lib/base:1")).success();
}
