//! Who asks for work, what it can do, whether it is alive.

use std::fmt;

use globset::{Glob, GlobBuilder, GlobMatcher};
use taskwright_model::{TaskId, Timestamp};

use crate::json::Json;

/// A worker's name: `worker-NNN-kind` (contracts/aiopslab.md, 2.2), or, where the operator
/// allows it, any name of up to 100 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(String);

impl WorkerId {
    /// The longest free name.
    pub const MOST: usize = 100;

    /// Reads one of the documented form.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text
            .strip_prefix("worker-")
            .and_then(|rest| rest.strip_suffix("-kind"));
        match digits {
            Some(digits) if digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(
                "a worker id is \"worker-\", three digits and \"-kind\", as \
                      worker-001-kind"
                    .to_owned(),
            ),
        }
    }

    /// Reads one of any form that stores and URLs can carry.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse_free(text: &str) -> Result<Self, String> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let first = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.len() <= Self::MOST && text.bytes().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "a worker id begins with a letter or digit and has up to {} letters, digits, \"-\", \
             \"_\" and \".\"",
            Self::MOST
        ))
    }

    /// The id with this number, from 0 to 999.
    #[must_use]
    pub fn numbered(number: u16) -> Self {
        Self(format!("worker-{:03}-kind", number % 1000))
    }

    /// What a store of ours wrote.
    #[must_use]
    pub fn from_store(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a worker can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How many tasks it holds at a time: 1 to [`Capabilities::MOST_PARALLEL`].
    pub max_parallel: u32,
    /// The problems it takes; all of them when empty. See [`Problems`].
    pub problems: Vec<String>,
    /// What it said of itself, whole.
    pub document: Json,
}

impl Capabilities {
    /// The most tasks a worker holds at a time.
    pub const MOST_PARALLEL: u32 = 1000;
    /// The most patterns, and the longest, in bytes.
    pub const MOST_PROBLEMS: usize = 1000;
    /// The longest pattern, in bytes.
    pub const LONGEST_PROBLEM: usize = 255;
}

/// What a worker is doing, as far as the record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkerStatus {
    /// It may claim.
    Idle,
    /// It holds a task.
    Busy,
    /// It was silent for too long, or said that it goes.
    Offline,
}

impl WorkerStatus {
    /// Each of them, in the order in which they are told.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Busy, Self::Offline];

    /// The word for it on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Offline => "offline",
        }
    }

    /// The status with this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }
}

/// A worker as it is on record.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its name.
    pub id: WorkerId,
    /// Its kind.
    pub backend_type: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What else it said of itself.
    pub metadata: Json,
    /// When it came.
    pub registered_at: Timestamp,
    /// When it was heard last.
    pub last_heartbeat: Timestamp,
    /// Until when it is taken to be alive without being heard: the end of its leases.
    pub alive_until: Timestamp,
    /// Whether it said that it goes.
    pub leaving: bool,
    /// Tasks it brought to a result.
    pub completed: u64,
    /// Tasks it did not.
    pub failed: u64,
    /// The tasks it holds, the newest last.
    pub running: Vec<TaskId>,
    /// Grows with every registration.
    pub revision: u64,
}

impl Worker {
    /// What it is doing at `now`. The record of what it holds outweighs what it says.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> WorkerStatus {
        if now >= self.alive_until {
            WorkerStatus::Offline
        } else if !self.running.is_empty() {
            WorkerStatus::Busy
        } else if self.leaving {
            WorkerStatus::Offline
        } else {
            WorkerStatus::Idle
        }
    }
}

/// Which problems a worker takes. A pattern with `*`, `?` or `[` is a glob over the whole id,
/// any other text is to occur in it; none at all means every problem.
#[derive(Clone, Debug, Default)]
pub struct Problems(Vec<Pattern>);

#[derive(Clone, Debug)]
enum Pattern {
    Substring(String),
    Glob(GlobMatcher),
}

impl Problems {
    /// Reads patterns.
    ///
    /// # Errors
    /// Which one cannot be read, and why.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, String> {
        patterns
            .iter()
            .map(|pattern| Pattern::parse(pattern.as_ref()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether every problem is taken.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one is.
    #[must_use]
    pub fn takes(&self, problem: &str) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|pattern| match pattern {
                Pattern::Substring(text) => problem.contains(text.as_str()),
                Pattern::Glob(glob) => glob.is_match(problem),
            })
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(['*', '?', '[']) {
            return Ok(Self::Substring(text.to_owned()));
        }
        let fault = |error: &globset::Error| format!("{text:?} is no pattern: {}", error.kind());
        // Braces and backslashes mean nothing here, as in the contract.
        let literal = text.replace('{', "[{]").replace('}', "[}]");
        let glob: Glob = GlobBuilder::new(&literal)
            .backslash_escape(false)
            .build()
            .map_err(|error| fault(&error))?;
        Ok(Self::Glob(glob.compile_matcher()))
    }
}

#[cfg(test)]
mod tests {
    //! Names, patterns, and what a worker is taken to be doing.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ids_are_read_strictly_and_freely() {
        assert_eq!(
            WorkerId::parse("worker-007-kind").unwrap(),
            WorkerId::numbered(7)
        );
        for bad in [
            "",
            "worker-7-kind",
            "worker-0007-kind",
            "worker-00a-kind",
            "worker-001-kind\n",
        ] {
            assert!(WorkerId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(WorkerId::parse_free("gpu-box.17_b").is_ok());
        for bad in ["", ".a", "a b", "a/b", "a\0", &"x".repeat(101)] {
            assert!(WorkerId::parse_free(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patterns_are_globs_or_parts() {
        let takes =
            |patterns: &[&str], problem: &str| Problems::parse(patterns).unwrap().takes(problem);
        assert!(takes(&[], "anything"));
        assert!(takes(&["test-*"], "test-1"));
        assert!(!takes(&["test-*"], "a-test-1"));
        assert!(takes(&["test"], "a-test-1"));
        assert!(takes(&["x", "?-test-[0-9]"], "a-test-1"));
        assert!(!takes(&["?-test-[!0-9]"], "a-test-1"));
        assert!(!takes(&["*{1,2}"], "a1"));
        assert!(!takes(&["zzz"], "a-test-1"));
        assert!(Problems::parse(&["a["]).is_err());
    }

    #[test]
    fn the_record_outweighs_what_a_worker_says() {
        let now = Timestamp::from_millis(1000);
        let mut worker = Worker {
            id: WorkerId::numbered(1),
            backend_type: "kind".to_owned(),
            capabilities: Capabilities {
                max_parallel: 1,
                problems: Vec::new(),
                document: Json::empty_object(),
            },
            metadata: Json::empty_object(),
            registered_at: now,
            last_heartbeat: now,
            alive_until: Timestamp::from_millis(2000),
            leaving: false,
            completed: 0,
            failed: 0,
            running: Vec::new(),
            revision: 1,
        };
        assert_eq!(worker.status(now), WorkerStatus::Idle);
        worker.leaving = true;
        assert_eq!(worker.status(now), WorkerStatus::Offline);
        worker.running.push(TaskId::from_u128(1));
        assert_eq!(worker.status(now), WorkerStatus::Busy);
        assert_eq!(worker.status(worker.alive_until), WorkerStatus::Offline);
    }
}
