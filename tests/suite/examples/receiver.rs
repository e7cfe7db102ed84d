//! Somebody who is told of events by HTTP, and is not always there.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use taskwright_tests::SOON;

/// What is hashed at a time, and so what a key is filled up to.
const BLOCK: usize = 64;
/// Header lines that a request may have.
const MOST_LINES: usize = 32;

/// One event that arrived.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) sequence: u64,
    pub(super) event: Value,
}

/// What the thread that listens shares with the test.
#[derive(Debug)]
struct Shared {
    key: Vec<u8>,
    taken: Mutex<Vec<Heard>>,
    refuses: AtomicBool,
    refusals: AtomicUsize,
    closing: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl Receiver {
    /// One that listens, and knows what events are signed with.
    pub(super) fn open(key: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut receiver = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::new(Shared {
                key: key.to_owned(),
                taken: Mutex::new(Vec::new()),
                refuses: AtomicBool::new(false),
                refusals: AtomicUsize::new(0),
                closing: AtomicBool::new(false),
            }),
            listening: None,
        };
        receiver.listen_on(listener);
        receiver
    }

    fn listen_on(&mut self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        self.listening = Some(std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.closing.load(Ordering::SeqCst) {
                    return;
                }
                // A daemon that was killed while it spoke says no more.
                let _ = shared.answer(stream);
            }
        }));
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nobody listens any more.
    pub(super) fn close(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        if let Some(listening) = self.listening.take() {
            // It looks up when somebody comes.
            let _ = TcpStream::connect(self.address);
            listening.join().unwrap();
        }
        self.shared.closing.store(false, Ordering::SeqCst);
    }

    pub(super) fn open_again(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.listen_on(listener);
    }

    /// Answers with 503 from now on, or no longer.
    pub(super) fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }

    pub(super) fn refusals(&self) -> usize {
        self.shared.refusals.load(Ordering::SeqCst)
    }

    /// What was answered with 200, in the order it came.
    pub(super) fn taken(&self) -> Vec<Heard> {
        self.shared.taken.lock().unwrap().clone()
    }

    pub(super) fn took(&self, kind: &str, task: &str) -> bool {
        let is_it = |heard: &Heard| heard.event["event"] == kind && heard.event["name"] == task;
        self.taken().iter().any(is_it)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Reads one request, which is held to what the README of the webhook says, and answers.
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(SOON))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut lines = Vec::new();
        while lines.len() < MOST_LINES {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim_end().is_empty() {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let mut headers = lines.iter().filter_map(|line| line.split_once(": "));
            let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let is_as_told = lines
            .first()
            .is_some_and(|line| line == "POST /hook HTTP/1.1")
            && header("content-type") == "application/json"
            && header("taskwright-signature") == signature(&self.key, &body);
        let status = if !is_as_told {
            "400 Bad Request"
        } else if self.refuses.load(Ordering::SeqCst) {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            "503 Service Unavailable"
        } else {
            let event: Value = serde_json::from_slice(&body)?;
            let sequence = header("taskwright-sequence").parse().unwrap_or(0);
            self.taken.lock().unwrap().push(Heard { sequence, event });
            "200 OK"
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
    }
}

/// HMAC-SHA256 (RFC 2104), apart from the crate that the example takes.
fn signature(key: &[u8], body: &[u8]) -> String {
    let pad = |byte: u8| -> Vec<u8> {
        let filled = key.iter().copied().chain(std::iter::repeat(0));
        filled.take(BLOCK).map(|one| one ^ byte).collect()
    };
    let hash = |begin: Vec<u8>, rest: &[u8]| Sha256::digest([&begin, rest].concat());
    let inner = hash(pad(0x36), body);
    let outer = hash(pad(0x5c), &inner);
    let digits: String = outer.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}
