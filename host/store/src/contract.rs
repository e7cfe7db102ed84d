//! What every journal must do, as one suite over any of them.
//!
//! A new store joins by implementing [`Harness`] and calling [`check`].

#![expect(
    clippy::unwrap_used,
    reason = "a suite of tests: a failure is the finding"
)]

use std::sync::Arc;

use futures::FutureExt;
use taskwright_control::port::{Batch, CommitError, FeedEntry, FeedHistory, Journal, Recovered};
use taskwright_model::Task;

use crate::tests::samples;

/// A way to open one and the same store again and again.
pub(crate) trait Harness {
    type Journal: Journal;
    type History: FeedHistory;

    /// Opens the store; the one opened before was dropped.
    fn open(&mut self) -> (Self::Journal, Self::History, Recovered);
}

/// Every rule. Each begins with a store of its own.
pub(crate) fn check<H: Harness>(mut fresh: impl FnMut() -> H) {
    a_new_store_is_empty(&mut fresh());
    what_was_committed_is_there_after_reopening(&mut fresh());
    a_task_put_again_replaces_itself(&mut fresh());
    a_removed_task_stays_removed(&mut fresh());
    a_refused_batch_leaves_nothing(&mut fresh());
    history_is_read_from_a_number_on(&mut fresh());
    numbers_go_on_after_reopening(&mut fresh());
    an_empty_batch_is_fine(&mut fresh());
}

/// Commits; the future of a journal never waits for anything but itself.
pub(crate) fn commit(journal: &mut impl Journal, batch: &Batch) -> Result<(), CommitError> {
    journal
        .commit(batch)
        .now_or_never()
        .expect("a journal blocks, it does not wait")
}

fn a_new_store_is_empty(harness: &mut impl Harness) {
    let (_, _, recovered) = harness.open();
    assert!(recovered.tasks.is_empty() && recovered.feed.is_empty());
    assert!(recovered.idempotency.is_empty() && recovered.damage.is_empty());
    assert_eq!(recovered.next_sequence, 1);
}

fn what_was_committed_is_there_after_reopening(harness: &mut impl Harness) {
    let batch = samples::batch(1, 3);
    commit(&mut harness.open().0, &batch).unwrap();
    let (_, _, recovered) = harness.open();
    assert_eq!(sorted(&recovered.tasks), sorted_shared(&batch.put));
    assert_eq!(recovered.feed, batch.feed);
    assert_eq!(recovered.idempotency, batch.idempotency);
    assert_eq!(recovered.damage, Vec::<String>::new());
}

fn a_task_put_again_replaces_itself(harness: &mut impl Harness) {
    let (mut journal, history, _) = harness.open();
    let mut batch = samples::batch(1, 1);
    commit(&mut journal, &batch).unwrap();
    let mut task = Task::clone(batch.put.first().unwrap());
    task.deleting_since = Some(samples::NOW);
    batch = Batch {
        put: vec![Arc::new(task.clone())],
        ..Batch::default()
    };
    commit(&mut journal, &batch).unwrap();
    drop((journal, history));
    assert_eq!(harness.open().2.tasks, [task]);
}

fn a_removed_task_stays_removed(harness: &mut impl Harness) {
    let (mut journal, history, _) = harness.open();
    let batch = samples::batch(1, 2);
    commit(&mut journal, &batch).unwrap();
    let gone = batch.put.first().unwrap().id;
    let removal = Batch {
        remove: vec![gone],
        ..Batch::default()
    };
    commit(&mut journal, &removal).unwrap();
    commit(&mut journal, &removal).unwrap();
    drop((journal, history));
    let tasks = harness.open().2.tasks;
    assert_eq!(tasks.len(), 1);
    assert!(tasks.iter().all(|task| task.id != gone));
}

fn a_refused_batch_leaves_nothing(harness: &mut impl Harness) {
    let (mut journal, history, _) = harness.open();
    commit(&mut journal, &samples::batch(1, 1)).unwrap();
    // Numbers that were used, and numbers that leave a gap, are both refused.
    let used = samples::batch(1, 2);
    let gap = samples::batch(100, 2);
    for batch in [used, gap] {
        assert!(!commit(&mut journal, &batch).unwrap_err().disk_full);
    }
    let next = samples::batch(samples::LINES_EACH + 1, 1);
    commit(&mut journal, &next).unwrap();
    drop((journal, history));
    let (_, _, recovered) = harness.open();
    assert_eq!(recovered.tasks.len(), 2);
    assert_eq!(
        numbers(&recovered.feed),
        (1..=2 * samples::LINES_EACH).collect::<Vec<_>>()
    );
}

fn history_is_read_from_a_number_on(harness: &mut impl Harness) {
    let (mut journal, history, _) = harness.open();
    let batch = samples::batch(1, 3);
    commit(&mut journal, &batch).unwrap();
    let task = batch.put.get(1).unwrap().id;
    let read = |after, task, most| futures_block(history.read(after, task, most)).unwrap();
    assert_eq!(read(0, None, 1000), batch.feed);
    assert_eq!(numbers(&read(2, None, 3)), [3, 4, 5]);
    assert!(read(batch.feed.len() as u64, None, 3).is_empty());
    let own = read(0, Some(task), 1000);
    assert!(own.iter().all(|line| line.task == task));
    assert_eq!(own.len() as u64, samples::LINES_EACH);
}

fn numbers_go_on_after_reopening(harness: &mut impl Harness) {
    commit(&mut harness.open().0, &samples::batch(1, 2)).unwrap();
    let (mut journal, history, recovered) = harness.open();
    assert_eq!(recovered.next_sequence, 2 * samples::LINES_EACH + 1);
    commit(&mut journal, &samples::batch(recovered.next_sequence, 1)).unwrap();
    drop((journal, history));
    assert_eq!(harness.open().2.feed.len() as u64, 3 * samples::LINES_EACH);
}

fn an_empty_batch_is_fine(harness: &mut impl Harness) {
    commit(&mut harness.open().0, &Batch::default()).unwrap();
    assert_eq!(harness.open().2.next_sequence, 1);
}

fn numbers(feed: &[FeedEntry]) -> Vec<u64> {
    feed.iter().map(|line| line.sequence).collect()
}

fn sorted(tasks: &[Task]) -> Vec<Task> {
    let mut tasks = tasks.to_vec();
    tasks.sort_by_key(|task| task.id);
    tasks
}

fn sorted_shared(tasks: &[Arc<Task>]) -> Vec<Task> {
    sorted(
        &tasks
            .iter()
            .map(|task| Task::clone(task))
            .collect::<Vec<_>>(),
    )
}

/// Waits for a read of the history.
pub(crate) fn futures_block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}
