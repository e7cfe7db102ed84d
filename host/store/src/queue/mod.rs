//! The durable queue: every operation written once, for two databases.
//!
//! | module | about |
//! |---|---|
//! | `sql` | statements as both databases take them |
//! | `schema` | tables, and how they came to be |
//! | `rows` | from rows to the queue's words |
//! | `ops` | the operations |
//! | `sqlite` | one file, one writer thread, group commit |
//! | `postgres` | a server that several daemons share, and its notices |
//! | `clock` | the time that all of them go by |

mod clock;
#[cfg(test)]
mod contract;
mod ops;
mod postgres;
mod rows;
mod schema;
mod sql;
mod sqlite;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::conversation::{
    ConversationQuery, ConversationUpdate, MessagesPart, NewMessage,
};
use taskwright_queue::export::{EndsOrdered, ExportPage, ExportQuery};
use taskwright_queue::log::{LogQuery, LogsPart};
use taskwright_queue::port::{
    Answer, Callback, Claim, Claimed, Created, Heard, Heartbeat, NewWorker, Notice, Notices,
    Registered, Report, StoreError, Swept, TaskPage, TaskQuery,
};
use taskwright_queue::stats::{ConversationStats, Counts, TaskStats, WorkerCounts, WorkerStats};
use taskwright_queue::step::{StepPage, StepQuery, StepsKept};
use taskwright_queue::{
    Attempt, Conversation, ConversationId, LogEntry, NewConversation, NewLogEntry, NewStep,
    NewTask, QueueStore, QueuedTask, Role, TaskStatus, Worker, WorkerId, Writer,
};
use tokio::sync::broadcast;

pub use clock::QueueClock;

/// The statements that a benchmark runs by other means for comparison, as PostgreSQL takes them,
/// with parameters `?1`.
pub mod statements {
    pub use super::ops::claims::CLAIM_POSTGRES;
    pub use super::ops::ends::COMPLETE_POSTGRES;
}

pub use postgres::without_password;

use ops::{
    callbacks, claims, conversations, ends, export, logs, steps, sweep, tasks, totals, workers,
};
use sql::{OpError, Operation};

/// Notices that a slow reader may be behind before it is told that some were lost.
const NOTICES_KEPT: usize = 4096;
/// Workers that are remembered between claims.
const MOST_KNOWN: usize = 10_000;

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenQueueError {
    /// The file could not be used.
    #[error("open the queue's file {}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        message: String,
    },
    /// The file is another program's.
    #[error("{} is a database of another program: move it away, or point --data-dir elsewhere", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// A later version of this program wrote it.
    #[error(
        "the queue in {place} was written by a newer taskwright (schema {found}, this one knows \
         {}): start that version, or use another store",
        schema::VERSION
    )]
    Newer {
        /// Where it is, without credentials.
        place: String,
        /// Its schema.
        found: i64,
    },
    /// The address is none.
    #[error("--store {text:?} is no address of a store: {message}")]
    Address {
        /// What was given, without credentials.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// The server could not be reached or refused.
    #[error("use PostgreSQL at {place}: {message}")]
    Server {
        /// Where it is, without credentials.
        place: String,
        /// What happened.
        message: String,
    },
}

/// Opens the queue in a file, which is made if need be. One process at a time may.
///
/// # Errors
/// Why it could not be opened; nothing in it was changed.
pub async fn open_sqlite(
    path: PathBuf,
    limits: QueueLimits,
) -> Result<Arc<dyn QueueStore>, OpenQueueError> {
    let clock = Arc::new(clock::LocalClock::new(clock::wall));
    open_sqlite_at(path, limits, clock).await
}

async fn open_sqlite_at(
    path: PathBuf,
    limits: QueueLimits,
    clock: Arc<dyn QueueClock>,
) -> Result<Arc<dyn QueueStore>, OpenQueueError> {
    let at = path.clone();
    let opening = tokio::task::spawn_blocking(move || sqlite::SqliteEngine::open(&path));
    let engine = opening.await.map_err(|error| OpenQueueError::File {
        path: at,
        message: error.to_string(),
    })??;
    let (notices, _) = broadcast::channel(NOTICES_KEPT);
    let nobody = Arc::new(|_| {});
    Ok(Arc::new(SqlQueue::new(
        engine, clock, limits, notices, nobody,
    )))
}

/// Opens the queue on a server, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, for this daemon and
/// others.
///
/// # Errors
/// Why it could not be used; nothing in it was changed.
pub async fn open_postgres(
    address: &str,
    limits: QueueLimits,
) -> Result<Arc<dyn QueueStore>, OpenQueueError> {
    open_postgres_at(address, limits, None).await
}

/// Goes by `clock` in place of the server's, where one is given.
async fn open_postgres_at(
    address: &str,
    limits: QueueLimits,
    clock: Option<Arc<dyn QueueClock>>,
) -> Result<Arc<dyn QueueStore>, OpenQueueError> {
    let (notices, _) = broadcast::channel(NOTICES_KEPT);
    let connected = postgres::connect(address, notices).await?;
    let clock = clock.unwrap_or(connected.clock);
    Ok(Arc::new(SqlQueue::new(
        connected.engine,
        clock,
        limits,
        connected.notices,
        connected.tell,
    )))
}

/// Runs operations on a database.
trait Engine: Clone + Send + Sync + 'static {
    /// Whether each statement is a journey to a server.
    const DISTANT: bool;

    fn run<O: Operation>(
        &self,
        operation: O,
    ) -> impl Future<Output = Result<O::Output, OpError>> + Send;
}

/// What a queue may hold.
#[derive(Clone, Debug)]
pub struct QueueLimits {
    /// Tasks that wait or run.
    pub waiting: u64,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            waiting: 10_000_000,
        }
    }
}

/// A queue over an engine. Clones share it.
struct SqlQueue<E> {
    engine: E,
    clock: Arc<dyn QueueClock>,
    limits: QueueLimits,
    notices: broadcast::Sender<Notice>,
    /// Workers as they were at their last claim.
    known: Arc<Mutex<HashMap<WorkerId, Arc<claims::Claimer>>>>,
    /// Tells others who share the store.
    tell: Arc<dyn Fn(Notice) + Send + Sync>,
}

impl<E: Engine> SqlQueue<E> {
    fn new(
        engine: E,
        clock: Arc<dyn QueueClock>,
        limits: QueueLimits,
        notices: broadcast::Sender<Notice>,
        tell: Arc<dyn Fn(Notice) + Send + Sync>,
    ) -> Self {
        Self {
            engine,
            clock,
            limits,
            notices,
            known: Arc::default(),
            tell,
        }
    }

    fn run<O: Operation>(&self, operation: O) -> Answer<'_, O::Output> {
        Box::pin(async move {
            let begun = std::time::Instant::now();
            let answer = self.engine.run(operation).await;
            metrics::histogram!("taskwright_queue_operation_seconds", "operation" => O::NAME)
                .record(begun.elapsed());
            answer.map_err(|error| {
                if let OpError::Sql(error) = &error {
                    tracing::error!(operation = O::NAME, %error, "the queue's store failed");
                }
                StoreError::from(error)
            })
        })
    }

    /// Tells here and elsewhere. That nobody listens is no failure.
    fn notice(&self, notice: Notice) {
        let _ = self.notices.send(notice);
        (self.tell)(notice);
    }

    /// Tells of tasks that were taken from their worker and may wait for another.
    fn released(&self, tasks: &[TaskId]) {
        for task in tasks {
            self.notice(Notice::Task(*task));
        }
        if !tasks.is_empty() {
            self.notice(Notice::Work);
        }
    }

    /// Tells of a change of a task.
    fn changed(&self, task: &QueuedTask) {
        self.notice(Notice::Task(task.id));
        if task.status == TaskStatus::Pending {
            self.notice(Notice::Work);
        }
    }
}

impl<E: Engine> QueueStore for SqlQueue<E> {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn notices(&self) -> Notices {
        self.notices.subscribe()
    }

    fn create(&self, task: NewTask) -> Answer<'_, Created> {
        Box::pin(async move {
            let create = tasks::Create {
                task,
                now: self.now(),
                most_waiting: self.limits.waiting,
            };
            let created = self.run(create).await?;
            if !created.repeated {
                self.changed(&created.task);
            }
            Ok(created)
        })
    }

    fn task(&self, id: TaskId) -> Answer<'_, Option<QueuedTask>> {
        self.run(tasks::Read(id))
    }

    fn task_revision(&self, id: TaskId) -> Answer<'_, Option<u64>> {
        self.run(tasks::Revision(id))
    }

    fn tasks(&self, query: TaskQuery) -> Answer<'_, TaskPage> {
        self.run(tasks::List(query))
    }

    fn attempts(&self, id: TaskId) -> Answer<'_, Vec<Attempt>> {
        self.run(tasks::Attempts(id))
    }

    fn cancel(&self, id: TaskId) -> Answer<'_, QueuedTask> {
        Box::pin(async move {
            let cancelled = self
                .run(tasks::Cancel {
                    id,
                    now: self.now(),
                })
                .await?;
            self.changed(&cancelled);
            Ok(cancelled)
        })
    }

    fn register(&self, worker: NewWorker) -> Answer<'_, Registered> {
        Box::pin(async move {
            let registered = self
                .run(workers::Register {
                    worker,
                    now: self.now(),
                })
                .await?;
            self.released(&registered.released);
            Ok(registered)
        })
    }

    fn worker(&self, id: WorkerId) -> Answer<'_, Option<Worker>> {
        self.run(workers::ReadOne(id))
    }

    fn workers(&self, most: u32) -> Answer<'_, Vec<Worker>> {
        self.run(workers::ReadAll(most))
    }

    fn worker_counts(&self) -> Answer<'_, WorkerCounts> {
        self.run(workers::Count { now: self.now() })
    }

    fn heartbeat(&self, heartbeat: Heartbeat) -> Answer<'_, Heard> {
        self.run(workers::Beat {
            heartbeat,
            now: self.now(),
        })
    }

    fn deregister(&self, id: WorkerId) -> Answer<'_, Vec<TaskId>> {
        Box::pin(async move {
            self.known.lock().remove(&id);
            let released = self
                .run(workers::Deregister {
                    id,
                    now: self.now(),
                })
                .await?;
            self.released(&released);
            Ok(released)
        })
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Claimed> {
        Box::pin(async move {
            let id = claim.worker.clone();
            let known = self.known.lock().get(&id).cloned();
            let now = self.now();
            let took = self.run(claims::Take { claim, now, known }).await?;
            {
                let mut known = self.known.lock();
                if known.len() >= MOST_KNOWN && !known.contains_key(&id) {
                    known.clear();
                }
                known.insert(id, took.claimer);
            }
            if let Claimed::Task(task) = &took.claimed {
                self.notice(Notice::Task(task.id));
            }
            Ok(took.claimed)
        })
    }

    fn report(&self, report: Report) -> Answer<'_, QueuedTask> {
        Box::pin(async move {
            let (report, now) = (Arc::new(report), self.now());
            if E::DISTANT {
                let report = report.clone();
                if let Some(ended) = self.run(ends::Complete { report, now }).await? {
                    self.changed(&ended);
                    return Ok(ended);
                }
            }
            let heard = self.run(ends::Hear { report, now }).await?;
            self.changed(&heard);
            Ok(heard)
        })
    }

    fn sweep(&self) -> Answer<'_, Swept> {
        Box::pin(async move {
            let swept = self.run(sweep::Sweep { now: self.now() }).await?;
            for task in swept.timed_out.iter().chain(&swept.failed) {
                self.notice(Notice::Task(*task));
            }
            self.released(&swept.requeued);
            Ok(swept)
        })
    }

    fn append_logs(
        &self,
        task: TaskId,
        writer: Option<Writer>,
        lines: Vec<NewLogEntry>,
    ) -> Answer<'_, u64> {
        Box::pin(async move {
            let append = logs::Append {
                task,
                writer,
                lines,
                now: self.now(),
            };
            let last = self.run(append).await?;
            self.notice(Notice::Task(task));
            Ok(last)
        })
    }

    fn append_steps(
        &self,
        task: TaskId,
        writer: Option<Writer>,
        steps: Vec<NewStep>,
    ) -> Answer<'_, StepsKept> {
        Box::pin(async move {
            let append = steps::Append {
                task,
                writer,
                steps,
                now: self.now(),
            };
            let kept = self.run(append).await?;
            self.notice(Notice::Task(task));
            Ok(kept)
        })
    }

    fn steps(&self, query: StepQuery) -> Answer<'_, StepPage> {
        self.run(steps::Read(query))
    }

    fn logs(&self, query: LogQuery) -> Answer<'_, Vec<LogEntry>> {
        self.run(logs::Read(query))
    }

    fn begin_conversation(&self, conversation: NewConversation) -> Answer<'_, Conversation> {
        self.run(conversations::Begin {
            conversation,
            now: self.now(),
        })
    }

    fn append_messages(
        &self,
        conversation: ConversationId,
        writer: Option<Writer>,
        messages: Vec<NewMessage>,
    ) -> Answer<'_, Conversation> {
        let now = self.now();
        self.run(conversations::Say {
            id: conversation,
            writer,
            messages,
            now,
        })
    }

    fn update_conversation(
        &self,
        conversation: ConversationId,
        writer: Option<Writer>,
        update: ConversationUpdate,
    ) -> Answer<'_, Conversation> {
        self.run(conversations::Update {
            id: conversation,
            writer,
            update,
        })
    }

    fn conversation(&self, id: ConversationId) -> Answer<'_, Option<Conversation>> {
        self.run(conversations::ReadOne(id))
    }

    fn conversations(&self, query: ConversationQuery) -> Answer<'_, (Vec<Conversation>, u64)> {
        self.run(conversations::List(query))
    }

    fn messages(
        &self,
        conversation: ConversationId,
        role: Option<Role>,
        from: u64,
        most: u32,
    ) -> Answer<'_, MessagesPart> {
        self.run(conversations::Messages {
            id: conversation,
            role,
            from,
            most,
        })
    }

    fn order_ends(&self, until: Timestamp) -> Answer<'_, EndsOrdered> {
        self.run(export::OrderEnds { until })
    }

    fn export_page(&self, query: ExportQuery) -> Answer<'_, ExportPage> {
        self.run(export::Page(query))
    }

    fn conversations_after(
        &self,
        task: TaskId,
        after: Option<ConversationId>,
    ) -> Answer<'_, Vec<Conversation>> {
        self.run(export::ConversationsAfter { task, after })
    }

    fn logs_after(&self, task: TaskId, after: u64, bytes: usize) -> Answer<'_, LogsPart> {
        self.run(export::LogsAfter { task, after, bytes })
    }

    fn counts(&self) -> Answer<'_, Counts> {
        self.run(totals::CountAll)
    }

    fn task_stats(&self) -> Answer<'_, TaskStats> {
        self.run(totals::Tasks)
    }

    fn worker_stats(&self, id: WorkerId) -> Answer<'_, WorkerStats> {
        self.run(totals::OfWorker(id))
    }

    fn conversation_stats(&self) -> Answer<'_, ConversationStats> {
        self.run(totals::Conversations)
    }

    fn callbacks_due(&self, most: u32) -> Answer<'_, Vec<Callback>> {
        self.run(callbacks::Due {
            now: self.now(),
            most,
        })
    }

    fn callback_done(&self, task: TaskId) -> Answer<'_, ()> {
        self.run(callbacks::Done(task))
    }
}
