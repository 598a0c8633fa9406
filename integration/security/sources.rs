//! G1 to G8: git repositories and web servers that are hostile.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rbuild::ops::Secrets;
use rbuild::registry::Proxies;
use rbuild::snapshot::{SnapshotKind, SnapshotOptions, Snapshots};
use rbuild::source::git::{GitError, GitLimits, GitSource, GitSpec, Log, Program};
use rbuild::source::http::{HttpError, HttpLimits, HttpSource, HttpSpec};

use super::{Scene, as_both};
use crate::support::fake_registry::{Answer, End, FakeRegistry};
use crate::support::git::{GitServer, Manner, Repository};

/// Runs rbuild with a remote context, bounded as every build of these tests is.
fn remote(scene: &Scene, context: &str, args: &[&str]) -> crate::support::build::Output {
    let out = format!("type=local,dest={}", scene.project.home().join("out").display());
    let output = scene.project.rbuild(&[&["--debug", "-o", out.as_str()], args, &[context]].concat());
    scene.canary.assert_untouched(&output.stderr);
    output
}

#[test]
fn g1_no_name_becomes_an_option_or_a_path() {
    let server = GitServer::start();
    let repository = server.repository("app");
    let commit = repository.commit(&[("f", "x")]);
    as_both(|user| {
        let scene = Scene::new(user);
        let url = server.url("app");
        let before = server.asked().len();
        for source in [
            format!("{url}#--upload-pack=$H/x"),
            format!("{url}?ref=--upload-pack=$H/x"),
            format!("{url}?branch=-x/../../y"),
            format!("{url}#../../x"),
            format!("{url}#refs/heads/--output=$H/x"),
            "ssh://git@-oProxyCommand=touch/x.git".into(),
            "http://127.0.0.1:1/a%0aprotocol=x.git".into(),
            "http://127.0.0.1:1/a%00.git".into(),
        ] {
            let output = scene.build(&format!("FROM scratch\nADD {source} /\n"), &[]).failure(3);
            assert!(
                output.stderr.contains("Dockerfile:2") && output.stderr.contains("invalid git"),
                "{}",
                output.stderr
            );
        }
        for context in ["ext::sh -c x", "file:///etc", "-oProxyCommand=x@h:p"] {
            let output = scene.project.rbuild(&["--", context]);
            assert_eq!(output.code, 2, "{context}: {}", output.stderr);
        }
        assert_eq!(server.asked().len(), before, "git did not run");
    });
    // A server that says its main branch has such a name.
    let git = repository.dir().join(".git");
    fs::write(git.join("refs/heads/--output=x"), format!("{commit}\n")).unwrap();
    fs::write(git.join("HEAD"), "ref: refs/heads/--output=x\n").unwrap();
    as_both(|user| {
        let output = Scene::new(user).build(&format!("FROM scratch\nADD {} /\n", server.url("app")), &[]);
        assert!(output.code != 0 && output.stderr.contains("invalid git ref"), "{}", output.stderr);
    });
}

#[test]
fn g2_a_subdirectory_is_reached_through_directories_only() {
    let server = GitServer::start();
    let repository = server.repository("app");
    repository.commit(&[("f", "x"), ("a/b/g", "x")]);
    symlink("/", repository.dir().join("l")).unwrap();
    symlink("..", repository.dir().join("a/l")).unwrap();
    repository.commit(&[]);
    as_both(|user| {
        let scene = Scene::new(user);
        for subdir in ["l", "l/etc", "a/l/b", "f", "a/b/g", "none"] {
            let file = format!("FROM scratch\nADD {}#:{subdir} /\n", server.url("app"));
            let _ = scene.build(&file, &[]).failure(4).says("is not a directory").says("Dockerfile:2");
            let query = format!("FROM scratch\nADD {}?subdir={subdir} /\n", server.url("app"));
            let _ = scene.build(&query, &[]).failure(4).says("is not a directory");
        }
        let up = scene.files(&format!("FROM scratch\nADD {}#:../../a/../a /\n", server.url("app")), &[]);
        assert!(up.join("b/g").exists());
        let _ = scene.build(&format!("FROM scratch\nADD {}?subdir=../../etc /\n", server.url("app")), &[]).failure(4);
    });
}

/// Commits what git itself would not: `.gitmodules` as text, and a commit as the submodule.
fn evil_submodule(repository: &Repository, modules: &str, path: &str) {
    let commit = repository.git(&["rev-parse", "HEAD"]);
    fs::write(repository.dir().join(".gitmodules"), modules).unwrap();
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    repository.git(&["add", ".gitmodules"]);
    repository.git(&["commit", "--quiet", "--message", "evil"]);
}

#[test]
fn g3_no_submodule_hook_or_filter_runs_or_writes_elsewhere() {
    let scene_of = |user, name: &str, prepare: &dyn Fn(&Repository, &Scene)| {
        let (server, scene) = (GitServer::start(), Scene::new(user));
        let repository = server.repository(name);
        repository.commit(&[("f", "x"), ("lib/x", "x")]);
        prepare(&repository, &scene);
        let file = format!("FROM scratch\nADD {} /\n", server.url(name));
        scene.build(&file, &[])
    };
    as_both(|user| {
        for (path, url, update) in [
            ("sub\\r\"", "../x.git", ""),
            ("sub", "ext::sh -c touch% $H/x", ""),
            ("sub", "file:///etc", ""),
            ("sub", "/etc", ""),
            ("sub", "-oProxyCommand=touch $H/x", ""),
            ("../sub", "../x.git", ""),
            (".git/modules", "../x.git", ""),
            ("sub", "../none.git", "!touch $H/x"),
        ] {
            let output = scene_of(user, "app", &|repository, scene| {
                let quote = if path.contains('\\') { "\"" } else { "" };
                let text = format!("[submodule \"s\"]\n\tpath = {quote}{path}\n\turl = {url}\n\tupdate = {update}\n");
                evil_submodule(repository, &text.replace("$H", scene.canary.path()), "sub");
            });
            assert_ne!(output.code, 0, "{path} {url} {update}: {}", output.stderr);
        }
        // A tree that names `.git`, which git refuses to receive.
        let output = scene_of(user, "dotgit", &|repository, scene| {
            fs::write(repository.dir().join("hook"), format!("#!/bin/sh\ntouch {}/x\n", scene.canary.path())).unwrap();
            let blob = repository.git(&["hash-object", "-w", "hook"]);
            let make = format!("printf '100755 blob {blob}\\tpost-checkout\\n' | git mktree");
            let hooks = sh(repository, &make);
            let dot = sh(repository, &format!("printf '040000 tree {hooks}\\thooks\\n' | git mktree"));
            let root = sh(repository, &format!("printf '040000 tree {dot}\\t.git\\n' | git mktree"));
            let commit = repository.git(&["commit-tree", "-m", "evil", &root]);
            repository.git(&["update-ref", "refs/heads/main", &commit]);
        });
        assert_ne!(output.code, 0, "{}", output.stderr);
        // Attributes name programs that nothing configures.
        let output = scene_of(user, "filters", &|repository, _| {
            repository.commit(&[(".gitattributes", "* filter=lfs diff=x merge=x\n"), ("f", "pointer")]);
        });
        assert_eq!(output.code, 0, "{}", output.stderr);
    });
}

fn sh(repository: &Repository, script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).current_dir(repository.dir()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn g4_a_token_goes_to_its_repository_and_no_other() {
    as_both(|user| {
        let other = GitServer::start();
        let theirs = other.repository("lib");
        let commit = theirs.commit(&[("l", "lib")]);
        let server = GitServer::start();
        let own = server.repository("lib");
        let own_commit = own.commit(&[("l", "lib")]);
        let repository = server.repository("app");
        repository.commit(&[("f", "x")]);
        repository.submodule("there", &other.url("lib"), &commit);
        repository.submodule("beside", "../lib.git", &own_commit);
        let scene = Scene::new(user);
        let secret = scene.project.home().join("token");
        fs::write(&secret, "sesame").unwrap();
        let spec = format!("id=GIT_AUTH_TOKEN,src={}", secret.display());
        let file = format!("FROM scratch\nADD {} /\n", server.url("app"));
        let _ = scene.build(&file, &["--secret", &spec]).success();
        assert!(other.asked().iter().all(|(_, header)| header.is_none()), "{:?}", other.asked());
        for (line, header) in server.asked() {
            assert_eq!(header.is_some(), line.contains("/app.git"), "{line}");
        }
    });
}

#[test]
fn g5_git_is_never_run_in_a_context() {
    as_both(|user| {
        let scene = Scene::new(user);
        let touch = format!("touch {}/x", scene.canary.path());
        let config = format!("[core]\n fsmonitor = {touch}\n sshCommand = {touch}\n[alias]\n status = !{touch}\n");
        for dir in [".git", "bare"] {
            scene.project.file(&format!("{dir}/config"), &config);
            scene.project.file(&format!("{dir}/HEAD"), "ref: refs/heads/main\n");
            scene.project.file(&format!("{dir}/objects/x"), "").file(&format!("{dir}/refs/x"), "");
        }
        let _ = scene.build("FROM scratch\nCOPY . /\n", &[]).success();
    });
}

#[test]
fn g6_a_branch_that_is_called_like_a_commit_is_not_that_commit() {
    let server = GitServer::start();
    let repository = server.repository("app");
    let commit = repository.commit(&[("f", "x")]);
    let name = "1".repeat(40);
    fs::write(repository.dir().join(".git/refs/heads").join(&name), format!("{commit}\n")).unwrap();
    as_both(|user| {
        let file = format!("FROM scratch\nADD {}#{name} /\n", server.url("app"));
        let _ = Scene::new(user).build(&file, &[]).failure(4).says("does not contain ref").says("Dockerfile:2");
    });
}

#[test]
fn g7_a_password_in_a_url_stays_there() {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode("user:sesame77");
    let server = GitServer::with(Manner { login: Some(format!("Basic {pair}")), ..Manner::default() });
    server.repository("app").commit(&[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    as_both(|user| {
        let scene = Scene::new(user);
        let url = server.url("app").replace("http://", "http://user:sesame77@");
        let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
        let built = remote(&scene, &url, &keep).success().silent_about("sesame77").silent_about(&pair);
        assert!(built.stderr.contains("load git source"), "{}", built.stderr);
        let _ = remote(&scene, &format!("{url}#none"), &[]).failure(4).silent_about("sesame77").silent_about(&pair);
        let _ = remote(&scene, &url.replace("sesame77", "sesame78"), &[]).failure(4).silent_about("sesame78");
        assert!(scene.project.home().join("out/.git/config").exists());
        for place in [scene.project.state(), scene.project.home().join("out")] {
            for secret in ["sesame7", &pair] {
                let found = Command::new("grep").args(["-rlaF", secret]).arg(&place).output().unwrap();
                assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
            }
        }
    });
}

/// Sources with limits of a test's own, in a state directory of its own.
fn sources(limits: GitLimits, size: u64, idle: Duration) -> (tempfile::TempDir, Arc<HttpSource>, GitSource) {
    let temp = tempfile::tempdir().unwrap();
    let options = SnapshotOptions { kind: SnapshotKind::Native, ..SnapshotOptions::default() };
    let snapshots = Snapshots::open(&temp.path().join("state"), options).unwrap();
    let limits_of_http = HttpLimits { size, idle, ..HttpLimits::default() };
    let secrets = Arc::new(Secrets::default());
    let http = HttpSource::open(Proxies::default(), limits_of_http, Arc::clone(&snapshots), secrets.clone());
    let http = Arc::new(http.unwrap());
    let path =
        ["/usr/local/bin/git", "/usr/bin/git"].map(std::path::PathBuf::from).into_iter().find(|path| path.exists());
    let program =
        Program { path, search_path: "/usr/local/bin:/usr/bin:/bin".into(), proxies: Proxies::default(), limits };
    let git = GitSource::open(program, snapshots, Arc::clone(&http), secrets, Default::default()).unwrap();
    (temp, http, git)
}

fn git_spec(url: &str) -> GitSpec {
    let attrs = [("git.fullurl".to_owned(), url.to_owned())].into_iter().collect();
    GitSpec::from_op(&rbuild::llb::SourceOp { identifier: "git://h/x".into(), attrs }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_what_a_git_server_sends_is_bounded() {
    let log: Log = Arc::new(|_| ());
    let server = GitServer::start();
    let noise: String =
        (0..400_000u64).map(|n| char::from(33 + (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as u8 % 90)).collect();
    server.repository("big").commit(&[("f", &noise)]);
    let small = GitLimits { file_size: 64 << 10, ..GitLimits::default() };
    let (_temp, _, git) = sources(small, 1 << 20, Duration::from_secs(10));
    let error = git.fetch(&git_spec(&server.url("big")), &log).await.expect_err("too large");
    assert!(matches!(error, GitError::Limit { .. }), "{error:?}");
    let stalling = FakeRegistry::start(|_| Answer::new(200, "001e").ends(End::Stall)).await;
    let quick = GitLimits { time: Duration::from_secs(1), ..GitLimits::default() };
    let (_temp, _, git) = sources(quick, 1 << 20, Duration::from_secs(10));
    let url = format!("http://{}/x.git", stalling.host);
    let error = git.resolve(&git_spec(&url), &log).await.expect_err("too slow");
    assert!(matches!(error, GitError::Limit { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_what_a_web_server_sends_is_bounded() {
    let endless = FakeRegistry::start(|_| Answer::new(200, vec![b'x'; 64 << 10]).ends(End::Never)).await;
    let stalling = FakeRegistry::start(|_| Answer::new(200, "x").ends(End::Stall)).await;
    let (temp, http, _) = sources(GitLimits::default(), 1 << 20, Duration::from_secs(1));
    let fetch =
        async |host: &str| http.fetch(&HttpSpec::new(&format!("http://{host}/f"), "f")).await.expect_err("bounded");
    let error = fetch(&endless.host).await;
    assert!(matches!(error, HttpError::TooLarge { limit: 1_048_576, .. }), "{error:?}");
    let error = fetch(&stalling.host).await;
    assert!(matches!(error, HttpError::TimedOut { .. }), "{error:?}");
    let layers = fs::read_dir(temp.path().join("state/snapshots")).unwrap().count();
    assert_eq!(layers, 0, "nothing of it is kept");
}
