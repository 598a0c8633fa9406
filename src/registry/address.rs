//! Which network addresses a server may send us to, checked on the address a connection is made to.
//!
//! In: names to look up. Out: addresses, or a refusal. A host the user named may be anywhere; a URL chosen by a server
//! (redirect, token realm, upload location) never reaches link-local, metadata, multicast or unspecified addresses, and
//! reaches loopback or private ones only if the registry itself is at such an address.
//! Invariant: the addresses that were checked are the addresses connected to, so a second lookup cannot change them.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hickory_resolver::TokioResolver;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// An address that a server may not send us to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused to connect to {host}: {address} is {class}, and the URL was chosen by a server")]
pub struct AddressError {
    /// The host as named in the URL.
    pub host: String,
    /// Its address.
    pub address: IpAddr,
    /// What is wrong with the address.
    pub class: &'static str,
}

/// Who chose the URL, and how far it may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The user named the host: anywhere.
    Anywhere,
    /// A server chose it: public addresses.
    Public,
    /// A server at a private address chose it: public, private and loopback addresses.
    Private,
}

/// Checks one address.
pub(crate) fn check(host: &str, address: IpAddr, reach: Reach) -> Result<(), AddressError> {
    let refuse = |class| Err(AddressError { host: host.into(), address, class });
    if reach == Reach::Anywhere {
        return Ok(());
    }
    match (never(address), is_private(address)) {
        (Some(class), _) => refuse(class),
        (None, true) if reach == Reach::Public => refuse("a private or loopback address"),
        _ => Ok(()),
    }
}

/// Unwraps the forms in which an IPv6 address stands for an IPv4 one: mapped, compatible, NAT64, 6to4.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let s = v6.segments();
    let v4 = |hi: u16, lo: u16| IpAddr::V4(Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo)));
    match s {
        [0, 0, 0, 0, 0, 0xffff, hi, lo] | [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => v4(hi, lo),
        [0, 0, 0, 0, 0, 0, hi, lo] if hi != 0 => v4(hi, lo),
        [0x2002, hi, lo, ..] => v4(hi, lo),
        _ => address,
    }
}

fn never(address: IpAddr) -> Option<&'static str> {
    const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match embedded(address) {
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => Some("a cloud metadata address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local or cloud metadata address"),
        IpAddr::V4(v4) if v4.octets()[0] >= 224 => Some("a multicast or reserved address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("an unspecified address"),
        IpAddr::V6(METADATA_V6) => Some("a cloud metadata address"),
        IpAddr::V6(v6) if v6.segments()[0] & 0xff80 == 0xfe80 => Some("a link-local address"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("a multicast or reserved address"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("an unspecified address"),
        _ => None,
    }
}

/// Returns whether the address is loopback, private or shared (RFC 1918, 6598, 4193).
pub(crate) fn is_private(address: IpAddr) -> bool {
    match embedded(address) {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.segments()[0] & 0xfe00 == 0xfc00,
    }
}

/// Looks names up with the system's configuration, without libc.
#[derive(Default)]
pub(crate) struct SystemResolver(Arc<OnceLock<TokioResolver>>);

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let resolver = match state.get() {
                Some(resolver) => resolver,
                None => {
                    let made = TokioResolver::builder_tokio()?.build()?;
                    state.get_or_init(|| made)
                }
            };
            let found = resolver.lookup_ip(name.as_str()).await?;
            let addresses: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Names found at private addresses when looked up for the user.
#[derive(Debug, Clone, Default)]
pub(crate) struct PrivateNames(Arc<Mutex<BTreeSet<String>>>);

impl PrivateNames {
    pub(crate) fn contains(&self, host: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    fn insert(&self, host: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
    }
}

/// A resolver that refuses what its [`Reach`] does not allow.
pub(crate) struct GuardedResolver {
    pub(crate) inner: Arc<dyn Resolve>,
    pub(crate) reach: Reach,
    /// Proxies the user configured, which no server chose.
    pub(crate) exempt: BTreeSet<String>,
    pub(crate) private: PrivateNames,
}

impl fmt::Debug for GuardedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuardedResolver({:?})", self.reach)
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let reach = if self.exempt.contains(&host) { Reach::Anywhere } else { self.reach };
        let (found, private) = (self.inner.resolve(name), self.private.clone());
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = found.await?.collect();
            for address in &addresses {
                check(&host, address.ip(), reach).map_err(|e| Box::new(e) as Box<dyn Error + Send + Sync>)?;
            }
            if addresses.iter().any(|a| is_private(a.ip())) {
                private.insert(&host);
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_server_chosen_addresses() {
        for (address, public, private) in [
            ("93.184.216.34", true, true),
            ("2606:2800::1", true, true),
            ("10.0.0.1", false, true),
            ("127.0.0.1", false, true),
            ("::1", false, true),
            ("100.64.0.1", false, true),
            ("fd12::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("169.254.169.254", false, false),
            ("::ffff:a9fe:a9fe", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("2002:a9fe:a9fe::1", false, false),
            ("::a9fe:a9fe", false, false),
            ("fd00:ec2::254", false, false),
            ("168.63.129.16", false, false),
            ("100.100.100.200", false, false),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("::", false, false),
            ("fe80::1", false, false),
            ("fec0::1", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("ff02::1", false, false),
        ] {
            let ip: IpAddr = address.parse().expect(address);
            assert_eq!(check("h", ip, Reach::Public).is_ok(), public, "{address} public");
            assert_eq!(check("h", ip, Reach::Private).is_ok(), private, "{address} private");
            assert!(check("h", ip, Reach::Anywhere).is_ok(), "{address} named");
        }
    }
}
