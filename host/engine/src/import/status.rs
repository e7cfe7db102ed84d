//! `status`: what people see of an attempt beside its state.

use taskwright_model::{Part, PartState, Timestamp};

use crate::bindings::status::{Host, Part as Given, PartState as GivenState};
use crate::call::CallState;
use crate::convert::cut;

/// Bytes of a note.
const MOST_NOTE_BYTES: usize = 1 << 10;
/// Parts of an attempt.
const MOST_PARTS: usize = 32;
/// Bytes of a part's name, and of the word it waits with.
const MOST_WORD_BYTES: usize = 256;

impl Host for CallState {
    fn note(&mut self, mut text: String) -> wasmtime::Result<()> {
        if self.scope.attempt().is_some() {
            cut(&mut text, MOST_NOTE_BYTES);
            self.account.remarks.note = Some(text.into());
        }
        Ok(())
    }

    fn parts(&mut self, all: Vec<Given>) -> wasmtime::Result<()> {
        if self.scope.attempt().is_some() {
            self.account.remarks.parts = all.into_iter().take(MOST_PARTS).map(part).collect();
        }
        Ok(())
    }
}

fn part(given: Given) -> Part {
    let word = |mut text: String| {
        cut(&mut text, MOST_WORD_BYTES);
        text
    };
    Part {
        name: word(given.name),
        state: match given.state {
            GivenState::Waiting(why) => PartState::Waiting(word(why)),
            GivenState::Running(since) => PartState::Running(time(since)),
            GivenState::Ended(end) => PartState::Ended {
                code: end.code,
                out_of_memory: end.out_of_memory,
                started_at: end.started_ms.map(time),
                ended_at: time(end.ended_ms),
            },
        },
    }
}

/// A guest may say any number: one that is no time is the end of time.
fn time(millis: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}
