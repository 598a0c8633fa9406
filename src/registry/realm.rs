//! Which token servers may see a registry's credentials. The registry names the token server, so this is where a hostile
//! one would have the password sent elsewhere.

use reqwest::Url;

use super::url::{Origin, literal_address};

/// Token servers that belong to a registry under another domain.
const KNOWN: [(&str, &str); 6] = [
    ("registry-1.docker.io", "auth.docker.io"),
    ("index.docker.io", "auth.docker.io"),
    ("registry.hub.docker.com", "auth.docker.io"),
    ("dhi.io", "auth.docker.io"),
    ("rg.fr-par.scw.cloud", "api.scaleway.com"),
    ("rg.nl-ams.scw.cloud", "api.scaleway.com"),
];

/// Domains under which strangers are neighbours; what is not listed is caught by [`is_public_suffix`]'s rules.
const SHARED: [&str; 40] = [
    "amazonaws.com",
    "appspot.com",
    "awsapprunner.com",
    "azurecontainer.io",
    "azurecontainerapps.io",
    "azurecr.io",
    "azurecr.cn",
    "azurecr.us",
    "azure-api.net",
    "azurewebsites.net",
    "cloudapp.net",
    "cloudfront.net",
    "cloudapp.azure.com",
    "cloud.run",
    "deno.dev",
    "duckdns.org",
    "fly.dev",
    "fly.io",
    "github.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "jfrog.io",
    "netlify.app",
    "ngrok.app",
    "ngrok.io",
    "ngrok-free.app",
    "nip.io",
    "no-ip.org",
    "on.aws",
    "onrender.com",
    "pages.dev",
    "pkg.dev",
    "run.app",
    "scw.cloud",
    "sslip.io",
    "trycloudflare.com",
    "ts.net",
    "vercel.app",
    "workers.dev",
];

/// What may be sent to a token server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The account.
    Account,
    /// A request without an account, for this reason.
    Nothing(&'static str),
    /// No request at all, for this reason.
    Refused(&'static str),
}

/// Judges the token server `realm` of the registry at `registry`; `trusted` lists hosts the user trusts besides.
pub(crate) fn judge(registry: &Origin, realm: &Url, trusted: &[String]) -> Trust {
    let Some(origin) = Origin::of(realm) else { return Trust::Refused("a token server is at an http or https URL") };
    if !realm.username().is_empty() || realm.password().is_some() {
        return Trust::Refused("the URL of a token server has no user in it");
    }
    if origin == *registry {
        return Trust::Account;
    }
    if !origin.secure {
        // A registry on plain HTTP may well have its token server on another port of the same machine, but then anyone may.
        return match registry.secure {
            true => Trust::Refused("it would leave TLS"),
            false => Trust::Nothing("it is another host, without TLS"),
        };
    }
    let named = |entry: &String| *entry == origin.host || *entry == format!("{}:{}", origin.host, origin.port);
    let known = KNOWN.contains(&(registry.host.as_str(), origin.host.as_str())) && origin.port == 443;
    if trusted.iter().any(named) || known {
        return Trust::Account;
    }
    match registry.secure && registry.port == origin.port && siblings(&registry.host, realm) {
        true => Trust::Account,
        false => Trust::Nothing("it is another host"),
    }
}

/// Returns whether both are below the same registrable domain.
fn siblings(registry: &str, realm: &Url) -> bool {
    let Some(host) = realm.host_str() else { return false };
    let literal = literal_address(realm).is_some();
    let ours = registrable(registry);
    !literal && ours.is_some() && ours == registrable(host)
}

/// Returns the domain someone registered: one label more than the public suffix.
fn registrable(host: &str) -> Option<&str> {
    let numeric = host.ends_with(']') || host.rsplit('.').next()?.bytes().all(|b| b.is_ascii_digit());
    let starts = std::iter::once(0).chain(host.match_indices('.').map(|(at, _)| at + 1));
    let tails: Vec<&str> = starts.map(|at| &host[at..]).collect();
    let suffix = tails.iter().position(|tail| is_public_suffix(tail))?;
    if numeric || suffix == 0 { None } else { Some(tails[suffix - 1]) }
}

/// A top-level domain, a short label below a country's (`co.uk`), or a listed shared domain.
fn is_public_suffix(domain: &str) -> bool {
    let Some((label, parent)) = domain.split_once('.') else { return true };
    let country = parent.len() == 2 && label.len() <= 3;
    let aws = domain.ends_with(".amazonaws.com") || domain.ends_with(".amazonaws.com.cn");
    country || aws || SHARED.contains(&domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(registry: &str, realm: &str, trusted: &[&str]) -> Trust {
        let registry = Origin::of(&Url::parse(registry).expect(registry)).expect(registry);
        let trusted: Vec<String> = trusted.iter().map(|t| (*t).to_owned()).collect();
        judge(&registry, &Url::parse(realm).expect(realm), &trusted)
    }

    #[test]
    fn r1_realms_that_see_the_password() {
        for (registry, realm) in [
            ("https://ghcr.io", "https://ghcr.io/token"),
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://registry.example.co.uk", "https://auth.example.co.uk/t"),
            ("https://registry.digitalocean.com", "https://api.digitalocean.com/v2/registry/auth"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token"),
            ("https://r.example.com:8443", "https://r.example.com:8443/token"),
        ] {
            assert_eq!(trust(registry, realm, &[]), Trust::Account, "{registry} {realm}");
        }
        assert_eq!(trust("https://a.io", "https://b.io/t", &["b.io"]), Trust::Account);
        assert_eq!(trust("https://a.io", "https://b.io:8443/t", &["b.io:8443"]), Trust::Account);
    }

    #[test]
    fn r1_realms_that_do_not() {
        for (registry, realm) in [
            ("https://ghcr.io", "http://ghcr.io/token"),
            ("https://ghcr.io", "https://evil.io/token"),
            ("https://ghcr.io", "https://ghcr.io@evil.io/token"),
            ("https://ghcr.io", "https://evil@ghcr.io/token"),
            ("https://ghcr.io", "https://ghcr.io.evil.com/token"),
            ("https://ghcr.io", "https://ghcr.io:8443/token"),
            ("https://ghcr.io", "https://93.184.216.34/token"),
            ("https://ghcr.io", "https://[2606::1]/token"),
            ("https://ghcr.io", "file:///etc/passwd"),
            ("https://ghcr.io", "ftp://ghcr.io/"),
            ("https://ghcr.io", "https://ɡhcr.io/token"),
            ("https://10.1.2.3", "https://9.1.2.3/token"),
            ("https://me.azurecr.io", "https://you.azurecr.io/token"),
            ("https://r.example.co.uk", "https://evil.co.uk/token"),
            ("https://1.dkr.ecr.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com/t"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token"),
            ("http://127.0.0.1:5000", "https://example.com/token"),
            ("https://evil.io", "https://auth.docker.io/token"),
        ] {
            assert_ne!(trust(registry, realm, &[]), Trust::Account, "{registry} {realm}");
        }
        assert_ne!(trust("https://a.io", "http://b.io/t", &["b.io"]), Trust::Account, "trusted, but without TLS");
    }
}
