//! A task's states and lines as server-sent events.

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::Event;
use axum::response::{IntoResponse as _, Response};
use futures::stream::{self, StreamExt as _};

use super::watcher::{News, Next, Position, Watcher};
use crate::aiopslab::read::{self, Words};
use crate::aiopslab::view::{ErrorView, LogView, TaskView};
use crate::native::Shared;
use crate::problem::Problem;
use crate::sse;

const NO_POSITION: &str = "must be the id of an event, as 3.17, or the number of a line";

/// From where on, by the query.
pub(super) fn position(words: &Words) -> Result<Position, Problem> {
    match words.get("after") {
        None => Ok(Position::default()),
        Some(text) => Position::parse(text).ok_or_else(|| read::wrong("?after", NO_POSITION)),
    }
}

/// Follow a queued task: a `state` whenever it changed, a `log` for each of its lines.
///
/// Events have ids: a reader that was cut off says the last one it saw (`Last-Event-ID`, or
/// `after`), and misses nothing. States that followed each other quickly may be told as one. The
/// stream ends after the state in which the task ended; whoever comes back then is answered 204.
/// A reader that takes nothing for long is cut.
#[utoipa::path(
    get, path = "/api/v1/tasks/{task_id}/events", tag = "queue",
    params(
        ("task_id" = String, Path, description = "The task's id"),
        ("after" = Option<String>, Query, description = "Go on behind the event with this id, or behind the line with this number"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, and counts more"),
    ),
    responses(
        (status = 200, description = "Events: `state` with the task, `log` with a line",
            content((TaskView<'static> = "text/event-stream"))),
        (status = 204, description = "It has ended and all of it was seen"),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 422, description = "Not an id, or not a position", body = ErrorView<'static>),
        (status = 503, description = "As many live streams as may be are open", body = ErrorView<'static>),
    )
)]
pub(in crate::aiopslab) async fn task_events(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let task = read::id(&id, "task_id")?;
    let after = match sse::last_event_id(&headers) {
        None => position(&words)?,
        Some(text) => Position::parse(text).ok_or_else(|| {
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("the Last-Event-ID {NO_POSITION}"),
            )
        })?,
    };
    let heartbeat = state.limits.heartbeat;
    let watcher = Watcher::begin(state, task, after).await?;
    if watcher.has_nothing_more() {
        // By this, browsers know that they need not come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let news = watcher.stream().filter_map(|next| async { event(next) });
    let events = stream::iter([sse::hello()]).chain(news);
    Ok(sse::response(events, heartbeat))
}

fn event(next: Next) -> Option<Event> {
    match next {
        Next::News(position, News::State(task)) => {
            let id = position.to_string();
            Some(sse::event(&id, "state", &TaskView::of(&task)))
        }
        Next::News(position, News::Line(line)) => {
            let id = position.to_string();
            Some(sse::event(&id, "log", &LogView::of(&line)))
        }
        Next::Over | Next::GoingDown => None,
        // The reader comes back with its last id, and misses nothing.
        Next::Failed(problem) => Some(sse::broken(&problem.message)),
    }
}
