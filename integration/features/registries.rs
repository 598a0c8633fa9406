//! Registries in all their forms: Debian's docker-registry with TLS, certificates, logins and token servers, as mirror and proxy. Each
//! is pulled from, pushed to and used as a cache by the program; left unconfigured, each has an error that says what to do.

mod addresses;
mod certificates;
mod forms;
mod guide;
mod limits;
mod lying;
mod mirrors;
mod proxied;
mod unconfigured;

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::caches::forget;
use super::text;
use crate::support::build::{Output, Project, User, busybox, run};
use crate::support::registry::{PASSWORD, Registry, USER};

/// A user's settings.
#[derive(Debug, Default, Clone)]
struct Settings {
    /// The text of `buildkitd.toml`.
    toml: String,
    /// The host that docker's configuration has an account for.
    login: Option<String>,
    /// Variables of the environment.
    variables: Vec<(&'static str, String)>,
}

impl Settings {
    fn toml(toml: impl Into<String>) -> Self {
        Self { toml: toml.into(), ..Self::default() }
    }

    fn login(mut self, host: &str) -> Self {
        self.login = Some(host.to_owned());
        self
    }

    /// A section of `buildkitd.toml` for a registry.
    fn of(host: &str, lines: &str) -> Self {
        Self::toml(format!("[registry.\"{host}\"]\n{lines}\n"))
    }

    /// Returns the command line of a build with these settings.
    fn command(&self, project: &Project, args: &[&str]) -> Command {
        let config = project.home().join("buildkitd.toml");
        fs::write(&config, &self.toml).unwrap();
        project.own(&config);
        let docker = project.home().join("docker");
        if let Some(host) = &self.login {
            fs::create_dir_all(&docker).unwrap();
            let account = STANDARD.encode(format!("{USER}:{PASSWORD}"));
            let file = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{account}\"}}}}}}");
            fs::write(docker.join("config.json"), file).unwrap();
            project.own(&docker);
        }
        let mut command = project.rbuild_command(&["--config", text(&config)]);
        command.args(args).arg(project.context()).env("DOCKER_CONFIG", docker);
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// Builds the context of a project.
    fn build(&self, project: &Project, args: &[&str]) -> Output {
        run(self.command(project, args))
    }

    /// Pushes an image of one file, made by no step.
    fn push(&self, user: User, name: &str) -> Output {
        let project = Project::with(user, "FROM scratch\nCOPY f /f\n");
        project.file("f", "of the base");
        self.build(&project, &["-t", name, "--push"])
    }

    /// Builds on an image, into nothing.
    fn pull(&self, user: User, name: &str) -> Output {
        self.build(&Project::with(user, &format!("FROM {name}\nCOPY Dockerfile /\n")), &["--output", "type=cacheonly"])
    }
}

/// Two steps on a base from a registry, and where their results go.
struct App {
    project: Project,
    host: String,
}

impl App {
    /// A project on `base`, whose image and cache go to `host`.
    fn on(user: User, base: &str, host: &str) -> Self {
        let lines = "COPY --from=host busybox /bin/busybox\nRUN [\"/bin/busybox\", \"cp\", \"/f\", \"/g\"]\n";
        Self { project: Project::with(user, &format!("FROM {base}\n{lines}")), host: host.to_owned() }
    }

    /// Pushes image and cache, and builds again from the cache alone.
    fn build_twice(&self, settings: &Settings) {
        let cache = format!("type=registry,ref={}/team/app:cache", self.host);
        let name = format!("{}/team/app:1", self.host);
        let to = format!("{cache},mode=max");
        let args = [&["-t", &name, "--push", "--cache-to", &to][..], &busybox()].concat();
        let first = settings.build(&self.project, &args).success();
        assert_eq!(first.count("CACHED"), 0, "{}", first.stderr);
        forget(&self.project);
        let out = self.project.home().join("out");
        let spec = format!("type=local,dest={}", out.display());
        let args = [&["-o", &spec, "--cache-from", &cache][..], &busybox()].concat();
        let second = settings.build(&self.project, &args).success();
        // The base is told as cached, too.
        assert_eq!(second.count("CACHED"), 3, "{}", second.stderr);
        assert_eq!(fs::read_to_string(out.join("g")).unwrap(), "of the base");
    }
}

/// Pushes a base, builds on it, pushes image and cache, and builds from the cache.
fn exercise(user: User, host: &str, settings: &Settings) {
    let base = format!("{host}/lib/base:1");
    let _ = settings.push(user, &base).success();
    App::on(user, &base, host).build_twice(settings);
}

/// The answers of the debug log that carry a blob, as host and the rest of the line.
fn blobs_served(output: &Output) -> Vec<(String, String)> {
    let answers = output.stderr.lines().filter(|line| line.contains("fetch response received status=200 OK"));
    let blobs = answers.filter(|line| line.contains("/blobs/sha256:"));
    let parts = blobs.map(|line| {
        let url = line.split("url=").nth(1).unwrap().split(' ').next().unwrap();
        let (host, path) = url.split_once("://").unwrap().1.split_once('/').unwrap();
        (host.to_owned(), path.to_owned())
    });
    parts.collect()
}

/// How many of a registry's requests so far are answered reads of blobs.
fn blob_reads(requests: &[String]) -> usize {
    requests
        .iter()
        .filter(|line| line.contains("\"GET ") && line.contains("/blobs/sha256:") && line.contains(" 200 "))
        .count()
}

/// Whether a registry keeps a repository.
fn holds(registry: &Registry, repository: &str) -> bool {
    registry.directory().join("data/docker/registry/v2/repositories").join(repository).join("_manifests/tags").exists()
}

/// Copies a file to where the project's user has it alone.
fn own_copy(project: &Project, file: &Path, to: &str) {
    let place = project.home().join(to);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(file, &place).unwrap();
    let top = to.split('/').next().unwrap();
    project.own(&project.home().join(top));
}
