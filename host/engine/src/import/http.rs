//! `wasi:http`: requests to the hosts that the operator lists, and to nobody else.
//!
//! A host's name is resolved once, here; each address is checked, and the connection goes to an
//! address that was checked, so a name that leads elsewhere a moment later leads nowhere. Nothing
//! follows a redirect. Whatever is under way ends with its call: all of it hangs on the store.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, Uri};
use taskwright_capability::grant::http::{Host, HttpGrant, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::call::CallState;
use crate::load::Identity;

/// Requests of one call of the plugin.
const MOST_REQUESTS: u32 = 64;
/// Of these, under way at a time.
const MOST_AT_ONCE: usize = 8;
/// Bytes of the body of a request, and of a response.
const MOST_BODY_BYTES: u64 = 16 << 20;
/// Bytes that the header fields of a message take in memory.
const MOST_FIELD_BYTES: usize = 64 << 10;
/// Header fields of a response.
const MOST_FIELDS: usize = 100;
/// Bytes of the path and query of a request.
const MOST_PATH_BYTES: usize = 8 << 10;
/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;
/// Addresses of one name that are looked at.
const MOST_LOOKED_AT: usize = 64;
/// Names that are looked up at a time.
const MOST_LOOKUPS: usize = 16;
/// Lines to the operator about what was denied in one call.
const MOST_DENIALS_TOLD: u32 = 4;
/// How long a connection is waited for.
const MOST_CONNECTING: Duration = Duration::from_secs(10);
/// How long any byte of a response is waited for; no call takes longer.
const MOST_WAITING: Duration = Duration::from_secs(120);

type Sent = Result<(Response<WasiBody>, Later), Error>;
type Later = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// What a call may ask by HTTP, and how much of it it did.
pub(crate) struct Outgoing {
    context: WasiHttpCtx,
    hooks: Hooks,
}

struct Hooks {
    plugin: Arc<Identity>,
    /// When the last answer must be there, so that the guest has time to hear of a slow server.
    until: Instant,
    asked: u32,
    denied: u32,
    at_once: Arc<Semaphore>,
}

impl Outgoing {
    /// Nothing was asked yet.
    pub(crate) fn new(plugin: &Arc<Identity>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MOST_FIELD_BYTES);
        Self {
            context,
            hooks: Hooks {
                plugin: Arc::clone(plugin),
                until: Instant::now() + plugin.limits.deadline.mul_f32(0.75),
                asked: 0,
                denied: 0,
                at_once: Arc::new(Semaphore::new(MOST_AT_ONCE)),
            },
        }
    }

    /// Whether anybody was to be asked.
    pub(crate) fn was_used(&self) -> bool {
        self.hooks.asked > 0 || self.hooks.denied > 0
    }
}

impl WasiHttpView for CallState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let Outgoing { context, hooks } = &mut self.http;
        WasiHttpCtxView {
            hooks,
            table: &mut self.table,
            ctx: context,
        }
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Later,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        match self.admit(&request) {
            Ok((target, permit)) => {
                let (plugin, until) = (Arc::clone(&self.plugin), self.until);
                let options = options.unwrap_or_default();
                Box::new(async move {
                    let times = Times::of(options, until);
                    send(&plugin.grants.http, request, &target, times, permit).await
                })
            }
            Err(error) => Box::new(async { Err(error) }),
        }
    }

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        let own = std::error::Error::source(error).and_then(|source| source.downcast_ref());
        if let Some(Error::HttpRequestBodySize(size)) = own {
            ErrorCode::HttpRequestBodySize(*size)
        } else if error.is_parse_too_large() {
            ErrorCode::HttpResponseHeaderSectionSize(None)
        } else if error.is_incomplete_message() || error.is_closed() {
            ErrorCode::HttpResponseIncomplete
        } else {
            ErrorCode::HttpProtocolError
        }
    }

    fn p2_error_from_connect(&mut self, _: &std::io::Error) -> ErrorCode {
        ErrorCode::ConnectionRefused
    }

    fn p2_error_from_tls(&mut self, error: &std::io::Error) -> ErrorCode {
        let certificate = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<tokio_rustls::rustls::Error>())
            .is_some_and(|inner| {
                matches!(inner, tokio_rustls::rustls::Error::InvalidCertificate(_))
            });
        if certificate {
            ErrorCode::TlsCertificateError
        } else {
            ErrorCode::TlsProtocolError
        }
    }
}

/// Whom a request goes to.
struct Target {
    scheme: Scheme,
    host: Host,
    port: u16,
}

impl Hooks {
    /// Whether a request may be sent at all.
    fn admit(
        &mut self,
        request: &Request<WasiBody>,
    ) -> Result<(Target, OwnedSemaphorePermit), Error> {
        // What would be asked of a proxy is asked of nobody.
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let target = target(request.uri()).ok_or(Error::HttpRequestUriInvalid)?;
        let path = request.uri().path_and_query();
        if path.is_some_and(|path| path.as_str().len() > MOST_PATH_BYTES) {
            return Err(Error::HttpRequestUriTooLong);
        }
        let grant = &self.plugin.grants.http;
        if !grant.allows(target.scheme, &target.host, target.port) {
            self.tell_denied(request.uri(), &target);
            return Err(Error::HttpRequestDenied);
        }
        self.asked += 1;
        if self.asked > MOST_REQUESTS {
            return Err(Error::ConnectionLimitReached);
        }
        let permit = Arc::clone(&self.at_once).try_acquire_owned();
        let permit = permit.map_err(|_| Error::ConnectionLimitReached)?;
        Ok((target, permit))
    }

    /// The guest's error has no room for a sentence, so the operator's log has it.
    fn tell_denied(&mut self, uri: &Uri, target: &Target) {
        self.denied += 1;
        if self.denied > MOST_DENIALS_TOLD {
            return;
        }
        let plugin = &self.plugin.name;
        let host = uri.host().unwrap_or_default();
        let (scheme, port) = (target.scheme, target.port);
        tracing::warn!(
            plugin = plugin.as_str(),
            "a request to {scheme}://{host}:{port} was denied: add \"{host}:{port}\" to `hosts`, and \
             \"{scheme}\" to `schemes`, of `http` under `[grants]` in {plugin}.toml to allow it"
        );
    }
}

fn target(uri: &Uri) -> Option<Target> {
    let authority = uri.authority()?;
    // Who asks is nobody's business in an address.
    if authority.as_str().contains('@') {
        return None;
    }
    let scheme = Scheme::parse(uri.scheme_str()?)?;
    Some(Target {
        scheme,
        host: Host::parse(authority.host())?,
        port: authority.port_u16().unwrap_or(scheme.port()),
    })
}

/// Until when each step of a request may take.
struct Times {
    connected: Instant,
    first_byte: Duration,
    between_bytes: Duration,
    all: Instant,
}

impl Times {
    fn of(options: RequestOptions, all: Instant) -> Self {
        let connecting = options.connect_timeout.unwrap_or(MOST_CONNECTING);
        let waiting = |wish: Option<Duration>| wish.unwrap_or(MOST_WAITING).min(MOST_WAITING);
        Self {
            connected: (Instant::now() + connecting.min(MOST_CONNECTING)).min(all),
            first_byte: waiting(options.first_byte_timeout),
            between_bytes: waiting(options.between_bytes_timeout),
            all,
        }
    }
}

async fn send(
    grant: &HttpGrant,
    mut request: Request<WasiBody>,
    target: &Target,
    times: Times,
    permit: OwnedSemaphorePermit,
) -> Sent {
    let stream = timeout_at(times.connected, connect(grant, target))
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let mut builder = http1::Builder::new();
    builder
        .max_headers(MOST_FIELDS)
        .max_buf_size(MOST_FIELD_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // What is said to a server itself begins with the path.
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let request = request.map(|body| Question {
        body,
        left: MOST_BODY_BYTES,
    });

    // The connection moves on by itself, and ends with whoever waits for the answer.
    let driver = wasmtime_wasi::runtime::spawn(connection);
    let first_byte = (Instant::now() + times.first_byte).min(times.all);
    let response = timeout_at(first_byte, sender.send_request(request))
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
    let response = response.map(|body| Answer::new(body, &times, permit).boxed_unsync());
    let driver = async move {
        // What went wrong is told by the response or its body, to whoever reads them.
        let _ = driver.await;
        Ok(())
    };
    Ok((response, Box::new(driver)))
}

/// Something to speak HTTP over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(grant: &HttpGrant, target: &Target) -> Result<Box<dyn Stream>, Error> {
    let stream = connect_to_one(&addresses(grant, target).await?).await?;
    if target.scheme == Scheme::Http {
        return Ok(Box::new(stream));
    }
    let server = match &target.host {
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| no_such_host())?,
        Host::Address(address) => ServerName::from(*address),
    };
    let connector = TlsConnector::from(Arc::clone(&TLS));
    let stream = connector.connect(server, stream).await;
    Ok(Box::new(stream.map_err(Error::Tls)?))
}

/// The authorities of the web, as this build knows them.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let config = ClientConfig::builder().with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
});

fn no_such_host() -> Error {
    Error::DnsError {
        rcode: None,
        info_code: None,
    }
}

/// Where a host is, of that where a connection may go to.
async fn addresses(grant: &HttpGrant, target: &Target) -> Result<Vec<SocketAddr>, Error> {
    let port = target.port;
    let found: Vec<IpAddr> = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => look_up(name.clone(), port).await?,
    };
    let allowed: Vec<SocketAddr> = found
        .into_iter()
        .filter(|address| grant.allows_address(target.scheme, *address, port))
        .take(MOST_ADDRESSES)
        .map(|address| SocketAddr::new(address, port))
        .collect();
    if allowed.is_empty() {
        return Err(Error::DestinationIpProhibited);
    }
    Ok(allowed)
}

/// Asks the machine where a name leads. Nobody can call such a question off, so few are asked at a
/// time, of all plugins together.
async fn look_up(name: String, port: u16) -> Result<Vec<IpAddr>, Error> {
    static TURNS: LazyLock<Arc<Semaphore>> =
        LazyLock::new(|| Arc::new(Semaphore::new(MOST_LOOKUPS)));
    let turn = Arc::clone(&TURNS).acquire_owned().await;
    let found = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let found = (name.as_str(), port).to_socket_addrs()?;
        let found = found.take(MOST_LOOKED_AT).map(|address| address.ip());
        std::io::Result::Ok(found.collect())
    });
    match found.await {
        Ok(Ok(found)) => Ok(found),
        _ => Err(no_such_host()),
    }
}

async fn connect_to_one(addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut failed = Error::DestinationNotFound;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Error::Connect(error),
        }
    }
    Err(failed)
}

/// The body of a request, up to its bound.
struct Question {
    body: WasiBody,
    left: u64,
}

impl Body for Question {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let over = || Error::HttpRequestBodySize(Some(MOST_BODY_BYTES));
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map(|frame| within(frame, &mut self.left, over))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response, up to its bound and as long as something comes.
struct Answer {
    body: Incoming,
    left: u64,
    between_bytes: Duration,
    patience: Pin<Box<Sleep>>,
    /// The request is under way as long as this is read.
    _permit: OwnedSemaphorePermit,
}

impl Answer {
    fn new(body: Incoming, times: &Times, permit: OwnedSemaphorePermit) -> Self {
        Self {
            body,
            left: MOST_BODY_BYTES,
            between_bytes: times.between_bytes,
            patience: Box::pin(tokio::time::sleep(times.between_bytes)),
            _permit: permit,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                let next = Instant::now() + self.between_bytes;
                self.patience.as_mut().reset(next);
                let frame = frame.map(|frame| frame.map_err(Error::from));
                let over = || Error::HttpResponseBodySize(Some(MOST_BODY_BYTES));
                Poll::Ready(within(frame, &mut self.left, over))
            }
            Poll::Pending => {
                std::task::ready!(self.patience.as_mut().poll(context));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A frame of a body, if there is room for it.
fn within(
    frame: Option<Result<Frame<Bytes>, Error>>,
    left: &mut u64,
    over: impl FnOnce() -> Error,
) -> Option<Result<Frame<Bytes>, Error>> {
    if let Some(Ok(frame)) = &frame
        && let Some(bytes) = frame.data_ref()
    {
        match left.checked_sub(bytes.len() as u64) {
            Some(rest) => *left = rest,
            None => return Some(Err(over())),
        }
    }
    frame
}
