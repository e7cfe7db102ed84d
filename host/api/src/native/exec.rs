//! `/tasks/{name}/exec`: a command inside a task that runs, where its runtime can do that.
//!
//! Plain: the answer comes when the command has ended, with what it printed. As events: its
//! output as it is printed, its exit code last.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;
use taskwright_control::port::{ExecError, ExecPiece, ExecRequest, Stream};
use taskwright_model::TaskState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::field::{Object, Path, Problems};
use super::{Shared, key_of};
use crate::body;
use crate::problem::{Problem, ProblemDocument};
use crate::sse;

/// How long a command may take: where nothing is said, and at most.
const DEFAULT_TIME: Duration = Duration::from_secs(60);
const MOST_SECONDS: f64 = 3600.0;
/// Words of a command, and its bytes.
const MOST_WORDS: usize = 1024;
const MOST_BYTES: usize = 128 * 1024;
/// What a plain answer holds of each stream; the rest is counted.
const MOST_PRINTED: usize = 1024 * 1024;
/// Pieces that wait for a client that reads slowly.
const MOST_UNREAD: usize = 16;
/// Commands at once: each is a process that the store knows nothing of.
const MOST_AT_ONCE: usize = 64;

/// Room for commands.
static ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MOST_AT_ONCE)));

/// A command that ended.
#[derive(Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExecResult)]
struct ResultView {
    /// Its exit code; 128 + n when signal n ended it.
    exit_code: i32,
    stdout: PrintedView,
    stderr: PrintedView,
}

/// What a command printed on one stream: 1 MiB at most.
#[derive(Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Printed)]
struct PrintedView {
    /// As text, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// In base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// How many bytes more there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<usize>,
}

/// A piece of what a command prints.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ExecEvent)]
struct PieceView<'a> {
    /// `stdout` or `stderr`.
    stream: &'static str,
    /// The piece, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// The piece in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// The last event: the command has ended.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndView {
    exit_code: i32,
}

/// The last event where there is no end to tell of: `not-found`, `not-executable`, `timeout`,
/// `not-running`, `unsupported`, `refused` or `unavailable`, and a sentence.
#[derive(Serialize)]
struct FailureView {
    cause: &'static str,
    message: String,
}

/// Run a command inside a task that runs.
///
/// In containers; processes have no inside. The command gets no input, and is not part of the
/// task: it does not keep it running, and its output is not the task's.
#[utoipa::path(
    post, path = "/tasks/{name}/exec", tag = "tasks",
    params(("name" = String, Path, description = "The task's name")),
    request_body(content = super::schema::ExecBody),
    responses(
        (status = 200, description = "It ended. As events (`Accept: text/event-stream`): `output` while it prints, `end` with its exit code, or `error` with a `cause` and a `message`",
            content((ResultView = "application/json"), (PieceView<'static> = "text/event-stream"))),
        (status = 400, description = "The body cannot be read, or the program cannot be started (`cause`: `not-found`, `not-executable`)", body = ProblemDocument<'static>),
        (status = 404, description = "No such task", body = ProblemDocument<'static>),
        (status = 409, description = "The task does not run, or its runtime cannot do that", body = ProblemDocument<'static>),
        (status = 429, description = "Too many commands run already", body = ProblemDocument<'static>),
        (status = 504, description = "It took too long (`cause`: `timeout`)", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn exec_in_task(
    State(state): Shared,
    UrlPath(name): UrlPath<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, incoming) = request.into_parts();
    let bytes = body::read(incoming, &head.headers, &state.limits, &state.room).await?;
    let wanted = Wanted::read(&bytes)?;
    let key = key_of(&state, &name)?;
    let task = state.control.get(&key);
    let task = task.ok_or_else(|| Problem::no_such_task(&name))?;
    if !matches!(
        task.state,
        TaskState::Running { .. } | TaskState::Stopping { .. }
    ) {
        let message = format!("task {name} is {} and runs nothing", task.state.as_str());
        return Err(Problem::new(StatusCode::CONFLICT, message));
    }
    let permit = ROOM.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{MOST_AT_ONCE} commands run already");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, message)
    })?;
    let request = ExecRequest {
        task,
        part: wanted.container,
        argv: wanted.command,
        timeout: wanted.timeout,
    };
    let pieces = state.control.execs().exec(request).await;
    let pieces = driven(pieces.map_err(told)?, permit);
    if sse::is_wanted(&head.headers) {
        return Ok(streamed(pieces, state.limits.heartbeat));
    }
    collected(pieces).await
}

/// The word for `error` that programs go by. Part of the API.
fn cause_of(error: &ExecError) -> &'static str {
    match error {
        ExecError::NotRunning(_) => "not-running",
        ExecError::Unsupported(_) => "unsupported",
        ExecError::Refused(_) => "refused",
        ExecError::NotFound(_) => "not-found",
        ExecError::NotExecutable(_) => "not-executable",
        ExecError::Overdue(_) => "timeout",
        ExecError::Unavailable(_) => "unavailable",
    }
}

fn told(error: ExecError) -> Problem {
    let status = match &error {
        ExecError::NotRunning(_) | ExecError::Unsupported(_) => StatusCode::CONFLICT,
        ExecError::Refused(_) | ExecError::NotFound(_) | ExecError::NotExecutable(_) => {
            StatusCode::BAD_REQUEST
        }
        ExecError::Overdue(_) => StatusCode::GATEWAY_TIMEOUT,
        ExecError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem {
        cause: Some(cause_of(&error)),
        ..Problem::new(status, error.to_string())
    }
}

type Pieces = BoxStream<'static, Result<ExecPiece, ExecError>>;

/// The same pieces, from a future that goes on when the client does not: a command holds its place
/// until it has ended, or its time is over.
fn driven(mut pieces: Pieces, permit: OwnedSemaphorePermit) -> Pieces {
    let (send, received) = mpsc::channel(MOST_UNREAD);
    tokio::spawn(async move {
        let _held = permit;
        let mut listens = true;
        while let Some(piece) = pieces.next().await {
            // Read on when nobody listens: a command that cannot print does not end.
            listens = listens && send.send(piece).await.is_ok();
        }
    });
    futures::stream::unfold(received, |mut received| async {
        let piece = received.recv().await?;
        Some((piece, received))
    })
    .boxed()
}

/// Everything it prints, and its end, as one answer.
async fn collected(mut pieces: Pieces) -> Result<Response, Problem> {
    let (mut stdout, mut stderr) = (Printed::default(), Printed::default());
    while let Some(piece) = pieces.next().await {
        match piece.map_err(told)? {
            ExecPiece::Printed(Stream::Stdout, bytes) => stdout.take(&bytes),
            ExecPiece::Printed(Stream::Stderr, bytes) => stderr.take(&bytes),
            ExecPiece::Ended(exit_code) => {
                let view = ResultView {
                    exit_code,
                    stdout: stdout.view(),
                    stderr: stderr.view(),
                };
                return Ok(body::json(StatusCode::OK, &view));
            }
        }
    }
    Err(told(ExecError::Unavailable(
        "the stream ended before the command did".to_owned(),
    )))
}

#[derive(Default)]
struct Printed {
    bytes: Vec<u8>,
    dropped: usize,
}

impl Printed {
    fn take(&mut self, bytes: &[u8]) {
        let room = MOST_PRINTED.saturating_sub(self.bytes.len());
        let (kept, rest) = bytes.split_at(room.min(bytes.len()));
        self.bytes.extend_from_slice(kept);
        self.dropped = self.dropped.saturating_add(rest.len());
    }

    fn view(self) -> PrintedView {
        let dropped = Some(self.dropped).filter(|dropped| *dropped > 0);
        match String::from_utf8(self.bytes) {
            Ok(text) => PrintedView {
                text: Some(text),
                base64: None,
                dropped,
            },
            Err(error) => PrintedView {
                text: None,
                base64: Some(STANDARD.encode(error.as_bytes())),
                dropped,
            },
        }
    }
}

fn streamed(pieces: Pieces, heartbeat: Duration) -> Response {
    let events = pieces.map(|piece| match piece {
        Ok(ExecPiece::Printed(stream, bytes)) => {
            let text = std::str::from_utf8(&bytes).ok();
            let view = PieceView {
                stream: match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                },
                text,
                base64: text.is_none().then(|| STANDARD.encode(&bytes)),
            };
            sse::event("", "output", &view)
        }
        Ok(ExecPiece::Ended(exit_code)) => sse::event("", "end", &EndView { exit_code }),
        Err(error) => {
            let view = FailureView {
                cause: cause_of(&error),
                message: error.to_string(),
            };
            sse::event("", "error", &view)
        }
    });
    let events = futures::stream::iter([sse::hello()]).chain(events);
    sse::response(events, heartbeat)
}

/// What the body asks for.
struct Wanted {
    command: Vec<String>,
    container: Option<String>,
    timeout: Duration,
}

impl Wanted {
    fn read(bytes: &Bytes) -> Result<Self, Problem> {
        let value: Value = body::first_value(bytes)?;
        let mut problems = Problems::default();
        let wanted = Object::of(&value, &Path::ROOT, &mut problems)
            .and_then(|object| Self::of(object, &mut problems));
        match wanted {
            Some(wanted) if problems.is_empty() => Ok(wanted),
            _ => Err(Problem::invalid(problems.into_vec())),
        }
    }

    fn of(object: Object<'_>, problems: &mut Problems) -> Option<Self> {
        let command_path = object.path.key("command");
        let command = object.texts("command", problems);
        let bytes: usize = command.iter().map(String::len).sum();
        if command.first().is_none_or(String::is_empty) {
            problems.add(
                &command_path,
                "must name a program: [\"ls\", \"/\"] for example",
            );
        } else if command.len() > MOST_WORDS || bytes > MOST_BYTES {
            let message = format!("has more than {MOST_WORDS} words or {MOST_BYTES} bytes");
            problems.add(&command_path, message);
        } else if command.iter().any(|word| word.contains('\0')) {
            problems.add(&command_path, "must not hold NUL");
        }
        let seconds = object.number("timeoutSeconds", problems);
        let timeout = match seconds {
            None => DEFAULT_TIME,
            Some(seconds) if seconds > 0.0 && seconds <= MOST_SECONDS => {
                Duration::from_secs_f64(seconds)
            }
            Some(_) => {
                let path = object.path.key("timeoutSeconds");
                problems.add(&path, format!("must be above 0 and at most {MOST_SECONDS}"));
                return None;
            }
        };
        Some(Self {
            command,
            container: object.text("container", problems).map(str::to_owned),
            timeout,
        })
    }
}
