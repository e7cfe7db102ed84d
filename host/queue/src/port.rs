//! What a store does, one whole operation at a time.
//!
//! An operation is atomic and durable before it is answered. It decides by what
//! is on record, under locks of its own; no caller reads first and writes then.

use std::time::Duration;

use futures::future::BoxFuture;
use taskwright_model::{TaskId, Timestamp};
use tokio::sync::broadcast;

use crate::conversation::{
    Conversation, ConversationId, ConversationQuery, ConversationUpdate, MessagesPart,
    NewConversation, NewMessage, Role,
};
use crate::export::{EndsOrdered, ExportPage, ExportQuery};
use crate::json::Json;
use crate::log::{LogEntry, LogQuery, LogsPart, NewLogEntry};
use crate::stats::{ConversationStats, Counts, TaskStats, WorkerCounts, WorkerStats};
use crate::step::{NewStep, StepPage, StepQuery, StepsKept};
use crate::task::{Attempt, Cause, NewTask, ProblemId, QueuedTask, TaskStatus};
use crate::worker::{Capabilities, Worker, WorkerId};

/// Why an operation was not carried out. Nothing of it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such task.
    #[error("there is no task {0}")]
    NoSuchTask(TaskId),
    /// There is no such worker.
    #[error("there is no worker {0}: it has to register first")]
    NoSuchWorker(WorkerId),
    /// There is no such conversation.
    #[error("there is no conversation {0}")]
    NoSuchConversation(ConversationId),
    /// What is on record does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The key was used for another request.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// A bound of the queue is reached.
    #[error("{0}")]
    Full(String),
    /// It would be larger than it may.
    #[error("{0}")]
    TooLarge(String),
    /// More is asked of the store than it can take up.
    #[error("the queue's store is busy")]
    Busy,
    /// The store does not answer, or refuses; the reason is for the operator.
    #[error("the queue's store failed: {message}")]
    Failed {
        /// What happened, for the operator's log, never for clients.
        message: String,
        /// Whether the disk is full.
        disk_full: bool,
    },
}

/// A submission and what came of it.
#[derive(Clone, Debug)]
pub struct Created {
    /// The task on record.
    pub task: QueuedTask,
    /// Whether an earlier request under the same key had made it.
    pub repeated: bool,
}

/// Which tasks are asked for.
#[derive(Clone, Debug)]
pub struct TaskQuery {
    /// With this status.
    pub status: Option<TaskStatus>,
    /// Of this problem.
    pub problem: Option<ProblemId>,
    /// That this worker holds or held last.
    pub worker: Option<WorkerId>,
    /// In which order.
    pub order: TaskOrder,
    /// So many are left out first.
    pub offset: u64,
    /// At most so many.
    pub most: u32,
    /// Whether those that match are counted.
    pub count: bool,
}

/// By what a list is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKeyed {
    /// Submission.
    CreatedAt,
    /// The last change.
    UpdatedAt,
    /// The last claim.
    StartedAt,
    /// The end.
    CompletedAt,
    /// Priority.
    Priority,
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskOrder {
    /// By what.
    pub by: TaskKeyed,
    /// Whether the largest comes first.
    pub descending: bool,
}

/// A part of a list.
#[derive(Clone, Debug, Default)]
pub struct TaskPage {
    /// The tasks; where those asked for weigh more than 8 MiB, the first ones, at least one.
    pub tasks: Vec<QueuedTask>,
    /// Which the others are, in order.
    pub rest: Vec<TaskId>,
    /// How many match in all, if that was asked.
    pub total: Option<u64>,
}

/// A worker that registers.
#[derive(Clone, Debug)]
pub struct NewWorker {
    /// Its name.
    pub id: WorkerId,
    /// Its kind.
    pub backend_type: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What else it says of itself: an object.
    pub metadata: Json,
    /// How long it may be silent.
    pub lease: Duration,
    /// What it knows of an earlier life.
    pub entry: Entry,
}

/// What a worker that registers knows of an earlier life under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: tasks that are held under this name are taken from it.
    Anew,
    /// All of it: what is held under this name stays with it.
    Resumed,
    /// There may be none: a name that is in use is refused. One that was not heard of for
    /// [`NAME_KEPT`] is in use no more.
    Fresh,
}

/// How long the name of a worker that is silent is kept from others.
pub const NAME_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What a registration found.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The worker on record.
    pub worker: Worker,
    /// Tasks that it held before, as whoever was restarted does; each is tried again or failed.
    pub released: Vec<TaskId>,
}

/// A claim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who asks.
    pub worker: WorkerId,
    /// How long it may be silent from now on. Zero: it said nothing just now, an earlier claim of
    /// its only waits; then its lease stays as it is, and it gets nothing once that is over.
    pub lease: Duration,
}

/// What a claim brought.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// A task, now running and this worker's.
    Task(Box<QueuedTask>),
    /// Nothing that this worker takes is waiting. Where some wait for a pause to be over, its end.
    Nothing {
        /// When the next pause ends.
        next: Option<Timestamp>,
    },
    /// It holds as many as it can.
    Full,
}

/// What a worker says of a task it held.
#[derive(Clone, Debug)]
pub struct Report {
    /// Who says it.
    pub worker: WorkerId,
    /// Of which task.
    pub task: TaskId,
    /// The fencing number that the claim gave, if the worker tells it.
    pub attempt: Option<u32>,
    /// What it says.
    pub end: ReportedEnd,
}

/// How a worker's attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportedEnd {
    /// With this result: an object.
    Completed {
        /// Verbatim.
        result: Json,
    },
    /// Without.
    Failed {
        /// What went wrong, for people.
        error: String,
        /// What else was told: an object.
        document: Option<Json>,
        /// [`Cause::Reported`] or [`Cause::Infrastructure`].
        cause: Cause,
    },
}

/// Who writes something down of a task. Whoever is named has to hold the task, or to have ended it
/// itself; what a stale one writes is refused. The unnamed are taken at their word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The worker.
    pub worker: WorkerId,
    /// The fencing number that the claim gave, if the worker tells it.
    pub attempt: Option<u32>,
}

/// What a worker says of itself.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Who says it.
    pub worker: WorkerId,
    /// Whether it goes.
    pub leaving: bool,
    /// How long it may be silent from now on.
    pub lease: Duration,
}

/// What a heartbeat is answered.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The worker on record.
    pub worker: Worker,
}

/// What became of tasks whose time was up.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Tasks that ran out of time.
    pub timed_out: Vec<TaskId>,
    /// Tasks whose worker was lost, and wait again.
    pub requeued: Vec<TaskId>,
    /// Tasks whose worker was lost for the last time.
    pub failed: Vec<TaskId>,
    /// Whether there may be more of them.
    pub more: bool,
    /// When the next time is up.
    pub next: Option<Timestamp>,
}

/// What a callback has to tell, until it was told.
#[derive(Clone, Debug)]
pub struct Callback {
    /// Of which task.
    pub task: TaskId,
    /// To whom.
    pub url: String,
    /// How often it was tried.
    pub tries: u32,
}

/// That something may have changed. Sent after the change is durable; may come twice, and may be
/// late or missing after a failure, so whoever waits looks again now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// There may be work.
    Work,
    /// This task changed, or has more lines.
    Task(TaskId),
    /// Anything may have changed: notices were lost.
    Anything,
}

/// Where notices come from.
pub type Notices = broadcast::Receiver<Notice>;

/// An answer of a store.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A durable queue.
pub trait QueueStore: Send + Sync + 'static {
    /// Now, by the clock that all who share the store go by.
    fn now(&self) -> Timestamp;

    /// Notices from now on.
    fn notices(&self) -> Notices;

    /// Queues a task, or finds the one that the same key made.
    fn create(&self, task: NewTask) -> Answer<'_, Created>;

    /// One task.
    fn task(&self, id: TaskId) -> Answer<'_, Option<QueuedTask>>;

    /// The revision of one task, without the rest of it: for whoever looks whether it changed.
    fn task_revision(&self, id: TaskId) -> Answer<'_, Option<u64>>;

    /// A part of all tasks.
    fn tasks(&self, query: TaskQuery) -> Answer<'_, TaskPage>;

    /// The attempts at a task that are over, in order.
    fn attempts(&self, id: TaskId) -> Answer<'_, Vec<Attempt>>;

    /// Calls a task off.
    fn cancel(&self, id: TaskId) -> Answer<'_, QueuedTask>;

    /// Puts a worker on record, or anew.
    fn register(&self, worker: NewWorker) -> Answer<'_, Registered>;

    /// One worker.
    fn worker(&self, id: WorkerId) -> Answer<'_, Option<Worker>>;

    /// Every worker, by name, at most so many.
    fn workers(&self, most: u32) -> Answer<'_, Vec<Worker>>;

    /// How many workers there are, by what they are doing now.
    fn worker_counts(&self) -> Answer<'_, WorkerCounts>;

    /// Hears from a worker.
    fn heartbeat(&self, heartbeat: Heartbeat) -> Answer<'_, Heard>;

    /// Takes a worker off the record. What it held is tried again.
    fn deregister(&self, id: WorkerId) -> Answer<'_, Vec<TaskId>>;

    /// Gives a worker the next task that it may have.
    fn claim(&self, claim: Claim) -> Answer<'_, Claimed>;

    /// Hears how an attempt ended. The same report again changes nothing and is answered alike.
    fn report(&self, report: Report) -> Answer<'_, QueuedTask>;

    /// Ends what ran out of time and takes tasks from workers that are lost, a bounded number.
    fn sweep(&self) -> Answer<'_, Swept>;

    /// Keeps lines. They are numbered in the order given.
    fn append_logs(
        &self,
        task: TaskId,
        writer: Option<Writer>,
        lines: Vec<NewLogEntry>,
    ) -> Answer<'_, u64>;

    /// Reads lines, in order.
    fn logs(&self, query: LogQuery) -> Answer<'_, Vec<LogEntry>>;

    /// Keeps steps, all or none. A number that is known has to bring the same step.
    fn append_steps(
        &self,
        task: TaskId,
        writer: Option<Writer>,
        steps: Vec<NewStep>,
    ) -> Answer<'_, StepsKept>;

    /// Reads steps, in order; of large ones fewer than asked for.
    fn steps(&self, query: StepQuery) -> Answer<'_, StepPage>;

    /// Begins a conversation; one that is known by its id is answered as it is.
    fn begin_conversation(&self, conversation: NewConversation) -> Answer<'_, Conversation>;

    /// Keeps messages; answers how many the conversation has.
    fn append_messages(
        &self,
        conversation: ConversationId,
        writer: Option<Writer>,
        messages: Vec<NewMessage>,
    ) -> Answer<'_, Conversation>;

    /// Tells more of a conversation.
    fn update_conversation(
        &self,
        conversation: ConversationId,
        writer: Option<Writer>,
        update: ConversationUpdate,
    ) -> Answer<'_, Conversation>;

    /// One conversation.
    fn conversation(&self, id: ConversationId) -> Answer<'_, Option<Conversation>>;

    /// A part of all conversations, and how many match in all. Their configurations and metadata
    /// are left out.
    fn conversations(&self, query: ConversationQuery) -> Answer<'_, (Vec<Conversation>, u64)>;

    /// Messages with numbers from `from`, in order; at least one, and fewer than `most` where those
    /// weigh more than 8 MiB.
    fn messages(
        &self,
        conversation: ConversationId,
        role: Option<Role>,
        from: u64,
        most: u32,
    ) -> Answer<'_, MessagesPart>;

    /// Numbers tasks that ended by `until` and have no number yet: a bounded number of them, in the
    /// order of their ends.
    fn order_ends(&self, until: Timestamp) -> Answer<'_, EndsOrdered>;

    /// Reads tasks with what belongs to them.
    fn export_page(&self, query: ExportQuery) -> Answer<'_, ExportPage>;

    /// Conversations of a task behind this one, in the order of their ids; of large ones fewer.
    fn conversations_after(
        &self,
        task: TaskId,
        after: Option<ConversationId>,
    ) -> Answer<'_, Vec<Conversation>>;

    /// Lines with numbers above `after`, in order: at least one, and no more of them than weigh so
    /// many bytes.
    fn logs_after(&self, task: TaskId, after: u64, bytes: usize) -> Answer<'_, LogsPart>;

    /// How many tasks there are.
    fn counts(&self) -> Answer<'_, Counts>;

    /// Sums over tasks.
    fn task_stats(&self) -> Answer<'_, TaskStats>;

    /// Sums over one worker's tasks.
    fn worker_stats(&self, id: WorkerId) -> Answer<'_, WorkerStats>;

    /// Sums over conversations.
    fn conversation_stats(&self) -> Answer<'_, ConversationStats>;

    /// Callbacks that are due, each kept from others for a while.
    fn callbacks_due(&self, most: u32) -> Answer<'_, Vec<Callback>>;

    /// A callback was told, or is given up.
    fn callback_done(&self, task: TaskId) -> Answer<'_, ()>;
}
