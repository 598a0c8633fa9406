//! What is built again and what is not, and that the same input gives the same bytes.

use std::fs;
use std::path::Path;

use super::image::Layout;
use super::{text, tool, with_base};
use crate::support::build::{BASE, BOTH, Project, User, busybox};

#[test]
fn second_build_is_cached_and_a_changed_file_reruns_what_depends_on_it() {
    for user in BOTH {
        let dockerfile = format!("{BASE}COPY a /a\nRUN cat /a > /ca\nFROM base\nCOPY b /b\nRUN cat /b > /cb\n");
        let project = Project::with(user, &dockerfile);
        project.file("a", "one").file("b", "two");
        let _ = project.build(&busybox()).success().silent_about("CACHED");
        let again = project.build(&busybox()).success();
        assert_eq!(again.count("CACHED"), 6, "{}", again.stderr);
        // A new time is no change; new content is, and only of what reads it.
        project.file("b", "two");
        assert_eq!(project.build(&busybox()).success().count("CACHED"), 6);
        project.file("b", "three");
        let changed = project.build(&busybox()).success();
        assert_eq!(changed.count("CACHED"), 4, "{}", changed.stderr);
    }
}

/// Builds and returns how many steps were cached.
fn cached(project: &Project, args: &[&str]) -> usize {
    project.build(&[args, &busybox()].concat()).success().count("CACHED")
}

#[test]
fn mode_name_and_content_of_a_file_count_and_ignored_files_do_not() {
    for user in BOTH {
        let project = with_base(user, "COPY d /d\nRUN true\n");
        project.file("d/f", "one").file("d/skip.log", "1").file(".dockerignore", "**/*.log\n");
        assert_eq!(cached(&project, &[]), 0);
        project.file("d/skip.log", "2").file("beside", "new");
        tool("touch", &["-d", "@1000000000", text(&project.context().join("d/f"))]);
        assert_eq!(cached(&project, &[]), 4);
        tool("chmod", &["600", text(&project.context().join("d/f"))]);
        assert_eq!(cached(&project, &[]), 2);
        fs::rename(project.context().join("d/f"), project.context().join("d/g")).unwrap();
        assert_eq!(cached(&project, &[]), 2);
        project.file("d/g", "two");
        assert_eq!(cached(&project, &[]), 2);
        assert_eq!(cached(&project, &[]), 4);
    }
}

#[test]
fn arguments_count_where_they_are_in_scope() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN echo before\nARG A\nRUN echo $A\nFROM base\nARG B\nCOPY --from=1 /bin/busybox /b\nRUN echo done\n",
        );
        let dockerfile = fs::read_to_string(project.context().join("Dockerfile")).unwrap();
        project.file("Dockerfile", dockerfile.replacen("RUN echo before", "FROM base AS one\nRUN echo before", 1));
        assert_eq!(cached(&project, &["--build-arg", "A=1"]), 0);
        assert_eq!(cached(&project, &["--build-arg", "A=1"]), 6);
        // The copied file is the same, so what comes after it is too.
        assert_eq!(cached(&project, &["--build-arg", "A=2"]), 5);
        assert_eq!(cached(&project, &["--build-arg", "A=2", "--build-arg", "UNUSED=1"]), 6);
        assert_eq!(cached(&project, &["--build-arg", "A=2", "--build-arg", "B=1"]), 5);
    }
}

#[test]
fn another_base_builds_anew_unless_only_its_content_is_used() {
    let base = Project::with(
        User::Root,
        "FROM scratch\nCOPY f /f\nCOPY --from=host busybox /bin/busybox\nARG N\nLABEL n=$N\n",
    );
    base.file("f", "1");
    let project = Project::with(User::Root, "FROM lay\nRUN [\"/bin/busybox\", \"touch\", \"/made\"]\n");
    let build = |n: &str| {
        let layout = Layout::built(&base, &[&["--build-arg", n], &busybox()[..]].concat());
        let context = format!("lay=oci-layout://{}", layout.0.display());
        project.build(&["--build-context", &context]).success().count("CACHED")
    };
    assert_eq!(build("N=1"), 0);
    assert_eq!(build("N=1"), 2);
    // Another label is another image, but steps see its layers only, and these are the same.
    assert_eq!(build("N=2"), 2);
    base.file("f", "2");
    assert_eq!(build("N=2"), 0);
}

#[test]
fn projects_with_one_state_directory_share_steps() {
    for user in BOTH {
        let (first, second) = (with_base(user, "COPY f /f\n"), with_base(user, "COPY f /f\nRUN cat /f\n"));
        first.file("f", "same");
        second.file("f", "same");
        let _ = first.build(&busybox()).success();
        let state = first.state();
        let root = ["--root", text(&state)];
        let mut command = second.command(crate::support::build::binary());
        command.args(root).args(["--progress", "plain"]).args(busybox()).arg(second.context());
        let output = crate::support::build::run(command).success();
        assert_eq!(output.count("CACHED"), 3, "{}", output.stderr);
    }
}

/// The digest of a build in a state directory of its own.
fn cold(project: &Project, args: &[&str]) -> Layout {
    let _ = fs::remove_dir_all(project.home().join("layout"));
    tool("sh", &["-c", &format!("chmod -R u+rwX {0} 2>/dev/null; rm -rf {0}", text(&project.state()))]);
    Layout::built(project, args)
}

#[test]
fn cold_builds_of_copies_have_the_same_layers() {
    for user in BOTH {
        let project =
            Project::with(user, "FROM scratch\nCOPY a /x/a\nCOPY --link d /d\nCOPY --chmod=600 <<EOF /e\ntext\nEOF\n");
        project.file("a", "a").file("d/1", "1").file("d/2", "2");
        for path in ["a", "d/1", "d/2", "d"] {
            tool("touch", &["-d", "@1700000000", text(&project.context().join(path))]);
        }
        let (first, second) = (cold(&project, &[]).layers(), cold(&project, &[]).layers());
        assert_eq!(first.len(), 3);
        // A directory that is made, and a file of a here-document, have the time of the build.
        assert_eq!(first[1], second[1]);
    }
}

#[test]
fn source_date_epoch_gives_equal_images() {
    let mut digests = Vec::new();
    for user in BOTH {
        // What a here-document makes, or a parent directory, has the time of the build, as with BuildKit.
        let dockerfile = "FROM scratch\nCOPY --link d /linked/\nWORKDIR /w\nENV A=1\n";
        let project = Project::with(user, dockerfile);
        project.file("d/f", "content");
        for path in ["d/f", "d"] {
            tool("touch", &["-d", "@1500000000", text(&project.context().join(path))]);
        }
        let args = ["--build-arg", "SOURCE_DATE_EPOCH=1600000000"];
        for _ in 0..2 {
            digests.push(cold(&project, &args).digest());
        }
        let config = cold(&project, &args).config();
        assert_eq!(config["created"], "2020-09-13T12:26:40Z");
        assert!(config["history"].as_array().unwrap().iter().all(|h| h["created"] == "2020-09-13T12:26:40Z"));
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn equal_steps_run_once_and_unneeded_ones_never() {
    for user in BOTH {
        let project = with_base(
            user,
            "FROM base AS one\nRUN echo same-step\nFROM base AS two\nRUN echo same-step\nFROM base AS never\nRUN exit 1\nFROM scratch\nCOPY --from=one /bin/busybox /1\nCOPY --from=two /bin/busybox /2\n",
        );
        let output = project.build(&busybox()).success().silent_about("exit 1");
        let lines = output.stderr.lines().filter(|line| line.ends_with(" same-step") && !line.contains("RUN")).count();
        assert_eq!(lines, 1, "{}", output.stderr);
        assert!(Path::new(&project.state()).exists());
    }
}
