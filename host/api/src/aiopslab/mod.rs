//! The dialect of AIOpsLab's task executor: a queue, workers, logs, conversations.
//!
//! Its two documents and its programs disagree on the shape of lists
//! (contracts/aiopslab.md, 1.0). Served at the root, lists are bare arrays unless
//! paging parameters are given; under [`PREFIX`] the whole dialect is served again,
//! with lists in envelopes, as the shipped programs read them. Objects carry the
//! fields of both.
//!
//! | module | about |
//! |---|---|
//! | `shape` | arrays or envelopes |
//! | `read` | bodies, queries and ids, checked |
//! | `submission` | from a body to a queued task |
//! | `view` | what is answered |
//! | `tasks` | create, list, get, cancel |
//! | `logs` | the lines of a task |
//! | `live` | states and lines as they come: server-sent events, WebSocket |
//! | `callback` | what a `callback_url` is told |
//! | `limit` | how fast one client may submit |
//! | `cors` | which web pages of other origins may use it |
//! | `steps` | what a worker saw, did and got for it |
//! | `workers` | register, hear, claim, report |
//! | `internal` | the workers inside this daemon |
//! | `conversations` | what was said between a model and the world |
//! | `export` | all of it, streamed |
//! | `health` | health, readiness, sums |

mod callback;
mod conversations;
pub(crate) mod cors;
pub(crate) mod export;
mod health;
mod internal;
mod limit;
mod live;
#[cfg(test)]
mod live_tests;
mod logs;
mod read;
mod shape;
mod steps;
mod submission;
mod tasks;
#[cfg(test)]
mod tests;
mod view;
mod workers;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Router};
use taskwright_queue::StoreError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::native::operator;
use crate::openapi;
use crate::problem::Problem;
use crate::state::ApiState;

pub use callback::{CallbackCheck, CallbackDocument, callback_document};
pub use cors::Cors;
pub(crate) use health::{QueueBlocks, QueueHealth, measure};
pub use limit::SubmissionLimit;
pub use live::Live;
pub(crate) use view::ErrorView;

/// Where the whole dialect is served a second time.
pub const PREFIX: &str = "/aiopslab";

/// What the operator set for this dialect, beside what the queue itself does.
pub struct QueueApi {
    /// Live streams.
    pub live: Live,
    /// How fast one client may submit.
    pub submissions: SubmissionLimit,
    /// Whether a `callback_url` may be told.
    pub callbacks: Box<CallbackCheck>,
    /// Which web pages may use it.
    pub cors: Cors,
    /// Whether `/docs` and `/redoc` are served.
    pub docs: bool,
    /// Whether `/metrics` is served.
    pub metrics: bool,
}

/// Every route that is this dialect's alone, each with its description.
pub(crate) fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::new()
        .routes(routes!(tasks::create_task, tasks::list_tasks))
        .routes(routes!(tasks::task_stats))
        .routes(routes!(tasks::get_task, tasks::delete_task))
        .routes(routes!(tasks::cancel_task))
        .routes(routes!(logs::task_logs, logs::append_logs))
        .routes(routes!(live::events::task_events))
        .routes(routes!(live::socket::task_socket))
        .routes(routes!(steps::read_steps, steps::append_steps))
        .routes(routes!(export::export))
        .routes(routes!(workers::register))
        .routes(routes!(internal::status))
        .routes(routes!(internal::scale))
        .routes(routes!(internal::start))
        .routes(routes!(internal::stop))
        .routes(routes!(workers::list_workers))
        .routes(routes!(workers::get_worker, workers::deregister))
        .routes(routes!(workers::heartbeat))
        .routes(routes!(workers::claim))
        .routes(routes!(workers::complete))
        .routes(routes!(workers::fail))
        .routes(routes!(workers::worker_stats))
        .routes(routes!(conversations::list, conversations::begin))
        .routes(routes!(conversations::stats))
        .routes(routes!(conversations::of_task))
        .routes(routes!(conversations::get_one, conversations::update))
        .routes(routes!(conversations::messages, conversations::say))
        .routes(routes!(health::ready))
        .routes(routes!(health::queue_stats))
}

/// The whole dialect under its base prefix.
pub(crate) fn under_prefix() -> Router<Arc<ApiState>> {
    let whole = routes()
        .split_for_parts()
        .0
        .route("/", get(health::root))
        .route("/health", get(health::health))
        .route("/metrics", get(operator::metrics))
        .route("/docs", get(openapi::docs))
        .route("/redoc", get(openapi::docs))
        .route("/openapi.json", get(openapi::openapi_json))
        .layer(Extension(shape::Enveloped));
    let slash = format!("{PREFIX}/");
    Router::new()
        .nest(PREFIX, whole)
        .route(&slash, get(health::root))
}

/// The route of the one WebSocket.
pub(crate) const SOCKET: &str = "/ws/tasks/{task_id}";

/// Whether errors at this path have this dialect's form.
pub(crate) fn has_path(path: &str) -> bool {
    let below = |base: &str| {
        let rest = path.strip_prefix(base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below("/api/v1") || below("/ws") || path == "/ready" || path == "/queue/stats" || below(PREFIX)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::NoSuchTask(_)
            | StoreError::NoSuchWorker(_)
            | StoreError::NoSuchConversation(_) => Self::new(StatusCode::NOT_FOUND, message),
            StoreError::Conflict(_) => Self::new(StatusCode::CONFLICT, message),
            StoreError::KeyReused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                .hint("use a new Idempotency-Key for a request with another body"),
            StoreError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            StoreError::Full(_) | StoreError::Busy => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(1)
            }
            StoreError::Failed {
                disk_full: true, ..
            } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "no room is left for the queue",
            )
            .hint("make room on the disk of its store; nothing was changed")
            .retry_after(10),
            // What the database says is for the operator's log alone.
            StoreError::Failed { .. } => {
                Self::unavailable("the queue's store does not answer").hint("see the daemon's log")
            }
        }
    }
}
