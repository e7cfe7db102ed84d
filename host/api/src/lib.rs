//! The only crate that knows HTTP: dialects of the task API.
//!
//! A dialect is wire types and conversion, nothing else: what a task is and
//! what happens to it is decided in `taskwright-model` and `taskwright-control`.
//!
//! | module | about |
//! |---|---|
//! | [`server`] | listeners, connections, limits, graceful drain |
//! | [`state`] | what handlers are given |
//! | [`auth`] | who may do what |
//! | `edge` | what is done for every request: ids, access, panics, errors, metrics |
//! | `problem` | errors, and the forms in which they leave |
//! | `body`, `query`, `sse` | bodies read within bounds, words of queries, streams of events |
//! | `room`, `parts`, `patience` | how much of answers is in memory, lists sent in parts, readers that take nothing |
//! | [`native`] | the native dialect, and what we add beside it |
//! | [`tessia`] | the dialect of the Tessia task runner |
//! | [`aiopslab`] | the dialect of AIOpsLab's task executor: the queue and its workers |
//! | [`openapi`] | the description of it all, and the page that shows it |

pub mod aiopslab;
pub mod auth;
mod body;
mod edge;
#[cfg(test)]
mod fake;
pub mod native;
pub mod openapi;
mod parts;
mod patience;
mod problem;
mod query;
mod room;
pub mod server;
mod sse;
pub mod state;
pub mod tessia;

pub use aiopslab::export::cursor_of as export_cursor;
pub use aiopslab::{Cors, Live, QueueApi, SubmissionLimit};
pub use auth::{AuthConfig, AuthError, Scope, Token};
pub use native::document::TaskDocuments;
pub use room::Room;
pub use server::{Drained, Listener, ServeLimits, serve};
pub use state::{ApiLimits, ApiState, VersionInfo};
pub use tessia::{LeftState, LeftTask, LeftTasks, NothingLeft};

use std::sync::Arc;

use axum::{Router, middleware};

/// Every route there is, ready to be served: each dialect at the root and again under a prefix of
/// its own, each request passing the same edge.
pub fn router(state: ApiState) -> Router {
    let state = Arc::new(state);
    let native = openapi::routes().split_for_parts().0;
    Router::new()
        .merge(native.clone())
        .nest(native::PREFIX, native)
        .merge(tessia::routes().split_for_parts().0)
        .merge(tessia::root_route().split_for_parts().0)
        .merge(tessia::under_prefix())
        .merge(aiopslab::routes().split_for_parts().0)
        .merge(aiopslab::under_prefix())
        // The page of `/docs`, under the other name that AIOpsLab's documents have for it.
        .route("/redoc", axum::routing::get(openapi::docs))
        .fallback(edge::no_such_route)
        .method_not_allowed_fallback(edge::no_such_method)
        .layer(middleware::from_fn_with_state(state.clone(), edge::edge))
        .with_state(state)
}
