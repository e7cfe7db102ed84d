//! A JSON answer that is made while it is sent, for lists that may weigh more than there is
//! memory for. One part of it is in memory at a time.
//!
//! What breaks on the way cannot be told any more: the connection is cut, so that nobody takes
//! what there is for the whole.

use std::io;
use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures::{Stream, StreamExt as _};
use serde::Serialize;

use crate::problem::Problem;
use crate::room::{Room, Taken};

/// What an answer in parts takes in memory: a part as it was read, and the JSON of it. A part that
/// is one heavy thing may weigh more.
const ROOM: usize = 16 << 20;

/// Elements of a list.
#[derive(Default)]
pub(crate) struct Part {
    /// Each with a comma before it.
    json: Vec<u8>,
    elements: u64,
}

impl Part {
    pub(crate) fn of<T: Serialize>(elements: impl IntoIterator<Item = T>) -> Self {
        let mut part = Self::default();
        for element in elements {
            part.json.push(b',');
            // Elements are structs of texts and numbers: writing them to memory cannot fail.
            if let Err(error) = serde_json::to_writer(&mut part.json, &element) {
                tracing::error!(%error, "a part of an answer could not be written as JSON");
            }
            part.elements = part.elements.saturating_add(1);
        }
        part
    }
}

/// The beginning of an object in JSON, whose last field is the list of this name.
pub(crate) fn open(fields: &impl Serialize, list: &str) -> String {
    let fields = serde_json::to_string(fields).unwrap_or_else(|error| {
        // A struct of texts and numbers, as above.
        tracing::error!(%error, "the beginning of an answer could not be written as JSON");
        "{}".to_owned()
    });
    let fields = fields.strip_suffix('}').unwrap_or_default();
    let comma = if fields == "{" { "" } else { "," };
    format!("{fields}{comma}\"{list}\":[")
}

/// An answer of `head`, the elements, and a tail that is told how many there were.
///
/// # Errors
/// There is no room for it.
pub(crate) fn answer<S, T>(
    room: &Room,
    head: String,
    parts: S,
    tail: T,
) -> Result<Response, Problem>
where
    S: Stream<Item = Result<Part, Problem>> + Send + 'static,
    T: FnOnce(u64) -> String + Send + 'static,
{
    let mut taken = Taken::default();
    room.take(&mut taken, ROOM)?;
    let begin = Making {
        parts: Box::pin(parts),
        tail: Some(tail),
        told: 0,
        _room: taken,
    };
    let rest = futures::stream::try_unfold(begin, async |mut making| {
        let piece = making.next().await.map_err(broken)?;
        Ok(piece.map(|piece| (piece, making)))
    });
    let head = futures::stream::once(std::future::ready(Ok::<_, io::Error>(Bytes::from(head))));
    let mut response = Response::new(Body::from_stream(head.chain(rest)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

struct Making<S, T> {
    parts: Pin<Box<S>>,
    /// Until it is told.
    tail: Option<T>,
    told: u64,
    _room: Taken,
}

impl<S, T> Making<S, T>
where
    S: Stream<Item = Result<Part, Problem>>,
    T: FnOnce(u64) -> String,
{
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.tail.is_none() {
            return Ok(None);
        }
        while let Some(part) = self.parts.next().await {
            let part = part?;
            if part.elements > 0 {
                let first = usize::from(self.told == 0);
                self.told = self.told.saturating_add(part.elements);
                return Ok(Some(Bytes::from(part.json).slice(first..)));
            }
        }
        let tail = self.tail.take();
        Ok(tail.map(|tail| Bytes::from(tail(self.told))))
    }
}

fn broken(problem: Problem) -> io::Error {
    tracing::warn!(message = problem.message, "an answer was cut off");
    io::Error::other(problem.message)
}

#[cfg(test)]
mod tests {
    //! Commas, counts, breaks and room.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use futures::stream;

    use super::*;

    async fn text(response: Response) -> Option<String> {
        let whole = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        whole
            .ok()
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn parts_make_one_list() {
        let room = Room::new(ROOM);
        let made = async |parts: Vec<Result<Part, Problem>>| {
            let tail = |told: u64| format!("],\"total\":{told}}}");
            let made = answer(&room, "{\"all\":[".to_owned(), stream::iter(parts), tail);
            text(made.unwrap()).await
        };
        let part = |numbers: &[u8]| Ok(Part::of(numbers));
        let all = vec![part(&[]), part(&[1, 2]), part(&[]), part(&[3])];
        assert_eq!(made(all).await.unwrap(), r#"{"all":[1,2,3],"total":3}"#);
        assert_eq!(made(Vec::new()).await.unwrap(), r#"{"all":[],"total":0}"#);
        let cut = vec![part(&[1]), Err(Problem::unavailable("away")), part(&[2])];
        assert_eq!(made(cut).await, None, "nobody takes it for the whole");
    }

    #[test]
    fn the_list_is_the_last_field() {
        let of = |fields: serde_json::Value| open(&fields, "all");
        assert_eq!(of(serde_json::json!({})), r#"{"all":["#);
        assert_eq!(of(serde_json::json!({"a": {}})), r#"{"a":{},"all":["#);
    }

    #[tokio::test]
    async fn each_has_room_until_it_is_over() {
        let room = Room::new(ROOM);
        let made = || answer(&room, "[".to_owned(), stream::empty(), |_| "]".to_owned());
        let first = made().unwrap();
        assert_eq!(made().unwrap_err().status.as_u16(), 503);
        assert_eq!(text(first).await.unwrap(), "[]");
        assert!(made().is_ok());
    }
}
