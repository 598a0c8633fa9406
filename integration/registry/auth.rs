//! Tokens: how they are asked for, by how many, and what happens when they end in the middle of something.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A registry and its token server: it lets whoever has the latest token in, which is `t1`, `t2` and so on.
struct WithTokens {
    fake: FakeRegistry,
    /// How many of the tokens given have ended.
    ended: Arc<AtomicUsize>,
}

async fn with_tokens(
    token: impl Fn(&Asked, usize) -> Option<Answer> + Send + Sync + 'static,
    then: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> WithTokens {
    let host = Arc::new(Mutex::new(String::new()));
    let ended = Arc::new(AtomicUsize::new(0));
    let (own, gone, given) = (Arc::clone(&host), Arc::clone(&ended), AtomicUsize::new(0));
    let fake = FakeRegistry::start(move |asked| {
        let challenge = || Answer::challenge(&format!("http://{}/token", own.lock().expect("lock")));
        if asked.line.contains("/token") {
            return token(asked, given.load(Ordering::Relaxed)).unwrap_or_else(|| {
                let number = given.fetch_add(1, Ordering::Relaxed) + 1;
                Answer::new(200, format!(r#"{{"token":"t{number}","expires_in":3600}}"#))
            });
        }
        let bearer = asked.authorization.as_ref().and_then(|a| a.strip_prefix("Bearer t")?.parse::<usize>().ok());
        match bearer {
            Some(number) if number > gone.load(Ordering::Relaxed) => then(asked),
            _ => challenge(),
        }
    })
    .await;
    host.lock().expect("lock").clone_from(&fake.host);
    WithTokens { fake, ended }
}

impl WithTokens {
    fn tokens(&self) -> Vec<Asked> {
        self.fake.asked().into_iter().filter(|asked| asked.line.contains("/token")).collect()
    }
}

fn identity() -> Account {
    Account::Identity { token: Secret::new("refresh me") }
}

fn form(asked: &Asked) -> String {
    String::from_utf8_lossy(&asked.body).into_owned()
}

#[tokio::test]
async fn tokens_are_asked_for_in_the_other_way_where_one_is_refused() {
    // The account, what the usual way is answered, and the ways that are tried.
    for (account, refusal, methods) in [
        (identity(), 401, "POST GET"),
        (identity(), 404, "POST GET"),
        (identity(), 405, "POST GET"),
        (password(), 404, "GET POST"),
        (password(), 405, "GET POST"),
    ] {
        let content = noise(100);
        let served = content.clone();
        let usual = methods.split(' ').next().expect("method").to_owned();
        let refuse = move |asked: &Asked, _| asked.line.starts_with(&usual).then(|| Answer::new(refusal, ""));
        let registry = with_tokens(refuse, move |_| Answer::new(200, served.clone())).await;
        let name = reference(&registry.fake.host, "a");
        assert_eq!(fetch(&client(account.clone()), &name, &layer(&content)).await.expect("let in"), content);
        let asked = registry.tokens();
        let found: Vec<&str> = asked.iter().map(|asked| asked.line.split(' ').next().expect("method")).collect();
        assert_eq!(found.join(" "), methods, "{account:?} {refusal}");
        let (query, posted) = if found[0] == "GET" { (&asked[0], &asked[1]) } else { (&asked[1], &asked[0]) };
        let basic = |login: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
        match account {
            Account::Identity { .. } => {
                assert_eq!(query.authorization, Some(basic(":refresh me")));
                assert!(form(posted).contains("grant_type=refresh_token&refresh_token=refresh+me"), "{}", form(posted));
            }
            _ => {
                assert_eq!(query.authorization, Some(basic(&format!("{USER}:{PASSWORD}"))));
                let login = format!("grant_type=password&username={USER}&password={PASSWORD}");
                assert!(form(posted).contains(&login), "{}", form(posted));
            }
        }
        assert!(form(posted).contains("scope=repository%3Aa%3Apull"), "{}", form(posted));
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let registry = with_tokens(
        |_, _| Some(Answer::new(401, r#"{"details":"incorrect username or password"}"#)),
        |_| Answer::new(500, ""),
    )
    .await;
    let error = client(password()).manifest(&reference(&registry.fake.host, "a:b")).await.expect_err("refused");
    assert!(matches!(error, RegistryError::Denied { status: 401, logged_in: true, .. }), "{error:?}");
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
    assert_eq!(registry.tokens().len(), 1);
}

#[tokio::test]
async fn one_token_is_had_for_all_who_want_it_at_once() {
    let content = noise(1000);
    let served = content.clone();
    let registry = with_tokens(|_, _| None, move |_| Answer::new(200, served.clone())).await;
    let client = client(password());
    let name = reference(&registry.fake.host, "a");
    let layer = layer(&content);
    let all = futures_util::future::join_all((0..16).map(|_| fetch(&client, &name, &layer))).await;
    assert!(all.into_iter().all(|fetched| fetched.expect("blob") == content));
    assert_eq!(registry.tokens().len(), 1);
}

#[tokio::test]
async fn a_token_server_that_is_busy_is_waited_for() {
    for (status, header) in [(429, Some("0")), (429, None), (503, None), (502, None)] {
        let content = noise(100);
        let served = content.clone();
        let asked = AtomicUsize::new(0);
        let busy = move |_: &Asked, _| {
            let first = asked.fetch_add(1, Ordering::Relaxed) < 2;
            first.then(|| match header {
                Some(value) => Answer::new(status, "").header("retry-after", value),
                None => Answer::new(status, ""),
            })
        };
        let registry = with_tokens(busy, move |_| Answer::new(200, served.clone())).await;
        let name = reference(&registry.fake.host, "a");
        assert_eq!(fetch(&client(password()), &name, &layer(&content)).await.expect("in the end"), content);
        assert_eq!(registry.tokens().len(), 3, "{status}");
    }
}

#[tokio::test]
async fn r8_a_registry_that_is_never_content_is_left() {
    let registry = with_tokens(|_, _| None, |_| Answer::new(200, "")).await;
    registry.ended.store(usize::MAX, Ordering::Relaxed);
    let name = reference(&registry.fake.host, "a:b");
    for account in [password(), identity(), Account::Anonymous] {
        let before = registry.fake.asked().len();
        let error = client(account).manifest(&name).await.expect_err("never let in");
        assert!(matches!(error, RegistryError::Denied { status: 401, .. }), "{error:?}");
        assert_eq!(registry.fake.asked().len() - before, 3, "asked, got a token, asked again");
    }
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_push_is_renewed() {
    let content = noise(200_000);
    let (ended, taken) = (Arc::new(Mutex::new(None::<Arc<AtomicUsize>>)), Arc::new(Mutex::new(Vec::new())));
    let (end, take) = (Arc::clone(&ended), Arc::clone(&taken));
    let registry = with_tokens(
        |_, _| None,
        move |asked| match asked.line.split(' ').next().expect("method") {
            "HEAD" => Answer::new(404, ""),
            "POST" => {
                // The first token ends as soon as the upload has begun.
                end.lock().expect("lock").as_ref().expect("set").store(1, Ordering::Relaxed);
                Answer::new(202, "").header("location", "/v2/a/blobs/uploads/1")
            }
            _ => {
                take.lock().expect("lock").push(asked.body.clone());
                Answer::new(201, "")
            }
        },
    )
    .await;
    *ended.lock().expect("lock") = Some(Arc::clone(&registry.ended));
    let (client, name, open) = (client(password()), reference(&registry.fake.host, "a"), opener(&content));
    let pushed = client.push_blob(&name, &layer(&content), &*open, Whereabouts::Repositories(&[]), silent()).await;
    assert_eq!(pushed.expect("pushed"), Pushed::Uploaded);
    assert_eq!(*taken.lock().expect("lock"), [content]);
    assert_eq!(registry.tokens().len(), 2);
    assert_eq!(registry.fake.lines().iter().filter(|line| line.starts_with("POST")).count(), 1, "one session");
}

/// Gives another password each time, as a credential helper does whose passwords end.
#[derive(Debug, Default)]
struct Renewed(AtomicUsize);

impl Credentials for Renewed {
    fn account<'a>(&'a self, _: &'a str, _: &'a str, _: Access) -> BoxFuture<'a, Result<Account, CredentialsError>> {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let account = Account::Password { username: "u".into(), password: Secret::new(format!("p{number}")) };
        Box::pin(async { Ok(account) })
    }
}

#[tokio::test]
async fn a_password_that_has_ended_is_asked_for_again() {
    let content = noise(100);
    let served = content.clone();
    let good = Arc::new(Mutex::new("p1"));
    let current = Arc::clone(&good);
    let registry = FakeRegistry::start(move |asked| {
        let login = format!("u:{}", current.lock().expect("lock"));
        let login = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
        match asked.authorization.as_ref() == Some(&login) {
            true => Answer::new(200, served.clone()),
            false => Answer::new(401, "").header("www-authenticate", "Basic realm=x"),
        }
    })
    .await;
    let credentials = Arc::new(Renewed::default());
    let options = ClientOptions { patience: patience(), ..ClientOptions::new(credentials) };
    let client = Client::new(options).expect("client");
    let name = reference(&registry.host, "a");
    fetch(&client, &name, &layer(&content)).await.expect("with the first");
    *good.lock().expect("lock") = "p2";
    fetch(&client, &name, &layer(&content)).await.expect("with the second");
    assert_eq!(registry.asked().len(), 4);
}
