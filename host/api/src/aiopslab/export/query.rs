//! What is asked for, and the cursor.

use std::fmt;

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::export::{ExportParts, ProblemPattern};
use taskwright_queue::{ConversationId, Mark, TaskStatus, WorkerId};

use super::super::read::{self, Words};
use super::super::tasks::switch;
use crate::problem::Problem;
use crate::state::ApiState;

/// The longest name of a model, in characters.
const LONGEST_MODEL: usize = 255;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A line for each conversation.
    Chat,
    /// A line for each task.
    Tasks,
    /// One document.
    Document,
    /// Parquet.
    Columns,
}

impl Format {
    fn of_word(word: &str) -> Option<Self> {
        match word {
            "chat" => Some(Self::Chat),
            "tasks" => Some(Self::Tasks),
            "aiopslab" => Some(Self::Document),
            "parquet" => Some(Self::Columns),
            _ => None,
        }
    }

    /// Whether each conversation is a row, and not each task.
    pub(super) fn rows_are_conversations(self) -> bool {
        matches!(self, Self::Chat | Self::Columns)
    }

    /// What is read with each task.
    pub(super) fn parts(self) -> ExportParts {
        ExportParts {
            conversations: self != Self::Tasks,
            steps: self == Self::Tasks,
            logs: self == Self::Document,
        }
    }
}

/// A place in the order of ends: `NUMBER`, behind the task with that number, or
/// `NUMBER.CONVERSATION`, behind one of its conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The task's number.
    pub(super) number: u64,
    /// The conversation.
    pub(super) conversation: Option<ConversationId>,
}

impl Cursor {
    /// Behind a task.
    pub(super) fn behind(number: u64) -> Self {
        Self {
            number,
            conversation: None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, conversation) = match text.split_once('.') {
            Some((number, id)) => (number, Some(TaskId::parse(id).ok()?)),
            None => (text, None),
        };
        let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|number| *number < u64::MAX / 2);
        Some(Self {
            number: number.filter(|_| plain)?,
            conversation,
        })
    }

    /// The number behind which pages are read.
    pub(super) fn before(self) -> u64 {
        match self.conversation {
            Some(_) => self.number.saturating_sub(1),
            None => self.number,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.conversation {
            Some(conversation) => write!(f, "{}.{conversation}", self.number),
            None => write!(f, "{}", self.number),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) format: Format,
    pub(super) cursor: Cursor,
    pub(super) status: Option<TaskStatus>,
    pub(super) problem: Option<ProblemPattern>,
    pub(super) model: Option<String>,
    pub(super) worker: Option<WorkerId>,
    pub(super) validity: Option<Mark>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) open: bool,
    /// Tasks that the document holds already of which this is the rest.
    pub(super) continues: Option<u64>,
}

impl Asked {
    pub(super) fn read(state: &ApiState, words: &Words) -> Result<Self, Problem> {
        let formats = "chat, tasks, aiopslab, parquet";
        let format = read::word(words, "format", Format::of_word, formats)?;
        let format = format.unwrap_or(Format::Chat);
        let time = |name: &str| match words.get(name) {
            None => Ok(None),
            Some(text) => match read::instant(text) {
                Some(at) => Ok(Some(at)),
                None => Err(read::wrong(
                    &format!("?{name}"),
                    "must be a time in ISO 8601",
                )),
            },
        };
        let cursor = match words.get("cursor") {
            None => Cursor::behind(0),
            Some(text) => {
                let cursor = Cursor::parse(text);
                let told = "must be the cursor of a row or of the end of an export";
                cursor.ok_or_else(|| read::wrong("?cursor", told))?
            }
        };
        if cursor.conversation.is_some() && !format.rows_are_conversations() {
            let told = "is behind a conversation, and rows of this format are tasks";
            return Err(read::wrong("?cursor", told));
        }
        let problem = match words.get("problem") {
            None => None,
            Some(text) => {
                let parsed = ProblemPattern::parse(text);
                Some(parsed.map_err(|told| read::wrong("?problem", told))?)
            }
        };
        let model = words.get("model");
        if let Some(model) = model {
            read::check_text(model, LONGEST_MODEL).map_err(|told| read::wrong("?model", told))?;
        }
        let worker = match words.get("worker").or_else(|| words.get("worker_id")) {
            None => None,
            Some(text) => Some(read::worker(state, text, "?worker")?),
        };
        let ended = "completed, failed, timeout, cancelled, and with ended_only=false pending, \
                     running";
        let ended_only = read::word(words, "ended_only", switch, "true, false")?.unwrap_or(true);
        let status = |word: &str| {
            TaskStatus::of_word(word).filter(|status| status.is_ended() || !ended_only)
        };
        let continues = read::number(words, "continues", 0, u64::MAX / 2)?;
        if continues.is_some() && format != Format::Document {
            return Err(read::wrong(
                "?continues",
                "is for the format aiopslab alone",
            ));
        }
        Ok(Self {
            format,
            cursor,
            status: read::word(words, "status", status, ended)?,
            problem,
            model: model.cloned(),
            worker,
            validity: read::word(
                words,
                "validity",
                Mark::of_word,
                "valid, invalid, truncated",
            )?,
            since: time("since")?,
            until: time("until")?,
            open: !ended_only,
            continues,
        })
    }
}

#[cfg(test)]
mod tests {
    //! Cursors.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn cursors_come_back_as_they_were_told() {
        for text in ["0", "17", "17.01920000-0000-7000-8000-000000000001"] {
            assert_eq!(Cursor::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "-1",
            "+1",
            "1.",
            "1.x",
            "99999999999999999999",
            ".",
            " 1",
        ] {
            assert_eq!(Cursor::parse(text), None, "{text:?}");
        }
        let behind = Cursor::parse("17.01920000-0000-7000-8000-000000000001").unwrap();
        assert_eq!((behind.before(), Cursor::behind(17).before()), (16, 17));
    }
}
