//! One task: create, get, delete, wait, stop.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use taskwright_control::{ControlError, IdempotencyKey, Submission};
use taskwright_model::{Task, TaskKey};

use super::dto::{self, EnvValues, TaskView};
use super::field::{Object, Path, Problems};
use super::places::Places;
use super::schema::{StopRequest, TaskRequest};
use super::{Shared, key_of, parse};
use crate::auth::Caller;
use crate::body;
use crate::problem::{ContractError, FieldProblem, Problem, ProblemDocument};
use crate::query;
use crate::state::ApiState;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest idempotency key, in bytes.
const MOST_KEY_BYTES: usize = 255;
/// How long `/wait` waits where nothing is said.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CreateQuery {
    /// Answer when the task has ended, at most this long after: `30s`.
    wait: Option<String>,
}

/// Create a task.
///
/// It is durable when this answers. With `wait` the answer is the ended task, or the task as it
/// is after that time.
#[utoipa::path(
    post, path = "/tasks", tag = "tasks",
    params(
        CreateQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key and body answers with the first task"),
    ),
    request_body = TaskRequest,
    responses(
        (status = 201, description = "The task", body = TaskView<'static>),
        (status = 400, description = "Not a task; every problem is told", body = ContractError<'static>),
        (status = 403, description = "A policy refuses it", body = ContractError<'static>),
        (status = 409, description = "The name is in use", body = ContractError<'static>),
        (status = 413, description = "The body is too large", body = ContractError<'static>),
        (status = 422, description = "The idempotency key was used with another body", body = ContractError<'static>),
        (status = 429, description = "Too many tasks or requests; Retry-After says when", body = ContractError<'static>),
        (status = 503, description = "The store takes nothing, or the daemon is going down", body = ContractError<'static>),
        (status = 507, description = "The disk is full", body = ContractError<'static>),
    )
)]
pub(crate) async fn create_task(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Query(query): Query<CreateQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let wait = query
        .wait
        .map(|text| query::duration("wait", &text))
        .transpose()?;
    let (head, incoming) = request.into_parts();
    let bytes = body::read(incoming, &head.headers, &state.limits, &state.room).await?;
    let idempotency = idempotency(&head.headers, &bytes)?;
    let value: Value = body::first_value(&bytes)?;
    let wanted = parse::task(&value, &Path::ROOT)
        .map_err(|unreadable| Problem::invalid(unreadable.problems))?;
    let places = Places::of(&value, &Path::ROOT);
    drop(value);
    let refused = |error| Problem::refused(error, &places);
    let key = state.key(wanted.name);
    let submission = Submission {
        key,
        spec: wanted.spec.into(),
        idempotency,
    };
    let (submitted, task) = match wait {
        None => {
            let submitted = state.control.submit(submission).await;
            let submitted = submitted.map_err(refused)?;
            let task = submitted.task.clone();
            (submitted, task)
        }
        Some(at_most) => {
            let followed = state.control.submit_and_follow(submission).await;
            let (submitted, ending) = followed.map_err(refused)?;
            // The task is accepted, whatever becomes of the waiting.
            let ended = tokio::select! {
                ended = ending.within(at_most) => ended,
                () = state.shutdown.cancelled() => None,
            };
            let present = || state.control.get(&submitted.task.key);
            let same = |task: &Arc<Task>| task.id == submitted.task.id;
            let task = ended.or_else(present).filter(same);
            let task = task.unwrap_or_else(|| submitted.task.clone());
            (submitted, task)
        }
    };
    let mut response = answer(StatusCode::CREATED, &task, &caller);
    if submitted.replayed {
        let yes = HeaderValue::from_static("true");
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, yes);
    }
    Ok(response)
}

/// A client's word for its request. Only a digest of the body is kept: bodies hold secrets.
fn idempotency(headers: &HeaderMap, body: &Bytes) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=MOST_KEY_BYTES).contains(&key.len()));
    let Some(key) = key else {
        return Err(Problem::bad_request(format!(
            "an Idempotency-Key has 1 to {MOST_KEY_BYTES} visible ASCII characters"
        )));
    };
    Ok(Some(IdempotencyKey {
        key: key.to_owned(),
        fingerprint: Sha256::digest(body).into(),
    }))
}

/// Get a task.
#[utoipa::path(
    get, path = "/tasks/{name}", tag = "tasks",
    params(("name" = String, Path, description = "The task's name")),
    responses(
        (status = 200, description = "The task", body = TaskView<'static>),
        (status = 404, description = "No such task", body = ContractError<'static>),
    )
)]
pub(crate) async fn get_task(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    UrlPath(name): UrlPath<String>,
) -> Result<Response, Problem> {
    let key = key_of(&state, &name)?;
    let task = state.control.get(&key);
    let task = task.ok_or_else(|| Problem::no_such_task(&name))?;
    Ok(answer(StatusCode::OK, &task, &caller))
}

/// Delete a task.
///
/// Answers once the wish is durable; the task is stopped if need be, and then removed with its
/// output. An unknown name is answered the same.
#[utoipa::path(
    delete, path = "/tasks/{name}", tag = "tasks",
    params(("name" = String, Path, description = "The task's name")),
    responses(
        (status = 204, description = "It is going, or was never there"),
        (status = 503, description = "The store takes nothing", body = ContractError<'static>),
    )
)]
pub(crate) async fn delete_task(
    State(state): Shared,
    UrlPath(name): UrlPath<String>,
) -> Result<StatusCode, Problem> {
    // A text that cannot be a name names nothing, and nothing is gone already.
    if let Ok(key) = key_of(&state, &name) {
        state.control.delete(key).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// How long to wait at most: `30s` where nothing is said, never more than an hour.
    timeout: Option<String>,
}

/// Wait for a task's end.
#[utoipa::path(
    get, path = "/tasks/{name}/wait", tag = "tasks",
    params(("name" = String, Path, description = "The task's name"), WaitQuery),
    responses(
        (status = 200, description = "The task, ended", body = TaskView<'static>),
        (status = 202, description = "The task, still going", body = TaskView<'static>),
        (status = 404, description = "No such task", body = ProblemDocument<'static>),
        (status = 429, description = "Too many wait already", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn wait_task(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Response, Problem> {
    let at_most = query
        .timeout
        .map_or(Ok(DEFAULT_WAIT), |text| query::duration("timeout", &text))?;
    let key = key_of(&state, &name)?;
    let task = wait_for(&state, &key, at_most).await?;
    let task = task.ok_or_else(|| Problem::no_such_task(&name))?;
    let status = if task.state.is_ended() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok(answer(status, &task, &caller))
}

/// The task once it has ended, after `at_most`, or when the daemon goes down.
async fn wait_for(
    state: &ApiState,
    key: &TaskKey,
    at_most: Duration,
) -> Result<Option<Arc<Task>>, ControlError> {
    tokio::select! {
        found = state.control.wait(key, at_most) => found,
        () = state.shutdown.cancelled() => Ok(state.control.get(key)),
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StopQuery {
    /// Time between TERM and KILL, instead of the task's own: `5s`.
    grace: Option<String>,
}

/// Stop a task, and keep its record and its output.
///
/// TERM to all of its processes, KILL after the grace. Answers once the wish is durable.
#[utoipa::path(
    post, path = "/tasks/{name}/stop", tag = "tasks",
    params(("name" = String, Path, description = "The task's name"), StopQuery),
    request_body(content = Option<StopRequest>, description = "May be left out"),
    responses(
        (status = 200, description = "The task; one that has ended is answered as it is", body = TaskView<'static>),
        (status = 404, description = "No such task", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn stop_task(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<StopQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, incoming) = request.into_parts();
    let bytes = body::read(incoming, &head.headers, &state.limits, &state.room).await?;
    let asked = query
        .grace
        .map(|text| query::duration("grace", &text))
        .transpose()?;
    let grace = match asked {
        Some(grace) => Some(grace),
        None => grace_in(&bytes)?,
    };
    let key = key_of(&state, &name)?;
    let task = state.control.stop(key, grace).await?;
    let task = task.ok_or_else(|| Problem::no_such_task(&name))?;
    Ok(answer(StatusCode::OK, &task, &caller))
}

fn grace_in(bytes: &Bytes) -> Result<Option<Duration>, Problem> {
    const KEY: &str = "graceSeconds";
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let value: Value = body::first_value(bytes)?;
    let mut problems = Problems::default();
    let object = Object::of(&value, &Path::ROOT, &mut problems);
    let number = object.and_then(|object| object.number(KEY, &mut problems));
    if !problems.is_empty() {
        return Err(Problem::invalid(problems.into_vec()));
    }
    let Some(seconds) = number else {
        return Ok(None);
    };
    let grace = Duration::try_from_secs_f64(seconds).map_err(|_| {
        let wrong = FieldProblem::new(format!("/{KEY}"), "must be a number of seconds from 0 on");
        Problem::invalid(vec![wrong])
    })?;
    Ok(Some(grace))
}

/// One task as an answer. The hottest path there is: model to bytes, nothing between.
pub(super) fn answer(status: StatusCode, task: &Task, caller: &Caller) -> Response {
    let mut bytes = Vec::with_capacity(1536);
    dto::write_task(&mut bytes, task, EnvValues::for_caller(caller), None);
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
