//! The front of the queue: claims that wait, time limits that fire, workers that are
//! given up.
//!
//! Everything that matters is decided by the store; what is here may be killed at any
//! point, and another daemon on the same store goes on.

use std::sync::Arc;
use std::time::Duration;

use taskwright_model::{TaskId, Timestamp};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::port::{
    Claim, Claimed, Heartbeat, NewWorker, Notice, Notices, QueueStore, Registered, StoreError,
};
use crate::task::{QueuedTask, Tries};
use crate::worker::{Worker, WorkerId};

/// What the operator sets.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// How long a worker may be silent until it counts as offline and loses its tasks.
    pub heartbeat_timeout: Duration,
    /// How often, at least, time limits and leases are looked at.
    pub check_interval: Duration,
    /// Whether this daemon looks at them at all.
    pub checks: bool,
    /// How often a task is tried unless it says otherwise.
    pub tries: Tries,
    /// The time limit of a task that names none.
    pub time_limit: Duration,
    /// The priority of a task that names none.
    pub priority: f64,
    /// The `max_steps` of a task that names none.
    pub max_steps: u32,
    /// The model of a task that names none.
    pub default_model: String,
    /// Whether workers may have names of any form.
    pub free_worker_ids: bool,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            heartbeat_timeout: Duration::from_secs(60),
            check_interval: Duration::from_secs(60),
            checks: true,
            tries: Tries {
                failures: 1,
                losses: 3,
            },
            time_limit: Duration::from_secs(30 * 60),
            priority: 5.0,
            max_steps: 30,
            default_model: "gpt-4".to_owned(),
            free_worker_ids: false,
        }
    }
}

/// The longest that a claim waits.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How often a waiting claim looks again though nobody told it to: notices may be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The pause after a sweep that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Sweeps that follow each other without a pause.
const MOST_SWEEPS: u32 = 1000;

/// The queue's front. Clones share it.
#[derive(Clone)]
pub struct Queue {
    store: Arc<dyn QueueStore>,
    config: Arc<QueueConfig>,
    /// Something may be out of time sooner than was known.
    sooner: Arc<Notify>,
}

impl Queue {
    /// A queue over a store.
    #[must_use]
    pub fn new(store: Arc<dyn QueueStore>, config: QueueConfig) -> Self {
        Self {
            store,
            config: Arc::new(config),
            sooner: Arc::default(),
        }
    }

    /// The store, for everything that is one operation of it.
    #[must_use]
    pub fn store(&self) -> &dyn QueueStore {
        &*self.store
    }

    /// What the operator set.
    #[must_use]
    pub fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// Now, by the queue's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// Puts a worker on record, or anew.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn register(&self, mut worker: NewWorker) -> Result<Registered, StoreError> {
        worker.lease = self.config.heartbeat_timeout;
        let registered = self.store.register(worker).await?;
        if !registered.released.is_empty() {
            tracing::warn!(
                worker = %registered.worker.id,
                tasks = registered.released.len(),
                "a worker registered anew while it held tasks; they were taken from it"
            );
        }
        Ok(registered)
    }

    /// Hears from a worker.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn heartbeat(&self, worker: WorkerId, leaving: bool) -> Result<Worker, StoreError> {
        let heartbeat = Heartbeat {
            worker,
            leaving,
            lease: self.config.heartbeat_timeout,
        };
        Ok(self.store.heartbeat(heartbeat).await?.worker)
    }

    /// Gives a worker its next task; waits up to `wait` for one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn claim(
        &self,
        worker: &WorkerId,
        wait: Duration,
    ) -> Result<Option<QueuedTask>, StoreError> {
        // No longer than what the claim itself renewed lasts: whoever is answered with nothing comes
        // again, and is heard by that.
        let longest = LONGEST_WAIT.min(self.config.heartbeat_timeout / 4 * 3);
        let until = Instant::now() + wait.min(longest);
        // Before the first look, so that nothing comes in between.
        let mut notices = (!wait.is_zero()).then(|| self.store.notices());
        let mut lease = self.config.heartbeat_timeout;
        loop {
            let claim = Claim {
                worker: worker.clone(),
                lease,
            };
            let next = match self.store.claim(claim).await? {
                Claimed::Task(task) => {
                    if lease.is_zero() {
                        // Its holder has all of the time that it is told; a failure takes nothing
                        // of what it has.
                        let _ = self.heartbeat(worker.clone(), false).await;
                    }
                    self.sooner.notify_one();
                    return Ok(Some(*task));
                }
                Claimed::Full => None,
                Claimed::Nothing { next } => next,
            };
            // Whoever waits is not heard again by that: its machine may be gone meanwhile, and what
            // it holds must not wait for as long.
            lease = Duration::ZERO;
            let Some(notices) = notices.as_mut().filter(|_| Instant::now() < until) else {
                return Ok(None);
            };
            let pause = next.map_or(LOOK_AGAIN, |at| at.since(self.now()).min(LOOK_AGAIN));
            let again = Instant::now() + pause.max(Duration::from_millis(1));
            wait_for_work(notices, again.min(until)).await;
        }
    }

    /// Looks at time limits and leases until the daemon goes down: when the next one ends, and
    /// now and then because another daemon may have given out tasks.
    pub async fn watch_time(self, shutdown: CancellationToken) {
        if !self.config.checks {
            return;
        }
        while !shutdown.is_cancelled() {
            let next = self.sweep().await;
            let latest = Instant::now() + self.config.check_interval;
            let due = match next {
                Ok(Some(at)) => {
                    // A little later, so that it is over then by the store's clock too.
                    let left = at.since(self.now()) + Duration::from_millis(5);
                    (Instant::now() + left).min(latest)
                }
                Ok(None) => latest,
                Err(_) => Instant::now() + AFTER_FAILURE,
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep_until(due) => {}
                () = self.sooner.notified() => {
                    // A claim moves the next end at most to its own, which is later than this:
                    // looking takes from the store what claims need.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Ends what is out of time; answers when the next time is up.
    async fn sweep(&self) -> Result<Option<Timestamp>, StoreError> {
        for _ in 0..MOST_SWEEPS {
            let swept = self.store.sweep().await?;
            tell(
                "a task exceeded its time limit",
                "timeout",
                &swept.timed_out,
            );
            tell(
                "a task lost its worker and waits again",
                "requeued",
                &swept.requeued,
            );
            tell(
                "a task lost its worker for the last time",
                "lost",
                &swept.failed,
            );
            if !swept.more {
                return Ok(swept.next);
            }
        }
        Ok(None)
    }
}

fn tell(what: &str, kind: &'static str, tasks: &[TaskId]) {
    for task in tasks {
        tracing::warn!(%task, "{what}");
    }
    metrics::counter!("taskwright_queue_swept_total", "result" => kind)
        .increment(tasks.len() as u64);
}

/// Waits until there may be work.
async fn wait_for_work(notices: &mut Notices, until: Instant) {
    loop {
        match timeout_at(until, notices.recv()).await {
            Ok(Ok(Notice::Task(_))) => {}
            Ok(Ok(Notice::Work | Notice::Anything)) | Ok(Err(RecvError::Lagged(_))) | Err(_) => {
                return;
            }
            Ok(Err(RecvError::Closed)) => {
                sleep_until(until).await;
                return;
            }
        }
    }
}
