//! `/tasks/{name}/logs`: what tasks print, by offset, so that a reader can always
//! go on where it was cut off.
//!
//! Plain: a piece of one stream as raw bytes, offsets in headers. Followed: events
//! with the text, or base64 where it is no UTF-8, until the task has ended and
//! everything was sent. The id of an event is the place behind it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use axum::response::sse::Event;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use taskwright_control::port::{OutputChunk, Stream};
use taskwright_model::{Task, TaskKey};

use super::dto::OutcomeView;
use super::follow::{Cursor, Told, Until, follow, read};
use super::{Shared, key_of};
use crate::problem::{Problem, ProblemDocument};
use crate::query;
use crate::room::{InRoom, Taken};
use crate::sse;
use crate::state::ApiState;

const LOG_OFFSET: HeaderName = HeaderName::from_static("x-log-offset");
const LOG_NEXT_OFFSET: HeaderName = HeaderName::from_static("x-log-next-offset");
const LOG_DROPPED: HeaderName = HeaderName::from_static("x-log-dropped");
const LOG_END: HeaderName = HeaderName::from_static("x-log-end");

/// Bytes in one plain answer: where nothing is said, and at most.
const DEFAULT_PIECE: usize = 1024 * 1024;
const MOST_PIECE: usize = 8 * 1024 * 1024;
/// How far back `tail` looks for its lines.
const TAIL_REACH: u64 = 8 * 1024 * 1024;
const TAIL_STEP: u64 = 64 * 1024;

#[derive(Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// `stdout` (where nothing is said), `stderr`, or, followed, `both`.
    stream: Option<String>,
    /// Where to begin, in bytes from the first ever printed.
    #[param(value_type = Option<u64>)]
    offset: Option<String>,
    /// Bytes in one plain answer: 1 MiB where nothing is said, 8 MiB at most.
    #[param(value_type = Option<u64>)]
    limit: Option<String>,
    /// Begin this many lines before the end.
    #[param(value_type = Option<u64>)]
    tail: Option<String>,
    /// Begin this many bytes before the end.
    #[param(value_type = Option<u64>)]
    tail_bytes: Option<String>,
    /// Answer with events (server-sent events) until the task has ended. The same as
    /// `Accept: text/event-stream`.
    #[param(value_type = Option<bool>)]
    follow: Option<String>,
}

/// One piece of output.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = LogEvent)]
struct PieceView<'a> {
    /// Where it begins, in bytes from the first ever printed.
    offset: u64,
    /// `stdout` or `stderr`.
    stream: &'static str,
    /// How much was dropped right before it, because the output is too long to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    /// The piece, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// The piece in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// The last event: the task has ended and everything was sent.
#[derive(Serialize)]
struct EndView<'a> {
    /// `ended`, or `removed` when the task is gone.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeView<'a>>,
}

/// Read what a task prints.
#[utoipa::path(
    get, path = "/tasks/{name}/logs", tag = "tasks",
    params(
        ("name" = String, Path, description = "The task's name"),
        LogsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "Followed: go on behind the event with this id"),
    ),
    responses(
        (status = 200, description = "Raw bytes; X-Log-Offset, X-Log-Next-Offset, X-Log-End and X-Log-Dropped say which. Followed: events `output` and, last, `end` with the outcome",
            content((String = "text/plain"), (PieceView<'static> = "text/event-stream"))),
        (status = 400, description = "The query cannot be read", body = ProblemDocument<'static>),
        (status = 404, description = "No such task", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn task_logs(
    State(state): Shared,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = key_of(&state, &name)?;
    let task = state.control.get(&key);
    let task = task.ok_or_else(|| Problem::no_such_task(&name))?;
    let follow = query
        .follow
        .as_deref()
        .map_or(Ok(false), |text| query::switch("follow", text))?;
    let streams = streams(query.stream.as_deref())?;
    let start = Start::of(&query)?;
    if follow || sse::is_wanted(&headers) {
        let resumed = sse::last_event_id(&headers).map(|id| places(id, streams));
        let cursors = match resumed.transpose()? {
            Some(cursors) => cursors,
            None => begin(&state, &key, streams, start).await?,
        };
        return Ok(events(state, task, cursors));
    }
    let [stream] = streams else {
        return Err(
            Problem::bad_request("both streams in one plain answer would have no offsets")
                .hint("ask for stdout and stderr apart, or add follow=true"),
        );
    };
    plain(&state, &key, *stream, start, &query).await
}

pub(crate) fn streams(text: Option<&str>) -> Result<&'static [Stream], Problem> {
    match text {
        None | Some("" | "stdout") => Ok(&[Stream::Stdout]),
        Some("stderr") => Ok(&[Stream::Stderr]),
        Some("both") => Ok(&[Stream::Stdout, Stream::Stderr]),
        Some(_) => Err(Problem::bad_request(
            "the query's stream is stdout, stderr or both",
        )),
    }
}

fn word(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// Where a reader wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Offset(u64),
    LinesBeforeEnd(u64),
    BytesBeforeEnd(u64),
}

impl Start {
    fn of(query: &LogsQuery) -> Result<Self, Problem> {
        let number = |field, text: &Option<String>| {
            text.as_deref()
                .map(|text| query::number::<u64>(field, text))
                .transpose()
        };
        let given = (
            number("offset", &query.offset)?,
            number("tail", &query.tail)?,
            number("tailBytes", &query.tail_bytes)?,
        );
        match given {
            (None, None, None) => Ok(Self::Offset(0)),
            (Some(offset), None, None) => Ok(Self::Offset(offset)),
            (None, Some(lines), None) => Ok(Self::LinesBeforeEnd(lines)),
            (None, None, Some(bytes)) => Ok(Self::BytesBeforeEnd(bytes)),
            _ => Err(Problem::bad_request(
                "offset, tail and tailBytes exclude each other",
            )),
        }
    }
}

/// The offset at which a reader begins.
async fn resolve(
    state: &ApiState,
    key: &TaskKey,
    stream: Stream,
    start: Start,
) -> Result<u64, Problem> {
    let (lines, end) = match start {
        Start::Offset(offset) => return Ok(offset),
        Start::BytesBeforeEnd(bytes) => {
            let end = read(state, key, stream, 0, 0).await?.end;
            return Ok(end.saturating_sub(bytes));
        }
        Start::LinesBeforeEnd(lines) => (lines, read(state, key, stream, 0, 0).await?.end),
    };
    if lines == 0 {
        return Ok(end);
    }
    let mut missing = lines;
    let mut upper = end;
    let oldest = end.saturating_sub(TAIL_REACH);
    while upper > oldest {
        let lower = upper.saturating_sub(TAIL_STEP).max(oldest);
        let chunk = read_up_to(state, key, stream, lower, upper).await?;
        let found = line_start(&chunk.bytes, chunk.offset, end, &mut missing);
        if let Some(offset) = found {
            return Ok(offset);
        }
        if chunk.offset > lower {
            // The middle was dropped: what is before it is another part of the output.
            return Ok(chunk.offset);
        }
        upper = lower;
    }
    Ok(oldest)
}

/// What is between two offsets; of several parts, because the middle was dropped, the last.
async fn read_up_to(
    state: &ApiState,
    key: &TaskKey,
    stream: Stream,
    lower: u64,
    upper: u64,
) -> Result<OutputChunk, Problem> {
    let wanted = |from: u64| usize::try_from(upper.saturating_sub(from)).unwrap_or(usize::MAX);
    let mut chunk = read(state, key, stream, lower, wanted(lower)).await?;
    loop {
        let behind = chunk.offset + chunk.bytes.len() as u64;
        if behind >= upper {
            return Ok(chunk);
        }
        let next = read(state, key, stream, behind, wanted(behind)).await?;
        if next.bytes.is_empty() {
            return Ok(chunk);
        }
        if next.offset == behind {
            chunk.bytes.extend_from_slice(&next.bytes);
        } else {
            chunk = next;
        }
    }
}

/// Where the last missing line begins, if it does so in `bytes`, read backwards. The newline
/// at the very end of the output ends its last line and begins none.
fn line_start(bytes: &[u8], offset: u64, end: u64, missing: &mut u64) -> Option<u64> {
    for (index, _) in bytes
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n')
    {
        let behind = offset + index as u64 + 1;
        if behind == end {
            continue;
        }
        *missing -= 1;
        if *missing == 0 {
            return Some(behind);
        }
    }
    None
}

async fn plain(
    state: &ApiState,
    key: &TaskKey,
    stream: Stream,
    start: Start,
    query: &LogsQuery,
) -> Result<Response, Problem> {
    let limit = query
        .limit
        .as_deref()
        .map_or(Ok(DEFAULT_PIECE), |text| query::number("limit", text))?;
    let offset = resolve(state, key, stream, start).await?;
    let most = limit.min(MOST_PIECE);
    let mut room = Taken::default();
    state.room.take(&mut room, most)?;
    let chunk = read(state, key, stream, offset, most).await?;
    let next = chunk.offset + chunk.bytes.len() as u64;
    let dropped = chunk.offset.saturating_sub(offset);
    let mut response = Response::new(Body::from(room.keep(chunk.bytes)));
    response.extensions_mut().insert(InRoom);
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        axum::http::header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(LOG_OFFSET, chunk.offset.into());
    headers.insert(LOG_NEXT_OFFSET, next.into());
    headers.insert(LOG_DROPPED, dropped.into());
    headers.insert(LOG_END, chunk.end.into());
    Ok(response)
}

/// The places at which a reader begins.
pub(crate) async fn begin(
    state: &ApiState,
    key: &TaskKey,
    streams: &[Stream],
    start: Start,
) -> Result<Vec<Cursor>, Problem> {
    let mut cursors = Vec::with_capacity(streams.len());
    for stream in streams {
        let next = resolve(state, key, *stream, start).await?;
        cursors.push(Cursor::at(*stream, next));
    }
    Ok(cursors)
}

/// Reads an event's id: the place in each stream, with a comma between.
pub(crate) fn places(id: &str, streams: &[Stream]) -> Result<Vec<Cursor>, Problem> {
    let numbers: Vec<u64> = id
        .split(',')
        .map_while(|number| number.parse().ok())
        .collect();
    if numbers.len() != streams.len() || id.split(',').count() != streams.len() {
        return Err(Problem::bad_request(
            "Last-Event-ID is none of this stream of events",
        ));
    }
    Ok(streams
        .iter()
        .zip(numbers)
        .map(|(stream, next)| Cursor::at(*stream, next))
        .collect())
}

fn id_of(cursors: &[Cursor]) -> String {
    let places: Vec<String> = cursors
        .iter()
        .map(|cursor| cursor.next.to_string())
        .collect();
    places.join(",")
}

/// The same as events.
pub(crate) fn events(state: Arc<ApiState>, task: Arc<Task>, cursors: Vec<Cursor>) -> Response {
    let heartbeat = state.limits.heartbeat;
    let told = follow(state.clone(), task.clone(), cursors, Until::Ended);
    let hello = futures::stream::iter([sse::hello()]);
    let events = told.map(move |told| match told {
        Told::Piece(piece) => {
            let text = std::str::from_utf8(&piece.bytes).ok();
            let view = PieceView {
                offset: piece.offset,
                stream: word(piece.stream),
                dropped: Some(piece.dropped).filter(|gap| *gap > 0),
                text,
                base64: text.is_none().then(|| STANDARD.encode(&piece.bytes)),
            };
            sse::event(&id_of(&piece.behind), "output", &view)
        }
        Told::Broken(message) => sse::broken(&message),
        Told::End(cursors) => last_event(&state, &task, &cursors),
    });
    sse::response(hello.chain(events), heartbeat)
}

fn last_event(state: &ApiState, task: &Task, cursors: &[Cursor]) -> Event {
    let now = state.control.get(&task.key);
    let now = now.filter(|now| now.id == task.id);
    let view = match &now {
        Some(task) => EndView {
            state: task.state.as_str(),
            outcome: task.outcome().map(OutcomeView::of),
        },
        None => EndView {
            state: "removed",
            outcome: None,
        },
    };
    sse::event(&id_of(cursors), "end", &view)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lines_are_counted_from_the_end() {
        let check = |text: &str, lines: u64, expected: Option<u64>| {
            let mut missing = lines;
            let found = line_start(text.as_bytes(), 0, text.len() as u64, &mut missing);
            assert_eq!(found, expected, "{text:?} {lines}");
        };
        check("a\nb\nc\n", 1, Some(4));
        check("a\nb\nc\n", 2, Some(2));
        check("a\nb\nc\n", 3, None);
        check("a\nb\nc", 1, Some(4));
        check("\n\n\n", 1, Some(2));
        check("", 1, None);
    }

    #[test]
    fn ids_name_a_place_in_every_stream() {
        let both = &[Stream::Stdout, Stream::Stderr];
        let cursors = places("5,7", both).unwrap();
        assert_eq!(id_of(&cursors), "5,7");
        for id in ["5", "5,x", "5,7,9", "x"] {
            assert!(places(id, both).is_err(), "{id}");
        }
    }

    #[test]
    fn only_one_beginning_is_taken() {
        let query = |offset: Option<&str>, tail: Option<&str>| LogsQuery {
            offset: offset.map(str::to_owned),
            tail: tail.map(str::to_owned),
            ..LogsQuery::default()
        };
        assert_eq!(Start::of(&query(None, None)).unwrap(), Start::Offset(0));
        assert_eq!(
            Start::of(&query(None, Some("3"))).unwrap(),
            Start::LinesBeforeEnd(3)
        );
        assert!(Start::of(&query(Some("1"), Some("3"))).is_err());
        assert!(Start::of(&query(Some("-1"), None)).is_err());
    }
}
