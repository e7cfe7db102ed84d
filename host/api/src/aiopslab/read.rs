//! Bodies, queries and ids, checked. What is wrong is a 422 that names each field.

use std::collections::HashMap;
use std::str::FromStr;

use axum::extract::Request;
use axum::http::StatusCode;
use serde_json::{Map, Value};
use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::{Json, WorkerId, Writer};

use crate::body;
use crate::problem::{FieldProblem, Problem};
use crate::state::ApiState;

/// The words of a query; the last of a name counts.
pub(super) type Words = HashMap<String, String>;

/// A 422 that names fields.
pub(super) fn unprocessable(details: Vec<FieldProblem>) -> Problem {
    let mut problem = Problem::invalid(details);
    problem.status = StatusCode::UNPROCESSABLE_ENTITY;
    problem
}

/// A 422 about one field. `at` is a JSON pointer into the body, `?name` a word of the query, or
/// `{name}` a part of the path.
pub(super) fn wrong(at: &str, message: impl Into<String>) -> Problem {
    unprocessable(vec![FieldProblem::new(at, message)])
}

/// The body as an object. An empty one counts as none.
pub(super) async fn object(
    state: &ApiState,
    request: Request,
) -> Result<Option<Map<String, Value>>, Problem> {
    let (head, incoming) = request.into_parts();
    let bytes = body::read(incoming, &head.headers, &state.limits, &state.room).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(wrong("", "the body must be a JSON object")),
        Err(error) => Err(wrong("", format!("the body is not JSON: {error}"))),
    }
}

/// The body as an object, which has to be there.
pub(super) async fn needed_object(
    state: &ApiState,
    request: Request,
) -> Result<Map<String, Value>, Problem> {
    let object = object(state, request).await?;
    object.ok_or_else(|| wrong("", "the body is empty: send a JSON object"))
}

/// The body, which has to be an object, as it was sent.
pub(super) async fn verbatim(state: &ApiState, request: Request) -> Result<Json, Problem> {
    let (head, incoming) = request.into_parts();
    let bytes = body::read(incoming, &head.headers, &state.limits, &state.room).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("", "the body is not UTF-8"))?;
    if !text.trim_start().starts_with('{') {
        return Err(wrong("", "the body must be a JSON object"));
    }
    Json::parse(text).map_err(|error| wrong("", format!("the body is not JSON: {error}")))
}

/// A field that is there and not null.
pub(super) fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// A text without NUL, of a length, which a field may hold.
pub(super) fn text(
    object: &Map<String, Value>,
    name: &str,
    most: usize,
) -> Result<Option<String>, FieldProblem> {
    let at = format!("/{name}");
    let Some(value) = field(object, name) else {
        return Ok(None);
    };
    let Some(text) = value.as_str() else {
        return Err(FieldProblem::new(at, "must be a text"));
    };
    check_text(text, most).map_err(|message| FieldProblem::new(at, message))?;
    Ok(Some(text.to_owned()))
}

/// Whether a text can be kept.
pub(super) fn check_text(text: &str, most: usize) -> Result<(), String> {
    if text.contains('\0') {
        return Err("must not contain a NUL character".to_owned());
    }
    let length = text.chars().count();
    if length == 0 || length > most {
        return Err(format!(
            "must have 1 to {most} characters, and has {length}"
        ));
    }
    Ok(())
}

/// An object, which a field may hold; `{}` where it is not there.
pub(super) fn inner_object(
    object: &Map<String, Value>,
    name: &str,
) -> Result<Map<String, Value>, FieldProblem> {
    match field(object, name) {
        None => Ok(Map::new()),
        Some(Value::Object(inner)) => Ok(inner.clone()),
        Some(_) => Err(FieldProblem::new(format!("/{name}"), "must be an object")),
    }
}

/// A time, which a field may hold.
pub(super) fn time(
    object: &Map<String, Value>,
    name: &str,
) -> Result<Option<Timestamp>, FieldProblem> {
    let at = format!("/{name}");
    match field(object, name) {
        None => Ok(None),
        Some(Value::String(text)) => match instant(text) {
            Some(time) => Ok(Some(time)),
            None => Err(FieldProblem::new(at, NO_TIME)),
        },
        Some(_) => Err(FieldProblem::new(at, NO_TIME)),
    }
}

const NO_TIME: &str = "must be a time in ISO 8601, as 2025-01-14T10:30:00Z";

/// Reads a time. One without an offset is taken to be UTC, as the original wrote it.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    let at = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

/// A whole number in a query, within bounds.
pub(super) fn number<T>(words: &Words, name: &str, least: T, most: T) -> Result<Option<T>, Problem>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let Some(text) = words.get(name) else {
        return Ok(None);
    };
    match text.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(Some(number)),
        _ => Err(wrong(
            &format!("?{name}"),
            format!("must be a whole number from {least} to {most}"),
        )),
    }
}

/// One of a few words in a query.
pub(super) fn word<T>(
    words: &Words,
    name: &str,
    known: impl Fn(&str) -> Option<T>,
    all: &str,
) -> Result<Option<T>, Problem> {
    match words.get(name) {
        None => Ok(None),
        Some(text) => match known(text) {
            Some(word) => Ok(Some(word)),
            None => Err(wrong(&format!("?{name}"), format!("must be one of {all}"))),
        },
    }
}

/// The id of a task or a conversation, as a part of the path.
pub(super) fn id(text: &str, name: &str) -> Result<TaskId, Problem> {
    TaskId::parse(text).map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        wrong(
            &format!("{{{name}}}"),
            format!("must be a UUID, and is {shown:?}"),
        )
    })
}

/// The id of a task or a conversation in a query.
pub(super) fn id_word(words: &Words, name: &str) -> Result<Option<TaskId>, Problem> {
    let Some(text) = words.get(name) else {
        return Ok(None);
    };
    match TaskId::parse(text) {
        Ok(id) => Ok(Some(id)),
        Err(_) => Err(wrong(&format!("?{name}"), "must be a UUID")),
    }
}

/// A UUID, which a field may hold.
pub(super) fn id_field(
    object: &Map<String, Value>,
    name: &str,
) -> Result<Option<TaskId>, FieldProblem> {
    match field(object, name) {
        None => Ok(None),
        Some(value) => match value.as_str().map(TaskId::parse) {
            Some(Ok(id)) => Ok(Some(id)),
            _ => Err(FieldProblem::new(format!("/{name}"), "must be a UUID")),
        },
    }
}

/// A worker's id. `at` says where it stands.
pub(super) fn worker(state: &ApiState, text: &str, at: &str) -> Result<WorkerId, Problem> {
    let read = if state.queue.config().free_worker_ids {
        WorkerId::parse_free(text)
    } else {
        WorkerId::parse(text)
    };
    read.map_err(|message| wrong(at, message))
}

/// Who writes, where the query or the body names it: `worker_id` and `attempt`.
pub(super) fn writer(
    state: &ApiState,
    words: &Words,
    body: &Map<String, Value>,
) -> Result<Option<Writer>, Problem> {
    let other = |name: &str| {
        let told = format!("must be the {name} of the query, where both are told");
        wrong(&format!("/{name}"), told)
    };
    let asked = number(words, "attempt", 1, u32::MAX)?;
    let told = match field(body, "attempt") {
        None => None,
        Some(value) => {
            let read = value.as_u64().and_then(|number| u32::try_from(number).ok());
            let read = read.filter(|attempt| *attempt > 0);
            let told = || wrong("/attempt", "must be a whole number from 1");
            Some(read.ok_or_else(told)?)
        }
    };
    let attempt = match (asked, told) {
        (Some(asked), Some(told)) if asked != told => return Err(other("attempt")),
        _ => asked.or(told),
    };
    let asked = words.get("worker_id").map(String::as_str);
    let (name, at) = match (asked, field(body, "worker_id")) {
        (None, None) => (None, "/worker_id"),
        (Some(asked), None) => (Some(asked), "?worker_id"),
        (None, Some(Value::String(told))) => (Some(told.as_str()), "/worker_id"),
        (Some(asked), Some(Value::String(told))) if asked == told => (Some(asked), "?worker_id"),
        (Some(_), Some(Value::String(_))) => return Err(other("worker_id")),
        (_, Some(_)) => return Err(wrong("/worker_id", "must be a text")),
    };
    match (name, attempt) {
        (Some(name), attempt) => Ok(Some(Writer {
            worker: worker(state, name, at)?,
            attempt,
        })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(wrong(at, "is required beside an attempt")),
    }
}

/// A new id: version 7, so that ids sort by time.
pub(super) fn new_id() -> TaskId {
    TaskId::from_u128(uuid::Uuid::now_v7().as_u128())
}
