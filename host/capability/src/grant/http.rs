//! Whom a plugin may ask by HTTP.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bytes of the name of a host.
const MOST_NAME_BYTES: usize = 253;

/// Whom a plugin may ask, and how. The default is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpGrant {
    /// The hosts.
    pub hosts: Vec<HostPattern>,
    /// The schemes.
    pub schemes: BTreeSet<Scheme>,
    /// Whether the name of a host may lead to an address that is not public.
    pub private: bool,
}

/// How a host is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// The one with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    /// The port where nothing else is said.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// `api.example.org`, `*.example.org:8443`, `10.0.0.7:80` or `[::1]`. Without a port it is that of
/// the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    name: Name,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Exactly(String),
    /// Everything below this name, and not the name itself.
    Below(String),
    Address(IpAddr),
}

/// A text that is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host: write api.example.org, *.example.org, 10.0.0.7 or [::1], each with a \
     :PORT if it is not that of the scheme"
)]
pub struct BadHost(String);

impl FromStr for HostPattern {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        let bad = || BadHost(text.to_owned());
        if let Ok(address) = text.parse() {
            return Ok(Self {
                name: Name::Address(address),
                port: None,
            });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        let name = match (name.strip_prefix("*."), Host::parse(name)) {
            (Some(above), _) => match Host::parse(above) {
                Some(Host::Name(above)) => Name::Below(above),
                _ => return Err(bad()),
            },
            (None, Some(Host::Name(name))) => Name::Exactly(name),
            (None, Some(Host::Address(address))) => Name::Address(address),
            (None, None) => return Err(bad()),
        };
        Ok(Self { name, port })
    }
}

/// A host as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By its name, in small letters and without a dot at its end.
    Name(String),
    /// By its address.
    Address(IpAddr),
}

impl Host {
    /// Reads it as it stands in a URI.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
            return Some(Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        // A name that ends in a number is an odd way to write an address.
        let last_is_number = name.rsplit('.').next().is_some_and(|last| {
            last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x")
        });
        let fits = name.len() <= MOST_NAME_BYTES && name.split('.').all(is_label);
        (fits && !last_is_number).then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

impl HttpGrant {
    /// Whether this may be asked at all. Where its name leads to is another question.
    #[must_use]
    pub fn allows(&self, scheme: Scheme, host: &Host, port: u16) -> bool {
        self.schemes.contains(&scheme)
            && self.hosts.iter().any(|pattern| {
                pattern.port.unwrap_or(scheme.port()) == port && pattern.name.fits(host)
            })
    }

    /// Whether a connection may be made to this address, which an allowed host has.
    #[must_use]
    pub fn allows_address(&self, scheme: Scheme, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.private || is_public(address) || self.allows(scheme, &Host::Address(address), port)
    }
}

impl Name {
    fn fits(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exactly(name), Host::Name(asked)) => name == asked,
            (Self::Below(above), Host::Name(asked)) => asked
                .strip_suffix(above.as_str())
                .is_some_and(|below| below.ends_with('.') && below.len() > 1),
            (Self::Address(address), Host::Address(asked)) => {
                address.to_canonical() == asked.to_canonical()
            }
            _ => false,
        }
    }
}

/// Whether an address is one of the public internet: neither this machine, nor its network, nor
/// something that leads to either.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let odd = address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || matches!((a, b, c), (0, ..) | (240.., ..) | (192, 0, 0) | (192, 88, 99))
        // Between carriers and customers, and for measuring.
        || (a == 100 && b & 0xc0 == 64)
        || (a == 198 && b & 0xfe == 18);
    !odd
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [first, second, ..] = segments;
    let [.., high, low] = segments;
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Addresses of version 4 in other clothes: by a translator, and by tunnels.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => inner(high, low),
        [0x2002, one, two, ..] => inner(one, two),
        // Everything else that is given out today begins so, but for documentation and tunnels.
        _ => first & 0xe000 == 0x2000 && !(first == 0x2001 && matches!(second, 0 | 0xdb8)),
    }
}

#[cfg(test)]
mod tests {
    //! Whom a list of hosts lets through.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn grant(hosts: &[&str]) -> HttpGrant {
        HttpGrant {
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            schemes: [Scheme::Https].into(),
            private: false,
        }
    }

    #[test]
    fn a_host_is_asked_only_if_it_is_listed_with_its_port() {
        let grant = grant(&[
            "api.example.org",
            "*.example.net:8443",
            "10.0.0.7",
            "[::1]:80",
        ]);
        let allows = |host: &str, port| {
            let host = Host::parse(host);
            host.is_some_and(|host| grant.allows(Scheme::Https, &host, port))
        };
        for (host, port) in [
            ("api.example.org", 443),
            ("API.Example.ORG.", 443),
            ("a.example.net", 8443),
            ("b.a.example.net", 8443),
            ("10.0.0.7", 443),
            ("[::1]", 80),
            ("[::ffff:10.0.0.7]", 443),
        ] {
            assert!(allows(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("api.example.org", 8443),
            ("x.api.example.org", 443),
            ("api.example.org.evil.test", 443),
            ("evilexample.net", 8443),
            ("example.net", 8443),
            (".example.net", 8443),
            ("a.example.net", 443),
            ("10.0.0.8", 443),
            ("10.7", 443),
            ("0x0a000007", 443),
            ("167772167", 443),
            ("[::1]", 443),
            ("", 443),
        ] {
            assert!(!allows(host, port), "{host}:{port}");
        }
        assert!(!grant.allows(Scheme::Http, &Host::Name("api.example.org".to_owned()), 80));
    }

    #[test]
    fn addresses_of_this_machine_and_its_network_are_not_public() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "240.0.0.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::7f00:1",
            "2001::1",
        ] {
            assert!(!public(address), "{address}");
        }
        for address in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1",
            "64:ff9b::101:101",
        ] {
            assert!(public(address), "{address}");
        }
        let listed = grant(&["10.0.0.7", "api.example.org"]);
        let allows =
            |address: &str| listed.allows_address(Scheme::Https, address.parse().unwrap(), 443);
        assert!(allows("10.0.0.7") && allows("1.1.1.1") && !allows("10.0.0.8"));
        let private = HttpGrant {
            private: true,
            ..listed.clone()
        };
        assert!(private.allows_address(Scheme::Https, "127.0.0.1".parse().unwrap(), 443));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in [
            "",
            "*",
            "*.",
            "a b",
            "https://a",
            "a/b",
            "a:b",
            "*.*.a",
            "a.*",
            "u@a",
            "[a]",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?}");
        }
        assert!("::1".parse::<HostPattern>().is_ok());
    }
}
