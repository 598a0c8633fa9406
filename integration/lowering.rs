//! What it costs to parse and lower a Dockerfile: allocations and memory, counted, so that no clock decides.
//!
//! Counts grow with the file. Only what LLB itself repeats grows faster: each RUN holds all variables it sees, and its history
//! entry all arguments declared before it.

use std::fmt::Write as _;

use allocation_counter::{AllocationInfo, measure};
use rbuild::digest::Digest;
use rbuild::frontend::{Answer, Bridge, BridgeError, Lowered, Request, ResolveMode, ResolvedImage, lower};
use rbuild::image::{Platform, Reference};
use rbuild::llb::SourceOp;

/// Has every image.
struct World;

impl Bridge for World {
    fn resolve_image<'a>(&'a self, name: &'a Reference, _: &'a Platform, _: ResolveMode) -> Answer<'a, ResolvedImage> {
        let config = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},
            "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
        let image = ResolvedImage { digest: Digest::compute(name.to_string()), config: config.into() };
        Box::pin(async move { Ok(image) })
    }

    fn resolve_oci_layout<'a>(
        &'a self,
        _: &'a str,
        name: &'a Reference,
        platform: &'a Platform,
    ) -> Answer<'a, ResolvedImage> {
        self.resolve_image(name, platform, ResolveMode::default())
    }

    fn read_ignore<'a>(&'a self, _: &'a str, _: &'a [String]) -> Answer<'a, Option<(String, Vec<u8>)>> {
        Box::pin(async { Ok(Some((".dockerignore".to_owned(), b"*.log\n!keep.log\n".to_vec()))) })
    }

    fn source_time<'a>(&'a self, _: &'a SourceOp) -> Answer<'a, Option<i64>> {
        Box::pin(async { Ok(None) })
    }

    fn http_head<'a>(&'a self, url: &'a str) -> Answer<'a, Vec<u8>> {
        Box::pin(async move { Err(BridgeError::remote(url)) })
    }
}

fn lowered(text: &str) -> Lowered {
    let request = Request {
        dockerfile_name: "Dockerfile".into(),
        dockerfile: text.as_bytes().to_vec(),
        worker_platforms: vec!["linux/amd64".parse().expect("platform")],
        session: "s".into(),
        ..Request::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(lower(&request, &World)).expect("lowers")
}

/// Parses and lowers `text`, on this thread alone.
fn cost(text: &str) -> AllocationInfo {
    let mut ops = 0;
    let info = measure(|| ops = lowered(text).results[0].definition.vertices.len());
    assert!(ops > 1);
    info
}

/// A file of `count` instructions after FROM; names of variables and arguments come again, so that a RUN sees some twenty.
fn instructions(count: usize, kinds: &[&str]) -> String {
    let mut text = String::from("FROM a AS base\n");
    for n in 0..count {
        let line = kinds[n % kinds.len()].replace("{n}", &n.to_string()).replace("{k}", &(n % 20).to_string());
        let _ = writeln!(text, "{line}");
    }
    text
}

/// `count` stages, each on the one before, which copy from one another.
fn stages(count: usize) -> String {
    let mut text = String::from("FROM a AS s0\nRUN first\n");
    for n in 1..count {
        let before = n - 1;
        let _ = writeln!(
            text,
            "FROM s{before} AS s{n}\nENV E=$E{n}\nFROM b AS t{n}\nCOPY --from=s{before} /x{n} /y\nRUN make {n}\nFROM s{n} AS u{n}\nCOPY --from=t{n} /y /z"
        );
    }
    text
}

/// Asserts that `large`, of four times the size, costs no more than some five times as much as `small`.
fn assert_linear(what: &str, small: &AllocationInfo, large: &AllocationInfo) {
    let costs = |info: &AllocationInfo| [info.count_total, info.bytes_total, info.bytes_max];
    for (name, (small, large)) in
        ["allocations", "bytes", "peak"].iter().zip(costs(small).into_iter().zip(costs(large)))
    {
        assert!(large < small * 11 / 2, "{what}: {name} grow from {small} to {large}");
    }
}

const ALL_KINDS: [&str; 12] = [
    "RUN make target{n}",
    "ENV NAME{k}=value-{n} OTHER=$NAME{k}",
    "COPY --chown=1:2 src{n}/ /dest/{n}/",
    "ARG ARGUMENT{k}=default{n}",
    "LABEL com.example.label{n}=\"text $OTHER\"",
    "WORKDIR /work/{n}",
    "ADD file{n}.tar /unpacked{n}/",
    "EXPOSE {n}",
    "RUN --mount=type=cache,target=/cache{k} --mount=type=bind,source=dir{n},target=/in{n} build {n}",
    "USER user{k}",
    "COPY --link --from=other{k} /a{n} /b{n}",
    "VOLUME /volume{n}",
];

#[test]
fn each_kind_of_instruction_costs_the_same_however_many_there_are() {
    let each = ALL_KINDS.iter().map(|kind| vec![*kind, "RUN x"]);
    let warned = [vec!["RUN $UNKNOWN{n}", "COPY $U{n} /"], vec!["ONBUILD RUN x{n}", "RUN <<E\nscript {n}\nE"]];
    for kinds in each.chain(warned).chain([ALL_KINDS.to_vec()]) {
        let cost = |count| cost(&instructions(count, &kinds));
        assert_linear(&kinds.join("; "), &cost(300), &cost(1200));
    }
}

#[test]
fn each_stage_costs_the_same_however_many_there_are() {
    let cost = |count| cost(&stages(count));
    assert_linear("stages", &cost(50), &cost(200));
}

/// What the memory goes to: the ops themselves. A file of 5,000 instructions takes a few kilobytes for each.
#[test]
fn memory_for_an_instruction_is_a_few_kilobytes() {
    let of = |count| cost(&instructions(count, &ALL_KINDS)).bytes_max / count as u64;
    let (small, large) = (of(1250), of(5000));
    assert!(small < 8 << 10 && large < 8 << 10, "{small} and {large} bytes an instruction");
}
