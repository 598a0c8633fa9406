//! What is compressed comes back, the same from any number of threads.

use std::io::{Read, Write};

use super::super::compress::Compressor;
use super::super::decompress::{Codec, Decoder};
use crate::image::media::Compression;

/// Half text-like, half noise, by a generator without a clock.
fn mix(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..length)
        .map(|at| if (at >> 18) & 1 == 0 { b"the quick brown fox "[at % 20] ^ (next() & 3) } else { next() })
        .collect()
}

fn pack(data: &[u8], compression: Compression, threads: usize) -> Vec<u8> {
    let mut compressor = Compressor::new(Vec::new(), compression, 3, threads).expect("start");
    for piece in data.chunks(100_003) {
        compressor.write_all(piece).expect("write");
    }
    compressor.finish().expect("finish")
}

#[test]
fn output_does_not_depend_on_threads() {
    for length in [0, 1, 70_000, 256 << 10, (256 << 10) + 1, 5 << 20] {
        let data = mix(length);
        for (compression, codec) in [(Compression::Gzip, Codec::Gzip), (Compression::Zstd, Codec::Zstd)] {
            let one = pack(&data, compression, 1);
            assert!(one == pack(&data, compression, 4), "{length} {compression:?}");
            let mut decoder = Decoder::new(&one[..]).expect("decoder");
            assert_eq!(decoder.codec(), codec);
            let mut back = Vec::new();
            decoder.read_to_end(&mut back).expect("read");
            assert!(back == data, "{length} {compression:?}");
        }
    }
}

#[test]
fn every_codec_of_add_is_read() {
    let data = mix(100_000);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&data).expect("bzip2");
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&data).expect("xz");
    let gzip = pack(&data, Compression::Gzip, 1);
    let cases = [
        (Codec::None, data.clone()),
        (Codec::Gzip, gzip.clone()),
        (Codec::Bzip2, bzip2.finish().expect("bzip2")),
        (Codec::Xz, xz.finish().expect("xz")),
        (Codec::Zstd, zstd::encode_all(&data[..], 1).expect("zstd")),
    ];
    for (codec, bytes) in cases {
        let mut decoder = Decoder::new(&bytes[..]).expect("decoder");
        assert_eq!(decoder.codec(), codec);
        let mut back = Vec::new();
        decoder.read_to_end(&mut back).expect("read");
        assert!(back == data, "{codec:?}");
        if codec != Codec::None {
            let cut = &bytes[..bytes.len() - 9];
            assert!(Decoder::new(cut).expect("decoder").read_to_end(&mut Vec::new()).is_err(), "{codec:?} cut");
        }
    }
    let twice = [&gzip[..], &gzip[..]].concat();
    let mut back = Vec::new();
    Decoder::new(&twice[..]).expect("decoder").read_to_end(&mut back).expect("two members");
    assert!(back == [&data[..], &data[..]].concat());
}
