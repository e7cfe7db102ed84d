//! Health, readiness, sums.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use taskwright_queue::stats::{Counts, WorkerCounts};
use taskwright_queue::{StoreError, TaskStatus, WorkerStatus};
use tokio::time::timeout;

use super::tasks::rate;
use crate::body::json;
use crate::native::Shared;
use crate::native::status::Millis;
use crate::problem::Problem;
use crate::state::ApiState;

/// The version of the API that is spoken here, which its programs show.
const API_VERSION: &str = "1.0.0";

/// How long the store may take for whoever asks how it is: probes do not wait for longer.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// What `/` says below the prefix.
#[derive(Serialize)]
struct RootView {
    name: &'static str,
    version: &'static str,
    docs: &'static str,
    health: &'static str,
}

/// What is served here.
pub(super) async fn root() -> Response {
    json(
        StatusCode::OK,
        &RootView {
            name: "AIOpsLab Task Execution API",
            version: API_VERSION,
            docs: "/docs",
            health: "/health",
        },
    )
}

/// How the queue is.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct QueueHealth {
    /// `healthy`, `degraded` without workers, or `unhealthy` without a store.
    status: &'static str,
    #[serde(flatten)]
    pub(crate) blocks: QueueBlocks,
}

/// What is told of the queue beside a status.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct QueueBlocks {
    /// Of the queue's API.
    version: &'static str,
    #[schema(value_type = String, format = "date-time")]
    timestamp: Millis,
    pub(crate) database: DatabaseView,
    workers: WorkersView,
    queue: CountsView,
}

/// Whether the queue's store answers.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueDatabase)]
pub(crate) struct DatabaseView {
    pub(crate) connected: bool,
    /// How long it took, in milliseconds.
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'static str>,
}

/// Workers by what they do.
#[derive(Clone, Copy, Default, Serialize, utoipa::ToSchema)]
#[schema(as = QueueWorkerCounts)]
pub(crate) struct WorkersView {
    total: u64,
    idle: u64,
    busy: u64,
    offline: u64,
}

/// Tasks by status.
#[derive(Clone, Copy, Default, Serialize, utoipa::ToSchema)]
#[schema(as = QueueCounts)]
pub(crate) struct CountsView {
    pending: u64,
    running: u64,
    completed: u64,
    failed: u64,
    timeout: u64,
    cancelled: u64,
}

impl CountsView {
    fn of(counts: &Counts) -> Self {
        Self {
            pending: counts.pending,
            running: counts.running,
            completed: counts.completed,
            failed: counts.failed,
            timeout: counts.timeout,
            cancelled: counts.cancelled,
        }
    }
}

impl WorkersView {
    fn of(counts: &WorkerCounts) -> Self {
        Self {
            total: counts.total(),
            idle: counts.idle,
            busy: counts.busy,
            offline: counts.offline,
        }
    }
}

impl QueueHealth {
    /// Looks at the queue.
    pub(crate) async fn look(state: &ApiState) -> Self {
        let begun = Instant::now();
        let store = state.queue.store();
        let looked = async {
            let counts = store.counts().await?;
            let workers = store.worker_counts().await?;
            Ok::<_, StoreError>((counts, workers))
        };
        let looked = timeout(LOOK_TIME, looked).await;
        let now = state.queue.now();
        let Ok(Ok((counts, workers))) = looked else {
            return Self {
                status: "unhealthy",
                blocks: QueueBlocks {
                    version: API_VERSION,
                    timestamp: Millis(now),
                    database: DatabaseView {
                        connected: false,
                        latency_ms: None,
                        error: Some("the queue's store does not answer; see the daemon's log"),
                    },
                    workers: WorkersView::default(),
                    queue: CountsView::default(),
                },
            };
        };
        let workers = WorkersView::of(&workers);
        Self {
            status: if workers.total == 0 {
                "degraded"
            } else {
                "healthy"
            },
            blocks: QueueBlocks {
                version: API_VERSION,
                timestamp: Millis(now),
                database: DatabaseView {
                    connected: true,
                    latency_ms: Some((begun.elapsed().as_secs_f64() * 1e6).round() / 1e3),
                    error: None,
                },
                workers,
                queue: CountsView::of(&counts),
            },
        }
    }
}

/// How the queue is: 200 whatever it is, as the original's scripts poll it.
pub(super) async fn health(State(state): Shared) -> Response {
    json(StatusCode::OK, &QueueHealth::look(&state).await)
}

/// Whether the queue takes requests.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueReadiness)]
struct ReadyView {
    ready: bool,
    /// Whether its store answers.
    database: bool,
    /// Whether a worker is there to take tasks.
    workers: bool,
}

/// Whether the queue takes requests: its store answers, and the daemon is not going down.
#[utoipa::path(
    get, path = "/ready", tag = "queue", security(),
    responses(
        (status = 200, description = "It does", body = ReadyView),
        (status = 503, description = "It does not", body = ReadyView),
    )
)]
pub(super) async fn ready(State(state): Shared) -> Response {
    let health = QueueHealth::look(&state).await;
    let database = health.blocks.database.connected;
    let ready = database && !state.shutdown.is_cancelled();
    let workers = health.blocks.workers.idle + health.blocks.workers.busy > 0;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(
        status,
        &ReadyView {
            ready,
            database,
            workers,
        },
    )
}

/// Sums over the queue.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueStats)]
struct StatsView {
    #[serde(flatten)]
    counts: CountsView,
    total: u64,
    /// Completed of those that completed or failed; null when there are none.
    success_rate: Option<f64>,
    /// Seconds from submission to claim, over those that run or brought a result.
    average_wait_time: Option<f64>,
    /// Seconds from claim to end, over those that brought a result.
    average_execution_time: Option<f64>,
}

/// Sums over the queue.
///
/// Unlike `/api/v1/tasks/stats`, its success rate does not count tasks that ran out of time.
#[utoipa::path(
    get, path = "/queue/stats", tag = "queue",
    responses((status = 200, description = "Sums", body = StatsView))
)]
pub(super) async fn queue_stats(State(state): Shared) -> Result<Response, Problem> {
    let stats = state.queue.store().task_stats().await?;
    let counts = stats.counts;
    Ok(json(
        StatusCode::OK,
        &StatsView {
            counts: CountsView::of(&counts),
            total: counts.total(),
            success_rate: rate(
                counts.completed,
                counts.completed.saturating_add(counts.failed),
            ),
            average_wait_time: stats.average_wait,
            average_execution_time: stats.average_execution,
        },
    ))
}

/// Sets the two gauges of the queue, every label with a value. A store that does not answer leaves
/// them as they were.
pub(crate) async fn measure(state: &ApiState) {
    let store = state.queue.store();
    let looked = async {
        Some((
            store.counts().await.ok()?,
            store.worker_counts().await.ok()?,
        ))
    };
    let Ok(Some((counts, workers))) = timeout(LOOK_TIME, looked).await else {
        return;
    };
    for status in TaskStatus::ALL {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
        let count = counts.of(status) as f64;
        metrics::gauge!("task_queue_size", "status" => status.word()).set(count);
    }
    for status in WorkerStatus::ALL {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
        let count = workers.of(status) as f64;
        metrics::gauge!("worker_count", "status" => status.word()).set(count);
    }
}
