//! Images whose files lie in wait: links for `/proc`, `/dev` and `/etc`, users without end, programs that nobody should run.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Scene, as_both, image, lines};
use crate::support::image::{DIR, FIFO, Member};

/// How much more memory a build may take for files of users that are meant to exhaust it.
const E7_GROWTH: u64 = 32 << 20;

#[test]
fn e7_files_of_users_are_read_with_bounds() {
    as_both(|user| {
        for (index, make) in [
            "mkfifo /etc/passwd",
            "ln -s /dev/zero /etc/passwd",
            "ln -s /proc/self/mem /etc/passwd",
            "mkdir /etc/passwd",
            "truncate -s 8G /etc/passwd",
            "yes u | head -c 9000000 | tr -d '\\n' > /etc/passwd",
            "echo u:x:1:1::/: > /etc/passwd; (echo -n g:x:5:; yes u, | head -c 30000000 | tr -d '\\n') > /etc/group",
            "mkfifo /etc/group; echo u:x:1:1::/: > /etc/passwd",
        ]
        .into_iter()
        .enumerate()
        {
            let scene = Scene::with(user, &image(|tar| tar));
            // The same with a file that is as it should be.
            let plain = "echo u:x:1:1::/: > /etc/passwd; echo g:x:5: > /etc/group";
            let dockerfile = format!("FROM evil\nUSER 0:0\nRUN {plain}\nUSER u\nRUN echo reached\n");
            let (_, usual) = scene.measured(&dockerfile, &[]);
            let dockerfile = format!("FROM evil\nUSER 0:0\nRUN {make}\nUSER u\nRUN echo reached-{index}\n");
            let (output, peak) = scene.measured(&dockerfile, &[]);
            let output = output.failure(1);
            assert!(peak < usual + E7_GROWTH, "{make}: {peak} bytes, and {usual} usually");
            assert!(lines(&output).is_empty(), "{make}: {}", output.stderr);
            // Owners by name come from the same files; a name that is not found is root, as BuildKit has it.
            let dockerfile = format!("FROM evil\nUSER 0:0\nRUN {make}\nCOPY --chown=u:g Dockerfile /d\n");
            let (_, peak) = scene.measured(&dockerfile, &[]);
            assert!(peak < usual + E7_GROWTH, "{make}: {peak} bytes, and {usual} usually");
        }
    });
}

#[test]
fn e8_links_in_the_place_of_proc_and_sys_lead_nowhere() {
    as_both(|user| {
        for (name, to) in [("proc", "$H"), ("proc", "tmp"), ("sys", "/"), ("sys", "$H/d"), ("proc", "../../..$H")] {
            let mut scene = Scene::new(user);
            let to = to.replace("$H", scene.canary.path());
            scene.image("evil", &image(|tar| tar.link(name, &to)));
            let output = scene.build("FROM evil\nRUN stat -f -c %T /proc\n", &[]);
            assert!(output.code == 1 || lines(&output) == ["proc"], "{name} {to}: {}", output.stderr);
        }
        // A procfs made of files is hidden by the real one.
        let fake = image(|tar| {
            let tar = tar.dir("proc").dir("proc/self").dir("proc/self/attr").file("proc/self/attr/exec", 0o666, "");
            tar.file("proc/mounts", 0o644, "fake").dir("proc/sys").link("proc/sys/kernel", "/tmp")
        });
        let scene = Scene::with(user, &fake);
        let dockerfile = "FROM evil\nVOLUME [\"/proc\", \"/sys\", \"/dev\"]\nRUN stat -f -c %T /proc /proc/self /proc/sys/kernel; grep -c fake /proc/mounts; true\n";
        assert_eq!(lines(&scene.build(dockerfile, &[]).success()), ["proc", "proc", "proc", "0"]);
    });
}

#[test]
fn e9_masks_do_not_come_from_the_image() {
    as_both(|user| {
        for case in ["link", "file", "absent"] {
            let scene = Scene::with(
                user,
                &image(|tar| match case {
                    "link" => tar.dir("dev").link("dev/null", "/proc/sys/kernel/core_pattern"),
                    "file" => tar.dir("dev").file("dev/null", 0o666, "mask"),
                    _ => tar,
                }),
            );
            let dockerfile = "FROM evil\nRUN for f in kcore keys timer_list interrupts sched_debug latency_stats timer_stats; do \
                [ ! -e /proc/$f ] || stat -c %t:%T /proc/$f; done | sort -u; stat -c %t:%T /dev/null; \
                for d in /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do \
                [ ! -e $d ] || [ -z \"$(ls -A $d)\" ] || echo shown $d; done; \
                find /proc/sys /proc/sysrq-trigger /proc/irq /proc/bus /proc/fs -type f 2>/dev/null | \
                while read f; do (: >> $f) 2>/dev/null && echo open $f; done; true\n";
            assert_eq!(lines(&scene.build(dockerfile, &[]).success()), ["1:3", "1:3"], "{case}");
        }
    });
}

#[test]
fn e10_links_in_the_place_of_dev_lead_nowhere() {
    as_both(|user| {
        for (name, to) in [
            ("dev", "$H"),
            ("dev/pts", "$H/d"),
            ("dev/console", "$H/f"),
            ("dev/shm", "$H/x"),
            ("dev/null", "$H/f"),
            ("dev", ""),
        ] {
            let mut scene = Scene::new(user);
            let to = to.replace("$H", scene.canary.path());
            let evil = image(|tar| match (name, to.as_str()) {
                ("dev", "") => tar.file("dev", 0o644, ""),
                ("dev", _) => tar.link(name, &to),
                _ => tar.dir("dev").link(name, &to),
            });
            scene.image("evil", &evil);
            let dockerfile = "FROM evil\nRUN stat -f -c %T /dev; echo x > /dev/console; echo x > /dev/null; echo x > /dev/shm/y; echo x > /dev/pts/0; true\n";
            let output = scene.build(dockerfile, &[]);
            let inside = lines(&output).iter().any(|line| line == "tmpfs");
            assert!(output.code == 1 || inside, "{name} {to}: {}", output.stderr);
        }
    });
}

#[test]
fn e11_a_working_directory_is_made_inside_the_image() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        scene.image("evil", &image(|tar| tar.link("w", &host).link("w2", &format!("../../..{host}"))));
        scene.project.file(
            "Dockerfile",
            "FROM evil\nUSER 1000\nWORKDIR /w/new\nRUN echo in > f\nWORKDIR /w2/newer\nRUN echo in > f\n",
        );
        let contexts: Vec<&str> = scene.contexts.iter().map(String::as_str).collect();
        let inside = host.trim_start_matches('/');
        assert_eq!(scene.project.built(&contexts, &format!("{inside}/new/f")), "in\n");
        assert_eq!(scene.project.built(&contexts, &format!("{inside}/newer/f")), "in\n");
        scene.canary.assert_untouched("e11");
    });
}

const TROJANS: [&str; 14] = [
    "xz",
    "unxz",
    "gzip",
    "gunzip",
    "unpigz",
    "bzip2",
    "zstd",
    "tar",
    "git",
    "newuidmap",
    "newgidmap",
    "getent",
    "ldconfig",
    "docker",
];

/// Makes an archive of one file with a program of this machine.
fn archive(context: &Path, name: &str, option: &str) {
    fs::write(context.join(name.replace('.', "-")), name).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(context).args([option, "-cf"]).arg(context.join(name)).arg(name.replace('.', "-"));
    assert!(tar.status().unwrap().success(), "{name}");
}

#[test]
fn e18_no_program_or_library_of_the_image_runs_outside_a_step() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let script = format!("#!/bin/sh\ntouch /sprung {0}/sprung\necho {0} > {0}/f\n", scene.canary.path());
        let evil = image(|tar| {
            let tar = tar.dir("usr").dir("usr/bin").dir("lib");
            let tar = TROJANS.iter().fold(tar, |tar, name| {
                tar.file(&format!("bin/{name}"), 0o755, &script).file(&format!("usr/bin/{name}"), 0o755, &script)
            });
            let tar = tar.file("etc/nsswitch.conf", 0o644, "passwd: evil\ngroup: evil\n").file(
                "etc/ld.so.preload",
                0o644,
                "/lib/libnss_evil.so.2\n",
            );
            let tar = tar.file("lib/libnss_evil.so.2", 0o755, &script).file("lib/libnss_files.so.2", 0o755, &script);
            tar.file("etc/passwd", 0o644, "u:x:1000:1000::/:/bin/sh\n").file("etc/group", 0o644, "g:x:1001:\n")
        });
        scene.image("evil", &evil);
        let archives = [
            ("a.tar.gz", "-z"),
            ("b.tar.xz", "-J"),
            ("c.tar.bz2", "-j"),
            ("d.tar.zst", "--zstd"),
            ("e.tar", "--no-same-owner"),
        ];
        for (name, option) in archives {
            archive(&scene.project.context(), name, option);
        }
        let adds: String = archives.iter().map(|(name, _)| format!("ADD {name} /added/\n")).collect();
        let dockerfile = format!(
            "FROM evil\n{adds}COPY --chown=u:g Dockerfile /owned\nWORKDIR /made/here\nUSER u\nRUN stat -c %U:%G /owned\n"
        );
        let out = scene.files(&dockerfile, &[]);
        for (name, _) in archives {
            assert_eq!(fs::read_to_string(out.join("added").join(name.replace('.', "-"))).unwrap(), name);
        }
        assert!(!out.join("sprung").exists());
    });
}

#[test]
fn m8_names_and_resolvers_are_mounted_inside_the_image() {
    as_both(|user| {
        for case in ["etc", "files", "directory", "fifo"] {
            let mut scene = Scene::new(user);
            let host = scene.canary.path().to_owned();
            let evil = image(|tar| match case {
                "etc" => tar.link("etc", &host),
                "files" => tar
                    .link("etc/hosts", &format!("{host}/f"))
                    .link("etc/resolv.conf", &format!("../../../..{host}/new")),
                "directory" => tar.member(&Member::new(DIR, b"etc/hosts")),
                _ => tar.member(&Member::new(FIFO, b"etc/hosts")),
            });
            scene.image("evil", &evil);
            let output = scene.build("FROM evil\nRUN grep -c localhost /etc/hosts; echo x > /etc/hosts; true\n", &[]);
            assert!(output.code == 1 || lines(&output).iter().any(|line| line == "2"), "{case}: {}", output.stderr);
        }
    });
}
