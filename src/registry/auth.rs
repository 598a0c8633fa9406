//! Answers to 401: which account, which token server, which token.
//!
//! In: a registry's challenge, the scopes of a request. Out: the `Authorization` header for that registry.
//! Invariants: tokens are kept by (origin, account, scopes), so that one made for a repository or an action is never used for
//! another; a token request carries the account only where [`realm::judge`] allows; secrets are in no message.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::challenge::{self, Challenge};
use super::credentials::{Access, Account};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::log;
use super::once::Once;
use super::realm::{self, Trust};
use super::transport::{self, Scope, Wish};
use super::url::{Origin, RedactedUrl, Secret};

/// Longest answer of a token server.
const TOKEN_LIMIT: u64 = 1 << 20;
/// Lifetime of a token that states none (Docker token specification).
const DEFAULT_LIFETIME: u64 = 60;
/// Longest time a token is kept, whatever it states.
const LONGEST_LIFETIME: u64 = 24 * 3600;
/// Accounts are asked for again after this time: what a credential helper gives for Google's registries lasts five minutes.
const ACCOUNT_LIFETIME: Duration = Duration::from_secs(290);
/// The name by which token servers know this program.
const CLIENT_ID: &str = "rbuild";

/// What a token was made for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenKey {
    origin: Origin,
    account: String,
    scopes: Vec<Scope>,
}

/// The tokens of all registries.
pub(crate) type Tokens = Once<TokenKey, Secret>;

/// The accounts of one registry, by repository and what is done with it.
pub(crate) type Accounts = Once<(String, Access), Account>;

/// A challenge of the Bearer kind, its realm parsed.
struct TokenServer {
    realm: Url,
    service: Option<String>,
}

/// How a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    /// By GET, the account in `Authorization` (Docker token specification).
    Query,
    /// By POST, the account in the form (Docker's OAuth2 variant).
    Form,
}

impl Grant {
    /// Returns the ways that are tried for an account, and after which refusals of the first the second is.
    fn ways(account: &Account) -> (Grant, Option<(Grant, &'static [u16])>) {
        match account {
            Account::Password { .. } => (Grant::Query, Some((Grant::Form, &[404, 405]))),
            // Some servers give refresh tokens out and know no POST: Artifactory says 401 then.
            Account::Identity { .. } => (Grant::Form, Some((Grant::Query, &[401, 404, 405]))),
            Account::Anonymous | Account::Token { .. } => (Grant::Query, None),
        }
    }
}

impl Endpoint {
    /// Returns what to send unasked, judging by the last challenge.
    pub(crate) async fn authorization(&self, scopes: &[Scope]) -> Result<Option<HeaderValue>, RegistryError> {
        match self.last_challenge() {
            Some(challenge) => self.authorize(&challenge, scopes).await,
            None => Ok(None),
        }
    }

    /// Returns what to send after a 401 to a request that carried `sent`, or none if nothing better is to be had.
    pub(crate) async fn answer(
        &self,
        headers: &HeaderMap,
        scopes: &[Scope],
        sent: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let Some(challenge) = choose(headers) else { return Ok(None) };
        self.note_challenge(&challenge);
        if let Some(sent) = sent {
            // The token may have ended, and so may the account that it was made of.
            self.tokens.forget(|key, token| key.origin == self.origin && bearer(token).as_ref() == Some(sent));
            let (repository, _) = subject(scopes);
            self.accounts.forget(|(of, _), _| *of == repository);
        }
        let next = self.authorize(&challenge, scopes).await?;
        Ok(next.filter(|next| Some(next) != sent))
    }

    async fn authorize(&self, challenge: &Challenge, scopes: &[Scope]) -> Result<Option<HeaderValue>, RegistryError> {
        let account = self.account(scopes).await?;
        match (challenge, &account) {
            (_, Account::Token { token }) => Ok(bearer(token)),
            (Challenge::Basic, Account::Password { username, password }) => Ok(basic(username, password)),
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { realm, service, .. }, _) => {
                let realm = Url::parse(realm).map_err(|_| self.protocol("a token server that is no URL"))?;
                let server = TokenServer { realm, service: service.clone() };
                let account = self.account_for(&server, account)?;
                self.token(&server, &account, scopes).await.map(|token| bearer(&token))
            }
        }
    }

    /// Returns the account for the repository that the scopes are most about.
    async fn account(&self, scopes: &[Scope]) -> Result<Account, RegistryError> {
        let (repository, access) = subject(scopes);
        let ask = async {
            let found = self.credentials.account(&self.host, &repository, access).await;
            let account = found.map_err(|source| RegistryError::Credentials { host: self.host.clone(), source })?;
            Ok((account, Instant::now() + ACCOUNT_LIFETIME))
        };
        self.accounts.get((repository.clone(), access), ask).await
    }

    /// Returns whether an account was found for a repository the last time one was asked for.
    pub(crate) fn is_known(&self, repository: &str) -> bool {
        let of = |access| self.accounts.peek(&(repository.to_owned(), access));
        [Access::Push, Access::Pull].into_iter().filter_map(of).any(|account| account != Account::Anonymous)
    }

    /// Returns the account as far as the token server may see it.
    fn account_for(&self, server: &TokenServer, account: Account) -> Result<Account, RegistryError> {
        match realm::judge(&self.origin, &server.realm, &self.options.trusted_realms) {
            Trust::Account => Ok(account),
            Trust::Refused(reason) => Err(self.refuse(&server.realm, reason)),
            Trust::Nothing(_) if account == Account::Anonymous => Ok(account),
            Trust::Nothing(reason) => {
                let host = server.realm.host_str().unwrap_or("");
                let text = format!(
                    "the credentials for {} were not sent to its token server {}, because {reason}; if that is right, add \
                     \"{host}\" to trusted-realms of [registry.\"{}\"]",
                    self.host,
                    RedactedUrl(server.realm.clone()),
                    self.host
                );
                self.withhold(text);
                Ok(Account::Anonymous)
            }
        }
    }

    async fn token(&self, server: &TokenServer, account: &Account, scopes: &[Scope]) -> Result<Secret, RegistryError> {
        let key = TokenKey { origin: self.origin.clone(), account: account.label(), scopes: scopes.to_vec() };
        self.tokens.get(key, self.fetch_token(server, account, scopes)).await
    }

    async fn fetch_token(
        &self,
        server: &TokenServer,
        account: &Account,
        scopes: &[Scope],
    ) -> Result<(Secret, Instant), RegistryError> {
        let (first, second) = Grant::ways(account);
        let mut answer = self.ask_token(server, account, scopes, first).await?;
        if let Some((second, _)) = second.filter(|(_, after)| after.contains(&answer.status().as_u16())) {
            // If that is no use either, the answer to the usual way says more.
            let other = self.ask_token(server, account, scopes, second).await?;
            if other.status() == StatusCode::OK {
                answer = other;
            }
        }
        if answer.status() != StatusCode::OK {
            let (repository, access) = subject(scopes);
            let wish = Wish { repository: &repository, access, action: "give a token" };
            return Err(transport::failure(self, answer, wish).await);
        }
        let body = transport::read(self, answer, "a token", TOKEN_LIMIT).await?;
        let (token, lifetime) = parse_token(&body, OffsetDateTime::now_utc())
            .ok_or_else(|| self.protocol("a token that cannot be used"))?;
        Ok((token, Instant::now() + lifetime))
    }

    async fn ask_token(
        &self,
        server: &TokenServer,
        account: &Account,
        scopes: &[Scope],
        grant: Grant,
    ) -> Result<Response, RegistryError> {
        let request = match grant {
            Grant::Query => self.query(server, account, scopes)?,
            Grant::Form => self.form(server, account, scopes)?,
        };
        log::built(&request);
        let response = self.within(self.patience.idle, &server.realm, request.send()).await?;
        log::response(response.status(), response.url(), response.headers());
        Ok(response)
    }

    fn form(&self, server: &TokenServer, account: &Account, scopes: &[Scope]) -> Result<RequestBuilder, RegistryError> {
        let scope = scopes.iter().map(|s| s.0.as_str()).collect::<Vec<_>>().join(" ");
        let service = server.service.as_deref().unwrap_or_default();
        let mut form = vec![("service", service), ("client_id", CLIENT_ID), ("scope", &scope)];
        match account {
            Account::Identity { token } => {
                form.extend([("grant_type", "refresh_token"), ("refresh_token", token.expose())]);
            }
            Account::Password { username, password } => {
                form.extend([("grant_type", "password"), ("username", username), ("password", password.expose())]);
            }
            Account::Anonymous | Account::Token { .. } => {}
        }
        Ok(self.http_for(&server.realm)?.post(server.realm.clone()).form(&form))
    }

    fn query(
        &self,
        server: &TokenServer,
        account: &Account,
        scopes: &[Scope],
    ) -> Result<RequestBuilder, RegistryError> {
        let mut query: Vec<(&str, &str)> = Vec::new();
        query.extend(server.service.as_deref().map(|service| ("service", service)));
        query.extend(scopes.iter().map(|s| ("scope", s.0.as_str())));
        let mut request = self.http_for(&server.realm)?.get(server.realm.clone());
        let login = match account {
            Account::Password { username, password } => {
                query.push(("account", username));
                Some(basic(username, password))
            }
            Account::Identity { token } => Some(basic("", token)),
            Account::Anonymous | Account::Token { .. } => None,
        };
        if let Some(login) = login {
            let login = login.ok_or_else(|| self.protocol("a password that fits in no header"))?;
            request = request.header(header::AUTHORIZATION, login);
        }
        Ok(request.query(&query))
    }
}

/// Returns the repository that scopes are most about, which is the one written to, and what is to be done with it.
fn subject(scopes: &[Scope]) -> (String, Access) {
    let written = scopes.iter().find(|s| s.0.ends_with(",push"));
    let repository = written.or(scopes.first()).and_then(|s| s.0.split(':').nth(1)).unwrap_or("");
    (repository.to_owned(), if written.is_some() { Access::Push } else { Access::Pull })
}

/// Takes a Bearer challenge before a Basic one: it shows the password to fewer requests.
fn choose(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
    let mut all: Vec<Challenge> = values.flat_map(challenge::challenges).collect();
    let best = all.iter().position(|c| matches!(c, Challenge::Bearer { .. })).unwrap_or(0);
    if all.is_empty() { None } else { Some(all.swap_remove(best)) }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose()))))
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.expose()))
}

/// Reads a token, and how long to use it: nine tenths of what is left of its life, for requests that are on their way when it
/// ends.
pub(super) fn parse_token(body: &[u8], now: OffsetDateTime) -> Option<(Secret, Duration)> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
        issued_at: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let named = [answer.token, answer.access_token].into_iter().flatten().find(|t| !t.is_empty())?;
    let value = Secret::new(named);
    bearer(&value)?;
    let lifetime = answer.expires_in.unwrap_or(DEFAULT_LIFETIME).clamp(DEFAULT_LIFETIME, LONGEST_LIFETIME);
    let issued = answer.issued_at.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
    let age = issued.and_then(|issued| u64::try_from((now - issued).whole_seconds()).ok()).unwrap_or(0);
    // A token that would have ended before it came is one of a server whose clock is not ours.
    let left = if age < lifetime { lifetime - age } else { lifetime };
    Some((value, Duration::from_secs(left) * 9 / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tokens() {
        let now = OffsetDateTime::parse("2026-01-01T12:00:00Z", &Rfc3339).expect("time");
        for (body, expected) in [
            (r#"{"token":"a","expires_in":300}"#, Some(("a", 270))),
            (r#"{"access_token":"b"}"#, Some(("b", 54))),
            (r#"{"token":"","access_token":"b","expires_in":1}"#, Some(("b", 54))),
            (r#"{"token":"a","expires_in":300,"issued_at":"2026-01-01T11:56:40Z"}"#, Some(("a", 90))),
            (r#"{"token":"a","expires_in":300,"issued_at":"2026-01-01T13:00:00.5+01:00"}"#, Some(("a", 270))),
            (r#"{"token":"a","expires_in":300,"issued_at":"2025-12-31T00:00:00Z"}"#, Some(("a", 270))),
            (r#"{"token":"a","expires_in":300,"issued_at":"soon"}"#, Some(("a", 270))),
            (r#"{"token":"a","expires_in":18446744073709551615}"#, Some(("a", 24 * 3600 * 9 / 10))),
            (r#"{"token":"a\r\nX: y"}"#, None),
            (r#"{"token":""}"#, None),
            (r#"{}"#, None),
            ("", None),
        ] {
            let found = parse_token(body.as_bytes(), now);
            let expected = expected.map(|(text, seconds)| (Secret::new(text), Duration::from_secs(seconds)));
            assert_eq!(found, expected, "{body}");
        }
    }

    #[tokio::test]
    async fn r12_tokens_are_kept_by_what_they_are_for() {
        let key = |account: &str, scopes: &[Scope]| TokenKey {
            origin: Origin { secure: true, host: "h".into(), port: 443 },
            account: account.into(),
            scopes: scopes.to_vec(),
        };
        let tokens = Tokens::default();
        let pull = key("user a", &[Scope::pull("x")]);
        let ends = Instant::now() + Duration::from_secs(60);
        tokens.get(pull.clone(), async { Ok::<_, ()>((Secret::new("t"), ends)) }).await.expect("token");
        assert_eq!(tokens.get(pull, async { Err(()) }).await, Ok(Secret::new("t")));
        for other in [
            key("user b", &[Scope::pull("x")]),
            key("user a", &[Scope::push("x")]),
            key("user a", &[Scope::pull("y")]),
            key("user a", &[Scope::pull("x"), Scope::pull("y")]),
        ] {
            assert_eq!(tokens.get(other.clone(), async { Err(()) }).await, Err(()), "{other:?}");
        }
    }

    #[test]
    fn an_account_is_for_what_is_written_to() {
        let scopes = [Scope::pull("base"), Scope::push("app")];
        assert_eq!(subject(&scopes), ("app".into(), Access::Push));
        assert_eq!(subject(&scopes[..1]), ("base".into(), Access::Pull));
        assert_eq!(subject(&[]), (String::new(), Access::Pull));
    }

    #[test]
    fn bearer_goes_before_basic() {
        let mut headers = HeaderMap::new();
        headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=x"));
        headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"https://x\""));
        assert!(matches!(choose(&headers), Some(Challenge::Bearer { .. })));
        assert_eq!(choose(&HeaderMap::new()), None);
    }
}
