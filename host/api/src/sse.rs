//! Server-sent events: how a client that was cut off goes on where it was, and
//! how it knows that a silent stream is alive.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::header::{ACCEPT, CACHE_CONTROL};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// How long a client waits before it comes back.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Whether the client asks for a stream.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// The id of the last event that the client saw.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(&LAST_EVENT_ID)?;
    value.to_str().ok().filter(|text| !text.is_empty())
}

/// An event with JSON in it.
pub(crate) fn event(id: &str, name: &'static str, data: &impl serde::Serialize) -> Event {
    let event = Event::default().id(id).event(name);
    event.json_data(data).unwrap_or_else(|error| {
        // Data are structs of texts and numbers: writing them cannot fail.
        tracing::error!(%error, "an event could not be written as JSON");
        Event::default().comment("an event was lost")
    })
}

/// The last event of a stream that broke off. The client comes back by itself.
pub(crate) fn broken(message: &str) -> Event {
    // As JSON, because a message may hold line ends.
    let event = Event::default().event("error");
    event
        .json_data(message)
        .unwrap_or_else(|_| Event::default().event("error"))
}

/// The first thing on every stream.
pub(crate) fn hello() -> Event {
    Event::default().retry(RETRY).comment("taskwright")
}

/// A stream as a response, with a comment whenever `heartbeat` passes in silence.
pub(crate) fn response(
    events: impl Stream<Item = Event> + Send + 'static,
    heartbeat: Duration,
) -> Response {
    let events = futures::StreamExt::map(events, Ok::<_, Infallible>);
    let alive = KeepAlive::new().interval(heartbeat).text("alive");
    let mut response = Sse::new(events).keep_alive(alive).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect before they pass on would make a stream useless.
    headers.insert(NO_BUFFERING, HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_stream_is_asked_for_by_accept() {
        let check = |accept: &str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(is_wanted(&headers), expected, "{accept}");
        };
        check("text/event-stream", true);
        check("application/json, Text/Event-Stream;q=0.9", true);
        check("*/*", false);
        assert!(!is_wanted(&HeaderMap::new()));
    }
}
