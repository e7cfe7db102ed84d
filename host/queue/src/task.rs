//! A queued task, its attempts, how it ended.

use std::fmt;
use std::time::Duration;

use taskwright_model::{TaskId, Timestamp};

use crate::json::Json;
use crate::worker::WorkerId;

/// What is to be solved: 1 to 255 characters, the first a letter or digit, the others
/// letters, digits, `-` and `_` (contracts/aiopslab.md, 1.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProblemId(String);

impl ProblemId {
    /// The longest id, in characters.
    pub const MOST: usize = 255;

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > Self::MOST {
            return Err(format!(
                "a problem id has 1 to {} characters, this one {}",
                Self::MOST,
                text.chars().count()
            ));
        }
        let first = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.bytes().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(
            "a problem id begins with a letter or digit and consists of letters, digits, \"-\" \
             and \"_\""
                .to_owned(),
        )
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

impl fmt::Display for ProblemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a queued task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskStatus {
    /// It waits for a worker.
    Pending,
    /// A worker holds it.
    Running,
    /// Its worker said that it is done.
    Completed,
    /// Its worker gave up, or no worker could be kept.
    Failed,
    /// It ran longer than it may.
    Timeout,
    /// Somebody called it off.
    Cancelled,
}

impl TaskStatus {
    /// Each of them, in the order in which they are told.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Timeout,
        Self::Cancelled,
    ];

    /// The word for it, on the wire and in stores.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status with this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// Why an attempt, or a task, ended: whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The work itself ended so, and its worker told.
    Reported,
    /// The time limit of the task.
    TimeLimit,
    /// The worker was silent for longer than its lease.
    WorkerLost,
    /// The worker registered anew, as one does that was restarted.
    WorkerRestarted,
    /// Somebody called it off.
    Cancelled,
    /// The worker says that its machine failed, not the work.
    Infrastructure,
}

impl Cause {
    /// Each of them.
    pub const ALL: [Self; 6] = [
        Self::Reported,
        Self::TimeLimit,
        Self::WorkerLost,
        Self::WorkerRestarted,
        Self::Cancelled,
        Self::Infrastructure,
    ];

    /// The word for it, on the wire and in stores.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::TimeLimit => "time-limit",
            Self::WorkerLost => "worker-lost",
            Self::WorkerRestarted => "worker-restarted",
            Self::Cancelled => "cancelled",
            Self::Infrastructure => "infrastructure",
        }
    }

    /// The cause with this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }

    /// Whether the machine is to blame and not the work: such an attempt says nothing about
    /// whoever did the work, and is made again.
    #[must_use]
    pub const fn is_machines(self) -> bool {
        matches!(
            self,
            Self::WorkerLost | Self::WorkerRestarted | Self::Infrastructure
        )
    }
}

/// How often a task is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Attempts that may fail by the work's own doing; the last one ends the task.
    pub failures: u32,
    /// Attempts that may be lost to a machine.
    pub losses: u32,
}

impl Tries {
    /// The most of either.
    pub const MOST: u32 = 100;
}

/// A task to be queued. Its fields were checked.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Its id: version 7, or the client's own.
    pub id: TaskId,
    /// What is to be solved.
    pub problem_id: ProblemId,
    /// Everything the submitter said, defaults filled in.
    pub parameters: Json,
    /// Higher is sooner. Finite.
    pub priority: f64,
    /// The one kind of worker that may have it.
    pub backend_type: Option<String>,
    /// How long one attempt may run.
    pub time_limit: Duration,
    /// How often it is tried.
    pub tries: Tries,
    /// Where its end is told.
    pub callback_url: Option<String>,
    /// The client's key, and a digest of what it asked for under it.
    pub idempotency: Option<Idempotency>,
}

/// What makes a repeated submission the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's key.
    pub key: String,
    /// A digest of the request.
    pub fingerprint: String,
}

/// A queued task as it is on record.
#[derive(Clone, Debug)]
pub struct QueuedTask {
    /// Its id.
    pub id: TaskId,
    /// What is to be solved.
    pub problem_id: ProblemId,
    /// Everything the submitter said, defaults filled in.
    pub parameters: Json,
    /// Higher is sooner.
    pub priority: f64,
    /// The one kind of worker that may have it.
    pub backend_type: Option<String>,
    /// How long one attempt may run.
    pub time_limit: Duration,
    /// How often it is tried.
    pub tries: Tries,
    /// Where its end is told.
    pub callback_url: Option<String>,
    /// Where it is.
    pub status: TaskStatus,
    /// Who holds it, or held it last.
    pub worker: Option<WorkerId>,
    /// How often it was claimed. The number of the present attempt, and its fencing number:
    /// a report under a smaller one is refused.
    pub attempt: u32,
    /// Attempts that were lost to a machine.
    pub losses: u32,
    /// What its worker brought.
    pub result: Option<Json>,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// What else its worker told of a failure.
    pub error_document: Option<Json>,
    /// Why it ended.
    pub cause: Option<Cause>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// When its present attempt, or its last, was claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Before then no worker gets it.
    pub not_before: Timestamp,
    /// When its present attempt runs out of time.
    pub deadline: Option<Timestamp>,
    /// Grows with every change.
    pub revision: u64,
}

/// One attempt at a task that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// Who made it.
    pub worker: WorkerId,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How.
    pub end: AttemptEnd,
    /// Whose doing that was.
    pub cause: Cause,
    /// What went wrong, for people.
    pub error: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// With a result.
    Completed,
    /// Without.
    Failed,
    /// Out of time.
    Timeout,
    /// Called off.
    Cancelled,
    /// Nobody was there any more to say.
    Lost,
}

impl AttemptEnd {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Completed,
        Self::Failed,
        Self::Timeout,
        Self::Cancelled,
        Self::Lost,
    ];

    /// The word for it, on the wire and in stores.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }

    /// The end with this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.word() == word)
    }
}

/// What becomes of a task whose attempt did not bring a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It waits for a worker again, not before the pause is over.
    Again {
        /// How long no worker gets it.
        pause: Duration,
    },
    /// That was the last attempt.
    Over,
}

/// The pause after the first attempt that did not bring a result; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Decides whether a task is tried again, of which `attempts` were made, `losses` of them lost to
/// a machine, the last one for this cause.
#[must_use]
pub fn after(tries: Tries, attempts: u32, losses: u32, cause: Cause) -> After {
    let made = attempts.max(1);
    let again = match cause {
        Cause::Reported => made.saturating_sub(losses) < tries.failures,
        Cause::WorkerLost | Cause::WorkerRestarted | Cause::Infrastructure => losses < tries.losses,
        Cause::TimeLimit | Cause::Cancelled => false,
    };
    if !again {
        return After::Over;
    }
    let doubled = 2_u32.saturating_pow(made.saturating_sub(1).min(16));
    After::Again {
        pause: FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    //! What is a problem id, and when a task is tried again.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn problem_ids_are_read_strictly() {
        for good in [
            "a",
            "k8s_target_port-misconfig-detection-1",
            "0",
            &"x".repeat(255),
        ] {
            assert_eq!(ProblemId::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "_a",
            "a b",
            "a\n",
            "a\0",
            "ä",
            "a/b",
            &"x".repeat(256),
        ] {
            assert!(ProblemId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_failure_of_the_work_counts_against_its_own_limit() {
        let tries = Tries {
            failures: 2,
            losses: 1,
        };
        let first = after(tries, 1, 0, Cause::Reported);
        assert_eq!(
            first,
            After::Again {
                pause: Duration::from_secs(1)
            }
        );
        assert_eq!(after(tries, 2, 0, Cause::Reported), After::Over);
        // The first was lost: that was not the work's doing.
        let pause = Duration::from_secs(2);
        assert_eq!(after(tries, 2, 1, Cause::Reported), After::Again { pause });
    }

    #[test]
    fn losses_end_too_and_pauses_stay_bounded() {
        let tries = Tries {
            failures: 1,
            losses: 3,
        };
        for (losses, again) in [(1, true), (2, true), (3, false)] {
            let next = after(tries, losses, losses, Cause::WorkerLost);
            assert_eq!(next != After::Over, again, "{losses}");
        }
        let tries = Tries {
            failures: 100,
            losses: 100,
        };
        let After::Again { pause } = after(tries, 99, 0, Cause::Reported) else {
            unreachable!("99 of 100")
        };
        assert_eq!(pause, LONGEST_PAUSE);
        assert_eq!(after(tries, 1, 0, Cause::TimeLimit), After::Over);
        assert_eq!(after(tries, 1, 0, Cause::Cancelled), After::Over);
    }
}
