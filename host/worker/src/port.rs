//! What a worker needs of the queue, wherever that is.

use std::time::Duration;

use futures::future::BoxFuture;
use taskwright_model::TaskId;
pub use taskwright_queue::port::Entry;
use taskwright_queue::port::ReportedEnd;
use taskwright_queue::{Json, NewLogEntry, WorkerId};

/// A task that a worker was given.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Which.
    pub task: TaskId,
    /// The number of the attempt, and the fencing number of the lease.
    pub attempt: u32,
    /// What is to be solved.
    pub problem: String,
    /// What the submitter said: an object.
    pub parameters: Json,
    /// How long the attempt may run.
    pub time_limit: Duration,
}

/// How a worker stands with the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Grows with every registration: another one than ours says that somebody else goes by
    /// this name.
    pub revision: u64,
    /// The tasks that it holds.
    pub running: Vec<TaskId>,
}

/// What a worker says of itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Its id.
    pub id: WorkerId,
    /// Its kind.
    pub backend_type: String,
    /// How many tasks it runs at a time.
    pub parallel: u32,
    /// Patterns of the problems it takes; none means every one.
    pub problems: Vec<String>,
    /// What else is worth knowing: an object.
    pub metadata: Json,
}

/// Why the queue did not do as it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// It does not know the worker.
    #[error("the queue does not know the worker any more")]
    Unknown,
    /// What is on record does not allow it: the task is not the worker's (any more), the name is
    /// taken. Asking again does not help.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached, or cannot do it now. Asking again may help.
    #[error("{0}")]
    Away(String),
}

/// An answer of the queue.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, QueueError>>;

/// The queue, as a worker sees it.
pub trait WorkQueue: Send + Sync + 'static {
    /// Registers. Where that may not be so, [`QueueError::Refused`].
    fn register(&self, who: Introduction, entry: Entry) -> Answer<'_, Standing>;

    /// How a worker stands; `None` where the queue does not know it.
    fn standing(&self, worker: &WorkerId) -> Answer<'_, Option<Standing>>;

    /// Says that a worker is alive, or goes.
    fn heartbeat(&self, worker: &WorkerId, leaving: bool) -> Answer<'_, Standing>;

    /// Asks for a task; waits up to `wait` for one.
    fn claim(&self, worker: &WorkerId, wait: Duration) -> Answer<'_, Option<Assignment>>;

    /// The present attempt at a task that runs; `None` where it does not.
    fn assignment(&self, task: TaskId) -> Answer<'_, Option<Assignment>>;

    /// Says how an attempt ended.
    fn report(
        &self,
        worker: &WorkerId,
        task: TaskId,
        attempt: u32,
        end: ReportedEnd,
    ) -> Answer<'_, ()>;

    /// Hands over lines of an attempt.
    fn log(
        &self,
        worker: &WorkerId,
        task: TaskId,
        attempt: u32,
        lines: Vec<NewLogEntry>,
    ) -> Answer<'_, ()>;
}
