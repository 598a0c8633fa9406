//! The target of the station `snapshot`: layers on top of each other, against the rules of the OCI's specification in memory.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use rbuild::digest::{DiffId, Digest};
use rbuild::layer::fuzzing::{Member, write};
use rbuild::snapshot::{Chain, Origin, SnapshotKind, SnapshotOptions, Snapshots};
use rbuild::sys::dir::{Dir, Kind};

use super::feed::Feed;

/// Path to what is there.
type Tree = BTreeMap<String, String>;

const PATHS: [&str; 8] = ["a", "b", "d", "d/x", "d/y", "d/e", "d/e/z", "d/e/x"];

fn member(name: String, flag: u8, mode: u32, text: &str) -> Member {
    let (data, link) = if flag == b'2' { ("", text) } else { (text, "") };
    Member {
        flag,
        name: name.into_bytes(),
        link: link.into(),
        mode,
        owner: (0, 0),
        mtime: 1_700_000_000,
        device: (0, 0),
        xattrs: Vec::new(),
        size: data.len() as u64,
        data: data.into(),
    }
}

/// A layer whose directories come before what is in them; only directories are made under the names of directories.
fn layer(feed: &mut Feed<'_>) -> Vec<Member> {
    let mut members = Vec::new();
    for _ in 0..feed.byte() % 12 {
        let (path, choice, bits) = (feed.choose(&PATHS), feed.byte() % 8, feed.byte());
        let is_dir = PATHS.iter().any(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')));
        let (parent, name) = path.rsplit_once('/').map_or((String::new(), path), |(up, name)| (format!("{up}/"), name));
        members.push(match choice {
            0 | 1 => member(format!("{parent}.wh.{name}"), b'0', 0o644, ""),
            2 if is_dir => member(format!("{path}/.wh..wh..opq"), b'0', 0o644, ""),
            3 if is_dir => {
                // What overlay would obey, had the layer the right to say it.
                let mut claiming = member(format!("{path}/"), b'5', 0o700 | u32::from(bits & 0o77), "");
                claiming.xattrs = vec![(b"user.overlay.opaque".to_vec(), b"y".to_vec())];
                claiming
            }
            _ if is_dir => member(format!("{path}/"), b'5', 0o700 | u32::from(bits & 0o77), ""),
            4 => member(path.to_owned(), b'2', 0o777, ["d", "../a", "/x"][usize::from(bits) % 3]),
            5 => member(path.to_owned(), b'6', 0o644, ""),
            _ => member(path.to_owned(), b'0', 0o600 | u32::from(bits & 0o77), &format!("{path} {bits}")),
        });
    }
    let needs = |dir: &str| members.iter().any(|member| member.name.starts_with(dir.as_bytes()));
    let dirs: Vec<Member> = ["d/", "d/e/"]
        .into_iter()
        .filter(|dir| needs(dir))
        .map(|dir| member(dir.to_owned(), b'5', 0o755, ""))
        .collect();
    dirs.into_iter().chain(members).collect()
}

fn remove_below(tree: &mut Tree, path: &str) {
    tree.retain(|other, _| !other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')));
}

/// Whiteouts concern what lies below, wherever they stand; of the rest the last of a name counts, and directories merge.
fn over(lower: &Tree, layer: &[Member]) -> Tree {
    let mut tree = lower.clone();
    let name = |member: &Member| String::from_utf8(member.name.clone()).expect("ours");
    for path in layer.iter().map(name) {
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", &path));
        if last == ".wh..wh..opq" {
            remove_below(&mut tree, parent);
        } else if let Some(hidden) = last.strip_prefix(".wh.") {
            let hidden = if parent.is_empty() { hidden.to_owned() } else { format!("{parent}/{hidden}") };
            remove_below(&mut tree, &hidden);
            tree.remove(&hidden);
        }
    }
    for member in layer.iter().filter(|member| !name(member).contains(".wh.")) {
        let path = name(member).trim_end_matches('/').to_owned();
        if member.flag != b'5' {
            remove_below(&mut tree, &path);
        }
        let text = if member.flag == b'2' { &member.link } else { &member.data };
        let kind = match member.flag {
            b'5' => Kind::Directory,
            b'2' => Kind::Symlink,
            b'6' => Kind::Fifo,
            _ => Kind::File,
        };
        tree.insert(path, format!("{kind:?} {:o} {}", member.mode, String::from_utf8_lossy(text)));
    }
    tree
}

fn look(dir: &Dir, path: &str, tree: &mut Tree) {
    for name in dir.names().expect("names") {
        let stat = dir.stat(&name).expect("stat");
        let path = format!("{path}{}", name.to_string_lossy());
        let text = match stat.kind() {
            Kind::File => std::io::read_to_string(dir.open_file(&name).expect("open")).expect("read"),
            Kind::Symlink => dir.read_link(&name).expect("link").to_string_lossy().into_owned(),
            _ => String::new(),
        };
        tree.insert(path.clone(), format!("{:?} {:o} {text}", stat.kind(), stat.permissions()));
        if stat.is_dir() {
            look(&dir.open_dir(OsStr::new(&name)).expect("open"), &format!("{path}/"), tree);
        }
    }
}

/// Three layers look, mounted or copied, like the specification has it: what one hides is gone, what it merges is merged, and no
/// attribute of a layer hides anything.
pub fn overlay_layers(data: &[u8]) {
    let mut feed = Feed(data);
    let layers: Vec<Vec<Member>> = (0..3).map(|_| layer(&mut feed)).collect();
    let expected = layers.iter().fold(Tree::new(), |tree, layer| over(&tree, layer));
    for kind in [SnapshotKind::Overlay, SnapshotKind::Native] {
        let temp = tempfile::tempdir().expect("temporary directory");
        let options = SnapshotOptions { kind, ..SnapshotOptions::default() };
        let snapshots = Snapshots::open(&temp.path().join("state"), options).expect("snapshots");
        let mut chain = Chain::empty();
        for layer in &layers {
            let tar = write(layer).expect("ours");
            let unpacked = snapshots.unpack(tar.as_slice()).expect("a sound layer");
            let diff_id = DiffId(Digest::compute(&tar));
            chain = snapshots.adopt(&chain, unpacked, &diff_id, Origin::default()).expect("a sound layer");
        }
        let view = snapshots.view(&chain).expect("view");
        let mut found = Tree::new();
        look(view.dir(), "", &mut found);
        assert_eq!(found, expected, "{kind:?}");
    }
}
