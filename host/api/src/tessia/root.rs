//! The document at `/`, and what every version answers.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::tasks::json;
use crate::native::Shared;

/// What is served here, as the control node of a mesh looks for it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Root)]
pub(crate) struct RootView<'a> {
    /// `task_runner`.
    name: &'static str,
    /// The versions of the task runner's API.
    apis: [ApiView; 1],
    /// The product's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    /// Where everything is described.
    #[serde(skip_serializing_if = "Option::is_none")]
    docs: Option<&'static str>,
    /// Where to ask whether it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<&'static str>,
}

/// One version of the task runner's API.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = RootApi)]
struct ApiView {
    root: &'static str,
    version: &'static str,
    min_version: &'static str,
}

/// The one there is.
const V1: ApiView = ApiView {
    root: "/v1",
    version: "0.0.1",
    min_version: "0.0.0",
};

/// What is served here.
///
/// The task runner's document, with what clients of other systems look for beside it.
#[utoipa::path(
    get, path = "/", tag = "tessia", security(),
    responses((status = 200, description = "What is served here", body = RootView<'static>))
)]
pub(crate) async fn everything(State(state): Shared) -> Response {
    json(&RootView {
        name: "task_runner",
        apis: [V1],
        version: Some(&state.version.version),
        docs: Some("/docs"),
        health: Some("/health"),
    })
}

/// The task runner's document and nothing beside it.
pub(crate) async fn task_runner() -> Response {
    json(&RootView {
        name: "task_runner",
        apis: [V1],
        version: None,
        docs: None,
        health: None,
    })
}

/// That a request is authorised.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = TessiaSuccess)]
pub(crate) struct SuccessView {
    pub(crate) success: bool,
}

/// Whether requests are answered.
#[utoipa::path(
    get, path = "/v1/", tag = "tessia",
    responses((status = 200, description = "They are", body = SuccessView))
)]
pub(crate) async fn v1() -> Response {
    json(&SuccessView { success: true })
}

/// What the task runner says of its API.
#[utoipa::path(
    get, path = "/v1/schema", tag = "tessia",
    responses((status = 200, description = "`{\"/\": \"api root\"}`", body = Object))
)]
pub(crate) async fn schema() -> Response {
    json(&serde_json::json!({ "/": "api root" }))
}
