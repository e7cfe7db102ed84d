//! Commands in running containers: answered whole, or told as they print.

use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::Uri;
use serde::Deserialize;
use taskwright_capability::ContainerError;
use taskwright_capability::container::{ExecEnd, ExecPiece};
use taskwright_model::UnitKey;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};
use tonic::Code;

use crate::fault;
use crate::host::Inner;
use crate::messages::{ExecRequest, ExecSyncRequest};
use crate::rpc::RpcError;

/// What a runtime may take beyond a command's own time until it says so. Not for ever: it waits
/// for everybody who holds the command's output, which may be a process that was left behind.
const BEYOND: Duration = Duration::from_secs(2);
/// Between the order for a stream and its first answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The ways of speaking that we know; both have the channels below.
const PROTOCOLS: HeaderValue = HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io");
/// The first byte of a message says which channel it is on.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const OUTCOME: u8 = 3;

impl Inner {
    /// See `ContainerHost::exec`.
    pub(crate) async fn exec(
        &self,
        key: UnitKey,
        argv: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecEnd, ContainerError> {
        check_command(&argv)?;
        let container = self.running(&key).await?;
        let request = ExecSyncRequest {
            container_id: container.id,
            cmd: argv,
            timeout: whole_seconds(timeout),
        };
        let within = timeout.saturating_add(BEYOND);
        match self.runtime.call_within(request, within).await {
            Ok(answer) => Ok(ExecEnd {
                code: answer.exit_code,
                stdout: answer.stdout,
                stderr: answer.stderr,
            }),
            Err(error) => Err(explain(error, timeout)),
        }
    }

    /// See `ContainerHost::exec_stream`.
    pub(crate) async fn exec_stream(
        &self,
        key: UnitKey,
        argv: Vec<String>,
        timeout: Duration,
    ) -> Result<BoxStream<'static, Result<ExecPiece, ContainerError>>, ContainerError> {
        check_command(&argv)?;
        let container = self.running(&key).await?;
        let request = ExecRequest {
            container_id: container.id,
            cmd: argv,
            stdout: true,
            stderr: true,
        };
        let answer = self.runtime.call(request).await;
        let url = answer.map_err(|error| explain(error, timeout))?.url;
        let connecting = tokio::time::timeout(CONNECT_WITHIN, connect(&url)).await;
        let socket = connecting
            .unwrap_or(Err("it does not answer".to_owned()))
            .map_err(|why| ContainerError::Unavailable {
                detail: format!("the runtime's stream cannot be had: {why}"),
            })?;
        let running = Running {
            socket,
            until: Instant::now() + timeout,
            timeout,
            over: false,
        };
        let pieces = futures::stream::unfold(running, |mut running| async move {
            if running.over {
                return None;
            }
            let piece = running.next().await;
            running.over = !matches!(piece, Ok(ExecPiece::Stdout(_) | ExecPiece::Stderr(_)));
            Some((piece, running))
        });
        Ok(pieces.boxed())
    }
}

fn check_command(argv: &[String]) -> Result<(), ContainerError> {
    if argv.first().is_none_or(String::is_empty) {
        let detail = "the command is empty".to_owned();
        return Err(ContainerError::Refused { detail });
    }
    Ok(())
}

/// The protocol's seconds; 0 would mean no limit at all.
fn whole_seconds(timeout: Duration) -> i64 {
    let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    i64::try_from(seconds.max(1)).unwrap_or(i64::MAX)
}

fn explain(error: RpcError, timeout: Duration) -> ContainerError {
    match error {
        RpcError::Overdue(_) => ContainerError::Overdue(timeout),
        RpcError::Said {
            code: Code::ResourceExhausted | Code::OutOfRange,
            words,
        } => ContainerError::Refused {
            detail: format!(
                "the command printed more than the runtime answers at once: {}",
                fault::brief(&words)
            ),
        },
        RpcError::Said { words, .. } if words.contains("timed out") => {
            ContainerError::Overdue(timeout)
        }
        RpcError::Said { code, words } => failed(code, words),
        other => fault::general(other),
    }
}

fn failed(code: Code, words: String) -> ContainerError {
    match fault::starting(&words) {
        ContainerError::Refused { .. } | ContainerError::SandboxLost { .. } => {
            if code == Code::NotFound || fault::is_not_running(&words) {
                let detail = fault::brief(&words);
                return ContainerError::NotRunning { detail };
            }
            ContainerError::Refused {
                detail: fault::brief(&words),
            }
        }
        other => other,
    }
}

/// A command whose output is being told.
struct Running {
    socket: WebSocketStream<TcpStream>,
    until: Instant,
    timeout: Duration,
    over: bool,
}

impl Running {
    /// The next piece, or why there is none.
    async fn next(&mut self) -> Result<ExecPiece, ContainerError> {
        loop {
            let message = tokio::time::timeout_at(self.until, self.socket.next()).await;
            let message = message.map_err(|_| ContainerError::Overdue(self.timeout))?;
            let broken = |why: String| ContainerError::Unavailable {
                detail: format!("the runtime's stream broke before the command's end: {why}"),
            };
            let bytes = match message {
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Text(text))) => text.into(),
                Some(Ok(Message::Close(_))) | None => return Err(broken("it was closed".into())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => return Err(broken(error.to_string())),
            };
            let Some((channel, rest)) = bytes.split_first() else {
                continue;
            };
            // Every channel is opened by an empty message.
            match *channel {
                _ if rest.is_empty() => {}
                STDOUT => return Ok(ExecPiece::Stdout(rest.to_vec())),
                STDERR => return Ok(ExecPiece::Stderr(rest.to_vec())),
                OUTCOME => return outcome(rest).map(ExecPiece::Ended),
                _ => {}
            }
        }
    }
}

/// What the runtime says of a command that ended.
#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    causes: Option<Vec<Cause>>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

fn outcome(text: &[u8]) -> Result<i32, ContainerError> {
    let Ok(outcome) = serde_json::from_slice::<Outcome>(text) else {
        let detail = format!(
            "the runtime's word on the command's end is not understood: {}",
            String::from_utf8_lossy(text)
        );
        return Err(ContainerError::Unavailable { detail });
    };
    if outcome.status == "Success" {
        return Ok(0);
    }
    let causes = outcome.details.and_then(|details| details.causes);
    let code = causes.unwrap_or_default().into_iter().find_map(|cause| {
        let is_code = cause.reason == "ExitCode";
        is_code.then(|| cause.message.parse().ok()).flatten()
    });
    code.ok_or_else(|| failed(Code::Unknown, outcome.message))
}

/// Opens the runtime's stream, on this machine only: its address comes without proof of whose it
/// is, and anybody who has it may go on.
async fn connect(url: &str) -> Result<WebSocketStream<TcpStream>, String> {
    let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no address"))?;
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = match host {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        host => host
            .parse()
            .map_err(|_| format!("{host:?} is not this machine's loopback address"))?,
    };
    if uri.scheme_str() != Some("http") || !address.is_loopback() {
        return Err(format!("{url:?} is not on this machine's loopback address"));
    }
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((address, port))
        .await
        .map_err(|error| format!("{address}:{port}: {error}"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = format!("ws://{host}:{port}{path}");
    let mut request = request
        .into_client_request()
        .map_err(|error| error.to_string())?;
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", PROTOCOLS);
    let opened = tokio_tungstenite::client_async(request, stream).await;
    opened
        .map(|(socket, _)| socket)
        .map_err(|error: tungstenite::Error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_command_is_understood() {
        assert_eq!(outcome(br#"{"metadata":{},"status":"Success"}"#), Ok(0));
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(outcome(failed), Ok(3));
        let missing = br#"{"status":"Failure","message":"exec: \"x\": executable file not found"}"#;
        assert!(matches!(
            outcome(missing),
            Err(ContainerError::NotFound { .. })
        ));
        assert!(outcome(b"nonsense").is_err());
    }

    #[test]
    fn a_limit_is_never_none() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1500)), 2);
    }

    #[tokio::test]
    async fn only_this_machine_is_connected_to() {
        for url in [
            "http://192.0.2.1:1/x",
            "https://127.0.0.1:1/x",
            "http://example.org/x",
            "nonsense",
        ] {
            let refused = connect(url).await.err().unwrap_or_default();
            assert!(refused.contains("loopback"), "{url}: {refused}");
        }
    }
}
