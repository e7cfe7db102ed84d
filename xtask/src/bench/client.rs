//! A small HTTP/1.1 client with connections that stay open.
//!
//! The load comes from the machine that is measured, so what counts here is what
//! a request costs this side: one write, one read, no copy of the answer, and for
//! many connections one thread with one epoll. It speaks to our daemon only and
//! refuses what that does not send, chunked bodies above all.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde_json::Value;

/// How long an answer may take before the benchmark is given up.
const LONGEST_ANSWER: Duration = Duration::from_secs(120);
/// The largest answer that is taken: 10,000 tasks are about 10 MB.
const LARGEST_ANSWER: usize = 256 << 20;
/// What is asked of the kernel at once.
const READ_SIZE: usize = 64 << 10;

/// An answer, lying in its connection's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

impl Answer<'_> {
    /// Fails unless the status is one of `allowed`.
    pub(super) fn expect(&self, allowed: &[u16]) -> anyhow::Result<()> {
        let body = self
            .body
            .get(..self.body.len().min(300))
            .unwrap_or_default();
        ensure!(
            allowed.contains(&self.status),
            "the daemon answered {} instead of {allowed:?}: {}",
            self.status,
            String::from_utf8_lossy(body)
        );
        Ok(())
    }

    pub(super) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(self.body).context("read the daemon's answer as JSON")
    }
}

/// A request, written out once and sent as often as needed.
#[derive(Clone, Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    pub(super) fn get(path: &str) -> Self {
        Self::without_body("GET", path)
    }

    pub(super) fn delete(path: &str) -> Self {
        Self::without_body("DELETE", path)
    }

    fn without_body(method: &str, path: &str) -> Self {
        Self(format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes())
    }

    pub(super) fn post(path: &str, body: &str) -> Self {
        let length = body.len();
        let head = "HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json";
        Self(format!("POST {path} {head}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
    }
}

/// One connection, used by one caller at a time.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .with_context(|| format!("connect to the daemon at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LONGEST_ANSWER))?;
        stream.set_write_timeout(Some(LONGEST_ANSWER))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            filled: 0,
        })
    }

    /// Sends a request and waits for its answer.
    pub(super) fn ask(&mut self, request: &Request) -> anyhow::Result<Answer<'_>> {
        self.send(request)?;
        let extent = loop {
            if let Some(extent) = self.receive()? {
                break extent;
            }
        };
        Ok(self.take(extent))
    }

    fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        self.filled = 0;
        self.stream.write_all(&request.0).context("send a request")
    }

    /// Reads once, and says where the answer lies if that was the last of it.
    fn receive(&mut self) -> anyhow::Result<Option<Extent>> {
        ensure!(
            self.filled < LARGEST_ANSWER,
            "the answer is larger than {LARGEST_ANSWER} bytes"
        );
        if self.buffer.len() < self.filled + READ_SIZE {
            self.buffer.resize((self.filled * 2).max(READ_SIZE * 2), 0);
        }
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let count = self.stream.read(room).context("wait for an answer")?;
        ensure!(count > 0, "the daemon closed the connection");
        self.filled += count;
        extent(self.buffer.get(..self.filled).unwrap_or_default())
    }

    fn take(&self, extent: Extent) -> Answer<'_> {
        let body = self.buffer.get(extent.body..extent.end).unwrap_or_default();
        Answer {
            status: extent.status,
            body,
        }
    }
}

/// Where an answer lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    status: u16,
    body: usize,
    end: usize,
}

/// Where the answer in `bytes` lies; `None` as long as it is not whole.
fn extent(bytes: &[u8]) -> anyhow::Result<Option<Extent>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let body = head + 4;
    let text = std::str::from_utf8(bytes.get(..head).unwrap_or_default())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.context("the answer has no status")?.parse::<u16>()?;
    let mut length = 0;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            bail!("the answer has a header without a colon: {line:?}");
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>()?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("the answer comes in chunks, which this client does not read");
        }
    }
    let end = body + length;
    Ok((bytes.len() >= end).then_some(Extent { status, body, end }))
}

/// Many connections driven by one thread: each sends its next request as soon as its last
/// one is answered.
pub(super) struct Swarm {
    connections: Vec<Connection>,
    epoll: Epoll,
}

/// What a swarm did.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// From sending to the whole answer, of every request answered in time.
    pub(super) latencies: Vec<Duration>,
    /// From the first request to the last answer that counts.
    pub(super) elapsed: Duration,
}

impl Tally {
    pub(super) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl Swarm {
    pub(super) fn open(address: SocketAddr, connections: usize) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let connections: Vec<_> = (0..connections)
            .map(|_| Connection::open(address))
            .collect::<anyhow::Result<_>>()?;
        for (index, connection) in connections.iter().enumerate() {
            let readable = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
            epoll.add(connection.stream.as_fd(), readable)?;
        }
        Ok(Self { connections, epoll })
    }

    /// Sends what `next` gives, on every connection at once, until it gives nothing more or
    /// `longest` is over. Every answer goes through `check`. Requests in flight at the end are
    /// waited for and not counted.
    pub(super) fn drive(
        &mut self,
        longest: Duration,
        mut next: impl FnMut() -> Option<Request>,
        mut check: impl FnMut(&Answer<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Tally> {
        self.converse(longest, |_, answer| {
            answer.map_or(Ok(()), &mut check)?;
            Ok(next())
        })
    }

    /// Lets each connection have a conversation of its own: `turn` has its number and the answer to
    /// what it sent last, and gives what it sends next. It ends when nothing more is sent, or
    /// `longest` is over: what is given then is not sent. Requests in flight at the end are waited
    /// for and not counted.
    pub(super) fn converse(
        &mut self,
        longest: Duration,
        mut turn: impl FnMut(usize, Option<&Answer<'_>>) -> anyhow::Result<Option<Request>>,
    ) -> anyhow::Result<Tally> {
        let begun = Instant::now();
        let mut tally = Tally::default();
        let mut in_flight: HashMap<u64, Instant> = HashMap::new();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            let Some(request) = turn(index, None)? else {
                break;
            };
            in_flight.insert(index as u64, Instant::now());
            connection.send(&request)?;
        }
        let mut ready = vec![EpollEvent::empty(); self.connections.len()];
        let patience = EpollTimeout::try_from(LONGEST_ANSWER)?;
        while !in_flight.is_empty() {
            let count = match self.epoll.wait(&mut ready, patience) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other.context("wait for answers")?,
            };
            ensure!(count > 0, "no answer came for {LONGEST_ANSWER:?}");
            for event in ready.iter().take(count) {
                let index = event.data();
                let connection = self.connections.get_mut(index as usize);
                let connection = connection.context("epoll named a connection there is none of")?;
                let Some(extent) = connection.receive()? else {
                    continue;
                };
                let now = Instant::now();
                let sent = in_flight.remove(&index).unwrap_or(now);
                let next = turn(index as usize, Some(&connection.take(extent)))?;
                if now - begun > longest {
                    continue;
                }
                tally.latencies.push(now - sent);
                tally.elapsed = now - begun;
                if let Some(request) = next {
                    in_flight.insert(index, Instant::now());
                    connection.send(&request)?;
                }
            }
        }
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_last_byte_is_there() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabc";
        for length in 0..answer.len() {
            let part = answer.get(..length).expect("a part");
            assert_eq!(extent(part).expect("a part of an answer"), None);
        }
        let whole = extent(answer).expect("an answer").expect("all of it");
        assert_eq!(whole.status, 201);
        assert_eq!(answer.get(whole.body..whole.end), Some(&b"abc"[..]));
    }

    #[test]
    fn an_answer_without_a_body_ends_with_its_head() {
        let whole = extent(b"HTTP/1.1 204 No Content\r\n\r\n")
            .expect("an answer")
            .expect("whole");
        assert_eq!((whole.status, whole.body), (204, whole.end));
    }

    #[test]
    fn chunks_are_refused() {
        assert!(extent(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }

    /// Answers every request of two connections with its own path, byte by byte.
    fn slow_echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().take(2).flatten() {
                std::thread::spawn(move || echo(stream));
            }
        });
        address
    }

    fn echo(mut stream: TcpStream) {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let request =
                String::from_utf8_lossy(bytes.get(..count).expect("what was read")).into_owned();
            let path = request.split(' ').nth(1).expect("a path");
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}",
                path.len()
            );
            for byte in answer.as_bytes() {
                stream.write_all(&[*byte]).expect("the client reads on");
            }
        }
    }

    #[test]
    fn a_swarm_asks_for_everything_once() {
        let mut swarm = Swarm::open(slow_echo(), 2).expect("connections");
        let mut paths = (0..20).map(|number| format!("/{number}"));
        let mut seen = Vec::new();
        let tally = swarm.drive(
            Duration::from_secs(30),
            || paths.next().map(|path| Request::get(&path)),
            |answer| {
                seen.push(String::from_utf8(answer.body.to_vec())?);
                answer.expect(&[200])
            },
        );
        assert_eq!(tally.expect("answers").latencies.len(), 20);
        seen.sort_by_key(|path| path.trim_start_matches('/').parse::<u32>().ok());
        assert_eq!(
            seen,
            (0..20)
                .map(|number| format!("/{number}"))
                .collect::<Vec<_>>()
        );
    }
}
