//! Server-sent events, read by a thread so that every wait for one has a deadline.

use std::io::{self, BufRead, BufReader};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::client::{Connection, read_chunk};

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its kind; empty where the stream does not say.
    pub event: String,
    /// Its id; empty where the stream does not say.
    pub id: String,
    /// Its data, lines joined.
    pub data: String,
}

/// An open stream. Dropped, it closes the connection.
#[derive(Debug)]
pub struct EventStream {
    connection: Connection,
    events: Receiver<ServerEvent>,
}

impl EventStream {
    pub(crate) fn new(
        connection: Connection,
        reader: BufReader<Connection>,
        chunked: bool,
    ) -> Self {
        let (sender, events) = channel();
        std::thread::spawn(move || {
            let lines = Lines {
                reader,
                chunked,
                pending: Vec::new(),
            };
            // Its end is the end of the channel; readers see that.
            let _ended = forward(lines, &sender);
        });
        Self { connection, events }
    }

    /// The next event; `None` when the stream ended.
    ///
    /// # Panics
    /// When nothing comes within `deadline`.
    pub fn next_within(&self, deadline: Duration) -> Option<ServerEvent> {
        match self.events.recv_timeout(deadline) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no event within {deadline:?}"),
        }
    }

    /// Reads until an event satisfies `wanted`; answers with all that were read.
    ///
    /// # Panics
    /// When that does not happen within `deadline`, or the stream ends before.
    pub fn until(
        &self,
        deadline: Duration,
        wanted: impl Fn(&ServerEvent) -> bool,
    ) -> Vec<ServerEvent> {
        let begun = Instant::now();
        let mut seen: Vec<ServerEvent> = Vec::new();
        loop {
            let left = deadline.saturating_sub(begun.elapsed());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    let last = wanted(&event);
                    seen.push(event);
                    if last {
                        return seen;
                    }
                }
                Err(error) => panic!("{error} while waiting for an event; seen: {seen:#?}"),
            }
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.connection.shut_down();
    }
}

struct Lines {
    reader: BufReader<Connection>,
    chunked: bool,
    pending: Vec<u8>,
}

impl Lines {
    /// The next line without its end; `None` after the last.
    fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(Some(
                    String::from_utf8_lossy(&line)
                        .trim_end_matches(['\r', '\n'])
                        .to_owned(),
                ));
            }
            let more = if self.chunked {
                read_chunk(&mut self.reader)?.unwrap_or_default()
            } else {
                let got = self.reader.fill_buf()?.to_vec();
                self.reader.consume(got.len());
                got
            };
            if more.is_empty() {
                return Ok(None);
            }
            self.pending.extend(more);
        }
    }
}

fn forward(mut lines: Lines, sender: &Sender<ServerEvent>) -> io::Result<()> {
    let mut event = ServerEvent::default();
    let mut last_id = String::new();
    while let Some(line) = lines.next()? {
        if line.is_empty() {
            if event != ServerEvent::default() {
                event.id.clone_from(&last_id);
                if sender.send(std::mem::take(&mut event)).is_err() {
                    return Ok(());
                }
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.event),
            "id" => value.clone_into(&mut last_id),
            "data" if event.data.is_empty() => value.clone_into(&mut event.data),
            "data" => {
                event.data.push('\n');
                event.data.push_str(value);
            }
            // Comments keep the connection alive; `retry` is for browsers.
            _ => {}
        }
    }
    Ok(())
}
