//! Tasks: create, list, get, stop, forget.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path as UrlPath, Query, Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use taskwright_control::request::Selector;
use taskwright_control::{ControlError, Submission, SubmitError, Submitted};
use taskwright_model::{Namespace, Task, TaskKey, TaskName, TaskState, Timestamp};
use tokio::time::Instant;

use super::left::LeftTask;
use super::request::{self, Request};
use super::root::SuccessView;
use super::state::{exit_code, state_of};
use super::{key_of, no_such_task};
use crate::body;
use crate::native::Shared;
use crate::native::dto::OutcomeView;
use crate::native::status::Millis;
use crate::problem::Problem;
use crate::query;
use crate::state::ApiState;

/// How long a stop waits for the end: as long as the original.
const STOP_WAIT: Duration = Duration::from_millis(500);
/// How long a creation waits for policies.
const REVIEW_WAIT: Duration = Duration::from_millis(500);
/// How often another id is tried when one is in use.
const MOST_IDS: usize = 16;

/// A request of the task runner. Read in `request`, which tells every problem.
#[derive(utoipa::ToSchema)]
#[schema(as = TessiaTaskRequest)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(crate) struct TaskRequest {
    /// The machine: a runtime by its name, as `echo`.
    #[schema(example = "echo")]
    machine: String,
    /// What the machine is told, in its own form.
    #[schema(value_type = Object, example = json!(["echo hello", "sleep 0.5", "return 3"]))]
    parameters: (),
}

/// A task, in two words.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TessiaTask)]
pub(crate) struct EntryView<'a> {
    /// 8 hexadecimal digits.
    task_id: &'a str,
    /// `created` (it waits for its turn), `running`, `stopping`, `exited` or `lost`.
    state: &'static str,
}

/// A task, and what we tell beside the contract.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TessiaTaskDetails)]
pub(crate) struct DetailsView<'a> {
    /// 8 hexadecimal digits.
    task_id: &'a str,
    /// `created` (it waits for its turn), `running`, `stopping`, `exited` or `lost`.
    state: &'static str,
    /// The machine's own exit code, or -1 cancelled, -2 timeout, -3 exception, -99 undetermined.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
    /// When it began to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    started_at: Option<Millis>,
    /// When its state changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    updated_at: Option<Millis>,
    /// When it had ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    finished_at: Option<Millis>,
    /// How it ended, in the words of the native dialect.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeView<'a>>,
}

/// An error. Everything there is to say is in one sentence, which may be empty.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = TessiaError)]
pub(crate) struct ErrorView<'a> {
    pub(crate) detail: &'a str,
}

impl<'a> DetailsView<'a> {
    fn of(task: &'a Task) -> Self {
        let first = task.attempts.first();
        let changed = match &task.state {
            TaskState::Pending { .. } => task.submitted_at,
            TaskState::Starting { since }
            | TaskState::Running { since }
            | TaskState::Stopping { since, .. } => *since,
            TaskState::Ended { at, .. } => *at,
        };
        let ended = task.state.is_ended();
        Self {
            task_id: task.key.name.as_str(),
            state: state_of(task),
            exit_code: task.outcome().map(|outcome| exit_code(outcome).into()),
            started_at: first.and_then(|first| first.started_at).map(Millis),
            updated_at: Some(Millis(changed)),
            finished_at: ended.then_some(Millis(changed)),
            outcome: task.outcome().map(OutcomeView::of),
        }
    }

    fn of_left(task: &'a LeftTask) -> Self {
        let told = |at: Option<Timestamp>| at.map(Millis);
        Self {
            task_id: &task.id,
            state: task.state.as_str(),
            exit_code: task.exit_code,
            started_at: told(task.started_at),
            updated_at: told(task.updated_at),
            finished_at: told(task.finished_at),
            outcome: None,
        }
    }
}

/// Create and start a task.
///
/// It is durable when this answers. Bad parameters and unknown machines are refused here.
#[utoipa::path(
    post, path = "/v1/tasks", tag = "tessia", request_body = TaskRequest,
    responses(
        (status = 201, description = "It runs, or waits for its turn", body = EntryView<'static>),
        (status = 400, description = "Not a task for this machine", body = ErrorView<'static>),
        (status = 403, description = "A policy refuses it", body = ErrorView<'static>),
        (status = 413, description = "The body is too large", body = ErrorView<'static>),
        (status = 429, description = "Too many tasks; Retry-After says when", body = ErrorView<'static>),
        (status = 503, description = "The store takes nothing", body = ErrorView<'static>),
    )
)]
pub(crate) async fn create_task(
    State(state): Shared,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let (head, incoming) = request.into_parts();
    let bytes = body::read(incoming, &head.headers, &state.limits, &state.room).await?;
    let request = Request::read(&bytes)?;
    drop(bytes);
    let task = submit(&state, &request).await?.task;
    Ok(entry(StatusCode::CREATED, &*reviewed(&state, task).await))
}

/// The task once policies let it go, which they are asked again before it is launched: clients
/// expect to be told that it runs. It is told as it is where they hold it, or take their time.
async fn reviewed(state: &ApiState, task: Arc<Task>) -> Arc<Task> {
    if task.review.is_none() {
        return task;
    }
    let deadline = Instant::now() + REVIEW_WAIT;
    let mut news = state.control.feed_position();
    loop {
        news.mark_unchanged();
        let now = state.control.get(&task.key);
        let now = now.filter(|now| now.id == task.id);
        let Some(now) = now else {
            return task;
        };
        if state_of(&now) != "created" || now.hold().is_some() {
            return now;
        }
        let heard = tokio::time::timeout_at(deadline, news.changed()).await;
        if !matches!(heard, Ok(Ok(()))) {
            return now;
        }
    }
}

/// Submits under an id that nobody has.
async fn submit(state: &ApiState, request: &Request) -> Result<Submitted, Problem> {
    for _ in 0..MOST_IDS {
        let key = fresh_key()?;
        if state.left.get(key.name.as_str()).is_some() {
            continue;
        }
        let runtimes = state.control.plugins().runtimes();
        let spec = request.spec(&key.name, &runtimes)?;
        let submission = Submission {
            key,
            spec: spec.into(),
            idempotency: None,
        };
        match state.control.submit(submission).await {
            Err(SubmitError::Exists { .. }) => {}
            answer => return answer.map_err(request::refused),
        }
    }
    Err(Problem::unavailable("no id was found that is not in use"))
}

fn fresh_key() -> Result<TaskKey, Problem> {
    // The last bits of such an id are random.
    let bits = uuid::Uuid::now_v7().as_u128() & 0xffff_ffff;
    key_of(&format!("{bits:08x}"))
}

/// List tasks in the order of their creation, those left by the original runner first.
#[utoipa::path(
    get, path = "/v1/tasks", tag = "tessia",
    responses((status = 200, description = "All of them", body = [EntryView<'static>]))
)]
pub(crate) async fn list_tasks(State(state): Shared) -> Response {
    let selector = Selector {
        namespace: Some(Namespace::tessia()),
        ..Selector::default()
    };
    let left = state.left.all();
    let ours = state.control.list(&selector, None, usize::MAX).tasks;
    let left = left.iter().map(|task| EntryView {
        task_id: &task.id,
        state: task.state.as_str(),
    });
    // One that was forgotten is going, and is told of no more.
    let ours = ours.iter().filter(|task| task.deleting_since.is_none());
    let ours = ours.map(|task| EntryView {
        task_id: task.key.name.as_str(),
        state: state_of(task),
    });
    json(&left.chain(ours).collect::<Vec<_>>())
}

/// Get a task.
#[utoipa::path(
    get, path = "/v1/tasks/{task_id}", tag = "tessia",
    params(("task_id" = String, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The task", body = DetailsView<'static>),
        (status = 404, description = "No such task", body = ErrorView<'static>),
    )
)]
pub(crate) async fn get_task(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
) -> Result<Response, Problem> {
    match known(&state, &id)? {
        Known::Ours(task) => Ok(json(&DetailsView::of(&task))),
        Known::Left(task) => Ok(json(&DetailsView::of_left(&task))),
    }
}

#[derive(Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StopQuery {
    /// Time between TERM and KILL, instead of the task's own: `5s`.
    grace: Option<String>,
}

/// Stop a task: TERM to all of its processes, KILL after its grace.
///
/// Answers when it has ended, or after half a second with what it is then.
#[utoipa::path(
    post, path = "/v1/tasks/{task_id}/stop", tag = "tessia",
    params(("task_id" = String, Path, description = "The task's id"), StopQuery),
    responses(
        (status = 200, description = "The task as it is", body = EntryView<'static>),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 409, description = "It is none of ours, but left by the original runner, and runs", body = ErrorView<'static>),
    )
)]
pub(crate) async fn stop_task(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<StopQuery>,
) -> Result<Response, Problem> {
    let grace = query
        .grace
        .map(|text| query::duration("grace", &text))
        .transpose()?;
    let task = match known(&state, &id)? {
        Known::Ours(task) => task,
        Known::Left(task) if task.finished() => return Ok(left_entry(&task)),
        Known::Left(_) => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "this task was started by another runner, which alone can stop it",
            ));
        }
    };
    let key = &task.key;
    let told = state.control.stop(key.clone(), grace).await?;
    let task = told.ok_or_else(no_such_task)?;
    let ended = tokio::select! {
        ended = state.control.wait(key, STOP_WAIT) => ended,
        () = state.shutdown.cancelled() => Ok(None),
    };
    let now = match ended {
        Ok(now) => now,
        // As many wait as may: then it is told as it is.
        Err(ControlError::Busy | ControlError::Closed) => state.control.get(key),
        Err(error) => return Err(error.into()),
    };
    let now = now.filter(|now| now.id == task.id).unwrap_or(task);
    Ok(entry(StatusCode::OK, &now))
}

/// Forget a task.
///
/// Unlike the original, which left it running unwatched, one that runs is stopped; its record,
/// its output and its result file are removed.
#[utoipa::path(
    delete, path = "/v1/tasks/{task_id}", tag = "tessia",
    params(("task_id" = String, Path, description = "The task's id")),
    responses(
        (status = 200, description = "It is told of no more", body = SuccessView),
        (status = 404, description = "No such task", body = ErrorView<'static>),
    )
)]
pub(crate) async fn forget_task(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
) -> Result<Response, Problem> {
    match known(&state, &id)? {
        Known::Ours(task) => {
            let deleted = state.control.delete(task.key.clone()).await?;
            deleted.ok_or_else(no_such_task)?;
        }
        Known::Left(task) if state.left.forget(&task.id) => {}
        Known::Left(_) => return Err(no_such_task()),
    }
    Ok(json(&SuccessView { success: true }))
}

/// A task that is told of.
pub(super) enum Known {
    /// One of ours.
    Ours(Arc<Task>),
    /// One that the original runner left.
    Left(LeftTask),
}

/// The task with this id.
pub(super) fn known(state: &ApiState, id: &str) -> Result<Known, Problem> {
    let key = key_of(id)?;
    let ours = state.control.get(&key);
    if let Some(task) = ours.filter(|task| task.deleting_since.is_none()) {
        return Ok(Known::Ours(task));
    }
    let left = state.left.get(TaskName::as_str(&key.name));
    left.map(Known::Left).ok_or_else(no_such_task)
}

fn entry(status: StatusCode, task: &Task) -> Response {
    let mut response = json(&EntryView {
        task_id: task.key.name.as_str(),
        state: state_of(task),
    });
    *response.status_mut() = status;
    response
}

fn left_entry(task: &LeftTask) -> Response {
    json(&EntryView {
        task_id: &task.id,
        state: task.state.as_str(),
    })
}

/// Compact JSON and nothing behind it, as the original writes it.
pub(super) fn json(value: &impl Serialize) -> Response {
    // Answers are structs of texts and numbers: writing them to memory cannot fail.
    let bytes = serde_json::to_vec(value).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        Vec::new()
    });
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
