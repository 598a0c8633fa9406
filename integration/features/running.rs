//! RUN: who runs what, where, with which words and variables.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::image::Layout;
use super::{text, with_base};
use crate::support::build::{BOTH, User, busybox, run};

const USERS: &str = "COPY <<EOF /etc/passwd\nroot:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nEOF\n\
    COPY <<EOF /etc/group\nroot:x:0:\napp:x:1001:\naudio:x:63:app\nvideo:x:64:other,app\nstaff:x:50:\nEOF\n";

#[test]
fn users_and_groups_are_those_of_the_image() {
    for user in BOTH {
        let script = |name: &str| format!("id -u; id -g; id -G; echo $HOME; }} > /out/{name}\n");
        let mut dockerfile = format!("{USERS}RUN mkdir -m 777 /out\nRUN {{ {}", script("root"));
        for (spec, name) in [("app", "name"), ("1000", "number"), ("app:staff", "group"), ("4242:4343", "strange")] {
            dockerfile.push_str(&format!("USER {spec}\nRUN {{ {}", script(name)));
        }
        let project = with_base(user, &dockerfile);
        let out = project.files(&busybox());
        let read = |name: &str| fs::read_to_string(out.join("out").join(name)).unwrap().replace('\n', ",");
        assert_eq!(read("root"), "0,0,0,/root,");
        assert_eq!(read("name"), "1000,1001,1001 63 64,/home/app,");
        assert_eq!(read("number"), "1000,1001,1001 63 64,/home/app,");
        assert_eq!(read("group"), "1000,50,50,/home/app,");
        assert_eq!(read("strange"), "4242,4343,4343,/,");
        let _ = with_base(user, &format!("{USERS}USER nobody-here\nRUN true\n")).build(&busybox()).failure(1);
    }
}

#[test]
fn working_directories_are_made_and_belong_to_the_user() {
    for user in BOTH {
        let project = with_base(
            user,
            &format!(
                "{USERS}WORKDIR /srv\nWORKDIR sub\nRUN pwd > /pwd\nUSER app\nWORKDIR /home/app/work\nRUN stat -c %U:%G . > own\n"
            ),
        );
        let out = project.files(&busybox());
        assert_eq!(fs::read_to_string(out.join("pwd")).unwrap(), "/srv/sub\n");
        // BuildKit makes it for root whatever USER says.
        assert_eq!(Layout::built(&project, &busybox()).config()["config"]["WorkingDir"], "/home/app/work");
    }
}

#[test]
fn shells_and_exec_forms() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo \\\"$0 $1\\\" > /exec\", \"a  b\", \"$HOME\"]\n\
             SHELL [\"/bin/busybox\", \"sh\", \"-ec\"]\nRUN false; true || touch /unreachable\n",
        );
        let failed = project.build(&busybox()).failure(1);
        assert!(failed.stderr.contains("/bin/busybox sh -ec false; true"), "{}", failed.stderr);
        let project = with_base(
            user,
            "RUN [\"/bin/sh\", \"-c\", \"echo \\\"$0 $1\\\" > /exec\", \"a  b\", \"$HOME\"]\nRUN echo \"$0\" > /shell\n",
        );
        let out = project.files(&busybox());
        assert_eq!(fs::read_to_string(out.join("exec")).unwrap(), "a  b $HOME\n");
        assert_eq!(fs::read_to_string(out.join("shell")).unwrap(), "/bin/sh\n");
    }
}

#[test]
fn heredocs_in_all_forms() {
    for user in BOTH {
        let project = with_base(
            user,
            "ARG NAME=world\nRUN <<EOF\nset -e\necho \"hello $NAME\" > /plain\necho two >> /plain\nEOF\n\
             RUN <<'EOF'\necho \"quoted $NAME\" > /quoted\nEOF\n\
             RUN <<-EOF\n\techo tabs > /tabs\n\tEOF\n\
             RUN <<EOF cat > /stdin\nfrom $NAME\nEOF\n\
             RUN cat <<ONE > /one && cat <<TWO > /two\n1\nONE\n2\nTWO\n\
             RUN <<EOF\n#!/bin/awk -f\nBEGIN { print \"script\" > \"/script\" }\nEOF\n\
             COPY <<A <<'B' <<-C /copied/\nfile $NAME\nA\nraw $NAME\nB\n\ttabbed\nC\n\
             COPY --chmod=600 --chown=5:6 <<EOF /single\nonly\nEOF\nRUN stat -c '%a %u:%g' /single > /stat\n",
        );
        let out = project.files(&busybox());
        for (name, content) in [
            ("plain", "hello world\ntwo\n"),
            ("quoted", "quoted world\n"),
            ("tabs", "tabs\n"),
            ("stdin", "from world\n"),
            ("one", "1\n"),
            ("two", "2\n"),
            ("script", "script\n"),
            ("copied/A", "file world\n"),
            ("copied/B", "raw $NAME\n"),
            ("copied/C", "tabbed\n"),
            ("stat", "600 5:6\n"),
        ] {
            assert_eq!(fs::read_to_string(out.join(name)).unwrap(), content, "{name}");
        }
    }
}

#[test]
fn variables_and_the_scope_of_arguments() {
    for user in BOTH {
        let dockerfile = format!(
            "ARG GLOBAL=global\nARG STAGE=base\n{}",
            "FROM scratch AS base\nCOPY --from=host busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
             FROM $STAGE AS named\nRUN echo \"[$GLOBAL]\" > /before\nARG GLOBAL\nARG LOCAL=${GLOBAL}/local\nENV A=1 B=\"two words\" C=$GLOBAL\n\
             ENV A=2 D=${A}-${UNSET:-fallback}-${B:+set}\nRUN echo \"$GLOBAL|$LOCAL|$A|$B|$C|$D\" > /after\n\
             ARG A=arg\nRUN echo $A > /shadow\nWORKDIR /$A/$C\nCOPY $GLOBAL /$C.txt\nRUN echo $PATH > /path; env | sort > /env\n\
             FROM named\nRUN echo \"[$LOCAL][$A]\" > /next; echo $HOSTNAME $(hostname) > /host\n"
        );
        let project = crate::support::build::Project::with(user, &dockerfile);
        project.file("global", "copied");
        let out = project.files(&busybox());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(read("before"), "[]\n");
        assert_eq!(read("after"), "global|global/local|2|two words|global|1-fallback-set\n");
        assert_eq!(read("shadow"), "arg\n", "of ARG and ENV the later one counts");
        assert!(out.join("arg/global").is_dir());
        assert_eq!(read("global.txt"), "copied");
        assert_eq!(read("path"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
        assert_eq!(read("next"), "[global/local][2]\n", "a stage on a stage has its arguments");
        assert!(read("host").ends_with("buildkitsandbox\n"), "{}", read("host"));
        let names: Vec<String> = read("env").lines().map(|l| l.split('=').next().unwrap().to_owned()).collect();
        assert_eq!(names.join(" "), "A B C D GLOBAL HOME LOCAL PATH PWD SHLVL");
    }
}

#[test]
fn triggers_run_in_the_build_on_top() {
    for user in BOTH {
        let base = with_base(user, "ONBUILD COPY f /f\nONBUILD RUN cat /f > /seen\nRUN echo base > /order\n");
        base.file("f", "never");
        let layout = Layout::built(&base, &busybox());
        let recorded = serde_json::json!(["COPY f /f", "RUN cat /f > /seen"]);
        assert_eq!(layout.config()["config"]["OnBuild"], recorded);
        assert!(!base.files(&busybox()).join("seen").exists());
        let project = crate::support::build::Project::with(user, "FROM lay\nRUN cat /seen /order > /all\n");
        project.file("f", "from the child\n");
        let context = format!("lay=oci-layout://{}", layout.0.display());
        assert_eq!(project.built(&["--build-context", &context], "all"), "from the child\nbase\n");
        assert_eq!(
            Layout::built(&project, &["--build-context", &context]).config()["config"]["OnBuild"],
            serde_json::Value::Null
        );
    }
}

#[test]
fn triggers_of_a_pushed_base_run_with_the_childs_files_and_arguments() {
    let registry = crate::support::registry::Registry::start();
    for user in BOTH {
        let base = with_base(
            user,
            "ONBUILD ARG NAME=default\nONBUILD WORKDIR /made\nONBUILD COPY --chown=3:4 f .\nONBUILD RUN echo $NAME > name; stat -c '%u:%g' f > owner\nONBUILD ENV TOLD=$NAME\n",
        );
        let name = format!("{}/onbuild/{}:1", registry.host, if user == User::Root { "root" } else { "user" });
        let _ = base.build(&[&["-t", &name, "--push"], &busybox()[..]].concat()).success();
        let project =
            crate::support::build::Project::with(user, &format!("FROM {name}\nRUN pwd > /where; echo $TOLD > /told\n"));
        project.file("f", "mine");
        let out = project.files(&["--build-arg", "NAME=given"]);
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(
            (read("made/f"), read("made/name"), read("made/owner")),
            ("mine".into(), "given\n".into(), "3:4\n".into())
        );
        assert_eq!((read("where"), read("told")), ("/made\n".into(), "given\n".into()));
        // Triggers of the base are no triggers of the child.
        let grandchild = crate::support::build::Project::with(user, &format!("FROM {name}\nONBUILD RUN false\n"));
        grandchild.file("f", "");
        let layout = Layout::built(&grandchild, &[]);
        assert_eq!(layout.config()["config"]["OnBuild"], serde_json::json!(["RUN false"]));
    }
}

#[test]
fn volumes_are_directories_like_others_while_building() {
    for user in BOTH {
        let project =
            with_base(user, "RUN mkdir /v && echo before > /v/f\nVOLUME /v\nRUN echo after >> /v/f\nCOPY c /v/c\n");
        project.file("c", "copied");
        let out = project.files(&busybox());
        assert_eq!(fs::read_to_string(out.join("v/f")).unwrap(), "before\nafter\n");
        assert_eq!(fs::read_to_string(out.join("v/c")).unwrap(), "copied");
    }
}

#[test]
fn standard_input_is_empty() {
    for user in BOTH {
        let project = with_base(user, "RUN cat | wc -c > /count; readlink /proc/self/fd/0 > /what || true\n");
        let context = project.context();
        let out = project.home().join("out");
        let command = project.rbuild_command(&[&["-o", text(&out)], &busybox()[..], &[text(&context)]].concat());
        let _ = super::fed(command, b"not for the step").success();
        assert_eq!(fs::read_to_string(out.join("count")).unwrap(), "0\n");
    }
}

/// The step waits for a word of the test, which says it only when it has seen the step's own.
#[test]
fn output_arrives_while_the_step_runs() {
    for user in BOTH {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let project =
            with_base(user, &format!("RUN echo first words; nc 127.0.0.1 {port} < /dev/null; echo last words\n"));
        let context = project.context();
        let mut command = project.rbuild_command(&[&busybox()[..], &[text(&context)]].concat());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(" first words")));
        listener.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut waiting = loop {
            match listener.accept() {
                Ok((connection, _)) => break connection,
                Err(_) => assert!(Instant::now() < deadline, "the step did not come"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        waiting.write_all(b"middle\n").unwrap();
        drop(waiting);
        let rest: Vec<String> = lines.collect();
        assert!(child.wait().unwrap().success());
        assert!(
            rest.iter().any(|line| line.ends_with(" middle")) && rest.iter().any(|line| line.ends_with(" last words"))
        );
    }
}

#[test]
fn a_step_changes_removes_and_links() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN mkdir -p /d/sub /gone && echo a > /d/a && echo b > /d/sub/b && echo g > /gone/g\n\
             RUN rm -r /gone /d/a && echo B > /d/sub/b && ln /d/sub/b /hard && ln -s sub /d/link && chmod 4755 /hard && chown 3:4 /hard\n\
             RUN rm -r /d/sub && mkdir /d/sub && touch /d/sub/new\n",
        );
        let out = project.files(&busybox());
        assert!(!out.join("gone").exists() && !out.join("d/a").exists() && !out.join("d/sub/b").exists());
        assert!(out.join("d/sub/new").exists() && fs::read_link(out.join("d/link")).unwrap() == *"sub");
        assert_eq!(fs::read_to_string(out.join("hard")).unwrap(), "B\n");
        let layout = Layout::built(&project, &busybox());
        let second = layout.listing(3);
        assert!(second.contains(".wh.gone") && second.contains("d/.wh.a") && second.contains("3/4"), "{second}");
        assert!(layout.listing(4).contains(".wh."), "{}", layout.listing(4));
        assert_eq!(layout.layers().len(), 5);
    }
}

#[test]
fn a_signal_leaves_nothing_and_says_so() {
    for user in BOTH {
        let project = with_base(user, "RUN echo waiting; sleep 1000\n");
        let context = project.context();
        let mut command = project.rbuild_command(&[&busybox()[..], &[text(&context)]].concat());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(" waiting")));
        let mut kill = project.command("kill");
        kill.arg(child.id().to_string());
        let _ = run(kill).success();
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(128 + 15), "{rest:?}");
        assert!(rest.iter().any(|line| line.contains("stopped by signal 15")), "{rest:?}");
        assert_eq!(fs::metadata(project.state()).unwrap().uid(), fs::metadata(project.context()).unwrap().uid());
    }
}
