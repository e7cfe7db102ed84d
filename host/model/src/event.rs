//! What may happen to a task, what it makes us do, and what watchers are told.

use std::sync::Arc;
use std::time::Duration;

use crate::deadline::Due;
use crate::id::AttemptNumber;
use crate::outcome::Outcome;
use crate::review::{Answer, Round};
use crate::task::{ProcessIdentity, Remarks};

/// Something that happened, said to the machine in [`crate::state::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The dispatcher chose this task: limits and order allow its next attempt.
    Launched,
    /// The strategy started the attempt and says what it waits for.
    Started {
        /// Of which attempt this speaks.
        attempt: AttemptNumber,
        /// The main process, where there is one.
        process: Option<ProcessIdentity>,
        /// What the strategy wants kept.
        strategy_state: Arc<[u8]>,
        /// What people are to see of it.
        remarks: Remarks,
    },
    /// The strategy heard of something and goes on waiting.
    Progressed {
        /// Of which attempt this speaks.
        attempt: AttemptNumber,
        /// What the strategy wants kept.
        strategy_state: Arc<[u8]>,
        /// What people are to see of it.
        remarks: Remarks,
    },
    /// The attempt is over.
    AttemptEnded {
        /// Of which attempt this speaks.
        attempt: AttemptNumber,
        /// How it ended by itself. While stopping, the reason of the stop wins and only
        /// the exit is taken from here.
        outcome: Outcome,
        /// What people are to see of it.
        remarks: Remarks,
    },
    /// Policies were asked before a launch.
    Reviewed(Box<Round>),
    /// Somebody decided about what a policy asked.
    Answered {
        /// What was decided.
        answer: Answer,
        /// By whom.
        by: String,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// Somebody wants it stopped.
    StopRequested {
        /// Another grace than the spec's, if somebody asked for one.
        grace: Option<Duration>,
    },
    /// Somebody wants it gone.
    DeleteRequested,
    /// Its next moment came ([`crate::deadline::next_due`]).
    Due(Due),
}

/// What the caller of the machine must do once the new state is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the strategy to start this attempt.
    Start(AttemptNumber),
    /// Ask the strategy to stop this attempt: TERM, `grace`, KILL, the whole tree.
    Stop {
        /// Which attempt.
        attempt: AttemptNumber,
        /// Time between TERM and KILL.
        grace: Duration,
    },
    /// End everything this attempt started, without asking the strategy.
    Terminate(AttemptNumber),
    /// The attempt's end is on record: what was kept to report it may be forgotten.
    /// What a normal end left running stays.
    Release(AttemptNumber),
    /// End whatever is left of it and remove its record and its files.
    Remove,
    /// Tell the watchers.
    Tell(Happening),
}

/// One line of the feed: what became true of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Accepted.
    Submitted,
    /// Policies hold it back.
    Held {
        /// The policies.
        policies: Vec<String>,
        /// What they ask, or why they gave no verdict.
        why: String,
    },
    /// Somebody decided that it may run.
    Approved {
        /// Who; nobody when the question's time was over.
        by: String,
    },
    /// An attempt was launched.
    Launched(AttemptNumber),
    /// An attempt runs.
    Running(AttemptNumber),
    /// A stop began.
    Stopping(AttemptNumber),
    /// An attempt ended and another will be made.
    Retrying {
        /// The attempt that ended.
        attempt: AttemptNumber,
        /// How it ended.
        outcome: Outcome,
    },
    /// The task ended.
    Ended(Outcome),
    /// Somebody asked for its removal.
    Deleting,
    /// Its record and its files are gone.
    Removed,
}

impl Happening {
    /// The word for it in JSON and in event streams.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Held { .. } => "held",
            Self::Approved { .. } => "approved",
            Self::Launched(_) => "launched",
            Self::Running(_) => "running",
            Self::Stopping(_) => "stopping",
            Self::Retrying { .. } => "retrying",
            Self::Ended(_) => "ended",
            Self::Deleting => "deleting",
            Self::Removed => "removed",
        }
    }
}

/// Why an event changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It speaks of an attempt that has not begun.
    #[error("no attempt of the task has begun")]
    NotStarted,
    /// It speaks of an attempt that is over.
    #[error("it speaks of another attempt than the present one")]
    OtherAttempt,
    /// An ended task never leaves its end.
    #[error("the task has ended")]
    AlreadyEnded,
    /// An attempt is being made already.
    #[error("an attempt is being made already")]
    AlreadyStarted,
    /// Policies hold it back.
    #[error("policies hold the task back")]
    Held,
    /// Nobody asks anything about it.
    #[error("no policy asks anything about the task")]
    NotAsked,
    /// What was due is no longer due.
    #[error("nothing is due")]
    NotDue,
}
