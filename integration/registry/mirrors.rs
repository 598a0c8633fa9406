//! Mirrors that break off.

use super::*;

/// Settings with a mirror for a host.
fn mirrored(origin: &str, mirror: &str) -> Arc<Client> {
    let mut options = options(Account::Anonymous);
    let mirrors = vec![mirror.to_owned()];
    options.hosts.insert(origin.to_owned(), HostOptions { mirrors, ..HostOptions::default() });
    Client::new(options).expect("client")
}

#[tokio::test]
async fn what_a_mirror_breaks_off_comes_from_the_registry_itself() {
    let content = noise(300_000);
    let part = content.slice(..100_000);
    let mirror = FakeRegistry::start(move |asked| match asked.range {
        None => Answer::new(200, part.clone()).header("content-length", "300000").ends(End::Cut),
        Some(_) => Answer::new(500, ""),
    })
    .await;
    let rest = content.slice(100_000..);
    let origin = FakeRegistry::start(move |asked| {
        assert!(asked.line.starts_with("GET /v2/a/blobs/sha256:") && !asked.line.contains("ns="), "{}", asked.line);
        assert_eq!(asked.range.as_deref(), Some("bytes=100000-299999"));
        Answer::new(206, rest.clone()).header("content-range", "bytes 100000-299999/300000")
    })
    .await;
    let client = mirrored(&origin.host, &mirror.host);
    let found = fetch(&client, &reference(&origin.host, "a:1"), &layer(&content)).await.expect("the whole");
    assert_eq!(found, content);
    let name = origin.host.clone();
    assert!(
        mirror.lines().iter().all(|line| line.ends_with(&format!("?ns={}", name.replace(':', "%3A")))),
        "{:?}",
        mirror.lines()
    );
    assert_eq!(origin.lines().len(), 1);
}

#[tokio::test]
async fn a_mirror_that_is_busy_or_broken_is_not_waited_for() {
    for status in [401, 403, 429, 500, 503] {
        let mirror = FakeRegistry::start(move |_| Answer::new(status, "").header("retry-after", "50")).await;
        let (_, manifest) = empty_image();
        let digest = Digest::compute(&manifest);
        let origin = FakeRegistry::start(move |_| Answer::new(200, manifest.clone())).await;
        let client = mirrored(&origin.host, &mirror.host);
        let (descriptor, _) = client.manifest(&reference(&origin.host, "a:1")).await.expect("manifest");
        assert_eq!((descriptor.digest, mirror.asked().len()), (digest, 1), "{status}");
    }
}

#[tokio::test]
async fn a_mirror_that_lies_is_not_believed() {
    let content = noise(1000);
    let mirror = FakeRegistry::start(|_| Answer::new(200, noise(999))).await;
    let (_, manifest) = empty_image();
    let good = manifest.clone();
    let origin = FakeRegistry::start(move |_| Answer::new(200, good.clone())).await;
    let client = mirrored(&origin.host, &mirror.host);
    let name = format!("{}/a@{}", origin.host, Digest::compute(&manifest)).parse().expect("reference");
    let (_, found) = client.manifest(&name).await.expect("from the registry itself");
    assert_eq!(found, manifest);
    let other = FakeRegistry::start(|_| Answer::new(200, noise(1000).iter().rev().copied().collect::<Vec<u8>>())).await;
    let good = content.clone();
    let origin = FakeRegistry::start(move |_| Answer::new(200, good.clone())).await;
    let client = mirrored(&origin.host, &other.host);
    let name = reference(&origin.host, "a:1");
    let error = fetch(&client, &name, &layer(&content)).await.expect_err("wrong bytes");
    assert!(error.is_spoiled(), "{}", chain(&error));
    assert_eq!(fetch(&client, &name, &layer(&content)).await.expect("from the registry itself"), content);
    assert_eq!((other.asked().len(), origin.asked().len()), (1, 1));
}
