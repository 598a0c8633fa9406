//! Files of web servers: ADD, the main context, named contexts; from a server that counts.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::Mutex;

use super::{text, tool};
use crate::support::build::{BOTH, Output, Project, User, run};
use crate::support::fake_registry::{Answer, Asked, End, FakeRegistry};

/// A server of the test, and the runtime it lives in.
struct Web {
    server: FakeRegistry,
    _runtime: tokio::runtime::Runtime,
}

impl Web {
    fn start(behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(FakeRegistry::start(behaviour));
        Self { server, _runtime: runtime }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.server.host)
    }

    fn asked(&self) -> Vec<String> {
        self.server.lines()
    }
}

fn sha256(content: &str) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(content)))
}

fn build_remote(project: &Project, context: &str, args: &[&str]) -> Output {
    let spec = format!("type=local,dest={}", project.home().join("out").display());
    project.rbuild(&[&["-o", spec.as_str()], args, &[context]].concat())
}

const TIME: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

#[test]
fn a_file_has_the_urls_name_and_the_servers_time() {
    let web = Web::start(|_| {
        Answer::new(200, "content")
            .header("last-modified", TIME)
            .header("content-disposition", "attachment; filename=x")
    });
    for user in BOTH {
        let file = format!(
            "FROM scratch\nADD {} /\nADD --chmod=751 --chown=7:8 {} /dir/named\n",
            web.url("a%20b.txt?q"),
            web.url("c")
        );
        let project = Project::with(user, &file);
        assert_eq!(project.built(&[], "a b.txt"), "content");
        let stat = |path: &str| fs::metadata(project.home().join("out").join(path)).unwrap();
        assert_eq!((stat("a b.txt").mode() & 0o7777, stat("a b.txt").mtime()), (0o600, 1_000_000_000));
        let tar = project.home().join("out.tar");
        let _ = project.build(&["-o", &format!("type=tar,dest={}", tar.display())]).success();
        let listed = tool("tar", &["--numeric-owner", "-tvf", text(&tar)]);
        assert!(listed.contains("-rwxr-x--x 7/8"), "{listed}");
    }
}

#[test]
fn checksums_are_compared_and_spare_the_question() {
    let web = Web::start(|_| Answer::new(200, "content"));
    let (right, wrong) = (sha256("content"), sha256("other"));
    for user in BOTH {
        let project = Project::with(user, &format!("FROM scratch\nADD --checksum={right} {} /\n", web.url("f")));
        assert_eq!(project.built(&[], "f"), "content");
        let before = web.asked().len();
        let again = project.build(&["-o", text(&project.home().join("again"))]).success();
        assert_eq!(again.count("CACHED"), 2, "{}", again.stderr);
        assert_eq!(web.asked().len(), before, "nothing was asked");
        let project = Project::with(user, &format!("FROM scratch\n\nADD --checksum={wrong} {} /\n", web.url("f")));
        for _ in 0..2 {
            let failed = project.build(&[]).failure(4).says("Dockerfile:3").says("digest mismatch");
            let _ = failed.says(&right).says(&wrong);
        }
    }
}

#[test]
fn an_entity_tag_spares_the_transfer() {
    let current = std::sync::Arc::new(Mutex::new("one".to_owned()));
    let content = std::sync::Arc::clone(&current);
    let web = Web::start(move |_| {
        let content = content.lock().unwrap().clone();
        let tag = format!("W/\"{content}\"");
        Answer::new(200, content).header("etag", tag)
    });
    for user in BOTH {
        current.lock().unwrap().replace_range(.., "one");
        let project = Project::with(user, &format!("FROM scratch\nADD {} /\n", web.url("f")));
        let asked = |args: &[&str]| {
            let before = web.asked().len();
            let output = project.build(&[&["-o", text(&project.home().join("out"))], args].concat()).success();
            (web.asked()[before..].to_vec(), output)
        };
        assert_eq!(asked(&[]).0, ["GET /f"]);
        let (lines, output) = asked(&[]);
        assert_eq!(lines, ["HEAD /f"]);
        assert_eq!(output.count("CACHED"), 2, "{}", output.stderr);
        // Without the cache the file that is here still is the server's.
        assert_eq!(asked(&["--no-cache"]).0, ["HEAD /f"]);
        current.lock().unwrap().replace_range(.., "two");
        assert_eq!(asked(&[]).0, ["HEAD /f", "GET /f"]);
        assert_eq!(fs::read_to_string(project.home().join("out/f")).unwrap(), "two");
        // Notes that are damaged are as good as none.
        for note in tool("find", &[text(&project.state().join("http")), "-type", "f"]).lines() {
            fs::write(note, "[{").unwrap();
        }
        assert_eq!(asked(&[]).0, ["GET /f"]);
    }
}

#[test]
fn a_file_that_is_not_there_is_named_with_its_line() {
    let web = Web::start(|_| Answer::new(404, "no"));
    for user in BOTH {
        let project = Project::with(user, &format!("FROM scratch\n# remote\nADD {} /\n", web.url("none?key=hidden")));
        let failed = project.build(&[]).failure(4).says("Dockerfile:3").says("404").says(&web.server.host);
        assert!(
            !failed.stderr.lines().any(|line| line.starts_with("error") && line.contains("hidden")),
            "{}",
            failed.stderr
        );
        let dead = Project::with(user, "FROM scratch\nADD http://127.0.0.1:1/f /\n");
        let _ = dead.build(&[]).failure(4).says("Dockerfile:2").says("127.0.0.1:1");
    }
    let cut = Web::start(|_| Answer::new(200, "half").header("content-length", "8").ends(End::Cut));
    let project = Project::with(User::Rootless, &format!("FROM scratch\nADD {} /\n", cut.url("f")));
    let _ = project.build(&[]).failure(4).says("Dockerfile:2");
    assert!(!project.home().join("out").exists());
}

#[test]
fn secrets_go_to_their_host_and_along_no_redirect() {
    let token = "sesame-1c5a";
    let other = Web::start(|_| Answer::new(200, "moved"));
    let target = other.url("f");
    let web = Web::start(move |asked| match (asked.line.as_str(), asked.authorization.as_deref()) {
        ("GET /away", _) => Answer::redirect(target.clone()),
        ("GET /here", _) => Answer::redirect("/f"),
        (_, Some("Bearer sesame-1c5a" | "own")) => Answer::new(200, "content"),
        _ => Answer::new(401, ""),
    });
    for user in BOTH {
        let project = Project::with(user, &format!("FROM scratch\nADD {} /\n", web.url("f")));
        let _ = project.build(&[]).failure(4).says("HTTP_AUTH_TOKEN_127.0.0.1").says("Dockerfile:2");
        let build = |path: &str, spec: &str| {
            project.file("Dockerfile", format!("FROM scratch\nADD {} /f\n", web.url(path)));
            let (out, context) = (project.home().join("out"), project.context());
            let mut command = project.rbuild_command(&["--debug", "--secret", spec, "-o", text(&out), text(&context)]);
            command.env("TOKEN", token).env("OWN", "own\n");
            let _ = run(command).success().silent_about(token);
            fs::read_to_string(out.join("f")).unwrap()
        };
        assert_eq!(build("f", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN"), "content");
        assert_eq!(build("f?2", "id=HTTP_AUTH_HEADER_127.0.0.1,env=OWN"), "content");
        assert_eq!(build("here", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN"), "content");
        assert_eq!(build("away", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN"), "moved");
        assert!(!other.server.saw_credentials());
        let kept = Command::new("grep").args(["-rlaF", token, text(&project.state())]).output().unwrap();
        assert!(kept.stdout.is_empty(), "{}", String::from_utf8_lossy(&kept.stdout));
    }
}

#[test]
fn redirects_have_an_end_and_lead_to_no_metadata() {
    let web = Web::start(|asked| match asked.line.as_str() {
        "GET /metadata" => Answer::redirect("http://169.254.169.254/latest"),
        "GET /mapped" => Answer::redirect("http://[::ffff:a9fe:a9fe]/latest"),
        "GET /file" => Answer::redirect("file:///etc/passwd"),
        "GET /nowhere" => Answer::new(302, ""),
        _ => Answer::redirect("/again"),
    });
    let project = Project::new(User::Rootless);
    for path in ["metadata", "mapped", "file", "nowhere", "loop"] {
        project.file("Dockerfile", format!("FROM scratch\nADD {} /\n", web.url(path)));
        let _ = project.build(&[]).failure(4).says("refused a redirect").says("Dockerfile:2");
    }
}

#[test]
fn an_archive_of_a_url_is_the_main_context() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    fs::write(dir.path().join("f"), "one").unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/Other"), "FROM scratch\nCOPY f /other\n").unwrap();
    let archive = |args: &[&str]| {
        Command::new("tar").args(args).arg("-C").arg(dir.path()).args(["-f", "-", "."]).output().unwrap().stdout
    };
    let (tar, gzip) = (archive(&["-c"]), archive(&["-cz"]));
    let web = Web::start(move |asked| match asked.line.split(' ').nth(1) {
        Some("/ctx.tar") => Answer::new(200, tar.clone()).header("etag", "\"t\""),
        Some("/ctx.tar.gz") => Answer::new(200, gzip.clone()),
        Some("/Dockerfile") => Answer::new(200, "FROM scratch\nCOPY context /self\n"),
        _ => Answer::new(404, ""),
    });
    for user in BOTH {
        let project = Project::new(user);
        let out = project.home().join("out");
        for name in ["ctx.tar", "ctx.tar.gz"] {
            let _ = build_remote(&project, &web.url(name), &[]).success().says("load remote build context");
            assert_eq!(fs::read_to_string(out.join("f")).unwrap(), "one");
        }
        let again = build_remote(&project, &web.url("ctx.tar"), &[]).success();
        assert!(again.count("CACHED") >= 2, "{}", again.stderr);
        let _ = build_remote(&project, &web.url("ctx.tar"), &["-f", "sub/Other"]).success();
        assert_eq!(fs::read_to_string(out.join("other")).unwrap(), "one");
        // One file that is no archive is the Dockerfile.
        let _ = build_remote(&project, &web.url("Dockerfile"), &[]).success();
        assert!(fs::read_to_string(out.join("self")).unwrap().contains("COPY context"));
        let _ = build_remote(&project, &web.url("none"), &[]).failure(4).says("404");
        let named = Project::with(user, "FROM scratch\nCOPY --from=lib /context /lib\n");
        let lib = format!("lib={}", web.url("Dockerfile"));
        assert!(named.built(&["--build-context", &lib], "lib").contains("scratch"));
    }
}

#[test]
fn archives_are_unpacked_where_asked() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "inside").unwrap();
    let tar = Command::new("tar").arg("-cz").arg("-C").arg(dir.path()).args(["-f", "-", "f"]).output().unwrap().stdout;
    let web = Web::start(move |_| Answer::new(200, tar.clone()));
    for user in BOTH {
        let file = format!("FROM scratch\nADD {0} /kept/\nADD --unpack=true {0} /open/\n", web.url("a.tgz"));
        let project = Project::with(user, &file);
        assert_eq!(project.built(&[], "open/f"), "inside");
        assert!(project.home().join("out/kept/a.tgz").exists() && !project.home().join("out/open/a.tgz").exists());
    }
}

#[test]
fn one_url_is_asked_for_once_a_build() {
    let web = Web::start(|_| Answer::new(200, "x"));
    let url = web.url("f");
    let file =
        format!("FROM scratch AS a\nADD {url} /a\nFROM scratch\nADD {url} /b\nADD {url} /c\nCOPY --from=a /a /\n");
    let project = Project::with(User::Rootless, &file);
    let _ = project.files(&["--platform=linux/amd64"]);
    assert_eq!(web.asked(), ["GET /f"]);
}
