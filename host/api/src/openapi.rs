//! The description of every route, made from the code, and the page that shows it.
//!
//! Routes are registered together with their description, so none can be served
//! without being described. `openapi/openapi.json` is the same document on disk;
//! a test compares the two (`TASKWRIGHT_UPDATE_OPENAPI=1` writes it).

use std::sync::{Arc, LazyLock};

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::native::{events, exec, list, logs, operator, plugins, review, set, tasks};
use crate::state::ApiState;
use crate::{aiopslab, tessia};

const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Taskwright",
        description = "A task executor for one node. Every dialect is also served whole under a prefix of its own: \
            `/opensandbox`, `/tessia` (`/v1/...`), `/aiopslab` (`/api/v1/...`).",
        license(name = "Apache-2.0")
    ),
    tags(
        (name = "tasks", description = "Submit, watch, stop and delete tasks"),
        (name = "events", description = "The numbered feed of what happens to tasks"),
        (name = "plugins", description = "The runtimes that are loaded"),
        (name = "tessia", description = "The Tessia task runner: machines with parameters, watched by id"),
        (name = "queue", description = "AIOpsLab: tasks that wait for workers"),
        (name = "workers", description = "AIOpsLab: who claims tasks and reports them"),
        (name = "conversations", description = "AIOpsLab: what was said between a model and the world"),
        (name = "operation", description = "Probes, metrics, version"),
    ),
    modifiers(&Security)
)]
struct Description;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Needed when the daemon is configured with tokens"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
        let nothing: [&str; 0] = [];
        document.security = Some(vec![
            SecurityRequirement::default(),
            SecurityRequirement::new(BEARER, nothing),
        ]);
    }
}

/// Every route of the native dialect, each with its description.
pub(crate) fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(tasks::create_task, list::list_tasks))
        .routes(routes!(tasks::get_task, tasks::delete_task))
        .routes(routes!(tasks::wait_task))
        .routes(routes!(tasks::stop_task))
        .routes(routes!(review::approve_task))
        .routes(routes!(review::deny_task))
        .routes(routes!(exec::exec_in_task))
        .routes(routes!(logs::task_logs))
        .routes(routes!(events::task_events))
        .routes(routes!(events::all_events))
        .routes(routes!(set::set_tasks))
        .routes(routes!(set::get_tasks))
        .routes(routes!(plugins::list_plugins))
        .routes(routes!(plugins::get_plugin))
        .routes(routes!(operator::health))
        .routes(routes!(operator::livez))
        .routes(routes!(operator::readyz))
        .routes(routes!(operator::metrics))
        .routes(routes!(operator::version))
        .routes(routes!(openapi_json))
        .routes(routes!(docs))
}

/// The OpenAPI document, of all dialects.
#[must_use]
pub fn document() -> Document {
    routes()
        .merge(tessia::root_route())
        .merge(tessia::routes())
        .merge(aiopslab::routes())
        .split_for_parts()
        .1
}

/// The document as it is served and as it stands in the repository.
#[must_use]
pub fn document_json() -> String {
    let mut text = document().to_pretty_json().unwrap_or_else(|error| {
        // A tree of texts: writing it cannot fail.
        tracing::error!(%error, "the OpenAPI document could not be written");
        String::from("{}")
    });
    text.push('\n');
    text
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operation", security(),
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(crate) async fn openapi_json() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(document_json);
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

/// A page that shows this document.
#[utoipa::path(
    get, path = "/docs", tag = "operation", security(),
    responses((status = 200, description = "A page for people", body = String, content_type = "text/html"))
)]
pub(crate) async fn docs() -> Response {
    const PAGE: &str = include_str!("docs.html");
    // The page brings everything along: it needs nothing from elsewhere, and may have nothing.
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
        script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; \
        form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, PAGE).into_response()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    #[test]
    fn the_document_in_the_repository_is_the_one_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        let served = super::document_json();
        if std::env::var_os("TASKWRIGHT_UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &served).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == served,
            "openapi/openapi.json is not up to date: run this test with TASKWRIGHT_UPDATE_OPENAPI=1"
        );
    }

    #[test]
    fn it_is_openapi_3_1_and_every_reference_resolves() {
        let document: serde_json::Value = serde_json::from_str(&super::document_json()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        fn walk(value: &serde_json::Value, root: &serde_json::Value) {
            match value {
                serde_json::Value::Object(map) => {
                    if let Some(target) = map.get("$ref").and_then(|value| value.as_str()) {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(root.pointer(pointer).is_some(), "{target}");
                    }
                    map.values().for_each(|value| walk(value, root));
                }
                serde_json::Value::Array(list) => list.iter().for_each(|value| walk(value, root)),
                _ => {}
            }
        }
        walk(&document, &document);
    }
}
