//! Why each step ran or was cached, as `--explain` and `rbuild explain` say.

use std::fs;

use serde_json::Value;

use super::{text, tool, with_base};
use crate::support::build::{BOTH, Output, Project, User, binary, busybox, run};
use crate::support::registry::Registry;

/// Builds and explains.
fn explained(project: &Project, args: &[&str]) -> Output {
    let busybox = busybox();
    let all: Vec<&str> = args.iter().chain(&busybox).copied().chain(["--explain"]).collect();
    project.build(&all).success()
}

fn asked(project: &Project, args: &[&str]) -> Output {
    let mut command = project.command(binary());
    command.arg("explain").arg("--root").arg(project.state()).args(args).arg(project.context());
    run(command)
}

#[test]
fn a_miss_names_the_file_the_mode_or_the_argument() {
    for user in BOTH {
        let project = with_base(user, "ARG VERSION=1\nRUN echo a\nCOPY c/ /c/\nRUN true\n");
        project.file("c/src/gen/version.txt", "1").file("c/run.sh", "x");
        tool("chmod", &["644", text(&project.context().join("c/run.sh"))]);
        let _ = explained(&project, &[]).says("COPY c/ /c/ ran: not in any cache (first build here");
        let again = explained(&project, &[]);
        assert_eq!(again.count("ran: not in any cache"), 0, "{}", again.stderr);
        let _ = again.says("RUN true cached: from the state directory").silent_about("RUN true ran");
        project.file("c/src/gen/version.txt", "2");
        let _ = explained(&project, &[])
            .says("COPY c/ /c/ ran: c/src/gen/version.txt changed")
            .says("RUN true ran: an earlier step changed: [base 4/5] COPY c/ /c/ (c/src/gen/version.txt changed)");
        tool("chmod", &["755", text(&project.context().join("c/run.sh"))]);
        let _ = explained(&project, &[]).says("COPY c/ /c/ ran: mode of c/run.sh 0644 -> 0755");
        let _ = explained(&project, &["--build-arg", "VERSION=2"]).says("RUN echo a ran: ARG VERSION \"1\" -> \"2\"");
        // What is not declared does not count.
        let _ = explained(&project, &["--build-arg", "VERSION=2", "--build-arg", "OTHER=1"]).silent_about("OTHER");
    }
}

#[test]
fn files_that_come_and_go_and_rules_that_hide_them_are_named() {
    for user in BOTH {
        let project = with_base(user, "COPY d /d\n");
        project.file("d/a", "one").file("d/b", "two");
        let _ = explained(&project, &[]);
        project.file("d/new", "three");
        let _ = explained(&project, &[]).says("COPY d /d ran: d/new added");
        fs::rename(project.context().join("d/new"), project.context().join("d/other")).unwrap();
        let _ = explained(&project, &[]).says("COPY d /d ran: d/new renamed to d/other");
        project.file(".dockerignore", "d/b\n");
        let _ = explained(&project, &[]).says("COPY d /d ran: d/b removed");
    }
}

#[test]
fn commands_variables_and_mounts_are_named() {
    let of = |env: &str, command: &str, made: &str| {
        format!(
            "FROM base AS made\nRUN echo {made} > /out\nFROM base\nENV {env}\nRUN --mount=from=made,source=/out,target=/in {command}\n"
        )
    };
    for user in BOTH {
        let project = with_base(user, &of("A=1", "cat /in", "x"));
        let write = |rest: &str| project.file("Dockerfile", [crate::support::build::BASE, rest].concat());
        let _ = explained(&project, &[]);
        write(&of("A=2", "cat /in", "x"));
        let _ = explained(&project, &[]).says("ran: ENV A \"1\" -> \"2\"");
        write(&of("A=2", "cat /in /in", "x"));
        let _ = explained(&project, &[]).says("cat /in -> RUN --mount=from=made,source=/out,target=/in cat /in /in");
        write(&of("A=2", "cat /in /in", "y"));
        let _ = explained(&project, &[]).says("RUN echo y > /out ran: command RUN echo x > /out -> RUN echo y > /out");
        write(&of("API_TOKEN=s3cret", "true", "y"));
        let _ = explained(&project, &[]);
        write(&of("API_TOKEN=hunter2", "true", "y"));
        let _ = explained(&project, &[]).says("ENV API_TOKEN changed").silent_about("hunter2\"");
    }
}

#[test]
fn a_cache_that_is_not_asked_or_lies_elsewhere_is_named() {
    for user in BOTH {
        let project = with_base(user, "COPY a /a\nFROM base AS last\nRUN echo last\n");
        project.file("a", "one");
        let cache = project.home().join("cache");
        let to = format!("type=local,mode=max,dest={}", cache.display());
        let _ = explained(&project, &["--cache-to", &to]);
        let _ = explained(&project, &["--no-cache-filter", "last"])
            .says("RUN echo last ran: --no-cache-filter=last")
            .says("cached: from the state directory");
        let _ = explained(&project, &["--no-cache"]).says("RUN echo last ran: --no-cache");
        let cold = project.home().join("cold");
        let from = format!("type=local,src={}", cache.display());
        let _ = explained(&project, &["--root", text(&cold), "--cache-from", &from])
            .says(&format!("RUN echo last cached: from local:{}", cache.display()));
    }
}

#[test]
fn the_last_build_is_explained_without_building() {
    for user in BOTH {
        let project = with_base(user, "COPY a /a\n");
        project.file("a", "one");
        let none = asked(&project, &[]).failure(2);
        assert!(none.stderr.contains("no build of"), "{}", none.stderr);
        let _ = project.build(&busybox()).success();
        let first: Value = serde_json::from_str(&asked(&project, &["--format", "json"]).success().stdout).unwrap();
        project.file("a", "two");
        let _ = project.build(&busybox()).success();
        let again = project.build(&busybox()).success();
        assert_eq!(again.count("ran:"), 0);
        let told = asked(&project, &["--format", "json"]).success().stdout;
        let told: Value = serde_json::from_str(&told).unwrap();
        let copied = |told: &Value| {
            let steps = told["steps"].as_array().unwrap();
            steps.iter().find(|step| step["name"].as_str().unwrap().ends_with("COPY a /a")).unwrap().clone()
        };
        assert_eq!(copied(&first)["reason"], "first");
        assert!(["cached", "covered"].contains(&copied(&told)["outcome"].as_str().unwrap()));
        assert_eq!(told["caches"][0], "the state directory");
        let _ = asked(&project, &["--against", "nothing"]).failure(2);
        let against = asked(&project, &["--against", first["build"].as_str().unwrap()]).success();
        assert!(against.stdout.contains(&format!("compared with build {}", first["build"].as_str().unwrap())));
    }
}

#[test]
fn a_base_a_mount_and_a_record_in_a_file_are_compared() {
    for user in BOTH {
        let registry = Registry::start();
        let base = format!("{}/base:latest", registry.host);
        let push = |content: &str| {
            let project = Project::with(user, &format!("FROM scratch\nLABEL content={content}\nCOPY f /f\n"));
            project.file("f", content);
            let _ = project.build(&["-t", &base, "--push"]).success();
        };
        push("one");
        let on = |mount: &str| {
            format!(
                "FROM {base} AS data\nCOPY a /a\n{}FROM base\nRUN --mount={mount} true\nCOPY --from=data /f /f\n",
                crate::support::build::BASE
            )
        };
        let project = Project::with(user, &on("type=tmpfs,target=/x"));
        project.file("a", "a");
        let _ = explained(&project, &[]);
        let kept = project.home().join("kept.json");
        let build = fs::read_dir(project.state().join("explain/builds")).unwrap().next().unwrap().unwrap().path();
        fs::copy(build, &kept).unwrap();
        project.own(&kept);
        push("two");
        let _ = explained(&project, &[]).says("base image sha256:").says("COPY a /a ran: an earlier step changed");
        let against = || asked(&project, &["--against", text(&kept)]).success().stdout;
        assert!(against().contains("base image sha256:"), "{}", against());
        project.file("Dockerfile", on("type=tmpfs,target=/y"));
        let _ = explained(&project, &[]).says("RUN --mount=type=tmpfs,target=/y true ran: mount 2 /x");
        assert!(against().contains("mount 2 /x"), "{}", against());
    }
}

#[test]
fn nothing_secret_is_kept_or_exported_and_that_can_be_left_out() {
    for user in BOTH {
        let project = with_base(
            user,
            "ARG URL=none\nENV HEADER=\"Authorization: Bearer hunter2hunter2\"\n\
             RUN true https://user:hunter2@example.com/f?sig=hunter2 $URL\nCOPY a /a\n",
        );
        project.file("a", "one");
        let cache = project.home().join("cache");
        let to = format!("type=local,mode=max,dest={}", cache.display());
        let url = ["--build-arg", "URL=https://hunter2@example.com/"];
        let said = |more: &str| {
            let _ =
                in_ci(&project, &[&url[..], &["--cache-to", &format!("{to}{more}")]].concat()).says("***@example.com");
            let index: Value = serde_json::from_slice(&fs::read(cache.join("index.json")).unwrap()).unwrap();
            let digest = index["manifests"][0]["digest"].as_str().unwrap();
            let manifest = fs::read(cache.join("blobs/sha256").join(&digest["sha256:".len()..])).unwrap();
            let manifest: Value = serde_json::from_slice(&manifest).unwrap();
            manifest["annotations"]["rbuild.explain.v1"].as_str().map(str::to_owned)
        };
        let note = rbuild::remotecache::explained::BuildNote::decode(&said("").unwrap()).unwrap();
        let exported = serde_json::to_string(&note.record).unwrap();
        let mut kept = exported.clone();
        for entry in fs::read_dir(project.state().join("explain/builds")).unwrap() {
            kept.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
        }
        assert!(exported.contains("RUN true https://***@example.com/f?sig=***"), "{exported}");
        assert!(!kept.contains("hunter2"), "{kept}");
        assert_eq!(said(",explain=false"), None);
        // That one changed is told all the same.
        let _ = in_ci(&project, &[&url[..], &["--cache-to", &to]].concat());
        let other = [
            "--build-arg",
            "URL=https://hunter3@example.com/",
            "--cache-from",
            &to.replace("dest=", "src=").replace("mode=max,", ""),
        ];
        let _ = in_ci(&project, &other).says("ran: ARG URL changed").silent_about("hunter3@");
    }
}

#[test]
fn a_record_that_is_damaged_is_none() {
    let project = with_base(User::Root, "COPY a /a\n");
    project.file("a", "one");
    let _ = explained(&project, &[]);
    for folder in ["builds", "files"] {
        for entry in fs::read_dir(project.state().join("explain").join(folder)).unwrap().flatten() {
            fs::write(entry.path(), "{damaged").unwrap();
        }
    }
    project.file("a", "two");
    let _ = explained(&project, &[]).says("COPY a /a ran: not in any cache (first build here");
}

/// Builds with an empty state directory, as in CI.
fn in_ci(project: &Project, args: &[&str]) -> Output {
    super::caches::forget(project);
    explained(project, args)
}

#[test]
fn with_an_empty_state_directory_a_cache_is_what_is_compared_with() {
    let registry = Registry::start();
    for user in BOTH {
        let project = with_base(user, "ARG VERSION=1\nARG API_TOKEN=none\nRUN echo a\nCOPY c/ /c/\nRUN true\n");
        project.file("c/src/version.txt", "1").file("c/run.sh", "x");
        let tag = format!("{}/explained-{user:?}:c", registry.host).to_lowercase();
        let cache = project.home().join("cache");
        let places = [
            (format!("type=local,dest={}", cache.display()), format!("type=local,src={}", cache.display())),
            (format!("type=registry,image-manifest=false,ref={tag}"), tag),
        ];
        for (to, from) in &places {
            project.file("c/src/version.txt", "1");
            let secret = ["--build-arg", "API_TOKEN=hunter2"];
            let _ = in_ci(&project, &[&secret[..], &["--cache-to", &format!("{to},mode=max")]].concat());
            let same = in_ci(&project, &[&secret[..], &["--cache-from", from]].concat());
            let _ = same.says("compared with build that wrote ").says("RUN true cached: from ");
            project.file("c/src/version.txt", "2");
            let _ = in_ci(&project, &[&secret[..], &["--cache-from", from]].concat())
                .says("COPY c/ /c/ ran: c/src/version.txt changed")
                .says("RUN true ran: an earlier step changed");
            let version = ["--build-arg", "VERSION=2", "--cache-from", from];
            let _ = in_ci(&project, &[&secret[..], &version].concat()).says("ARG VERSION \"1\" -> \"2\"");
            let _ = in_ci(&project, &["--build-arg", "API_TOKEN=hunter3", "--cache-from", from])
                .says("RUN echo a ran: ARG API_TOKEN changed")
                .silent_about("hunter");
            // Mode min tells nothing of steps it does not export.
            let _ = in_ci(&project, &["--cache-to", to]);
            let _ = in_ci(&project, &["--cache-from", from]).says("the first that is known");
        }
    }
}

#[test]
fn what_a_cache_says_of_its_build_is_read_with_care() {
    let project = with_base(User::Root, "COPY a /a\n");
    project.file("a", "one");
    let cache = project.home().join("cache");
    let (to, from) =
        (format!("type=local,mode=max,dest={}", cache.display()), format!("type=local,src={}", cache.display()));
    let _ = in_ci(&project, &["--cache-to", &to]);
    let read = |path: &std::path::Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = read(&cache.join("index.json"));
    let blob = |digest: &str| cache.join("blobs/sha256").join(&digest["sha256:".len()..]);
    let old = index["manifests"][0]["digest"].as_str().unwrap();
    let mut manifest = read(&blob(old));
    assert!(manifest["annotations"]["rbuild.explain.v1"].is_string());
    for text in ["nonsense".to_owned(), "eA==".into(), "A".repeat(1 << 20)] {
        manifest["annotations"]["rbuild.explain.v1"] = text.into();
        let bytes = manifest.to_string();
        let digest = rbuild::digest::Digest::compute(&bytes);
        fs::write(blob(digest.as_str()), &bytes).unwrap();
        let entry = serde_json::json!({
            "mediaType": manifest["mediaType"], "digest": digest.as_str(), "size": bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        });
        fs::write(cache.join("index.json"), serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string())
            .unwrap();
        let output = in_ci(&project, &["--cache-from", &from]).says("nothing to compare with in the cache");
        assert_eq!(output.count("CACHED"), 3, "it is a cache all the same: {}", output.stderr);
        super::caches::forget(&project);
        let all = [&busybox()[..], &["--cache-from", &from]].concat();
        let _ = project.build(&all).success().silent_about("nothing to compare with");
    }
}
