//! Where the daemon is, and how it is reached: TCP or a Unix socket.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::settings::Config;

/// How long a connection may take to come about.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A daemon's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// `http://HOST:PORT[/BASE]`
    Tcp {
        /// Host and port.
        authority: String,
        /// What stands before every path; without a slash at its end.
        base: String,
    },
    /// `unix:PATH`
    Unix(PathBuf),
}

/// One with its defaults, on this machine.
impl Default for Server {
    fn default() -> Self {
        Self::Tcp {
            authority: format!("127.0.0.1:{DEFAULT_PORT}"),
            base: String::new(),
        }
    }
}

/// The port where none is named.
const DEFAULT_PORT: u16 = 5758;

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err("a path is missing: write unix:/run/taskwright/api.sock".to_owned());
            }
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with("https://") {
            return Err("https is not spoken by this version: write http://HOST:PORT".to_owned());
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority: http::uri::Authority = authority.parse().map_err(|_| {
            format!("{text:?} is not a daemon's address: write http://HOST:PORT or unix:PATH")
        })?;
        let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
        Ok(Self::Tcp {
            authority: format!("{}:{port}", authority.host()),
            base: base.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { authority, base } => write!(f, "http://{authority}{base}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Nobody answers there.
#[derive(Debug, thiserror::Error)]
#[error("connect to the daemon at {server}")]
pub(crate) struct ConnectError {
    server: Server,
    source: std::io::Error,
}

/// A connection of either kind.
pub(crate) enum Connection {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Server {
    /// Where a daemon with this configuration is reached from the same machine, if anywhere.
    pub(crate) fn of_config(config: &Config) -> Option<Self> {
        if let Some(address) = &config.listen_addr {
            let (host, port) = address.rsplit_once(':')?;
            let host = match host {
                "" | "0.0.0.0" | "*" => "127.0.0.1",
                "[::]" => "[::1]",
                host => host,
            };
            return format!("http://{host}:{port}").parse().ok();
        }
        config.unix_socket.clone().map(Self::Unix)
    }

    /// What stands before every path.
    pub(crate) fn base(&self) -> &str {
        match self {
            Self::Tcp { base, .. } => base,
            Self::Unix(_) => "",
        }
    }

    /// What the `Host` header says.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Tcp { authority, .. } => authority,
            Self::Unix(_) => "localhost",
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError`]: nobody answers.
    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        let attempt = async {
            match self {
                Self::Tcp { authority, .. } => {
                    let stream = TcpStream::connect(authority).await?;
                    // Requests are small and wait for their answers.
                    stream.set_nodelay(true)?;
                    Ok(Connection::Tcp(stream))
                }
                Self::Unix(path) => UnixStream::connect(path).await.map(Connection::Unix),
            }
        };
        let timed_out = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(CONNECT_TIME, attempt)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
            .map_err(|source| ConnectError {
                server: self.clone(),
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn check(text: &str, shown: &str) {
        let server: Server = text.parse().unwrap();
        assert_eq!(server.to_string(), shown);
    }

    #[test]
    fn addresses_are_read() {
        check("http://127.0.0.1:5758", "http://127.0.0.1:5758");
        check(
            "http://node-3/opensandbox/",
            "http://node-3:5758/opensandbox",
        );
        check("localhost:80", "http://localhost:80");
        check("http://[::1]:5758", "http://[::1]:5758");
        check("unix:/run/x.sock", "unix:/run/x.sock");
        check("unix:///run/x.sock", "unix:/run/x.sock");
    }

    #[test]
    fn other_addresses_are_refused_in_words() {
        for text in ["https://x", "unix:", "", "http://", "a b"] {
            assert!(text.parse::<Server>().is_err(), "{text:?}");
        }
    }
}
