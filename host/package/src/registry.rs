//! Pull and push.
//!
//! The library for registries that everybody takes reads a manifest of any length into memory and
//! follows any redirect, so the few requests that a plugin needs are made here (`docs/adr/0020`).
//!
//! - What is read has a bound, known before it is read, and a deadline.
//! - Bytes are handed out only if they match the digest that they were asked for by.
//! - HTTPS, except to this machine or where the operator says so. A redirect never leads from
//!   HTTPS to HTTP, credentials never to another origin.

mod challenge;

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use self::challenge::Challenge;
use crate::artifact::{Artifact, BadArtifact, MANIFEST, MOST_MANIFEST_BYTES, World};
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::reference::{self, Reference};

const CONNECT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// A whole pull or push.
const WHOLE: Duration = Duration::from_secs(600);
const MOST_REDIRECTS: usize = 5;
/// What a registry says about an error, or a token.
const MOST_WORDS: usize = 64 << 10;
/// As much of it as is told.
const MOST_TOLD: usize = 300;

/// How registries are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// HTTPS, and HTTP to this machine itself.
    #[default]
    Safe,
    /// HTTP, because the operator says so.
    Plain,
}

/// A registry, and who we are to it.
pub struct Registry {
    client: Client,
    base: Url,
    transport: Transport,
    credentials: Option<Credentials>,
    /// What the registry wants to see with every request, once it said so.
    pass: Option<String>,
    /// What it said.
    answered: Option<Challenge>,
}

/// A plugin as a registry had it.
#[derive(Debug)]
pub struct Pulled {
    /// What is told of it.
    pub artifact: Artifact,
    /// Its bytes, which match [`Artifact::digest`].
    pub bytes: Vec<u8>,
    /// The digest of its manifest.
    pub manifest: Digest,
}

/// Why something was not pulled or pushed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The client itself could not be made.
    #[error("make a client for registries")]
    Client(#[source] reqwest::Error),
    /// It was not reached, or fell silent.
    #[error("{0} does not answer")]
    Away(String, #[source] reqwest::Error),
    /// It took too long in all.
    #[error("it took more than {} s", WHOLE.as_secs())]
    TooLong,
    /// It wants to know who we are, or knows and says no.
    #[error("{host} wants other credentials than {}", if *had_some { "these" } else { "none" })]
    Unauthorized {
        /// The registry.
        host: String,
        /// Whether any were shown.
        had_some: bool,
    },
    /// It has no such thing.
    #[error("{host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// It answered something else.
    #[error("{host} answered {status} to {what}{told}")]
    Status {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        told: String,
    },
    /// More than is read.
    #[error("{what} has more than {most} bytes")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// How much is read.
        most: u64,
    },
    /// Other bytes than those that were asked for.
    #[error("{what} is not what was asked for: wanted {wanted}, got {found}")]
    Digest {
        /// What was asked for.
        what: String,
        /// By which digest.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// A redirect to where we do not go.
    #[error("{host} redirects to {to:?}: {why}")]
    Redirect {
        /// The registry.
        host: String,
        /// Where to.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// No plugin.
    #[error(transparent)]
    Artifact(#[from] BadArtifact),
    /// What it asks for cannot be answered.
    #[error("{host} asks for credentials in a way that is not understood: {why}")]
    Challenge {
        /// The registry.
        host: String,
        /// What is wrong.
        why: String,
    },
}

impl fmt::Debug for Registry {
    /// What is shown to it stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Registry");
        shown
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// The registry of a reference. Nothing is asked yet.
    ///
    /// # Errors
    /// When the machine's roots of trust cannot be read.
    pub fn of(
        place: &Reference,
        transport: Transport,
        credentials: Option<Credentials>,
    ) -> Result<Self, RegistryError> {
        // Somebody else in this process may have chosen already, which is as well.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("taskwright/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false);
        // What is on this machine is not behind anybody else's proxy.
        let client = if place.is_loopback() {
            client.no_proxy()
        } else {
            client
        };
        let client = client.build().map_err(RegistryError::Client)?;
        let plain = transport == Transport::Plain || place.is_loopback();
        let scheme = if plain { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}/", place.host(), place.repository());
        let base = Url::parse(&base).map_err(|why| RegistryError::Challenge {
            host: place.host().to_owned(),
            why: why.to_string(),
        })?;
        Ok(Self {
            client,
            base,
            transport,
            credentials,
            pass: None,
            answered: None,
        })
    }

    /// Gets a plugin of at most `most` bytes.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn pull(
        &mut self,
        place: &Reference,
        most: impl Fn(crate::Kind) -> u64 + Send + Sync,
    ) -> Result<Pulled, RegistryError> {
        let pulling = async {
            let (manifest, artifact) = self.manifest(place).await?;
            let what = format!("blob {}", artifact.digest);
            let most = most(artifact.kind);
            if artifact.size > most {
                return Err(RegistryError::TooLarge { what, most });
            }
            let url = self.url(&format!("blobs/{}", artifact.digest));
            let answer = self.get(url, "*/*", &what).await?;
            let bytes = read(answer, artifact.size, &what, &self.host()).await?;
            matches(&bytes, artifact.digest, &what)?;
            Ok(Pulled {
                artifact,
                bytes,
                manifest,
            })
        };
        within(pulling).await
    }

    /// What a tag or a digest names.
    async fn manifest(&mut self, place: &Reference) -> Result<(Digest, Artifact), RegistryError> {
        let what = format!("manifest {}:{}", place.repository(), place.manifest());
        let url = self.url(&format!("manifests/{}", place.manifest()));
        let answer = self.get(url, MANIFEST, &what).await?;
        let bytes = read(answer, MOST_MANIFEST_BYTES as u64, &what, &self.host()).await?;
        let digest = Digest::of(&bytes);
        if let Some(wanted) = place.digest() {
            matches(&bytes, wanted, &what)?;
        }
        Ok((digest, Artifact::parse(&bytes)?))
    }

    /// Puts a plugin there, under the tag of `place`. Answers with the digest of its manifest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push(
        &mut self,
        place: &Reference,
        artifact: &Artifact,
        world: &World,
        bytes: Vec<u8>,
    ) -> Result<Digest, RegistryError> {
        let package = artifact.package(world)?;
        let digest = Digest::of(&package.manifest);
        let pushing = async {
            self.put_blob(bytes, artifact.digest).await?;
            let config = Digest::of(&package.config);
            self.put_blob(package.config, config).await?;
            let url = self.url(&format!("manifests/{}", place.manifest()));
            let what = format!("manifest {}:{}", place.repository(), place.manifest());
            let body = package.manifest;
            let request = |client: &Client| {
                let request = client.put(url.clone()).header(CONTENT_TYPE, MANIFEST);
                request.body(body.clone())
            };
            let answer = self.send(request).await?;
            self.success(answer, &what).await.map(drop)
        };
        within(pushing).await.map(|()| digest)
    }

    async fn put_blob(&mut self, bytes: Vec<u8>, digest: Digest) -> Result<(), RegistryError> {
        let what = format!("blob {digest}");
        let url = self.url(&format!("blobs/{digest}"));
        let there = self.send(|client| client.head(url.clone())).await?;
        if there.status().is_success() {
            return Ok(());
        }
        let url = self.url("blobs/uploads/");
        let answer = self.send(|client| client.post(url.clone())).await?;
        let answer = self.success(answer, &what).await?;
        let mut upload = self.location(&answer)?;
        upload
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let mut request = self.client.put(upload.clone());
        if same_origin(&upload, &self.base) {
            request = self.with_pass(request);
        }
        let request = request
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(bytes);
        let answer = self.sent(request).await?;
        self.success(answer, &what).await.map(drop)
    }

    /// Gets something, wherever the registry keeps it.
    async fn get(&mut self, url: Url, accept: &str, what: &str) -> Result<Response, RegistryError> {
        let request = |client: &Client| client.get(url.clone()).header(ACCEPT, accept);
        let mut answer = self.send(request).await?;
        for _ in 0..MOST_REDIRECTS {
            if !answer.status().is_redirection() {
                return self.success(answer, what).await;
            }
            let to = self.location(&answer)?;
            let mut request = self.client.get(to.clone()).header(ACCEPT, accept);
            if same_origin(&to, &self.base) {
                request = self.with_pass(request);
            }
            answer = self.sent(request).await?;
        }
        if !answer.status().is_redirection() {
            return self.success(answer, what).await;
        }
        let to = self.location(&answer)?;
        Err(self.not_there(&to, "that is one redirect too many"))
    }

    /// Sends a request, once more with credentials if it is asked for them. A token is for what it
    /// was asked for: who may pull is asked again when he pushes.
    async fn send(
        &mut self,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let first = self.sent(self.with_pass(request(&self.client))).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        let asked = first.headers().get_all(WWW_AUTHENTICATE).iter();
        let mut asked = asked.filter_map(|value| Challenge::parse(value.to_str().ok()?));
        let asked = asked.next();
        let is_new = asked.is_some() && asked != self.answered;
        let Some(asked) = asked.filter(|_| is_new) else {
            return Ok(first);
        };
        let Some(pass) = self.answer_to(&asked).await? else {
            return Ok(first);
        };
        self.pass = Some(pass);
        self.answered = Some(asked);
        self.sent(self.with_pass(request(&self.client))).await
    }

    async fn sent(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        let sent = request.send().await;
        sent.map_err(|error| RegistryError::Away(self.host(), error.without_url()))
    }

    fn with_pass(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.pass {
            Some(pass) => request.header(AUTHORIZATION, pass),
            None => request,
        }
    }

    /// What is to be shown to a registry that asks so; `None`: we have nothing.
    async fn answer_to(&self, asked: &Challenge) -> Result<Option<String>, RegistryError> {
        match asked {
            Challenge::Basic => Ok(self.credentials.as_ref().map(basic)),
            Challenge::Bearer(bearer) => self.token(bearer).await.map(Some),
        }
    }

    /// Gets a token from where the registry says.
    async fn token(&self, bearer: &challenge::Bearer) -> Result<String, RegistryError> {
        let bad = |why: String| RegistryError::Challenge {
            host: self.host(),
            why,
        };
        let mut url = Url::parse(&bearer.realm).map_err(|why| bad(why.to_string()))?;
        self.check_target(&url)?;
        for (key, value) in [("service", &bearer.service), ("scope", &bearer.scope)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(key, value);
            }
        }
        let mut request = self.client.get(url);
        if let Some(credentials) = &self.credentials {
            request = request.header(AUTHORIZATION, basic(credentials));
        }
        let what = "token";
        let answer = self.sent(request).await?;
        let answer = self.success(answer, what).await?;
        let bytes = read(answer, MOST_WORDS as u64, what, &self.host()).await?;
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let token: Token = serde_json::from_slice(&bytes).map_err(|why| bad(why.to_string()))?;
        let token = token.token.or(token.access_token);
        let token = token.ok_or_else(|| bad("there is no token in the answer".to_owned()))?;
        Ok(format!("Bearer {token}"))
    }

    /// The answer, if it is a good one.
    async fn success(&self, answer: Response, what: &str) -> Result<Response, RegistryError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let (host, what) = (self.host(), what.to_owned());
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Unauthorized {
                host,
                had_some: self.credentials.is_some(),
            },
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, what },
            status => {
                let words = read(answer, MOST_WORDS as u64, &what, &host).await;
                RegistryError::Status {
                    host,
                    what,
                    status,
                    told: told(&words.unwrap_or_default()),
                }
            }
        })
    }

    /// Where an answer leads to, if we go there.
    fn location(&self, answer: &Response) -> Result<Url, RegistryError> {
        let header = answer.headers().get(LOCATION);
        let text = header.and_then(|value| value.to_str().ok()).unwrap_or("");
        let redirect = |why| RegistryError::Redirect {
            host: self.host(),
            to: text.to_owned(),
            why,
        };
        if text.is_empty() {
            return Err(redirect("it names no place"));
        }
        let to = answer.url().join(text);
        let to = to.map_err(|_| redirect("that is no URL"))?;
        self.check_target(&to)?;
        Ok(to)
    }

    fn check_target(&self, to: &Url) -> Result<(), RegistryError> {
        let goes = goes(&self.base, self.transport, to);
        goes.map_err(|why| self.not_there(to, why))
    }

    fn not_there(&self, to: &Url, why: &'static str) -> RegistryError {
        // What stands behind the path may be a secret.
        let (mut to, host) = (to.clone(), self.host());
        to.set_query(None);
        let _no_user = (to.set_username(""), to.set_password(None));
        RegistryError::Redirect {
            host,
            to: to.to_string(),
            why,
        }
    }

    fn url(&self, path: &str) -> Url {
        // A path of digests, tags and our own words cannot fail; the base itself finds nothing.
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }

    fn host(&self) -> String {
        authority(&self.base).unwrap_or_default()
    }
}

/// HTTPS leads anywhere but to HTTP; HTTP to HTTPS, to its own host, and on this machine.
fn goes(base: &Url, transport: Transport, to: &Url) -> Result<(), &'static str> {
    if !to.username().is_empty() || to.password().is_some() {
        return Err("there is a user or a password in it");
    }
    let from_plain = base.scheme() == "http";
    let here = |url: &Url| authority(url).is_some_and(|host| reference::is_loopback(&host));
    match to.scheme() {
        "https" => Ok(()),
        "http" if from_plain && same_host(to, base) => Ok(()),
        // Who said that HTTP may leave this machine did not mean what is on it.
        "http" if from_plain && transport == Transport::Safe && here(to) => Ok(()),
        "http" => Err("that is not HTTPS"),
        _ => Err("that is no HTTP"),
    }
}

fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

fn same_host(one: &Url, other: &Url) -> bool {
    one.host_str() == other.host_str()
}

fn same_origin(one: &Url, other: &Url) -> bool {
    let origin = |url: &Url| {
        let port = url.port_or_known_default();
        (
            url.scheme().to_owned(),
            url.host_str().map(str::to_owned),
            port,
        )
    };
    origin(one) == origin(other)
}

fn basic(credentials: &Credentials) -> String {
    use base64::Engine as _;
    let pair = format!("{}:{}", credentials.user(), credentials.password());
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Basic {encoded}")
}

async fn within<T>(
    work: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    let done = tokio::time::timeout(WHOLE, work).await;
    done.unwrap_or(Err(RegistryError::TooLong))
}

/// Reads an answer whole that has at most `most` bytes.
async fn read(
    mut answer: Response,
    most: u64,
    what: &str,
    host: &str,
) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge {
        what: what.to_owned(),
        most,
    };
    if answer.content_length().is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    loop {
        let next = answer.chunk().await;
        let next = next.map_err(|error| RegistryError::Away(host.to_owned(), error.without_url()));
        let Some(chunk) = next? else {
            return Ok(bytes);
        };
        if bytes.len() as u64 + chunk.len() as u64 > most {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
}

fn matches(bytes: &[u8], wanted: Digest, what: &str) -> Result<(), RegistryError> {
    let found = Digest::of(bytes);
    if found == wanted {
        return Ok(());
    }
    Err(RegistryError::Digest {
        what: what.to_owned(),
        wanted,
        found,
    })
}

/// As much of what a registry said as helps.
fn told(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let line: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(MOST_TOLD)
        .collect();
    match line.trim() {
        "" => String::new(),
        line => format!(": {line}"),
    }
}

#[cfg(test)]
mod tests {
    //! Where a registry may lead to, and what is told of what it says.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn no_way_leads_from_tls_to_none_nor_from_elsewhere_to_this_machine() {
        let url = |text| Url::parse(text).unwrap();
        let (tls, plain, local) = (
            url("https://registry.example.org/v2/a/"),
            url("http://registry.example.org/v2/a/"),
            url("http://127.0.0.1:5000/v2/a/"),
        );
        for (base, transport, to, goes_there) in [
            (&tls, Transport::Safe, "https://store.example.org/x", true),
            (&tls, Transport::Safe, "http://store.example.org/x", false),
            (
                &tls,
                Transport::Safe,
                "http://registry.example.org/x",
                false,
            ),
            (&tls, Transport::Safe, "http://127.0.0.1/x", false),
            (
                &tls,
                Transport::Safe,
                "https://me@store.example.org/x",
                false,
            ),
            (&tls, Transport::Safe, "file:///etc/passwd", false),
            (
                &plain,
                Transport::Plain,
                "http://registry.example.org:81/x",
                true,
            ),
            (
                &plain,
                Transport::Plain,
                "http://store.example.org/x",
                false,
            ),
            (&plain, Transport::Plain, "http://127.0.0.1/x", false),
            (
                &plain,
                Transport::Plain,
                "https://store.example.org/x",
                true,
            ),
            (&local, Transport::Safe, "http://127.0.0.1:6000/x", true),
            (&local, Transport::Safe, "http://localhost/x", true),
            (&local, Transport::Safe, "http://store.example.org/x", false),
        ] {
            let found = goes(base, transport, &url(to));
            assert_eq!(found.is_ok(), goes_there, "{base} {to}: {found:?}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let url = |text| Url::parse(text).unwrap();
        let base = url("https://h/v2/");
        assert!(same_origin(&url("https://h:443/x"), &base));
        for other in [
            "https://h:444/x",
            "http://h/x",
            "https://i/x",
            "https://h.i/x",
        ] {
            assert!(!same_origin(&url(other), &base), "{other}");
        }
    }

    #[test]
    fn words_of_a_registry_are_one_short_line() {
        assert_eq!(told(b""), "");
        assert_eq!(told(b" no\n\x1b[31m "), ": no  [31m");
        assert_eq!(told(&[b'x'; 1000]).len(), MOST_TOLD + 2);
    }
}
