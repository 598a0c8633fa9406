//! The distribution client against docker-registry and skopeo, and against servers that misbehave.

mod auth;
mod faults;
mod limits;
mod mirrors;
mod pull;
mod refusals;
mod security;
mod uploads;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use rbuild::diag::{Diagnose, chain};
use rbuild::digest::Digest;
use rbuild::image::{Descriptor, Reference, media};
use rbuild::registry::{
    Access, Account, ByteReader, Client, ClientOptions, Credentials, CredentialsError, HostOptions, OnSent, Open,
    Patience, Pushed, RegistryError, Secret, Whereabouts,
};

use crate::support::fake_registry::{Answer, Asked, End, FakeRegistry};
use crate::support::registry::{PASSWORD, Registry, USER};

/// Gives one account for every host.
#[derive(Debug)]
struct Always(Account);

impl Credentials for Always {
    fn account<'a>(&'a self, _: &'a str, _: &'a str, _: Access) -> BoxFuture<'a, Result<Account, CredentialsError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

fn password() -> Account {
    Account::Password { username: USER.into(), password: Secret::new(PASSWORD) }
}

fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        idle: Duration::from_secs(2),
        document: Duration::from_secs(4),
        attempts: 3,
        backoff: Duration::from_millis(10),
        longest_wait: Duration::from_secs(2),
        ..Patience::default()
    }
}

fn options(account: Account) -> ClientOptions {
    ClientOptions { patience: patience(), ..ClientOptions::new(Arc::new(Always(account))) }
}

fn client(account: Account) -> Arc<Client> {
    Client::new(options(account)).expect("client")
}

fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().expect(rest)
}

fn opener(content: &Bytes) -> Box<Open> {
    let content = content.clone();
    Box::new(move || {
        let reader = std::io::Cursor::new(content.clone());
        Box::pin(async move { Ok(Box::pin(reader) as ByteReader) })
    })
}

fn silent() -> OnSent {
    Arc::new(|_| ())
}

/// Bytes that do not repeat within a chunk, so that a resume at the wrong place shows.
fn noise(length: usize) -> Bytes {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect::<Vec<_>>().into()
}

fn layer(content: &Bytes) -> Descriptor {
    Descriptor::of(media::OCI_LAYER, content)
}

async fn fetch(client: &Arc<Client>, name: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    let mut blob = client.blob(name, descriptor).await?;
    let mut content = Vec::new();
    while let Some(chunk) = blob.chunk().await? {
        content.extend_from_slice(&chunk);
    }
    Ok(content)
}

/// An empty image: its config and its manifest.
fn empty_image() -> (Bytes, Bytes) {
    let config = r#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let config = Bytes::from_static(config.as_bytes());
    let digest = Digest::compute(&config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{digest}","size":{}}},"layers":[]}}"#,
        media::OCI_MANIFEST,
        media::OCI_CONFIG,
        config.len()
    );
    (config, manifest.into())
}

async fn push_image(client: &Arc<Client>, target: &Reference) -> Digest {
    let (config, manifest) = empty_image();
    let descriptor = Descriptor::of(media::OCI_CONFIG, &config);
    client
        .push_blob(target, &descriptor, &*opener(&config), Whereabouts::Repositories(&[]), silent())
        .await
        .expect("config");
    client.push_manifest(target, media::OCI_MANIFEST, &manifest).await.expect("manifest")
}

fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo").args(arguments).output().expect("skopeo is installed (Debian package skopeo)");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn pushes_and_pulls_with_a_real_registry() {
    let registry = Registry::start();
    let client = client(Account::Anonymous);
    let target = reference(&registry.host, "team/app:v1");
    client.ping(&registry.host).await.expect("ping");
    let content = noise(3_000_000);
    let descriptor = layer(&content);
    let seen = Arc::new(Mutex::new(0));
    let sent: OnSent = Arc::new({
        let seen = Arc::clone(&seen);
        move |count| *seen.lock().expect("lock") = count
    });
    let open = opener(&content);
    let push = |name: Reference, from: Vec<Reference>| {
        // A new one each time, which knows nothing of what the others pushed.
        let client = self::client(Account::Anonymous);
        let (descriptor, open, sent) = (&descriptor, &open, Arc::clone(&sent));
        async move {
            client.push_blob(&name, descriptor, &**open, Whereabouts::Repositories(&from), sent).await.expect("push")
        }
    };
    assert!(!client.has_blob(&target, &descriptor).await.expect("head"));
    assert_eq!(push(target.clone(), vec![]).await, Pushed::Uploaded);
    assert_eq!(*seen.lock().expect("lock"), 3_000_000);
    assert_eq!(push(target.clone(), vec![]).await, Pushed::Existed);
    let other = reference(&registry.host, "team/other");
    assert_eq!(push(other.clone(), vec![target.clone()]).await, Pushed::Mounted);
    assert_eq!(fetch(&client, &other, &descriptor).await.expect("pull"), content);

    let digest = push_image(&client, &target).await;
    let resolved = client.resolve(&target).await.expect("resolve");
    assert_eq!((&resolved.digest, resolved.media_type.as_str()), (&digest, media::OCI_MANIFEST));
    let pinned = Reference { tag: None, ..target.clone().with_digest(digest.clone()) };
    assert_eq!(client.manifest(&pinned).await.expect("by digest").0.digest, digest);
    assert_eq!(client.tags(&target).await.expect("tags"), ["v1"]);
    let shown = skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{target}")]);
    assert_eq!(shown.trim(), digest.as_str());
}

#[tokio::test]
async fn reads_what_skopeo_wrote() {
    let registry = Registry::start();
    let client = client(Account::Anonymous);
    let target = reference(&registry.host, "a:one");
    let digest = push_image(&client, &target).await;
    let layout = format!("oci:{}:x", registry.directory().join("layout").display());
    skopeo(&["copy", "-q", "--src-tls-verify=false", &format!("docker://{target}"), &layout]);
    let copy = reference(&registry.host, "b/c:two");
    skopeo(&["copy", "-q", "--dest-tls-verify=false", &layout, &format!("docker://{copy}")]);
    assert_eq!(client.manifest(&copy).await.expect("copy").0.digest, digest);
}

#[tokio::test]
async fn logs_in_with_a_password() {
    let registry = Registry::with_login();
    let target = reference(&registry.host, "app:v1");
    let digest = push_image(&client(password()), &target).await;
    assert_eq!(client(password()).resolve(&target).await.expect("resolve").digest, digest);
    let wrong = Account::Password { username: USER.into(), password: Secret::new("wrong") };
    for account in [Account::Anonymous, wrong] {
        let error = client(account).manifest(&target).await.expect_err("refused");
        assert!(matches!(error, RegistryError::Denied { status: 401, .. }), "{error:?}");
        assert_eq!(error.hints(), [format!("log in with `docker login {}`", registry.host)]);
    }
    let credentials = format!("{USER}:{PASSWORD}");
    let shown = skopeo(&["inspect", "--tls-verify=false", "--creds", &credentials, &format!("docker://{target}")]);
    assert!(shown.contains(digest.as_str()));
}

#[tokio::test]
async fn says_what_is_missing() {
    let registry = Registry::start();
    let missing = reference(&registry.host, "no/such:thing");
    let error = client(Account::Anonymous).manifest(&missing).await.expect_err("missing");
    assert_eq!(error.to_string(), format!("{missing}: not found"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    let nobody = reference(&format!("127.0.0.1:{port}"), "a:b");
    let error = client(Account::Anonymous).manifest(&nobody).await.expect_err("nobody there");
    let shown = chain(&error);
    assert!(shown.contains(&nobody.registry) && shown.to_lowercase().contains("refused"), "{shown}");
    assert!(!error.hints().is_empty());
}

#[tokio::test]
async fn cut_transfers_are_continued_where_they_were_cut() {
    for ranges in [true, false] {
        let content = noise(300_000);
        let served = content.clone();
        let registry = FakeRegistry::start(move |asked| {
            let start = asked.range.as_ref().filter(|_| ranges).map_or(0, |r| {
                r.trim_start_matches("bytes=").split('-').next().and_then(|s| s.parse().ok()).expect("range")
            });
            let rest = served.slice(start..);
            let end = if asked.range.is_none() { 100_000 } else { rest.len() };
            let answer = Answer::new(if start > 0 { 206 } else { 200 }, rest.slice(..end))
                .header("content-length", rest.len().to_string())
                .ends(if end < rest.len() { End::Cut } else { End::Complete });
            match start {
                0 => answer,
                start => answer.header("content-range", format!("bytes {start}-299999/300000")),
            }
        })
        .await;
        let name = reference(&registry.host, "a");
        assert_eq!(fetch(&client(Account::Anonymous), &name, &layer(&content)).await.expect("blob"), content);
        let asked = registry.asked();
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[1].range.as_deref(), Some("bytes=100000-299999"));
    }
}

#[tokio::test]
async fn retries_what_may_pass_and_reports_limits() {
    let count = Arc::new(Mutex::new(0));
    let (_, manifest) = empty_image();
    let registry = FakeRegistry::start(move |asked| {
        let mut count = count.lock().expect("lock");
        *count += 1;
        match (asked.line.ends_with(":limited") || asked.line.ends_with("/limited"), *count) {
            (true, _) => Answer::new(429, "").header("ratelimit-limit", "100;w=21600"),
            (_, 1) => Answer::new(503, ""),
            (_, 2) => Answer::new(429, "").header("retry-after", "1"),
            _ => Answer::new(200, manifest.clone()),
        }
    })
    .await;
    let client = client(Account::Anonymous);
    let began = Instant::now();
    client.manifest(&reference(&registry.host, "a:b")).await.expect("third time");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let error = client.manifest(&reference(&registry.host, "a:limited")).await.expect_err("limited");
    assert!(error.to_string().contains("100 requests in 6 h"), "{error}");
    assert!(error.hints()[0].contains("docker login"));
    assert_eq!(registry.asked().len(), 4);
}

#[tokio::test]
async fn uploads_in_pieces_where_one_request_is_refused() {
    let registry = FakeRegistry::start(|asked| match asked.line.split(' ').next().expect("method") {
        "POST" => Answer::new(202, "").header("location", "/session/0"),
        "PATCH" => Answer::new(202, "").header("location", "/session/1?state=x"),
        "PUT" if asked.line.starts_with("PUT /session/1?state=x&digest=sha256") => Answer::new(201, ""),
        "PUT" => Answer::new(413, ""),
        _ => Answer::new(404, ""),
    })
    .await;
    let content = noise(1000);
    let name = reference(&registry.host, "a");
    let pushed = client(Account::Anonymous)
        .push_blob(&name, &layer(&content), &*opener(&content), Whereabouts::Repositories(&[]), silent())
        .await;
    assert_eq!(pushed.expect("pushed"), Pushed::Uploaded, "{:?}", registry.lines());
    let patched: Vec<Asked> = registry.asked().into_iter().filter(|a| a.line.starts_with("PATCH")).collect();
    assert_eq!(patched.iter().map(|a| &a.body[..]).collect::<Vec<_>>().concat(), content);
}

/// What a registry is asked for when a blob is pushed twice, as the methods alone.
async fn asked_for(size: usize, whereabouts: Whereabouts<'_>) -> (Vec<Pushed>, String) {
    let registry = FakeRegistry::start(|asked| match asked.line.split(' ').next().expect("method") {
        "POST" => Answer::new(202, "").header("location", "/session"),
        "PUT" => Answer::new(201, ""),
        _ => Answer::new(404, ""),
    })
    .await;
    let (client, name, content) = (client(Account::Anonymous), reference(&registry.host, "a"), noise(size));
    let mut pushed = Vec::new();
    for _ in 0..2 {
        let how = client.push_blob(&name, &layer(&content), &*opener(&content), whereabouts, silent()).await;
        pushed.push(how.expect("pushed"));
    }
    let methods: Vec<String> =
        registry.lines().iter().map(|line| line.split(' ').next().unwrap_or("").into()).collect();
    (pushed, methods.join(" "))
}

#[tokio::test]
async fn no_more_is_asked_than_is_not_known() {
    let twice = vec![Pushed::Uploaded, Pushed::Existed];
    for (size, whereabouts, expected) in [
        (1000, Whereabouts::Nowhere, "POST PUT"),
        (1_000_000, Whereabouts::Nowhere, "HEAD POST PUT"),
        (1000, Whereabouts::Repositories(&[]), "HEAD POST PUT"),
    ] {
        let expected = (twice.clone(), expected.to_owned());
        assert_eq!(asked_for(size, whereabouts).await, expected, "{size} bytes, {whereabouts:?}");
    }
}
