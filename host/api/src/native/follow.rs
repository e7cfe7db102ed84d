//! Following what a task prints, piece by piece, until it has ended and everything was told.
//!
//! How a piece looks on the wire is the business of whoever tells it: events in
//! [`super::logs`], plain bytes in the Tessia dialect.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use taskwright_control::port::{OutputChunk, OutputError, Stream};
use taskwright_control::request::LONGEST_WAIT;
use taskwright_model::{Task, TaskKey};

use crate::problem::Problem;
use crate::state::ApiState;

/// The most bytes of one piece.
pub(crate) const PIECE_BYTES: usize = 32 * 1024;

/// A reader's place in one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) stream: Stream,
    pub(crate) next: u64,
    /// How far it was looked at without finding anything to tell.
    looked_at: u64,
}

impl Cursor {
    /// The place `next` of a stream.
    pub(crate) fn at(stream: Stream, next: u64) -> Self {
        Self {
            stream,
            next,
            looked_at: 0,
        }
    }
}

/// What a follower tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// Something was printed.
    Piece(Piece),
    /// It cannot be read on; the last word.
    Broken(String),
    /// The task has ended, or is gone, and everything was told; the last word.
    End(Vec<Cursor>),
}

/// A piece of one stream.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) stream: Stream,
    /// Where it begins, in bytes from the first ever printed.
    pub(crate) offset: u64,
    /// How much was dropped right before it, because the output is too long to keep.
    pub(crate) dropped: u64,
    pub(crate) bytes: Vec<u8>,
    /// The places in all streams behind it.
    pub(crate) behind: Vec<Cursor>,
}

/// Up to `most` bytes of a stream.
pub(crate) async fn read(
    state: &ApiState,
    key: &TaskKey,
    stream: Stream,
    offset: u64,
    most: usize,
) -> Result<OutputChunk, Problem> {
    let outputs = state.control.outputs();
    let read = outputs.read(key.clone(), stream, offset, most).await;
    read.map_err(|error| {
        let status = match error {
            OutputError::Replaced(_) => StatusCode::CONFLICT,
            OutputError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, error.to_string())
    })
}

/// How long a follower follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// To the end of what there is.
    Now,
    /// To the end of the task.
    Ended,
}

/// What `task` prints from `cursors` on, or until the daemon goes down.
pub(crate) fn follow(
    state: Arc<ApiState>,
    task: Arc<Task>,
    cursors: Vec<Cursor>,
    until: Until,
) -> BoxStream<'static, Told> {
    let follower = Follower {
        end: end_of(state.clone(), task.clone()),
        state,
        task,
        cursors,
        ready: VecDeque::new(),
        phase: match until {
            Until::Now => Phase::Ended,
            Until::Ended => Phase::Live,
        },
    };
    let told = futures::stream::unfold(follower, |mut follower| async {
        let told = follower.next().await?;
        Some((told, follower))
    });
    Box::pin(told)
}

/// How far a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The task may print more.
    Live,
    /// The task has ended; what it printed is being told.
    Ended,
    /// Everything was told.
    Over,
}

struct Follower {
    state: Arc<ApiState>,
    task: Arc<Task>,
    cursors: Vec<Cursor>,
    /// What waits to be told: at most one piece of each stream, and the last word.
    ready: VecDeque<Told>,
    phase: Phase,
    end: BoxFuture<'static, ()>,
}

/// Resolves when the task has ended or is gone.
fn end_of(state: Arc<ApiState>, task: Arc<Task>) -> BoxFuture<'static, ()> {
    /// The pause before asking again when too many wait already.
    const PAUSE: Duration = Duration::from_millis(500);
    let (id, key) = (task.id, task.key.clone());
    let goes_on = move |now: &Task| now.id == id && !now.state.is_ended();
    async move {
        loop {
            match state.control.wait(&key, LONGEST_WAIT).await {
                Ok(now) if !now.as_deref().is_some_and(&goes_on) => return,
                Ok(_) => {}
                Err(_) => {
                    let now = state.control.get(&key);
                    if !now.as_deref().is_some_and(&goes_on) || state.shutdown.is_cancelled() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    .boxed()
}

impl Follower {
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Some(told);
            }
            if self.phase == Phase::Over || self.state.shutdown.is_cancelled() {
                return None;
            }
            // Looked at before reading: what was printed before the end is then surely read.
            let phase = self.phase;
            if let Err(problem) = self.read_all(phase).await {
                self.phase = Phase::Over;
                return Some(Told::Broken(problem.message));
            }
            if !self.ready.is_empty() {
                continue;
            }
            match phase {
                Phase::Live => self.wait().await,
                Phase::Ended | Phase::Over => {
                    self.phase = Phase::Over;
                    self.ready.push_back(Told::End(self.cursors.clone()));
                }
            }
        }
    }

    /// Reads the next piece of each stream.
    async fn read_all(&mut self, phase: Phase) -> Result<(), Problem> {
        for index in 0..self.cursors.len() {
            let Some(cursor) = self.cursors.get(index).copied() else {
                continue;
            };
            let key = &self.task.key;
            let mut chunk = read(&self.state, key, cursor.stream, cursor.next, PIECE_BYTES).await?;
            if phase == Phase::Live {
                cut_half_character(&mut chunk.bytes);
            }
            let next = chunk.offset + chunk.bytes.len() as u64;
            let is_empty = chunk.bytes.is_empty();
            if let Some(place) = self.cursors.get_mut(index) {
                place.next = next.max(cursor.next);
                // Nothing to tell of what is there, as half a character or a hole: only what
                // comes after it is worth another look.
                place.looked_at = if is_empty { chunk.end } else { next };
            }
            if is_empty {
                continue;
            }
            self.ready.push_back(Told::Piece(Piece {
                stream: cursor.stream,
                offset: chunk.offset,
                dropped: chunk.offset.saturating_sub(cursor.next),
                bytes: chunk.bytes,
                behind: self.cursors.clone(),
            }));
        }
        Ok(())
    }

    /// Waits for more output, for the end of the task, or for the daemon to go down.
    async fn wait(&mut self) {
        let outputs = self.state.control.outputs();
        let heartbeat = self.state.limits.heartbeat;
        let grown = self.cursors.iter().map(|cursor| {
            let key = self.task.key.clone();
            let seen = cursor.next.max(cursor.looked_at);
            outputs.grown(key, cursor.stream, seen, heartbeat)
        });
        tokio::select! {
            () = &mut self.end => self.phase = Phase::Ended,
            _ = futures::future::select_all(grown) => {}
            () = self.state.shutdown.cancelled() => {}
        }
    }
}

/// Leaves an unfinished character at the end for the next piece, if there is anything before it.
fn cut_half_character(bytes: &mut Vec<u8>) {
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
        && error.valid_up_to() > 0
    {
        bytes.truncate(error.valid_up_to());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_characters_wait_for_their_other_half() {
        let check = |bytes: &[u8], expected: &[u8]| {
            let mut bytes = bytes.to_vec();
            cut_half_character(&mut bytes);
            assert_eq!(bytes, expected);
        };
        check("aé".as_bytes(), "aé".as_bytes());
        check(b"a\xc3", b"a");
        check(b"a\xff", b"a\xff");
        // Alone it is sent as it is, or a stray byte would stop the stream.
        check(b"\xc3", b"\xc3");
    }
}
