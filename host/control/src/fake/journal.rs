//! A journal in memory that can fail, be slow, and be read back as after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taskwright_model::{Task, TaskId};

use crate::port::{
    Batch, CommitError, FeedEntry, FeedHistory, IdempotencyRecord, Journal, Recovered,
};

/// A journal in memory. Clones share what was committed.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    batches: Vec<Batch>,
    tasks: BTreeMap<TaskId, Arc<Task>>,
    feed: Vec<FeedEntry>,
    keys: BTreeMap<String, IdempotencyRecord>,
    asked: usize,
    fail_next: usize,
    broken: Option<CommitError>,
    delay: Duration,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every batch that was kept, in order.
    #[must_use]
    pub fn batches(&self) -> Vec<Batch> {
        self.inner.lock().batches.clone()
    }

    /// How many batches were kept.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.inner.lock().batches.len()
    }

    /// How often a commit was asked for, kept or not.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.inner.lock().asked
    }

    /// The tasks as a replay of all batches gives them, by id.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.inner.lock().tasks.values().cloned().collect()
    }

    /// Every feed line that was kept.
    #[must_use]
    pub fn feed(&self) -> Vec<FeedEntry> {
        self.inner.lock().feed.clone()
    }

    /// The next `commits` commits fail.
    pub fn fail_next(&self, commits: usize) {
        self.inner.lock().fail_next = commits;
    }

    /// Every commit fails because the disk is full, until [`MemoryJournal::mend`].
    pub fn fill_disk(&self) {
        self.inner.lock().broken = Some(CommitError {
            message: "no space left on device".into(),
            disk_full: true,
        });
    }

    /// Commits succeed again.
    pub fn mend(&self) {
        let mut inner = self.inner.lock();
        inner.broken = None;
        inner.fail_next = 0;
    }

    /// Every commit takes this long.
    pub fn set_delay(&self, delay: Duration) {
        self.inner.lock().delay = delay;
    }

    /// What a restart finds, with the newest `most_feed` feed lines.
    #[must_use]
    pub fn recover(&self, most_feed: usize) -> Recovered {
        let inner = self.inner.lock();
        let surplus = inner.feed.len().saturating_sub(most_feed);
        let last = inner.feed.last().map_or(0, |entry| entry.sequence);
        Recovered {
            tasks: inner.tasks.values().map(|task| Task::clone(task)).collect(),
            feed: inner.feed.iter().skip(surplus).cloned().collect(),
            next_sequence: last + 1,
            idempotency: inner.keys.values().cloned().collect(),
            damage: Vec::new(),
        }
    }

    fn take(&self, batch: &Batch) -> Result<(), CommitError> {
        let mut inner = self.inner.lock();
        inner.asked += 1;
        if let Some(error) = &inner.broken {
            return Err(error.clone());
        }
        if inner.fail_next > 0 {
            inner.fail_next -= 1;
            return Err(CommitError {
                message: "the test said so".into(),
                disk_full: false,
            });
        }
        for task in &batch.put {
            inner.tasks.insert(task.id, task.clone());
        }
        for id in &batch.remove {
            inner.tasks.remove(id);
        }
        for record in &batch.idempotency {
            inner.keys.insert(record.key.clone(), record.clone());
        }
        inner.feed.extend(batch.feed.iter().cloned());
        inner.batches.push(batch.clone());
        Ok(())
    }
}

impl Journal for MemoryJournal {
    async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let delay = self.inner.lock().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.take(batch)
    }
}

/// Reads old feed lines from a [`MemoryJournal`], and counts how often it was asked.
#[derive(Clone, Debug, Default)]
pub struct MemoryHistory {
    journal: MemoryJournal,
    reads: Arc<Mutex<usize>>,
}

impl MemoryHistory {
    /// The history of what `journal` keeps.
    #[must_use]
    pub fn of(journal: &MemoryJournal) -> Self {
        Self {
            journal: journal.clone(),
            reads: Arc::default(),
        }
    }

    /// How often it was read.
    #[must_use]
    pub fn reads(&self) -> usize {
        *self.reads.lock()
    }
}

impl FeedHistory for MemoryHistory {
    fn read(
        &self,
        after: u64,
        task: Option<TaskId>,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<FeedEntry>, CommitError>> {
        *self.reads.lock() += 1;
        let inner = self.journal.inner.lock();
        let wanted = |entry: &&FeedEntry| {
            entry.sequence > after && task.is_none_or(|task| entry.task == task)
        };
        let found = inner
            .feed
            .iter()
            .filter(wanted)
            .take(most)
            .cloned()
            .collect();
        Box::pin(std::future::ready(Ok(found)))
    }
}
