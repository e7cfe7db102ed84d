//! A registry of one image on the loopback address, slow on demand, which counts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Two blocks of zeros: an archive of nothing.
const EMPTY_ARCHIVE: [u8; 1024] = [0; 1024];

pub(crate) struct Registry {
    port: u16,
    served: Arc<Served>,
}

struct Served {
    name: String,
    manifest: Vec<u8>,
    config: Vec<u8>,
    slow: Duration,
    requests: AtomicU64,
    by_tag: AtomicU64,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Registry {
    /// Serves an image that no registry served before; blobs come after `slow`.
    pub(crate) async fn start(slow: Duration) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let name = format!("made/{:x}", since.unwrap().as_nanos());
        let layer = digest(&EMPTY_ARCHIVE);
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Labels":{{"name":"{name}"}}}},"rootfs":{{"type":"layers","diff_ids":["{layer}"]}}}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{}}}]}}"#,
            digest(config.as_bytes()),
            config.len(),
            EMPTY_ARCHIVE.len(),
        );
        let served = Arc::new(Served {
            name,
            manifest: manifest.into_bytes(),
            config: config.into_bytes(),
            slow,
            requests: AtomicU64::new(0),
            by_tag: AtomicU64::new(0),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = served.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = serving.clone();
                tokio::spawn(async move { served.answer_all(stream).await });
            }
        });
        Self { port, served }
    }

    /// Tells the runtime that every registry is here.
    pub(crate) fn lead_all_here(&self, directory: &Path) {
        let here = format!("http://127.0.0.1:{}", self.port);
        let text = format!(
            "server = \"{here}\"\n[host.\"{here}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("hosts.toml"), text).unwrap();
    }

    pub(crate) fn name(&self) -> &str {
        &self.served.name
    }

    pub(crate) fn requests(&self) -> u64 {
        self.served.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn manifests_by_tag(&self) -> u64 {
        self.served.by_tag.load(Ordering::Relaxed)
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Served {
    async fn answer_all(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut first = String::new();
            if stream.read_line(&mut first).await.unwrap_or(0) == 0 {
                return;
            }
            let mut line = String::new();
            while stream.read_line(&mut line).await.unwrap_or(0) > 2 {
                line.clear();
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            let mut words = first.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let (status, kind, body) = self.answer(path).await;
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
                 Docker-Content-Digest: {}\r\n\r\n",
                body.len(),
                digest(body)
            );
            let body = if method == "HEAD" { &[][..] } else { body };
            let written = stream.write_all(&[head.as_bytes(), body].concat()).await;
            if written.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, path: &str) -> (&str, &str, &[u8]) {
        let path = path.split('?').next().unwrap();
        let Some(rest) = path.strip_prefix(&format!("/v2/{}/", self.name)) else {
            let known = path.trim_end_matches('/') == "/v2";
            return (
                if known { "200 OK" } else { "404 Not Found" },
                "application/json",
                b"{}",
            );
        };
        if rest == "manifests/1" || rest == format!("manifests/{}", digest(&self.manifest)) {
            if rest == "manifests/1" {
                self.by_tag.fetch_add(1, Ordering::Relaxed);
            }
            return ("200 OK", MANIFEST, &self.manifest);
        }
        let blobs = [self.config.as_slice(), &EMPTY_ARCHIVE];
        for blob in blobs {
            if rest == format!("blobs/{}", digest(blob)) {
                tokio::time::sleep(self.slow).await;
                return ("200 OK", "application/octet-stream", blob);
            }
        }
        ("404 Not Found", "application/json", b"{}")
    }
}
