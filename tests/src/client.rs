//! HTTP/1.1 over TCP and Unix sockets, in blocking calls: one connection a request.
//!
//! Small on purpose, and not a good citizen: it must be able to send what no decent client
//! would.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::network;
use crate::stream::EventStream;

/// Longer than any answer takes; waits ask for less.
const PATIENCE: Duration = Duration::from_secs(40);

/// Where to send requests.
#[derive(Clone, Debug)]
pub enum Target {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// An address and port, as it is reached from within a network namespace.
    Within(PathBuf, SocketAddr),
}

/// Sends requests.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    token: Option<String>,
    patience: Duration,
}

/// A request to send, whatever it holds.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to a JSON value.
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(value.to_string())
    }
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text, however damaged.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!(
                "{error} in the body of a {}: {:?}",
                self.status,
                self.text()
            ),
        }
    }

    /// This answer, if it has that status.
    ///
    /// # Panics
    /// When it has another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "answered with {}", self.text());
        self
    }
}

impl Client {
    /// A client without a token.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            token: None,
            patience: PATIENCE,
        }
    }

    /// This client, which waits no longer than so long for anything that it is sent.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// This client with a bearer token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// `GET`, answered.
    ///
    /// # Panics
    /// When there is no answer. So do its sisters below.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.send(Request::new("GET", path))
    }

    /// The value in the line of the metrics that begins like that.
    #[must_use]
    pub fn metric(&self, line: &str) -> Option<f64> {
        let metrics = self.get("/metrics").text();
        let found = metrics.lines().find_map(|one| one.strip_prefix(line))?;
        found.trim().parse().ok()
    }

    /// `POST` of a JSON value.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send(Request::new("POST", path).json(body))
    }

    /// `DELETE`.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        self.send(Request::new("DELETE", path))
    }

    /// Sends any request.
    #[track_caller]
    pub fn send(&self, request: Request) -> Response {
        let shown = format!("{} {}", request.method, request.path);
        match self.try_send(request) {
            Ok(response) => response,
            Err(error) => panic!("{shown}: {error}"),
        }
    }

    /// Sends any request, to a server that may not be there.
    ///
    /// # Errors
    /// When there was no answer, or half of one.
    pub fn try_send(&self, request: Request) -> io::Result<Response> {
        let connection = self.connect()?;
        self.write_request(&connection, request)?;
        read_response(&mut BufReader::new(connection))
    }

    /// Opens a stream of server-sent events.
    ///
    /// # Panics
    /// When the answer is none.
    #[must_use]
    #[track_caller]
    pub fn stream(&self, path: &str, last_event: Option<&str>) -> EventStream {
        match self.try_stream(path, last_event) {
            Ok(stream) => stream,
            Err(error) => panic!("GET {path} as a stream: {error}"),
        }
    }

    fn try_stream(&self, path: &str, last_event: Option<&str>) -> io::Result<EventStream> {
        let mut request = Request::new("GET", path).header("accept", "text/event-stream");
        if let Some(id) = last_event {
            request = request.header("last-event-id", id);
        }
        let connection = self.connect()?;
        self.write_request(&connection, request)?;
        let handle = connection.try_clone()?;
        let mut reader = BufReader::new(connection);
        let (status, headers) = read_head(&mut reader)?;
        let media_type = find(&headers, "content-type").unwrap_or_default();
        if status != 200 || !media_type.starts_with("text/event-stream") {
            let body = read_body(&mut reader, &headers)?;
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(io::Error::other(format!(
                "answered {status} {media_type}: {text}"
            )));
        }
        let chunked = find(&headers, "transfer-encoding").is_some();
        Ok(EventStream::new(handle, reader, chunked))
    }

    /// Opens a connection, for tests that write what is no request.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(&self) -> io::Result<Connection> {
        let connection = match &self.target {
            Target::Tcp(address) => {
                Connection::Tcp(TcpStream::connect_timeout(address, self.patience)?)
            }
            Target::Unix(path) => Connection::Unix(UnixStream::connect(path)?),
            Target::Within(namespace, address) => {
                Connection::Tcp(network::within(namespace, || {
                    TcpStream::connect_timeout(address, self.patience)
                })?)
            }
        };
        connection.set_patience(self.patience)?;
        Ok(connection)
    }

    fn write_request(&self, connection: &Connection, request: Request) -> io::Result<()> {
        let Request {
            method,
            path,
            headers,
            body,
        } = request;
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| name == "host") {
            head.push_str("host: localhost\r\n");
        }
        if let Some(token) = &self.token {
            let _ = write!(head, "authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        let mut writer = connection.try_clone()?;
        writer.write_all(head.as_bytes())?;
        if body.len() <= 64 * 1024 {
            return writer.write_all(&body);
        }
        // A large body may be refused before it was read: somebody must listen meanwhile.
        std::thread::spawn(move || writer.write_all(&body));
        Ok(())
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub enum Connection {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Connection {
    /// A second handle on the same connection.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    /// Ends it, also for readers in other threads.
    pub fn shut_down(&self) {
        let _may_be_closed = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))
            }
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads one answer; the connection may be used on if the server keeps it.
///
/// # Errors
/// When what came is no answer.
pub fn read_response(reader: &mut impl BufRead) -> io::Result<Response> {
    let (status, headers) = read_head(reader)?;
    let body = if status == 204 || status == 304 {
        Vec::new()
    } else {
        read_body(reader, &headers)?
    };
    Ok(Response {
        status,
        headers,
        body,
    })
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let first = read_line(reader)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status line: {first:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else {
            return Ok((status, headers));
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_body(reader: &mut impl BufRead, headers: &[(String, String)]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if find(headers, "transfer-encoding").is_some() {
        while let Some(chunk) = read_chunk(reader)? {
            body.extend(chunk);
        }
    } else if let Some(length) = find(headers, "content-length").and_then(|text| text.parse().ok())
    {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}

/// One chunk of a body in pieces; `None` after the last.
pub(crate) fn read_chunk(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let size = read_line(reader)?;
    let size = size.split(';').next().unwrap_or_default();
    let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
    let mut chunk = vec![0; size];
    reader.read_exact(&mut chunk)?;
    read_line(reader)?;
    Ok((size > 0).then_some(chunk))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed",
        ));
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn bodies_come_whole_in_pieces_or_to_the_end() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellomore",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\nmore",
            "HTTP/1.1 200 OK\r\n\r\nhello",
        ] {
            let response = read_response(&mut text.as_bytes()).unwrap();
            assert_eq!(
                (response.status, response.body.as_slice()),
                (200, &b"hello"[..])
            );
        }
        assert!(
            read_response(&mut &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"[..]).is_err()
        );
    }
}
