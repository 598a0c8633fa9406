//! A bad network between the client and docker-registry: what is pulled and pushed is whole in the end, or it is an error in bounded
//! time and nothing is there.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::support::fault_proxy::{Fault, FaultProxy, kind};

/// Longer than any patience of these tests: what hangs fails instead of stopping everything.
const HANG: Duration = Duration::from_secs(120);

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work).await.expect("nothing hangs")
}

/// Places to cut `length` bytes at: the ends, the buffers' edges, and some between.
fn cuts(length: usize) -> Vec<usize> {
    let edges = [0, 1, 2, 1023, 1024, 16 << 10, (16 << 10) + 1, 65_535, 65_536, 65_537, length / 2, length - 1];
    edges.into_iter().filter(|at| *at < length).collect()
}

#[tokio::test]
async fn a_download_cut_at_any_byte_is_whole_in_the_end() {
    let registry = Registry::start();
    let content = noise(200_003);
    let blob = layer(&content);
    push(&client(Account::Anonymous), &reference(&registry.host, "a"), &content).await.expect("pushed");
    for at in cuts(content.len()) {
        let fault = move |line: &str, count: usize| match (kind(line).as_str(), count) {
            ("GET blob", 0) => Fault::CutResponse(at),
            _ => Fault::Pass,
        };
        let proxy = FaultProxy::start(&registry.host, fault).await;
        let name = reference(&proxy.host, "a");
        let fetched = in_time(fetch(&client(Account::Anonymous), &name, &blob)).await;
        assert_eq!(fetched.unwrap_or_else(|e| panic!("cut at {at}: {}", chain(&e))), content, "cut at {at}");
        let asked = proxy.of_kind("GET blob");
        let again = (at > 0).then(|| format!("bytes={at}-{}", content.len() - 1));
        assert_eq!((asked.len(), asked[1].range.clone()), (2, again), "cut at {at}");
    }
}

#[tokio::test]
async fn a_download_that_is_cut_again_and_again_goes_on_while_bytes_come() {
    let registry = Registry::start();
    let content = noise(100_000);
    push(&client(Account::Anonymous), &reference(&registry.host, "a"), &content).await.expect("pushed");
    let fault = |line: &str, _: usize| if kind(line) == "GET blob" { Fault::CutResponse(9_999) } else { Fault::Pass };
    let proxy = FaultProxy::start(&registry.host, fault).await;
    let name = reference(&proxy.host, "a");
    // More cuts than attempts, each after some progress.
    assert_eq!(in_time(fetch(&client(Account::Anonymous), &name, &layer(&content))).await.expect("blob"), content);
    assert_eq!(proxy.of_kind("GET blob").len(), 11);
    let fault = |line: &str, _: usize| if kind(line) == "GET blob" { Fault::CutResponse(0) } else { Fault::Pass };
    let proxy = FaultProxy::start(&registry.host, fault).await;
    let name = reference(&proxy.host, "a");
    in_time(fetch(&client(Account::Anonymous), &name, &layer(&content))).await.expect_err("no byte ever came");
    assert_eq!(proxy.of_kind("GET blob").len(), patience().attempts as usize);
}

async fn push(client: &Arc<Client>, name: &Reference, content: &Bytes) -> Result<Pushed, RegistryError> {
    let open = opener(content);
    client.push_blob(name, &layer(content), &*open, Whereabouts::Repositories(&[]), silent()).await
}

#[tokio::test]
async fn an_upload_cut_at_any_byte_is_whole_in_the_end() {
    let registry = Registry::start();
    let direct = client(Account::Anonymous);
    for (number, at) in cuts(200_003).into_iter().enumerate() {
        // Bytes that no earlier push left there.
        let content = noise(200_003 + number);
        let fault = move |line: &str, count: usize| match (kind(line).as_str(), count) {
            ("PUT upload", 0) => Fault::CutRequest(at),
            _ => Fault::Pass,
        };
        let proxy = FaultProxy::start(&registry.host, fault).await;
        let name = format!("cut{number}");
        let pushed = in_time(push(&client(Account::Anonymous), &reference(&proxy.host, &name), &content)).await;
        assert_eq!(pushed.unwrap_or_else(|e| panic!("cut at {at}: {}", chain(&e))), Pushed::Uploaded, "cut at {at}");
        let there = fetch(&direct, &reference(&registry.host, &name), &layer(&content)).await.expect("there");
        assert_eq!(there, content, "cut at {at}");
    }
}

#[tokio::test]
async fn an_upload_whose_answer_is_lost_is_not_sent_twice() {
    let registry = Registry::start();
    let content = noise(100_000);
    let fault = |line: &str, count: usize| match (kind(line).as_str(), count) {
        ("PUT upload", 0) => Fault::LoseResponse,
        _ => Fault::Pass,
    };
    let proxy = FaultProxy::start(&registry.host, fault).await;
    let pushed = in_time(push(&client(Account::Anonymous), &reference(&proxy.host, "a"), &content)).await;
    assert_eq!(pushed.expect("pushed"), Pushed::Uploaded);
    assert_eq!(proxy.of_kind("PUT upload").len(), 1, "{:?}", proxy.passed());
}

#[tokio::test]
async fn an_upload_that_never_gets_through_leaves_nothing() {
    let registry = Registry::start();
    let content = noise(100_000);
    let fault = |line: &str, _: usize| match kind(line).as_str() {
        "PUT upload" | "PATCH upload" => Fault::CutRequest(50_000),
        _ => Fault::Pass,
    };
    let proxy = FaultProxy::start(&registry.host, fault).await;
    let name = reference(&proxy.host, "a");
    let error = in_time(push(&client(Account::Anonymous), &name, &content)).await.expect_err("cut each time");
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    let direct = client(Account::Anonymous);
    assert!(!direct.has_blob(&reference(&registry.host, "a"), &layer(&content)).await.expect("asked"));
}

/// Answers each kind of request so a few times before it lets it pass.
fn burst(status: u16, headers: &'static str, times: usize) -> impl Fn(&str, usize) -> Fault {
    move |_, count| if count < times { Fault::Answer(status, headers.into()) } else { Fault::Pass }
}

#[tokio::test]
async fn bursts_of_refusals_are_waited_out() {
    let registry = Registry::start();
    for (number, (status, headers)) in [
        (429, "retry-after: 0\r\n"),
        (429, "retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
        (429, ""),
        (500, ""),
        (502, ""),
        (503, "retry-after: 0\r\n"),
        (504, ""),
        (408, ""),
        (521, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = FaultProxy::start(&registry.host, burst(status, headers, 2)).await;
        let mut options = options(Account::Anonymous);
        // An upload meets a second burst where it goes on in pieces.
        options.patience.attempts = 5;
        let client = Client::new(options).expect("client");
        let target = reference(&proxy.host, &format!("burst{number}:1"));
        let content = noise(70_000);
        in_time(push(&client, &target, &content)).await.unwrap_or_else(|e| panic!("{status}: {}", chain(&e)));
        let digest = in_time(push_image(&client, &target)).await;
        assert_eq!(in_time(client.resolve(&target)).await.expect("resolved").digest, digest, "{status}");
        assert_eq!(in_time(fetch(&client, &target, &layer(&content))).await.expect("fetched"), content, "{status}");
    }
}

#[tokio::test]
async fn refusals_without_end_are_told_and_nothing_is_pushed() {
    let registry = Registry::start();
    let direct = client(Account::Anonymous);
    for (status, headers, requests) in [
        (429, "retry-after: 0\r\n", 3),
        (429, "", 3),
        // Longer than is waited: so it is told at once.
        (429, "retry-after: 3600\r\n", 1),
        (429, "ratelimit-limit: 100;w=21600\r\n", 1),
        (502, "", 3),
        (504, "", 3),
    ] {
        let proxy = FaultProxy::start(&registry.host, burst(status, headers, usize::MAX)).await;
        let (client, target) = (client(Account::Anonymous), reference(&proxy.host, "endless:1"));
        let error = in_time(client.manifest(&target)).await.expect_err("refused");
        match status {
            429 => assert!(matches!(error, RegistryError::RateLimited { .. }), "{error:?}"),
            _ => assert!(matches!(error, RegistryError::Status { .. }), "{error:?}"),
        }
        assert_eq!(proxy.passed().len(), requests, "{status} {headers}");
        in_time(push(&client, &target, &noise(1000))).await.expect_err("refused");
        in_time(client.push_manifest(&target, media::OCI_MANIFEST, &empty_image().1)).await.expect_err("refused");
        let there = direct.manifest(&reference(&registry.host, "endless:1")).await.expect_err("not there");
        assert!(matches!(there, RegistryError::NotFound { .. }), "{there:?}");
        assert!(!direct.has_blob(&reference(&registry.host, "endless"), &layer(&noise(1000))).await.expect("asked"));
    }
}

#[tokio::test]
async fn the_patience_with_a_registry_that_is_down_is_spent_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = reference(&listener.local_addr().unwrap().to_string(), "a:1");
    let (calls, counted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counting = Arc::clone(&calls);
    let server = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counting.fetch_add(1, Ordering::Relaxed);
            drop(connection);
        }
    });
    let client = client(Account::Anonymous);
    let mut made = Vec::new();
    for _ in 0..3 {
        let error = in_time(client.manifest(&name)).await.expect_err("nobody answers");
        assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
        let so_far = calls.load(Ordering::Relaxed);
        made.push(so_far - counted.swap(so_far, Ordering::Relaxed));
    }
    assert_eq!(made, [usize::try_from(patience().attempts).unwrap(), 1, 1]);
    server.abort();
}

#[tokio::test]
async fn r8_a_slow_drip_is_left_when_its_time_is_over() {
    let registry = Registry::start();
    let content = noise(100_000);
    let target = reference(&registry.host, "a:1");
    push(&client(Account::Anonymous), &target, &content).await.expect("pushed");
    push_image(&client(Account::Anonymous), &target).await;
    let fault = |_: &str, _: usize| Fault::Drip(Duration::from_millis(20));
    let proxy = FaultProxy::start(&registry.host, fault).await;
    let mut options = options(Account::Anonymous);
    options.patience.document = Duration::from_secs(1);
    options.patience.slowest = 1 << 20;
    options.patience.attempts = 2;
    let client = Client::new(options).expect("client");
    let name = reference(&proxy.host, "a:1");
    // A byte comes in good time, always: it is the sum that is too long.
    let error = in_time(fetch(&client, &name, &layer(&content))).await.expect_err("too slow");
    assert!(matches!(error, RegistryError::TooSlow { .. }), "{error:?}");
    let error = in_time(client.manifest(&name)).await.expect_err("too slow");
    assert!(matches!(error, RegistryError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn a_manifest_whose_transfer_is_cut_is_not_half_a_manifest() {
    let registry = Registry::start();
    let digest = push_image(&client(Account::Anonymous), &reference(&registry.host, "a:1")).await;
    for at in [0, 1, 50] {
        let fault = move |line: &str, _: usize| match kind(line).as_str() {
            "GET manifest" => Fault::CutResponse(at),
            _ => Fault::Pass,
        };
        let proxy = FaultProxy::start(&registry.host, fault).await;
        let name = reference(&proxy.host, "a").with_digest(digest.clone());
        in_time(client(Account::Anonymous).manifest(&name)).await.expect_err("cut");
    }
}

#[tokio::test]
async fn r8_encodings_that_nobody_asked_for_are_not_undone() {
    use std::io::Write as _;
    let gzip = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).expect("compress");
        Bytes::from(writer.finish().expect("compress"))
    };
    let (_, manifest) = empty_image();
    let content = noise(1000);
    let bomb = gzip(&vec![0; 64 << 20]);
    for (what, body) in [("the manifest", gzip(&manifest)), ("a bomb", bomb), ("the blob", gzip(&content))] {
        let registry =
            FakeRegistry::start(move |_| Answer::new(200, body.clone()).header("content-encoding", "gzip")).await;
        let client = client(Account::Anonymous);
        let name = reference(&registry.host, "a:b");
        in_time(client.manifest(&name)).await.expect_err(what);
        let pinned = reference(&registry.host, "a").with_digest(Digest::compute(&manifest));
        let error = in_time(client.manifest(&pinned)).await.expect_err(what);
        assert!(matches!(error, RegistryError::Mismatch { .. }), "{what}: {error:?}");
        let error = in_time(fetch(&client, &name, &layer(&content))).await.expect_err(what);
        assert!(matches!(error, RegistryError::Mismatch { .. } | RegistryError::Size { .. }), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn parts_of_a_blob_are_taken_as_servers_give_them() {
    let content = noise(100_000);
    // How much of the whole comes first, then what the rest is answered: status, start, and the size that is stated.
    for (status, start, total) in
        [(206, 50_000, "100000"), (206, 50_000, "*"), (206, 40_000, "100000"), (200, 0, ""), (416, 0, "")]
    {
        let (served, refused) = (content.clone(), Mutex::new(false));
        let registry = FakeRegistry::start(move |asked| match (&asked.range, status) {
            (None, _) if *refused.lock().expect("lock") => Answer::new(200, served.clone()),
            (None, _) => Answer::new(200, served.slice(..50_000)).header("content-length", "100000").ends(End::Cut),
            (Some(_), 416) => {
                *refused.lock().expect("lock") = true;
                Answer::new(416, "")
            }
            (Some(_), 200) => Answer::new(200, served.clone()),
            _ => {
                Answer::new(206, served.slice(start..)).header("content-range", format!("bytes {start}-99999/{total}"))
            }
        })
        .await;
        let name = reference(&registry.host, "a");
        let fetched = in_time(fetch(&client(Account::Anonymous), &name, &layer(&content))).await;
        assert_eq!(fetched.unwrap_or_else(|e| panic!("{status} {start}: {}", chain(&e))), content);
    }
    for (range, error) in [("bytes 60000-99999/100000", "not asked for"), ("bytes 50000-99999/100001", "100001 bytes")]
    {
        let served = content.clone();
        let registry = FakeRegistry::start(move |asked| match asked.range {
            None => Answer::new(200, served.slice(..50_000)).header("content-length", "100000").ends(End::Cut),
            Some(_) => Answer::new(206, served.slice(60_000..)).header("content-range", range),
        })
        .await;
        let name = reference(&registry.host, "a");
        let found = in_time(fetch(&client(Account::Anonymous), &name, &layer(&content))).await.expect_err(range);
        assert!(chain(&found).contains(error), "{}", chain(&found));
    }
}
