//! The lines of a queued task.

use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use taskwright_queue::log::LogQuery;
use taskwright_queue::{Json, LogLevel, NewLogEntry};

use super::read::{self, Words};
use super::shape::Base;
use super::view::{ErrorView, LogView};
use crate::body::{json, json_within};
use crate::native::Shared;
use crate::problem::{FieldProblem, Problem};
use crate::room::Taken;

const LEVELS: &str = "debug, info, warning, error, critical";
/// Lines of one request.
const MOST_LINES: usize = 10_000;
/// The longest line, in characters.
const LONGEST_LINE: usize = 256 * 1024;
/// The largest context, in bytes of its JSON.
const LARGEST_CONTEXT: usize = 64 * 1024;

/// The envelope of a task's lines.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueLogPage)]
struct PageView<'a> {
    logs: Vec<LogView<'a>>,
    /// How many are told here.
    total: usize,
}

/// Read a task's newest lines, in order.
///
/// With `after`, the lines that follow that number: so a reader goes on where it was.
#[utoipa::path(
    get, path = "/api/v1/tasks/{task_id}/logs", tag = "queue",
    params(
        ("task_id" = String, Path, description = "The task's id"),
        ("level" = Option<String>, Query, description = "Only lines of this level"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, by default 100; fewer where they weigh more than 8 MiB"),
        ("since" = Option<String>, Query, description = "Only lines said then or later"),
        ("after" = Option<u64>, Query, description = "Only lines with larger numbers, the oldest of them"),
        ("page" = Option<u64>, Query, description = "Any value asks for the envelope"),
    ),
    responses(
        (status = 200, description = "Lines; below `/aiopslab` in an envelope", body = [LogView<'static>]),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 422, description = "Not a query", body = ErrorView<'static>),
    )
)]
pub(super) async fn task_logs(
    State(state): Shared,
    base: Base,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
) -> Result<Response, Problem> {
    let task = read::id(&id, "task_id")?;
    let since = match words.get("since") {
        None => None,
        Some(text) => match read::instant(text) {
            Some(at) => Some(at),
            None => return Err(read::wrong("?since", "must be a time in ISO 8601")),
        },
    };
    let query = LogQuery {
        task,
        level: read::word(&words, "level", LogLevel::of_word, LEVELS)?,
        since,
        after: read::number(&words, "after", 0, u64::MAX / 2)?,
        most: read::number(&words, "limit", 1, 1000)?.unwrap_or(100),
    };
    let found = state.queue.store().logs(query).await?;
    let mut room = Taken::default();
    let bytes = found
        .iter()
        .map(|line| line.message.len() + line.context.as_str().len());
    // The answer is made beside them.
    state
        .room
        .take(&mut room, bytes.sum::<usize>().saturating_mul(2))?;
    let logs: Vec<LogView<'_>> = found.iter().map(LogView::of).collect();
    let enveloped = base == Base::Prefix || words.contains_key("page");
    Ok(if enveloped {
        let total = logs.len();
        json_within(room, StatusCode::OK, &PageView { logs, total })
    } else {
        json_within(room, StatusCode::OK, &logs)
    })
}

/// Lines to be kept: one, or several under `logs`.
#[derive(utoipa::ToSchema)]
#[schema(as = QueueLogRequest)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(super) struct LogRequest {
    /// `{timestamp, level, message, context}` each, of which `message` is needed.
    #[schema(value_type = Vec<Object>)]
    logs: (),
    /// Who writes: it has to hold the task.
    worker_id: Option<String>,
    /// Under which attempt.
    attempt: Option<u32>,
}

/// How many lines a task has.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueLogReceipt)]
struct ReceiptView {
    /// How many were kept by this request.
    appended: usize,
    /// The number of the last line.
    last_sequence: u64,
}

/// Keep lines of a task, for workers that run elsewhere.
///
/// All of them are kept, in order and numbered without gaps, or none. A writer that names itself
/// has to hold the task, or to have ended it by its own report.
#[utoipa::path(
    post, path = "/api/v1/tasks/{task_id}/logs", tag = "queue", request_body = LogRequest,
    params(
        ("task_id" = String, Path, description = "The task's id"),
        ("worker_id" = Option<String>, Query, description = "Who writes; also in the body"),
        ("attempt" = Option<u32>, Query, description = "Under which attempt; also in the body"),
    ),
    responses(
        (status = 201, description = "They are kept", body = ReceiptView),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 409, description = "The named writer does not hold the task", body = ErrorView<'static>),
        (status = 413, description = "The body is too large", body = ErrorView<'static>),
        (status = 422, description = "Not lines", body = ErrorView<'static>),
    )
)]
pub(super) async fn append_logs(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
    request: Request,
) -> Result<Response, Problem> {
    let task = read::id(&id, "task_id")?;
    let body = read::needed_object(&state, request).await?;
    let writer = read::writer(&state, &words, &body)?;
    let lines = match body.get("logs") {
        Some(Value::Array(lines)) if lines.len() > MOST_LINES => {
            return Err(read::wrong(
                "/logs",
                format!("holds more than {MOST_LINES} lines"),
            ));
        }
        Some(Value::Array(lines)) => lines
            .iter()
            .enumerate()
            .map(|(place, line)| match line {
                Value::Object(line) => entry(line, &format!("/logs/{place}")),
                _ => Err(FieldProblem::new(
                    format!("/logs/{place}"),
                    "must be an object",
                )),
            })
            .collect::<Result<Vec<_>, _>>(),
        Some(_) => return Err(read::wrong("/logs", "must be an array")),
        None => entry(&body, "").map(|entry| vec![entry]),
    };
    let lines = lines.map_err(|problem| read::unprocessable(vec![problem]))?;
    let appended = lines.len();
    let store = state.queue.store();
    let last_sequence = store.append_logs(task, writer, lines).await?;
    Ok(json(
        StatusCode::CREATED,
        &ReceiptView {
            appended,
            last_sequence,
        },
    ))
}

fn entry(line: &Map<String, Value>, at: &str) -> Result<NewLogEntry, FieldProblem> {
    let below = |problem: FieldProblem| {
        FieldProblem::new(format!("{at}{}", problem.field), problem.message)
    };
    let message = read::text(line, "message", LONGEST_LINE).map_err(below)?;
    let message =
        message.ok_or_else(|| FieldProblem::new(format!("{at}/message"), "is required"))?;
    let level = match read::field(line, "level") {
        None => LogLevel::Info,
        Some(value) => value.as_str().and_then(LogLevel::meant_by).ok_or_else(|| {
            FieldProblem::new(format!("{at}/level"), format!("must be one of {LEVELS}"))
        })?,
    };
    let context = read::inner_object(line, "context").map_err(below)?;
    let context = Json::of(&Value::Object(context));
    if context.as_str().len() > LARGEST_CONTEXT {
        let message = format!("has more than {LARGEST_CONTEXT} bytes");
        return Err(FieldProblem::new(format!("{at}/context"), message));
    }
    Ok(NewLogEntry {
        at: read::time(line, "timestamp").map_err(below)?,
        level,
        message,
        context,
    })
}
