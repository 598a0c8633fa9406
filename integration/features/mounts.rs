//! `RUN --mount`: bind, cache, tmpfs and secret.

use std::fs;

use super::image::Layout;
use super::{text, with_base};
use crate::support::build::{BOTH, busybox};

#[test]
fn binds_show_context_stage_and_image_and_keep_nothing() {
    for user in BOTH {
        let project = with_base(
            user,
            "FROM base AS other\nRUN mkdir /o && echo stage > /o/f\nFROM base\n\
             RUN --mount=target=/ctx cat /ctx/a > /context; touch /ctx/x 2>/dev/null || echo ro >> /context\n\
             RUN --mount=type=bind,from=other,source=/o,target=/m cat /m/f > /stage\n\
             RUN --mount=from=other,src=o/f,dst=/single cat /single > /file\n\
             RUN --mount=from=named,target=/n cat /n/f > /named\n\
             WORKDIR /w\nRUN --mount=target=rel,source=d,rw echo changed > rel/b && cat rel/b > /rw\n\
             RUN --mount=target=/ctx cat /ctx/d/b > /after\n",
        );
        project.file("a", "one\n").file("d/b", "two\n");
        let named = project.home().join("named");
        fs::create_dir(&named).unwrap();
        fs::write(named.join("f"), "named\n").unwrap();
        let context = format!("named={}", named.display());
        let args = [&["--build-context", &context], &busybox()[..]].concat();
        let out = project.files(&args);
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(read("context"), "one\nro\n");
        assert_eq!(read("stage"), "stage\n");
        assert_eq!(read("file"), "stage\n");
        assert_eq!(read("named"), "named\n");
        assert_eq!((read("rw"), read("after")), ("changed\n".to_owned(), "two\n".to_owned()));
        assert_eq!(fs::read_to_string(project.context().join("d/b")).unwrap(), "two\n");
        for gone in ["ctx", "m", "single", "n", "w/rel"] {
            assert!(!out.join(gone).exists(), "{gone} is in the image");
        }
    }
}

#[test]
fn a_bound_file_that_is_not_read_changes_no_key() {
    let project = with_base(crate::support::build::User::Root, "RUN --mount=target=/m,source=d cat /m/used > /u\n");
    project.file("d/used", "1").file("beside", "1");
    let _ = project.build(&busybox()).success();
    project.file("beside", "2");
    assert_eq!(project.build(&busybox()).success().count("CACHED"), 3);
    project.file("d/used", "2");
    assert_eq!(project.build(&busybox()).success().count("CACHED"), 2);
}

#[test]
fn caches_last_over_builds_apart_by_id() {
    for user in BOTH {
        let project = with_base(
            user,
            "ARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/log; cat /c/log > /one\n\
             RUN --mount=type=cache,id=two,target=/d,mode=0750,uid=7,gid=8 echo $N >> /d/log; cat /d/log > /two; stat -c '%a %u:%g' /d > /stat\n\
             RUN --mount=type=cache,id=/c,target=/e,ro cat /e/log > /same; touch /e/x 2>/dev/null || echo ro >> /same\n\
             RUN --mount=type=cache,from=base,source=/etc-like,target=/f ls /f > /origin\n",
        );
        let dockerfile = fs::read_to_string(project.context().join("Dockerfile")).unwrap();
        let dockerfile =
            dockerfile.replacen("ARG N", "RUN mkdir /etc-like && touch /etc-like/start\nFROM base\nARG N", 1);
        project.file("Dockerfile", dockerfile);
        for (n, log) in [("1", "1\n"), ("2", "1\n2\n")] {
            let arg = format!("N={n}");
            let out = project.files(&[&["--build-arg", &arg], &busybox()[..]].concat());
            let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
            assert_eq!((read("one"), read("two")), (log.to_owned(), log.to_owned()));
            assert_eq!(read("same"), format!("{log}ro\n"));
            assert_eq!(read("stat"), "750 7:8\n");
            assert_eq!(read("origin"), "start\n");
            assert!(!out.join("c").exists());
        }
    }
}

#[test]
fn sharing_of_caches() {
    for user in BOTH {
        // Each of two steps waits for the other's mark: until it is there, or in vain.
        for (sharing, tries, seen) in
            [("shared", 300, ["a b ", "a b "]), ("private", 5, ["a ", "b "]), ("locked", 5, ["a ", "b "])]
        {
            let clean = if sharing == "shared" { "true" } else { "rm /c/*" };
            let step = |own: &str, other: &str| {
                format!(
                    "FROM base AS step-{own}\nRUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} touch /c/{own}; i=0; \
                     while [ ! -e /c/{other} ] && [ $i -lt {tries} ]; do sleep 0.1; i=$((i+1)); done; \
                     ls /c | tr '\\n' ' ' > /{own}; {clean}\n"
                )
            };
            let last = "FROM scratch\nCOPY --from=step-a /a /\nCOPY --from=step-b /b /\n";
            let project = with_base(user, &format!("{}{}{last}", step("a", "b"), step("b", "a")));
            let out = project.files(&busybox());
            let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
            assert_eq!([read("a"), read("b")], seen, "{sharing}");
        }
    }
}

#[test]
fn memory_is_gone_after_the_step() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/f; stat -f -c %T /t > /kind; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2 > /size\nRUN ls -d /t || echo none > /gone\n",
        );
        let out = project.files(&busybox());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!((read("kind"), read("size"), read("gone")), ("tmpfs\n".into(), "1024\n".into(), "none\n".into()));
    }
}

/// Random enough to be found nowhere by chance.
const SECRET: &str = "c1f0a8e27bb94d6e8d55f3a1907be664";

#[test]
fn secrets_reach_the_step_and_nothing_else() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN --mount=type=secret,id=file cmp /run/secrets/file /run/secrets/file && wc -c < /run/secrets/file > /length; stat -c '%a %u:%g' /run/secrets/file > /stat\n\
             RUN --mount=type=secret,id=var,target=/root/key,mode=0440,uid=5,gid=6 stat -c '%a %u:%g' /root/key > /own; sha256sum < /root/key > /sum\n\
             RUN --mount=type=secret,id=var,env=TOKEN echo -n \"$TOKEN\" | sha256sum > /env\n\
             RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent\nRUN ls /run/secrets 2>/dev/null || touch /none\n",
        );
        let place = project.home().join("secret");
        fs::write(&place, SECRET).unwrap();
        project.own(&place);
        let file = format!("id=file,src={}", place.display());
        let output = project.home().join("out");
        let layout = project.home().join("layout");
        let to_layout = format!("type=oci,tar=false,dest={}", layout.display());
        let context = project.context();
        let mut args =
            vec!["--secret", &file, "--secret", "id=var,env=THE_VARIABLE", "-o", text(&output), "-o", &to_layout];
        args.extend(busybox());
        args.extend(["--debug", text(&context)]);
        let mut command = project.rbuild_command(&args);
        command.env("THE_VARIABLE", SECRET);
        let said = crate::support::build::run(command).success();
        let said = said.silent_about(SECRET);
        assert!(!said.stdout.contains(SECRET));
        let mut command = project.command(crate::support::build::binary());
        command
            .args(["debug", "dump-llb", "--root"])
            .arg(project.state())
            .args(&args[..4])
            .args(busybox())
            .arg(&context);
        command.env("THE_VARIABLE", SECRET);
        let dumped = crate::support::build::run(command).success().silent_about(SECRET);
        assert!(dumped.stdout.contains("/run/secrets/file") && dumped.stdout.contains("TOKEN"), "{}", dumped.stdout);
        assert!(!dumped.stdout.contains(SECRET));
        let read = |name: &str| fs::read_to_string(output.join(name)).unwrap();
        assert_eq!(
            (read("length"), read("stat"), read("own")),
            ("32\n".into(), "400 0:0\n".into(), "440 5:6\n".into())
        );
        assert_eq!(read("sum"), read("env"));
        assert!(output.join("none").exists() && !output.join("run").exists());
        let mut grep = std::process::Command::new("grep");
        grep.args(["-rl", "-e", SECRET]).args([&project.state(), &output, &layout]);
        assert_eq!(String::from_utf8_lossy(&grep.output().unwrap().stdout), "");
        let layout = Layout(layout);
        for digest in layout.layers() {
            let blob = layout.0.join("blobs/sha256").join(digest.replace("sha256:", ""));
            let found = format!("zcat {} | grep -c {SECRET} || true", blob.display());
            assert_eq!(super::tool("sh", &["-c", &found]), "0\n");
        }
    }
}

#[test]
fn a_required_secret_that_is_missing_is_named() {
    let project = with_base(crate::support::build::User::Root, "RUN --mount=type=secret,id=gone,required=true true\n");
    let _ = project.build(&busybox()).failure(2).says("gone").says("--secret id=gone").says("Dockerfile:4");
    let _ = project.build(&["--secret", "src=x"]).failure(2).says("--secret");
    let _ = project.build(&["--secret", "id=a,env=NOT_SET_ANYWHERE"]).failure(2).says("NOT_SET_ANYWHERE");
}

#[test]
fn bind_from_stage_is_writable_without_keeping() {
    for user in BOTH {
        let project = with_base(
            user,
            "FROM base AS other\nRUN mkdir /o && echo stage > /o/f && chmod 700 /o\nFROM base\n\
             RUN --mount=from=other,source=/o,target=/m,rw echo changed > /m/f && touch /m/new && stat -c %a /m > /mode && cat /m/f > /seen\n\
             RUN --mount=from=other,source=/o,target=/m,readwrite=true cat /m/* > /after\n\
             RUN --mount=from=other,source=/o,target=/m,ro=true (echo x > /m/f) 2>/dev/null || echo refused > /ro\n\
             COPY --from=other /o /kept\n",
        );
        let out = project.files(&busybox());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!((read("seen"), read("mode")), ("changed\n".into(), "700\n".into()));
        assert_eq!(
            (read("after"), read("kept/f"), read("ro")),
            ("stage\n".into(), "stage\n".into(), "refused\n".into())
        );
        assert!(!out.join("kept/new").exists() && !out.join("m").exists());
    }
}

#[test]
fn bind_from_image_of_a_layout() {
    for user in BOTH {
        let base = crate::support::build::Project::with(user, "FROM scratch\nCOPY f /dir/f\n");
        base.file("f", "image\n");
        let layout = Layout::built(&base, &[]);
        let project = with_base(user, "RUN --mount=from=lay,source=dir,target=/m cat /m/f > /seen && ! touch /m/x\n");
        let context = format!("lay=oci-layout://{}", layout.0.display());
        assert_eq!(project.built(&[&["--build-context", &context], &busybox()[..]].concat(), "seen"), "image\n");
    }
}

#[test]
fn mounts_nest_and_parents_come_first() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN --mount=type=tmpfs,target=/a/b/c --mount=type=cache,target=/a --mount=target=/a/b \
             touch /a/in-cache /a/b/c/in-memory; cat /a/b/f > /seen; ls /a/b > /names; grep -c ' /a' /proc/self/mountinfo > /count\n\
             RUN --mount=type=cache,target=/a ls /a > /cache; ls -d /a/b/* >> /cache 2>/dev/null; true\n",
        );
        project.file("f", "context\n").file("c/keep", "");
        let out = project.files(&busybox());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!((read("seen"), read("count")), ("context\n".into(), "3\n".into()));
        assert_eq!(read("names"), "Dockerfile\nc\nf\n");
        assert!(read("cache").starts_with("in-cache\n") || read("cache") == "b\nin-cache\n", "{}", read("cache"));
        assert!(!out.join("a").exists());
    }
}

#[test]
fn cache_sharing_holds_between_processes() {
    for user in BOTH {
        for (sharing, tries, seen) in
            [("shared", 300, ["a b ", "a b "]), ("private", 8, ["a ", "b "]), ("locked", 8, ["a ", "b "])]
        {
            // Two programs with one state directory; each waits for the other's mark, until it is there or in vain.
            let clean = if sharing == "shared" { "true" } else { "rm /c/*" };
            let project = with_base(
                user,
                &format!(
                    "FROM base\nARG OWN\nARG OTHER\nRUN --mount=type=cache,target=/c,id=x,sharing={sharing} touch /c/$OWN; i=0; \
                     while [ ! -e /c/$OTHER ] && [ $i -lt {tries} ]; do sleep 0.1; i=$((i+1)); done; \
                     ls /c | tr '\\n' ' ' > /seen; {clean}\n"
                ),
            );
            // The steps below are in the cache then, so that both begin together.
            let _ = project.build(&[&["--target", "base"], &busybox()[..]].concat()).success();
            let build = |own: &str, other: &str| {
                let (own_arg, other_arg) = (format!("OWN={own}"), format!("OTHER={other}"));
                let out = project.home().join(format!("{sharing}-{own}"));
                let args = ["--build-arg", &own_arg, "--build-arg", &other_arg, "-o", text(&out)];
                let _ = project.build(&[&args[..], &busybox()].concat()).success();
                fs::read_to_string(out.join("seen")).unwrap()
            };
            let both = std::thread::scope(|scope| {
                let first = scope.spawn(|| build("a", "b"));
                let second = build("b", "a");
                [first.join().unwrap(), second]
            });
            assert_eq!(both, seen, "{user:?} {sharing}");
        }
    }
}

#[test]
fn cache_from_a_stage_starts_with_its_directory_and_owner() {
    for user in BOTH {
        let project = with_base(
            user,
            "FROM base AS seed\nRUN mkdir /s && echo seed > /s/f && chown 3:4 /s && chmod 2770 /s\nFROM base\nARG N\n\
             RUN --mount=type=cache,id=seeded,from=seed,source=/s,target=/c cat /c/f > /f; echo $N >> /c/f; stat -c '%a %u:%g' /c > /stat; ls /c > /ls\n",
        );
        for (n, f) in [("1", "seed\n"), ("2", "seed\n1\n")] {
            let out = project.files(&[&["--build-arg", &format!("N={n}")], &busybox()[..]].concat());
            let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
            assert_eq!((read("f"), read("stat"), read("ls")), (f.into(), "2770 3:4\n".into(), "f\n".into()));
        }
    }
}

#[test]
fn tmpfs_size_is_a_limit() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN --mount=type=tmpfs,target=/t,size=65536 ! dd if=/dev/zero of=/t/f bs=1k count=65 2> /said && du -k /t/f | cut -f1 > /kept\n\
             RUN --mount=type=tmpfs,target=/t dd if=/dev/zero of=/t/f bs=1M count=2 2>/dev/null && stat -c %a /t > /mode\n",
        );
        let out = project.files(&busybox());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert!(read("said").contains("No space left"), "{}", read("said"));
        assert_eq!((read("kept"), read("mode")), ("64\n".into(), "1777\n".into()));
    }
}

#[test]
fn secret_as_variable_and_as_file_at_once() {
    for user in BOTH {
        let project = with_base(
            user,
            "WORKDIR /w\nRUN --mount=type=secret,id=s,env=VAR,target=rel/file [ \"$VAR\" = value ] && cat /rel/file > /copied && touch /both\n\
             RUN --mount=type=secret,id=s,env=VAR [ \"$VAR\" = value ] && [ ! -e /run/secrets/s ] && touch /only-variable\n\
             RUN --mount=type=secret,id=s,env=MY_VAR,required=false env | grep -c MY_VAR > /named\n\
             RUN --mount=type=secret,id=gone,env=NOT --mount=type=secret,id=gone,required=false ! env | grep NOT && touch /absent\n\
             RUN [ -z \"$VAR\" ] && [ ! -e /rel ] && [ ! -e /w/rel ] && touch /gone\n",
        );
        let mut command =
            project.rbuild_command(&[&["--secret", "id=s,env=V", "-o", "out"], &busybox()[..], &["context"]].concat());
        command.env("V", "value");
        let _ = crate::support::build::run(command).success();
        let out = project.home().join("out");
        for name in ["both", "only-variable", "absent", "gone"] {
            assert!(out.join(name).exists(), "{name}");
        }
        assert_eq!(fs::read_to_string(out.join("named")).unwrap(), "1\n");
    }
}

#[test]
fn secret_values_change_no_key() {
    let project =
        with_base(crate::support::build::User::Root, "RUN --mount=type=secret,id=s,env=S echo $S | wc -c > /n\n");
    for (value, cached) in [("one", 0), ("another", 3)] {
        let mut command = project.rbuild_command(&[&["--secret", "id=s,env=V"], &busybox()[..], &["context"]].concat());
        command.env("V", value);
        let output = crate::support::build::run(command).success();
        assert_eq!(output.count("CACHED"), cached, "{}", output.stderr);
    }
}
