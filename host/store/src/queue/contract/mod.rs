//! What every store of the queue must do: one suite, run against each of them.
//!
//! PostgreSQL is a real server in a folder of its own, started once for the whole
//! run; each test has a database of its own in it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod claiming;
mod exporting;
mod keeping;
mod moving;
mod planning;
mod reporting;
mod secure;
mod sharing;
mod summing;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::port::{
    Claim, Claimed, Entry, Heartbeat, NewWorker, Registered, Report, ReportedEnd, StoreError,
};
use taskwright_queue::task::Tries;
use taskwright_queue::{
    Capabilities, Cause, Json, NewTask, ProblemId, QueueStore, QueuedTask, Worker, WorkerId,
};

use taskwright_test_postgres::Server;

use super::{QueueClock, QueueLimits, open_sqlite_at};

pub(super) const LEASE: Duration = Duration::from_secs(60);

/// A clock that tests set.
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    pub(super) fn pass(&self, time: Duration) {
        self.0
            .fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl QueueClock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A store under test, and what it stands on.
pub(super) struct Stage {
    pub(super) store: Arc<dyn QueueStore>,
    pub(super) clock: Arc<TestClock>,
    made: AtomicU64,
    _directory: Option<tempfile::TempDir>,
}

impl Stage {
    pub(super) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(1_700_000_000_000)));
        let path = directory.path().join("queue.db");
        let limits = QueueLimits { waiting: 1000 };
        let store = open_sqlite_at(path, limits, clock.clone()).await.unwrap();
        Self {
            store,
            clock,
            made: AtomicU64::new(0),
            _directory: Some(directory),
        }
    }

    /// `None` where no server can be had, which only CI takes for a failure.
    pub(super) async fn postgres() -> Option<Self> {
        let address = database()?;
        let clock = Arc::new(TestClock(AtomicI64::new(1_700_000_000_000)));
        let limits = QueueLimits { waiting: 1000 };
        let store =
            super::open_postgres_at(&address, limits, Some(clock.clone() as Arc<dyn QueueClock>))
                .await
                .unwrap();
        Some(Self {
            store,
            clock,
            made: AtomicU64::new(0),
            _directory: None,
        })
    }

    /// A task to be queued, each of another id.
    pub(super) fn new_task(&self) -> NewTask {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        NewTask {
            id: TaskId::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)),
            problem_id: ProblemId::parse("test-problem-1").unwrap(),
            parameters: Json::parse(r#"{"max_steps": 30}"#).unwrap(),
            priority: 5.0,
            backend_type: None,
            time_limit: Duration::from_secs(1800),
            tries: Tries {
                failures: 1,
                losses: 3,
            },
            callback_url: None,
            idempotency: None,
        }
    }

    pub(super) async fn queue(&self, change: impl FnOnce(&mut NewTask)) -> QueuedTask {
        let mut task = self.new_task();
        change(&mut task);
        self.store.create(task).await.unwrap().task
    }

    pub(super) async fn register(
        &self,
        number: u16,
        change: impl FnOnce(&mut NewWorker),
    ) -> WorkerId {
        let mut worker = Self::new_worker(number);
        change(&mut worker);
        self.store.register(worker).await.unwrap().worker.id
    }

    pub(super) async fn try_register(
        &self,
        number: u16,
        entry: Entry,
    ) -> Result<Registered, StoreError> {
        let worker = NewWorker {
            entry,
            ..Self::new_worker(number)
        };
        self.store.register(worker).await
    }

    fn new_worker(number: u16) -> NewWorker {
        NewWorker {
            entry: Entry::Anew,
            id: WorkerId::numbered(number),
            backend_type: "kind".to_owned(),
            capabilities: Capabilities {
                max_parallel: 1,
                problems: Vec::new(),
                document: Json::empty_object(),
            },
            metadata: Json::empty_object(),
            lease: LEASE,
        }
    }

    pub(super) async fn claim(&self, worker: &WorkerId) -> Option<QueuedTask> {
        match self.claimed(worker).await {
            Claimed::Task(task) => Some(*task),
            Claimed::Nothing { .. } | Claimed::Full => None,
        }
    }

    pub(super) async fn claimed(&self, worker: &WorkerId) -> Claimed {
        let claim = Claim {
            worker: worker.clone(),
            lease: LEASE,
        };
        self.store.claim(claim).await.unwrap()
    }

    /// As a claim that waits looks again.
    pub(super) async fn claim_silently(&self, worker: &WorkerId) -> Option<QueuedTask> {
        let claim = Claim {
            worker: worker.clone(),
            lease: Duration::ZERO,
        };
        match self.store.claim(claim).await.unwrap() {
            Claimed::Task(task) => Some(*task),
            Claimed::Nothing { .. } | Claimed::Full => None,
        }
    }

    /// When the worker's lease ends.
    pub(super) async fn lease_of(&self, worker: &WorkerId) -> Timestamp {
        let found = self.store.worker(worker.clone()).await.unwrap().unwrap();
        found.alive_until
    }

    pub(super) async fn beat(&self, worker: &WorkerId) -> Worker {
        let heartbeat = Heartbeat {
            worker: worker.clone(),
            leaving: false,
            lease: LEASE,
        };
        self.store.heartbeat(heartbeat).await.unwrap().worker
    }

    pub(super) async fn complete(
        &self,
        worker: &WorkerId,
        task: &QueuedTask,
        result: &str,
    ) -> Result<QueuedTask, StoreError> {
        let result = Json::parse(result).unwrap();
        self.report(worker, task, ReportedEnd::Completed { result })
            .await
    }

    pub(super) async fn fail(
        &self,
        worker: &WorkerId,
        task: &QueuedTask,
        error: &str,
        cause: Cause,
    ) -> Result<QueuedTask, StoreError> {
        let end = ReportedEnd::Failed {
            error: error.to_owned(),
            document: None,
            cause,
        };
        self.report(worker, task, end).await
    }

    async fn report(
        &self,
        worker: &WorkerId,
        task: &QueuedTask,
        end: ReportedEnd,
    ) -> Result<QueuedTask, StoreError> {
        let report = Report {
            worker: worker.clone(),
            task: task.id,
            attempt: Some(task.attempt),
            end,
        };
        self.store.report(report).await
    }

    /// The task as it is now.
    pub(super) async fn now(&self, task: &QueuedTask) -> QueuedTask {
        self.store.task(task.id).await.unwrap().unwrap()
    }
}

/// The address of a new database on a server of this test program's own.
pub(super) fn database() -> Option<String> {
    had(Server::shared().and_then(Server::database))
}

/// What a server of PostgreSQL was needed for. Only CI takes it for a failure that there is none.
pub(super) fn had<T>(made: Result<T, impl std::fmt::Display>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{error:#}"),
        Err(error) => {
            eprintln!("skipped: {error:#}");
            None
        }
    }
}

/// Runs a test against each store.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(Stage::sqlite().await).await })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(stage) = Stage::postgres().await {
                    super::$name(stage).await;
                }
            })*
        }
    };
}
pub(super) use on_both;
