//! Hostile layers: archives with members that no honest tar writes, unpacked below an image that is exported.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use super::{Image, Scene, as_both, image, lines, tools};
use crate::support::build::{Output, User, is_optimised};
use crate::support::image::{CHAR, DIR, FIFO, FILE, HARD, LINK, Member, PAX, RawTar};

/// Builds an image of these layers alone, and exports its files.
fn unpack(scene: &mut Scene, layers: impl IntoIterator<Item = RawTar>) -> Output {
    let image = Image::of(layers);
    pull(scene, &image)
}

fn pull(scene: &mut Scene, image: &Image) -> Output {
    let output = exported(scene, image);
    scene.build("FROM evil\n", &["-o", &output])
}

/// Makes an image the one that is exported, and returns the output.
fn exported(scene: &mut Scene, image: &Image) -> String {
    scene.contexts.clear();
    scene.image("evil", image);
    let out = scene.project.home().join("out");
    let _absent = fs::remove_dir_all(&out);
    format!("type=local,dest={}", out.display())
}

/// Most memory that a layer may make a build take.
const T7_MEMORY: u64 = 256 << 20;

/// As [`pull`], which must not take more memory than a layer may.
fn pull_bounded(scene: &mut Scene, image: &Image) -> Output {
    let output = exported(scene, image);
    let (output, peak) = scene.measured("FROM evil\n", &["-o", &output]);
    assert!(peak < T7_MEMORY, "{peak} bytes: {}", output.stderr);
    output
}

/// The content of an exported file, if it is one.
fn text(scene: &Scene, path: &str) -> Option<String> {
    let place = scene.project.home().join("out").join(path);
    let is_file = fs::symlink_metadata(&place).is_ok_and(|stat| stat.is_file());
    is_file.then(|| fs::read_to_string(place).unwrap())
}

/// A PAX record.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let mut record = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (record.len()..).find(|total| total.to_string().len() + record.len() == *total).unwrap();
    record.splice(0..0, length.to_string().into_bytes());
    record
}

/// A member with a PAX record before it.
fn with_record(key: &str, value: &[u8], member: &Member<'_>) -> RawTar {
    let record = record(key, value);
    RawTar::default().member(&Member { data: &record, ..Member::new(PAX, b"PaxHeaders/x") }).member(member)
}

#[test]
fn t1_names_stay_inside() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        for (name, lands) in [
            ("../x", None),
            ("a/../../x", None),
            ("a/..", None),
            ("/x", Some("x")),
            ("//x", Some("x")),
            ("./x", Some("x")),
            (".//a/./x", Some("a/x")),
        ] {
            let output = unpack(&mut scene, [RawTar::default().file(name, 0o644, "in")]);
            assert_eq!(output.code == 0, lands.is_some(), "{name}: {}", output.stderr);
            assert_eq!(lands.and_then(|path| text(&scene, path)).as_deref(), lands.map(|_| "in"), "{name}");
        }
        let nul = with_record("path", b"a\0b", &Member { data: b"in", ..Member::new(FILE, b"f") });
        let _ = unpack(&mut scene, [nul]).failure(4);
        for name in [&b""[..], b"x/", b"x/."] {
            let member = Member { data: b"in", ..Member::new(FILE, name) };
            let output = unpack(&mut scene, [RawTar::default().member(&member)]);
            assert!(output.code == 0 || output.code == 4, "{}", output.stderr);
        }
        assert!(!scene.project.home().join("x").exists() && !scene.project.state().join("x").exists());
    });
}

#[test]
fn t1_links_of_this_layer_and_of_lower_ones_lead_nowhere() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        let inside = host.trim_start_matches('/').to_owned();
        for to in [
            "/",
            "..",
            "../../../../..",
            "l2",
            &host,
            &format!("../../../..{host}"),
            "/proc/self/cwd",
            "/proc/self/root",
        ] {
            let link = RawTar::default().link("l2", "/").link("l", to);
            let file = |tar: RawTar| tar.file("l/f", 0o666, "in").dir("l/d").file("l/d/f", 0o600, "in");
            let _ = unpack(&mut scene, [file(link.clone())]);
            // An honest reader sees a link replaced by a directory where another layer writes below it.
            let _ = unpack(&mut scene, [link, file(RawTar::default())]);
        }
        let _ = unpack(&mut scene, [RawTar::default().link("l", &host).file("l/f", 0o644, "in")]).success();
        assert_eq!(text(&scene, &format!("{inside}/f")).as_deref(), Some("in"));
        let run = RawTar::default().dir("var").link("var/run", "/run").file("var/run/f", 0o644, "in");
        let _ = unpack(&mut scene, [run]).success();
        assert_eq!(text(&scene, "run/f").as_deref(), Some("in"));
    });
}

#[test]
fn t2_metadata_follows_no_link() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        let wide = Member { mode: 0o777, owner: 7, ..Member::new(DIR, b"d") };
        for to in [host.as_str(), &format!("../../../..{host}"), &format!("{host}/f")] {
            let _ = unpack(&mut scene, [RawTar::default().link("d", to).member(&wide)]);
            let _ = unpack(&mut scene, [RawTar::default().member(&wide).link("d", to)]);
            let _ = unpack(&mut scene, [RawTar::default().link("d", to), RawTar::default().member(&wide)]);
            let link = Member { mode: 0o4777, owner: 9, link: to.as_bytes(), ..Member::new(LINK, b"l") };
            let _ = unpack(&mut scene, [RawTar::default().member(&link)]);
        }
    });
}

#[test]
fn t3_hard_links_stay_inside() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        let victim = scene.project.home().join("victim");
        fs::write(&victim, scene.canary.text()).unwrap();
        scene.project.own(&victim);
        let wide = |name, to| Member { mode: 0o4777, owner: 9, link: to, ..Member::new(HARD, name) };
        let in_host = format!("{host}/f");
        for to in
            ["victim", "../victim", "/victim", victim.to_str().unwrap(), "s", "d", "l", "later", "", ".", "/", &in_host]
        {
            let tar = RawTar::default().link("s", &in_host).dir("d").member(&wide(b"l", to.as_bytes()));
            let _ = unpack(&mut scene, [tar.file("later", 0o644, "x")]);
            let _ = unpack(
                &mut scene,
                [RawTar::default().link("s", &in_host), RawTar::default().member(&wide(b"l", to.as_bytes()))],
            );
            assert_ne!(text(&scene, "l").as_deref(), Some(scene.canary.text()), "{to}");
        }
        let stat = fs::metadata(&victim).unwrap();
        assert_eq!((stat.nlink(), stat.mode() & 0o7777), (1, 0o644));
        let _ = unpack(&mut scene, [RawTar::default().file("a", 0o600, "x").hard("b", "a")]).success();
        assert_eq!(text(&scene, "b").as_deref(), Some("x"));
    });
}

#[test]
fn t4_the_root_is_a_directory() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        for name in [".", "./", "/"] {
            for kind in [LINK, FILE, FIFO, HARD, CHAR] {
                let member = Member { link: host.as_bytes(), ..Member::new(kind, name.as_bytes()) };
                let _ = unpack(&mut scene, [RawTar::default().member(&member)]).failure(4);
            }
        }
        let root = Member { mode: 0o700, ..Member::new(DIR, b"./") };
        scene.contexts.clear();
        scene.image("evil", &image(|tar| tar.member(&root)));
        assert_eq!(lines(&scene.build("FROM evil\nRUN stat -c %a /\n", &[]).success()), ["700"]);
    });
}

#[test]
fn t5_archives_of_two_meanings_are_refused() {
    let record = |key: &str, value: &str, member: &Member<'_>| with_record(key, value.as_bytes(), member).0;
    let file = Member { data: b"text", ..Member::new(FILE, b"f") };
    let inner = RawTar::default().file("hidden", 0o644, "x").0;
    let mut broken_sum = RawTar::default().member(&file).0;
    broken_sum[0] = b'g';
    let mut huge = RawTar::default().member(&file).0;
    huge[124..136].copy_from_slice(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let mut bad_record =
        RawTar::default().member(&Member { data: b"999 path=x\n", ..Member::new(PAX, b"x") }).member(&file).0;
    bad_record.truncate(bad_record.len());
    let refused: [(&str, Vec<u8>); 7] = [
        ("wrong sum", broken_sum),
        ("size beyond 64 bits", huge),
        ("record with a wrong length", bad_record),
        ("negative size", record("size", "-1", &file)),
        ("size larger than the archive", record("size", "9223372036854775807", &file)),
        ("size that is no number", record("size", "x", &file)),
        (
            "truncated",
            RawTar::default().member(&Member { data: &[0; 2000], ..Member::new(FILE, b"f") }).0[..1024].to_vec(),
        ),
    ];
    as_both(|user| {
        let mut scene = Scene::new(user);
        for (name, bytes) in &refused {
            let tar = if *name == "truncated" { bytes.clone() } else { RawTar(bytes.clone()).end() };
            let output = pull(&mut scene, &Image::of([]).blob(tar.clone(), tar, ""));
            assert_eq!(output.code, 4, "{name}: {}", output.stderr);
        }
        // The record's size counts: what it covers is content and no member.
        let member = Member { data: &inner, size: Some(0), ..Member::new(FILE, b"outer") };
        let _ = unpack(&mut scene, [with_record("size", inner.len().to_string().as_bytes(), &member)]).success();
        assert_eq!((text(&scene, "outer").map(|text| text.len()), text(&scene, "hidden")), (Some(inner.len()), None));
    });
}

#[test]
fn t6_whiteouts_delete_inside_only() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        let below = RawTar::default().file("keep", 0o644, "x").link("l", &host).dir("d").file("d/f", 0o644, "x");
        for name in [
            ".wh.",
            ".wh..",
            ".wh...",
            "d/.wh..",
            "d/.wh...",
            "l/.wh.f",
            "l/.wh..wh..opq",
            ".wh.l/f",
            "l/d/.wh.f",
            ".wh..wh.x",
        ] {
            let _ = unpack(&mut scene, [below.clone(), RawTar::default().file(name, 0o644, "")]);
            let _ = unpack(&mut scene, [below.clone().file(name, 0o644, "")]);
            let _ = unpack(&mut scene, [below.clone(), RawTar::default().dir(name)]);
            let _ = unpack(&mut scene, [below.clone(), RawTar::default().file(name, 0o644, "data")]);
        }
        let twice =
            RawTar::default().file(".wh.keep", 0o644, "").file(".wh.keep", 0o644, "").file("d/.wh.f", 0o644, "");
        let _ = unpack(&mut scene, [below.clone(), twice]).success();
        assert_eq!((text(&scene, "keep"), text(&scene, "d/f")), (None, None));
        let opaque = RawTar::default().dir("d").file("d/.wh..wh..opq", 0o644, "").file("d/new", 0o644, "x");
        let _ = unpack(&mut scene, [below, opaque]).success();
        assert_eq!((text(&scene, "d/f"), text(&scene, "d/new").as_deref()), (None, Some("x")));
    });
}

fn gzip(bytes: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for piece in bytes {
        encoder.write_all(&piece).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn t7_what_a_layer_expands_to_is_bounded() {
    // 100 MiB of nothing in 100 KiB are no bomb, but what a step with `dd` makes.
    let head = RawTar::default().member(&Member { size: Some(100 << 20), ..Member::new(FILE, b"zeros") }).0;
    let zeros = [head, vec![0; 100 << 20], vec![0; 1024]].concat();
    let harmless = gzip([zeros.clone()]);
    let member = Member { data: b"text", ..Member::new(FILE, b"f") };
    let deep = "d/".repeat(1500);
    let named = |key: &str, value: &str| with_record(key, value.as_bytes(), &member).end();
    let cases = [
        ("long name", named("path", &"n".repeat(5000))),
        ("long component", named("path", &"n".repeat(300))),
        ("deep", named("path", &deep)),
        ("large record", named("comment", &"c".repeat(2 << 20))),
        ("large attribute", named("SCHILY.xattr.user.x", &"v".repeat(128 << 10))),
        ("sparse", named("GNU.sparse.realsize", "4611686018427387904")),
        ("large file", named("size", &(101_u64 << 30).to_string())),
    ];
    // An empty member of gzip is nothing, a million of them are not more.
    let members = [gzip([Vec::new()]).repeat(1_000_000), gzip([member_alone()])].concat();
    as_both(|user| {
        let mut scene = Scene::new(user);
        let _ = pull_bounded(&mut scene, &Image::of([]).blob(zeros.clone(), harmless.clone(), "+gzip")).success();
        let _ = pull_bounded(&mut scene, &Image::of([]).blob(member_alone(), members.clone(), "+gzip")).success();
        // A frame that asks for a window of 2 GiB.
        let window = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        let _ = pull_bounded(&mut scene, &Image::of([]).blob(Vec::new(), window, "+zstd")).failure(4);
        for (name, tar) in &cases {
            let output = pull_bounded(&mut scene, &Image::of([]).blob(tar.clone(), tar.clone(), ""));
            let limit = if *name == "large file" { "size of the files in a layer" } else { "" };
            assert!(output.stderr.contains(limit), "{}", output.stderr);
            assert!(
                output.code == 4
                    || (*name == "sparse" && output.code == 0)
                    || (*name == "long component" && output.code == 5),
                "{name}: {}",
                output.stderr
            );
        }
        for mtime in ["99999999999999999999", "-9223372036854775808", "nan", "1e400"] {
            let _ = pull(&mut scene, &Image::of([with_record("mtime", mtime.as_bytes(), &member)]));
        }
        let left = super::state::names_below(&scene.project.state());
        assert!(!left.iter().any(|name| name.starts_with("nnn")), "{left:?}");
    });
}

fn member_alone() -> Vec<u8> {
    RawTar::default().file("f", 0o644, "text").end()
}

/// Compresses a mebibyte, and lets it come so many times: members of gzip follow one another.
fn mebibytes(of: &[u8], count: usize) -> Vec<u8> {
    gzip([of.repeat((1 << 20) / of.len())]).repeat(count)
}

#[test]
fn t7_the_number_of_entries_and_the_growth_of_a_layer_have_limits() {
    let mut scene = Scene::new(User::Rootless);
    let mut stops = |blob: Vec<u8>, limits: [&str; 2]| {
        let output = pull_bounded(&mut scene, &Image::of([]).blob(member_alone(), blob, "+gzip")).failure(4);
        let _ = output.says(limits[0]).says(limits[1]);
        let left = super::state::names_below(&scene.project.state().join("tmp"));
        assert_eq!(left, ["guard"], "what was begun is removed");
    };
    // Zeros behind the end of the archive, for which nothing is written.
    stops(mebibytes(&[0], 5500), ["4 GiB", "200 times its size"]);
    if !is_optimised() {
        // What is ten seconds' work is five minutes' then, and more than the time a build has here.
        return tell(
            "without RBUILD_UNDER_TEST, which integration/run test sets, the number of entries is not looked at",
        );
    }
    // Global headers: members for which nothing is made. One more than ten million of them.
    let entry = RawTar::default().member(&Member::new(b'g', b"pax_global_header")).0;
    stops(mebibytes(&entry, 10_000_000 / 2048 + 1), ["the number of tar entries", "10000000"]);
}

#[expect(clippy::print_stderr, reason = "for whoever runs this by hand")]
fn tell(what: &str) {
    eprintln!("{what}");
}

#[test]
fn t8_nothing_is_used_that_was_not_verified() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let tar = RawTar::default().file("only-in-evil", 0o644, "x").end();
        let whole = gzip([tar.clone()]);
        let other = RawTar::default().file("only-in-evil", 0o644, "y").end();
        let cases = [
            ("another diff id", tar.clone(), gzip([other])),
            ("bytes after the stream", tar.clone(), [&whole[..], b"more"].concat()),
            ("a cut stream", tar.clone(), whole[..whole.len() - 9].to_vec()),
        ];
        for (name, claimed, blob) in cases {
            let output = pull(&mut scene, &Image::of([]).blob(claimed, blob, "+gzip"));
            assert_eq!(output.code, 4, "{name}: {}", output.stderr);
            let left = super::state::names_below(&scene.project.state());
            assert!(!left.contains(&"only-in-evil".to_owned()), "{name}: {left:?}");
        }
        // A blob that is not what its name says.
        let good = Image::of([]).blob(tar, whole.clone(), "+gzip");
        scene.contexts.clear();
        scene.image("evil", &good);
        let hex = rbuild::digest::Digest::compute(&whole).as_str().replace("sha256:", "");
        let blob = scene.project.home().join("layout-evil/blobs/sha256").join(hex);
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        fs::write(&blob, flipped).unwrap();
        let _ = scene
            .build("FROM evil\n", &["-o", &format!("type=local,dest={}", scene.project.home().join("o").display())])
            .failure(4);
        assert!(!super::state::names_below(&scene.project.state()).contains(&"only-in-evil".to_owned()));
        let _ = pull(&mut scene, &good).success();
        assert_eq!(text(&scene, "only-in-evil").as_deref(), Some("x"));
    });
}

/// All orders of six kinds.
fn orders(kinds: &[u8]) -> Vec<Vec<u8>> {
    if kinds.len() < 2 {
        return vec![kinds.to_vec()];
    }
    let rest = |first: u8| kinds.iter().copied().filter(|kind| *kind != first).collect::<Vec<_>>();
    kinds
        .iter()
        .flat_map(|first| orders(&rest(*first)).into_iter().map(|order| [&[*first], &order[..]].concat()))
        .collect()
}

#[test]
fn t9_the_last_of_a_name_wins_and_none_is_written_through() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let host = scene.canary.path().to_owned();
        // Rootless there are no devices in layers.
        let kinds: &[u8] =
            if user == User::Root { &[FILE, DIR, LINK, HARD, FIFO, CHAR] } else { &[FILE, DIR, LINK, HARD, FIFO] };
        let orders = orders(kinds);
        let mut tar = RawTar::default().file("target", 0o644, "target");
        for (index, order) in orders.iter().enumerate() {
            for kind in order {
                let name = format!("p{index}");
                let link = if *kind == LINK { format!("{host}/f") } else { "target".to_owned() };
                let data: &[u8] = if *kind == FILE { b"content" } else { b"" };
                tar = tar.member(&Member {
                    link: link.as_bytes(),
                    data,
                    device: (1, 3),
                    ..Member::new(*kind, name.as_bytes())
                });
            }
        }
        scene.image("evil", &Image::of([tools(), tar]));
        let script = "for n in $(ls / | grep ^p); do echo $n $(stat -c %F /$n | tr ' ' -); done";
        let output = scene.build(&format!("FROM evil\nRUN {script}\n"), &[]).success();
        let seen: std::collections::BTreeMap<String, String> = lines(&output)
            .iter()
            .filter_map(|line| line.split_once(' '))
            .map(|(n, k)| (n.to_owned(), k.to_owned()))
            .collect();
        for (index, order) in orders.iter().enumerate() {
            let expected = match *order.last().unwrap() {
                DIR => "directory",
                LINK => "symbolic-link",
                FIFO => "fifo",
                CHAR => "character-special-file",
                _ => "regular-file",
            };
            assert_eq!(seen.get(&format!("p{index}")).map(String::as_str), Some(expected), "{order:?}");
        }
    });
}

#[test]
fn t10_attributes_of_the_host_are_not_set() {
    // `cap_net_raw+ep` as a file says it, and an access list for user 7.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let entry = |tag: u8, permission: u8, id: [u8; 4]| [&[tag, 0, permission, 0][..], &id].concat();
    let none = [0xff; 4];
    let entries = [(1, 6, none), (2, 4, [7, 0, 0, 0]), (4, 4, none), (16, 4, none), (32, 4, none)];
    let acl: Vec<u8> =
        [2, 0, 0, 0].into_iter().chain(entries.into_iter().flat_map(|(t, p, id)| entry(t, p, id))).collect();
    let attributes: [(&str, &[u8]); 12] = [
        ("security.capability", &capability),
        ("user.kept", b"yes"),
        ("system.posix_acl_access", &acl),
        ("user.overlay.opaque", b"y"),
        ("user.overlay.redirect", b"/etc"),
        ("user.overlay.whiteout", b"y"),
        ("trusted.overlay.opaque", b"y"),
        ("trusted.other", b"x"),
        ("security.selinux", b"system_u:object_r:bin_t:s0"),
        ("security.ima", b"\x04"),
        ("security.evm", b"\x02"),
        ("security.apparmor", b"x"),
    ];
    let records: Vec<u8> =
        attributes.iter().flat_map(|(name, value)| record(&format!("SCHILY.xattr.{name}"), value)).collect();
    as_both(|user| {
        let told = |tar: RawTar| {
            let scene = Scene::with(user, &Image::of([super::tools().file("bin/probe", 0o755, super::probe()), tar]));
            let dockerfile = "FROM evil\nRUN [\"/bin/probe\", \"attributes\", \"/f\"]\nRUN cat /f\n";
            let mut seen = lines(&scene.build(dockerfile, &[]).success());
            seen.sort();
            seen
        };
        let before = RawTar::default().member(&Member { data: &records, ..Member::new(PAX, b"PaxHeaders/f") });
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let seen = told(before.file("f", 0o644, "content"));
        let expected = [
            format!("/f security.capability={}", hex(&capability)),
            format!("/f system.posix_acl_access={}", hex(&acl)),
            "/f user.kept=796573".to_owned(),
            "content".to_owned(),
        ];
        assert_eq!(seen, expected);
    });
}
