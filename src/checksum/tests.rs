//! Digests against values of BuildKit's, and against a model of the rules.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::sys::dir::Dir;

fn write(root: &Path, name: &str, mode: u32, data: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
    std::fs::write(&path, data).expect("write");
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
}

fn chmod(root: &Path, name: &str, mode: u32) {
    std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).expect("chmod");
}

/// The tree of the worked example: `COPY a.txt dir/ ./`.
fn example() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().expect("temp dir");
    let root = temp.path();
    write(root, "a.txt", 0o644, "hello a\n");
    write(root, "dir/empty", 0o644, "");
    write(root, "dir/one.txt", 0o644, "one\n");
    write(root, "dir/sub/two.txt", 0o644, "two two\n");
    symlink("one.txt", root.join("dir/lnk")).expect("symlink");
    chmod(root, "dir", 0o755);
    chmod(root, "dir/sub", 0o750);
    let dir = Dir::open(root).expect("open");
    (temp, dir)
}

fn plain(path: &str) -> Selector {
    Selector { path: path.to_owned(), follow: true, ..Selector::default() }
}

#[test]
fn the_worked_example() {
    let (_temp, dir) = example();
    let tree = Tree::new(&dir, None, Ids::Root);
    let digest = content_digest(&tree, &dedupe(&[plain("/dir"), plain("/a.txt")])).expect("digest");
    assert_eq!(digest.hex(), "5470b7ab13feaeea59c2196dc0b824a2a55bb2421ffac0ea2cec29cb9a4689a8");
    let parts = [
        ("/a.txt", "4a80a3a51482272abe92298edf95e2be9a9a443f5c2e470e253d461a136ed95a"),
        ("/dir/empty", "700591407496206b27e3739e92128dd4d3a119e929d3b3677835a1ab6627aa3d"),
        ("/dir/sub", "eee214c1d4a5efabcd43c49484c8c97dab27cbfa7630a7af118e2ea14c4b7e8f"),
        ("/dir/lnk", "1ebd8e8717aaf392da65b76c5bdd99459008a17e4e314018cf17770f72d44f55"),
    ];
    for (path, hex) in parts {
        let digest = content_digest(&tree, &[plain(path)]).expect(path);
        assert_eq!(digest, Digest::compute(format!("sha256:{hex}")), "{path}");
    }
}

/// A tree with all that is odd, ignore rules and owners included.
fn odd() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().expect("temp dir");
    let root = temp.path();
    for (name, mode, data) in [
        ("Dockerfile", 0o644, "FROM scratch\n"),
        ("a.tmp", 0o600, "ignored"),
        ("set.bin", 0o4755, "set"),
        ("real/x.txt", 0o640, "x"),
        ("real/sub/y.txt", 0o644, "y"),
        ("real/sub/deeper/y.txt", 0o600, "yy"),
        ("real/skipme/f", 0o644, "skipped"),
        ("weird dir/a b", 0o644, "ab"),
        ("zdir/a/b", 0o644, "hidden"),
        ("zdir/a/c", 0o644, "kept"),
        ("zdir/a-b", 0o644, "sorts between"),
        ("zdir/a.b", 0o644, "a.b"),
        ("zdir/\u{fc}n\u{ef}code", 0o644, "u"),
    ] {
        write(root, name, mode, data);
    }
    let raw = |name: &[u8]| root.join(OsStr::from_bytes(name));
    std::fs::create_dir_all(raw(b"zdir/n1/\xffsub")).expect("mkdir");
    for name in [&b"zdir/n1/\xffst"[..], b"zdir/n1/\xffsub/\xffdeep", b"zdir/\xffstart", b"zdir/bad\xff\xfename"] {
        std::fs::write(raw(name), "odd").expect("write");
    }
    for (name, target) in [
        ("lnkdir", "real"),
        ("lnkfile", "real/x.txt"),
        ("real/up", "../zdir/a.b"),
        ("zdir/lnkabs", "/real/sub"),
        ("zdir/lnkdang", "nowhere"),
        ("zdir/lnkout", "../../../../Dockerfile"),
    ] {
        symlink(target, root.join(name)).expect("symlink");
    }
    std::fs::hard_link(root.join("Dockerfile"), root.join("real/hard")).expect("link");
    let dir = Dir::open(root).expect("open");
    dir.make_node(OsStr::new("fifo"), 0o010_644, 0).expect("fifo");
    for name in ["real", "real/sub", "real/sub/deeper", "real/skipme", "weird dir", "zdir", "zdir/a", "zdir/n1"] {
        chmod(root, name, 0o755);
    }
    std::fs::set_permissions(raw(b"zdir/n1/\xffsub"), PermissionsExt::from_mode(0o700)).expect("chmod");
    chmod(root, "zdir", 0o1777);
    chmod(root, "", 0o755);
    dir.chmod(OsStr::new("fifo"), 0o622).expect("chmod");
    dir.open_dir(OsStr::new("zdir")).expect("open").chown(OsStr::new("a.b"), 5, 6).expect("chown");
    dir.set_xattr(OsStr::new("set.bin"), OsStr::new("user.note"), b"\0value").expect("xattr");
    dir.set_xattr(OsStr::new("zdir"), OsStr::new("user.dir"), b"d").expect("xattr");
    dir.set_xattr(OsStr::new("set.bin"), OsStr::new("security.other"), b"no").expect("xattr");
    (temp, dir)
}

const RULES: [&str; 4] = ["*.tmp", "zdir/a", "!zdir/a/c", "**/skipme"];

/// Path, `w` for wildcard and `f` for follow, include and exclude patterns.
const SELECTORS: [(&str, &str, &[&str], &[&str]); 30] = [
    ("/", "", &[], &[]),
    ("/", "f", &[], &["**/x.txt"]),
    ("/real", "f", &[], &[]),
    ("/lnkdir", "f", &[], &[]),
    ("/lnkdir", "", &[], &[]),
    ("/lnkdir/sub", "", &[], &[]),
    ("/zdir", "f", &[], &[]),
    ("/zdir/n1", "f", &[], &[]),
    ("/set.bin", "f", &[], &[]),
    ("/fifo", "f", &[], &[]),
    ("/weird dir/a b", "f", &[], &[]),
    ("/zdir/lnkabs", "f", &[], &[]),
    ("/zdir/lnkout", "f", &[], &[]),
    ("/none/../real/up", "f", &[], &[]),
    ("/*", "wf", &[], &[]),
    ("/*", "w", &[], &[]),
    ("/lnk*", "wf", &[], &[]),
    ("/lnkdir/*", "wf", &[], &[]),
    ("/lnkdir/s*/y.???", "wf", &[], &[]),
    ("/real/[^s]*", "wf", &[], &[]),
    ("/zdir/a*", "wf", &[], &["c"]),
    ("/none*", "wf", &[], &[]),
    ("/real/x.t*", "wf", &[], &[]),
    ("/real", "f", &["sub/*/y.txt"], &[]),
    ("/real", "f", &["**/y.txt", "!sub/y.txt"], &[]),
    ("/lnkdir/sub", "f", &["deeper"], &[]),
    ("/", "f", &["zdir/a*"], &["**/c"]),
    ("/zdir", "f", &[], &["*", "!a.b"]),
    ("/real/x.txt", "f", &[], &["foo"]),
    ("/*dir", "wf", &["**/a*"], &["zdir"]),
];

/// What an independent implementation, itself checked against caches BuildKit wrote, gives for the selectors: as a context.
const CONTEXT: [&str; 30] = [
    "ea4c4eaab4d86fa32573b80705904cd419dc5fd49f0f401d29a691e53df5b49c",
    "c3a977e34fca8da38d4c4b62d12df8f0f0f7e812f798486e7025ab309881a505",
    "d24787b9b9f0042c2061bf3e8eae3f28d5e4ab68d05024e82c5379563c9e69c9",
    "d24787b9b9f0042c2061bf3e8eae3f28d5e4ab68d05024e82c5379563c9e69c9",
    "cff45bff8750ad73bd0eaf3923f8bddda92fb1746972c5635b6987d6b310a381",
    "b7278189c2de901a7f6a1e35d00b98bb17ccace4ba2b38e620296adb7d43670d",
    "057309128a11f980f3d13b347c5ca09132cf49e89a83447ec1df8b8765cdea8f",
    "e3bf64ea2a1030282d920c1910ede5a115f3dc016504a9a140d5645a3de68ebc",
    "1e3230e0008d758f32f734e1887efbd2e39f02465dbf053fe51f413b28f7569e",
    "7cc6896c2c24613979e304a6dc0a731c59bc9d29949ab167d0824d5303975be6",
    "a59d23b4693e1030f54175f12a3eb5c9fa320250993bc0ce4e53eeee3fae8e2d",
    "b7278189c2de901a7f6a1e35d00b98bb17ccace4ba2b38e620296adb7d43670d",
    "73a24c7f9d761341d18270c1b90686dee5a640db6a7aefe37468f7b6b01b2f36",
    "67676943bb533c933ebf99fa450daa739586a7582ebf6ec8d648726bc3b98a99",
    "9e9c0a5bc783018516cac7a1fec9190bc215c373e03afeba6b5461ac1d06283c",
    "c95728b77e9e7c2c515f42e9c38b172cd3d6b3de6d93b5fe218c34a5894a2a61",
    "3112874c25c4a9d5938d56d78344e14c9e7f214fae99c445dd3fcccf7c8cf6b8",
    "48b01f560aba98cddeef91cb32f7c02364bac8d3bbf641e913111418f3d7c878",
    "1ac5c5e96932cc1c90dfb3882af42105364495caa9e0c1ba23ebc9c920d0f78c",
    "f4a121b17c93ec3b42ea29949f6a64e196b017d0ded2620b293f9cabb2da66eb",
    "5dc3330036cc42082b9a058349c5f74062f83824ae25582e98350384032f22c7",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "61942ed44ec8b38e179be3def3e382a19b67c8bfdd63b32956591da04936dd0b",
    "6bb79aa1ff7c84a393ca91d0c7c52d3f5b60d1789b91158b724474c68cc8cfc6",
    "6bb79aa1ff7c84a393ca91d0c7c52d3f5b60d1789b91158b724474c68cc8cfc6",
    "cf07f7963a0af606e4d0e94953622fbd10214711de2e4583979f6192ea93ae04",
    "04de3a17ca7187f51b779ebd7095c6b12f1ae67d5f6c9d8d282cf5d79aa27cdc",
    "0ad11afa842cdcc1835c11d65a7191718963415cfa87ff5b4afcc953d46c9698",
    "c10673f2ef01c824bd17d6521f3a5d09cbc81115e247bd14939a04fb4d119de9",
    "9eb7e3e6032d20118d2f59adac8684acaf33512e08a3f3b5d579fa48b207bfa1",
];

/// The same as a snapshot.
const SNAPSHOT: [&str; 30] = [
    "e43ca7789848231904399087474ae1e6e6ec48a74729f46c35148e17f5b49043",
    "1dda304688f886390d8ad26ceef30af663e5cd5314eb43dba896547baeab39fd",
    "9667c5f9a5bbcd89e8f543ded2b37836c5b4a4364bb68b4e546345e051fa7d04",
    "9667c5f9a5bbcd89e8f543ded2b37836c5b4a4364bb68b4e546345e051fa7d04",
    "cff45bff8750ad73bd0eaf3923f8bddda92fb1746972c5635b6987d6b310a381",
    "b7278189c2de901a7f6a1e35d00b98bb17ccace4ba2b38e620296adb7d43670d",
    "ac377abceb67e8a82362b7680fc7e2e96181743a56ec04d9bac4892ae2f0d8a3",
    "e3bf64ea2a1030282d920c1910ede5a115f3dc016504a9a140d5645a3de68ebc",
    "1e3230e0008d758f32f734e1887efbd2e39f02465dbf053fe51f413b28f7569e",
    "7cc6896c2c24613979e304a6dc0a731c59bc9d29949ab167d0824d5303975be6",
    "a59d23b4693e1030f54175f12a3eb5c9fa320250993bc0ce4e53eeee3fae8e2d",
    "b7278189c2de901a7f6a1e35d00b98bb17ccace4ba2b38e620296adb7d43670d",
    "73a24c7f9d761341d18270c1b90686dee5a640db6a7aefe37468f7b6b01b2f36",
    "3719a26131db9e9e429991de42f0b237e9b1118a7985b773429ca53e1e8b9b4b",
    "39cba634b3e7a63e8aa3dfb266d7a7caa4b7c0de36e68d6597add566a6496f44",
    "fccdaea25a13bc6cd7f467e20abdc173ed323cf460dd74022430db2261d3129f",
    "2db9960eb75a04ce774b67f3f3db97979d1dedb1f3981a6a027d97187a9b2834",
    "d65de58120596f10f23f6600a1744117a56fa7bd6773ac805ef6f55114fe5663",
    "1ac5c5e96932cc1c90dfb3882af42105364495caa9e0c1ba23ebc9c920d0f78c",
    "4e6491bc5ccb32cb0662a6df23220c3ed32f4d4d1e0edee9b35bd7dba509f927",
    "5fbe0e99dca8a5f592be9d70b48af20fc62e770231146577a3d150f21ae8f1b5",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "61942ed44ec8b38e179be3def3e382a19b67c8bfdd63b32956591da04936dd0b",
    "6bb79aa1ff7c84a393ca91d0c7c52d3f5b60d1789b91158b724474c68cc8cfc6",
    "6bb79aa1ff7c84a393ca91d0c7c52d3f5b60d1789b91158b724474c68cc8cfc6",
    "cf07f7963a0af606e4d0e94953622fbd10214711de2e4583979f6192ea93ae04",
    "793350fd696b86d50995b03a8a996f73b87d8656e5cc2168dc64064cbbc8b9ee",
    "a54ae9d3fa3a7335850a88fb262cc85e4b37898378bf94f460d42d48eb149d95",
    "c10673f2ef01c824bd17d6521f3a5d09cbc81115e247bd14939a04fb4d119de9",
    "bfe14bdf8e3bcef247c4b839e9a4a0cafd2166ac043d392ff1d7293cc418bb4f",
];

#[test]
fn selectors_of_an_odd_tree() {
    let (_temp, dir) = odd();
    let rules = Filter::new(&RULES.map(str::to_owned)).expect("rules");
    for (tree, digests) in
        [(Tree::new(&dir, Some(&rules), Ids::Root), &CONTEXT), (Tree::new(&dir, None, Ids::Keep), &SNAPSHOT)]
    {
        for ((path, flags, include, exclude), hex) in SELECTORS.iter().zip(digests) {
            let list = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
            let (wildcard, follow) = (flags.contains('w'), flags.contains('f'));
            let (include, exclude) = (list(include), list(exclude));
            let selector =
                Selector { path: (*path).to_owned(), follow, wildcard, include, exclude, required: Vec::new() };
            let digest = content_digest(&tree, std::slice::from_ref(&selector)).expect(path);
            assert_eq!(digest, Digest::compute(format!("sha256:{hex}")), "{:?} {selector:?}", tree.ids);
        }
    }
}

#[test]
fn what_is_missing_is_an_error_that_names_it() {
    let (_temp, dir) = odd();
    let tree = Tree::new(&dir, None, Ids::Keep);
    let required = |path: &str| Selector {
        path: "/".to_owned(),
        include: vec!["real/*".to_owned()],
        required: vec![path.to_owned()],
        ..Selector::default()
    };
    content_digest(&tree, &[required("/real/x.txt")]).expect("there");
    for selector in [plain("/none"), plain("/zdir/lnkdang"), plain("/set.bin/x"), required("/zdir/a.b")] {
        let error = content_digest(&tree, std::slice::from_ref(&selector)).expect_err("missing");
        assert!(matches!(error, ChecksumError::NotFound { .. }), "{selector:?}: {error}");
    }
    dir.make_symlink(OsStr::new("loop"), OsStr::new("loop")).expect("symlink");
    let tree = Tree::new(&dir, None, Ids::Keep);
    assert!(matches!(content_digest(&tree, &[plain("/loop")]), Err(ChecksumError::TooManyLinks { .. })));
}

#[test]
fn the_empty_tree_has_only_a_root() {
    let empty = Digest::compute(b"");
    assert_eq!(scratch_digest(&[plain("/")]).expect("root"), Digest::compute(empty.as_str()));
    assert!(scratch_digest(&[plain("/a")]).is_err());
}

#[test]
fn covered_selectors_are_left_out() {
    let wild = Selector { wildcard: true, ..plain("/a/*") };
    let found = dedupe(&[plain("/b"), plain("/a/b/c"), wild.clone(), plain("/a/b"), plain("/a/bc"), plain("/b")]);
    assert_eq!(found, [wild, plain("/a/b"), plain("/a/bc"), plain("/b")]);
}

#[test]
fn f6_hostile_patterns_are_errors_or_match() {
    let (_temp, dir) = odd();
    let tree = Tree::new(&dir, None, Ids::Keep);
    crate::sys::within(std::time::Duration::from_secs(1), || {
        for pattern in ["[", "\\", "[]a]", "[^", "a[", "*[", "/zdir/[", &"*a".repeat(500), &"a**b".repeat(200)] {
            let selector = Selector { path: format!("/{pattern}"), wildcard: true, ..Selector::default() };
            let _ = content_digest(&tree, &[selector]);
            let _ = tree.glob(&format!("/{pattern}"), true);
            let exclude = vec![pattern.to_owned()];
            let _ = content_digest(&tree, &[Selector { exclude, ..Selector::default() }]);
        }
    });
}

/// BuildKit's walk over sorted keys, taken literally: names joined by NUL, a directory left by skipping to `NUL 0xff` in it.
fn model(keys: &BTreeMap<Vec<u8>, String>, directory: &[u8]) -> String {
    let mut hasher = crate::digest::Hasher::new();
    let header = [directory, b"\0"].concat();
    hasher.update(b"\0");
    hasher.update(keys[&header].as_bytes());
    let mut from = [directory, b"\0\0"].concat();
    while let Some((key, digest)) = keys.range(from.clone()..).next().filter(|(key, _)| key.starts_with(&header)) {
        hasher.update(&key[directory.len()..]);
        if digest.is_empty() {
            hasher.update(model(keys, key).as_bytes());
            from = [key, &b"\0\xff"[..]].concat();
        } else {
            hasher.update(digest.as_bytes());
            from = [key, &b"\0"[..]].concat();
        }
    }
    hasher.finish().to_string()
}

fn file_digest(kind: char, mode: u32, data: &[u8]) -> String {
    let header = format!("namemode{mode}uid0gid0size{}typeflag{kind}linknameunamegnamedevmajor0devminor0", data.len());
    Digest::compute([header.as_bytes(), data].concat()).to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn directories_are_hashed_as_by_the_literal_walk(
        paths in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![&b"a"[..], b"a!", b"b", b"\xff", b"\xffz", b"-"]), 1..5), 0..14),
    ) {
        let temp = tempfile::tempdir().expect("temp dir");
        let mut keys = BTreeMap::from([(Vec::new(), String::new()), (vec![0], Digest::compute(b"").to_string())]);
        for path in paths {
            let (name, parents) = path.split_last().expect("one at least");
            let mut at = temp.path().to_owned();
            let mut key = Vec::new();
            for parent in parents {
                at.push(OsStr::from_bytes(parent));
                key = [&key, &b"\0"[..], parent].concat();
                if !at.exists() {
                    std::fs::create_dir(&at).expect("mkdir");
                    std::fs::set_permissions(&at, PermissionsExt::from_mode(0o750)).expect("chmod");
                    keys.insert(key.clone(), String::new());
                    keys.insert([&key, &b"\0"[..]].concat(), file_digest('5', 0o750, b""));
                } else if at.is_file() {
                    break;
                }
            }
            let file = at.join(OsStr::from_bytes(name));
            if at.is_dir() && !file.exists() {
                std::fs::write(&file, name).expect("write");
                std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("chmod");
                keys.insert([&key, &b"\0"[..], name].concat(), file_digest('0', 0o640, name));
            }
        }
        let dir = Dir::open(temp.path()).expect("open");
        let digest = content_digest(&Tree::new(&dir, None, Ids::Root), &[]).expect("digest");
        prop_assert_eq!(digest, Digest::compute(model(&keys, b"")));
    }
}

#[test]
fn f5_a_tree_of_any_depth_is_walked() {
    let temp = tempfile::tempdir().expect("temp dir");
    let mut dir = Dir::open(temp.path()).expect("open");
    for _ in 0..5000 {
        dir.make_dir(OsStr::new("d"), 0o755).expect("mkdir");
        dir = dir.open_dir(OsStr::new("d")).expect("open");
    }
    let root = Dir::open(temp.path()).expect("open");
    let walk = || content_digest(&Tree::new(&root, None, Ids::Root), &[]).expect("digest");
    crate::sys::within(std::time::Duration::from_secs(5), walk);
}

#[test]
fn a_file_is_hashed_once_and_remembered_as_it_was() {
    let (temp, dir) = example();
    let tree = Tree::new(&dir, None, Ids::Root);
    let before = content_digest(&tree, &[plain("/a.txt")]).expect("digest");
    let entry = tree.entry(b"a.txt", true).expect("entry").expect("there");
    assert!(entry.hashed.is_some() && entry.unchanged(&dir.stat(OsStr::new("a.txt")).expect("stat")));
    write(temp.path(), "a.txt", 0o644, "HELLO A\n");
    assert!(!entry.unchanged(&dir.stat(OsStr::new("a.txt")).expect("stat")));
    assert_eq!(content_digest(&tree, &[plain("/a.txt")]).expect("digest"), before);
    let fresh = Tree::new(&dir, None, Ids::Root);
    assert_ne!(content_digest(&fresh, &[plain("/a.txt")]).expect("digest"), before);
}

#[test]
fn sizes_are_those_of_what_is_named() {
    let temp = tempfile::tempdir().expect("temp dir");
    for (name, data) in [("a.txt", "1"), ("b.txt", "22"), ("d/c", "4444"), ("d/e/f", "88888888"), ("d/skip", "no")] {
        std::fs::create_dir_all(temp.path().join(name).parent().expect("parent")).expect("mkdir");
        write(temp.path(), name, 0o644, data);
    }
    std::os::unix::fs::symlink("b.txt", temp.path().join("link")).expect("symlink");
    let dir = Dir::open(temp.path()).expect("open");
    let filter = crate::pattern::Matcher::new(&["d/skip".to_owned()]).expect("pattern");
    let tree = Tree::new(&dir, Some(&filter), Ids::Root);
    for (paths, size) in [
        (&[][..], 15),
        (&["a.txt"], 1),
        (&["link"], 2),
        (&["*.txt"], 3),
        (&["d"], 12),
        (&["d/", "/d/c", "d/*"], 12),
        (&["none", "d/none", "../a.txt"], 1),
    ] {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(tree.size_of(&paths).expect("size"), size, "{paths:?}");
    }
    for unknown in ["[", "d/none/*"] {
        assert!(tree.size_of(&[unknown.into()]).is_err(), "{unknown}");
    }
}
