//! The containers that were started and not released, as far as this life of the daemon knows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use taskwright_capability::UnitEnd;
use taskwright_model::{TaskId, UnitKey};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::marks::AttemptKey;
use crate::output::book::Book;
use crate::output::pump::Pump;

/// No answer of the runtime is older than this.
const OLD_NEWS: Duration = Duration::from_secs(60);

/// A container that was started.
pub(crate) struct Unit {
    pub(crate) key: UnitKey,
    /// The runtime's id for it.
    pub(crate) container: String,
    /// Since when it is known here.
    pub(crate) since: Instant,
    pub(crate) pump: Pump,
    /// Set once, when its whole output is in its task's files.
    pub(crate) end: watch::Sender<Option<UnitEnd>>,
    finishing: AtomicBool,
    watching: AtomicBool,
    pump_task: Mutex<Option<AbortHandle>>,
}

impl Unit {
    pub(crate) fn new(key: UnitKey, container: String, pump: Pump) -> Self {
        Self {
            key,
            container,
            since: Instant::now(),
            pump,
            end: watch::channel(None).0,
            finishing: AtomicBool::new(false),
            watching: AtomicBool::new(false),
            pump_task: Mutex::new(None),
        }
    }

    /// True for the first who sees that it ended.
    pub(crate) fn begin_finishing(&self) -> bool {
        !self.finishing.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody saw that it ended.
    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Acquire)
    }

    /// True for the first who expects its end, until [`Unit::end_watching`].
    pub(crate) fn begin_watching(&self) -> bool {
        !self.watching.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn end_watching(&self) {
        self.watching.store(false, Ordering::Release);
    }

    /// Nothing of it is followed any more: its program never began.
    fn abandon(&self) {
        if let Some(task) = self.pump_task.lock().take() {
            task.abort();
        }
    }

    pub(crate) fn set_pump_task(&self, task: Option<AbortHandle>) {
        *self.pump_task.lock() = task;
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Every such container. As many as the runtime has of ours.
#[derive(Default)]
pub(crate) struct Tracker(Mutex<Tracked>);

#[derive(Default)]
struct Tracked {
    units: HashMap<UnitKey, Arc<Unit>>,
    books: HashMap<AttemptKey, Book>,
    /// Attempts that are being removed, or were, and when: what was asked before still tells of
    /// them and is old news.
    leaving: HashMap<AttemptKey, Option<Instant>>,
    /// The host was dropped.
    closed: bool,
}

impl Tracker {
    pub(crate) fn get(&self, key: &UnitKey) -> Option<Arc<Unit>> {
        self.0.lock().units.get(key).cloned()
    }

    pub(crate) fn by_container(&self, container: &str) -> Option<Arc<Unit>> {
        let tracked = self.0.lock();
        let mut units = tracked.units.values();
        units.find(|unit| unit.container == container).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Unit>> {
        self.0.lock().units.values().cloned().collect()
    }

    /// Takes in a unit by what the runtime was asked at `asked`; the one that is there already,
    /// or `None` when its attempt is leaving or has left since.
    pub(crate) fn insert(&self, unit: Unit, asked: Instant) -> Option<(Arc<Unit>, Inserted)> {
        let mut tracked = self.0.lock();
        let left = tracked.leaving.get(&attempt_of(&unit.key));
        if tracked.closed || left.is_some_and(|left| left.is_none_or(|at| at >= asked)) {
            return None;
        }
        if let Some(known) = tracked.units.get(&unit.key) {
            return Some((known.clone(), Inserted::Before));
        }
        let unit = Arc::new(unit);
        tracked.units.insert(unit.key.clone(), unit.clone());
        Some((unit, Inserted::Now))
    }

    /// Whether this is still what is known by its key: another container may have its place.
    pub(crate) fn knows(&self, unit: &Arc<Unit>) -> bool {
        self.get(&unit.key)
            .is_some_and(|known| Arc::ptr_eq(&known, unit))
    }

    /// Forgets a container whose program never began. Another one may be made in its place.
    pub(crate) fn forget(&self, unit: &Arc<Unit>) {
        unit.abandon();
        let mut tracked = self.0.lock();
        if tracked
            .units
            .get(&unit.key)
            .is_some_and(|known| Arc::ptr_eq(known, unit))
        {
            tracked.units.remove(&unit.key);
        }
    }

    /// The book of an attempt: the one that is there, or else this one.
    pub(crate) fn book(&self, attempt: AttemptKey, new: Option<Book>) -> Option<Book> {
        let mut tracked = self.0.lock();
        if tracked.closed {
            return None;
        }
        match new {
            Some(new) => Some(tracked.books.entry(attempt).or_insert(new).clone()),
            None => tracked.books.get(&attempt).cloned(),
        }
    }

    /// Takes out an attempt: nothing of it is reported or taken in again until
    /// [`Tracker::left`].
    pub(crate) fn leave(&self, attempt: AttemptKey) -> Vec<Arc<Unit>> {
        let mut tracked = self.0.lock();
        tracked.leaving.insert(attempt, None);
        let mut gone = Vec::new();
        tracked.units.retain(|key, unit| {
            let stays = attempt_of(key) != attempt;
            if !stays {
                gone.push(unit.clone());
            }
            stays
        });
        gone
    }

    /// The attempt is removed.
    pub(crate) fn left(&self, attempt: AttemptKey) {
        let mut tracked = self.0.lock();
        tracked
            .leaving
            .retain(|_, left| left.is_none_or(|at| at.elapsed() < OLD_NEWS));
        tracked.leaving.insert(attempt, Some(Instant::now()));
    }

    /// The attempt could not be removed.
    pub(crate) fn stays(&self, attempt: AttemptKey) {
        self.0.lock().leaving.remove(&attempt);
    }

    /// Nobody writes for this attempt any more.
    pub(crate) fn close_book(&self, attempt: AttemptKey) {
        if let Some(book) = self.0.lock().books.remove(&attempt) {
            book.close();
        }
    }

    /// The attempts of a task that are known here.
    pub(crate) fn attempts(&self, task: TaskId) -> HashSet<AttemptKey> {
        let tracked = self.0.lock();
        let keys = tracked.units.keys().map(attempt_of);
        keys.chain(tracked.books.keys().copied())
            .filter(|(of, _)| *of == task)
            .collect()
    }

    /// Ends everything: nothing is written or taken in from now on.
    pub(crate) fn close(&self) {
        let mut tracked = self.0.lock();
        tracked.closed = true;
        for book in tracked.books.values() {
            book.close();
        }
        tracked.units.clear();
    }
}

/// Whether a unit was taken in just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    Now,
    Before,
}

pub(crate) fn attempt_of(key: &UnitKey) -> AttemptKey {
    (key.task, key.attempt)
}
