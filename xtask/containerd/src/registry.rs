//! An image registry on the loopback address: it serves what it was given and takes nothing.
//!
//! Each one has a port and a name of its own, and containerd is led from the name to the port;
//! so tests that run side by side count their own requests only.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::config;
use crate::image::{self, Unpacked};
use crate::place::Place;

/// Longer than containerd takes between two words.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any request of containerd has.
const LONGEST_HEAD: u64 = 64 * 1024;

/// A registry that answers until it is dropped.
#[derive(Debug)]
pub struct Registry {
    place: Place,
    name: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ends: AtomicBool,
    requests: AtomicU64,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    delay: Duration,
    /// By repository, then by tag.
    manifests: BTreeMap<String, BTreeMap<String, String>>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Registry {
    /// Starts an empty one and leads containerd to it.
    ///
    /// # Errors
    /// When no port is free, or the folder cannot be written.
    pub fn start(place: &Place) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("registry-{}-{count}.test", std::process::id());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a port")?;
        let address = listener.local_addr()?;
        config::lead(place, &name, address.port())?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serve(&listener, &theirs));
        Ok(Self {
            place: place.clone(),
            name,
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Its name, as images of it begin: `registry-1-0.test`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Serves an archive as `path`, `team/app:1`, and answers with the image's whole name.
    ///
    /// # Errors
    /// When the archive is no image.
    pub fn add(&self, path: &str, archive: &[u8]) -> Result<String> {
        let Unpacked { manifest, blobs } = image::unpack(archive)?;
        let (repository, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
        let mut content = self.content();
        content.blobs.extend(blobs);
        let tags = content.manifests.entry(repository.to_owned()).or_default();
        tags.insert(tag.to_owned(), manifest);
        Ok(format!("{}/{repository}:{tag}", self.name))
    }

    /// Waits that long before each answer with a blob, from now on.
    pub fn delay(&self, delay: Duration) {
        self.content().delay = delay;
    }

    /// How many requests came so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        lock(&self.shared)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        let _folder_may_be_gone = std::fs::remove_dir_all(self.place.registries().join(&self.name));
        // Wakes the thread, which then looks at what was said above.
        let woken = TcpStream::connect_timeout(&self.address, PATIENCE);
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            let _ended = thread.join();
        }
    }
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Content> {
    shared
        .content
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ends.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // Few and short: the client is one containerd of this machine, and hangs up.
        std::thread::spawn(move || {
            let _hung_up = talk(&stream, &shared);
        });
    }
}

/// One request and one answer.
fn talk(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.take(LONGEST_HEAD)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let mut words = request.split(' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let answer = if matches!(method, "GET" | "HEAD") {
        answer(path, shared)
    } else {
        Answer::refusal(405, "UNSUPPORTED")
    };
    let mut bytes = answer.head();
    if method != "HEAD" {
        bytes.extend_from_slice(&answer.body);
    }
    let mut stream = stream;
    stream.write_all(&bytes)
}

#[derive(Debug)]
struct Answer {
    status: u16,
    kind: String,
    digest: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn refusal(status: u16, code: &str) -> Self {
        Self {
            status,
            kind: "application/json".to_owned(),
            digest: None,
            body: format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#).into_bytes(),
        }
    }

    fn head(&self) -> Vec<u8> {
        let digest = self.digest.as_deref().map_or_else(String::new, |digest| {
            format!("docker-content-digest: {digest}\r\n")
        });
        format!(
            "HTTP/1.1 {} Answer\r\ncontent-type: {}\r\ncontent-length: {}\r\n{digest}\
             docker-distribution-api-version: registry/2.0\r\nconnection: close\r\n\r\n",
            self.status,
            self.kind,
            self.body.len()
        )
        .into_bytes()
    }
}

fn answer(path: &str, shared: &Shared) -> Answer {
    let path = path.split('?').next().unwrap_or_default();
    if path.trim_end_matches('/') == "/v2" {
        return Answer {
            body: b"{}".to_vec(),
            ..Answer::refusal(200, "")
        };
    }
    // /v2/REPOSITORY/manifests/TAG-OR-DIGEST or /v2/REPOSITORY/blobs/DIGEST
    let mut parts = path.rsplitn(3, '/');
    let reference = parts.next().unwrap_or_default();
    let kind = parts.next().unwrap_or_default();
    let repository = parts
        .next()
        .and_then(|rest| rest.strip_prefix("/v2/"))
        .unwrap_or_default();
    let (found, delay) = {
        let content = lock(shared);
        let tags = content.manifests.get(repository);
        let digest = tags.map(|tags| tags.get(reference).map_or(reference, String::as_str));
        let found = digest.and_then(|digest| {
            let bytes = content.blobs.get(digest)?;
            Some((digest.to_owned(), bytes.clone()))
        });
        (found, content.delay)
    };
    match (kind, found) {
        ("manifests", Some((digest, body))) => Answer {
            status: 200,
            kind: media_type(&body),
            digest: Some(digest),
            body,
        },
        ("blobs", Some((digest, body))) => {
            std::thread::sleep(delay);
            Answer {
                status: 200,
                kind: "application/octet-stream".to_owned(),
                digest: Some(digest),
                body,
            }
        }
        ("blobs", None) => Answer::refusal(404, "BLOB_UNKNOWN"),
        _ => Answer::refusal(404, "MANIFEST_UNKNOWN"),
    }
}

fn media_type(manifest: &[u8]) -> String {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let named = manifest.get("mediaType").and_then(Value::as_str);
    named.unwrap_or(image::MANIFEST).to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::path::PathBuf;

    use super::*;

    fn ask(registry: &Registry, path: &str) -> String {
        let mut stream = TcpStream::connect(registry.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("taskwright-{name}-{}", std::process::id()))
    }

    #[test]
    fn it_serves_what_it_was_given_and_counts() {
        let tree = folder("registry-tree");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join("file"), "content").unwrap();
        let archive = image::pack(&tree, "a:1", &image::Start::default()).unwrap();
        let place = Place::new(folder("registry")).unwrap();
        let registry = Registry::start(&place).unwrap();
        let name = registry.add("team/app:1", &archive).unwrap();
        assert_eq!(name, format!("{}/team/app:1", registry.name()));
        let led = place.registries().join(registry.name());
        assert!(led.join("hosts.toml").is_file());

        let manifest = ask(&registry, "/v2/team/app/manifests/1?ns=x");
        assert!(manifest.starts_with("HTTP/1.1 200 "), "{manifest}");
        let digest = image::unpack(&archive).unwrap().manifest;
        assert!(manifest.contains(&digest), "{manifest}");
        for (path, status) in [
            (format!("/v2/team/app/manifests/{digest}"), 200),
            (format!("/v2/team/app/blobs/{digest}"), 200),
            (format!("/v2/other/blobs/{digest}"), 404),
            ("/v2/team/app/manifests/2".to_owned(), 404),
            ("/v2/".to_owned(), 200),
            ("/".to_owned(), 404),
        ] {
            let answer = ask(&registry, &path);
            let wanted = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&wanted), "{path}: {answer}");
        }
        assert_eq!(registry.requests(), 7);
        drop(registry);
        assert!(!led.exists());
        for path in [tree.as_path(), place.dir()] {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
}
