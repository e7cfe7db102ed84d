//! What the loop is told: requests, which may be refused, and facts, which may not.

use std::sync::Arc;
use std::time::Duration;

use taskwright_model::{
    Answer, AttemptNumber, Event, Namespace, Round, Task, TaskId, TaskKey, TaskName, Timestamp,
};
use tokio::sync::oneshot;

use crate::handle::Prepared;
use crate::request::{ControlError, SetAnswer, Submission, SubmitError, Submitted};

/// Something asked of the loop. Refused when the store cannot keep it.
pub enum Message {
    /// Accept a task.
    Submit {
        /// The checked task.
        prepared: Prepared,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Submitted, SubmitError>>,
        /// Where the end goes, if the client waits for it.
        waiter: Option<Waiter>,
    },
    /// Make a namespace hold these tasks.
    Set {
        /// Which namespace.
        namespace: Namespace,
        /// Checked tasks, to be made where missing.
        prepared: Vec<Prepared>,
        /// Tasks that were there when asked.
        present: Vec<Submission>,
        /// Names to be left alone.
        keep: Vec<TaskName>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<SetAnswer, ControlError>>,
    },
    /// Stop a task.
    Stop {
        /// Which.
        key: TaskKey,
        /// Another grace than the spec's.
        grace: Option<Duration>,
        /// Where the answer goes.
        reply: oneshot::Sender<TaskAnswer>,
    },
    /// Remove a task.
    Delete {
        /// Which.
        key: TaskKey,
        /// Where the answer goes.
        reply: oneshot::Sender<TaskAnswer>,
    },
    /// Somebody decides about what a policy asks.
    Answer {
        /// Which task.
        key: TaskKey,
        /// Which one of that name was meant, where whoever decides says so.
        id: Option<TaskId>,
        /// What was decided.
        answer: Answer,
        /// By whom.
        by: String,
        /// Why.
        reason: String,
        /// Where the answer goes.
        reply: oneshot::Sender<TaskAnswer>,
    },
    /// Tell when a task has ended.
    Wait {
        /// Which.
        id: TaskId,
        /// Where the answer goes.
        reply: Waiter,
    },
    /// Go down.
    Close,
}

/// The task after what was asked of it; `None` when there is none of that name.
pub type TaskAnswer = Result<Option<Arc<Task>>, ControlError>;

/// A client that waits for a task's end.
pub type Waiter = oneshot::Sender<TaskAnswer>;

/// Something that is so. Kept and said again until the store takes it.
#[derive(Clone, Debug)]
pub enum Fact {
    /// An event of a task.
    Event {
        /// Which task.
        task: TaskId,
        /// What happened.
        event: Event,
    },
    /// An attempt ended before anybody was told that it runs: both at once, so that they share a
    /// commit.
    Ran {
        /// Which task.
        task: TaskId,
        /// [`Event::Started`].
        started: Event,
        /// [`Event::AttemptEnded`].
        ended: Event,
    },
    /// Policies were asked before a launch.
    Reviewed {
        /// About which task.
        task: TaskId,
        /// What came of it.
        round: Box<Round>,
    },
    /// What was left of a task is gone.
    Removed(TaskId),
    /// When a task last printed something.
    Output {
        /// Which task.
        task: TaskId,
        /// When; `None` when never.
        seen: Option<Timestamp>,
    },
    /// A unit ended that no attempt waits for.
    StrayUnit {
        /// Whose it is.
        task: TaskId,
        /// In which attempt it was started.
        attempt: AttemptNumber,
    },
}
