//! A registry for plugins, the program that others run; and servers that only pretend to be one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::free_address;
use crate::reaper::Owned;
use crate::{SOON, eventually, program};

/// Who may use one with a password.
pub const USER: &str = "me";
/// By which password.
pub const PASSWORD: &str = "open sesame";
/// The same as the program keeps it.
const HASHED: &str = "$2b$04$/ezkyyp1Iv0vr1IcMnULcO2RckS90iCOytVW2m..jbMXv4MjFnM1e";

/// A registry on the loopback address, with a folder of its own. Dropped, it is ended.
#[derive(Debug)]
pub struct DockerRegistry {
    process: Owned,
    address: SocketAddr,
    folder: TempDir,
}

impl DockerRegistry {
    /// An empty one that takes everything. Where there is no program, this says that the test is
    /// skipped, and why.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// One that asks for [`USER`] and [`PASSWORD`].
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with_password() -> Option<Self> {
        Self::start_with("auth:\n  htpasswd:\n    realm: test\n    path: FOLDER/htpasswd\n")
    }

    fn start_with(more: &str) -> Option<Self> {
        static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let program = PROGRAM.get_or_init(|| program::find(program::REGISTRY));
        let program = match program {
            Ok(program) => program,
            Err(reason) => {
                crate::skip(reason);
                return None;
            }
        };
        let folder = tempfile::Builder::new().prefix("tw-registry-").tempdir();
        let folder = folder.unwrap_or_else(|error| panic!("make a folder: {error}"));
        let address = free_address();
        let path = folder.path().display();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: \
             {path}\nhttp:\n  addr: {address}\n{}",
            more.replace("FOLDER", &path.to_string())
        );
        let file = folder.path().join("config.yml");
        let written = std::fs::write(&file, config).and_then(|()| {
            std::fs::write(folder.path().join("htpasswd"), format!("{USER}:{HASHED}\n"))
        });
        written.unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg(&file)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Owned::spawn(&mut command);
        let mut registry = Self {
            process: process.unwrap_or_else(|error| panic!("start the registry: {error}")),
            address,
            folder,
        };
        registry.wait_ready();
        Some(registry)
    }

    fn wait_ready(&mut self) {
        let (process, address) = (&mut self.process, self.address);
        eventually(SOON, "the registry listens", || {
            assert_eq!(process.ended(), None, "the registry ended");
            TcpStream::connect(address).is_ok()
        });
    }

    /// A place in it.
    #[must_use]
    pub fn place(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.address)
    }

    /// Its address, as credentials are kept under.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Where it keeps the bytes with this digest, `sha256:HEX`.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let digits = digest.trim_start_matches("sha256:");
        let blobs = self.folder.path().join("docker/registry/v2/blobs/sha256");
        blobs.join(&digits[..2]).join(digits).join("data")
    }

    /// Ends it. Its folder stays.
    pub fn stop(&mut self) {
        let _status = self.process.kill();
    }
}

/// A server that answers every request to a path that ends so with these bytes, headers
/// included, and goes on with more if it is told to. It lives as long as the test program.
#[derive(Debug)]
pub struct Pretender {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Before the end of a path: the answer is for requests that show credentials.
pub const SHOWN: &str = "shown:";

/// What a pretender says after the bytes that it was given.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    /// Nothing: it closes.
    Close,
    /// Nothing: it keeps the connection and is silent.
    Silence,
    /// Zeroes, for ever.
    Zeroes,
}

impl Pretender {
    /// Starts one with an answer to each end of a path. Others are answered 404.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(answers: Vec<(String, Vec<u8>, Then)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.unwrap_or_else(|error| panic!("open a port: {error}"));
        let address = listener.local_addr();
        let address = address.unwrap_or_else(|error| panic!("find the port: {error}"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, asked) = (answers.clone(), Arc::clone(&shared));
                std::thread::spawn(move || answer(stream, &answers, &asked));
            }
        });
        Self { address, asked }
    }

    /// The requests so far, each with its headers.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A place in it.
    #[must_use]
    pub fn place(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.address)
    }
}

fn answer(stream: TcpStream, answers: &[(String, Vec<u8>, Then)], asked: &Mutex<Vec<String>>) {
    let Ok(reading) = stream.try_clone() else {
        return;
    };
    let mut lines = BufReader::new(reading).lines();
    let request = lines.next().and_then(Result::ok).unwrap_or_default();
    let headers = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty());
    let headers: Vec<String> = headers.map(|line| line.to_ascii_lowercase()).collect();
    let shows = headers
        .iter()
        .any(|line| line.starts_with("authorization:"));
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = answers
        .iter()
        .find(|(end, ..)| match end.strip_prefix(SHOWN) {
            Some(end) => shows && path.ends_with(end),
            None => path.ends_with(end),
        });
    let whole = format!("{request}\n{}", headers.join("\n"));
    let mut all = asked.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(whole);
    drop(all);
    let nothing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (bytes, then) = match found {
        Some((_, bytes, then)) => (bytes.as_slice(), *then),
        None => (&nothing[..], Then::Close),
    };
    let mut writing = stream;
    if writing.write_all(bytes).is_err() {
        return;
    }
    match then {
        Then::Close => {}
        Then::Silence => {
            // Until the other side leaves, or the test is long over.
            let _told = writing.set_read_timeout(Some(Duration::from_secs(120)));
            let _left = std::io::copy(&mut writing, &mut std::io::sink());
        }
        Then::Zeroes => {
            let zeroes = vec![0; 64 << 10];
            while writing.write_all(&zeroes).is_ok() {}
        }
    }
}
