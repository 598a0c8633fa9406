//! What the big registries answer, and what is told of it. Each stands behind a proxy under its own name.

use super::*;

/// A client for which the registry at `host` is `fake`.
fn as_if(host: &str, fake: &FakeRegistry, account: Account) -> Arc<Client> {
    let mut options = options(account);
    options.proxies.http = Some(format!("http://{}", fake.host));
    let plain = HostOptions { http: Some(true), ..HostOptions::default() };
    options.hosts.insert(host.into(), plain);
    Client::new(options).expect("client")
}

/// A row: where, what for, the status, a header, the body; words of the message and of the hints.
struct Row {
    host: &'static str,
    repository: &'static str,
    account: bool,
    status: u16,
    header: (&'static str, &'static str),
    body: &'static str,
    message: &'static str,
    hint: &'static str,
}

const NONE: (&str, &str) = ("x-none", "");
const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

const ROWS: [Row; 10] = [
    Row {
        host: "ghcr.io",
        repository: "owner/app",
        account: true,
        status: 403,
        header: NONE,
        body: r#"{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}"#,
        message: "ghcr.io refused access to owner/app (403: DENIED permission_denied: write_package)",
        hint: "packages: write",
    },
    Row {
        host: "ghcr.io",
        repository: "owner/app",
        account: true,
        status: 403,
        header: NONE,
        body: r#"{"errors":[{"code":"DENIED","message":"permission_denied: The token provided does not match expected scopes."}]}"#,
        message: "does not match expected scopes",
        hint: "write:packages",
    },
    Row {
        host: ECR,
        repository: "team/app",
        account: true,
        status: 404,
        header: NONE,
        body: r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'team/app' does not exist in the registry with id '123456789012'"}]}"#,
        message: "answered 404 when asked to begin an upload: NAME_UNKNOWN The repository with name 'team/app' does not exist",
        hint: "aws ecr create-repository --repository-name team/app --region eu-west-1",
    },
    Row {
        host: ECR,
        repository: "team/app",
        account: true,
        status: 403,
        header: NONE,
        body: r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#,
        message: "token has expired",
        hint: "aws ecr get-login-password --region eu-west-1",
    },
    Row {
        host: ECR,
        repository: "team/app",
        account: false,
        status: 401,
        header: (
            "www-authenticate",
            r#"Basic realm="https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#,
        ),
        body: "Not Authorized\n",
        message: "refused access to team/app (401)",
        hint: "aws ecr get-login-password",
    },
    Row {
        host: "europe-west1-docker.pkg.dev",
        repository: "proj/images/app",
        account: true,
        status: 403,
        header: NONE,
        body: r#"{"errors":[{"code":"DENIED","message":"Permission \"artifactregistry.repositories.uploadArtifacts\" denied on resource \"projects/proj/locations/europe-west1/repositories/images\" (or it may not exist)"}]}"#,
        message: "artifactregistry.repositories.uploadArtifacts",
        hint: "gcloud artifacts repositories create images",
    },
    Row {
        host: "team.azurecr.io",
        repository: "app",
        account: true,
        status: 401,
        header: NONE,
        body: r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required, visit https://aka.ms/acr/authorization for more information. CorrelationId: 1"}]}"#,
        message: "authentication required",
        hint: "az acr login --name team",
    },
    Row {
        host: "registry.gitlab.com",
        repository: "group/project",
        account: true,
        status: 403,
        header: NONE,
        body: r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
        message: "requested access to the resource is denied",
        hint: "$CI_REGISTRY_IMAGE",
    },
    Row {
        host: "harbor.example",
        repository: "proj/app",
        account: true,
        status: 403,
        header: NONE,
        body: r#"{"errors":[{"code":"DENIED","message":"adding 1.0 GiB of storage resource, which when updated to current usage of 9.9 GiB will exceed the configured upper limit of 10.0 GiB."}]}"#,
        message: "configured upper limit",
        hint: "raise its quota",
    },
    Row {
        host: "r.example",
        repository: "a/b",
        account: true,
        status: 400,
        header: NONE,
        body: r#"{"errors":[{"code":"NAME_INVALID","message":"invalid repository name"}]}"#,
        message: "NAME_INVALID",
        hint: "takes no such name",
    },
];

#[tokio::test]
async fn refusals_of_a_push_are_told_with_what_to_do() {
    for row in ROWS {
        // An account is only asked for when the registry wants one.
        let fake = FakeRegistry::start(move |asked| match asked.authorization {
            None if row.account => Answer::new(401, "").header("www-authenticate", "Basic realm=x"),
            _ => Answer::new(row.status, row.body).header(row.header.0, row.header.1),
        })
        .await;
        let account = if row.account { password() } else { Account::Anonymous };
        let client = as_if(row.host, &fake, account);
        let error = client.check_push(&reference(row.host, row.repository)).await.expect_err(row.body);
        assert!(error.to_string().contains(row.message), "{}: {error}", row.host);
        let hints = error.hints().join("\n");
        assert!(hints.contains(row.hint), "{}: {error}\n{hints}", row.host);
    }
}

#[tokio::test]
async fn the_hubs_limit_is_told_with_its_window() {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#;
    let fake = FakeRegistry::start(move |_| {
        Answer::new(429, body).header("ratelimit-limit", "100;w=21600").header("docker-ratelimit-source", "192.0.2.1")
    })
    .await;
    let client = as_if("docker.io", &fake, Account::Anonymous);
    let error = client.manifest(&"alpine:3".parse().expect("reference")).await.expect_err("limited");
    assert_eq!(error.to_string(), "docker.io refuses more requests for now (limit: 100 requests in 6 h)");
    assert_eq!(error.hints(), ["try again later, or log in with `docker login` for a higher limit"]);
    assert_eq!(fake.asked().len(), 1, "a limit over hours is not waited for");
}

#[tokio::test]
async fn answers_that_say_nothing_of_the_right_to_push_leave_the_question_open() {
    for (status, body) in [
        (404, ""),
        (404, r#"{"errors":[{"code":"UNSUPPORTED","message":"no uploads here"}]}"#),
        (405, ""),
        (400, ""),
        (429, ""),
        (502, ""),
        (200, ""),
        (307, ""),
    ] {
        let fake = FakeRegistry::start(move |_| Answer::new(status, body).header("location", "/else")).await;
        let answer = client(Account::Anonymous).check_push(&reference(&fake.host, "a")).await;
        assert!(matches!(answer.expect("no refusal"), rbuild::registry::Permission::Unknown(_)), "{status}");
    }
}

#[tokio::test]
async fn the_check_leaves_nothing_in_a_registry() {
    let registry = Registry::with_login();
    let client = client(password());
    let target = reference(&registry.host, "team/app");
    let answer = client.check_push(&target).await.expect("it may");
    assert!(matches!(answer, rbuild::registry::Permission::Given));
    client.take_back(&target).await;
    // docker-registry leaves the state of its hasher, which it removes later.
    let uploads = registry.directory().join("data/docker/registry/v2/repositories/team/app/_uploads");
    for session in std::fs::read_dir(uploads).expect("uploads") {
        let session = session.expect("entry").path();
        assert!(!session.join("startedat").exists() && !session.join("data").exists(), "{}", session.display());
    }
    let refused = self::client(Account::Anonymous).check_push(&target).await.expect_err("nobody may");
    assert_eq!(refused.hints(), [format!("log in with `docker login {}`", registry.host)]);
}
