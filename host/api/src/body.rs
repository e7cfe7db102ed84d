//! Bodies, read within bounds of size and time, and the first JSON value in them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::problem::Problem;
use crate::room::{InRoom, Room, Taken};
use crate::state::ApiLimits;

/// How much of a body that is too large is read and thrown away, so that the client gets to
/// read the answer instead of a broken connection.
const MOST_DISCARDED: u64 = 256 * 1024 * 1024;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// The whole body, never more than [`ApiLimits::body_bytes`] of it in memory.
pub(crate) async fn read(
    mut body: Body,
    headers: &HeaderMap,
    limits: &ApiLimits,
    room: &Room,
) -> Result<Bytes, Problem> {
    let deadline = Instant::now() + limits.body_time;
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.body_bytes as u64) {
        // Who asks first has sent nothing yet, and need not.
        if headers.contains_key(EXPECT) {
            return Err(too_large(limits));
        }
        discard(body).await;
        return Err(too_large(limits));
    }
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    let mut taken = Taken::default();
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| {
            Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the body did not arrive within {} s",
                    limits.body_time.as_secs()
                ),
            )
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Problem::bad_request(format!("the body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + whole.len() + data.len() > limits.body_bytes {
            discard(body).await;
            return Err(too_large(limits));
        }
        room.take(&mut taken, first.len() + whole.len() + data.len())?;
        // Most bodies are one frame: that is handed on as it is.
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
                first = Bytes::new();
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(if whole.is_empty() {
        taken.keep(first)
    } else {
        taken.keep(whole)
    })
}

/// Reads what a client still sends, within bounds, and throws it away.
async fn discard(mut body: Body) {
    let deadline = Instant::now() + DISCARD_TIME;
    let mut discarded = 0;
    while discarded < MOST_DISCARDED {
        let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await else {
            break;
        };
        discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}

fn too_large(limits: &ApiLimits) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {} bytes", limits.body_bytes),
    )
    .hint("send less, or raise the limit in the daemon's configuration")
}

/// The first JSON value of a body. What follows it is ignored, as the reference does: clients
/// that end their bodies with a newline, or with more, go on working.
pub(crate) fn first_value<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<T>();
    match values.next() {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(Problem::bad_request(format!(
            "the body is not the JSON that is expected here: {error}"
        ))),
        None => Err(Problem::bad_request("the body is empty").hint("send JSON")),
    }
}

/// JSON with the newline that every JSON answer ends in.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    json_within(Taken::default(), status, value)
}

/// The same, of which the room that it takes is given back once it was sent.
pub(crate) fn json_within(
    room: Taken,
    status: StatusCode,
    value: &impl serde::Serialize,
) -> Response {
    let mut bytes = Vec::with_capacity(1024);
    // Answers are structs of texts and numbers: writing them to memory cannot fail.
    if let Err(error) = serde_json::to_writer(&mut bytes, value) {
        tracing::error!(%error, "an answer could not be written as JSON");
    }
    bytes.push(b'\n');
    let is_held = !room.is_nothing();
    let mut response = Response::new(Body::from(room.keep(bytes)));
    *response.status_mut() = status;
    if is_held {
        response.extensions_mut().insert(InRoom);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
