//! `/events` and `/tasks/{name}/events`: the numbered feed.
//!
//! Numbers never repeat and never go back: a reader that says the last number it saw
//! misses nothing. As a page, as a long poll (`wait`), or as a stream of events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::response::sse::Event;
use serde::{Deserialize, Serialize};
use taskwright_control::port::FeedEntry;
use taskwright_model::{Happening, TaskId};
use tokio::sync::watch;
use tokio::time::Instant;

use super::dto::OutcomeView;
use super::status::Millis;
use super::{Shared, key_of};
use crate::body;
use crate::problem::{Problem, ProblemDocument};
use crate::query;
use crate::sse;
use crate::state::ApiState;

const DEFAULT_LIMIT: usize = 100;
const MOST_PER_PAGE: usize = 1000;
/// The longest long poll.
const LONGEST_POLL: Duration = Duration::from_secs(300);

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Only events numbered above this: 0 where nothing is said, or `latest`.
    after: Option<String>,
    /// Events in one page: 1 to 1000, 100 where nothing is said.
    #[param(value_type = Option<u64>)]
    limit: Option<String>,
    /// Wait this long for the first one, if there is none yet: `30s`, 5 minutes at most.
    wait: Option<String>,
    /// Answer with a stream (server-sent events). The same as `Accept: text/event-stream`.
    #[param(value_type = Option<bool>)]
    follow: Option<String>,
}

/// What became true of a task.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TaskEvent)]
pub(crate) struct EventView<'a> {
    /// Its number.
    sequence: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Millis,
    /// `submitted`, `held`, `approved`, `launched`, `running`, `stopping`, `retrying`, `ended`,
    /// `deleting` or `removed`.
    event: &'static str,
    /// Where the task's name is unique.
    namespace: &'a str,
    /// The task's name.
    name: &'a str,
    /// The task's id.
    task_id: String,
    /// Which attempt, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// The policies that hold it back.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    policies: &'a [String],
    /// What they ask, or why they gave no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    /// Who approved it; nobody when the time of the question was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    /// How the task, or the attempt, ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeView<'a>>,
}

impl<'a> EventView<'a> {
    pub(super) fn of(entry: &'a FeedEntry) -> Self {
        let (attempt, outcome) = match &entry.happening {
            Happening::Launched(number)
            | Happening::Running(number)
            | Happening::Stopping(number) => (Some(number.0), None),
            Happening::Retrying { attempt, outcome } => (Some(attempt.0), Some(outcome)),
            Happening::Ended(outcome) => (None, Some(outcome)),
            Happening::Submitted
            | Happening::Held { .. }
            | Happening::Approved { .. }
            | Happening::Deleting
            | Happening::Removed => (None, None),
        };
        let (policies, why, by) = match &entry.happening {
            Happening::Held { policies, why } => (policies.as_slice(), Some(why.as_str()), None),
            Happening::Approved { by } => (&[][..], None, Some(by.as_str())),
            _ => (&[][..], None, None),
        };
        Self {
            sequence: entry.sequence,
            at: Millis(entry.at),
            event: entry.happening.as_str(),
            namespace: entry.key.namespace.as_str(),
            name: entry.key.name.as_str(),
            task_id: entry.task.to_string(),
            attempt,
            policies,
            why,
            by,
            outcome: outcome.map(OutcomeView::of),
        }
    }
}

/// A page of events.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventPage)]
pub(crate) struct EventPageView<'a> {
    /// The events, in order.
    items: Vec<EventView<'a>>,
    /// Say this as `after` to go on.
    next_after: u64,
}

/// Read the events of all tasks.
#[utoipa::path(
    get, path = "/events", tag = "events",
    params(
        EventsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "As a stream: go on behind the event with this id"),
    ),
    responses(
        (status = 200, description = "A page, or a stream whose ids are the numbers",
            content((EventPageView<'static> = "application/json"), (EventView<'static> = "text/event-stream"))),
        (status = 400, description = "The query cannot be read", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn all_events(
    State(state): Shared,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    answer(state, None, query, &headers).await
}

/// Read the events of one task.
#[utoipa::path(
    get, path = "/tasks/{name}/events", tag = "events",
    params(
        ("name" = String, Path, description = "The task's name"),
        EventsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "As a stream: go on behind the event with this id"),
    ),
    responses(
        (status = 200, description = "A page, or a stream whose ids are the numbers; the stream ends when the task is gone",
            content((EventPageView<'static> = "application/json"), (EventView<'static> = "text/event-stream"))),
        (status = 404, description = "No such task", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn task_events(
    State(state): Shared,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = key_of(&state, &name)?;
    let task = state.control.get(&key);
    let task = task.ok_or_else(|| Problem::no_such_task(&name))?;
    answer(state, Some(task.id), query, &headers).await
}

async fn answer(
    state: Arc<ApiState>,
    task: Option<TaskId>,
    query: EventsQuery,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let mut position = state.control.feed_position();
    let after = match query.after.as_deref() {
        None => 0,
        Some("latest") => *position.borrow_and_update(),
        Some(text) => query::number("after", text)?,
    };
    let follow = query
        .follow
        .as_deref()
        .map_or(Ok(false), |text| query::switch("follow", text))?;
    if follow || sse::is_wanted(headers) {
        let after = match sse::last_event_id(headers) {
            Some(id) => query::number("Last-Event-ID", id)?,
            None => after,
        };
        return Ok(stream(state, task, after, position));
    }
    let limit: usize = query
        .limit
        .map_or(Ok(DEFAULT_LIMIT), |text| query::number("limit", &text))?;
    if !(1..=MOST_PER_PAGE).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "the query's limit is between 1 and {MOST_PER_PAGE}"
        )));
    }
    let wait = query
        .wait
        .map_or(Ok(Duration::ZERO), |text| query::duration("wait", &text))?;
    let deadline = Instant::now() + wait.min(LONGEST_POLL);
    let mut seen = after;
    let entries = loop {
        let newest = *position.borrow_and_update();
        let entries = read(&state, seen, task, limit).await?;
        if !entries.is_empty() || !changed(&state, &mut position, deadline).await {
            break entries;
        }
        // Of another task's events only their number matters: nothing below it comes again.
        seen = seen.max(newest);
    };
    let view = EventPageView {
        next_after: entries.last().map_or(seen, |last| last.sequence),
        items: entries.iter().map(EventView::of).collect(),
    };
    Ok(body::json(StatusCode::OK, &view))
}

async fn read(
    state: &ApiState,
    after: u64,
    task: Option<TaskId>,
    most: usize,
) -> Result<Vec<FeedEntry>, Problem> {
    let read = state.control.feed(after, task, most).await;
    read.map_err(|message| {
        Problem::unavailable(format!("older events could not be read: {message}"))
    })
}

/// Whether there is something new before the deadline, and the daemon stays up.
async fn changed(state: &ApiState, position: &mut watch::Receiver<u64>, deadline: Instant) -> bool {
    tokio::select! {
        () = state.shutdown.cancelled() => false,
        changed = tokio::time::timeout_at(deadline, position.changed()) => {
            matches!(changed, Ok(Ok(())))
        }
    }
}

fn stream(
    state: Arc<ApiState>,
    task: Option<TaskId>,
    after: u64,
    position: watch::Receiver<u64>,
) -> Response {
    let heartbeat = state.limits.heartbeat;
    let watcher = Watcher {
        state,
        task,
        after,
        position,
        ready: VecDeque::from([sse::hello()]),
        over: false,
    };
    let events = futures::stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await?;
        Some((event, watcher))
    });
    sse::response(events, heartbeat)
}

struct Watcher {
    state: Arc<ApiState>,
    task: Option<TaskId>,
    after: u64,
    position: watch::Receiver<u64>,
    /// At most one page of events that wait to be sent.
    ready: VecDeque<Event>,
    /// The one task that is watched is gone.
    over: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over || self.state.shutdown.is_cancelled() {
                return None;
            }
            let newest = *self.position.borrow_and_update();
            match read(&self.state, self.after, self.task, DEFAULT_LIMIT).await {
                Ok(entries) if entries.is_empty() => {
                    self.after = self.after.max(newest);
                    tokio::select! {
                        () = self.state.shutdown.cancelled() => return None,
                        changed = self.position.changed() => changed.ok()?,
                    }
                }
                Ok(entries) => self.take(&entries),
                Err(problem) => {
                    // The client comes back with its last id, and misses nothing.
                    self.over = true;
                    return Some(sse::broken(&problem.message));
                }
            }
        }
    }

    fn take(&mut self, entries: &[FeedEntry]) {
        for entry in entries {
            self.after = entry.sequence;
            self.over |= self.task.is_some() && entry.happening == Happening::Removed;
            let view = EventView::of(entry);
            let event = sse::event(&entry.sequence.to_string(), view.event, &view);
            self.ready.push_back(event);
        }
    }
}
