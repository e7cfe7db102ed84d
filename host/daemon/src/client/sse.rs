//! Event streams (`text/event-stream`), as the HTML standard defines them.

use std::time::Duration;

use anyhow::{anyhow, bail};
use bytes::BytesMut;
use http_body_util::BodyExt as _;

use super::http::Answer;

/// The longest line that is taken. Output comes in chunks far below that.
const MOST_LINE_BYTES: usize = 16 << 20;
/// How long a stream may be silent; heartbeats come much more often.
const MOST_SILENCE: Duration = Duration::from_secs(90);

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its id, to go on after it.
    pub(crate) id: Option<String>,
    /// Its kind; empty for plain messages.
    pub(crate) kind: String,
    /// Its data.
    pub(crate) data: String,
}

/// Bytes to events.
#[derive(Debug, Default)]
struct Parser {
    buffer: BytesMut,
    pending: Event,
    has_data: bool,
}

/// A stream of events.
pub(crate) struct Events {
    answer: Answer,
    parser: Parser,
}

impl Events {
    /// Reads `answer` as events.
    pub(crate) fn new(answer: Answer) -> Self {
        Self {
            answer,
            parser: Parser::default(),
        }
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// When the connection broke or fell silent.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.next()? {
                return Ok(Some(event));
            }
            let frame = self.answer.response.body_mut().frame();
            let frame = tokio::time::timeout(MOST_SILENCE, frame)
                .await
                .map_err(|_| anyhow!("the stream fell silent"))?;
            let Some(frame) = frame.transpose()? else {
                return Ok(None);
            };
            if let Ok(data) = frame.into_data() {
                self.parser.buffer.extend_from_slice(&data);
            }
        }
    }
}

impl Parser {
    /// The next event that is complete.
    fn next(&mut self) -> anyhow::Result<Option<Event>> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(end + 1);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = String::from_utf8_lossy(line).into_owned();
            if let Some(event) = self.line(&line) {
                return Ok(Some(event));
            }
        }
        if self.buffer.len() > MOST_LINE_BYTES {
            bail!("a line of the stream is longer than {MOST_LINE_BYTES} bytes");
        }
        Ok(None)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.pending);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.pending.id = Some(value.to_owned()),
            "event" => {
                value.clone_into(&mut self.pending.kind);
                self.has_data = true;
            }
            "data" => {
                if !self.pending.data.is_empty() {
                    self.pending.data.push('\n');
                }
                self.pending.data.push_str(value);
                self.has_data = true;
            }
            // Comments (heartbeats), `retry`, and what is not known yet.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn check(pieces: &[&str], expected: &[(&str, &str, &str)]) {
        let mut parser = Parser::default();
        let mut got = Vec::new();
        for piece in pieces {
            parser.buffer.extend_from_slice(piece.as_bytes());
            while let Some(event) = parser.next().unwrap() {
                got.push((event.id.unwrap_or_default(), event.kind, event.data));
            }
        }
        let got: Vec<_> = got
            .iter()
            .map(|(id, kind, data)| (id.as_str(), kind.as_str(), data.as_str()))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn events_are_put_together_from_pieces() {
        check(
            &[
                "id: 4\nevent: out",
                "put\ndata: a\ndata: b\n\n: beat\n\n",
                "data:c\r\n\r\n",
            ],
            &[("4", "output", "a\nb"), ("", "", "c")],
        );
    }

    #[test]
    fn half_an_event_is_none() {
        check(&["data: a\n"], &[]);
    }
}
