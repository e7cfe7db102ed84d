//! One callback over HTTP: an address that was checked, one request, no redirect followed.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use taskwright_api::aiopslab::CallbackDocument;
use taskwright_capability::grant::http::{Host, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::policy::{CallbackPolicy, Target};
use crate::versions;

/// How long all of it may take. The store keeps a callback from others for longer than that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection is waited for.
const CONNECTING: Duration = Duration::from_secs(5);
/// Names that are looked up at a time: nobody can call such a question off.
const MOST_LOOKUPS: usize = 16;
/// Addresses of one name that are looked at, and of those that are allowed, tried.
const MOST_LOOKED_AT: usize = 64;
const MOST_TRIED: usize = 4;
/// Bytes and header fields of an answer's head; its body is not read.
const MOST_HEAD_BYTES: usize = 64 << 10;
const MOST_FIELDS: usize = 100;

/// Posts a document; answers the status.
///
/// # Errors
/// Why there was no answer, without the path of the address.
pub(super) async fn post(
    policy: &CallbackPolicy,
    target: &Target,
    document: CallbackDocument,
    attempt: u32,
    secret: Option<&[u8]>,
) -> Result<StatusCode, String> {
    let asked = async {
        let stream = timeout(CONNECTING, connect(policy, target))
            .await
            .map_err(|_| "no connection came about in time".to_owned())??;
        let request = request(target, document, attempt, secret)?;
        exchange(stream, request).await
    };
    timeout(PATIENCE, asked)
        .await
        .map_err(|_| format!("it did not answer within {} s", PATIENCE.as_secs()))?
}

fn request(
    target: &Target,
    document: CallbackDocument,
    attempt: u32,
    secret: Option<&[u8]>,
) -> Result<Request<Full<Bytes>>, String> {
    let agent = format!("taskwright/{}", versions::PRODUCT);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(&target.path)
        .header(HOST, &target.authority)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, agent)
        .header("taskwright-event", &document.event)
        .header("taskwright-delivery", &document.delivery_id)
        .header("taskwright-attempt", attempt);
    if let Some(secret) = secret {
        request = request.header("taskwright-signature", signature(secret, &document.body)?);
    }
    let body = Full::new(Bytes::from(document.body));
    request
        .body(body)
        .map_err(|error| format!("the request could not be made: {error}"))
}

/// HMAC-SHA256 of the body, as `sha256=` and hexadecimal digits.
pub(super) fn signature(secret: &[u8], body: &[u8]) -> Result<String, String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|error| error.to_string())?;
    mac.update(body);
    Ok(format!(
        "sha256={}",
        hex::encode(mac.finalize().into_bytes())
    ))
}

async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, String> {
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let mut builder = http1::Builder::new();
    builder
        .max_headers(MOST_FIELDS)
        .max_buf_size(MOST_HEAD_BYTES);
    let shaken = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(broken)?;
    let mut answer = pin!(sender.send_request(request));
    let answered = tokio::select! {
        answered = answer.as_mut() => answered,
        // What it brought before it ended is there.
        _ = connection => answer.await,
    };
    Ok(answered.map_err(broken)?.status())
}

/// Something to speak HTTP over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(policy: &CallbackPolicy, target: &Target) -> Result<Box<dyn Stream>, String> {
    let stream = connect_to_one(&addresses(policy, target).await?).await?;
    if target.scheme == Scheme::Http {
        return Ok(Box::new(stream));
    }
    let server = match &target.host {
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|error| format!("its name: {error}"))?
        }
        Host::Address(address) => ServerName::from(*address),
    };
    let connector = TlsConnector::from(Arc::clone(&TLS));
    let stream = connector.connect(server, stream).await;
    let stream = stream.map_err(|error| format!("TLS did not come about: {error}"))?;
    Ok(Box::new(stream))
}

/// The authorities of the web, as this build knows them.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let config = ClientConfig::builder().with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
});

/// Where a host is, of that where a connection may go to. The connection goes to what was looked
/// at here: a name that leads elsewhere a moment later leads nowhere.
async fn addresses(policy: &CallbackPolicy, target: &Target) -> Result<Vec<SocketAddr>, String> {
    let found = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => look_up(name.clone(), target.port)
            .await
            .map_err(|error| format!("its name was not found: {error}"))?,
    };
    let allowed: Vec<SocketAddr> = found
        .into_iter()
        .filter(|address| policy.allows_address(target, *address))
        .take(MOST_TRIED)
        .map(|address| SocketAddr::new(address, target.port))
        .collect();
    if allowed.is_empty() {
        return Err(
            "its name leads to an address that may not be told; list the address too \
             (queue.callback-hosts), or allow private networks \
             (queue.callback-private-addresses)"
                .to_owned(),
        );
    }
    Ok(allowed)
}

async fn look_up(name: String, port: u16) -> io::Result<Vec<IpAddr>> {
    static TURNS: LazyLock<Arc<Semaphore>> =
        LazyLock::new(|| Arc::new(Semaphore::new(MOST_LOOKUPS)));
    let turn = Arc::clone(&TURNS).acquire_owned().await;
    let found = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let found = (name.as_str(), port).to_socket_addrs()?;
        let found = found.take(MOST_LOOKED_AT).map(|address| address.ip());
        io::Result::Ok(found.collect())
    });
    found.await.map_err(io::Error::other)?
}

async fn connect_to_one(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut failed = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = format!("no connection: {error}"),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    //! Signatures.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_signature_is_that_of_the_rfc() {
        // RFC 4231, test case 2.
        let signed = signature(b"Jefe", b"what do ya want for nothing?").unwrap();
        assert_eq!(
            signed,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
