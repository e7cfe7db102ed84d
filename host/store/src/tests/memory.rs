//! The contract, held to SQLite and to a journal in memory.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use taskwright_control::port::*;
use taskwright_model::{Task, TaskId};
use tempfile::TempDir;

use super::samples;
use crate::contract::{Harness, check};
use crate::{Options, SqliteFeedHistory, SqliteJournal, Store};

#[test]
fn sqlite_keeps_the_contract() {
    check(|| OnDisk(tempfile::tempdir().unwrap()));
}

#[test]
fn memory_keeps_the_contract() {
    check(|| InMemory(Arc::default()));
}

struct OnDisk(TempDir);

impl Harness for OnDisk {
    type Journal = SqliteJournal;
    type History = SqliteFeedHistory;

    fn open(&mut self) -> (SqliteJournal, SqliteFeedHistory, Recovered) {
        Store::open(self.0.path(), Options::at(samples::NOW)).unwrap()
    }
}

#[derive(Clone, Default)]
struct Shelf {
    tasks: Vec<Task>,
    feed: Vec<FeedEntry>,
    idempotency: Vec<IdempotencyRecord>,
}

/// What a journal is without a disk: it shows that the contract asks for nothing of SQLite.
#[derive(Clone)]
struct InMemory(Arc<Mutex<Shelf>>);

impl Harness for InMemory {
    type Journal = Self;
    type History = Self;

    fn open(&mut self) -> (Self, Self, Recovered) {
        let shelf = self.0.lock().unwrap().clone();
        let recovered = Recovered {
            next_sequence: shelf.feed.len() as u64 + 1,
            tasks: shelf.tasks,
            feed: shelf.feed,
            idempotency: shelf.idempotency,
            damage: Vec::new(),
        };
        (self.clone(), self.clone(), recovered)
    }
}

impl Journal for InMemory {
    async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let mut shelf = self.0.lock().unwrap();
        let next = shelf.feed.len() as u64 + 1;
        if !batch
            .feed
            .iter()
            .map(|line| line.sequence)
            .eq(next..next + batch.feed.len() as u64)
        {
            let message = "feed lines out of order".to_owned();
            return Err(CommitError {
                message,
                disk_full: false,
            });
        }
        let replaced =
            |id| batch.remove.contains(&id) || batch.put.iter().any(|task| task.id == id);
        shelf.tasks.retain(|task| !replaced(task.id));
        shelf
            .tasks
            .extend(batch.put.iter().map(|task| Task::clone(task)));
        shelf.feed.extend(batch.feed.iter().cloned());
        shelf.idempotency.extend(batch.idempotency.iter().cloned());
        Ok(())
    }
}

impl FeedHistory for InMemory {
    fn read(
        &self,
        after: u64,
        task: Option<TaskId>,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<FeedEntry>, CommitError>> {
        let shelf = self.0.lock().unwrap();
        let wanted =
            |line: &&FeedEntry| line.sequence > after && task.is_none_or(|task| task == line.task);
        let lines = shelf
            .feed
            .iter()
            .filter(wanted)
            .take(most)
            .cloned()
            .collect();
        async move { Ok(lines) }.boxed()
    }
}
