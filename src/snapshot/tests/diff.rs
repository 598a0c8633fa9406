//! Differences of stacks: the layers between where there are some, else a layer that makes the one of the other.

use proptest::prelude::*;

use super::*;

#[test]
fn a_stack_on_another_differs_by_the_layers_between() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let one = scene.step(&Chain::empty(), "echo a > a; echo b > b");
        let two = scene.step(&one, "rm a; echo c > c");
        let three = scene.step(&two, "echo d > d");
        let diff = |lower: &Chain, upper: &Chain| scene.snapshots.diff(lower, upper, "diff").expect("diff");
        assert_eq!(diff(&one, &three).layers(), &three.layers()[1..]);
        assert_eq!(diff(&Chain::empty(), &two), two);
        assert_eq!(diff(&two, &two), Chain::empty());
        // On another stack they hide what they hid on their own.
        let other = scene.step(&Chain::empty(), "echo other > a; echo kept > k");
        let moved = Chain::merge(&[other, diff(&one, &two)]);
        assert_eq!(scene.list(&moved), ["/c 100644 0:0 c", "/k 100644 0:0 kept"], "{kind:?}");
    }
}

#[test]
fn stacks_of_their_own_differ_by_a_new_layer() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let lower = scene.step(
            &Chain::empty(),
            "echo same > same; touch -d @7 same; echo old > f; mkdir d gone; echo x > d/x; echo y > gone/y; echo l > l",
        );
        let upper = scene.step(
            &Chain::empty(),
            "echo same > same; touch -d @7 same; echo new > f; mkdir -m 700 d; echo z > d/z; ln d/z d/hard; mkdir l; echo in > l/in; ln -s f s; mkfifo p",
        );
        let diff = scene.snapshots.diff(&lower, &upper, "why").expect("diff");
        let [layer] = diff.layers() else { panic!("one layer") };
        let mut names = scene.packed(*layer);
        names.sort();
        let expected = [".wh.gone", "d/", "d/.wh.x", "d/hard", "d/z", "f", "l/", "l/in", "p", "s"];
        assert_eq!(names, expected, "{kind:?}: what is the same is not in it");
        assert_eq!(scene.snapshots.info(*layer).expect("info").description, "why");
        assert_eq!(scene.list(&Chain::merge(&[lower.clone(), diff.clone()])), scene.list(&upper), "{kind:?}");
        let view = scene.snapshots.view(&diff).expect("view");
        let hard =
            |name: &str| view.dir().open_dir(OsStr::new("d")).expect("open").stat(OsStr::new(name)).expect("stat");
        assert_eq!((hard("hard").ino, hard("hard").nlink), (hard("z").ino, 2), "{kind:?}");
        // Elsewhere it changes the same paths and nothing else.
        let other = scene.step(&Chain::empty(), "mkdir d gone; echo 1 > d/x; echo 2 > d/kept; echo 3 > other");
        let paths = |chain: &Chain| -> Vec<String> {
            scene.list(chain).iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
        };
        let expected = ["/d", "/d/hard", "/d/kept", "/d/z", "/f", "/l", "/l/in", "/other", "/p", "/s"];
        assert_eq!(paths(&Chain::merge(&[other, diff])), expected, "{kind:?}");
        // Nothing at all is everything removed.
        let emptied = scene.snapshots.diff(&lower, &Chain::empty(), "").expect("diff");
        assert_eq!(scene.list(&Chain::merge(&[lower, emptied])), [""; 0], "{kind:?}");
    }
}

#[test]
fn a_layer_may_be_in_a_stack_twice() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let base = scene.step(&Chain::empty(), "mkdir d; echo 1 > d/a; echo 2 > b");
        let [one, two] =
            ["rm d/a; echo one > b", "echo back > d/a; echo two > b"].map(|script| scene.step(&base, script));
        let twice = Chain::merge(&[one.clone(), two, one.clone()]);
        assert_eq!(twice.layers().len(), 6);
        assert_eq!(scene.list(&twice), scene.list(&one), "{kind:?}");
        let changed = scene.step(&twice, "echo more > more");
        assert_eq!(changed.layers().len(), 7);
        assert_eq!(scene.packed(changed.top().expect("top")), ["more"], "{kind:?}");
    }
}

/// One entry of a tree: at most three names deep.
#[derive(Debug, Clone)]
enum Entry {
    Gone,
    File(&'static str),
    Link,
    Directory(u32, Vec<Entry>),
}

fn entry(depth: u32) -> BoxedStrategy<Entry> {
    let leaf = prop_oneof![
        2 => Just(Entry::Gone),
        2 => prop_oneof![Just("x"), Just("y"), Just("longer")].prop_map(Entry::File),
        1 => Just(Entry::Link),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = proptest::collection::vec(entry(depth - 1), 2);
    let directory = (prop_oneof![Just(0o755), Just(0o700)], inner).prop_map(|(mode, all)| Entry::Directory(mode, all));
    prop_oneof![1 => leaf, 1 => directory].boxed()
}

fn write(entries: &[Entry], path: &str, script: &mut String) {
    for (entry, name) in entries.iter().zip(["a", "b", "c"]) {
        let path = format!("{path}{name}");
        match entry {
            Entry::Gone => {}
            Entry::File(text) => *script += &format!("echo {text} > {path}; touch -d @9 {path}\n"),
            Entry::Link => *script += &format!("ln -s target {path}; touch -h -d @9 {path}\n"),
            Entry::Directory(mode, entries) => {
                *script += &format!("mkdir -m {mode:o} {path}\n");
                write(entries, &format!("{path}/"), script);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// What makes a tree of another makes it: as layers here, and as a tar unpacked elsewhere.
    #[test]
    fn a_difference_makes_the_one_of_the_other(
        lower in proptest::collection::vec(entry(2), 3),
        upper in proptest::collection::vec(entry(2), 3),
    ) {
        for kind in KINDS {
            let scene = Scene::new(kind);
            let tree = |entries: &[Entry]| {
                let mut script = String::from("true\n");
                write(entries, "", &mut script);
                scene.step(&Chain::empty(), &script)
            };
            let (lower, upper) = (tree(&lower), tree(&upper));
            let diff = scene.snapshots.diff(&lower, &upper, "").expect("diff");
            let there = Chain::merge(&[lower.clone(), diff.clone()]);
            prop_assert_eq!(scene.list(&there), scene.list(&upper));
            let layer = diff.top().expect("one layer");
            let blob = scene.snapshots.pack(layer, PackOptions::new(Compression::Uncompressed)).expect("pack");
            let (mut file, _) = scene.snapshots.store().blob(&blob.digest).expect("blob").expect("there");
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).expect("read");
            prop_assert_eq!(scene.list(&scene.adopt(&lower, &bytes)), scene.list(&upper));
        }
    }
}
