//! A task's states and lines as messages of a WebSocket.
//!
//! A message is sent before the next is made, so that no more than one waits for its reader.
//! Whoever takes none for too long is told so by the code 1008 and cut: it goes on by `after`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::events::position;
use super::watcher::{News, Next, Watcher};
use crate::aiopslab::read::{self, Words};
use crate::aiopslab::view::{ErrorView, LogView, TaskView};
use crate::native::Shared;
use crate::patience::Reader;
use crate::problem::Problem;
use crate::server::Line;

/// The largest message that is taken; there is nothing to say to us but pongs.
const MOST_HEARD: usize = 4096;
/// How long the connection may take to be ours once it was answered.
const HANDED_OVER: Duration = Duration::from_secs(10);
const TOO_SLOW: &str = "messages are read too slowly; go on by ?after=";
/// How long the other end may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// A message about a task: where it is, or a line of it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueTaskMessage)]
pub(in crate::aiopslab) struct MessageView<'a> {
    /// `task` or `log`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// How far the reader has come: say it as `after` to go on here.
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogView<'a>>,
}

/// Follow a queued task over a WebSocket.
///
/// Messages are JSON texts: `{"type": "task", "id", "task"}` whenever it changed, and
/// `{"type": "log", "id", "log"}` for each of its lines. `after` with the last id goes on behind it.
/// It is closed with 1000 after the state in which the task ended, 1001 when the daemon goes down,
/// 1008 when the reader takes or answers nothing for too long, 1011 when the store does not answer.
#[utoipa::path(
    get, path = "/ws/tasks/{task_id}", tag = "queue",
    params(
        ("task_id" = String, Path, description = "The task's id"),
        ("after" = Option<String>, Query, description = "Go on behind the message with this id, or behind the line with this number"),
    ),
    responses(
        (status = 101, description = "A WebSocket", body = MessageView<'static>),
        (status = 400, description = "Not asked as a WebSocket", body = ErrorView<'static>),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 422, description = "Not an id, or not a position", body = ErrorView<'static>),
        (status = 503, description = "As many live streams as may be are open", body = ErrorView<'static>),
    )
)]
pub(in crate::aiopslab) async fn task_socket(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
    line: Option<Extension<Line>>,
    mut request: Request,
) -> Result<Response, Problem> {
    let task = read::id(&id, "task_id")?;
    if request.method() != Method::GET {
        return Err(not_asked());
    }
    let accept = accept(request.headers())?;
    let after = position(&words)?;
    let upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or_else(not_asked)?;
    let times = Times {
        heartbeat: state.queue_api.live.heartbeat(state.limits.heartbeat),
        patience: state.queue_api.live.patience(),
    };
    let watcher = Watcher::begin(state, task, after).await?;
    // Its reader is told why before it is cut.
    let reader = line.as_ref().map(|Extension(line)| line.reader.clone());
    let reader = reader.unwrap_or_default();
    reader.attend();
    // It ends with the task, its reader or the daemon; the line's place is held that long.
    tokio::spawn(async move {
        let _line = line;
        match timeout(HANDED_OVER, upgrade).await {
            Ok(Ok(connection)) => {
                let socket = Socket::over(connection, times, reader).await;
                socket.talk(watcher).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a WebSocket did not come about"),
            Err(_) => tracing::debug!("a WebSocket did not come about in time"),
        }
    });
    let headers = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// What proves that the request was understood as one for a WebSocket.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let has = |name: &HeaderName, word: &str| {
        let values = headers.get_all(name).iter();
        let mut words = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        words.any(|one| one.trim().eq_ignore_ascii_case(word))
    };
    if !has(&CONNECTION, "upgrade") || !has(&UPGRADE, "websocket") {
        return Err(not_asked());
    }
    if !has(&SEC_WEBSOCKET_VERSION, "13") {
        return Err(Problem::bad_request(
            "WebSockets are spoken in version 13 alone",
        ));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(not_asked)?;
    // Sixteen bytes, that much is checked (RFC 6455, 4.1).
    let bytes = base64::engine::general_purpose::STANDARD.decode(key);
    if bytes.map_or(true, |bytes| bytes.len() != 16) {
        return Err(Problem::bad_request(
            "the Sec-WebSocket-Key must be 16 bytes in base64",
        ));
    }
    let accept = derive_accept_key(key.as_bytes());
    HeaderValue::try_from(accept).map_err(|_| not_asked())
}

fn not_asked() -> Problem {
    Problem::bad_request("this is a WebSocket, and the request does not ask for one")
        .hint("open it as ws://, or read /api/v1/tasks/{task_id}/events")
}

#[derive(Clone, Copy)]
struct Times {
    heartbeat: Duration,
    patience: Duration,
}

/// Why a socket is closed, which the other end is told.
struct Goodbye(CloseCode, &'static str);

struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    times: Times,
    reader: Arc<Reader>,
    /// When anything came.
    heard: Instant,
}

impl Socket {
    async fn over(connection: Upgraded, times: Times, reader: Arc<Reader>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(MOST_HEARD)
            .max_message_size(Some(MOST_HEARD))
            .max_frame_size(Some(MOST_HEARD));
        let connection = TokioIo::new(connection);
        Self {
            stream: WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await,
            times,
            reader,
            heard: Instant::now(),
        }
    }

    async fn talk(mut self, watcher: Watcher) {
        // Without an end that is told: the other one went away.
        let Some(Goodbye(code, reason)) = self.tell(watcher).await else {
            return;
        };
        if code == CloseCode::Policy {
            metrics::counter!("taskwright_http_readers_cut_total").increment(1);
        }
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        // Behind what waits already: a reader that wakes up in time reads why.
        let patience = self.times.patience;
        if let Ok(Ok(())) = timeout(patience, self.stream.close(Some(frame))).await {
            self.hear_out().await;
        }
    }

    /// Until goodbyes of both ends have gone over the line: reading sends what is still to be said.
    async fn hear_out(&mut self) {
        let last = async { while let Some(Ok(_)) = self.stream.next().await {} };
        // Whoever does not finish in time is cut.
        let _ = timeout(GOODBYE, last).await;
    }

    /// Tells news until there are none, or nobody who takes them.
    async fn tell(&mut self, watcher: Watcher) -> Option<Goodbye> {
        let mut news = pin!(watcher.stream());
        let begin = Instant::now() + self.times.heartbeat;
        let mut beat = interval_at(begin, self.times.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                next = news.next() => match next {
                    Some(Next::News(position, news)) => text(position.to_string(), &news),
                    Some(Next::Over) | None => {
                        return Some(Goodbye(CloseCode::Normal, "the task has ended"));
                    }
                    Some(Next::GoingDown) => {
                        return Some(Goodbye(CloseCode::Away, "the daemon goes down"));
                    }
                    Some(Next::Failed(problem)) => {
                        tracing::debug!(message = problem.message, "a live stream broke off");
                        let why = "the task could not be read; go on by ?after=";
                        return Some(Goodbye(CloseCode::Error, why));
                    }
                },
                heard = self.stream.next() => match heard {
                    // Its goodbye is answered before the connection ends (RFC 6455, 5.5.1).
                    Some(Ok(Message::Close(_))) => {
                        self.hear_out().await;
                        return None;
                    }
                    None => return None,
                    Some(Ok(_)) => {
                        self.heard = Instant::now();
                        // The answer to a ping goes out before anything else is heard: whoever
                        // pings and reads nothing must not heap them up here.
                        tokio::select! {
                            flushed = self.stream.flush() => match flushed {
                                Ok(()) => continue,
                                Err(_) => return None,
                            },
                            () = self.reader.stands_still() => {
                                return Some(Goodbye(CloseCode::Policy, TOO_SLOW));
                            }
                        }
                    }
                    Some(Err(tungstenite::Error::Capacity(_))) => {
                        return Some(Goodbye(CloseCode::Size, "nothing is to be said here"));
                    }
                    Some(Err(tungstenite::Error::Protocol(_))) => {
                        return Some(Goodbye(CloseCode::Protocol, "this is no WebSocket's frame"));
                    }
                    Some(Err(tungstenite::Error::Utf8(_))) => {
                        return Some(Goodbye(CloseCode::Invalid, "a text is not UTF-8"));
                    }
                    Some(Err(_)) => return None,
                },
                _ = beat.tick() => {
                    if self.heard.elapsed() > self.times.patience * 2 {
                        let why = "no ping was answered; go on by ?after=";
                        return Some(Goodbye(CloseCode::Policy, why));
                    }
                    Message::Ping(axum::body::Bytes::new())
                }
            };
            tokio::select! {
                sent = self.stream.send(message) => match sent {
                    Ok(()) => {}
                    Err(_) => return None,
                },
                () = self.reader.stands_still() => {
                    return Some(Goodbye(CloseCode::Policy, TOO_SLOW));
                }
            }
        }
    }
}

fn text(id: String, news: &News) -> Message {
    let view = match news {
        News::State(task) => MessageView {
            kind: "task",
            id,
            task: Some(TaskView::of(task)),
            log: None,
        },
        News::Line(line) => MessageView {
            kind: "log",
            id,
            task: None,
            log: Some(LogView::of(line)),
        },
    };
    let text = serde_json::to_string(&view).unwrap_or_else(|error| {
        // A struct of texts and numbers: writing it cannot fail.
        tracing::error!(%error, "a message could not be written as JSON");
        "{}".to_owned()
    });
    Message::text(text)
}

#[cfg(test)]
mod tests {
    //! Who asked for a WebSocket.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_websocket_is_asked_for_by_its_headers() {
        let with = |changed: &str, value: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, usual) in [
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ] {
                let value = if name == changed { value } else { Some(usual) };
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_str(value).unwrap());
                }
            }
            accept(&headers).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(with("", None).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (name, value) in [
            ("connection", Some("close")),
            ("upgrade", Some("h2c")),
            ("sec-websocket-version", Some("8")),
            ("sec-websocket-key", None),
            ("sec-websocket-key", Some("abc")),
            ("sec-websocket-key", Some("c2hvcnQ=")),
        ] {
            assert_eq!(with(name, value).unwrap_err(), 400, "{name}");
        }
    }
}
