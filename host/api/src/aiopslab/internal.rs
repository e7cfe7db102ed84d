//! The workers inside this daemon: how they are, how many, whether they work.

use std::collections::BTreeMap;

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use taskwright_queue::pool::{MOST_INTERNAL, Member, MemberState, PoolStatus};

use super::read::{self, Words};
use super::shape::Base;
use super::view::ErrorView;
use crate::body::json;
use crate::native::Shared;
use crate::problem::Problem;

/// A worker of this daemon.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueInternalWorker)]
struct MemberView {
    id: String,
    /// `idle`, `busy`, or `draining`: it finishes what it holds, and goes.
    status: &'static str,
    /// The task it holds.
    current_task: Option<String>,
}

/// How it is told below `/aiopslab`.
#[derive(Serialize)]
struct KeyedView {
    status: &'static str,
    has_executor: bool,
}

/// In the documented form, or by name.
#[derive(Serialize)]
#[serde(untagged)]
enum MembersView {
    List(Vec<MemberView>),
    Keyed(BTreeMap<String, KeyedView>),
}

/// How the workers of this daemon are.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueInternalStatus)]
struct StatusView {
    /// Whether they are to work.
    running: bool,
    /// How many there are, those that finish what they hold included.
    num_workers: usize,
    /// How many are wanted while they are to work.
    wanted_workers: usize,
    #[schema(value_type = Vec<MemberView>)]
    workers: MembersView,
    /// Whether a template tells them what to run.
    enabled: bool,
    message: &'static str,
}

fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::Idle => "idle",
        MemberState::Busy => "busy",
        MemberState::Draining => "draining",
    }
}

fn view(member: &Member) -> MemberView {
    MemberView {
        id: member.id.as_str().to_owned(),
        status: word(member.state),
        current_task: member.current.map(|task| task.to_string()),
    }
}

/// The original calls them by other names than those they register under.
fn keyed(member: &Member, enabled: bool) -> (String, KeyedView) {
    let id = member.id.as_str();
    let stem = id.strip_suffix("-kind").unwrap_or(id);
    let status = match member.state {
        MemberState::Idle | MemberState::Busy => "running",
        MemberState::Draining => "stopped",
    };
    let view = KeyedView {
        status,
        has_executor: enabled,
    };
    (format!("{stem}-internal"), view)
}

fn told(status: &PoolStatus) -> &'static str {
    match (status.has_templates, status.running) {
        (false, _) => {
            "no template says what they run, so they take no task: see [[queue.templates]] of the configuration"
        }
        (true, true) => "they take tasks",
        (true, false) => "they are stopped",
    }
}

/// How the workers inside this daemon are.
#[utoipa::path(
    get, path = "/api/v1/workers/internal/status", tag = "workers",
    responses((status = 200, description = "Each of them", body = StatusView)),
)]
pub(super) async fn status(State(state): Shared, base: Base) -> Response {
    let status = state.workers.status();
    let workers = if base == Base::Prefix {
        let all = status.members.iter();
        MembersView::Keyed(all.map(|one| keyed(one, status.has_templates)).collect())
    } else {
        MembersView::List(status.members.iter().map(view).collect())
    };
    let view = StatusView {
        running: status.running,
        num_workers: status.members.len(),
        wanted_workers: status.wanted,
        workers,
        enabled: status.has_templates,
        message: told(&status),
    };
    json(StatusCode::OK, &view)
}

/// How many workers are wanted.
#[derive(utoipa::ToSchema)]
#[schema(as = QueueScaleRequest)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(super) struct ScaleRequest {
    /// 0 to 50.
    #[schema(example = 5)]
    num_workers: u32,
}

/// What became of the number of workers.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueScaleReceipt)]
struct ScaleView {
    message: String,
    previous_count: usize,
    new_count: usize,
    /// The same, as the original answers it.
    previous_workers: usize,
    current_workers: usize,
    /// `scaled`.
    status: &'static str,
}

/// Want so many workers inside this daemon.
///
/// The number is a query parameter or a field of the body. Those that are too many finish what
/// they hold; a daemon that is started anew begins with the number of its configuration.
#[utoipa::path(
    post, path = "/api/v1/workers/internal/scale", tag = "workers",
    request_body(content = Option<ScaleRequest>, description = "Unless the query has it"),
    params(("num_workers" = Option<u32>, Query, description = "0 to 50")),
    responses(
        (status = 200, description = "So many are wanted now", body = ScaleView),
        (status = 422, description = "Not a number from 0 to 50", body = ErrorView<'static>),
    )
)]
pub(super) async fn scale(
    State(state): Shared,
    Query(words): Query<Words>,
    request: Request,
) -> Result<Response, Problem> {
    let most = MOST_INTERNAL as u64;
    let message = format!("must be a whole number from 0 to {most}");
    let count = if let Some(text) = words.get("num_workers") {
        let count = text.parse::<u64>().ok().filter(|count| *count <= most);
        count.ok_or_else(|| read::wrong("?num_workers", message))?
    } else {
        let body = read::needed_object(&state, request).await?;
        let count = read::field(&body, "num_workers").and_then(Value::as_u64);
        let count = count.filter(|count| *count <= most);
        count.ok_or_else(|| read::wrong("/num_workers", message))?
    };
    let count = usize::try_from(count).unwrap_or(MOST_INTERNAL);
    let before = state.workers.scale(count);
    let status = state.workers.status();
    let view = ScaleView {
        message: format!("scaled from {before} to {count} workers; {}", told(&status)),
        previous_count: before,
        new_count: count,
        previous_workers: before,
        current_workers: count,
        status: "scaled",
    };
    Ok(json(StatusCode::OK, &view))
}

/// What became of the workers.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueInternalReceipt)]
struct ReceiptView {
    message: String,
    /// `started` or `stopped`.
    status: &'static str,
    /// After a start: how many work.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_count: Option<usize>,
    /// The same, as the original answers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<usize>,
    /// After a stop: how many finish what they hold, and go.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_count: Option<usize>,
}

/// Let the workers inside this daemon work.
#[utoipa::path(
    post, path = "/api/v1/workers/internal/start", tag = "workers",
    responses((status = 200, description = "They work", body = ReceiptView)),
)]
pub(super) async fn start(State(state): Shared) -> Response {
    state.workers.start();
    let status = state.workers.status();
    let view = ReceiptView {
        message: format!("{} workers started; {}", status.wanted, told(&status)),
        status: "started",
        worker_count: Some(status.wanted),
        workers: Some(status.wanted),
        stopped_count: None,
    };
    json(StatusCode::OK, &view)
}

/// Let the workers inside this daemon go. What they hold is finished.
#[utoipa::path(
    post, path = "/api/v1/workers/internal/stop", tag = "workers",
    responses((status = 200, description = "They take no further task", body = ReceiptView)),
)]
pub(super) async fn stop(State(state): Shared) -> Response {
    let before = state.workers.status();
    state.workers.stop();
    let count = if before.running { before.wanted } else { 0 };
    let view = ReceiptView {
        message: format!("{count} workers stopped; what they hold is finished"),
        status: "stopped",
        worker_count: None,
        workers: None,
        stopped_count: Some(count),
    };
    json(StatusCode::OK, &view)
}
