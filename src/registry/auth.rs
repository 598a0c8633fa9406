//! Answers to 401: which account, which token server, which token.
//!
//! In: a registry's challenge, the scopes of a request. Out: the `Authorization` header for that registry.
//! Invariants: tokens are kept by (origin, account, scopes), so that one made for a repository or an action is never used for
//! another; a token request carries the account only where [`realm::judge`] allows; secrets are in no message.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, StatusCode, Url};

use super::challenge::{self, Challenge};
use super::credentials::Account;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::realm::{self, Trust};
use super::transport::{self, Scope};
use super::url::{Origin, RedactedUrl, Secret};

/// Longest answer of a token server.
const TOKEN_LIMIT: u64 = 1 << 20;
/// Lifetime of a token that states none (Docker token specification).
const DEFAULT_LIFETIME: u64 = 60;
/// Longest time a token is kept, whatever it states.
const LONGEST_LIFETIME: u64 = 24 * 3600;
/// Tokens are renewed this long before they end, for requests that are on their way then.
const MARGIN: u64 = 10;

/// What a token was made for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TokenKey {
    origin: Origin,
    account: String,
    scopes: Vec<Scope>,
}

#[derive(Debug)]
struct Token {
    value: Secret,
    ends: Instant,
}

/// The tokens of all registries.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<BTreeMap<TokenKey, Token>>);

impl Tokens {
    fn get(&self, key: &TokenKey) -> Option<Secret> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(key).filter(|t| t.ends > Instant::now()).map(|t| t.value.clone())
    }

    fn put(&self, key: TokenKey, token: Token) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, token);
    }

    fn drop_all_of(&self, origin: &Origin, value: &HeaderValue) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|key, token| key.origin != *origin || bearer(&token.value).as_ref() != Some(value));
    }
}

/// A challenge of the Bearer kind, its realm parsed.
struct TokenServer {
    realm: Url,
    service: Option<String>,
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
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge.clone());
        if let Some(sent) = sent {
            self.tokens.drop_all_of(&self.origin, sent);
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
        let main = scopes.iter().find(|s| s.0.ends_with(",push")).or(scopes.first());
        let repository = main.and_then(|s| s.0.split(':').nth(1)).unwrap_or("");
        let known = self.accounts.lock().unwrap_or_else(PoisonError::into_inner).get(repository).cloned();
        if let Some(account) = known {
            return Ok(account);
        }
        let found = self.credentials.account(&self.host, repository).await;
        let account = found.map_err(|source| RegistryError::Credentials { host: self.host.clone(), source })?;
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(accounts.entry(repository.to_owned()).or_insert(account).clone())
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
                *self.withheld.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                Ok(Account::Anonymous)
            }
        }
    }

    async fn token(&self, server: &TokenServer, account: &Account, scopes: &[Scope]) -> Result<Secret, RegistryError> {
        let key = TokenKey { origin: self.origin.clone(), account: account.label(), scopes: scopes.to_vec() };
        if let Some(token) = self.tokens.get(&key) {
            return Ok(token);
        }
        let request = self.token_request(server, account, scopes)?;
        let response = self.within(self.patience.idle, &server.realm, request.send()).await?;
        if response.status() != StatusCode::OK {
            let repository = scopes.first().and_then(|s| s.0.split(':').nth(1)).unwrap_or("").to_owned();
            return Err(transport::failure(self, response, &repository, "give a token").await);
        }
        let body = transport::read(self, response, "a token", TOKEN_LIMIT).await?;
        let token = parse_token(&body).ok_or_else(|| self.protocol("a token that cannot be used"))?;
        let value = token.value.clone();
        self.tokens.put(key, token);
        Ok(value)
    }

    fn token_request(
        &self,
        server: &TokenServer,
        account: &Account,
        scopes: &[Scope],
    ) -> Result<RequestBuilder, RegistryError> {
        let http = self.http_for(&server.realm)?;
        let service = server.service.as_deref().unwrap_or_default();
        if let Account::Identity { token } = account {
            let scope = scopes.iter().map(|s| s.0.as_str()).collect::<Vec<_>>().join(" ");
            let form = [
                ("grant_type", "refresh_token"),
                ("refresh_token", token.expose()),
                ("service", service),
                ("client_id", "rbuild"),
                ("scope", &scope),
            ];
            return Ok(http.post(server.realm.clone()).form(&form));
        }
        let mut query: Vec<(&str, &str)> = Vec::new();
        query.extend(server.service.as_deref().map(|service| ("service", service)));
        query.extend(scopes.iter().map(|s| ("scope", s.0.as_str())));
        let mut request = http.get(server.realm.clone());
        if let Account::Password { username, password } = account {
            query.push(("account", username));
            request = request.header(
                header::AUTHORIZATION,
                basic(username, password).ok_or_else(|| self.protocol("a password that fits in no header"))?,
            );
        }
        Ok(request.query(&query))
    }
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

fn parse_token(body: &[u8]) -> Option<Token> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let named = [answer.token, answer.access_token].into_iter().flatten().find(|t| !t.is_empty())?;
    let value = Secret::new(named);
    bearer(&value)?;
    let lifetime = answer.expires_in.unwrap_or(DEFAULT_LIFETIME).clamp(DEFAULT_LIFETIME, LONGEST_LIFETIME);
    Some(Token { value, ends: Instant::now() + Duration::from_secs(lifetime - MARGIN) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tokens() {
        for (body, expected) in [
            (r#"{"token":"a","expires_in":300}"#, Some("a")),
            (r#"{"access_token":"b"}"#, Some("b")),
            (r#"{"token":"","access_token":"b"}"#, Some("b")),
            (r#"{"token":"a\r\nX: y"}"#, None),
            (r#"{"token":""}"#, None),
            (r#"{}"#, None),
            ("", None),
        ] {
            assert_eq!(parse_token(body.as_bytes()).map(|t| t.value), expected.map(Secret::new), "{body}");
        }
    }

    #[test]
    fn r12_tokens_are_kept_by_what_they_are_for() {
        let key = |account: &str, scopes: &[Scope]| TokenKey {
            origin: Origin { secure: true, host: "h".into(), port: 443 },
            account: account.into(),
            scopes: scopes.to_vec(),
        };
        let tokens = Tokens::default();
        let pull = key("user a", &[Scope::pull("x")]);
        let ends = Instant::now() + Duration::from_secs(60);
        tokens.put(pull.clone(), Token { value: Secret::new("t"), ends });
        assert_eq!(tokens.get(&pull), Some(Secret::new("t")));
        for other in [
            key("user b", &[Scope::pull("x")]),
            key("user a", &[Scope::push("x")]),
            key("user a", &[Scope::pull("y")]),
            key("user a", &[Scope::pull("x"), Scope::pull("y")]),
        ] {
            assert_eq!(tokens.get(&other), None, "{other:?}");
        }
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
