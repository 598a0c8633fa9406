use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::*;
use crate::diag::Diagnose as _;

/// Documents by digest; counts what was read.
#[derive(Default)]
struct Shelf {
    documents: BTreeMap<Digest, Bytes>,
    root: Option<Descriptor>,
    read: Mutex<usize>,
}

impl Shelf {
    fn add(&mut self, media_type: &str, text: String) -> Descriptor {
        let bytes = Bytes::from(text);
        let descriptor = Descriptor::of(media_type, &bytes);
        self.documents.insert(descriptor.digest.clone(), bytes);
        descriptor
    }

    fn image(&mut self, platform: &str, edit: impl Fn(String) -> String) -> Descriptor {
        let platform: Platform = platform.parse().expect("platform");
        let (os, architecture, variant) = (&platform.os, &platform.architecture, &platform.variant);
        let id = Digest::compute("layer");
        let config = format!(
            r#"{{"architecture":"{architecture}","variant":"{variant}","os":"{os}","rootfs":{{"type":"layers","diff_ids":["{id}"]}},"history":[{{"created_by":"x"}}]}}"#
        );
        let config = self.add(media::OCI_CONFIG, edit(config));
        let layer = Descriptor::new(media::OCI_LAYER_GZIP, id, 5);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.into()),
            config,
            layers: vec![layer],
            annotations: BTreeMap::new(),
        };
        let text = edit(serde_json::to_string(&manifest).expect("plain data"));
        Descriptor { platform: Some(platform), ..self.add(media::OCI_MANIFEST, text) }
    }

    fn index(&mut self, manifests: Vec<Descriptor>) -> Descriptor {
        let media_type = Some(media::OCI_INDEX.into());
        let index = Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() };
        self.add(media::OCI_INDEX, serde_json::to_string(&index).expect("plain data"))
    }

    async fn resolve(&mut self, root: Descriptor, platform: &str) -> Result<ResolvedImage, SourceError> {
        self.root = Some(root);
        let reference = "r.io/a:b".parse().expect("reference");
        resolve(self, &reference, &platform.parse().expect("platform")).await
    }
}

impl Contents for Shelf {
    fn root<'a>(&'a self, _: &'a Reference) -> BoxFuture<'a, Result<(Descriptor, Bytes), SourceError>> {
        let root = self.root.clone().expect("a root was set");
        let bytes = self.documents[&root.digest].clone();
        Box::pin(async move { Ok((root, bytes)) })
    }

    fn document<'a>(
        &'a self,
        _: &'a Reference,
        descriptor: &'a Descriptor,
        _: u64,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        *self.read.lock().expect("lock") += 1;
        Box::pin(async { Ok(self.documents[&descriptor.digest].clone()) })
    }

    fn blob<'a>(
        &'a self,
        _: &'a Reference,
        _: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError>> {
        Box::pin(async { Ok(stream::empty().boxed()) })
    }
}

fn same(text: String) -> String {
    text
}

#[tokio::test]
async fn chooses_the_best_platform() {
    let mut shelf = Shelf::default();
    let mut images: Vec<Descriptor> =
        ["linux/arm/v6", "linux/arm/v7", "linux/amd64", "windows/amd64"].map(|p| shelf.image(p, same)).into();
    let unknown = Platform { os: "unknown".into(), architecture: "unknown".into(), ..Platform::default() };
    images.push(Descriptor { platform: Some(unknown), ..images[0].clone() });
    let root = shelf.index(images);
    for (wanted, found) in [
        ("linux/arm/v7", Some("linux/arm/v7")),
        ("linux/arm/v6", Some("linux/arm/v6")),
        ("linux/arm64", Some("linux/arm/v7")),
        ("linux/amd64", Some("linux/amd64")),
        ("linux/s390x", None),
    ] {
        match shelf.resolve(root.clone(), wanted).await {
            Ok(image) => {
                assert_eq!(Some(image.platform.to_string().as_str()), found, "{wanted}");
                assert_eq!((&image.digest, image.chain_ids().len()), (&root.digest, 1));
            }
            Err(error) => {
                assert_eq!(None, found, "{wanted}: {error}");
                let have = "linux/amd64, linux/arm/v6, linux/arm/v7, windows/amd64";
                let expected = format!("r.io/a:b: no image for platform linux/s390x (there is {have})");
                assert_eq!(error.to_string(), expected);
                assert_eq!(error.hints(), [format!("choose one of {have} with `--platform`")]);
            }
        }
    }
}

#[tokio::test]
async fn entries_without_platform_are_judged_by_their_config() {
    let mut shelf = Shelf::default();
    let silent = |d: Descriptor| Descriptor { platform: None, ..d };
    let images = vec![silent(shelf.image("linux/arm64", same)), silent(shelf.image("linux/amd64", same))];
    let inner = shelf.index(images);
    let root = shelf.index(vec![inner]);
    let image = shelf.resolve(root.clone(), "linux/amd64").await.expect("nested");
    assert_eq!(image.platform.to_string(), "linux/amd64");
    let error = shelf.resolve(root, "linux/s390x").await.expect_err("none").to_string();
    assert!(error.contains("linux/amd64, linux/arm64"), "{error}");
}

#[tokio::test]
async fn a_single_image_is_taken_whatever_its_platform() {
    let mut shelf = Shelf::default();
    let root = shelf.image("linux/arm64", same);
    let image = shelf.resolve(root, "linux/amd64").await.expect("image");
    assert_eq!(image.platform.to_string(), "linux/arm64");
}

#[tokio::test]
async fn r6_nested_and_endless_indexes_are_left() {
    let mut shelf = Shelf::default();
    let mut nested = shelf.image("linux/amd64", same);
    for depth in 1..=5 {
        nested = shelf.index(vec![nested]);
        let result = shelf.resolve(nested.clone(), "linux/amd64").await;
        assert_eq!(result.is_ok(), depth <= DEPTH, "{depth} deep");
    }
    let wide: Vec<Descriptor> =
        (0..100).map(|i| shelf.add(media::OCI_INDEX, format!(r#"{{"schemaVersion":{i},"manifests":[]}}"#))).collect();
    let root = shelf.index(wide);
    *shelf.read.lock().expect("lock") = 0;
    shelf.resolve(root, "linux/amd64").await.expect_err("too wide");
    assert!(*shelf.read.lock().expect("lock") <= DOCUMENTS);
}

#[tokio::test]
async fn r6_descriptor_and_document_must_agree() {
    let mut shelf = Shelf::default();
    let image = shelf.image("linux/amd64", same);
    let root = shelf.index(vec![Descriptor { media_type: media::OCI_INDEX.into(), platform: None, ..image }]);
    shelf.resolve(root, "linux/amd64").await.expect_err("a manifest said to be an index");
}

#[tokio::test]
async fn r7_parts_that_do_not_fit_are_refused() {
    let id = Digest::compute("layer");
    let two = format!("\"{id}\",\"{id}\"");
    let replace = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |text: String| text.replace(&from, &to)
    };
    for (from, to) in [
        (format!("[\"{id}\"]"), format!("[{two}]")),
        (format!("[\"{id}\"]"), "[]".into()),
        (format!("[\"{id}\"]"), "null".into()),
        (format!("[\"{id}\"]"), "[\"sha256:../../x\"]".into()),
        (format!("[\"{id}\"]"), format!("[\"sha512:{}\"]", "a".repeat(128))),
        (r#""history":[{"created_by":"x"}"#.into(), r#""history":[{},{}"#.into()),
        (r#""rootfs""#.into(), r#""elsewhere""#.into()),
        (media::OCI_CONFIG.into(), "application/vnd.cncf.helm.config.v1+json".into()),
        (media::OCI_LAYER_GZIP.into(), "application/x-unknown".into()),
        (r#""os":"linux""#.into(), r#""os":7"#.into()),
    ] {
        let mut shelf = Shelf::default();
        let root = shelf.image("linux/amd64", replace(&from, &to));
        let error = shelf.resolve(root, "linux/amd64").await.expect_err(&to);
        assert!(matches!(error, SourceError::Image { .. }), "{to}: {error:?}");
    }
    let mut shelf = Shelf::default();
    let root = shelf.image("linux/amd64", replace(r#","history":[{"created_by":"x"}]"#, ""));
    shelf.resolve(root, "linux/amd64").await.expect("history is optional");
}
