//! Layers that BuildKit wrote come out of an unpack and a pack byte for byte.

use std::io::Read;

use super::super::decompress::{Codec, Decoder};
use super::super::diff::write_tar;
use super::Scene;
use crate::layer::apply::{ApplyOptions, Unmapped};
use crate::sys::dir::Dir;

#[test]
fn buildkits_layers_round_trip() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tar");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("testdata") {
        let path = file.expect("entry").path();
        if path.extension().is_none_or(|extension| extension != "gz") {
            continue;
        }
        let mut decoder = Decoder::new(std::fs::File::open(&path).expect("open")).expect("decoder");
        assert_eq!(decoder.codec(), Codec::Gzip);
        let mut tar = Vec::new();
        decoder.read_to_end(&mut tar).expect("gzip");
        let scene = Scene::new();
        scene.apply_with(&tar, ApplyOptions::layer(Unmapped::Refuse)).expect("apply");
        let mut again = Vec::new();
        write_tar(&Dir::open(&scene.root()).expect("open"), None, &mut again).expect("write");
        let differs = tar.iter().zip(&again).position(|(a, b)| a != b);
        assert!(tar == again, "{path:?} differs at {differs:?} ({} and {} bytes)", tar.len(), again.len());
        count += 1;
    }
    assert_eq!(count, 7);
}
