//! Who may do what: nobody is asked, or a bearer token, or the user behind a Unix socket.
//!
//! Tokens are kept as SHA-256 digests and compared in constant time. A token of
//! scope `read` sees tasks with the values of their environment masked.

use std::collections::BTreeSet;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::problem::Problem;

/// Who may do what.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The tokens that are taken. Empty: nobody is asked and everybody may do everything.
    pub tokens: Vec<Token>,
    /// The users who may do everything over a Unix socket without a token.
    pub admin_uids: BTreeSet<u32>,
}

impl AuthConfig {
    /// No authentication.
    #[must_use]
    pub fn none() -> Self {
        Self::with_tokens(Vec::new())
    }

    /// Tokens over TCP; over a Unix socket also root and the user of this process.
    #[must_use]
    pub fn with_tokens(tokens: Vec<Token>) -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self {
            tokens,
            admin_uids: BTreeSet::from([0, own]),
        }
    }

    /// Whether anybody is asked who they are.
    pub(crate) fn asks(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Who asks, or why nobody may ask like this.
    pub(crate) fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, Problem> {
        if !self.asks() {
            return Ok(Caller::unauthenticated(peer));
        }
        if let Peer::Unix { uid: Some(uid) } = peer
            && self.admin_uids.contains(&uid)
        {
            return Ok(Caller {
                name: format!("uid:{uid}").into(),
                scope: Scope::Admin,
            });
        }
        let Some(given) = headers.get(AUTHORIZATION) else {
            return Err(refused("a token is required"));
        };
        let Some(token) = bearer_token(given.as_bytes()) else {
            return Err(refused("the Authorization header holds no bearer token"));
        };
        self.find(token)
            .ok_or_else(|| refused("the token is not known here"))
    }

    /// Every token is compared, so that time tells nothing about which one came close.
    fn find(&self, token: &[u8]) -> Option<Caller> {
        let digest = Sha256::digest(token);
        let mut found = None;
        for known in &self.tokens {
            if bool::from(known.digest.ct_eq(digest.as_slice())) {
                found = Some(known);
            }
        }
        found.map(|token| Caller {
            name: token.name.clone().into(),
            scope: token.scope,
        })
    }
}

fn refused(message: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, message)
        .hint("send `Authorization: Bearer <token>` with a token of the daemon's configuration")
}

fn bearer_token(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// A token that is taken.
#[derive(Clone)]
pub struct Token {
    name: String,
    digest: [u8; 32],
    scope: Scope,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({:?}, {:?})", self.name, self.scope)
    }
}

/// Why a configured token is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The digest is not one.
    #[error(
        "the sha256 of token {name:?} is not 64 hexadecimal digits: make it with `printf %s TOKEN | sha256sum`"
    )]
    NotADigest {
        /// Which token.
        name: String,
    },
    /// No such scope.
    #[error("{found:?} is not a scope: read, submit and admin are")]
    NotAScope {
        /// What was given.
        found: String,
    },
}

impl Token {
    /// A token by the SHA-256 of its text, in hexadecimal digits.
    ///
    /// # Errors
    /// [`AuthError::NotADigest`].
    pub fn new(name: &str, sha256_hex: &str, scope: Scope) -> Result<Self, AuthError> {
        let mut digest = [0; 32];
        hex::decode_to_slice(sha256_hex.trim(), &mut digest).map_err(|_| {
            AuthError::NotADigest {
                name: name.to_owned(),
            }
        })?;
        Ok(Self {
            name: name.to_owned(),
            digest,
            scope,
        })
    }
}

/// What a token allows. Each scope holds the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// See tasks (their environment masked), output, events, plugins, metrics.
    Read,
    /// Also submit, set, stop and delete tasks, and see their environment.
    Submit,
    /// Everything.
    Admin,
}

impl Scope {
    /// Reads the word for a scope.
    ///
    /// # Errors
    /// [`AuthError::NotAScope`].
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        match text {
            "read" => Ok(Self::Read),
            "submit" => Ok(Self::Submit),
            "admin" => Ok(Self::Admin),
            other => Err(AuthError::NotAScope {
                found: other.to_owned(),
            }),
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The token's name, for the log.
    pub(crate) name: std::borrow::Cow<'static, str>,
    pub(crate) scope: Scope,
}

impl Caller {
    /// Where nobody is asked who they are: as much as the connection tells.
    pub(crate) fn unauthenticated(peer: Peer) -> Self {
        let name = match peer {
            Peer::Unix { uid: Some(uid) } => format!("uid:{uid}").into(),
            Peer::Unix { uid: None } | Peer::Loopback => {
                "an unauthenticated client on this machine".into()
            }
            Peer::Network => "an unauthenticated client".into(),
        };
        Self {
            name,
            scope: Scope::Admin,
        }
    }

    /// Refuses unless the caller's scope covers `needed`.
    pub(crate) fn require(&self, needed: Scope) -> Result<(), Problem> {
        if self.scope >= needed {
            return Ok(());
        }
        let message = format!(
            "this needs a token of scope {}, {:?} has scope {}",
            needed.as_str(),
            self.name,
            self.scope.as_str()
        );
        Err(Problem::new(StatusCode::FORBIDDEN, message))
    }
}

/// Where a connection comes from. Put on every request by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Over the network, or unknown.
    Network,
    /// Over TCP to a loopback address: from this machine, if only from its browser.
    Loopback,
    /// Over a Unix socket, by this user if the kernel told.
    Unix { uid: Option<u32> },
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn config() -> AuthConfig {
        let token = |name: &str, text: &str, scope| {
            Token::new(name, &hex::encode(Sha256::digest(text)), scope).unwrap()
        };
        AuthConfig {
            tokens: vec![
                token("reader", "r-secret", Scope::Read),
                token("ci", "s-secret", Scope::Submit),
            ],
            admin_uids: BTreeSet::from([0, 1000]),
        }
    }

    fn check(authorization: Option<&str>, peer: Peer, expected: Result<Scope, u16>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        let found = config()
            .identify(&headers, peer)
            .map(|caller| caller.scope)
            .map_err(|problem| problem.status.as_u16());
        assert_eq!(found, expected, "{authorization:?} {peer:?}");
    }

    #[test]
    fn tokens_carry_their_scope() {
        check(Some("Bearer r-secret"), Peer::Network, Ok(Scope::Read));
        check(Some("bearer  s-secret "), Peer::Network, Ok(Scope::Submit));
    }

    #[test]
    fn everything_else_is_refused() {
        for header in [
            None,
            Some("Bearer wrong"),
            Some("Bearer "),
            Some("Basic r-secret"),
            Some("r-secret"),
        ] {
            check(header, Peer::Network, Err(401));
        }
        check(None, Peer::Unix { uid: Some(4242) }, Err(401));
        check(None, Peer::Unix { uid: None }, Err(401));
    }

    #[test]
    fn the_kernel_vouches_for_unix_peers() {
        check(None, Peer::Unix { uid: Some(1000) }, Ok(Scope::Admin));
    }

    #[test]
    fn without_tokens_everybody_may_do_everything() {
        let caller = AuthConfig::none()
            .identify(&HeaderMap::new(), Peer::Network)
            .unwrap();
        assert_eq!(caller.scope, Scope::Admin);
        assert_eq!(caller.name, "an unauthenticated client");
        let peer = Peer::Unix { uid: Some(7) };
        assert_eq!(Caller::unauthenticated(peer).name, "uid:7");
    }

    #[test]
    fn a_scope_covers_the_ones_before_it() {
        let caller = Caller {
            name: "ci".into(),
            scope: Scope::Submit,
        };
        assert!(caller.require(Scope::Read).is_ok());
        assert!(caller.require(Scope::Submit).is_ok());
        assert_eq!(
            caller.require(Scope::Admin).unwrap_err().status.as_u16(),
            403
        );
    }

    #[test]
    fn digests_and_scopes_are_checked_when_read() {
        assert!(Token::new("x", "abc", Scope::Read).is_err());
        assert_eq!(Scope::parse("submit"), Ok(Scope::Submit));
        assert!(Scope::parse("root").is_err());
    }
}
