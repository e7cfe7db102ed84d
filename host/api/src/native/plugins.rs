//! `/plugins`: what is loaded, and how it does.

use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use taskwright_control::port::{OnError, PluginInfo, PolicyTerms};
use taskwright_control::request::LabelMatch;

use super::Shared;
use crate::body;
use crate::problem::{Problem, ProblemDocument};

/// A plugin.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Plugin)]
pub(crate) struct PluginView<'a> {
    /// The name it gives itself.
    name: &'a str,
    /// Its own version.
    version: &'a str,
    /// What it is good for: `runtime`, `policy`, `observer`.
    roles: Vec<&'static str>,
    /// What the operator says of it, if it is a policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyView<'a>>,
    /// The kinds of work it takes.
    kinds: &'a [String],
    /// `built-in`, or the file it came from.
    source: &'a str,
    /// SHA-256 of the component.
    digest: &'a str,
    /// The interfaces it exports, with versions.
    exports: &'a [String],
    /// The interfaces it imports, with versions.
    imports: &'a [String],
    /// The capabilities it was lent.
    grants: &'a [String],
    /// JSON Schema of its own configuration, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    config_schema: Option<&'a RawValue>,
    /// Whether its probe says that it works here and now.
    healthy: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'a str>,
    /// Why the newest version of its file does not serve; an older one does, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a str>,
    /// Calls made.
    calls: u64,
    /// Calls that failed by its fault.
    faults: u64,
}

/// What the operator says of a policy.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PolicyTerms)]
struct PolicyView<'a> {
    /// Lower ones are asked first.
    order: i32,
    /// `enforce` or `warn`.
    mode: &'static str,
    /// What becomes of a task when it gives no verdict: it waits (`closed`) or goes on (`open`).
    on_error: &'static str,
    /// Only tasks in these namespaces.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    namespaces: &'a [String],
    /// Only tasks of these runtimes.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    runtimes: &'a [String],
    /// Only tasks with all of these labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
}

impl<'a> PolicyView<'a> {
    fn of(terms: &'a PolicyTerms) -> Self {
        Self {
            order: terms.order,
            mode: terms.mode.as_str(),
            on_error: match terms.on_error {
                OnError::Closed => "closed",
                OnError::Open => "open",
            },
            namespaces: &terms.scope.namespaces,
            runtimes: &terms.scope.runtimes,
            labels: terms
                .scope
                .labels
                .iter()
                .map(LabelMatch::to_string)
                .collect(),
        }
    }
}

impl<'a> PluginView<'a> {
    fn of(plugin: &'a PluginInfo) -> Self {
        let schema = plugin.config_schema.as_deref();
        Self {
            name: &plugin.name,
            version: &plugin.version,
            roles: plugin.roles.iter().map(|role| role.as_str()).collect(),
            policy: plugin.policy.as_ref().map(PolicyView::of),
            kinds: &plugin.kinds,
            source: &plugin.source,
            digest: &plugin.digest,
            exports: &plugin.exports,
            imports: &plugin.imports,
            grants: &plugin.grants,
            config_schema: schema.and_then(|text| serde_json::from_str(text).ok()),
            healthy: plugin.health.is_ok(),
            trouble: plugin.health.as_ref().err().map(String::as_str),
            refused: plugin.refused.as_deref(),
            calls: plugin.calls,
            faults: plugin.faults,
        }
    }
}

/// The plugins that are loaded.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = PluginList)]
pub(crate) struct PluginListView<'a> {
    /// By name.
    items: Vec<PluginView<'a>>,
}

/// List the plugins that are loaded.
#[utoipa::path(
    get, path = "/plugins", tag = "plugins",
    responses((status = 200, description = "All plugins, by name", body = PluginListView<'static>))
)]
pub(crate) async fn list_plugins(State(state): Shared) -> Response {
    let plugins = state.control.plugins().list().await;
    let view = PluginListView {
        items: plugins.iter().map(PluginView::of).collect(),
    };
    body::json(StatusCode::OK, &view)
}

/// Get one plugin.
#[utoipa::path(
    get, path = "/plugins/{name}", tag = "plugins",
    params(("name" = String, Path, description = "The plugin's name")),
    responses(
        (status = 200, description = "The plugin", body = PluginView<'static>),
        (status = 404, description = "No such plugin", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn get_plugin(
    State(state): Shared,
    UrlPath(name): UrlPath<String>,
) -> Result<Response, Problem> {
    let plugins = state.control.plugins().list().await;
    let found = plugins.iter().find(|plugin| plugin.name == name);
    let plugin = found.ok_or_else(|| {
        let shown: String = name.chars().take(200).collect();
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("no plugin named {shown:?} is loaded"),
        )
        .hint("see /plugins for those that are")
    })?;
    Ok(body::json(StatusCode::OK, &PluginView::of(plugin)))
}
