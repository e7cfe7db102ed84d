//! Numbered events for watchers.
//!
//! The newest lines are in memory; older ones come from the store. Numbers
//! never repeat, so a reader that says the last number it saw misses nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use taskwright_model::{Happening, Task, TaskId};
use tokio::sync::watch;

use crate::core::Book;
use crate::port::{FeedEntry, FeedHistory};

/// Lines kept in memory.
pub const MOST_IN_MEMORY: usize = 8192;
/// Lines in one answer.
pub const MOST_PER_READ: usize = 1000;

/// The feed's newest end.
pub struct Feed {
    recent: RwLock<VecDeque<FeedEntry>>,
    position: watch::Sender<u64>,
    history: Arc<dyn FeedHistory>,
}

impl Feed {
    /// A feed whose newest lines are `recent`; the last committed number is `position`.
    #[must_use]
    pub fn new(recent: Vec<FeedEntry>, position: u64, history: Arc<dyn FeedHistory>) -> Self {
        Self {
            recent: RwLock::new(recent.into()),
            position: watch::Sender::new(position),
            history,
        }
    }

    /// Adds committed lines, in order.
    pub fn publish(&self, entries: Vec<FeedEntry>) {
        let Some(last) = entries.last().map(|entry| entry.sequence) else {
            return;
        };
        {
            let mut recent = self.recent.write();
            recent.extend(entries);
            let surplus = recent.len().saturating_sub(MOST_IN_MEMORY);
            recent.drain(..surplus);
        }
        self.position.send_replace(last);
    }

    /// The number of the newest line; changes whenever there is a new one.
    #[must_use]
    pub fn position(&self) -> watch::Receiver<u64> {
        self.position.subscribe()
    }

    /// Up to `most` lines numbered above `after`, of one task if given, in order.
    ///
    /// # Errors
    /// A sentence, when the store could not be read.
    pub async fn read(
        &self,
        after: u64,
        task: Option<TaskId>,
        most: usize,
    ) -> Result<Vec<FeedEntry>, String> {
        let most = most.min(MOST_PER_READ);
        if let Some(found) = self.read_recent(after, task, most) {
            return Ok(found);
        }
        let read = self.history.read(after, task, most).await;
        read.map_err(|error| error.to_string())
    }

    /// `None` when lines above `after` may no longer be in memory.
    fn read_recent(&self, after: u64, task: Option<TaskId>, most: usize) -> Option<Vec<FeedEntry>> {
        let recent = self.recent.read();
        let newest = *self.position.borrow();
        if after >= newest {
            return Some(Vec::new());
        }
        let oldest = recent.front()?.sequence;
        if oldest > after.saturating_add(1) {
            return None;
        }
        // Searched, not computed: a store that lost a damaged line leaves a gap.
        let skip = recent.partition_point(|entry| entry.sequence <= after);
        let wanted = |entry: &&FeedEntry| task.is_none_or(|task| entry.task == task);
        Some(
            recent
                .iter()
                .skip(skip)
                .filter(wanted)
                .take(most)
                .cloned()
                .collect(),
        )
    }
}

/// Counts what a page made true, for `/metrics`.
pub(crate) fn count(feed: &[FeedEntry], book: &Book) {
    for entry in feed {
        match &entry.happening {
            Happening::Submitted => {
                metrics::counter!("taskwright_tasks_submitted_total").increment(1);
            }
            Happening::Retrying { .. } => {
                metrics::counter!("taskwright_task_retries_total").increment(1);
            }
            Happening::Ended(outcome) => {
                let cause = outcome.cause();
                metrics::counter!("taskwright_tasks_finished_total", "cause" => cause).increment(1);
                book.get(entry.task)
                    .iter()
                    .for_each(|task| record_times(task));
            }
            _ => {}
        }
    }
}

fn record_times(task: &Task) {
    let Some(attempt) = task.attempt() else {
        return;
    };
    let queued = attempt.launched_at.since(task.submitted_at);
    metrics::histogram!("taskwright_task_queue_seconds").record(queued.as_secs_f64());
    let (Some(started), Some(ended)) = (attempt.started_at, attempt.ended_at) else {
        return;
    };
    let starting = started.since(attempt.launched_at);
    metrics::histogram!("taskwright_task_start_seconds").record(starting.as_secs_f64());
    metrics::histogram!("taskwright_task_run_seconds").record(ended.since(started).as_secs_f64());
}
