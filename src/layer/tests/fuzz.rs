//! Random tars: whatever they hold, nothing outside the root changes, and nothing panics.

use proptest::prelude::*;

use super::super::tar_reader::TarReader;
use super::{Scene, Tar};

const NAMES: [&str; 12] = ["a", "b", "a/b", "a/b/c", "l", "l/a", "l/../x", "../v", ".wh.a", "a/.wh..wh..opq", "./", "l/l/f"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sequence_of_members_stays_inside(ops in prop::collection::vec((0usize..6, 0usize..12, 0usize..12), 0..20)) {
        let scene = Scene::new();
        let host = scene.host();
        let tar = ops.into_iter().fold(Tar::default(), |tar, (kind, name, target)| {
            let (name, inside) = (NAMES[name], NAMES[target]);
            match kind {
                0 => tar.file(name, if name.contains(".wh.") { "" } else { "x" }),
                1 => tar.dir(name),
                2 => tar.symlink(name, &host),
                3 => tar.symlink(name, inside),
                4 => tar.hard(name, inside),
                _ => tar.fifo(name),
            }
        });
        // Errors are fine; the scene asserts that the canary is untouched.
        drop(scene.apply(&tar));
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..2048), at in 0usize..500, flag in any::<u8>()) {
        let mut tar = Tar::default().file("name", "text").bytes();
        tar[at] = flag;
        bytes.splice(0..0, tar);
        let mut reader = TarReader::new(&bytes[..]);
        while let Ok(Some(_)) = reader.next() {}
    }
}
