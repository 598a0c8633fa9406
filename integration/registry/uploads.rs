//! Uploads to registries of every habit: those that keep what came before a cut, that take no pieces or nothing but pieces, that know
//! no mount, that lie.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;

use super::*;
use crate::support::fault_proxy::{Fault, FaultProxy, kind};

/// What a registry does otherwise than it should.
#[derive(Debug, Clone, Copy, Default)]
struct Habits {
    /// Answers this to PUT with a body.
    whole: Option<u16>,
    /// Answers this to PATCH.
    pieces: Option<u16>,
    /// Takes no request longer than this.
    longest: Option<usize>,
    /// Wants pieces of at least this.
    least: Option<usize>,
    /// Answers this to POST that asks for a mount.
    mount: Option<u16>,
    /// Answers this to HEAD.
    head: Option<u16>,
    /// Loses its first session.
    forgets: bool,
}

/// A registry that keeps what came of an upload, and says how much that is.
struct Resumable {
    fake: FakeRegistry,
    stored: Arc<Mutex<Vec<Vec<u8>>>>,
}

async fn resumable(habits: Habits) -> Resumable {
    let stored = Arc::new(Mutex::new(Vec::new()));
    let (session, store) = (Mutex::new(Vec::new()), Arc::clone(&stored));
    let lost = AtomicUsize::new(usize::from(habits.forgets));
    let fake = FakeRegistry::start(move |asked| {
        let mut session = session.lock().expect("lock");
        let method = asked.line.split(' ').next().expect("method");
        let place = |status: u16, have: usize| {
            let range = format!("0-{}", have.saturating_sub(1));
            Answer::new(status, "").header("location", format!("/v2/a/blobs/uploads/{have}")).header("range", range)
        };
        if habits.longest.is_some_and(|longest| asked.body.len() > longest) {
            return Answer::new(413, "");
        }
        match method {
            "HEAD" => Answer::new(habits.head.unwrap_or(404), ""),
            "POST" if asked.line.contains("mount=") && habits.mount.is_some() => Answer::new(habits.mount.unwrap(), ""),
            "POST" => {
                session.clear();
                let least = habits.least.unwrap_or(0).to_string();
                Answer::new(202, "").header("location", "/v2/a/blobs/uploads/0").header("oci-chunk-min-length", least)
            }
            "GET" => place(204, session.len()),
            _ if lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() => {
                Answer::new(404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"unknown"}]}"#)
            }
            "PATCH" if habits.pieces.is_some() => Answer::new(habits.pieces.unwrap(), ""),
            "PATCH" => {
                let start = format!("{}-", session.len());
                if !asked.content_range.as_ref().is_some_and(|range| range.starts_with(&start)) {
                    return place(416, session.len());
                }
                session.extend_from_slice(&asked.body);
                place(202, session.len())
            }
            _ if habits.whole.is_some() && !asked.body.is_empty() => Answer::new(habits.whole.unwrap(), ""),
            _ => {
                session.extend_from_slice(&asked.body);
                let digest = Digest::compute(&*session);
                if !asked.line.ends_with(&format!("digest={}", digest.as_str().replace(':', "%3A"))) {
                    return Answer::new(400, r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#);
                }
                store.lock().expect("lock").push(session.clone());
                Answer::new(201, "").header("docker-content-digest", digest.to_string())
            }
        }
    })
    .await;
    Resumable { fake, stored }
}

impl Resumable {
    fn methods(&self) -> String {
        let method = |line: String| line.split(' ').next().unwrap_or("").to_owned();
        self.fake.lines().into_iter().map(method).collect::<Vec<_>>().join(" ")
    }
}

async fn push(host: &str, content: &Bytes, from: &[Reference]) -> Result<Pushed, RegistryError> {
    let (name, open) = (reference(host, "a"), opener(content));
    let client = client(Account::Anonymous);
    let layer = layer(content);
    let push = client.push_blob(&name, &layer, &*open, Whereabouts::Repositories(from), silent());
    tokio::time::timeout(Duration::from_secs(60), push).await.expect("nothing hangs")
}

#[tokio::test]
async fn an_upload_that_was_begun_ahead_and_is_of_no_use_is_begun_anew() {
    let registry = Registry::start();
    let statuses = [400, 403, 404, 416, 429, 500].map(|status| Fault::Answer(status, String::new()));
    let faults = [Fault::Pass, Fault::CutRequest(1000), Fault::LoseResponse].into_iter().chain(statuses);
    for (number, fault) in faults.enumerate() {
        let first = fault.clone();
        let rule = move |line: &str, count: usize| match (kind(line).as_str(), count) {
            ("PUT upload", 0) => first.clone(),
            _ => Fault::Pass,
        };
        let proxy = FaultProxy::start(&registry.host, rule).await;
        let (client, name, content) = (client(Account::Anonymous), reference(&proxy.host, "a"), noise(2000 + number));
        client.check_push(&name).await.expect("it may");
        let (layer, open) = (layer(&content), opener(&content));
        let push = client.push_blob(&name, &layer, &*open, Whereabouts::Repositories(&[]), silent());
        let expected = match fault {
            Fault::Pass => (Pushed::Uploaded, 1),
            Fault::LoseResponse => (Pushed::Existed, 1),
            _ => (Pushed::Uploaded, 2),
        };
        let pushed = push.await.expect("pushed");
        assert_eq!((pushed, proxy.of_kind("POST upload").len()), expected, "{fault:?}");
        assert!(client.has_blob(&name, &layer).await.expect("asked"), "{fault:?}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_cut() {
    let content = noise(300_000);
    for at in [2, 1000, 65_536, 150_000, 299_999] {
        let registry = resumable(Habits::default()).await;
        let fault = move |line: &str, count: usize| match (kind(line).as_str(), count) {
            ("PUT upload", 0) => Fault::CutRequest(at),
            _ => Fault::Pass,
        };
        let proxy = FaultProxy::start(&registry.fake.host, fault).await;
        assert_eq!(push(&proxy.host, &content, &[]).await.expect("pushed"), Pushed::Uploaded, "cut at {at}");
        assert_eq!(*registry.stored.lock().expect("lock"), [content.to_vec()], "cut at {at}");
        let again = proxy.of_kind("PATCH upload");
        let rest = format!("{at}-{}", content.len() - 1);
        assert_eq!((again.len(), again[0].range.as_deref()), (1, Some(rest.as_str())), "cut at {at}");
    }
}

#[tokio::test]
async fn pieces_go_on_where_they_were_cut() {
    let content = noise(40 << 20);
    let registry = resumable(Habits { whole: Some(405), ..Habits::default() }).await;
    let fault = |line: &str, count: usize| match (kind(line).as_str(), count) {
        ("PATCH upload", 1) => Fault::CutRequest(3 << 20),
        _ => Fault::Pass,
    };
    let proxy = FaultProxy::start(&registry.fake.host, fault).await;
    push(&proxy.host, &content, &[]).await.expect("pushed");
    assert!(*registry.stored.lock().expect("lock") == [content.to_vec()]);
    let starts: Vec<u64> = proxy
        .of_kind("PATCH upload")
        .iter()
        .map(|passed| passed.range.as_ref().and_then(|r| r.split('-').next()?.parse().ok()).expect("range"))
        .collect();
    assert_eq!(starts, [0, 16 << 20, 19 << 20, 35 << 20]);
}

#[tokio::test]
async fn registries_take_a_blob_each_in_its_own_way() {
    let small = noise(300_000);
    let large = noise(5 << 20);
    for (what, habits, content, methods) in [
        ("as it should be", Habits::default(), &small, "HEAD POST PUT"),
        ("only pieces", Habits { whole: Some(405), ..Habits::default() }, &small, "HEAD POST PUT HEAD GET PATCH PUT"),
        (
            "small requests only",
            Habits { longest: Some(1 << 20), ..Habits::default() },
            &large,
            "HEAD POST PUT HEAD GET PATCH HEAD GET PATCH HEAD GET PATCH PATCH PATCH PATCH PATCH PUT",
        ),
        ("loses its session", Habits { forgets: true, ..Habits::default() }, &small, "HEAD POST PUT HEAD GET PUT"),
        ("does not say what it has", Habits { head: Some(403), ..Habits::default() }, &small, "HEAD POST PUT"),
    ] {
        let registry = resumable(habits).await;
        push(&registry.fake.host, content, &[]).await.unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
        assert!(*registry.stored.lock().expect("lock") == [content.to_vec()], "{what}");
        assert_eq!(registry.methods(), methods, "{what}");
    }
}

#[tokio::test]
async fn pieces_are_as_long_as_the_registry_wants_them() {
    let content = noise(41 << 20);
    let habits = Habits { whole: Some(413), least: Some(20 << 20), ..Habits::default() };
    let registry = resumable(habits).await;
    push(&registry.fake.host, &content, &[]).await.expect("pushed");
    let lengths: Vec<usize> =
        registry.fake.asked().iter().filter(|a| a.line.starts_with("PATCH")).map(|a| a.body.len()).collect();
    assert_eq!(lengths, [20 << 20, 20 << 20, 1 << 20]);
}

#[tokio::test]
async fn where_no_pieces_are_taken_up_all_is_sent_again() {
    let content = noise(300_000);
    for refusal in [400, 404, 405, 416, 501] {
        let registry = resumable(Habits { pieces: Some(refusal), ..Habits::default() }).await;
        let fault = |line: &str, count: usize| match (kind(line).as_str(), count) {
            ("PUT upload", 0) => Fault::CutRequest(100_000),
            _ => Fault::Pass,
        };
        let proxy = FaultProxy::start(&registry.fake.host, fault).await;
        push(&proxy.host, &content, &[]).await.unwrap_or_else(|e| panic!("{refusal}: {}", chain(&e)));
        assert!(*registry.stored.lock().expect("lock") == [content.to_vec()], "{refusal}");
        assert_eq!(proxy.of_kind("PATCH upload").len(), 1, "{refusal}");
    }
    let registry = resumable(Habits { whole: Some(405), pieces: Some(405), ..Habits::default() }).await;
    let error = push(&registry.fake.host, &content, &[]).await.expect_err("it takes nothing");
    assert!(matches!(error, RegistryError::Status { status: 405, .. }), "{error:?}");
    assert!(registry.stored.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn a_mount_that_is_refused_is_an_upload() {
    for refusal in [400, 401, 403, 404, 405, 500, 501] {
        let registry = resumable(Habits { mount: Some(refusal), ..Habits::default() }).await;
        let content = noise(1000);
        let other = reference(&registry.fake.host, "other");
        let pushed = push(&registry.fake.host, &content, &[other]).await;
        assert_eq!(pushed.unwrap_or_else(|e| panic!("{refusal}: {}", chain(&e))), Pushed::Uploaded);
        assert!(*registry.stored.lock().expect("lock") == [content.to_vec()], "{refusal}");
    }
}

#[tokio::test]
async fn r7_a_registry_that_stored_something_else_is_found_out() {
    let other = Digest::compute("other").to_string();
    let registry = FakeRegistry::start(move |asked| match asked.line.split(' ').next().expect("method") {
        "POST" => Answer::new(202, "").header("location", "/session"),
        "PUT" => Answer::new(201, "").header("docker-content-digest", other.clone()),
        _ => Answer::new(404, ""),
    })
    .await;
    let error = push(&registry.host, &noise(1000), &[]).await.expect_err("another digest");
    assert!(matches!(error, RegistryError::Mismatch { .. }), "{error:?}");
    let client = client(Account::Anonymous);
    let target = reference(&registry.host, "a:1");
    let error = client.push_manifest(&target, media::OCI_MANIFEST, &empty_image().1).await.expect_err("another digest");
    assert!(matches!(error, RegistryError::Mismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn content_that_cannot_be_read_is_not_the_networks_fault() {
    let registry = resumable(Habits::default()).await;
    let content = noise(1000);
    let open: Box<Open> = Box::new(|| {
        let good = std::io::Cursor::new(vec![0; 500]);
        let bad = tokio_util::io::StreamReader::new(futures_util::stream::iter([Err::<Bytes, _>(
            std::io::Error::other("the disk is gone"),
        )]));
        Box::pin(async move { Ok(Box::pin(tokio::io::AsyncReadExt::chain(good, bad)) as ByteReader) })
    });
    let client = client(Account::Anonymous);
    let name = reference(&registry.fake.host, "a");
    let layer = layer(&content);
    let push = client.push_blob(&name, &layer, &*open, Whereabouts::Repositories(&[]), silent());
    let error = push.await.expect_err("unreadable");
    assert!(matches!(error, RegistryError::Content { .. }) && chain(&error).contains("the disk is gone"), "{error:?}");
    assert!(registry.stored.lock().expect("lock").is_empty());
    assert_eq!(registry.methods().matches("POST").count(), 1, "it is not tried again");
}

/// What a registry asks for while a push of many new layers goes on, as the order of methods.
#[tokio::test]
async fn layers_are_asked_for_before_the_first_is_sent() {
    let registry = resumable(Habits::default()).await;
    let client = client(Account::Anonymous);
    let name = reference(&registry.fake.host, "a");
    let contents: Vec<Bytes> = (0..20).map(|i| noise(1000 + i)).collect();
    let openers: Vec<Box<Open>> = contents.iter().map(opener).collect();
    let layers: Vec<Descriptor> = contents.iter().map(layer).collect();
    let pushes = layers
        .iter()
        .zip(&openers)
        .map(|(layer, open)| client.push_blob(&name, layer, &**open, Whereabouts::Repositories(&[]), silent()));
    // The sessions of this registry are one, so most of these fail; what counts is what was asked first.
    let _ = futures_util::future::join_all(pushes).await;
    let methods = registry.methods();
    let first: Vec<&str> = methods.split(' ').take(20).collect();
    assert_eq!(first, ["HEAD"; 20], "{methods}");
}

#[tokio::test]
async fn a_repository_that_is_new_is_asked_for_one_blob_and_gets_the_others_linked() {
    let registry = Registry::start();
    let direct = client(Account::Anonymous);
    let contents: Vec<Bytes> = (0..6).map(|i| noise(1000 + i)).collect();
    let send = async |client: &Client, name: &Reference, from: &[Reference]| {
        let mut how = Vec::new();
        for content in &contents {
            let (layer, open) = (layer(content), opener(content));
            how.push(
                client
                    .push_blob(name, &layer, &*open, Whereabouts::Repositories(from), silent())
                    .await
                    .expect("pushed"),
            );
        }
        how
    };
    assert_eq!(send(&direct, &reference(&registry.host, "lib"), &[]).await, [Pushed::Uploaded; 6]);
    for (round, how, asked, linked) in [(1, Pushed::Mounted, 1, 6), (2, Pushed::Existed, 6, 0)] {
        let proxy = FaultProxy::start(&registry.host, |_, _| Fault::Pass).await;
        let (client, lib) = (client(Account::Anonymous), reference(&proxy.host, "lib"));
        assert_eq!(send(&client, &reference(&proxy.host, "app"), &[lib]).await, [how; 6]);
        let count = |method: &str| proxy.passed().iter().filter(|passed| passed.line.starts_with(method)).count();
        assert_eq!((count("HEAD"), count("POST")), (asked, linked), "round {round}");
    }
}

#[tokio::test]
async fn blobs_that_are_linked_ahead_are_not_asked_for_again() {
    let registry = Registry::start();
    let contents: Vec<Bytes> = (0..6).map(|i| noise(1000 + i)).collect();
    // The methods of what is asked ahead and then by the push, and how the blobs came there.
    let ahead = async |to: &str, from: &[&str], mount: Fault| {
        let rule = move |line: &str, _: usize| if line.contains("mount=") { mount.clone() } else { Fault::Pass };
        let proxy = FaultProxy::start(&registry.host, rule).await;
        let (client, name) = (client(Account::Anonymous), reference(&proxy.host, to));
        let other =
            |from: &&str| if from.contains('.') { from.parse().expect(from) } else { reference(&proxy.host, from) };
        let others: Vec<Reference> = from.iter().map(other).collect();
        let blobs: Vec<_> = contents.iter().map(|content| (layer(content), others.clone())).collect();
        client.link_blobs(&name, &blobs).await.expect("what is refused is left to the push");
        let count = proxy.passed().len();
        let mut how = Vec::new();
        for (blob, content) in blobs.iter().zip(&contents) {
            let open = opener(content);
            let push = client.push_blob(&name, &blob.0, &*open, Whereabouts::Repositories(&others), silent());
            how.push(push.await.expect("pushed"));
        }
        let methods = proxy.passed().iter().map(|passed| passed.line[..2].to_owned()).collect::<Vec<_>>();
        (methods[..count].join(" "), methods.len() - count, how)
    };
    let each = |how: Pushed| vec![how; 6];
    // Nothing can be done about what no other repository of the registry has.
    let elsewhere = ["docker.io/library/lib"];
    assert_eq!(ahead("lib", &elsewhere, Fault::Pass).await, (String::new(), 18, each(Pushed::Uploaded)));
    // One question to a repository that lacks them; the others are linked without.
    let found = ahead("new", &["lib"], Fault::Pass).await;
    assert_eq!(found, ("HE PO PO PO PO PO PO".into(), 0, each(Pushed::Existed)));
    // They are there.
    assert_eq!(ahead("new", &["lib"], Fault::Pass).await, ("HE HE HE HE HE HE".into(), 0, each(Pushed::Existed)));
    // No other has them, and the upload that this begins is taken back. Each push then tries to link, asks, and uses what it began.
    let found = ahead("other", &["none"], Fault::Pass).await;
    assert_eq!(found, ("HE PO DE".into(), 18, each(Pushed::Uploaded)));
    // The registry links nothing.
    let found = ahead("last", &["lib"], Fault::Answer(403, String::new())).await;
    assert_eq!(found, ("HE PO".into(), 24, each(Pushed::Uploaded)));
}

/// The first answer of a repository spares the questions that are put at once.
#[tokio::test]
async fn blobs_that_are_pushed_at_once_wait_for_one_question() {
    let registry = Registry::start();
    let contents: Vec<Bytes> = (0..6).map(|i| noise(1000 + i)).collect();
    for (round, to, from, expected) in
        [(1, "lib", "none", [6, 6, 6]), (2, "new", "lib", [1, 6, 0]), (3, "new", "lib", [6, 0, 0])]
    {
        let proxy = FaultProxy::start(&registry.host, |_, _| Fault::Pass).await;
        let (client, name, others) =
            (client(Account::Anonymous), reference(&proxy.host, to), [reference(&proxy.host, from)]);
        let pushes = contents.iter().map(async |content| {
            let (layer, open) = (layer(content), opener(content));
            client.push_blob(&name, &layer, &*open, Whereabouts::Repositories(&others), silent()).await
        });
        let how = futures_util::future::try_join_all(pushes).await.expect("pushed");
        let count = |method: &str| proxy.passed().iter().filter(|passed| passed.line.starts_with(method)).count();
        assert_eq!([count("HEAD"), count("POST"), count("PUT")], expected, "round {round}: {how:?}");
    }
}

#[tokio::test]
async fn whoever_pushes_a_blob_that_is_on_its_way_waits_for_it() {
    let registry = Registry::start();
    let proxy = FaultProxy::start(&registry.host, |_, _| Fault::Pass).await;
    let (client, name, content) = (client(Account::Anonymous), reference(&proxy.host, "a"), noise(300_000));
    let (layer, open) = (layer(&content), opener(&content));
    let push = || client.push_blob(&name, &layer, &*open, Whereabouts::Repositories(&[]), silent());
    let how = futures_util::future::try_join_all((0..4).map(|_| push())).await.expect("pushed");
    assert_eq!(how.iter().filter(|how| **how == Pushed::Uploaded).count(), 1, "{how:?}");
    let methods: Vec<String> = proxy.passed().iter().map(|passed| passed.line[..4].to_owned()).collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT "]);
    // Who gives up leaves the turn to the next.
    let other = reference(&proxy.host, "b");
    let push = || client.push_blob(&other, &layer, &*open, Whereabouts::Repositories(&[]), silent());
    let (mut first, mut second) = (Box::pin(push()), Box::pin(push()));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none(), "both wait");
    drop(first);
    let second = tokio::time::timeout(Duration::from_secs(60), second).await.expect("nothing hangs");
    assert_eq!(second.expect("pushed"), Pushed::Uploaded);
}

/// A blob that is made piece by piece: what has come of it is read from the start by each reader.
struct Made {
    pieces: tokio::sync::watch::Sender<usize>,
    became: tokio::sync::oneshot::Sender<Option<Descriptor>>,
}

/// Begins to push a blob whose pieces, of 64 KiB, come when the test says so.
fn growing(host: &str, content: &Bytes) -> (Made, tokio::task::JoinHandle<Result<bool, RegistryError>>) {
    let (pieces, seen) = tokio::sync::watch::channel(0);
    let (became, ended) = tokio::sync::oneshot::channel();
    let (name, content) = (reference(host, "a"), content.clone());
    let open = move || -> BoxFuture<'static, std::io::Result<ByteReader>> {
        let state = (seen.clone(), content.clone(), 0);
        let stream = futures_util::stream::unfold(state, |(mut seen, content, at)| async move {
            let end = seen.wait_for(|pieces| pieces << 16 > at || at >= content.len()).await.map(|p| *p << 16);
            let end = end.ok()?.min(content.len());
            (end > at).then(|| (Ok::<_, std::io::Error>(content.slice(at..end)), (seen, content, end)))
        });
        Box::pin(async move { Ok(Box::pin(tokio_util::io::StreamReader::new(stream)) as ByteReader) })
    };
    let task = tokio::spawn(async move {
        let became = Box::pin(async move { ended.await.ok().flatten() });
        let push = client(Account::Anonymous);
        let push = push.push_growing(&name, &open, became);
        tokio::time::timeout(Duration::from_secs(60), push).await.expect("nothing hangs")
    });
    (Made { pieces, became }, task)
}

impl Made {
    fn all(self, content: &Bytes) {
        self.pieces.send_replace(content.len());
        self.became.send(Some(layer(content))).expect("it is waited for");
        // The readers look at it once more.
        self.pieces.send_replace(content.len() + 1);
    }
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not come to that");
}

#[tokio::test]
async fn a_blob_is_sent_while_it_is_made() {
    let registry = Registry::start();
    let proxy = FaultProxy::start(&registry.host, |_, _| Fault::Pass).await;
    let content = noise(3 << 20);
    let (made, push) = growing(&proxy.host, &content);
    made.pieces.send_replace(2);
    until(|| !proxy.of_kind("PATCH upload").is_empty()).await;
    assert!(proxy.of_kind("PUT upload").is_empty() && !push.is_finished());
    made.all(&content);
    assert!(push.await.unwrap().expect("pushed"));
    let direct = client(Account::Anonymous);
    let there = fetch(&direct, &reference(&registry.host, "a"), &layer(&content)).await.expect("fetched");
    assert!(there == content);
}

#[tokio::test]
async fn a_blob_that_turns_out_to_be_there_is_not_sent_to_its_end() {
    let registry = Registry::start();
    let content = noise(3 << 20);
    push(&registry.host, &content, &[]).await.expect("pushed");
    let proxy = FaultProxy::start(&registry.host, |_, _| Fault::Pass).await;
    let (made, push) = growing(&proxy.host, &content);
    made.pieces.send_replace(2);
    until(|| !proxy.of_kind("PATCH upload").is_empty()).await;
    // The rest never comes: only that it is there can end this.
    made.became.send(Some(layer(&content))).expect("it is waited for");
    assert!(push.await.unwrap().expect("there"));
    assert_eq!(proxy.of_kind("DELETE upload").len(), 1);
    assert!(proxy.of_kind("PUT upload").is_empty());
}

#[tokio::test]
async fn a_blob_that_is_given_up_leaves_nothing() {
    let registry = Registry::start();
    let proxy = FaultProxy::start(&registry.host, |_, _| Fault::Pass).await;
    let (made, push) = growing(&proxy.host, &noise(3 << 20));
    made.pieces.send_replace(2);
    until(|| !proxy.of_kind("PATCH upload").is_empty()).await;
    made.became.send(None).expect("it is waited for");
    assert!(!push.await.unwrap().expect("no fault"));
    assert_eq!(proxy.of_kind("DELETE upload").len(), 1);
}

#[tokio::test]
async fn a_blob_that_cannot_be_sent_while_it_is_made_is_an_error_and_not_stored() {
    let registry = Registry::start();
    let content = noise(3 << 20);
    for fault in [
        Fault::CutRequest(100_000),
        Fault::LoseResponse,
        Fault::Answer(404, String::new()),
        Fault::Answer(500, String::new()),
    ] {
        let at = fault.clone();
        let rule = move |line: &str, _: usize| if kind(line) == "PATCH upload" { at.clone() } else { Fault::Pass };
        let proxy = FaultProxy::start(&registry.host, rule).await;
        let (made, push) = growing(&proxy.host, &content);
        made.all(&content);
        push.await.unwrap().expect_err("it was not sent");
        assert!(proxy.of_kind("PUT upload").is_empty(), "{fault:?}");
        let direct = client(Account::Anonymous);
        let there = direct.has_blob(&reference(&registry.host, "a"), &layer(&content)).await;
        assert!(!there.expect("asked"), "{fault:?}");
    }
}
