//! What to do about a registry's refusal, by what the big registries are known to answer.
//!
//! In: a [`Refusal`]. Out: hints, the likeliest first. The words of servers are looked at in lower case and only for what tells one
//! reason from another; where they say nothing, the hints are those for the status.

use super::credentials::Access;

/// An answer that says no.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    /// The registry as the user names it.
    pub(crate) host: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) status: u16,
    /// The server's words.
    pub(crate) text: &'a str,
    pub(crate) access: Access,
    /// Whether an account was used.
    pub(crate) logged_in: bool,
}

/// Whose registry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service<'a> {
    Hub,
    GitHub,
    GitLab,
    /// Amazon's, in a region.
    Ecr(&'a str),
    EcrPublic,
    Google,
    /// Microsoft's, by the name of the registry.
    Azure(&'a str),
    Quay,
    Other,
}

impl<'a> Service<'a> {
    fn of(host: &'a str) -> Self {
        match host {
            "docker.io" => Service::Hub,
            "ghcr.io" => Service::GitHub,
            "registry.gitlab.com" => Service::GitLab,
            "public.ecr.aws" => Service::EcrPublic,
            "quay.io" => Service::Quay,
            "gcr.io" => Service::Google,
            _ if host.ends_with(".gcr.io") || host.ends_with("-docker.pkg.dev") => Service::Google,
            _ => ecr_region(host).map(Service::Ecr).or_else(|| azure(host)).unwrap_or(Service::Other),
        }
    }

    /// Returns the command that logs in.
    fn login(self, host: &str) -> String {
        match self {
            Service::Hub => "docker login".into(),
            Service::Ecr(region) => format!(
                "aws ecr get-login-password --region {region} | docker login --username AWS --password-stdin {host}"
            ),
            Service::EcrPublic => format!(
                "aws ecr-public get-login-password --region us-east-1 | docker login --username AWS --password-stdin {host}"
            ),
            Service::Google => format!("gcloud auth configure-docker {host}"),
            Service::Azure(name) => format!("az acr login --name {name}"),
            Service::GitHub | Service::GitLab | Service::Quay | Service::Other => format!("docker login {host}"),
        }
    }
}

/// `ACCOUNT.dkr.ecr.REGION.amazonaws.com`.
fn ecr_region(host: &str) -> Option<&str> {
    let (_, rest) = host.split_once(".dkr.ecr.").or_else(|| host.split_once(".dkr.ecr-fips."))?;
    let (region, domain) = rest.split_once('.')?;
    domain.starts_with("amazonaws.com").then_some(region)
}

fn azure(host: &str) -> Option<Service<'_>> {
    let suffixes = [".azurecr.io", ".azurecr.cn", ".azurecr.us"];
    suffixes.iter().find_map(|suffix| host.strip_suffix(suffix)).map(Service::Azure)
}

/// Returns what can be done.
pub(crate) fn remedies(refusal: &Refusal<'_>) -> Vec<String> {
    let said = refusal.text.to_lowercase();
    if let Some(hint) = by_words(refusal, &said) {
        return vec![hint];
    }
    match Service::of(refusal.host) {
        Service::GitHub => github(refusal, &said),
        Service::Ecr(region) => ecr(refusal, &said, region),
        Service::EcrPublic => ecr(refusal, &said, "us-east-1"),
        Service::Google => google(refusal, &said),
        service => others(refusal, service),
    }
}

/// Returns what can be done once a registry wants no more requests for a while.
pub(crate) fn after_limit(host: &str, retry_after: Option<u64>, logged_in: bool) -> Vec<String> {
    let wait = retry_after.map_or("later".into(), |seconds| format!("in {seconds} s"));
    let more = match logged_in {
        true => format!("or name a mirror: `mirrors = [\"HOST\"]` under [registry.\"{host}\"] of buildkitd.toml"),
        false => format!("or log in with `{}` for a higher limit", Service::of(host).login(host)),
    };
    vec![format!("try again {wait}, {more}")]
}

/// Reasons that every registry gives in much the same words.
fn by_words(refusal: &Refusal<'_>, said: &str) -> Option<String> {
    let Refusal { host, repository, status, .. } = refusal;
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if *status == 413 && !has(&["quota"]) {
        return Some(format!(
            "something in front of {host} bounds the size of a request: raise it there (nginx: `client_max_body_size 0;`)"
        ));
    }
    if *status == 507 || has(&["quota", "storage limit", "configured upper limit", "storage usage"]) {
        return Some(format!("{host} has no room left for {repository}: remove old images there, or raise its quota"));
    }
    if has(&["immutable", "cannot be overwritten", "tag already exists"]) {
        return Some(
            "tags of this repository cannot be changed: push another one, or allow changes in its settings".into(),
        );
    }
    if has(&["name_invalid", "invalid repository name", "must be lowercase", "invalid repo name"]) {
        let name = repository.to_lowercase();
        return Some(format!(
            "{host} takes no such name: check it for its rules, such as how many parts {name} may have"
        ));
    }
    let refused = matches!(status, 400 | 401 | 403);
    (refused && has(&["expired"]))
        .then(|| format!("the login has expired, log in again with `{}`", Service::of(host).login(host)))
}

fn says_it_is_unknown(said: &str) -> bool {
    ["name_unknown", "does not exist", "repository not found", "may not exist"].iter().any(|word| said.contains(word))
}

/// The packages of GitHub: a token needs the permission, and the package must know the repository that pushes.
fn github(refusal: &Refusal<'_>, said: &str) -> Vec<String> {
    let Refusal { repository, access, .. } = refusal;
    if !refusal.logged_in {
        return vec![
            "log in with `docker login ghcr.io`; in a workflow with docker/login-action, `username: ${{ github.actor }}` and \
             `password: ${{ secrets.GITHUB_TOKEN }}`"
                .into(),
        ];
    }
    let right = if *access == Access::Push { "write" } else { "read" };
    let mut hints = Vec::new();
    if said.contains("expected scopes") {
        return vec![format!("give the token the scope `{right}:packages`, or use the job's GITHUB_TOKEN")];
    }
    hints.push(format!(
        "let the job {right} packages: `permissions: {{contents: read, packages: {right}}}` in the workflow"
    ));
    if let Some((owner, package)) = repository.split_once('/') {
        let package = package.replace('/', "%2F");
        hints.push(format!(
            "if it may already, the package does not know the repository of the workflow: add it under \"Manage Actions access\" \
             with the role {} in https://github.com/orgs/{owner}/packages/container/{package}/settings (for a user: /users/{owner}/)",
            if *access == Access::Push { "Write" } else { "Read" },
        ));
    }
    if *access == Access::Push {
        hints.push("a workflow that a pull request of a fork started can push nothing".into());
    }
    hints
}

/// Amazon's: repositories are made before they are pushed to, and every action is a permission of its own.
fn ecr(refusal: &Refusal<'_>, said: &str, region: &str) -> Vec<String> {
    let Refusal { host, repository, access, .. } = refusal;
    let (command, service) = match Service::of(host) {
        Service::EcrPublic => ("ecr-public", Service::EcrPublic),
        service => ("ecr", service),
    };
    if says_it_is_unknown(said) {
        let name = if command == "ecr" { repository } else { repository.rsplit('/').next().unwrap_or(repository) };
        return vec![format!(
            "make the repository: `aws {command} create-repository --repository-name {name} --region {region}`"
        )];
    }
    if said.contains("not authorized to perform") {
        let action = action_named(refusal.text, command);
        let needed = match access {
            Access::Push => {
                "BatchCheckLayerAvailability, InitiateLayerUpload, UploadLayerPart, CompleteLayerUpload, PutImage"
            }
            Access::Pull => "BatchGetImage, GetDownloadUrlForLayer",
        };
        return vec![format!("allow the role {action} on the repository; all it takes is {command}:{{{needed}}}")];
    }
    vec![format!("log in with `{}`", service.login(host))]
}

/// Finds `ecr:SomeAction`.
fn action_named<'a>(text: &'a str, command: &str) -> &'a str {
    let mut words = text.split_whitespace();
    let word = words.find(|word| word.strip_prefix(command).is_some_and(|rest| rest.starts_with(':')));
    word.filter(|word| word.len() > command.len() + 1).unwrap_or("this action")
}

/// Google's: `LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE`, where the repository is made before it is pushed to.
fn google(refusal: &Refusal<'_>, said: &str) -> Vec<String> {
    let Refusal { host, repository, access, logged_in, .. } = refusal;
    if !logged_in || said.contains("unauthenticated") {
        return vec![format!("log in with `{}`", Service::Google.login(host))];
    }
    let role = if *access == Access::Push { "writer" } else { "reader" };
    let mut hints = Vec::new();
    let mut parts = repository.split('/');
    if let (Some(location), Some(project), Some(name)) =
        (host.strip_suffix("-docker.pkg.dev"), parts.next(), parts.next())
    {
        if says_it_is_unknown(said) {
            hints.push(format!(
                "make the repository if there is none: `gcloud artifacts repositories create {name} --repository-format=docker \
                 --location={location} --project={project}`"
            ));
        }
        hints.push(format!(
            "let the account in: `gcloud artifacts repositories add-iam-policy-binding {name} --location={location} \
             --project={project} --member=ACCOUNT --role=roles/artifactregistry.{role}`"
        ));
    } else {
        hints.push(format!("give the account the role roles/artifactregistry.{role} on the project"));
    }
    hints
}

fn others(refusal: &Refusal<'_>, service: Service<'_>) -> Vec<String> {
    let Refusal { host, repository, status, access, logged_in, .. } = *refusal;
    let unknown = status == 404 && says_it_is_unknown(&refusal.text.to_lowercase());
    if unknown && access == Access::Push {
        let project = repository.split('/').next().unwrap_or(repository);
        return vec![format!("make the repository or project {project} on {host} first, or check the name")];
    }
    if !matches!(status, 401 | 403) {
        return Vec::new();
    }
    let login = service.login(host);
    let right = if access == Access::Push { "push to" } else { "pull from" };
    match service {
        Service::Hub if repository.starts_with("library/") && access == Access::Push => {
            let name = repository.trim_start_matches("library/");
            vec![format!("images of docker.io/library are Docker's own: name yours `docker.io/ACCOUNT/{name}`")]
        }
        Service::Hub if logged_in => vec![format!(
            "log in with `{login}` as an account that may {right} {repository}, with a token that may read and write"
        )],
        Service::Azure(_) if logged_in && status == 403 => {
            let role = if access == Access::Push { "AcrPush" } else { "AcrPull" };
            vec![format!(
                "give the account the role {role} on the registry, and let its network rules let this machine in"
            )]
        }
        Service::GitLab if logged_in => vec![
            format!(
                "name the image `$CI_REGISTRY_IMAGE` or below it: {repository} must belong to the project of the job"
            ),
            "log in with `docker login -u $CI_REGISTRY_USER -p $CI_REGISTRY_PASSWORD $CI_REGISTRY`".into(),
        ],
        Service::Quay if logged_in => {
            vec![format!("give the account or robot the permission to {right} {repository} in its settings on {host}")]
        }
        _ if logged_in && status == 403 => vec![
            format!("the account may not {right} {repository}: have it allowed on {host}, or check the name"),
            format!("log in as another with `{login}`"),
        ],
        _ => vec![format!("log in with `{login}`")],
    }
}
