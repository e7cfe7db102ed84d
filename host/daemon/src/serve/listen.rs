//! Where requests come in: bound early, so that a busy port is told before anything else is
//! done, and clients that come while the daemon starts wait instead of being refused.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use taskwright_api::Listener;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::Instant;

use super::port_holder;
use crate::failure::{Advise as _, advised};

/// What was bound.
pub(crate) struct Bound {
    /// For the API.
    pub(crate) listeners: Vec<Listener>,
    /// Addresses, for people.
    pub(crate) addresses: Vec<String>,
    /// Whether somebody beyond this machine can reach it.
    pub(crate) exposed: bool,
    /// To be removed at the end.
    pub(crate) socket: Option<SocketFile>,
}

/// Binds every address that is asked for.
///
/// # Errors
/// Which could not be bound, and what to do.
pub(crate) async fn bind(tcp: Option<&str>, unix: Option<&Path>) -> anyhow::Result<Bound> {
    let mut bound = Bound {
        listeners: Vec::new(),
        addresses: Vec::new(),
        exposed: false,
        socket: None,
    };
    if let Some(address) = tcp {
        let listener = bind_tcp(address).await?;
        let local = listener.local_addr().context("ask for the address")?;
        bound.exposed = is_exposed(local);
        bound.addresses.push(format!("http://{local}"));
        bound.listeners.push(Listener::Tcp(listener));
    }
    if let Some(path) = unix {
        let (listener, file) = bind_unix(path).await?;
        bound.addresses.push(format!("unix:{}", path.display()));
        bound.listeners.push(Listener::Unix(listener));
        bound.socket = Some(file);
    }
    if bound.listeners.is_empty() {
        return Err(advised(
            anyhow::anyhow!("there is nothing to listen on"),
            "give --listen-addr or --unix-socket",
        ));
    }
    Ok(bound)
}

async fn bind_tcp(address: &str) -> anyhow::Result<TcpListener> {
    bind_patiently(address)
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                let holder = port_holder::describe(address);
                let text = format!("{address} is in use{holder}");
                advised(
                    anyhow::anyhow!(text),
                    "choose another --listen-addr, or stop it",
                )
            }
            ErrorKind::PermissionDenied => advised(
                anyhow::Error::new(error).context(format!("listen on {address}")),
                "ports below 1024 are for root: choose a higher one",
            ),
            _ => advised(
                anyhow::Error::new(error).context(format!("listen on {address}")),
                "write --listen-addr as ADDRESS:PORT, with an address of this machine",
            ),
        })
}

/// A daemon that was killed while it started a supervisor leaves its socket to that child
/// until the child is its own program: the port may be free a moment later.
async fn bind_patiently(address: &str) -> io::Result<TcpListener> {
    const PATIENCE: Duration = Duration::from_millis(500);
    const PAUSE: Duration = Duration::from_millis(10);
    let until = Instant::now() + PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            bound => return bound,
        }
    }
}

fn is_exposed(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback(),
    }
}

/// A socket in the file system, removed when it is dropped.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What is left over is noticed and removed by the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds under another name and gives it its own once only the owner can use it, so that
/// there is no moment in which others could.
async fn bind_unix(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    clear_way(path).await?;
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let bind = || -> io::Result<UnixListener> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&fresh, path)?;
        Ok(listener)
    };
    let listener = bind()
        .with_context(|| format!("listen on the Unix socket {}", path.display()))
        .hint(
            "choose another --unix-socket: a path of at most 90 bytes that this user may write",
        )?;
    Ok((listener, SocketFile(path.to_owned())))
}

/// Removes the socket of a daemon that is gone. Anything else is left alone.
async fn clear_way(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;

    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(advised(
            anyhow::anyhow!("{} is there and is no socket", path.display()),
            "choose another --unix-socket, or move it away",
        ));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(advised(
            anyhow::anyhow!(
                "{} is in use, probably by another taskwright",
                path.display()
            ),
            "choose another --unix-socket, or stop it",
        )),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .with_context(|| format!("remove the stale socket {}", path.display())),
        // Somebody may be there all the same, too busy to answer.
        Err(error) => {
            Err(anyhow::Error::new(error)
                .context(format!("see whether {} is in use", path.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that cannot go on has failed"
    )]

    use super::*;

    #[tokio::test]
    async fn a_busy_port_names_who_has_it() {
        let first = bind(Some("127.0.0.1:0"), None).await.unwrap();
        let address = first.addresses[0].strip_prefix("http://").unwrap();
        let error = bind(Some(address), None).await.err().unwrap().to_string();
        assert!(error.contains("is in use"), "{error}");
        assert!(
            error.contains(&format!("pid {}", std::process::id())),
            "{error}"
        );
        assert!(!first.exposed);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let path =
            std::env::temp_dir().join(format!("taskwright-listen-{}.sock", std::process::id()));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = bind(None, Some(&path)).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(bind(None, Some(&path)).await.is_err());
        drop(bound);
        assert!(!path.exists());
    }
}
