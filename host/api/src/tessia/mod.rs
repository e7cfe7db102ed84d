//! The dialect of the Tessia task runner: machines with parameters, watched by id.
//!
//! A machine is a runtime by its name. Tasks live in a namespace of their own, so that
//! `setTasks` never touches them. Served at the root, where its documented paths are, and again
//! whole under [`PREFIX`].
//!
//! | module | about |
//! |---|---|
//! | `root` | the document at `/`, and what every version answers |
//! | `request` | from a body to a task |
//! | `state` | what the contract calls a task's state and its exit code |
//! | `tasks` | create, list, get, stop, forget |
//! | `output` | what a task prints, streamed |
//! | `left` | tasks that the original runner left behind |

mod left;
mod output;
mod request;
mod root;
pub(crate) mod state;
mod tasks;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use taskwright_model::{Namespace, TaskKey, TaskName};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::problem::Problem;
use crate::state::ApiState;

pub use left::{LeftState, LeftTask, LeftTasks, NothingLeft};
pub use state::{exit_code, state_of};
pub(crate) use tasks::ErrorView;

/// Where the whole dialect is served a second time.
pub const PREFIX: &str = "/tessia";

/// The key of a task by its id. A text that is no name names no task.
fn key_of(id: &str) -> Result<TaskKey, Problem> {
    let name = TaskName::parse(id).map_err(|_| no_such_task())?;
    Ok(TaskKey {
        namespace: Namespace::tessia(),
        name,
    })
}

/// The contract's word for an unknown task is no word.
fn no_such_task() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "")
}

/// Every route of version 1, each with its description.
pub(crate) fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::new()
        .routes(routes!(root::v1))
        .routes(routes!(root::schema))
        .routes(routes!(tasks::create_task, tasks::list_tasks))
        .routes(routes!(tasks::get_task, tasks::forget_task))
        .routes(routes!(tasks::stop_task))
        .routes(routes!(output::task_output))
}

/// The document at the root of everything, which other dialects look at, too.
pub(crate) fn root_route() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::new().routes(routes!(root::everything))
}

/// The whole dialect under its base prefix.
pub(crate) fn under_prefix() -> Router<Arc<ApiState>> {
    let v1 = routes().split_for_parts().0;
    let whole = v1.route("/", axum::routing::get(root::task_runner));
    // `nest` takes the prefix itself for its root, and clients write it with a slash.
    let slash = format!("{PREFIX}/");
    Router::new()
        .nest(PREFIX, whole)
        .route(&slash, axum::routing::get(root::task_runner))
}

/// Whether errors at this path have this dialect's form.
pub(crate) fn has_path(path: &str) -> bool {
    let below = |base: &str| {
        let rest = path.strip_prefix(base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path == "/" || below("/v1") || below(PREFIX)
}

/// Nothing is served at a path of the dialect: with or without a slash at its end there may be.
pub(crate) fn no_such_route(uri: &Uri) -> Response {
    let path = uri.path();
    let other = match path.strip_suffix('/') {
        // `/v1` itself stands with a slash.
        None if path.ends_with("/v1") => Some(format!("{path}/")),
        Some(shorter) if !shorter.ends_with('/') && is_served(shorter) => Some(shorter.to_owned()),
        _ => None,
    };
    match other {
        Some(mut other) => {
            if let Some(query) = uri.query() {
                other.push('?');
                other.push_str(query);
            }
            Redirect::temporary(&other).into_response()
        }
        None => Problem::new(StatusCode::NOT_FOUND, "Not Found").into_response(),
    }
}

/// Whether the path is one of version 1, whatever the task.
fn is_served(path: &str) -> bool {
    let path = path.strip_prefix(PREFIX).unwrap_or(path);
    let words: Vec<&str> = path.split('/').skip(1).collect();
    matches!(
        words.as_slice(),
        ["v1", "schema" | "tasks"] | ["v1", "tasks", _] | ["v1", "tasks", _, "stop" | "output"]
    )
}
