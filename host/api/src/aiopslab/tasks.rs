//! Queued tasks: create, list, get, cancel.

use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures::stream::{self, Stream, StreamExt as _};
use serde::Serialize;
use taskwright_queue::log::LogQuery;
use taskwright_queue::port::{TaskKeyed, TaskOrder, TaskPage, TaskQuery};
use taskwright_queue::{ProblemId, TaskStatus, WorkerId};

use super::read::{self, Words};
use super::shape::Base;
use super::view::{Beside, ErrorView, TaskView};
use super::{limit, submission};
use crate::body::json;
use crate::native::Shared;
use crate::parts::{self, Part};
use crate::problem::Problem;
use crate::state::ApiState;

const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key, in bytes.
const LONGEST_KEY: usize = 255;
/// The most tasks of one answer.
const MOST_LISTED: u32 = 1000;
/// The furthest that a page may be.
const FURTHEST: u64 = 10_000_000;
/// Lines that are told with a task.
const LINES_WITH_TASK: u32 = 100;

/// A task to be queued. Read in `submission`, which tells every problem.
#[derive(utoipa::ToSchema)]
#[schema(as = QueueTaskRequest)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(super) struct TaskRequest {
    /// What is to be solved: letters, digits, `-` and `_`.
    #[schema(example = "k8s_target_port-misconfig-detection-1")]
    problem_id: String,
    /// Everything else: `max_steps`, `timeout_minutes` (or `timeout` in seconds), `priority`,
    /// `backend_type`, `agent_config`, `max_attempts`, and whatever the worker understands.
    #[schema(value_type = Object, example = json!({"max_steps": 30, "timeout": 1800, "priority": 7}))]
    parameters: (),
    /// Where its end is told by a POST: a host that the operator allows.
    callback_url: Option<String>,
}

/// Queue a task.
///
/// It is durable when this answers. With an `Idempotency-Key` a request made twice makes one task.
#[utoipa::path(
    post, path = "/api/v1/tasks", tag = "queue", request_body = TaskRequest,
    responses(
        (status = 201, description = "It waits for a worker", body = TaskView<'static>),
        (status = 200, description = "The same request had made it before", body = TaskView<'static>),
        (status = 422, description = "Not a task", body = ErrorView<'static>),
        (status = 413, description = "The body is too large", body = ErrorView<'static>),
        (status = 429, description = "As many tasks wait as may, or this client submits too fast", body = ErrorView<'static>),
    )
)]
pub(super) async fn create_task(
    State(state): Shared,
    request: Request,
) -> Result<Response, Problem> {
    let key = match request.headers().get(IDEMPOTENCY_KEY) {
        None => None,
        Some(key) => match key.to_str() {
            Ok(key) if !key.is_empty() && key.len() <= LONGEST_KEY => Some(key.to_owned()),
            _ => {
                return Err(Problem::bad_request(format!(
                    "the Idempotency-Key must have 1 to {LONGEST_KEY} visible characters"
                )));
            }
        },
    };
    limit::admit(&state, request.extensions(), 1)?;
    let body = read::needed_object(&state, request).await?;
    let callbacks = &*state.queue_api.callbacks;
    let task = submission::read(&body, state.queue.config(), callbacks, key.as_deref())?;
    let created = state.queue.store().create(task).await?;
    let status = if created.repeated {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok(json(status, &TaskView::of(&created.task)))
}

/// The envelope of a list of tasks.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueTaskPage)]
struct PageView<'a> {
    tasks: Vec<TaskView<'a>>,
    /// How many match in all.
    total: u64,
    page: u64,
    page_size: u32,
}

/// List queued tasks, the newest first.
///
/// A bare array; with `page`, `page_size` or `sort`, or below `/aiopslab` without `limit` and
/// `offset`, an envelope. `X-Total-Count` says how many match in all. A list of more than 8 MiB is
/// read while it is sent: what changes meanwhile stands in its place as it is then.
#[utoipa::path(
    get, path = "/api/v1/tasks", tag = "queue",
    params(
        ("status" = Option<String>, Query, description = "`pending`, `running`, `completed`, `failed`, `timeout` or `cancelled`"),
        ("problem_id" = Option<String>, Query, description = "Of this problem"),
        ("worker_id" = Option<String>, Query, description = "That this worker holds or held last"),
        ("limit" = Option<u32>, Query, description = "Of an array: 1 to 1000, by default 100"),
        ("offset" = Option<u64>, Query, description = "Of an array: so many are left out first"),
        ("page" = Option<u64>, Query, description = "Of an envelope: from 1"),
        ("page_size" = Option<u32>, Query, description = "Of an envelope: 1 to 100, by default 20"),
        ("sort" = Option<String>, Query, description = "`created_at`, `updated_at`, `started_at`, `completed_at` or `priority`, with `-` the largest first"),
    ),
    responses(
        (status = 200, description = "Tasks", body = [TaskView<'static>]),
        (status = 422, description = "Not a query", body = ErrorView<'static>),
    )
)]
pub(super) async fn list_tasks(
    State(state): Shared,
    base: Base,
    Query(words): Query<Words>,
) -> Result<Response, Problem> {
    let all_words = "pending, running, completed, failed, timeout, cancelled";
    let status = read::word(&words, "status", TaskStatus::of_word, all_words)?;
    // A text that is no id matches nothing, as any other that is not there.
    let problem = words.get("problem_id").map(|text| ProblemId::parse(text));
    let worker = words
        .get("worker_id")
        .map(|text| WorkerId::parse_free(text));
    let nobody = matches!(problem, Some(Err(_))) || matches!(worker, Some(Err(_)));
    let order = order(&words)?;
    let page = read::number(&words, "page", 1, FURTHEST)?;
    let page_size = read::number(&words, "page_size", 1, 100)?;
    let limit = read::number(&words, "limit", 1, MOST_LISTED)?;
    let offset = read::number(&words, "offset", 0, FURTHEST)?;
    let paged = page.is_some() || page_size.is_some() || words.contains_key("sort");
    let enveloped = paged || (base == Base::Prefix && limit.is_none() && offset.is_none());
    let (page, page_size) = (page.unwrap_or(1), page_size.unwrap_or(20));
    let (most, offset) = if enveloped {
        (page_size, (page - 1).saturating_mul(page_size.into()))
    } else {
        (limit.unwrap_or(100), offset.unwrap_or(0))
    };
    let found = if nobody {
        TaskPage {
            total: Some(0),
            ..TaskPage::default()
        }
    } else {
        let query = TaskQuery {
            status,
            problem: problem.and_then(Result::ok),
            worker: worker.and_then(Result::ok),
            order,
            offset,
            most,
            count: true,
        };
        state.queue.store().tasks(query).await?
    };
    let total = found.total.unwrap_or(0);
    let mut response = if found.rest.is_empty() {
        let tasks: Vec<TaskView<'_>> = found.tasks.iter().map(TaskView::of).collect();
        if enveloped {
            json(
                StatusCode::OK,
                &PageView {
                    tasks,
                    total,
                    page,
                    page_size,
                },
            )
        } else {
            json(StatusCode::OK, &tasks)
        }
    } else {
        let (head, tail) = if enveloped {
            let paging = format!("\"total\":{total},\"page\":{page},\"page_size\":{page_size}");
            ("{\"tasks\":[", format!("],{paging}}}\n"))
        } else {
            ("[", "]\n".to_owned())
        };
        let heavy = heavy(state.clone(), found);
        parts::answer(&state.room, head.to_owned(), heavy, |_| tail)?
    };
    response
        .headers_mut()
        .insert(TOTAL_COUNT, HeaderValue::from(total));
    Ok(response)
}

/// Tasks that weigh too much to be in memory together.
fn heavy(state: Arc<ApiState>, page: TaskPage) -> impl Stream<Item = Result<Part, Problem>> + Send {
    let TaskPage { tasks, rest, .. } = page;
    let first = stream::once(async move { Ok(Part::of(tasks.iter().map(TaskView::of))) });
    let rest = stream::iter(rest).then(move |id| {
        let state = state.clone();
        async move {
            let task = state.queue.store().task(id).await?;
            Ok(Part::of(task.iter().map(TaskView::of)))
        }
    });
    first.chain(rest)
}

fn order(words: &Words) -> Result<TaskOrder, Problem> {
    let Some(sort) = words.get("sort") else {
        return Ok(TaskOrder {
            by: TaskKeyed::CreatedAt,
            descending: true,
        });
    };
    let (descending, name) = match sort.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, sort.as_str()),
    };
    let by = match name {
        "created_at" => TaskKeyed::CreatedAt,
        "updated_at" => TaskKeyed::UpdatedAt,
        "started_at" => TaskKeyed::StartedAt,
        "completed_at" => TaskKeyed::CompletedAt,
        "priority" => TaskKeyed::Priority,
        _ => {
            return Err(read::wrong(
                "?sort",
                "must be created_at, updated_at, started_at, completed_at or priority, with - \
                 before it for the largest first",
            ));
        }
    };
    Ok(TaskOrder { by, descending })
}

/// Sums over all queued tasks.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueTaskStats)]
struct StatsView {
    total_tasks: u64,
    pending_tasks: u64,
    running_tasks: u64,
    completed_tasks: u64,
    failed_tasks: u64,
    timeout_tasks: u64,
    cancelled_tasks: u64,
    /// Seconds from claim to end, over those that brought a result.
    avg_execution_time: Option<f64>,
    /// Completed of those that completed, failed or ran out of time; 0 when there are none.
    success_rate: f64,
    #[schema(value_type = Object)]
    tasks_by_problem: Counted,
    #[schema(value_type = Object)]
    tasks_by_worker: Counted,
}

/// Pairs of a name and a number, as an object.
pub(super) struct Counted(pub(super) Vec<(String, u64)>);

impl Serialize for Counted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, count)| (name, count)))
    }
}

/// `part` of `whole`; `none` when there is none.
#[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
pub(super) fn rate(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Sums over all queued tasks.
///
/// Unlike `/queue/stats`, its success rate counts tasks that ran out of time.
#[utoipa::path(
    get, path = "/api/v1/tasks/stats", tag = "queue",
    responses((status = 200, description = "Sums", body = StatsView))
)]
pub(super) async fn task_stats(State(state): Shared) -> Result<Response, Problem> {
    let stats = state.queue.store().task_stats().await?;
    let counts = stats.counts;
    let decided = counts
        .completed
        .saturating_add(counts.failed)
        .saturating_add(counts.timeout);
    Ok(json(
        StatusCode::OK,
        &StatsView {
            total_tasks: counts.total(),
            pending_tasks: counts.pending,
            running_tasks: counts.running,
            completed_tasks: counts.completed,
            failed_tasks: counts.failed,
            timeout_tasks: counts.timeout,
            cancelled_tasks: counts.cancelled,
            avg_execution_time: stats.average_execution,
            success_rate: rate(counts.completed, decided).unwrap_or(0.0),
            tasks_by_problem: Counted(stats.by_problem),
            tasks_by_worker: Counted(stats.by_worker),
        },
    ))
}

/// Get a queued task, with the attempts at it that are over.
#[utoipa::path(
    get, path = "/api/v1/tasks/{task_id}", tag = "queue",
    params(
        ("task_id" = String, Path, description = "The task's id"),
        ("include_logs" = Option<bool>, Query, description = "Whether its newest 100 lines are told with it"),
    ),
    responses(
        (status = 200, description = "The task", body = TaskView<'static>),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 422, description = "Not an id", body = ErrorView<'static>),
    )
)]
pub(super) async fn get_task(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
) -> Result<Response, Problem> {
    let id = read::id(&id, "task_id")?;
    let with_logs = read::word(&words, "include_logs", switch, "true, false")?;
    let store = state.queue.store();
    let attempts = store.attempts(id).await?;
    let logs = if with_logs == Some(true) {
        let query = LogQuery {
            task: id,
            level: None,
            since: None,
            after: None,
            most: LINES_WITH_TASK,
        };
        Some(store.logs(query).await?)
    } else {
        None
    };
    // Last: it may weigh much, and must not be held while others are waited for.
    let task = store.task(id).await?;
    let task = task.ok_or(taskwright_queue::StoreError::NoSuchTask(id))?;
    let beside = Beside {
        attempts: Some(&attempts),
        logs: logs.as_deref(),
        ..Beside::default()
    };
    Ok(json(StatusCode::OK, &TaskView::with(&task, &beside)))
}

/// A switch in a query, as the original's framework reads it.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Call a queued task off.
///
/// A worker that holds it learns of it by its next heartbeat; what it reports then is refused.
#[utoipa::path(
    post, path = "/api/v1/tasks/{task_id}/cancel", tag = "queue",
    params(("task_id" = String, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The task, cancelled", body = TaskView<'static>),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 409, description = "It has ended already", body = ErrorView<'static>),
        (status = 422, description = "Not an id", body = ErrorView<'static>),
    )
)]
pub(super) async fn cancel_task(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
) -> Result<Response, Problem> {
    let id = read::id(&id, "task_id")?;
    let task = state.queue.store().cancel(id).await?;
    let beside = Beside {
        cancelled: true,
        ..Beside::default()
    };
    Ok(json(StatusCode::OK, &TaskView::with(&task, &beside)))
}

/// Call a queued task off: the same as `cancel`. Its record is kept.
#[utoipa::path(
    delete, path = "/api/v1/tasks/{task_id}", tag = "queue",
    params(("task_id" = String, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The task, cancelled", body = TaskView<'static>),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 409, description = "It has ended already", body = ErrorView<'static>),
    )
)]
pub(super) async fn delete_task(state: Shared, id: UrlPath<String>) -> Result<Response, Problem> {
    cancel_task(state, id).await
}
