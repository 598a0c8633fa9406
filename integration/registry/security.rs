//! The security rows of the registry client, each test named after its row: what a hostile server is not told and cannot cause.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// A registry that asks for a token of the named token server.
async fn asking_for(realm: String) -> FakeRegistry {
    FakeRegistry::start(move |_| Answer::challenge(&realm)).await
}

#[tokio::test]
async fn r1_password_is_not_sent_to_another_token_server() {
    let second = FakeRegistry::start(|_| Answer::new(200, r#"{"token":"t"}"#)).await;
    let port = second.host.rsplit(':').next().expect("port").to_owned();
    for realm in [
        format!("http://{}/token", second.host),
        format!("http://localhost:{port}/token"),
        format!("http://user@{}/token", second.host),
        format!("http://[::ffff:7f00:1]:{port}/token"),
        "file:///etc/passwd".into(),
        "not a url".into(),
        format!("http://{}/{}", second.host, "x".repeat(10_000)),
    ] {
        let registry = asking_for(realm.clone()).await;
        let client = client(password());
        client.manifest(&reference(&registry.host, "a:b")).await.expect_err(&realm);
        assert!(!registry.saw_credentials() || registry.asked().iter().all(bearer), "{realm}");
    }
    assert!(!second.saw_credentials(), "{:?}", second.asked());
    assert!(second.lines().iter().any(|l| l.starts_with("GET /token?")), "asked without the password");
}

fn bearer(asked: &Asked) -> bool {
    asked.authorization.as_ref().is_none_or(|a| a.starts_with("Bearer "))
}

#[tokio::test]
async fn r1_two_challenges_and_the_hint() {
    let second = FakeRegistry::start(|_| Answer::new(200, r#"{"token":"t"}"#)).await;
    let realm = format!("http://{}/token", second.host);
    let value = format!("Basic realm=\"x\", Bearer realm=\"{realm}\"");
    let registry = FakeRegistry::start(move |_| Answer::new(401, "").header("www-authenticate", value.clone())).await;
    let error = client(password()).manifest(&reference(&registry.host, "a:b")).await.expect_err("refused");
    assert!(!second.saw_credentials());
    assert!(error.hints()[0].contains("trusted-realms"), "{:?}", error.hints());
}

/// A registry with its own token server that keeps to the protocol.
async fn with_tokens(content: Bytes) -> FakeRegistry {
    let host = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&host);
    let registry = FakeRegistry::start(move |asked| {
        let realm = format!("http://{}/token", own.lock().expect("lock"));
        if let Some(query) = asked.line.strip_prefix("GET /token?") {
            return Answer::new(200, format!(r#"{{"token":"for {}"}}"#, scopes(query)));
        }
        if asked.line.starts_with("POST /token") {
            let scope = scopes(&String::from_utf8_lossy(&asked.body));
            return Answer::new(200, format!(r#"{{"access_token":"for {scope}"}}"#));
        }
        match &asked.authorization {
            None => Answer::challenge(&realm),
            Some(_) if asked.line.starts_with("POST") => Answer::new(202, "").header("location", "/upload?s=1"),
            Some(_) if asked.line.starts_with("PUT") => Answer::new(201, ""),
            Some(_) if asked.line.starts_with("HEAD") => Answer::new(404, ""),
            Some(_) => Answer::new(200, content.clone()),
        }
    })
    .await;
    host.lock().expect("lock").clone_from(&registry.host);
    registry
}

fn scopes(query: &str) -> String {
    let values = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    values.map(|v| v.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/")).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn r12_each_repository_and_action_has_its_own_token() {
    let content = noise(100);
    let registry = with_tokens(content.clone()).await;
    let client = client(password());
    let (one, two) = (reference(&registry.host, "one/app"), reference(&registry.host, "two"));
    for _ in 0..2 {
        fetch(&client, &one, &layer(&content)).await.expect("one");
        fetch(&client, &two, &layer(&content)).await.expect("two");
    }
    let other = noise(10);
    client
        .push_blob(
            &one,
            &layer(&other),
            &*opener(&other),
            Whereabouts::Repositories(std::slice::from_ref(&two)),
            silent(),
        )
        .await
        .expect("push");
    let asked = registry.asked();
    let tokens: Vec<String> =
        asked.iter().filter(|a| a.line.starts_with("GET /token")).map(|a| scopes(&a.line[11..])).collect();
    assert_eq!(
        tokens,
        [
            "repository:one/app:pull",
            "repository:two:pull",
            "repository:one/app:pull,push",
            "repository:one/app:pull,push repository:two:pull"
        ]
    );
    for one in asked.iter().filter(|a| a.line.contains("/v2/one/app/blobs/sha256:") && a.line.starts_with("GET")) {
        let token = one.authorization.as_deref().unwrap_or("Bearer for repository:one/app:pull");
        assert_eq!(token, "Bearer for repository:one/app:pull", "{}", one.line);
    }
}

#[tokio::test]
async fn identity_tokens_are_exchanged_by_post() {
    let content = noise(100);
    let registry = with_tokens(content.clone()).await;
    let client = client(Account::Identity { token: Secret::new("refresh me") });
    fetch(&client, &reference(&registry.host, "app"), &layer(&content)).await.expect("pull");
    let asked = registry.asked();
    let post = asked.iter().find(|a| a.line == "POST /token").expect("exchange");
    let form = String::from_utf8_lossy(&post.body);
    for part in ["grant_type=refresh_token", "refresh_token=refresh+me", "service=test", "client_id=rbuild"] {
        assert!(form.contains(part), "{form}");
    }
    assert!(post.authorization.is_none());
}

/// A server that wants Basic authentication for everything and then does as told.
async fn behind_login(then: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> FakeRegistry {
    FakeRegistry::start(move |asked| match asked.authorization {
        None => Answer::new(401, "").header("www-authenticate", "Basic realm=x"),
        Some(_) => then(asked),
    })
    .await
}

#[tokio::test]
async fn r2_redirects_to_another_origin_lose_the_credential() {
    let content = noise(5000);
    let served = content.clone();
    let second = FakeRegistry::start(move |_| Answer::new(200, served.clone())).await;
    let target = format!("http://{}/data?sig=abc", second.host);
    let registry = behind_login(move |_| Answer::redirect(target.clone())).await;
    let client = client(password());
    let name = reference(&registry.host, "a:b");
    assert_eq!(fetch(&client, &name, &layer(&content)).await.expect("blob"), content);
    client.manifest(&name).await.expect_err("not a manifest");
    assert!(second.asked().len() >= 2 && !second.saw_credentials(), "{:?}", second.asked());
}

#[tokio::test]
async fn r2_a_chain_back_home_stays_without_credential() {
    let home = Arc::new(Mutex::new(String::new()));
    let back = Arc::clone(&home);
    let second =
        FakeRegistry::start(move |_| Answer::redirect(format!("http://{}/back", back.lock().expect("lock")))).await;
    let away = format!("http://{}/away", second.host);
    let registry = FakeRegistry::start(move |asked| match (&asked.authorization, asked.line.as_str()) {
        (_, "GET /back") => Answer::new(403, ""),
        (None, _) => Answer::new(401, "").header("www-authenticate", "Basic realm=x"),
        (Some(_), _) => Answer::redirect(away.clone()),
    })
    .await;
    home.lock().expect("lock").clone_from(&registry.host);
    fetch(&client(password()), &reference(&registry.host, "a"), &layer(&noise(9))).await.expect_err("refused");
    let back: Vec<Asked> = registry.asked().into_iter().filter(|a| a.line == "GET /back").collect();
    assert!(!back.is_empty() && back.iter().all(|a| a.authorization.is_none()), "{back:?}");
}

#[tokio::test]
async fn r2_redirects_are_bounded() {
    let registry = FakeRegistry::start(|_| Answer::redirect("/again")).await;
    let error = fetch(&client(password()), &reference(&registry.host, "a"), &layer(&noise(9))).await.expect_err("loop");
    assert!(error.to_string().contains("too many redirects"), "{error}");
    assert_eq!(registry.asked().len(), 6);
}

#[tokio::test]
async fn r3_uploads_elsewhere_carry_no_credential() {
    let second = FakeRegistry::start(|_| Answer::new(201, "")).await;
    for (location, reason) in [
        (format!("http://{}/upload", second.host), "without TLS"),
        (format!("http://user:pw@{}/upload", second.host), "without TLS"),
        (format!("https://{}/upload", second.host), ""),
    ] {
        let registry = behind_login(move |asked| match asked.line.starts_with("POST") {
            true => Answer::new(202, "").header("location", location.clone()),
            false => Answer::new(404, ""),
        })
        .await;
        let content = noise(100);
        let name = reference(&registry.host, "a");
        let error = client(password())
            .push_blob(&name, &layer(&content), &*opener(&content), Whereabouts::Repositories(&[]), silent())
            .await
            .expect_err("refused");
        assert!(chain(&error).contains(reason) && !chain(&error).contains("pw"), "{error}");
    }
    assert!(!second.saw_credentials() && second.asked().is_empty(), "{:?}", second.asked());
}

/// Looks names up in a table.
struct Table(BTreeMap<&'static str, Vec<&'static str>>);

impl reqwest::dns::Resolve for Table {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let found = self.0.get(name.as_str()).cloned().unwrap_or_default();
        let found: Vec<std::net::SocketAddr> =
            found.iter().map(|ip| (ip.parse::<std::net::IpAddr>().expect("address"), 0).into()).collect();
        Box::pin(async move { Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs) })
    }
}

#[tokio::test]
async fn r4_servers_cannot_send_us_to_forbidden_addresses() {
    for (target, private) in [
        ("http://metadata.example/latest", "cloud metadata"),
        ("http://169.254.169.254/latest", "cloud metadata"),
        ("http://[::ffff:a9fe:a9fe]/latest", "cloud metadata"),
        ("http://0.0.0.0:1/", "unspecified"),
        ("http://mixed.example/", "link-local"),
    ] {
        let table = Table(BTreeMap::from([
            ("metadata.example", vec!["169.254.169.254"]),
            ("mixed.example", vec!["127.0.0.1", "fe80::1"]),
        ]));
        let client = Client::new(ClientOptions { resolver: Some(Arc::new(table)), ..options(password()) });
        let registry = FakeRegistry::start(move |_| Answer::redirect(target)).await;
        let began = Instant::now();
        let name = reference(&registry.host, "a");
        let error = fetch(&client.expect("client"), &name, &layer(&noise(9))).await.expect_err(target);
        assert!(chain(&error).contains(private), "{target}: {}", chain(&error));
        assert!(began.elapsed() < Duration::from_secs(2), "{target} was tried again");
    }
}

#[tokio::test]
async fn r4_public_registries_cannot_send_us_to_private_addresses() {
    // The name stands for a public registry: it is looked up where nobody but the proxy, which is the fake, asks.
    let inside = FakeRegistry::start(|_| Answer::new(200, "inside")).await;
    let port = inside.host.rsplit(':').next().expect("port").to_owned();
    let redirects = [format!("http://inside.example:{port}/x"), format!("http://127.0.0.1:{port}/x")];
    for target in redirects {
        let proxy = FakeRegistry::start(move |asked| match asked.line.contains("public.example") {
            true => Answer::redirect(target.clone()),
            false => Answer::new(500, ""),
        })
        .await;
        let mut options = options(Account::Anonymous);
        options.resolver = Some(Arc::new(Table(BTreeMap::from([("inside.example", vec!["127.0.0.1"])]))));
        options.proxies.http = Some(format!("http://{}", proxy.host));
        options.proxies.except = "inside.example,127.0.0.1".into();
        options.hosts.insert("public.example".into(), HostOptions { http: Some(true), ..HostOptions::default() });
        let client = Client::new(options).expect("client");
        let error = fetch(&client, &reference("public.example", "a"), &layer(&noise(9))).await.expect_err("refused");
        assert!(chain(&error).contains("private or loopback"), "{}", chain(&error));
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn r5_urls_of_descriptors_are_ignored() {
    let second = FakeRegistry::start(|_| Answer::new(200, "foreign")).await;
    let (_, manifest) = empty_image();
    let urls = format!(
        r#"}},"layers":[{{"mediaType":"{}","digest":"{}","size":1,"urls":["http://{}/l"]}}]"#,
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        Digest::compute("x"),
        second.host
    );
    let manifest = String::from_utf8_lossy(&manifest).replace(r#"},"layers":[]"#, &urls);
    assert!(manifest.contains("urls"));
    let config = empty_image().0;
    let served = Bytes::from(manifest.clone());
    let registry = FakeRegistry::start(move |asked| match asked.line.contains("/manifests/") {
        true => Answer::new(200, served.clone()).header("content-type", media::OCI_MANIFEST),
        false => Answer::new(200, config.clone()),
    })
    .await;
    let client = client(password());
    client.manifest(&reference(&registry.host, "a:b")).await.expect(&manifest);
    let descriptor = Descriptor::of(media::OCI_CONFIG, &empty_image().0);
    fetch(&client, &reference(&registry.host, "a:b"), &descriptor).await.expect("normal path");
    assert!(second.asked().is_empty());
}

#[tokio::test]
async fn r6_content_type_and_body_must_agree() {
    let (_, manifest) = empty_image();
    let registry =
        FakeRegistry::start(move |_| Answer::new(200, manifest.clone()).header("content-type", media::OCI_INDEX)).await;
    let error = client(Account::Anonymous).manifest(&reference(&registry.host, "a:b")).await.expect_err("refused");
    assert!(chain(&error).contains("media type"), "{}", chain(&error));
}

#[tokio::test]
async fn r7_content_that_is_not_what_its_digest_says() {
    let content = noise(5000);
    let mut wrong = content.to_vec();
    wrong[4999] ^= 1;
    let longer = [&content[..], b"x"].concat();
    let (_, manifest) = empty_image();
    for body in [wrong, longer] {
        let registry = FakeRegistry::start(move |_| Answer::new(200, body.clone())).await;
        let name = reference(&registry.host, "a");
        let error = fetch(&client(Account::Anonymous), &name, &layer(&content)).await.expect_err("refused");
        assert!(matches!(error, RegistryError::Mismatch { .. } | RegistryError::Size { .. }), "{error:?}");
    }
    let registry = FakeRegistry::start(move |_| Answer::new(200, manifest.clone())).await;
    let pinned = reference(&registry.host, "a").with_digest(Digest::compute("other"));
    let error = client(Account::Anonymous).manifest(&pinned).await.expect_err("refused");
    assert!(matches!(error, RegistryError::Mismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn r8_everything_is_bounded() {
    let huge = Descriptor::new(media::OCI_CONFIG, Digest::compute("x"), 1 << 62);
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    let endless = chunk.clone();
    let registry = FakeRegistry::start(move |asked| match asked.line.as_str() {
        line if line.contains("/manifests/endless") => Answer::new(200, endless.clone()).ends(End::Never),
        line if line.contains("/manifests/error") => Answer::new(400, endless.clone()).ends(End::Never),
        line if line.contains("/manifests/slow") => Answer::new(200, "x").ends(End::Stall),
        line if line.contains("/tags/") => Answer::new(200, r#"{"tags":["a"]}"#)
            .header("link", format!("</v2/a/tags/list?last={}>; rel=\"next\"", line.len())),
        _ => Answer::new(200, endless.clone()).ends(End::Never),
    })
    .await;
    let client = client(Account::Anonymous);
    let of = |rest: &str| reference(&registry.host, rest);
    let began = Instant::now();
    let endless = client.manifest(&of("a:endless")).await.expect_err("endless");
    assert!(matches!(endless, RegistryError::TooLarge { .. }), "{endless:?}");
    let error = client.manifest(&of("a:error")).await.expect_err("error page");
    assert!(matches!(error, RegistryError::Status { status: 400, .. }), "{error:?}");
    let slow = client.manifest(&of("a:slow")).await.expect_err("slow");
    assert!(matches!(slow, RegistryError::TimedOut { .. }), "{slow:?}");
    let config = client.small_blob(&of("a"), &huge, 8 << 20).await.expect_err("declared size");
    assert!(matches!(config, RegistryError::TooLarge { .. }), "{config:?}");
    let blob = fetch(&client, &of("a"), &layer(&noise(100))).await.expect_err("endless blob");
    assert!(matches!(blob, RegistryError::Size { .. }), "{blob:?}");
    assert!(client.tags(&of("a")).await.expect("tags").len() <= 100);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn r8_pages_without_end_are_left() {
    let count = Arc::new(Mutex::new(0));
    let registry = FakeRegistry::start(move |_| {
        let mut count = count.lock().expect("lock");
        *count += 1;
        Answer::new(200, r#"{"tags":["a"]}"#).header("link", format!("</v2/a/tags/list?last={}>; rel=\"next\"", *count))
    })
    .await;
    assert_eq!(client(Account::Anonymous).tags(&reference(&registry.host, "a")).await.expect("tags").len(), 100);
}

/// Settings that say TLS for a host of this machine.
fn tls() -> HostOptions {
    HostOptions { http: Some(false), ..HostOptions::default() }
}

#[tokio::test]
async fn r9_no_credentials_over_plain_http_to_other_hosts() {
    // Not configured as plain HTTP, so it is asked over TLS, which the fake does not speak, and nothing is sent in clear.
    let registry = behind_login(|_| Answer::new(200, "")).await;
    let mut options = options(password());
    options.hosts.insert(registry.host.clone(), tls());
    let error =
        Client::new(options).expect("client").manifest(&reference(&registry.host, "a:b")).await.expect_err("TLS");
    assert!(registry.asked().is_empty());
    assert!(error.hints()[0].contains("http = true"), "{:?} {}", error.hints(), chain(&error));
}

#[tokio::test]
async fn r13_secrets_are_in_no_message() {
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let body = format!(r#"{{"errors":[{{"code":"DENIED","message":"bad {token} https://u:hunter2@h/x?sig=abc"}}]}}"#);
    let registry = behind_login(move |asked| match asked.line.contains("redirect") {
        true => Answer::redirect("ftp://u:hunter2@host/?X-Amz-Signature=abc"),
        false => Answer::new(403, body.clone()),
    })
    .await;
    let client = client(password());
    for name in ["a:b", "redirect:b"] {
        let error = client.manifest(&reference(&registry.host, name)).await.expect_err(name);
        let shown = format!("{} {:?} {:?} {client:?}", chain(&error), error, error.hints());
        for secret in [PASSWORD, &basic, "c2lnbmF0dXJl", "hunter2", "sig=abc", "Signature=abc"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}

#[tokio::test]
async fn r11_certificates_are_verified_unless_told_otherwise() {
    let registry = Registry::with_tls();
    let with = |options: HostOptions| {
        let mut all = super::options(Account::Anonymous);
        all.hosts.insert(registry.host.clone(), options);
        Client::new(all).expect("client")
    };
    let error = with(tls()).ping(&registry.host).await.expect_err("unknown authority");
    assert!(error.hints()[0].contains("ca = "), "{:?} {}", error.hints(), chain(&error));
    with(HostOptions { insecure: true, ..HostOptions::default() })
        .ping(&registry.host)
        .await
        .expect("told not to verify");
    let authorities = vec![registry.directory().join("cert.pem")];
    let client = with(HostOptions { authorities, ..HostOptions::default() });
    client.ping(&registry.host).await.expect("known authority");
    let target = reference(&registry.host, "a:b");
    let digest = push_image(&client, &target).await;
    assert_eq!(client.resolve(&target).await.expect("resolve").digest, digest);
}

/// Answers as a registry does until the upload, whose body it never reads.
async fn deaf(listener: tokio::net::TcpListener) {
    loop {
        let (mut socket, _) = listener.accept().await.expect("accept");
        tokio::spawn(async move {
            let mut head = Vec::new();
            while let Ok(byte) = socket.read_u8().await {
                head.push(byte);
                if !head.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let answer: &[u8] = match head[0] {
                    b'H' => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
                    _ if head.starts_with(b"POST") => {
                        b"HTTP/1.1 202 Accepted\r\nlocation: /upload\r\ncontent-length: 0\r\n\r\n"
                    }
                    _ => return tokio::time::sleep(Duration::from_secs(60)).await,
                };
                socket.write_all(answer).await.expect("answer");
                head.clear();
            }
        });
    }
}

#[tokio::test]
async fn r8_uploads_that_do_not_move_are_left() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let name = reference(&listener.local_addr().expect("address").to_string(), "a");
    let server = tokio::spawn(deaf(listener));
    let mut options = options(Account::Anonymous);
    options.patience.attempts = 1;
    options.patience.idle = Duration::from_millis(500);
    options.patience.document = Duration::from_secs(600);
    let content = noise(32 << 20);
    let began = Instant::now();
    let client = Client::new(options).expect("client");
    let error = client
        .push_blob(&name, &layer(&content), &*opener(&content), Whereabouts::Repositories(&[]), silent())
        .await
        .expect_err("deaf");
    server.abort();
    assert!(matches!(error, RegistryError::TimedOut { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(15));
}
