//! Requests by `wasi:http`: to whom the operator lists, and within bounds, whatever the server
//! does. The servers are the test's own, on this machine.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use taskwright_capability::Grants;
use taskwright_capability::grant::http::{HttpGrant, Scheme};

use crate::lent::{borrower, check, everything, tell};
use crate::support::Bench;

/// A server that answers each connection by `serve`, as long as the test lives.
struct Server {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn new(serve: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let (serve, count) = (Arc::new(serve), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n")
                        && reader.read_line(&mut head).unwrap_or(0) > 0
                    {}
                    let mut stream = stream;
                    serve(&head, &mut stream);
                    // What the client still says is read: closing on it would be a reset.
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                    let _ = std::io::copy(&mut reader.take(1 << 26), &mut std::io::sink());
                });
            }
        });
        Self { port, asked }
    }

    /// One that says the same to everybody.
    fn saying(text: &'static str) -> Self {
        Self::new(move |_, stream| {
            let _ = stream.write_all(text.as_bytes());
        })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

fn to(hosts: &[String], private: bool) -> Grants {
    let mut grants = everything();
    grants.http = HttpGrant {
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        schemes: [Scheme::Http].into(),
        private,
    };
    grants
}

/// A bench whose guest may ask this server by its address.
async fn lent(server: &Server) -> Bench {
    let bench = Bench::new();
    let grants = to(&[format!("127.0.0.1:{}", server.port)], false);
    bench.runtimes.load(borrower(grants)).await.unwrap();
    bench
}

#[tokio::test]
async fn a_listed_host_is_asked_and_nobody_else() {
    let (server, other) = (Server::saying(HELLO), Server::saying(HELLO));
    let bench = lent(&server).await;
    check(&bench, &format!("get {}", server.url()), 0, "200 hello (5)").await;
    assert_eq!(server.asked(), 1);
    let denied = "ErrorCode::HttpRequestDenied";
    check(&bench, &format!("get {}", other.url()), 1, denied).await;
    let secure = format!("get https://127.0.0.1:{}/", server.port);
    check(&bench, &secure, 1, denied).await;
    for odd in [
        "http://localhost/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://127.1/",
    ] {
        let (code, said) = tell(&bench, &["get", odd]).await;
        assert_eq!(code, 1, "{odd}: {said}");
    }
    assert_eq!((server.asked(), other.asked()), (1, 0));
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_not_connected_to() {
    let server = Server::saying(HELLO);
    let name = format!("localhost:{}", server.port);
    let url = format!("get http://{name}/");
    let bench = Bench::new();
    let grants = to(std::slice::from_ref(&name), false);
    bench.runtimes.load(borrower(grants)).await.unwrap();
    check(&bench, &url, 1, "ErrorCode::DestinationIpProhibited").await;
    assert_eq!(server.asked(), 0);
    let grants = to(&[name], true);
    bench.runtimes.load(borrower(grants)).await.unwrap();
    check(&bench, &url, 0, "200 hello").await;
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let other = Server::saying(HELLO);
    let location = other.url();
    let server = Server::new(move |_, stream| {
        let answer =
            format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes());
    });
    let bench = lent(&server).await;
    check(&bench, &format!("get {}", server.url()), 0, "302").await;
    assert_eq!(other.asked(), 0);
}

#[tokio::test]
async fn a_crowd_of_requests_is_let_through_in_part() {
    let server = Server::saying(HELLO);
    let bench = lent(&server).await;
    let url = server.url();
    let limit = "ErrorCode::ConnectionLimitReached";
    let (_, said) = tell(&bench, &["many", &url, "200"]).await;
    assert!(
        said.starts_with("8 of 200") && said.contains(limit),
        "{said}"
    );
    assert!(server.asked() <= 8);
}

#[tokio::test]
async fn a_body_has_a_bound_in_both_directions() {
    let server = Server::new(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(head);
        // It ends with the reader.
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
    });
    let bench = slow(&server).await;
    let bound = "response body size exceeds limit";
    check(&bench, &format!("get {}", server.url()), 1, bound).await;
    let server = Server::new(|_, stream| {
        let mut taken = [0; 1 << 16];
        while stream.read(&mut taken).is_ok_and(|read| read > 0) {}
    });
    let bench = slow(&server).await;
    let bound = "HttpRequestBodySize";
    let post = format!("post {} {}", server.url(), 17 << 20);
    check(&bench, &post, 1, bound).await;
}

/// A bench whose calls may take longer, for much to be moved.
async fn slow(server: &Server) -> Bench {
    let limits = taskwright_engine::CallLimits {
        memory_bytes: 32 << 20,
        cpu: Duration::from_secs(20),
        deadline: Duration::from_secs(60),
    };
    let bench = Bench::with(limits, Arc::new(tempfile::tempdir().unwrap()));
    let grants = to(&[format!("127.0.0.1:{}", server.port)], false);
    bench.runtimes.load(borrower(grants)).await.unwrap();
    bench
}

#[tokio::test]
async fn headers_have_a_bound() {
    let server = Server::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x-bomb: bomb\r\n").is_ok() {}
    });
    let bench = lent(&server).await;
    let bound = "ErrorCode::HttpResponseHeaderSectionSize";
    check(&bench, &format!("get {}", server.url()), 1, bound).await;
    let server = Server::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-bomb: ");
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
    });
    let bench = lent(&server).await;
    check(&bench, &format!("get {}", server.url()), 1, bound).await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_told_to_the_guest_before_its_time_is_over() {
    let server = Server::new(|_, stream| {
        let _ = stream.read(&mut [0; 1]);
    });
    let bench = lent(&server).await;
    let since = Instant::now();
    let overdue = "ErrorCode::ConnectionReadTimeout";
    check(&bench, &format!("get {}", server.url()), 1, overdue).await;
    assert!(since.elapsed() < Duration::from_secs(20));
    // One that goes on and on is held by the deadline of the call.
    let server = Server::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    });
    let bench = lent(&server).await;
    let ended = bench
        .start(crate::support::command_for(
            "borrower",
            &["get", &server.url()],
        ))
        .await;
    assert!(ended.unwrap_err().contains("2000 ms"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told() {
    let bench = Bench::new();
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let grants = to(&[format!("127.0.0.1:{gone}")], false);
    bench.runtimes.load(borrower(grants)).await.unwrap();
    let url = format!("get http://127.0.0.1:{gone}/");
    check(&bench, &url, 1, "ErrorCode::ConnectionRefused").await;
}
