//! Lines that a task's history consists of.

use taskwright_model::{TaskId, Timestamp};

use crate::json::Json;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogLevel {
    /// For whoever looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// What should not have happened.
    Warning,
    /// What failed.
    Error,
    /// What ended everything.
    Critical,
}

impl LogLevel {
    /// Each of them, the least first.
    pub const ALL: [Self; 5] = [
        Self::Debug,
        Self::Info,
        Self::Warning,
        Self::Error,
        Self::Critical,
    ];

    /// The word for it, on the wire and in stores.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// The level with this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }

    /// The level that programs mean by a word of theirs, in any case: `WARN`, `err`, `fatal`.
    #[must_use]
    pub fn meant_by(word: &str) -> Option<Self> {
        const WORDS: [(&str, LogLevel); 17] = [
            ("trace", LogLevel::Debug),
            ("debug", LogLevel::Debug),
            ("dbg", LogLevel::Debug),
            ("info", LogLevel::Info),
            ("information", LogLevel::Info),
            ("notice", LogLevel::Info),
            ("warn", LogLevel::Warning),
            ("warning", LogLevel::Warning),
            ("err", LogLevel::Error),
            ("error", LogLevel::Error),
            ("severe", LogLevel::Error),
            ("crit", LogLevel::Critical),
            ("critical", LogLevel::Critical),
            ("fatal", LogLevel::Critical),
            ("panic", LogLevel::Critical),
            ("alert", LogLevel::Critical),
            ("emerg", LogLevel::Critical),
        ];
        WORDS
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(word))
            .map(|(_, level)| level)
    }
}

/// A line to be kept.
#[derive(Clone, Debug)]
pub struct NewLogEntry {
    /// When it was said; the time of arrival where nobody told.
    pub at: Option<Timestamp>,
    /// How much it matters.
    pub level: LogLevel,
    /// What was said.
    pub message: String,
    /// What belongs to it: an object.
    pub context: Json,
}

/// A line on record.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Of which task.
    pub task: TaskId,
    /// Its number among the task's lines, from 1, without gaps.
    pub sequence: u64,
    /// Of which attempt at the task, where its writer told.
    pub attempt: Option<u32>,
    /// When it was said.
    pub at: Timestamp,
    /// How much it matters.
    pub level: LogLevel,
    /// What was said.
    pub message: String,
    /// What belongs to it: an object.
    pub context: Json,
}

impl LogEntry {
    /// The most lines of one task.
    pub const MOST: u64 = 10_000_000;

    /// An id of its own, made of the task's and the number.
    #[must_use]
    pub fn id(&self) -> TaskId {
        // The last 48 bits of an id are random: each number gives another id, and none of them
        // is that of a task made in the same millisecond, because the version is another.
        const VERSION: u128 = 0xf << 76;
        let mixed = self.task.as_u128() ^ u128::from(self.sequence);
        TaskId::from_u128((mixed & !VERSION) | (8 << 76))
    }
}

/// Lines of a task, in order.
#[derive(Clone, Debug, Default)]
pub struct LogsPart {
    /// The first ones of those that were asked for.
    pub lines: Vec<LogEntry>,
    /// Whether there may be others behind them.
    pub more: bool,
}

/// Which lines are asked for.
#[derive(Clone, Copy, Debug)]
pub struct LogQuery {
    /// Of which task.
    pub task: TaskId,
    /// Only lines of this level.
    pub level: Option<LogLevel>,
    /// Only lines said then or later.
    pub since: Option<Timestamp>,
    /// Only lines with larger numbers. The oldest of them are answered; without it, the newest.
    pub after: Option<u64>,
    /// At most so many, and fewer where those weigh more than 8 MiB.
    pub most: u32,
}

#[cfg(test)]
mod tests {
    //! Ids of lines, and words of programs.
    use super::*;

    #[test]
    fn lines_have_ids_of_their_own() {
        let task = TaskId::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000);
        let line = |sequence| LogEntry {
            task,
            sequence,
            attempt: None,
            at: Timestamp::from_millis(0),
            level: LogLevel::Info,
            message: String::new(),
            context: Json::empty_object(),
        };
        assert_ne!(line(1).id(), line(2).id());
        assert_ne!(line(1).id(), task);
        assert_eq!(
            line(1).id().to_string(),
            "01920000-0000-8000-8000-000000000001"
        );
    }

    #[test]
    fn programs_mean_levels_by_many_words() {
        assert_eq!(LogLevel::meant_by("WARN"), Some(LogLevel::Warning));
        assert_eq!(LogLevel::meant_by("Fatal"), Some(LogLevel::Critical));
        assert_eq!(LogLevel::meant_by("warp"), None);
    }
}
