//! What is sent where, and what an answer means, as plain functions.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::bindings::exports::taskwright::plugin::observer::Event;

/// Where events go.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// By TLS.
    pub is_secure: bool,
    /// The host, with its port where it has one of its own.
    pub authority: String,
    /// The path and what follows it.
    pub path: String,
}

impl Target {
    /// Reads a URL. What is wrong is told without it: somebody may keep a secret in its path.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (is_secure, rest) = match url.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err("the setting url must begin with https:// or http://".to_owned()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_host = |one: char| one.is_ascii_graphic() && !"@?#\\".contains(one);
        if authority.is_empty() || !authority.chars().all(is_host) {
            return Err("the setting url must name a host, and no user, behind ://".to_owned());
        }
        if !path.chars().all(|one| one.is_ascii_graphic() && one != '#') {
            return Err("the setting url holds what must be written as %XX in a URL".to_owned());
        }
        Ok(Self {
            is_secure,
            authority: authority.to_owned(),
            path: format!("/{path}"),
        })
    }
}

/// A request.
#[derive(Debug)]
pub struct Message {
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// Whether events of this kind are sent: all are where the operator names none.
pub fn is_wanted(kinds: Option<&str>, kind: &str) -> bool {
    kinds.is_none_or(|kinds| kinds.split_whitespace().any(|wanted| wanted == kind))
}

/// The event as the HTTP feed tells it, signed. Its number is a header, too, so that who was told
/// twice need not look inside.
pub fn message(event: Event, key: &[u8]) -> Result<Message, String> {
    let body = event.document.into_bytes();
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("content-length", body.len().to_string()),
        ("taskwright-sequence", event.sequence.to_string()),
        ("taskwright-signature", signature(key, &body)?),
    ];
    if event.missed > 0 {
        headers.push(("taskwright-missed", event.missed.to_string()));
    }
    Ok(Message { headers, body })
}

/// HMAC-SHA256 of the body, as `sha256=` and hexadecimal digits. The key is what the file holds
/// but the line break at its end.
fn signature(key: &[u8], body: &[u8]) -> Result<String, String> {
    let key = key.strip_suffix(b"\n").unwrap_or(key);
    if key.is_empty() {
        return Err("the secret key is empty: whoever likes could sign as we do".to_owned());
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
    mac.update(body);
    let digits = mac.finalize().into_bytes();
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256={digits}"))
}

/// Whether the answer means that the event arrived.
pub fn taken(target: &Target, status: u16) -> Result<(), String> {
    match status {
        200..=299 => Ok(()),
        status => Err(format!("{} answered {status}", target.authority)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(missed: u64) -> Event {
        Event {
            sequence: 7,
            at_ms: 0,
            kind: "ended".to_owned(),
            id: "01980000-0000-7000-8000-000000000000".to_owned(),
            namespace: "default".to_owned(),
            name: "build".to_owned(),
            document: "what do ya want for nothing?".to_owned(),
            missed,
            extra: Vec::new(),
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let parts = |url| {
            let target = Target::parse(url).unwrap();
            (target.is_secure, target.authority, target.path)
        };
        let of = |is_secure, authority: &str, path: &str| {
            (is_secure, authority.to_owned(), path.to_owned())
        };
        assert_eq!(parts("https://a.b"), of(true, "a.b", "/"));
        assert_eq!(
            parts("http://[::1]:80/c/d?e=f"),
            of(false, "[::1]:80", "/c/d?e=f")
        );
    }

    #[test]
    fn what_is_no_url_is_told_without_it() {
        for url in [
            "",
            "a.b/hidden",
            "ftp://a.b/hidden",
            "https:///hidden",
            "https://hidden@a.b/",
            "https://a.b/hidden x",
            "https://a.b/hidden#x",
            "https://a.b\r\n/hidden",
        ] {
            let why = Target::parse(url).unwrap_err();
            assert!(
                why.contains("setting url") && !why.contains("hidden"),
                "{why}"
            );
        }
    }

    #[test]
    fn kinds_are_words_and_all_where_none_is_named() {
        assert!(is_wanted(None, "ended"));
        assert!(is_wanted(Some("held ended"), "ended"));
        assert!(!is_wanted(Some("held  launched"), "launch"));
        assert!(!is_wanted(Some(""), "ended"));
    }

    #[test]
    fn a_message_is_signed_and_numbered() {
        // The second case of RFC 4231.
        let message = message(event(0), b"Jefe\n").unwrap();
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let header = |name| {
            let found = message.headers.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(header("taskwright-signature"), Some(expected));
        assert_eq!(header("taskwright-sequence"), Some("7"));
        assert_eq!(header("content-length"), Some("28"));
        assert_eq!(header("taskwright-missed"), None);
    }

    #[test]
    fn what_is_lost_is_told_and_nobody_signs_with_nothing() {
        let told = message(event(3), b"key").unwrap();
        assert!(
            told.headers
                .contains(&("taskwright-missed", "3".to_owned()))
        );
        assert!(message(event(0), b"\n").unwrap_err().contains("empty"));
    }

    #[test]
    fn only_a_success_means_that_it_arrived() {
        let target = Target::parse("https://a.b/hidden").unwrap();
        assert!(taken(&target, 204).is_ok());
        for status in [199, 301, 404, 503] {
            let why = taken(&target, status).unwrap_err();
            assert_eq!(why, format!("a.b answered {status}"));
        }
    }
}
