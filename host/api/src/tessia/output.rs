//! What a task prints, streamed: plain bytes in chunks, or the events of the native dialect.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures::StreamExt;
use serde::Deserialize;

use super::tasks::{ErrorView, Known, known};
use crate::native::Shared;
use crate::native::follow::{Cursor, Told, Until, follow};
use crate::native::logs;
use crate::problem::Problem;
use crate::query;
use crate::sse;

#[derive(Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OutputQuery {
    /// `both` (where nothing is said), `stdout` or `stderr`.
    stream: Option<String>,
    /// Go on until the task has ended.
    #[param(value_type = Option<bool>)]
    follow: Option<String>,
}

/// Read what a task prints, as it prints it.
#[utoipa::path(
    get, path = "/v1/tasks/{task_id}/output", tag = "tessia",
    params(
        ("task_id" = String, Path, description = "The task's id"),
        OutputQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "As events: go on behind the event with this id"),
    ),
    responses(
        (status = 200, description = "Raw bytes in chunks. With `Accept: text/event-stream`, followed: events as of `/tasks/{name}/logs`",
            body = String, content_type = "text/plain"),
        (status = 400, description = "The query cannot be read", body = ErrorView<'static>),
        (status = 404, description = "No such task, or one of another runner", body = ErrorView<'static>),
    )
)]
pub(crate) async fn task_output(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<OutputQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Known::Ours(task) = known(&state, &id)? else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "its output is where the runner that started it wrote it",
        ));
    };
    let follows = query
        .follow
        .as_deref()
        .map_or(Ok(false), |text| query::switch("follow", text))?;
    let wanted = query.stream.as_deref().filter(|text| !text.is_empty());
    let streams = logs::streams(Some(wanted.unwrap_or("both")))?;
    let beginning = || {
        streams
            .iter()
            .map(|stream| Cursor::at(*stream, 0))
            .collect()
    };
    if sse::is_wanted(&headers) {
        let resumed = sse::last_event_id(&headers).map(|id| logs::places(id, streams));
        let cursors = resumed.transpose()?.unwrap_or_else(beginning);
        return Ok(logs::events(state, task, cursors));
    }
    let until = if follows { Until::Ended } else { Until::Now };
    let told = follow(state, task, beginning(), until);
    let pieces = told.filter_map(|told| async {
        match told {
            Told::Piece(piece) if piece.dropped > 0 => {
                let mut bytes = format!("[{} bytes were not kept]\n", piece.dropped).into_bytes();
                bytes.extend(piece.bytes);
                Some(Ok(Bytes::from(bytes)))
            }
            Told::Piece(piece) => Some(Ok(Bytes::from(piece.bytes))),
            // The client is to see that this was not the end.
            Told::Broken(message) => Some(Err(io::Error::other(message))),
            Told::End(_) => None,
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, plain);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    Ok(response)
}
