//! Git repositories: ADD, the main context, named contexts; from a real server.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use super::{text, tool};
use crate::support::build::{BOTH, Output, Project, User, run};
use crate::support::git::{GitServer, Manner};
use crate::support::image::{Image, tools};

/// Builds a remote context into a directory.
fn build_remote(project: &Project, context: &str, args: &[&str]) -> Output {
    let out = project.home().join("out");
    let spec = format!("type=local,dest={}", out.display());
    let _ = fs::remove_dir_all(&out);
    project.rbuild(&[&["-o", spec.as_str()], args, &[context]].concat())
}

fn read(project: &Project, path: &str) -> String {
    let place = project.home().join("out").join(path);
    fs::read_to_string(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()))
}

#[test]
fn every_form_of_a_reference_finds_its_commit() {
    let server = GitServer::start();
    let repository = server.repository("app");
    let first = repository.commit(&[("f", "one"), ("dir/deep/g", "one")]);
    repository.git(&["tag", "light"]);
    repository.git(&["tag", "--annotate", "heavy", "--message", "x"]);
    repository.commit(&[("f", "two"), ("dir/deep/g", "two")]);
    repository.git(&["checkout", "--quiet", "-b", "side/branch"]);
    let side = repository.commit(&[("f", "side"), ("dir/deep/g", "side")]);
    repository.git(&["update-ref", "refs/pull/7/head", &first]);
    repository.git(&["checkout", "--quiet", "main"]);
    let heavy = repository.git(&["rev-parse", "heavy"]);
    let url = server.url("app");
    let cases = [
        (String::new(), "two"),
        ("#main".into(), "two"),
        ("#light".into(), "one"),
        ("#heavy".into(), "one"),
        ("#refs/tags/heavy".into(), "one"),
        ("#side/branch".into(), "side"),
        ("#refs/heads/side/branch".into(), "side"),
        ("#pull/7/head".into(), "one"),
        (format!("#{first}"), "one"),
        (format!("#{heavy}"), "one"),
        ("?ref=light".into(), "one"),
        ("?tag=heavy".into(), "one"),
        ("?branch=side/branch".into(), "side"),
        (format!("?commit={side}&branch=side/branch"), "side"),
        (format!("?checksum={}&tag=heavy", &first[..8]), "one"),
        (format!("?checksum={}&tag=heavy", &heavy[..8]), "one"),
        (format!("?fetch-by-commit=true&checksum={side}"), "side"),
        (format!("?fetch-by-commit=true&checksum={first}&ref=main"), "one"),
    ];
    let adds: String = cases.iter().enumerate().map(|(at, (form, _))| format!("ADD {url}{form} /{at}\n")).collect();
    let subdirs = [("#main:dir", "deep/g"), ("#:dir/deep", "g"), ("?subdir=dir&ref=main", "deep/g")];
    let more: String = subdirs.iter().enumerate().map(|(at, (form, _))| format!("ADD {url}{form} /s{at}\n")).collect();
    for user in BOTH {
        let project = Project::with(user, &format!("FROM scratch\n{adds}{more}"));
        let out = project.files(&[]);
        for (at, (form, content)) in cases.iter().enumerate() {
            assert_eq!(fs::read_to_string(out.join(at.to_string()).join("f")).unwrap(), *content, "{form}");
            assert!(!out.join(at.to_string()).join(".git").exists(), "{form}");
        }
        for (at, (form, path)) in subdirs.iter().enumerate() {
            assert_eq!(fs::read_to_string(out.join(format!("s{at}")).join(path)).unwrap(), "two", "{form}");
            assert!(!out.join(format!("s{at}/f")).exists(), "{form}");
        }
    }
}

#[test]
fn a_second_build_is_cached_and_a_moved_branch_is_seen() {
    let server = GitServer::start();
    let repository = server.repository("app");
    repository.commit(&[("f", "one")]);
    for user in BOTH {
        let project = Project::with(user, &format!("FROM scratch\nADD {} /\n", server.url("app")));
        let content = repository.git(&["show", "HEAD:f"]);
        assert_eq!(project.built(&[], "f"), content);
        let before = server.asked().len();
        let again = project.build(&["-o", text(&project.home().join("again"))]).success();
        assert_eq!(again.count("CACHED"), 2, "{}", again.stderr);
        assert!(server.asked()[before..].iter().all(|(line, _)| !line.contains("git-receive")), "only asked for refs");
        repository.commit(&[("f", &format!("{content}+"))]);
        assert_eq!(project.built(&[], "f"), format!("{content}+"));
        // A branch that was rewritten, and one whose name is now a directory.
        repository.git(&["commit", "--quiet", "--amend", "--message", "other"]);
        let _ = project.build(&[]).success();
    }
}

#[test]
fn checksums_pin_a_commit() {
    let server = GitServer::start();
    let repository = server.repository("app");
    let commit = repository.commit(&[("f", "one")]);
    let url = server.url("app");
    for user in BOTH {
        let right = Project::with(user, &format!("FROM scratch\nADD --checksum={commit} {url}#main /\n"));
        assert_eq!(right.built(&[], "f"), "one");
        let other = "0".repeat(40);
        for source in [format!("--checksum={other} {url}#main"), format!("{url}?checksum={other}&branch=main")] {
            let wrong = Project::with(user, &format!("FROM scratch\n\nADD {source} /\n"));
            let failed = wrong.build(&[]).failure(4).says("Dockerfile:3").says(&other).says(&commit);
            let _ = failed.says("expected checksum to match");
        }
        let none = Project::with(user, &format!("FROM scratch\nADD {url}#{} /\n", &commit[..8]));
        let _ = none.build(&[]).failure(4).says("does not contain ref").says("checksum=").says("Dockerfile:2");
        let absent = Project::with(user, &format!("FROM scratch\nADD {url}#{other} /\n"));
        let _ = absent.build(&[]).failure(4).says("Dockerfile:2").says(&other);
        let missing = Project::with(user, &format!("FROM scratch\nADD {} /\n", server.url("none")));
        let _ = missing.build(&[]).failure(4).says("Dockerfile:2").says("not found");
    }
}

#[test]
fn the_git_directory_is_kept_where_asked() {
    let server = GitServer::start();
    let repository = server.repository("app");
    let commit = repository.commit(&[("f", "one"), ("dir/g", "g")]);
    repository.git(&["tag", "--annotate", "v1", "--message", "x"]);
    let url = server.url("app");
    for user in BOTH {
        let file = format!(
            "FROM scratch\nADD --keep-git-dir=true {url}#v1 /tag\nADD {url}?keep-git-dir=1 /branch\n\
             ADD --keep-git-dir {url}#{commit} /commit\nADD --keep-git-dir=true {url}#:dir /sub\n"
        );
        let project = Project::with(user, &file);
        let out = project.files(&[]);
        let git = |dir: &str, args: &[&str]| {
            let dir = out.join(dir);
            tool("git", &[&["-c", "safe.directory=*", "-C", text(&dir)], args].concat()).trim().to_owned()
        };
        for dir in ["tag", "branch", "commit"] {
            assert_eq!(git(dir, &["rev-parse", "HEAD"]), commit, "{dir}");
            assert_eq!(git(dir, &["config", "remote.origin.url"]), url, "{dir}");
            assert_eq!(git(dir, &["status", "--porcelain"]), "", "{dir}");
            assert_eq!(git(dir, &["fsck"]), "", "{dir}");
        }
        assert_eq!(git("tag", &["describe", "--exact-match"]), "v1");
        assert_eq!(git("branch", &["rev-parse", "refs/heads/main"]), commit);
        assert!(!out.join("sub/.git").exists() && out.join("sub/g").exists());
        let state = project.state();
        let leaks = Command::new("grep").args(["-rl", text(&state), text(&out)]).output().unwrap();
        assert!(leaks.stdout.is_empty(), "{}", String::from_utf8_lossy(&leaks.stdout));
    }
}

#[test]
fn submodules_come_along_unless_they_are_not_wanted() {
    let server = GitServer::start();
    let inner = server.repository("inner");
    let inner_commit = inner.commit(&[("i", "inner")]);
    let middle = server.repository("middle");
    middle.commit(&[("m", "middle")]);
    middle.submodule("deep/inner", "../inner.git", &inner_commit);
    let middle_commit = middle.git(&["rev-parse", "HEAD"]);
    // What a commit says counts, not what its branch says now.
    middle.commit(&[("m", "newer")]);
    let outer = server.repository("outer");
    outer.commit(&[("dir/o", "outer")]);
    outer.submodule("dir/lib", &server.url("middle"), &middle_commit);
    let url = server.url("outer");
    for user in BOTH {
        let file = format!(
            "FROM scratch\nADD {url} /all\nADD {url}?submodules=false /none\nADD {url}#:dir/lib /part\n\
             ADD --keep-git-dir=true {url} /kept\n"
        );
        let project = Project::with(user, &file);
        let out = project.files(&[]);
        let content = |path: &str| fs::read_to_string(out.join(path)).unwrap_or_else(|error| format!("{error}"));
        assert_eq!((content("all/dir/lib/m"), content("all/dir/lib/deep/inner/i")), ("middle".into(), "inner".into()));
        assert_eq!((content("part/m"), content("part/deep/inner/i")), ("middle".into(), "inner".into()));
        assert_eq!(fs::read_dir(out.join("none/dir/lib")).unwrap().count(), 0);
        assert!(!out.join("all/dir/lib/.git").exists());
        let inside = out.join("kept/dir/lib");
        let head = tool("git", &["-c", "safe.directory=*", "-C", text(&inside), "rev-parse", "HEAD"]);
        assert_eq!(head.trim(), middle_commit);
        let status =
            ["-c", "safe.directory=*", "-C", text(&out.join("kept")), "status", "--porcelain"].map(str::to_owned);
        assert_eq!(tool("git", &status.each_ref().map(String::as_str)), "");
    }
    let broken = server.repository("broken");
    broken.commit(&[("f", "x")]);
    broken.submodule("lib", "../none.git", &middle_commit);
    let project = Project::with(User::Rootless, &format!("FROM scratch\nADD {} /\n", server.url("broken")));
    let _ = project.build(&[]).failure(4).says("submodule \"lib\"").says("submodules=false").says("Dockerfile:2");
}

#[test]
fn owners_modes_and_times_are_those_of_a_checkout() {
    let server = GitServer::start();
    let repository = server.repository("app");
    repository.commit(&[("f", "x"), ("run", "#!"), ("d/g", "")]);
    fs::set_permissions(repository.dir().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("f", repository.dir().join("link")).unwrap();
    for user in BOTH {
        let project = Project::new(user);
        repository.commit(&[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
        let _ = build_remote(&project, &format!("{}?mtime=commit", server.url("app")), &[]).success();
        let stat = |path: &str| fs::symlink_metadata(project.home().join("out").join(path)).unwrap();
        assert_eq!(
            (stat("f").mode() & 0o7777, stat("run").mode() & 0o7777, stat("d").mode() & 0o7777),
            (0o644, 0o755, 0o755)
        );
        assert!(stat("link").file_type().is_symlink());
        for path in ["f", "run", "d/g", "d", "link"] {
            assert_eq!(stat(path).mtime(), 1_000_000_000, "{path}");
        }
    }
}

#[test]
fn a_repository_is_the_main_context() {
    let server = GitServer::start();
    let repository = server.repository("app");
    repository.commit(&[
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        ("other/Dockerfile.b", "FROM scratch\nCOPY f /only\n"),
        ("sub/Dockerfile", "FROM scratch\nCOPY . /\n"),
        ("sub/s", "sub"),
        ("f", "one"),
        (".dockerignore", "f\n"),
    ]);
    let url = server.url("app");
    for user in BOTH {
        let project = Project::new(user);
        let _ = build_remote(&project, &url, &[]).success().says("[internal] load git source http://");
        // As with BuildKit, what is ignored is a matter of local contexts.
        assert_eq!(read(&project, "f"), "one");
        assert!(!project.home().join("out/.git").exists());
        let again = build_remote(&project, &url, &[]).success();
        assert!(again.count("CACHED") >= 2, "{}", again.stderr);
        let _ = build_remote(&project, &url, &["-f", "other/Dockerfile.b"]).success();
        assert_eq!(read(&project, "only"), "one");
        let _ = build_remote(&project, &format!("{url}#main:sub"), &[]).success();
        assert_eq!(read(&project, "s"), "sub");
        let own = project.home().join("Own");
        fs::write(&own, "FROM scratch\nCOPY f /own\n").unwrap();
        let _ = build_remote(&project, &url, &["-f", text(&own)]).success();
        assert_eq!(read(&project, "own"), "one");
        let kept = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
        let _ = build_remote(&project, &url, &kept).success();
        assert!(project.home().join("out/.git/HEAD").exists());
        let _ = build_remote(&project, &format!("{url}#:none"), &[]).failure(4).says("\"none\" is not a directory");
        let _ = build_remote(&project, &format!("{url}#nowhere"), &[]).failure(4).says("does not contain ref nowhere");
        let _ = build_remote(&project, &format!("{url}?bad=1"), &[]).failure(2).says("unexpected query");
        let _ = build_remote(&project, &format!("{url}#main"), &["-f", "None"]).failure(3).says("None");
    }
}

#[test]
fn a_context_gives_the_time_of_its_commit() {
    let server = GitServer::start();
    let repository = server.repository("app");
    repository.commit(&[("Dockerfile", "FROM scratch\nCOPY f /\n"), ("f", "one")]);
    let project = Project::new(User::Rootless);
    let oci = project.home().join("oci");
    let spec = format!("type=oci,tar=false,dest={}", oci.display());
    let args = ["--build-arg", "SOURCE_DATE_EPOCH=context", "-o", &spec, &server.url("app")];
    let _ = project.rbuild(&args).success();
    let created = Command::new("grep").args(["-rl", "2001-09-09T01:46:40Z", text(&oci)]).output().unwrap();
    assert!(!created.stdout.is_empty(), "no blob has the commit's time");
}

#[test]
fn named_contexts_are_repositories_too() {
    let server = GitServer::start();
    server.repository("lib").commit(&[("l", "lib"), ("dir/d", "deep")]);
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nCOPY --from=lib /l /\nCOPY --from=part / /\n");
        let lib = format!("lib={}", server.url("lib"));
        let part = format!("part={}#main:dir", server.url("lib"));
        let args = ["--build-context", &lib, "--build-context", &part];
        assert_eq!(project.built(&args, "l"), "lib");
        assert_eq!(project.built(&args, "d"), "deep");
    }
}

#[test]
fn secrets_open_a_repository_and_stay_secret() {
    use base64::Engine as _;
    let token = "sesame-7b1f9a4c";
    let basic = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let header = basic(format!("x-access-token:{token}"));
    let server = GitServer::with(Manner { login: Some(format!("basic {header}")), ..Manner::default() });
    server.repository("app").commit(&[("f", "one"), ("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    let url = server.url("app");
    for user in BOTH {
        let project = Project::with(user, &format!("FROM scratch\nADD --keep-git-dir=true {url} /\n"));
        let refused = project.build(&[]).failure(4).says("Dockerfile:2").says("GIT_AUTH_TOKEN");
        assert_eq!(refused.count(token), 0);
        let run_with = |args: &[&str]| {
            let out = format!("type=oci,tar=false,dest={}", project.home().join("oci").display());
            let context = project.context();
            let args = [&["--debug", "-o", out.as_str()], args, &[text(&context)]].concat();
            let mut command = project.rbuild_command(&args);
            command.env("TOKEN", token).env("HEADER", format!("basic {header}"));
            run(command)
        };
        for secret in [
            "id=GIT_AUTH_TOKEN,env=TOKEN",
            "id=GIT_AUTH_HEADER,env=HEADER",
            &format!("id=GIT_AUTH_TOKEN.{},env=TOKEN", server.host),
        ] {
            let built = run_with(&["--secret", secret, "--no-cache"]).success();
            let _ = built.silent_about(token).silent_about(&header);
        }
        let with_token =
            run_with(&["--secret", "id=GIT_AUTH_TOKEN,env=TOKEN", "--metadata-file", "meta.json"]).success();
        let _ = with_token.silent_about(token).silent_about(&header);
        for secret in [token, &header] {
            for place in [project.state(), project.home().join("oci"), project.home().join("meta.json")] {
                let found = Command::new("grep").args(["-rlaF", secret, text(&place)]).output().unwrap();
                assert!(found.stdout.is_empty(), "{secret} is in {}", String::from_utf8_lossy(&found.stdout));
            }
        }
        let mut command = project.command(crate::support::build::binary());
        command
            .args(["debug", "dump-llb", "--root"])
            .arg(project.state())
            .args(["--secret", "id=GIT_AUTH_TOKEN,env=TOKEN"]);
        command.arg(project.context()).env("TOKEN", token);
        let dumped = run(command).success().silent_about(token);
        assert!(dumped.stdout.contains("git.fullurl") && !dumped.stdout.contains(token), "{}", dumped.stdout);
    }
}

#[test]
fn a_repository_that_moved_is_followed_without_credentials_to_another_host() {
    let home = GitServer::start();
    home.repository("app").commit(&[("f", "one")]);
    let moved = |to: String| Manner { moved: Some(("/old.git".into(), to)), ..Manner::default() };
    let elsewhere = GitServer::with(moved(home.url("app")));
    let same = GitServer::with(moved("/app.git".into()));
    same.repository("app").commit(&[("f", "same")]);
    let project = Project::new(User::Rootless);
    let secret = ["--secret", "id=GIT_AUTH_TOKEN,src=token"];
    fs::write(project.home().join("token"), "sesame").unwrap();
    project.file("Dockerfile", format!("FROM scratch\nADD {} /\n", elsewhere.url("old")));
    assert_eq!(project.built(&secret, "f"), "one");
    assert!(home.asked().iter().all(|(_, authorization)| authorization.is_none()), "{:?}", home.asked());
    assert!(elsewhere.asked().iter().any(|(_, authorization)| authorization.is_some()));
    project.file("Dockerfile", format!("FROM scratch\nADD {} /\n", same.url("old")));
    assert_eq!(project.built(&secret, "f"), "same");
    assert!(same.asked().iter().filter(|(line, _)| line.contains("/app.git")).all(|(_, header)| header.is_some()));
}

#[test]
fn a_machine_without_git_says_so() {
    let project = Project::with(User::Root, "FROM scratch\n\nADD https://h.invalid/a.git /\n");
    let context = project.context();
    let mut command = project.rbuild_command(&[text(&context)]);
    command.env("PATH", "/nonexistent");
    let _ = run(command).failure(5).says("Dockerfile:3").says("git is not on this machine").says("install");
}

#[test]
fn a_damaged_repository_is_fetched_anew() {
    let server = GitServer::start();
    let repository = server.repository("app");
    repository.commit(&[("f", "one")]);
    for user in BOTH {
        let project = Project::with(user, &format!("FROM scratch\nADD {} /\n", server.url("app")));
        let _ = project.files(&[]);
        let packs = tool("find", &[text(&project.state().join("git")), "-name", "*.pack"]);
        for pack in packs.lines() {
            fs::remove_file(pack).unwrap();
        }
        let loose = tool("find", &[text(&project.state().join("git")), "-path", "*/objects/??/*", "-type", "f"]);
        for object in loose.lines() {
            fs::remove_file(object).unwrap();
        }
        assert_eq!(project.built(&["--no-cache"], "f"), "one");
    }
}

#[test]
fn two_builds_at_once_share_a_repository() {
    let server = GitServer::start();
    server.repository("app").commit(&[("f", "one")]);
    let project = Project::with(User::Rootless, &format!("FROM scratch\nADD {} /\n", server.url("app")));
    let build = |name: &str| {
        let out = project.home().join(name);
        let output = project.build(&["-o", text(&out)]).success();
        (fs::read_to_string(out.join("f")).unwrap(), output)
    };
    std::thread::scope(|scope| {
        let builds = ["a", "b", "c"].map(|name| scope.spawn(move || build(name)));
        for build in builds {
            assert_eq!(build.join().unwrap().0, "one");
        }
    });
}

#[test]
fn repositories_can_be_mounted_by_steps() {
    let server = GitServer::start();
    server.repository("app").commit(&[("f", "from git")]);
    let image = Image::of([tools()]);
    for user in BOTH {
        let project = Project::with(user, "FROM base\nRUN --mount=from=lib,target=/m cp /m/f /mounted\n");
        let lib = format!("lib={}", server.url("app"));
        let base = image.named(&project, "base");
        let mut args: Vec<&str> = base.iter().map(String::as_str).collect();
        args.extend(["--build-context", &lib]);
        assert_eq!(project.built(&args, "mounted"), "from git");
    }
}

#[test]
fn repositories_named_by_sha256_are_read_too() {
    let server = GitServer::start();
    let repository = server.repository_with("app", &["--object-format=sha256"]);
    let first = repository.commit(&[("f", "one")]);
    assert_eq!(first.len(), 64);
    repository.git(&["tag", "--annotate", "v1", "--message", "x"]);
    repository.commit(&[("f", "two")]);
    let url = server.url("app");
    let forms = [String::new(), "#v1".into(), format!("#{first}"), format!("?tag=v1&checksum={first}")];
    let adds: String = forms.iter().enumerate().map(|(at, form)| format!("ADD {url}{form} /{at}\n")).collect();
    for user in BOTH {
        let file = format!("FROM scratch\n{adds}ADD --keep-git-dir --checksum={first} {url}#v1 /kept\n");
        let project = Project::with(user, &file);
        let out = project.files(&[]);
        for (at, content) in ["two", "one", "one", "one"].iter().enumerate() {
            assert_eq!(fs::read_to_string(out.join(at.to_string()).join("f")).unwrap(), *content, "{at}");
        }
        let config = fs::read_to_string(out.join("kept/.git/config")).unwrap();
        assert!(config.to_lowercase().contains("objectformat = sha256"), "{config}");
        let wrong = format!("FROM scratch\nADD --checksum={} {url}#v1 /\n", "0".repeat(64));
        let _ = Project::with(user, &wrong).build(&[]).failure(4).says("Dockerfile:2").says(&first);
    }
}
