//! Workers: register, hear, claim, report.

use std::time::Duration;

use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use taskwright_model::TaskId;
use taskwright_queue::port::{Entry, NewWorker, Report, ReportedEnd, StoreError};
use taskwright_queue::worker::Problems;
use taskwright_queue::{Capabilities, Cause, Json, WorkerStatus};

use super::read::{self, Words};
use super::shape::Base;
use super::tasks::rate;
use super::view::{Beside, ErrorView, TaskView, WorkerView};
use crate::body::json;
use crate::native::Shared;
use crate::problem::{FieldProblem, Problem};
use crate::query;

const LONGEST_BACKEND: usize = 100;
/// Workers of one answer; there are no more names of the documented form.
const MOST_WORKERS: u32 = 10_000;
/// The largest capabilities and metadata, in bytes of their JSON.
const LARGEST_DOCUMENT: usize = 64 * 1024;
/// The longest error, in bytes; what is longer is cut, and says so.
const LONGEST_ERROR: usize = 64 * 1024;

/// A worker that registers.
#[derive(utoipa::ToSchema)]
#[schema(as = QueueWorkerRequest)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(super) struct WorkerRequest {
    /// `worker-NNN-kind`.
    #[schema(example = "worker-002-kind")]
    worker_id: String,
    /// Its kind: tasks that name another are not given to it.
    #[schema(example = "kind")]
    backend_type: String,
    /// `max_parallel_tasks` (1 by default) and `supported_problems`: globs, or texts that occur
    /// in the problem's id; none means every problem.
    #[schema(value_type = Object, example = json!({"max_parallel_tasks": 5, "supported_problems": ["test-*"]}))]
    capabilities: (),
    /// What else is worth knowing of it.
    #[schema(value_type = Object)]
    metadata: (),
    /// Whether it knows of the tasks that it holds, and keeps them; false by default.
    resume: Option<bool>,
}

/// Register a worker, or anew.
///
/// One that is known keeps its counters; tasks that it held are taken from it, because whoever
/// registers does not know of them, unless it says `resume`. With `If-None-Match: *` an id that
/// another worker has is refused.
#[utoipa::path(
    post, path = "/api/v1/workers/register", tag = "workers", request_body = WorkerRequest,
    responses(
        (status = 201, description = "It is on record", body = WorkerView<'static>),
        (status = 412, description = "With `If-None-Match: *`: another worker has the id", body = ErrorView<'static>),
        (status = 422, description = "Not a worker", body = ErrorView<'static>),
    )
)]
pub(super) async fn register(State(state): Shared, request: Request) -> Result<Response, Problem> {
    let fresh = is_fresh(request.headers());
    let body = read::needed_object(&state, request).await?;
    let resumed = match read::field(&body, "resume") {
        None => false,
        Some(Value::Bool(resumed)) => *resumed,
        Some(_) => return Err(read::wrong("/resume", "must be true or false")),
    };
    // The older design calls it `id`.
    let id = read::field(&body, "worker_id").or_else(|| read::field(&body, "id"));
    let id = match id {
        Some(Value::String(text)) => read::worker(&state, text, "/worker_id")?,
        Some(_) => return Err(read::wrong("/worker_id", "must be a text")),
        None => return Err(read::wrong("/worker_id", "is required")),
    };
    let one = |problem| read::unprocessable(vec![problem]);
    let backend_type = read::text(&body, "backend_type", LONGEST_BACKEND).map_err(one)?;
    let backend_type = backend_type.ok_or_else(|| read::wrong("/backend_type", "is required"))?;
    let capabilities = read::inner_object(&body, "capabilities").map_err(one)?;
    let metadata = read::inner_object(&body, "metadata").map_err(one)?;
    let worker = NewWorker {
        id,
        backend_type,
        capabilities: abilities(capabilities).map_err(one)?,
        metadata: document(metadata, "/metadata").map_err(one)?,
        lease: state.queue.config().heartbeat_timeout,
        entry: match (fresh, resumed) {
            (true, _) => Entry::Fresh,
            (false, true) => Entry::Resumed,
            (false, false) => Entry::Anew,
        },
    };
    let registered = state
        .queue
        .register(worker)
        .await
        .map_err(|error| match error {
            // RFC 9110, 13.1.2.
            StoreError::Conflict(message) if fresh => {
                Problem::new(StatusCode::PRECONDITION_FAILED, message)
            }
            other => other.into(),
        })?;
    let view = WorkerView::of(&registered.worker, state.queue.now());
    Ok(json(StatusCode::CREATED, &view))
}

/// `If-None-Match: *`: only if there is none (RFC 9110, 13.1.2).
fn is_fresh(headers: &HeaderMap) -> bool {
    let value = headers.get(header::IF_NONE_MATCH);
    value.is_some_and(|value| value.as_bytes().trim_ascii() == b"*")
}

fn document(object: Map<String, Value>, at: &str) -> Result<Json, FieldProblem> {
    let document = Json::of(&Value::Object(object));
    if document.as_str().len() > LARGEST_DOCUMENT {
        let message = format!("has more than {LARGEST_DOCUMENT} bytes");
        return Err(FieldProblem::new(at, message));
    }
    Ok(document)
}

fn abilities(object: Map<String, Value>) -> Result<Capabilities, FieldProblem> {
    let most = Capabilities::MOST_PARALLEL;
    let max_parallel = match read::field(&object, "max_parallel_tasks") {
        None => 1,
        Some(value) => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (1..=most).contains(number))
            .ok_or_else(|| {
                let message = format!("must be a whole number from 1 to {most}");
                FieldProblem::new("/capabilities/max_parallel_tasks", message)
            })?,
    };
    let at = "/capabilities/supported_problems";
    let problems = match read::field(&object, "supported_problems") {
        None => Vec::new(),
        Some(Value::Array(list)) if list.len() <= Capabilities::MOST_PROBLEMS => list
            .iter()
            .map(|pattern| {
                let text = pattern.as_str().unwrap_or_default();
                let checked = read::check_text(text, Capabilities::LONGEST_PROBLEM);
                checked.map(|()| text.to_owned())
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|message| FieldProblem::new(at, format!("each pattern {message}")))?,
        Some(_) => {
            let message = format!(
                "must be an array of at most {} patterns",
                Capabilities::MOST_PROBLEMS
            );
            return Err(FieldProblem::new(at, message));
        }
    };
    Problems::parse(&problems).map_err(|message| FieldProblem::new(at, message))?;
    Ok(Capabilities {
        max_parallel,
        problems,
        document: document(object, "/capabilities")?,
    })
}

/// The envelope of a list of workers.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueWorkerPage)]
struct PageView<'a> {
    workers: Vec<WorkerView<'a>>,
    total: usize,
}

/// List workers by id.
#[utoipa::path(
    get, path = "/api/v1/workers", tag = "workers",
    params(
        ("status" = Option<String>, Query, description = "`idle`, `busy` or `offline`"),
        ("backend_type" = Option<String>, Query, description = "Of this kind"),
        ("page" = Option<u64>, Query, description = "Any value asks for the envelope"),
    ),
    responses(
        (status = 200, description = "Workers; below `/aiopslab` in an envelope", body = [WorkerView<'static>]),
        (status = 422, description = "Not a query", body = ErrorView<'static>),
    )
)]
pub(super) async fn list_workers(
    State(state): Shared,
    base: Base,
    Query(words): Query<Words>,
) -> Result<Response, Problem> {
    let status = read::word(
        &words,
        "status",
        WorkerStatus::of_word,
        "idle, busy, offline",
    )?;
    let backend = words.get("backend_type");
    let now = state.queue.now();
    let all = state.queue.store().workers(MOST_WORKERS).await?;
    let workers: Vec<WorkerView<'_>> = all
        .iter()
        .filter(|worker| status.is_none_or(|status| worker.status(now) == status))
        .filter(|worker| backend.is_none_or(|backend| worker.backend_type == *backend))
        .map(|worker| WorkerView::of(worker, now))
        .collect();
    let enveloped = base == Base::Prefix || words.contains_key("page");
    Ok(if enveloped {
        let total = workers.len();
        json(StatusCode::OK, &PageView { workers, total })
    } else {
        json(StatusCode::OK, &workers)
    })
}

/// Get a worker.
#[utoipa::path(
    get, path = "/api/v1/workers/{worker_id}", tag = "workers",
    params(("worker_id" = String, Path, description = "The worker's id")),
    responses(
        (status = 200, description = "The worker", body = WorkerView<'static>),
        (status = 404, description = "No such worker", body = ErrorView<'static>),
    )
)]
pub(super) async fn get_worker(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
) -> Result<Response, Problem> {
    let id = known(&state, &id)?;
    let found = state.queue.store().worker(id.clone()).await?;
    let worker = found.ok_or(StoreError::NoSuchWorker(id))?;
    Ok(json(
        StatusCode::OK,
        &WorkerView::of(&worker, state.queue.now()),
    ))
}

/// The id of a worker in a path. What cannot be one names no worker.
fn known(
    state: &crate::state::ApiState,
    text: &str,
) -> Result<taskwright_queue::WorkerId, Problem> {
    read::worker(state, text, "{worker_id}").map_err(|_| {
        let shown: String = text.chars().take(100).collect();
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("there is no worker {shown:?}"),
        )
    })
}

/// Take a worker off the record. Tasks that it held are tried again.
#[utoipa::path(
    delete, path = "/api/v1/workers/{worker_id}", tag = "workers",
    params(("worker_id" = String, Path, description = "The worker's id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "No such worker", body = ErrorView<'static>),
    )
)]
pub(super) async fn deregister(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
) -> Result<Response, Problem> {
    let id = known(&state, &id)?;
    state.queue.store().deregister(id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What a worker says of itself.
#[derive(utoipa::ToSchema)]
#[schema(as = QueueHeartbeat)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(super) struct HeartbeatRequest {
    /// `idle`, `busy` or `offline`. The record of what it holds outweighs it.
    status: String,
    /// The task that it believes it works on.
    current_task_id: Option<String>,
}

/// Hear from a worker: its leases go on.
///
/// `cancelled` in the answer says that the task it works on is not its any more.
#[utoipa::path(
    post, path = "/api/v1/workers/{worker_id}/heartbeat", tag = "workers",
    request_body = HeartbeatRequest,
    params(("worker_id" = String, Path, description = "The worker's id")),
    responses(
        (status = 200, description = "It was heard", body = WorkerView<'static>),
        (status = 404, description = "No such worker: it has to register", body = ErrorView<'static>),
        (status = 422, description = "Not a heartbeat", body = ErrorView<'static>),
    )
)]
pub(super) async fn heartbeat(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = known(&state, &id)?;
    let body = read::needed_object(&state, request).await?;
    let status = match read::field(&body, "status") {
        Some(Value::String(text)) => WorkerStatus::of_word(text),
        _ => None,
    };
    let status =
        status.ok_or_else(|| read::wrong("/status", "must be one of idle, busy, offline"))?;
    let current = read::id_field(&body, "current_task_id")
        .map_err(|problem| read::unprocessable(vec![problem]))?;
    let leaving = status == WorkerStatus::Offline;
    let worker = state.queue.heartbeat(id, leaving).await?;
    let gone = current.map(|task: TaskId| !worker.running.contains(&task));
    Ok(json(
        StatusCode::OK,
        &WorkerView::heard(&worker, state.queue.now(), gone),
    ))
}

/// Claim the next task that a worker may have.
///
/// The one of the highest priority, and of those the oldest. With `wait` the answer comes when
/// there is one, or after that time.
#[utoipa::path(
    post, path = "/api/v1/workers/{worker_id}/claim", tag = "workers",
    params(
        ("worker_id" = String, Path, description = "The worker's id"),
        ("wait" = Option<String>, Query, description = "How long to wait for one: `30s`, at most 5 minutes, and three quarters of the time that a worker may be silent"),
    ),
    responses(
        (status = 200, description = "The task, now running and this worker's", body = TaskView<'static>),
        (status = 204, description = "There is none"),
        (status = 404, description = "No such worker: it has to register", body = ErrorView<'static>),
    )
)]
pub(super) async fn claim(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
) -> Result<Response, Problem> {
    let id = known(&state, &id)?;
    let wait = match words.get("wait") {
        None => Duration::ZERO,
        Some(text) => query::duration("wait", text).map_err(|mut problem| {
            problem.status = StatusCode::UNPROCESSABLE_ENTITY;
            problem
        })?,
    };
    let claimed = tokio::select! {
        claimed = state.queue.claim(&id, wait) => claimed?,
        () = state.shutdown.cancelled() => None,
    };
    let Some(task) = claimed else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let lease = Some(state.queue.config().heartbeat_timeout.as_secs_f64());
    let beside = Beside {
        lease,
        ..Beside::default()
    };
    Ok(json(StatusCode::OK, &TaskView::with(&task, &beside)))
}

/// Report that a task is done. The body, any object, becomes its result, verbatim.
///
/// The same report again is answered alike and changes nothing.
#[utoipa::path(
    post, path = "/api/v1/workers/{worker_id}/tasks/{task_id}/complete", tag = "workers",
    request_body = Object,
    params(
        ("worker_id" = String, Path, description = "The worker's id"),
        ("task_id" = String, Path, description = "The task's id"),
        ("attempt" = Option<u32>, Query, description = "The lease's number, which the claim told"),
    ),
    responses(
        (status = 200, description = "The task, completed", body = TaskView<'static>),
        (status = 404, description = "No such worker or task", body = ErrorView<'static>),
        (status = 409, description = "The worker does not hold it", body = ErrorView<'static>),
        (status = 413, description = "The result is too large", body = ErrorView<'static>),
        (status = 422, description = "Not an object", body = ErrorView<'static>),
    )
)]
pub(super) async fn complete(
    State(state): Shared,
    UrlPath((worker, task)): UrlPath<(String, String)>,
    Query(words): Query<Words>,
    request: Request,
) -> Result<Response, Problem> {
    let worker = known(&state, &worker)?;
    let task = read::id(&task, "task_id")?;
    let attempt = read::number(&words, "attempt", 1, u32::MAX)?;
    let result = read::verbatim(&state, request).await?;
    let end = ReportedEnd::Completed { result };
    let report = Report {
        worker,
        task,
        attempt,
        end,
    };
    let task = state.queue.store().report(report).await?;
    Ok(json(StatusCode::OK, &TaskView::of(&task)))
}

/// Report that a task failed.
///
/// `error` says why; the rest of the body is kept beside it. With `cause` `infrastructure` it was
/// the worker's machine that failed, and the task is tried again.
#[utoipa::path(
    post, path = "/api/v1/workers/{worker_id}/tasks/{task_id}/fail", tag = "workers",
    request_body = Object,
    params(
        ("worker_id" = String, Path, description = "The worker's id"),
        ("task_id" = String, Path, description = "The task's id"),
        ("attempt" = Option<u32>, Query, description = "The lease's number, which the claim told"),
    ),
    responses(
        (status = 200, description = "The task: failed, or waiting for its next attempt", body = TaskView<'static>),
        (status = 404, description = "No such worker or task", body = ErrorView<'static>),
        (status = 409, description = "The worker does not hold it", body = ErrorView<'static>),
        (status = 422, description = "Not an object", body = ErrorView<'static>),
    )
)]
pub(super) async fn fail(
    State(state): Shared,
    UrlPath((worker, task)): UrlPath<(String, String)>,
    Query(words): Query<Words>,
    request: Request,
) -> Result<Response, Problem> {
    let worker = known(&state, &worker)?;
    let task = read::id(&task, "task_id")?;
    let attempt = read::number(&words, "attempt", 1, u32::MAX)?;
    let mut body = read::needed_object(&state, request).await?;
    let error = match body.remove("error") {
        Some(Value::String(text)) => text,
        Some(Value::Null) | None => "the worker told no error".to_owned(),
        Some(other) => other.to_string(),
    };
    let cause = match body.get("cause").and_then(Value::as_str) {
        Some("infrastructure") => Cause::Infrastructure,
        _ => Cause::Reported,
    };
    let document = (!body.is_empty()).then(|| Json::of(&Value::Object(body)));
    let end = ReportedEnd::Failed {
        error: cut(&error),
        document,
        cause,
    };
    let report = Report {
        worker,
        task,
        attempt,
        end,
    };
    let task = state.queue.store().report(report).await?;
    Ok(json(StatusCode::OK, &TaskView::of(&task)))
}

/// A text of bounded length, without what no store can keep.
fn cut(text: &str) -> String {
    let kept = text.replace('\0', "\u{fffd}");
    if kept.len() <= LONGEST_ERROR {
        return kept;
    }
    let end = (0..=LONGEST_ERROR)
        .rev()
        .find(|at| kept.is_char_boundary(*at))
        .unwrap_or(0);
    let (told, rest) = kept.split_at(end);
    format!("{told} [{} bytes more were cut off]", rest.len())
}

/// Sums over a worker's tasks.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueWorkerStats)]
struct StatsView<'a> {
    worker_id: &'a str,
    /// Completed and failed ones.
    total_tasks: u64,
    /// Completed of those; 0 when there are none.
    success_rate: f64,
    /// Seconds from claim to end, over those that brought a result.
    average_task_duration: Option<f64>,
    /// Since it registered first.
    uptime_seconds: f64,
    /// `idle`, `busy` or `offline`.
    current_status: &'static str,
}

/// Sums over a worker's tasks.
#[utoipa::path(
    get, path = "/api/v1/workers/{worker_id}/stats", tag = "workers",
    params(("worker_id" = String, Path, description = "The worker's id")),
    responses(
        (status = 200, description = "Sums", body = StatsView<'static>),
        (status = 404, description = "No such worker", body = ErrorView<'static>),
    )
)]
pub(super) async fn worker_stats(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
) -> Result<Response, Problem> {
    let id = known(&state, &id)?;
    let store = state.queue.store();
    let worker = store.worker(id.clone()).await?;
    let worker = worker.ok_or_else(|| StoreError::NoSuchWorker(id.clone()))?;
    let stats = store.worker_stats(id).await?;
    let now = state.queue.now();
    let total_tasks = worker.completed.saturating_add(worker.failed);
    Ok(json(
        StatusCode::OK,
        &StatsView {
            worker_id: worker.id.as_str(),
            total_tasks,
            success_rate: rate(worker.completed, total_tasks).unwrap_or(0.0),
            average_task_duration: stats.average_execution,
            uptime_seconds: now.since(worker.registered_at).as_secs_f64(),
            current_status: worker.status(now).word(),
        },
    ))
}
