//! What is told of the refusals of the big registries.

use super::credentials::Access;
use super::refusal::{Refusal, after_limit, remedies};

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const GAR: &str = "europe-west1-docker.pkg.dev";

fn push<'a>(host: &'a str, repository: &'a str, status: u16, text: &'a str) -> Refusal<'a> {
    Refusal { host, repository, status, text, access: Access::Push, logged_in: true }
}

/// Host, repository, status, the words of the service as users report them, and words of the remedy.
const PUSHES: &[(&str, &str, u16, &str, &str)] = &[
    ("ghcr.io", "o/app", 403, ": DENIED permission_denied: write_package", "packages: write"),
    ("ghcr.io", "o/app", 403, ": DENIED permission_denied: write_package", "orgs/o/packages/container/app/settings"),
    ("ghcr.io", "o/a/b", 403, "", "packages/container/a%2Fb/settings"),
    ("ghcr.io", "o/app", 403, "", "fork"),
    ("ghcr.io", "o/app", 403, ": DENIED installation not allowed to Write organization package", "packages: write"),
    (
        "ghcr.io",
        "o/app",
        403,
        ": DENIED permission_denied: The token provided does not match expected scopes.",
        "write:packages",
    ),
    (
        ECR,
        "team/app",
        404,
        ": NAME_UNKNOWN The repository with name 'team/app' does not exist in the registry with id '123456789012'",
        "aws ecr create-repository --repository-name team/app --region eu-west-1",
    ),
    (
        ECR,
        "app",
        403,
        ": DENIED Your authorization token has expired. Reauthenticate and try again.",
        "aws ecr get-login-password --region eu-west-1 | docker login --username AWS --password-stdin 1234",
    ),
    (
        ECR,
        "app",
        403,
        ": DENIED User: arn:aws:sts::1:assumed-role/ci/x is not authorized to perform: ecr:InitiateLayerUpload on \
             resource: arn:aws:ecr:eu-west-1:1:repository/app",
        "ecr:InitiateLayerUpload",
    ),
    (
        ECR,
        "app",
        400,
        ": TAG_INVALID The image tag '1' already exists in the 'app' repository and cannot be overwritten because the \
             repository is immutable.",
        "push another",
    ),
    (
        "public.ecr.aws",
        "a1b2/app",
        404,
        ": NAME_UNKNOWN does not exist",
        "ecr-public create-repository --repository-name app",
    ),
    (
        GAR,
        "proj/images/app",
        403,
        ": DENIED Permission \"artifactregistry.repositories.uploadArtifacts\" denied on resource \
             \"projects/proj/locations/europe-west1/repositories/images\" (or it may not exist)",
        "gcloud artifacts repositories create images --repository-format=docker --location=europe-west1 --project=proj",
    ),
    (GAR, "proj/images/app", 403, ": DENIED Permission denied", "roles/artifactregistry.writer"),
    (
        GAR,
        "proj/images/app",
        403,
        ": DENIED Unauthenticated request. Unauthenticated requests do not have permission",
        "gcloud auth configure-docker europe-west1-docker.pkg.dev",
    ),
    ("gcr.io", "proj/app", 403, "", "roles/artifactregistry.writer"),
    (
        "team.azurecr.io",
        "app",
        401,
        ": UNAUTHORIZED authentication required, visit https://aka.ms/acr/authorization for more information.",
        "az acr login --name team",
    ),
    ("team.azurecr.io", "app", 403, ": DENIED requested access to the resource is denied", "AcrPush"),
    ("docker.io", "library/app", 401, ": DENIED requested access to the resource is denied", "docker.io/ACCOUNT/app"),
    ("docker.io", "other/app", 401, ": UNAUTHORIZED authentication required", "may read and write"),
    (
        "registry.gitlab.com",
        "g/p/app",
        403,
        ": DENIED requested access to the resource is denied",
        "$CI_REGISTRY_IMAGE",
    ),
    ("quay.io", "o/app", 401, ": UNAUTHORIZED access to the requested resource is not authorized", "robot"),
    ("harbor.example", "proj/app", 404, ": NOT_FOUND project proj not found", ""),
    (
        "harbor.example",
        "proj/app",
        404,
        ": NAME_UNKNOWN repository name not known to registry does not exist",
        "project proj",
    ),
    (
        "harbor.example",
        "proj/app",
        412,
        ": DENIED adding 1.0 GiB of storage resource, which when updated to current usage of 9.9 GiB will exceed the \
             configured upper limit of 10.0 GiB.",
        "raise its quota",
    ),
    ("r.example", "a/b", 507, "", "raise its quota"),
    ("r.example", "a/b", 413, "", "client_max_body_size"),
    ("r.example", "a/b", 400, ": NAME_INVALID invalid repository name", "takes no such name"),
    ("r.example", "a/b", 401, ": UNAUTHORIZED the token has expired", "docker login r.example"),
    ("r.example", "a/b", 403, "", "the account may not push to a/b"),
    ("r.example", "a/b", 401, "", "docker login r.example"),
];

#[test]
fn refusals_of_pushes_say_what_to_do() {
    for &(host, repository, status, text, expected) in PUSHES {
        let hints = remedies(&push(host, repository, status, text)).join("\n");
        assert!(hints.contains(expected), "{host} {status} {text}:\n{hints}\nlacks {expected}");
        assert_eq!(hints.is_empty(), expected.is_empty(), "{host} {status} {text}: {hints}");
    }
}

#[test]
fn without_a_login_the_remedy_is_one() {
    for (host, login) in [
        ("ghcr.io", "docker login ghcr.io"),
        ("docker.io", "`docker login`"),
        (ECR, "aws ecr get-login-password --region eu-west-1"),
        ("public.ecr.aws", "aws ecr-public get-login-password"),
        (GAR, "gcloud auth configure-docker europe-west1-docker.pkg.dev"),
        ("team.azurecr.io", "az acr login --name team"),
        ("registry.gitlab.com", "docker login registry.gitlab.com"),
        ("quay.io", "docker login quay.io"),
        ("localhost:5000", "docker login localhost:5000"),
    ] {
        for access in [Access::Pull, Access::Push] {
            let refusal = Refusal { access, logged_in: false, ..push(host, "team/app", 401, "") };
            let hints = remedies(&refusal);
            assert!(hints.len() == 1 && hints[0].contains(login), "{host}: {hints:?}");
        }
    }
}

#[test]
fn reading_takes_less() {
    let pull = |host, text| remedies(&Refusal { access: Access::Pull, ..push(host, "o/app", 403, text) }).join("\n");
    assert!(pull("ghcr.io", "").contains("packages: read"));
    assert!(!pull("ghcr.io", "").contains("fork"));
    assert!(pull(ECR, "is not authorized to perform: ecr:BatchGetImage on").contains("GetDownloadUrlForLayer"));
    assert!(pull(GAR, "").contains("roles/artifactregistry.reader"));
    assert!(pull("a.azurecr.io", "").contains("AcrPull"));
}

#[test]
fn limits_name_a_way_around_them() {
    assert!(after_limit("docker.io", Some(30), false)[0].contains("in 30 s, or log in with `docker login`"));
    assert!(after_limit("docker.io", None, true)[0].contains("mirrors = "));
}
