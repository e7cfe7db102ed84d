//! Live streams of a task: its states and its lines, as they come.
//!
//! One loop hears the store's notices and wakes whoever watches the task they are of, so that a
//! thousand streams cost nothing while other tasks change. A notice may be lost: each stream
//! looks again now and then. How many there may be is bounded, and so is what each holds.
//!
//! | module | about |
//! |---|---|
//! | `watcher` | what a reader has seen, and what comes next |
//! | `events` | as server-sent events |
//! | `socket` | as messages of a WebSocket |

pub(super) mod events;
pub(super) mod socket;
mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use taskwright_model::TaskId;
use taskwright_queue::Queue;
use taskwright_queue::port::Notice;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;
use crate::room::{Room, Taken};

/// The most bytes that wait for readers of all streams together.
const MOST_WAITING: usize = 128 << 20;

/// Streams that read at a time.
const MOST_LOOKS: usize = 8;

/// All live streams. Clones share them.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    places: Arc<Semaphore>,
    /// Streams that read at a time: what they read takes room only once it is there.
    looks: Semaphore,
    /// For what waits in all of them for its readers. Not that of other requests, which slow
    /// readers of streams must not keep from being answered.
    room: Room,
    most: usize,
    patience: Duration,
    watched: Mutex<HashMap<TaskId, watch::Sender<()>>>,
}

impl Live {
    /// At most so many streams. The reader of a WebSocket is cut once it took nothing for that long;
    /// those of events are, as of every answer, by the connection.
    #[must_use]
    pub fn new(most: usize, patience: Duration) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            places: Arc::new(Semaphore::new(most)),
            looks: Semaphore::new(MOST_LOOKS),
            room: Room::new(MOST_WAITING),
            most,
            patience: patience.max(Duration::from_millis(100)),
            watched: Mutex::default(),
        }))
    }

    /// Wakes streams, until the daemon goes down.
    pub async fn follow(self, queue: Queue, shutdown: CancellationToken) {
        let mut notices = queue.store().notices();
        let mut hears = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                notice = notices.recv(), if hears => match notice {
                    Ok(Notice::Task(task)) => self.wake(task),
                    Ok(Notice::Work) => {}
                    Ok(Notice::Anything) | Err(RecvError::Lagged(_)) => self.wake_all(),
                    Err(RecvError::Closed) => hears = false,
                },
            }
        }
    }

    /// How often a stream without news says that it is alive: often enough that one whose reader
    /// is there is never taken for one that stands still.
    fn heartbeat(&self, wanted: Duration) -> Duration {
        wanted.min(self.0.patience / 3)
    }

    fn patience(&self) -> Duration {
        self.0.patience
    }

    /// A turn to read.
    async fn look(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.0.looks.acquire().await.ok()
    }

    /// Makes `taken` room for `bytes` that wait for a reader.
    fn take_room(&self, taken: &mut Taken, bytes: usize) -> Result<(), Problem> {
        self.0.room.take(taken, bytes)
    }

    /// A place among the streams, for a reader of this task.
    fn sit(&self, task: TaskId) -> Result<Seat, Problem> {
        let place = self.0.places.clone().try_acquire_owned().map_err(|_| {
            metrics::counter!("taskwright_queue_streams_refused_total").increment(1);
            Problem::unavailable(format!(
                "as many live streams as may be are open: {}",
                self.0.most
            ))
            .hint("try again in a few seconds, or ask for the task now and then")
            .retry_after(5)
        })?;
        let news = {
            let mut watched = self.0.watched.lock();
            let sender = watched.entry(task).or_insert_with(|| watch::channel(()).0);
            sender.subscribe()
        };
        metrics::gauge!("taskwright_queue_streams").increment(1.0);
        Ok(Seat {
            live: self.clone(),
            task,
            news,
            _place: place,
        })
    }

    fn wake(&self, task: TaskId) {
        if let Some(sender) = self.0.watched.lock().get(&task) {
            sender.send_replace(());
        }
    }

    fn wake_all(&self) {
        for sender in self.0.watched.lock().values() {
            sender.send_replace(());
        }
    }
}

/// A place among the streams. Given back when dropped.
struct Seat {
    live: Live,
    task: TaskId,
    news: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        metrics::gauge!("taskwright_queue_streams").decrement(1.0);
        let mut watched = self.live.0.watched.lock();
        // Under the lock, so that of two who leave together the second sees that it is the last.
        self.news = watch::channel(()).1;
        let last = watched
            .get(&self.task)
            .is_some_and(|sender| sender.receiver_count() == 0);
        if last {
            watched.remove(&self.task);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Places, and who is woken.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const TASK: TaskId = TaskId::from_u128(1);

    #[tokio::test]
    async fn places_are_bounded_and_given_back() {
        let live = Live::new(2, Duration::from_secs(1));
        let first = live.sit(TASK).unwrap_or_else(|_| unreachable!("free"));
        let _second = live.sit(TASK).unwrap_or_else(|_| unreachable!("free"));
        let refused = live.sit(TASK).err().unwrap();
        assert_eq!(
            (refused.status.as_u16(), refused.retry_after),
            (503, Some(5))
        );
        drop(first);
        assert!(live.sit(TASK).is_ok());
    }

    #[tokio::test]
    async fn only_watchers_of_the_task_are_woken_and_nothing_is_kept_of_those_who_left() {
        let live = Live::new(9, Duration::from_secs(1));
        let mut seat = live.sit(TASK).unwrap_or_else(|_| unreachable!("free"));
        let other = live.sit(TaskId::from_u128(2));
        live.wake(TASK);
        assert!(seat.news.has_changed().unwrap());
        seat.news.mark_unchanged();
        live.wake(TaskId::from_u128(2));
        assert!(!seat.news.has_changed().unwrap());
        live.wake_all();
        assert!(seat.news.has_changed().unwrap());
        drop((seat, other));
        assert!(live.0.watched.lock().is_empty());
    }
}
