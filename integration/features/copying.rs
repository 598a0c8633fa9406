//! COPY and ADD with their flags.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::image::Layout;
use super::{text, tool, with_base};
use crate::support::build::{BOTH, Project, busybox};

#[test]
fn owners_and_modes() {
    for user in BOTH {
        let project = with_base(
            user,
            "COPY <<EOF /etc/passwd\napp:x:1000:1001::/:/bin/sh\nEOF\nCOPY <<EOF /etc/group\nstaff:x:50:\nEOF\n\
             COPY --chown=7:8 f /number\nCOPY --chown=app f /name\nCOPY --chown=app:staff d /dir\nCOPY --chown=9 f /half\n\
             COPY --chmod=640 f /octal\nCOPY --chmod=u=rwX,go=rX d /symbolic\nCOPY --chmod=a+x f /plus\nUSER app\nCOPY f /by-user\n\
             USER root\nRUN stat -c '%n %a %u:%g' /number /name /dir /dir/x /half /octal /symbolic /symbolic/x /plus /by-user > /stat\n",
        );
        project.file("f", "").file("d/x", "");
        tool("chmod", &["644", text(&project.context().join("f")), text(&project.context().join("d/x"))]);
        let expected = "/number 644 7:8\n/name 644 1000:1001\n/dir 755 1000:50\n/dir/x 644 1000:50\n/half 644 9:9\n/octal 640 0:0\n\
                        /symbolic 755 0:0\n/symbolic/x 644 0:0\n/plus 755 0:0\n/by-user 644 0:0\n";
        assert_eq!(project.built(&busybox(), "stat"), expected);
        // As BuildKit does, though not silently.
        let _ = with_base(user, "COPY --chown=nobody-here Dockerfile /\n")
            .build(&busybox())
            .success()
            .says("user nobody-here is not in /etc/passwd: user 0 is used");
    }
}

#[test]
fn linked_copies_are_layers_of_their_own() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN mkdir /real && ln -s real /d && echo base > /real/old\nCOPY --link f /linked/f\nCOPY --link --chown=3:4 --from=host busybox /x/\nRUN ls -ln /linked/f /x/busybox /real/old | tr -s ' ' | cut -d' ' -f3,4 > /ls\n",
        );
        project.file("f", "one");
        let out = project.files(&busybox());
        assert_eq!(fs::read_to_string(out.join("linked/f")).unwrap(), "one");
        assert_eq!(fs::read_to_string(out.join("ls")).unwrap(), "0 0\n0 0\n3 4\n");
        let layout = Layout::built(&project, &busybox());
        let layers = layout.layers();
        assert!(layout.listing(3).contains("linked/f") && !layout.listing(3).contains("real"), "{}", layout.listing(3));
        // Another base makes no other copy of it.
        let dockerfile = fs::read_to_string(project.context().join("Dockerfile")).unwrap();
        project.file("Dockerfile", dockerfile.replace("echo base", "echo another base"));
        let again = Layout::built(&project, &busybox()).layers();
        assert_eq!((&again[3], again[2] == layers[2]), (&layers[3], false));
    }
}

#[test]
fn patterns_parents_and_exclusions() {
    for user in BOTH {
        let dockerfile = "FROM scratch\nCOPY *.txt /glob/\nCOPY a/b c /into/\nCOPY a /as-dir\nCOPY a/b/deep.txt /renamed\nCOPY --parents a/b/deep.txt ./c/*.md /parents/\n\
                          COPY --parents ./a/./b/deep.txt /pivot/\nCOPY --parents **/*.md /all/\nCOPY --exclude=*.md --exclude=b a c /without/\nCOPY [\"with space\", \"/s p/\"]\nCOPY a/b/../top.txt /dots\n";
        let project = Project::with(user, dockerfile);
        project
            .file("x.txt", "")
            .file("y.txt", "")
            .file("z.md", "")
            .file("a/top.txt", "top")
            .file("a/b/deep.txt", "deep");
        project.file("a/read.md", "").file("c/one.md", "").file("c/two", "").file("with space", "s");
        let out = project.files(&[]);
        let found = tool("sh", &["-c", &format!("cd {} && find . -type f | sort", text(&out))]);
        let expected = [
            "./all/a/read.md",
            "./all/c/one.md",
            "./all/z.md",
            "./as-dir/b/deep.txt",
            "./as-dir/read.md",
            "./as-dir/top.txt",
            "./dots",
            "./glob/x.txt",
            "./glob/y.txt",
            "./into/deep.txt",
            "./into/one.md",
            "./into/two",
            "./parents/a/b/deep.txt",
            "./parents/c/one.md",
            "./pivot/b/deep.txt",
            "./renamed",
            "./s p/with space",
            "./without/top.txt",
            "./without/two",
        ];
        assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn sources_are_stages_by_name_by_number_and_images() {
    for user in BOTH {
        let base = Project::with(user, "FROM scratch\nCOPY f /in-image\n");
        base.file("f", "image");
        let layout = Layout::built(&base, &[]);
        let dockerfile = "FROM scratch\nCOPY f /zero\nFROM scratch AS named\nCOPY --from=0 /zero /one\nFROM scratch\n\
                          COPY --from=named /one /by-name\nCOPY --from=0 /zero /by-number\nCOPY --from=Named one /by-case\nCOPY --from=lay /in-image /by-image\n";
        let project = Project::with(user, dockerfile);
        project.file("f", "stage");
        let context = format!("lay=oci-layout://{}", layout.0.display());
        let out = project.files(&["--build-context", &context]);
        for (name, content) in
            [("by-name", "stage"), ("by-number", "stage"), ("by-case", "stage"), ("by-image", "image")]
        {
            assert_eq!(fs::read_to_string(out.join(name)).unwrap(), content, "{name}");
        }
    }
}

#[test]
fn links_times_and_hard_links_are_kept() {
    for user in BOTH {
        let project = with_base(user, "COPY d /d\nCOPY d/link /followed\n");
        project.file("d/f", "content");
        std::os::unix::fs::symlink("f", project.context().join("d/link")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", project.context().join("d/out")).unwrap();
        tool("touch", &["-d", "@1000000000", text(&project.context().join("d/f"))]);
        let out = project.files(&busybox());
        assert_eq!(fs::read_link(out.join("d/link")).unwrap(), *"f");
        assert_eq!(fs::read_link(out.join("d/out")).unwrap(), *"../../../../etc/passwd");
        assert_eq!(fs::metadata(out.join("d/f")).unwrap().mtime(), 1_000_000_000);
        assert_eq!(fs::read_to_string(out.join("followed")).unwrap(), "content");
    }
}

#[test]
fn archives_are_unpacked_by_add_and_only_then() {
    for user in BOTH {
        let project = with_base(
            user,
            "ADD plain.tar z.tar.gz b.tar.bz2 x.tar.xz s.tar.zst /add/\nCOPY plain.tar /copy/\nADD --unpack=false z.tar.gz /kept/\n\
             ADD --chown=5:6 z.tar.gz /owned/\nADD not.tar /not/\nRUN stat -c '%a %u:%g' /add/z /owned/z > /stat\n",
        );
        let context = project.context();
        for (name, flag, archive) in [
            ("plain", "-cf", "plain.tar"),
            ("z", "-czf", "z.tar.gz"),
            ("b", "-cjf", "b.tar.bz2"),
            ("x", "-cJf", "x.tar.xz"),
            ("s", "--zstd -cf", "s.tar.zst"),
        ] {
            let dir = project.home().join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(name), name).unwrap();
            tool("chmod", &["640", text(&dir.join(name))]);
            let words: Vec<&str> = flag.split(' ').collect();
            let place = context.join(archive);
            tool("tar", &[&["--owner=3", "--group=4", "-C", text(&dir)], &words[..], &[text(&place), name]].concat());
        }
        project.file("not.tar", "no archive");
        let out = project.files(&busybox());
        for name in ["plain", "z", "b", "x", "s"] {
            assert_eq!(fs::read_to_string(out.join("add").join(name)).unwrap(), name);
        }
        assert!(
            out.join("copy/plain.tar").exists()
                && out.join("kept/z.tar.gz").exists()
                && out.join("not/not.tar").exists()
        );
        assert_eq!(fs::read_to_string(out.join("stat")).unwrap(), "640 3:4\n640 5:6\n");
    }
}

/// What `tar` says of one layer, with extended attributes.
fn attributes(layout: &Layout, layer: usize) -> String {
    let digest = layout.layers()[layer].replace("sha256:", "");
    tool("tar", &["--xattrs", "--xattrs-include=*", "-tzvvf", text(&layout.0.join("blobs/sha256").join(digest))])
}

#[test]
fn link_replaces_a_linked_parent_and_leaves_what_it_names() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN mkdir /real && ln -s real /d && echo base > /real/old\nCOPY --link f /d/f\n\
             RUN stat -c %F /d > /kind; ls /real > /names\nCOPY --link --parents a/b /d/\nCOPY --link --exclude=x a /e/\n",
        );
        project.file("f", "one").file("a/b", "b").file("a/x", "");
        let out = project.files(&busybox());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!((read("kind"), read("names")), ("directory\n".into(), "old\n".into()));
        assert_eq!((read("d/f"), read("d/a/b"), read("e/b")), ("one".into(), "b".into(), "b".into()));
        assert!(!out.join("e/x").exists());
        // Without it the link is followed.
        let followed = with_base(user, "RUN mkdir /real && ln -s real /d\nCOPY f /d/f\n");
        followed.file("f", "one");
        let out = followed.files(&busybox());
        assert_eq!(fs::read_to_string(out.join("real/f")).unwrap(), "one");
        assert_eq!(fs::read_link(out.join("d")).unwrap(), *"real");
    }
}

#[test]
fn link_twice_is_two_layers_as_history_says() {
    for user in BOTH {
        let project = with_base(user, "COPY --link f /f\nRUN rm /f\nCOPY --link f /f\n");
        project.file("f", "one");
        let layout = Layout::built(&project, &busybox());
        let layers = layout.layers();
        assert_eq!((layers.len(), &layers[2]), (5, &layers[4]));
        let config = layout.config();
        let history = config["history"].as_array().unwrap();
        assert_eq!(history.iter().filter(|entry| entry["empty_layer"] != true).count(), 5);
        assert_eq!(project.built(&busybox(), "f"), "one");
        let child = Project::with(user, "FROM lay\nCOPY g /g\n");
        child.file("g", "");
        let context = format!("lay=oci-layout://{}", layout.0.display());
        assert_eq!(child.built(&["--build-context", &context], "f"), "one");
    }
}

#[test]
fn link_knows_owners_by_number_only() {
    for user in BOTH {
        let passwd = "COPY <<EOF /etc/passwd\napp:x:1000:1001::/:/bin/sh\nEOF\n";
        let project = with_base(user, &format!("{passwd}COPY --link --chown=app f /f\n"));
        project.file("f", "");
        let said = project.build(&busybox()).failure(3).says("\"app\"").says("Dockerfile:7").says("--chown=1000:1000");
        assert!(said.stderr.contains("--link"), "{}", said.stderr);
    }
}

#[test]
fn owners_are_those_before_the_step() {
    for user in BOTH {
        // Of several sources the first one brings another /etc/passwd, which the second one must not see.
        let project = with_base(
            user,
            "COPY <<EOF /etc/passwd\napp:x:1000:1001::/:/bin/sh\nEOF\nCOPY --chown=app passwd f /etc/\nRUN stat -c '%u:%g' /etc/passwd /etc/f > /stat\n",
        );
        project.file("passwd", "app:x:7:8::/:/bin/sh\n").file("f", "");
        assert_eq!(project.built(&busybox(), "stat"), "1000:1001\n1000:1001\n");
    }
}

#[test]
fn attributes_holes_and_special_files_are_kept() {
    for user in BOTH {
        let project = with_base(
            user,
            "FROM base AS made\nRUN mkdir /d && cd /d && mkfifo -m 640 pipe && dd if=/dev/zero of=holes bs=1 count=1 seek=64M 2>/dev/null && \
             echo x > f && ln f hard && ln -s f soft && ln -s /nowhere dangling && chmod 4755 f && touch -d @1000000000 f && touch -h -d @1000000001 soft\n\
             FROM base\nCOPY --from=made /d /d\nRUN stat -c %b /d/holes > /blocks; stat -c %s /d/holes > /size; stat -c '%h %a %Y' /d/f > /f; \
             stat -c '%a %F' /d/pipe > /pipe; stat -c %Y /d/soft > /soft; [ /d/f -ef /d/hard ] && echo same > /same\nCOPY attr /attr\n",
        );
        project.file("attr", "x");
        tool("setfattr", &["-n", "user.note", "-v", "kept", text(&project.context().join("attr"))]);
        let out = project.files(&busybox());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert!(read("blocks").trim().parse::<u64>().unwrap() < 1000, "{}", read("blocks"));
        assert_eq!(read("size"), "67108865\n");
        assert_eq!((read("f"), read("pipe")), ("2 4755 1000000000\n".into(), "640 fifo\n".into()));
        assert_eq!((read("soft"), read("same")), ("1000000001\n".into(), "same\n".into()));
        assert_eq!(fs::read_link(out.join("d/dangling")).unwrap(), *"/nowhere");
        let layout = Layout::built(&project, &busybox());
        let listed = attributes(&layout, layout.layers().len() - 1);
        assert!(listed.contains("user.note"), "{listed}");
    }
}

#[test]
fn directories_merge_and_keep_what_is_there() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN mkdir -p /x/s && echo kept > /x/kept && echo old > /x/f && chmod 700 /x && chown 3:4 /x /x/s\n\
             COPY d /x\nCOPY d /new/deep\nCOPY d d/s /both/\nCOPY d/f d/s/g /files/\nCOPY d/f /plain\nCOPY d/f /slash/\nCOPY d/. /dot/\n\
             RUN stat -c '%n %a %u:%g' /x /x/s /new /new/deep > /stat\n",
        );
        project.file("d/f", "new").file("d/s/g", "g");
        let context = project.context();
        tool("chmod", &["711", text(&context.join("d"))]);
        tool("chmod", &["750", text(&context.join("d/s"))]);
        let out = project.files(&busybox());
        let found =
            tool("sh", &["-c", &format!("cd {} && find x new both files plain slash dot -type f | sort", text(&out))]);
        let expected = "both/f\nboth/g\nboth/s/g\ndot/f\ndot/s/g\nfiles/f\nfiles/g\nnew/deep/f\nnew/deep/s/g\nplain\nslash/f\nx/f\nx/kept\nx/s/g\n";
        assert_eq!(found, expected);
        assert_eq!(fs::read_to_string(out.join("x/f")).unwrap(), "new");
        // The directory copied to keeps its looks, or is made with the usual ones; those below get the source's.
        assert_eq!(
            fs::read_to_string(out.join("stat")).unwrap(),
            "/x 700 3:4\n/x/s 750 0:0\n/new 755 0:0\n/new/deep 755 0:0\n"
        );
        for (copy, told) in [("COPY dir/f /", "cannot replace to directory /f with file"), ("COPY dir /", "/f")] {
            let clash = with_base(user, &format!("RUN mkdir /f\n{copy}\n"));
            let _ = clash.file("dir/f", "").build(&busybox()).failure(3).says(told).says("Dockerfile:5");
        }
    }
}

#[test]
fn unpacking_can_be_asked_for_and_refused() {
    for user in BOTH {
        let project = with_base(
            user,
            "ADD --unpack=true a.tar /yes/\nADD --unpack a.tar /also/\nADD --unpack=false a.tar /no/\nADD a.t* /glob/\nADD --chmod=700 a.tar /mode/\n\
             ADD --link a.tar /linked/\nRUN stat -c %a /mode/f > /mode-of-f\n",
        );
        let place = project.home().join("f");
        fs::write(&place, "x").unwrap();
        tool("chmod", &["640", text(&place)]);
        tool("tar", &["-C", text(project.home()), "-cf", text(&project.context().join("a.tar")), "f"]);
        project.own(&project.context());
        let out = project.files(&busybox());
        for path in ["yes/f", "also/f", "glob/f", "mode/f", "linked/f", "no/a.tar"] {
            assert!(out.join(path).exists(), "{path}");
        }
        assert_eq!(fs::read_to_string(out.join("mode-of-f")).unwrap(), "640\n");
    }
}

#[test]
fn exclusions_with_exceptions_and_parents_with_links() {
    for user in BOTH {
        let dockerfile = "FROM scratch\nCOPY --exclude=** --exclude=!keep/*.md . /some/\nCOPY --exclude=a/*/c --parents a keep/./x.md /p/\n\
                          COPY --parents ./a/b/./c ./**/x.md /pivot/\nCOPY --parents nothing*/here /none/\n\
                          ADD --exclude=b/d --exclude=*.md a keep top.md /added/\n";
        let project = Project::with(user, dockerfile);
        project.file("keep/x.md", "").file("keep/y.txt", "").file("a/b/c", "").file("a/b/d", "").file("top.md", "");
        let out = project.files(&[]);
        let found = tool("sh", &["-c", &format!("cd {} && find . -type f | sort | tr '\\n' ' '", text(&out))]);
        // What is named itself is copied: exclusions are for what is below.
        assert_eq!(
            found,
            "./added/b/c ./added/top.md ./added/y.txt ./p/a/b/d ./p/x.md ./pivot/c ./pivot/keep/x.md ./some/keep/x.md "
        );
        let missing = Project::with(user, "FROM scratch\nCOPY --parents a/none /p/\n");
        let _ = missing.file("a/b", "").build(&[]).failure(3).says("/a/none").says("Dockerfile:2");
    }
}
