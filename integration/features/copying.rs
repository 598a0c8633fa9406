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
