//! Listeners, connections, limits, graceful drain. HTTP/1.1, as the contract has it.
//!
//! A connection costs one task and one place among [`ServeLimits::connections`];
//! whoever comes when all are taken is told so at once. Nothing here knows routes.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::auth::Peer;
use crate::patience::{Patient, Reader};

/// Where requests come in. Bound by the daemon, which knows paths, modes and addresses.
#[derive(Debug)]
pub enum Listener {
    /// Over the network.
    Tcp(TcpListener),
    /// Over a socket in the file system; the kernel tells who asks.
    Unix(UnixListener),
}

/// The bytes of all headers of a request, as a rule.
pub(crate) const MOST_HEADER_BYTES: usize = 64 * 1024;

/// Bounds on connections.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Connections at one time, over all listeners.
    pub connections: usize,
    /// How long a client may take for the head of a request, and how long a connection may
    /// idle between two.
    pub header_time: Duration,
    /// The largest head of a request, in bytes; a larger one is answered 431.
    pub header_bytes: usize,
    /// How long a client may take nothing of what is sent to it until its connection is cut.
    pub reader_patience: Duration,
    /// How long requests under way may take to end once `shutdown` is cancelled.
    pub drain_time: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            header_time: Duration::from_secs(30),
            header_bytes: MOST_HEADER_BYTES,
            reader_patience: Duration::from_secs(30),
            drain_time: Duration::from_secs(30),
        }
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that did not end in time and were cut.
    pub cut: usize,
}

/// Serves `router` on every listener until `shutdown` is cancelled, and then until the requests
/// under way are answered or [`ServeLimits::drain_time`] is over.
pub async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
) -> Drained {
    let mut loops = JoinSet::new();
    for listener in listeners {
        let door = Door {
            router: router.clone(),
            http: http(&limits),
            // Each its own: whoever floods the network does not lock out who is on the machine.
            places: Arc::new(Semaphore::new(limits.connections)),
            most: limits.connections,
            shutdown: shutdown.clone(),
            reader_patience: limits.reader_patience,
            drain_time: limits.drain_time,
        };
        loops.spawn(door.keep(listener));
    }
    let mut cut = 0;
    while let Some(ended) = loops.join_next().await {
        match ended {
            Ok(Drained { cut: here }) => cut += here,
            Err(error) => tracing::error!(%error, "a listener ended unexpectedly"),
        }
    }
    Drained { cut }
}

fn http(limits: &ServeLimits) -> http1::Builder {
    /// Hyper takes no smaller buffer.
    const LEAST_BUFFER: usize = 8192;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes.max(LEAST_BUFFER));
    http
}

/// A connection as a request sees it: who is at its other end, and its place. Whoever takes the
/// connection over (a WebSocket) keeps this, and with it the place.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The address of the other end, over the network.
    pub(crate) from: Option<IpAddr>,
    /// Whether what is sent is taken.
    pub(crate) reader: Arc<Reader>,
    _place: Arc<OwnedSemaphorePermit>,
}

/// What of an answer the kernel keeps for a client that does not take it, in bytes. With as much as
/// it would keep by itself, nobody could tell slow readers from those that stand still.
const MOST_UNSENT: u32 = 256 * 1024;

/// What is needed to let connections in.
struct Door {
    router: Router,
    http: http1::Builder,
    places: Arc<Semaphore>,
    /// How many there are.
    most: usize,
    shutdown: CancellationToken,
    reader_patience: Duration,
    drain_time: Duration,
}

impl Door {
    /// Lets connections in until shutdown, then waits for those inside.
    async fn keep(self, listener: Listener) -> Drained {
        let mut inside = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                Some(_) = inside.join_next(), if !inside.is_empty() => {}
                arrived = accept(&listener) => match arrived {
                    Ok(arrived) => self.admit(arrived, &mut inside).await,
                    Err(error) => pause_after(&error).await,
                },
            }
        }
        drop(listener);
        let deadline = Instant::now() + self.drain_time;
        let drained = tokio::time::timeout_at(deadline, async {
            while inside.join_next().await.is_some() {}
        });
        // Nobody inside at the deadline is cut, whether or not the timeout was reached.
        let _ = drained.await;
        let cut = inside.len();
        inside.shutdown().await;
        // Connections that were taken over are nobody's inside; they end by the same token.
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout_at(deadline, self.places.acquire_many(all)).await;
        Drained { cut }
    }

    async fn admit(&self, arrived: Arrived, inside: &mut JoinSet<()>) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            turn_away(arrived).await;
            return;
        };
        let (router, http) = (self.router.clone(), self.http.clone());
        let shutdown = self.shutdown.clone();
        let line = |from| Line {
            from,
            reader: Arc::default(),
            _place: Arc::new(place),
        };
        match arrived {
            Arrived::Tcp(stream, from) => {
                // Answers are small and written whole: waiting for more only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was not set");
                }
                if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(MOST_UNSENT) {
                    tracing::debug!(%error, "TCP_NOTSENT_LOWAT was not set");
                }
                let reached = stream.local_addr();
                let peer = match reached {
                    Ok(at) if at.ip().to_canonical().is_loopback() => Peer::Loopback,
                    _ => Peer::Network,
                };
                let line = line(Some(from.to_canonical()));
                let stream = Patient::new(stream, self.reader_patience, line.reader.clone());
                inside.spawn(converse(stream, peer, router, http, shutdown, line));
            }
            Arrived::Unix(stream) => {
                let uid = stream.peer_cred().map(|credentials| credentials.uid()).ok();
                let peer = Peer::Unix { uid };
                let line = line(None);
                let stream = Patient::new(stream, self.reader_patience, line.reader.clone());
                inside.spawn(converse(stream, peer, router, http, shutdown, line));
            }
        }
    }
}

enum Arrived {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Arrived> {
    match listener {
        Listener::Tcp(listener) => listener
            .accept()
            .await
            .map(|(stream, from)| Arrived::Tcp(stream, from.ip())),
        Listener::Unix(listener) => listener
            .accept()
            .await
            .map(|(stream, _)| Arrived::Unix(stream)),
    }
}

/// A failed `accept` is the client's doing (it went away again) or ours (no descriptors left);
/// the second does not get better by asking at once.
async fn pause_after(error: &io::Error) {
    const PAUSE: Duration = Duration::from_millis(50);
    let by_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    );
    if !by_client {
        tracing::warn!(%error, "a connection could not be accepted");
        tokio::time::sleep(PAUSE).await;
    }
}

/// All places are taken: say so, without a task and without reading.
async fn turn_away(arrived: Arrived) {
    const PATIENCE: Duration = Duration::from_millis(100);
    const BODY: &str = "{\"code\":\"Service Unavailable\",\
        \"message\":\"as many clients as allowed are served\"}\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
        content-length: {}\r\nconnection: close\r\nretry-after: 1\r\n\r\n{BODY}",
        BODY.len()
    );
    metrics::counter!("taskwright_http_connections_refused_total").increment(1);
    let told = async {
        match arrived {
            Arrived::Tcp(mut stream, _) => stream.write_all(answer.as_bytes()).await,
            Arrived::Unix(mut stream) => stream.write_all(answer.as_bytes()).await,
        }
    };
    // Whether the client heard it changes nothing for us.
    let _ = tokio::time::timeout(PATIENCE, told).await;
}

/// One connection, from its first request to its last.
async fn converse<S>(
    stream: S,
    peer: Peer,
    router: Router,
    http: http1::Builder,
    shutdown: CancellationToken,
    line: Line,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let router = router.clone();
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(line.clone());
        async move {
            let answer: Result<_, Infallible> = router.oneshot(request.map(Body::new)).await;
            answer
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection.with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use axum::Extension;
    use axum::routing::get;
    use tokio::io::AsyncReadExt;

    const DEADLINE: Duration = Duration::from_secs(20);

    struct Served {
        address: std::net::SocketAddr,
        shutdown: CancellationToken,
        ended: tokio::task::JoinHandle<Drained>,
    }

    async fn served(router: Router, limits: ServeLimits) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = serve(
            vec![Listener::Tcp(listener)],
            router,
            limits,
            shutdown.clone(),
        );
        Served {
            address,
            shutdown,
            ended: tokio::spawn(serving),
        }
    }

    async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(DEADLINE, reading).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    const CLOSE: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn the_one_too_many_is_told_so() {
        let limits = ServeLimits {
            connections: 1,
            ..ServeLimits::default()
        };
        let served = served(Router::new().route("/", get(|| async { "hello" })), limits).await;
        let mut first = TcpStream::connect(served.address).await.unwrap();
        first
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut byte = [0; 1];
        first.read_exact(&mut byte).await.unwrap();

        let mut second = TcpStream::connect(served.address).await.unwrap();
        let answer = ask(&mut second, "").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{head}"
        );
    }

    #[tokio::test]
    async fn a_slow_head_and_a_huge_head_are_refused() {
        let limits = ServeLimits {
            header_time: Duration::from_millis(100),
            header_bytes: 8192,
            ..ServeLimits::default()
        };
        let served = served(Router::new().route("/", get(|| async { "hello" })), limits).await;
        let mut slow = TcpStream::connect(served.address).await.unwrap();
        let answer = ask(&mut slow, "GET / HTTP/1.1\r\nho").await;
        assert!(!answer.contains("200 OK"), "{answer}");

        let mut huge = TcpStream::connect(served.address).await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
            "a".repeat(9000)
        );
        let answer = ask(&mut huge, &request).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn requests_under_way_are_answered_when_it_ends() {
        let (entered_tell, mut entered) = tokio::sync::mpsc::channel(1);
        let go_on = CancellationToken::new();
        let gate = go_on.clone();
        let slow = get(move || async move {
            entered_tell.send(()).await.unwrap();
            gate.cancelled().await;
            "late"
        });
        let served = served(Router::new().route("/", slow), ServeLimits::default()).await;
        let mut client = TcpStream::connect(served.address).await.unwrap();
        let asking = tokio::spawn(async move { ask(&mut client, CLOSE).await });
        entered.recv().await.unwrap();
        served.shutdown.cancel();
        go_on.cancel();
        assert!(asking.await.unwrap().ends_with("late"));
        let ended = tokio::time::timeout(DEADLINE, served.ended).await.unwrap();
        assert_eq!(ended.unwrap(), Drained { cut: 0 });
    }

    #[tokio::test]
    async fn whoever_does_not_end_in_time_is_cut() {
        let (entered_tell, mut entered) = tokio::sync::mpsc::channel(1);
        let stuck = get(move || async move {
            entered_tell.send(()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let limits = ServeLimits {
            drain_time: Duration::from_millis(50),
            ..ServeLimits::default()
        };
        let served = served(Router::new().route("/", stuck), limits).await;
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(CLOSE.as_bytes()).await.unwrap();
        entered.recv().await.unwrap();
        served.shutdown.cancel();
        let ended = tokio::time::timeout(DEADLINE, served.ended).await.unwrap();
        assert_eq!(ended.unwrap(), Drained { cut: 1 });
    }

    #[tokio::test]
    async fn the_kernel_tells_who_is_behind_a_unix_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let shutdown = CancellationToken::new();
        let show = get(|Extension(peer): Extension<Peer>| async move { format!("{peer:?}") });
        let serving = serve(
            vec![Listener::Unix(listener)],
            Router::new().route("/", show),
            ServeLimits::default(),
            shutdown.clone(),
        );
        let ended = tokio::spawn(serving);
        let mut client = UnixStream::connect(&path).await.unwrap();
        let own = rustix::process::geteuid().as_raw();
        let answer = ask(&mut client, CLOSE).await;
        assert!(
            answer.ends_with(&format!("Unix {{ uid: Some({own}) }}")),
            "{answer}"
        );
        shutdown.cancel();
        tokio::time::timeout(DEADLINE, ended)
            .await
            .unwrap()
            .unwrap();
    }
}
