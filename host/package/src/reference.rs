//! Where an artifact is: `oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`.
//!
//! All of it becomes part of a URL and of messages, so only the letters that registries have pass.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::digest::Digest;

/// The scheme.
pub const SCHEME: &str = "oci://";
/// The tag that is meant where none is named.
const LATEST: &str = "latest";
const MOST_HOST_BYTES: usize = 255;
const MOST_REPOSITORY_BYTES: usize = 255;
const MOST_TAG_BYTES: usize = 128;

/// A place in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The registry, with its port if one was named.
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// Something else altogether.
    #[error("it does not begin with `{SCHEME}`")]
    Scheme,
    /// The part before the first slash.
    #[error("{0:?} is no registry: HOST or HOST:PORT is wanted, without a user or a password")]
    Host(String),
    /// The part after it.
    #[error(
        "{0:?} is no repository: names in small letters, digits, `.`, `_` and `-`, with `/` between"
    )]
    Repository(String),
    /// The part after the colon.
    #[error("{0:?} is no tag: letters, digits, `.`, `_` and `-`, at most {MOST_TAG_BYTES}")]
    Tag(String),
    /// The part after the `@`.
    #[error(transparent)]
    Digest(#[from] crate::digest::NoDigest),
}

impl Reference {
    /// Reads one.
    ///
    /// # Errors
    /// The part that is wrong, and what is wanted.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        let rest = text.strip_prefix(SCHEME).ok_or(BadReference::Scheme)?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (rest, None),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_host(host) {
            return Err(BadReference::Host(host.to_owned()));
        }
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        let fits = repository.len() <= MOST_REPOSITORY_BYTES;
        if !fits || !repository.split('/').all(is_component) {
            return Err(BadReference::Repository(repository.to_owned()));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(BadReference::Tag(tag.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The registry, as `HOST` or `HOST:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository in it.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The last part of the repository: what a plugin is called that says nothing itself.
    #[must_use]
    pub fn last(&self) -> &str {
        let last = self.repository.rsplit_once('/').map(|(_, last)| last);
        last.unwrap_or(&self.repository)
    }

    /// The tag that was named.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest that was named.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// By what the manifest is asked for: the digest, where there is one.
    #[must_use]
    pub fn manifest(&self) -> String {
        let tag = || self.tag.as_deref().unwrap_or(LATEST).to_owned();
        self.digest.map_or_else(tag, |digest| digest.to_string())
    }

    /// The same place, at this very manifest. The tag stays, for people.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            tag: Some(self.tag.clone().unwrap_or_else(|| LATEST.to_owned()))
                .filter(|_| self.digest.is_none() || self.tag.is_some()),
            ..self.clone()
        }
    }

    /// Whether the registry is on this machine, by its address or the name of it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Whether `HOST[:PORT]` is on this machine.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let (host, _port) = split_port(authority);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host).parse() {
        Ok(IpAddr::V4(address)) => Ipv4Addr::is_loopback(&address),
        Ok(IpAddr::V6(address)) => Ipv6Addr::is_loopback(&address),
        Err(_) => host == "localhost",
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_host(authority: &str) -> bool {
    if authority.is_empty() || authority.len() > MOST_HOST_BYTES {
        return false;
    }
    let (host, port) = split_port(authority);
    if port.is_some_and(|port| !is_port(port)) {
        return false;
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Some(address) = bare {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        let letter = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-';
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(letter)
    };
    host.split('.').all(label)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|at| at > 0)
}

/// One name of a repository: `a`, `a-b`, `a__b`, `a.b`.
fn is_component(text: &str) -> bool {
    let plain = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter()
        .all(|end| end.is_some_and(|letter| plain(*letter)))
        && bytes
            .iter()
            .all(|letter| plain(*letter) || b"._-".contains(letter))
        && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let word = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_';
    (1..=MOST_TAG_BYTES).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|letter| word(letter) || b".-".contains(&letter))
}

#[cfg(test)]
mod tests {
    //! What passes and what does not.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_read_and_written_alike() {
        let at_digest = format!("oci://example.org/team/greeter:1.0@{DIGEST}");
        for (text, host, repository, manifest) in [
            (
                "oci://example.org/greeter",
                "example.org",
                "greeter",
                LATEST,
            ),
            (
                "oci://127.0.0.1:5000/a/b__c:v1",
                "127.0.0.1:5000",
                "a/b__c",
                "v1",
            ),
            ("oci://[::1]:5000/a", "[::1]:5000", "a", LATEST),
            (&at_digest, "example.org", "team/greeter", DIGEST),
        ] {
            let found = Reference::parse(text).unwrap();
            assert_eq!(found.to_string(), text);
            assert_eq!(found.host(), host);
            assert_eq!(found.repository(), repository);
            assert_eq!(found.manifest(), manifest);
        }
        let found = Reference::parse("oci://h/team/greeter").unwrap();
        assert_eq!(found.last(), "greeter");
        let pinned = found.at(Digest::parse(DIGEST).unwrap());
        assert_eq!(
            pinned.to_string(),
            format!("oci://h/team/greeter:latest@{DIGEST}")
        );
        let by_digest = Reference::parse(&format!("oci://h/a@{DIGEST}")).unwrap();
        let again = by_digest.at(Digest::parse(DIGEST).unwrap());
        assert_eq!(again, by_digest, "nobody named a tag");
    }

    #[test]
    fn what_could_leave_its_place_in_a_url_is_refused() {
        for text in [
            "greeter.wasm",
            "http://h/a",
            "oci://",
            "oci:///a",
            "oci://h",
            "oci://h/",
            "oci://user:pass@h/a",
            "oci://h:0/a",
            "oci://h:99999/a",
            "oci://h:/a",
            "oci://h/../a",
            "oci://h/a/../b",
            "oci://h/a//b",
            "oci://h/A",
            "oci://h/a?x=1",
            "oci://h/a#x",
            "oci://h/a%2fb",
            "oci://h/a b",
            "oci://h/a:",
            "oci://h/a:.x",
            "oci://h/a:b/c",
            "oci://h/a:b:c",
            "oci://h/a@sha256:0",
            "oci://h/a\n:b",
            "oci://h\r/a",
            "oci://-h/a",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        let long = format!("oci://h/{}", "a".repeat(256));
        assert!(Reference::parse(&long).is_err());
    }

    #[test]
    fn this_machine_is_known_by_its_address_or_name() {
        for (host, is_here) in [
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("localhost:1", true),
            ("[::1]:5000", true),
            ("localhost.example.org", false),
            ("127.0.0.1.example.org", false),
            ("10.0.0.1:5000", false),
            ("example.org", false),
        ] {
            assert_eq!(is_loopback(host), is_here, "{host}");
        }
    }
}
