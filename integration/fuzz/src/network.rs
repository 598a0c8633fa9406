//! Targets of the station `registry`: what servers say, who may see credentials, what is printed.

use rbuild::registry::auth_file::{AuthFile, HelperSearch};
use rbuild::registry::fuzzing::{
    content_range, explanation, foreign_text, location as resolve, logged_header, logged_url, next_link, parse_url,
    rate_window, realms, sees_account, token_lifetime, upload_range,
};
use rbuild::registry::{Origin, RedactedUrl};

use super::feed::Feed;

/// Whatever a registry says, a token server sees its account only over TLS, and only on the registry's own origin or domain.
pub fn www_authenticate(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for realm in realms(&text).iter().map(String::as_str).chain([&*text]) {
        for registry in
            ["https://r.example.com", "https://r.example.co.uk:8443", "https://me.azurecr.io", "https://10.1.2.3"]
        {
            if sees_account(registry, realm, &[]) == Some(true) {
                let realm = parse_url(realm).expect("a URL");
                assert_eq!(realm.scheme(), "https");
                assert!(realm.username().is_empty() && realm.password().is_none());
                assert!(is_ours(registry, realm.host_str().unwrap_or_default()), "{registry} sends to {realm}");
            }
        }
    }
    let _ = rate_window(&text);
}

fn is_ours(registry: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match registry {
        "https://r.example.com" => host == "example.com" || host.ends_with(".example.com"),
        "https://r.example.co.uk:8443" => host == "example.co.uk" || host.ends_with(".example.co.uk"),
        "https://me.azurecr.io" => host == "me.azurecr.io" || host.ends_with(".me.azurecr.io"),
        _ => host == "10.1.2.3",
    }
}

/// The link to the next page stands between angle brackets in the value.
pub fn link_header(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(link) = next_link(&text) {
        assert!(text.contains(&format!("<{link}>")), "{link:?}");
    }
}

/// Ranges, tokens and errors of registries are read or left; a token is used for a day at most, an error is shown in one line.
pub fn registry_answer(data: &[u8]) {
    let _ = (upload_range(data), content_range(data));
    assert!(token_lifetime(data).is_none_or(|seconds| (1..=24 * 3600).contains(&seconds)));
    if let Some(text) = explanation(data) {
        assert!(text.chars().count() <= 300 && !text.contains(char::is_control), "{text:?}");
    }
}

/// A redirect leads to a URL or nowhere; one to another host, port or scheme has another origin, however it is written.
pub fn location(data: &[u8]) {
    let base = "https://user:hunter2@registry.example.com/v2/a/blobs/uploads/?state=hunter2";
    let Some(url) = resolve(base, data) else { return };
    let ours = parse_url(base).as_ref().and_then(Origin::of).expect("an origin");
    let same = Origin::of(&url).is_some_and(|origin| origin == ours);
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    assert_eq!(
        same,
        host == "registry.example.com" && url.scheme() == "https" && url.port().unwrap_or(443) == 443,
        "{url}"
    );
    shows_no_secret(&RedactedUrl(url).to_string(), data);
}

const SECRET: &str = "hunter2";

fn shows_no_secret(shown: &str, given: &[u8]) {
    // What the input itself spells out in a place that is no secret's proves nothing, with or without what is left out.
    let spelt: Vec<u8> = given.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    if !spelt.windows(SECRET.len()).any(|window| window.eq_ignore_ascii_case(SECRET.as_bytes())) {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

/// Secrets in the places of secrets, amid any text, are not shown: passwords in URLs, values of queries, tokens. What is
/// shown is one line, bounded, without control characters.
pub fn redact(data: &[u8]) {
    let mut feed = Feed(data);
    let word = |text: String| text.replace(|c: char| !c.is_alphanumeric() && !".-_".contains(c), "x");
    let (before, user, host, name) = (feed.text(), word(feed.text()), word(feed.text()), word(feed.text()));
    let after = feed.rest();
    let scheme = if data.len().is_multiple_of(2) { "https" } else { "http" };
    for text in [
        format!("{before} {scheme}://{user}:{SECRET}@{host}/x {after}"),
        format!("{before} {scheme}://{host}/x?{name}={SECRET} {after}"),
        format!("{before} {scheme}://{host}/x?a=b&{name}={SECRET}#{SECRET} {after}"),
        format!("{before} {scheme}://{user}:{SECRET}@h{host}:70000/{after}"),
        format!("{before} access_token={SECRET} {after}"),
        format!("{before} eyJhbGciOiJSUzI1NiJ9.eyJzdWIi.{SECRET} {after}"),
    ] {
        let shown = foreign_text(&text);
        shows_no_secret(&shown, data);
        assert!(shown.chars().count() <= 300 && !shown.contains(char::is_control), "{shown:?}");
        let logged = logged_header("x-cache", text.as_bytes()).unwrap_or_default();
        shows_no_secret(&logged, data);
        assert!(!logged.contains(char::is_control) && logged.matches('"').count().is_multiple_of(2), "{logged:?}");
    }
    // No name that starts with an x is among those whose values are shown.
    if let Some(url) = parse_url(&format!("{scheme}://{user}:{SECRET}@h{host}/{name}?x{name}={SECRET}&x&=#{SECRET}")) {
        shows_no_secret(&logged_url(&url), data);
    }
    for header in [format!("x-{}-token", name.to_lowercase()), "set-cookie".into(), "authorization".into()] {
        shows_no_secret(&logged_header(&header, SECRET.as_bytes()).unwrap_or_default(), data);
    }
}

/// A file of accounts is read or refused, and a refusal says where without saying what: no password, no token.
pub fn auth_file(data: &[u8]) {
    let mut shown = Vec::new();
    let whole = AuthFile::parse("config.json", data, HelperSearch::default());
    shown.extend(whole.map(|file| format!("{file:?}")).map_err(|error| error.to_string()).err());
    let text = Feed(data).text();
    for entry in [
        format!("{{\"auths\":{{\"h\":{{\"auth\":\"{SECRET}{text}\"}}}}}}"),
        format!("{{\"auths\":{{\"h\":{{\"username\":\"u\",\"password\":\"{SECRET}\"{text}}}}}}}"),
        format!("{{\"auths\":{{\"h\":{{\"identitytoken\":\"{SECRET}\"}}}},{text}}}"),
    ] {
        let outcome = AuthFile::parse("config.json", entry.as_bytes(), HelperSearch::default());
        shown.push(outcome.map_or_else(|error| format!("{error} {error:?}"), |file| format!("{file:?}")));
    }
    for text in shown {
        shows_no_secret(&text, data);
    }
}
