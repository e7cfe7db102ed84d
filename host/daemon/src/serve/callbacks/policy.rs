//! Who may be told by a callback, and what an answer means. Nothing here asks anybody.
//!
//! The daemon stands where its submitters do not: inside a cluster, beside metadata services.
//! So hosts are listed by the operator; and where a listed name leads is looked at again when it
//! is told: never to this machine or its link, and into a private network only if that is
//! allowed. What is listed as an address is taken at its word.

use std::net::IpAddr;
use std::time::Duration;

use hyper::{StatusCode, Uri};
use taskwright_capability::grant::http::{Host, HostPattern, HttpGrant, Scheme, is_public};

/// How long after its end a task's callback is tried at the most.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Who may be told, and how often it is tried.
#[derive(Clone, Debug)]
pub(crate) struct CallbackPolicy {
    grant: HttpGrant,
    private: bool,
    tries: u32,
}

/// Whom a callback goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// As it stands in the address, for the `Host` header.
    pub(crate) authority: String,
    /// With the query.
    pub(crate) path: String,
}

/// What is known after a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It was heard.
    Heard,
    /// It is tried again.
    Again(String),
    /// It is not.
    GivenUp(String),
}

impl CallbackPolicy {
    /// Hosts that may be told, and whether their names may lead into a private network.
    pub(crate) fn new(hosts: Vec<HostPattern>, private: bool, tries: u32) -> Self {
        Self {
            grant: HttpGrant {
                hosts,
                schemes: [Scheme::Http, Scheme::Https].into(),
                private: false,
            },
            private,
            tries,
        }
    }

    /// Whether anybody may be told at all.
    pub(crate) fn is_open(&self) -> bool {
        !self.grant.hosts.is_empty()
    }

    /// Whom an address means, if it may be told.
    ///
    /// # Errors
    /// Why not, for whoever submits.
    pub(crate) fn target(&self, address: &str) -> Result<Target, String> {
        let target = read(address).ok_or("must be an http or https address with a host in it")?;
        if !self.is_open() {
            return Err(
                "cannot be told: this daemon's operator allows no host (queue.callback-hosts)"
                    .to_owned(),
            );
        }
        if self.grant.allows(target.scheme, &target.host, target.port) {
            return Ok(target);
        }
        Err(format!(
            "names {}, which is not among the hosts that this daemon's operator allows \
             (queue.callback-hosts)",
            target.shown()
        ))
    }

    /// Whether a connection may be made there: where the host of an allowed target was found.
    pub(crate) fn allows_address(&self, target: &Target, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let listed = Host::Address(address);
        is_public(address)
            || (self.private && is_private_network(address))
            || self.grant.allows(target.scheme, &listed, target.port)
    }

    /// What follows a try, by its number and how long ago the task ended.
    pub(crate) fn after(
        &self,
        answer: Result<StatusCode, String>,
        tried: u32,
        ended_for: Duration,
    ) -> After {
        let why = match answer {
            Ok(status) if status.is_success() => return After::Heard,
            Ok(StatusCode::GONE) => {
                return After::GivenUp("it answered 410: it wants no more".to_owned());
            }
            Ok(status) => format!("it answered {}", status.as_u16()),
            Err(why) => why,
        };
        if tried >= self.tries {
            return After::GivenUp(format!("{why}; that was try {tried}, the last"));
        }
        if Self::is_late(ended_for) {
            return After::GivenUp(format!("{why}; the task ended more than a day ago"));
        }
        After::Again(why)
    }

    /// Whether it is too late to tell anybody of a task that ended so long ago.
    pub(crate) fn is_late(ended_for: Duration) -> bool {
        ended_for >= LONGEST
    }
}

impl Target {
    /// Without the path, which may hold a secret.
    pub(crate) fn shown(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }
}

fn read(address: &str) -> Option<Target> {
    let uri: Uri = address.parse().ok()?;
    let authority = uri.authority()?;
    // Who asks is nobody's business in an address, and it is shown in lists.
    if authority.as_str().contains('@') {
        return None;
    }
    let scheme = Scheme::parse(uri.scheme_str()?)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // What follows a host without a path may be a query.
    let path = match path.strip_prefix('/') {
        Some(_) => path.to_owned(),
        None => format!("/{path}"),
    };
    let behind_host = authority.as_str().strip_prefix(authority.host())?;
    Some(Target {
        scheme,
        host: Host::parse(authority.host())?,
        port: match (authority.port(), behind_host) {
            (Some(port), _) => Some(port.as_u16()).filter(|port| *port > 0)?,
            (None, "" | ":") => scheme.port(),
            // One that is no port, as 99999.
            (None, _) => return None,
        },
        authority: authority.as_str().to_owned(),
        path,
    })
}

/// The networks of houses and clusters. Not what is this machine's, its link's or nobody's, and
/// not the addresses below them at which clouds tell secrets.
fn is_private_network(address: IpAddr) -> bool {
    const AWS_METADATA: [u16; 8] = [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            let metadata = [a, b, c, d] == [100, 100, 100, 200];
            address.is_private() || (a == 100 && b & 0xc0 == 64 && !metadata)
        }
        IpAddr::V6(address) => address.is_unique_local() && address.segments() != AWS_METADATA,
    }
}

#[cfg(test)]
mod tests {
    //! Who may be told, and what answers mean.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn policy(hosts: &[&str], private: bool) -> CallbackPolicy {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        CallbackPolicy::new(hosts, private, 3)
    }

    #[test]
    fn only_listed_hosts_are_told() {
        let policy = policy(
            &["hooks.example.org", "*.jobs.svc:8080", "127.0.0.1:9"],
            false,
        );
        let target = policy.target("https://hooks.example.org/a?b=c").unwrap();
        assert_eq!(
            (target.path.as_str(), target.port, target.shown().as_str()),
            ("/a?b=c", 443, "https://hooks.example.org")
        );
        let target = policy.target("https://hooks.example.org?token=x").unwrap();
        assert_eq!(target.path, "/?token=x");
        for good in [
            "http://hooks.example.org",
            "http://a.jobs.svc:8080/x",
            "http://127.0.0.1:9/",
        ] {
            assert!(policy.target(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("ftp://hooks.example.org", "must be an http"),
            ("hooks.example.org", "must be an http"),
            ("/relative", "must be an http"),
            ("https://me:secret@hooks.example.org/", "must be an http"),
            ("http://2130706433/", "must be an http"),
            ("http://0x7f.1/", "must be an http"),
            ("http://hooks.example.org:0/", "must be an http"),
            ("http://hooks.example.org:99999/", "must be an http"),
            ("http://169.254.169.254/latest/meta-data", "is not among"),
            ("http://127.0.0.1/", "is not among"),
            ("http://[::1]:9/", "is not among"),
            ("https://hooks.example.org.evil.example/", "is not among"),
            ("https://hooks.example.org:8443/", "is not among"),
        ] {
            let told = policy.target(bad).unwrap_err();
            assert!(told.contains(why), "{bad}: {told}");
        }
        let nobody = super::CallbackPolicy::new(Vec::new(), true, 1);
        let told = nobody.target("https://hooks.example.org/").unwrap_err();
        assert!(told.contains("queue.callback-hosts"), "{told}");
    }

    #[test]
    fn where_a_name_leads_is_looked_at() {
        let allows = |hosts: &[&str], private, address: &str| {
            let policy = policy(hosts, private);
            let target = policy.target("http://a.example.org:8080/").unwrap();
            policy.allows_address(&target, address.parse().unwrap())
        };
        let name = ["a.example.org:8080"];
        assert!(allows(&name, false, "1.1.1.1"));
        for inner in [
            "10.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "fd12::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!allows(&name, false, inner), "{inner}");
            assert!(allows(&name, true, inner), "{inner}");
        }
        for never in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "169.254.169.254",
            "fe80::1",
            "100.100.100.200",
            "fd00:ec2::254",
            "224.0.0.1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!allows(&name, true, never), "{never}");
        }
        let listed = ["a.example.org:8080", "127.0.0.1:8080"];
        assert!(allows(&listed, false, "127.0.0.1"));
        assert!(!allows(
            &["a.example.org:8080", "127.0.0.1:80"],
            false,
            "127.0.0.1"
        ));
    }

    #[test]
    fn it_is_tried_so_often_and_so_long() {
        let policy = policy(&[], false);
        let now = Duration::ZERO;
        let status = |code| Ok(StatusCode::from_u16(code).unwrap());
        assert_eq!(policy.after(status(204), 1, now), After::Heard);
        for code in [302, 404, 500] {
            let again = After::Again(format!("it answered {code}"));
            assert_eq!(policy.after(status(code), 2, now), again);
        }
        assert!(matches!(
            policy.after(status(410), 1, now),
            After::GivenUp(_)
        ));
        assert!(matches!(
            policy.after(status(500), 3, now),
            After::GivenUp(_)
        ));
        let late = policy.after(Err("no".to_owned()), 1, LONGEST);
        assert!(matches!(late, After::GivenUp(_)));
    }
}
