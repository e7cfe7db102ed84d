//! Probes, metrics, version: what machines around us ask.

use axum::extract::{MatchedPath, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{PREFIX, Shared};
use crate::aiopslab::{self, QueueBlocks, QueueHealth};
use crate::body;

/// The contract's health.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Health)]
pub(crate) struct HealthView {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    /// Why it is unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What clients of the queue look for; not below `/opensandbox`.
    #[serde(flatten)]
    queue: Option<QueueBlocks>,
}

/// Whether the daemon can take tasks.
#[utoipa::path(
    get, path = "/health", tag = "operation", security(),
    responses(
        (status = 200, description = "Healthy", body = HealthView),
        (status = 503, description = "The store takes nothing", body = HealthView),
    )
)]
pub(crate) async fn health(State(state): Shared, path: MatchedPath) -> Response {
    let to_the_letter = path.as_str().starts_with(PREFIX);
    let queue = match to_the_letter {
        true => None,
        false => Some(QueueHealth::look(&state).await.blocks),
    };
    match state.control.health().store {
        None => body::json(
            StatusCode::OK,
            &HealthView {
                status: "healthy",
                reason: None,
                queue,
            },
        ),
        Some(reason) => body::json(
            StatusCode::SERVICE_UNAVAILABLE,
            &HealthView {
                status: "unhealthy",
                reason: Some(format!("the store takes nothing: {reason}")),
                queue,
            },
        ),
    }
}

/// That the process answers.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Liveness)]
pub(crate) struct LivenessView {
    /// `alive`.
    status: &'static str,
}

/// Whether the process answers. Restart it when it does not.
#[utoipa::path(
    get, path = "/livez", tag = "operation", security(),
    responses((status = 200, description = "It does", body = LivenessView))
)]
pub(crate) async fn livez() -> Response {
    body::json(StatusCode::OK, &LivenessView { status: "alive" })
}

/// Whether tasks can be launched here and now.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Readiness)]
pub(crate) struct ReadinessView {
    /// `ready` or `not ready`.
    status: &'static str,
    /// What was looked at.
    checks: Vec<CheckView>,
}

/// One thing that was looked at.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ReadinessCheck)]
pub(crate) struct CheckView {
    /// `store`, `queue`, `shutdown`, or `plugin:` and its name. Plugins from folders are told of and do
    /// not count.
    name: String,
    /// Whether it is as it should be.
    ok: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Whether tasks can be launched here and now. Send no work when not.
#[utoipa::path(
    get, path = "/readyz", tag = "operation", security(),
    responses(
        (status = 200, description = "They can", body = ReadinessView),
        (status = 503, description = "They cannot, and why", body = ReadinessView),
    )
)]
pub(crate) async fn readyz(State(state): Shared) -> Response {
    let health = state.control.health();
    let closing = health.closing || state.shutdown.is_cancelled();
    let queue = aiopslab::QueueHealth::look(&state).await.blocks.database;
    let mut checks = vec![
        CheckView {
            name: "store".to_owned(),
            ok: health.store.is_none(),
            message: health.store,
        },
        CheckView {
            name: "queue".to_owned(),
            ok: queue.connected,
            message: queue.error.map(str::to_owned),
        },
        CheckView {
            name: "shutdown".to_owned(),
            ok: !closing,
            message: closing.then(|| "the daemon is going down".to_owned()),
        },
    ];
    let mut ready = checks.iter().all(|check| check.ok);
    for plugin in state.control.plugins().list().await {
        // One that an operator dropped in costs its own tasks at most.
        ready &= plugin.health.is_ok() || !plugin.is_built_in();
        checks.push(CheckView {
            name: format!("plugin:{}", plugin.name),
            ok: plugin.health.is_ok(),
            message: plugin.health.err(),
        });
    }
    let (code, status) = if ready {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    body::json(code, &ReadinessView { status, checks })
}

/// The metrics of this process, in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(state): Shared) -> Response {
    // Kept by the loop anyway, so it is looked at when somebody asks and not at every change.
    for (word, count) in state.control.counts() {
        metrics::gauge!("taskwright_tasks", "state" => word).set(count as f64);
    }
    aiopslab::measure(&state).await;
    let text = (state.metrics)();
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

/// What runs here.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Version)]
pub(crate) struct VersionView<'a> {
    /// `taskwright`.
    name: &'static str,
    /// The product's version.
    version: &'a str,
    /// The commit it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a str>,
    /// The versions of the plugin interface that are served.
    plugin_api: &'a [String],
}

/// What runs here.
#[utoipa::path(
    get, path = "/version", tag = "operation",
    responses((status = 200, description = "Versions", body = VersionView<'static>))
)]
pub(crate) async fn version(State(state): Shared) -> Response {
    let view = VersionView {
        name: "taskwright",
        version: &state.version.version,
        commit: state.version.commit.as_deref(),
        plugin_api: &state.version.plugin_api,
    };
    body::json(StatusCode::OK, &view)
}
