//! Which web pages of other origins may use this dialect (`CORS_ORIGINS`).
//!
//! The original lets every page do everything, with credentials. Here nothing rests on
//! cookies, and a token is sent by pages that know it; what has to be guarded is a daemon that
//! asks nobody, because every page that somebody near it opens could use it as its own:
//!
//! | said | what pages of other origins may do |
//! |---|---|
//! | nothing | everything where a token is asked for; else read, and not from loopback |
//! | `*` | everything, without credentials |
//! | origins | those pages everything, with credentials; others nothing |
//!
//! An origin is never repeated with credentials unless the operator named it.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};

use crate::auth::Peer;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const USUAL_HEADERS: &str =
    "authorization, content-type, idempotency-key, last-event-id, x-request-id";
const EXPOSED: &str = "x-request-id, x-total-count, retry-after, location";
/// Header names that are repeated to a page that asks for them, in bytes.
const MOST_ASKED: usize = 1024;

/// Which pages of other origins are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// Nobody said.
    #[default]
    Unsaid,
    /// All of them.
    Anybody,
    /// These origins.
    Only(Vec<String>),
}

/// How a page is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// As any page.
    Anybody,
    /// As the page of this origin, with credentials.
    Named(HeaderValue),
}

/// Who asks, beside what its headers say.
#[derive(Clone, Copy)]
pub(crate) struct Asking {
    /// Where the connection comes from.
    pub(crate) peer: Peer,
    /// Whether anybody is asked for a token here.
    pub(crate) tokens: bool,
}

impl Cors {
    /// Reads a list of origins, or `*`.
    ///
    /// # Errors
    /// What is no origin.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut origins = Vec::new();
        let mut anybody = false;
        for word in words
            .into_iter()
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            match word {
                "*" => anybody = true,
                _ => origins.push(origin(word)?),
            }
        }
        Ok(if anybody {
            Self::Anybody
        } else {
            Self::Only(origins)
        })
    }

    /// How the page that sent this request is let in; `None` where no page did, or none that is.
    pub(crate) fn entry(
        &self,
        headers: &HeaderMap,
        method: &Method,
        asking: Asking,
    ) -> Option<Entry> {
        let origin = headers.get(ORIGIN)?;
        let reads = method.is_safe();
        match self {
            Self::Anybody => Some(Entry::Anybody),
            Self::Unsaid if asking.tokens => Some(Entry::Anybody),
            Self::Unsaid => (reads && asking.peer == Peer::Network).then_some(Entry::Anybody),
            Self::Only(origins) => {
                let text = origin.to_str().ok()?;
                let named = origins.iter().any(|one| one.eq_ignore_ascii_case(text));
                named.then(|| Entry::Named(origin.clone()))
            }
        }
    }

    /// The answer to a browser that asks first whether a page may; `None` if it does not ask.
    pub(crate) fn preflight(
        &self,
        headers: &HeaderMap,
        method: &Method,
        asking: Asking,
    ) -> Option<Result<Response, ()>> {
        if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
            return None;
        }
        let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let Ok(wanted) = Method::from_bytes(wanted.as_bytes()) else {
            return Some(Err(()));
        };
        let Some(entry) = self.entry(headers, &wanted, asking) else {
            return Some(Err(()));
        };
        let mut response = StatusCode::NO_CONTENT.into_response();
        let told = response.headers_mut();
        entry.tell(told);
        let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let asked = asked.filter(|names| names.len() <= MOST_ASKED);
        let usual = || HeaderValue::from_static(USUAL_HEADERS);
        told.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            asked.cloned().unwrap_or_else(usual),
        );
        told.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static(METHODS),
        );
        told.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        Some(Ok(response))
    }
}

impl Entry {
    /// Tells the browser.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        match self {
            Self::Anybody => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Self::Named(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(
                    ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    HeaderValue::from_static("true"),
                );
            }
        }
        let exposed = HeaderValue::from_static(EXPOSED);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        vary(headers);
    }
}

/// What is answered depends on who asks: caches have to know.
pub(crate) fn vary(headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from(ORIGIN));
}

/// `https://pages.example.org`, with a port if it is not the scheme's.
fn origin(word: &str) -> Result<String, String> {
    let wrong =
        || format!("{word:?} is no origin: write https://pages.example.org, with its port, or *");
    let (scheme, authority) = word.split_once("://").ok_or_else(wrong)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let scheme_fits = matches!(scheme, "http" | "https");
    let fits = !authority.is_empty()
        && !authority.contains(['/', '@', '?', '#', '*', ' '])
        && authority.bytes().all(|byte| byte.is_ascii_graphic());
    if !scheme_fits || !fits {
        return Err(wrong());
    }
    Ok(format!("{scheme}://{}", authority.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    //! Who is let in.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const HERE: &str = "https://pages.example.org";

    fn asking(peer: Peer, tokens: bool) -> Asking {
        Asking { peer, tokens }
    }

    fn from(origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        headers
    }

    #[test]
    fn unsaid_means_reading_unless_a_token_is_asked_for() {
        let entry = |method: Method, peer, tokens| {
            Cors::Unsaid.entry(&from(HERE), &method, asking(peer, tokens))
        };
        assert_eq!(
            entry(Method::GET, Peer::Network, false),
            Some(Entry::Anybody)
        );
        assert_eq!(entry(Method::POST, Peer::Network, false), None);
        assert_eq!(entry(Method::GET, Peer::Loopback, false), None);
        for method in [Method::GET, Method::POST] {
            let told = entry(method, Peer::Loopback, true);
            assert_eq!(told, Some(Entry::Anybody), "never with credentials");
        }
    }

    #[test]
    fn named_origins_alone_come_with_credentials() {
        let cors = Cors::parse([HERE, "http://LOCALHOST:3000/"]).unwrap();
        let entry =
            |origin: &str| cors.entry(&from(origin), &Method::POST, asking(Peer::Loopback, false));
        assert_eq!(
            entry(HERE),
            Some(Entry::Named(HeaderValue::from_static(HERE)))
        );
        assert!(entry("http://localhost:3000").is_some());
        for other in [
            "https://evil.example",
            "null",
            "https://pages.example.org.evil.example",
        ] {
            assert_eq!(entry(other), None, "{other}");
        }
        assert_eq!(Cors::parse(["*", HERE]).unwrap(), Cors::Anybody);
        assert_eq!(Cors::parse([""]).unwrap(), Cors::Only(Vec::new()));
        for bad in [
            "pages.example.org",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://*.a",
        ] {
            assert!(Cors::parse([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_browser_that_asks_first_is_told() {
        let cors = Cors::parse([HERE]).unwrap();
        let mut headers = from(HERE);
        let ask = |headers: &HeaderMap| {
            cors.preflight(headers, &Method::OPTIONS, asking(Peer::Network, true))
        };
        assert!(ask(&headers).is_none(), "that is no question");
        headers.insert(
            ACCESS_CONTROL_REQUEST_METHOD,
            HeaderValue::from_static("POST"),
        );
        headers.insert(
            ACCESS_CONTROL_REQUEST_HEADERS,
            HeaderValue::from_static("x-mine"),
        );
        let answer = ask(&headers).unwrap().unwrap();
        let told = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(answer.status(), 204);
        assert_eq!(told("access-control-allow-origin"), HERE);
        assert_eq!(told("access-control-allow-credentials"), "true");
        assert_eq!(told("access-control-allow-headers"), "x-mine");
        assert!(told("access-control-allow-methods").contains("DELETE"));
        assert_eq!(told("vary"), "origin");
        headers.insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert!(ask(&headers).unwrap().is_err());
    }
}
