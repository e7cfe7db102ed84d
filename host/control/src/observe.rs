//! Tells observers what happens: every event, in the order of the feed, at least once.
//!
//! Each observer has a cursor of its own, written after what it took, so a restart tells the
//! newest events once more and leaves none out. One that does not take an event is told the same
//! again after a pause; meanwhile the feed keeps what comes for it, as far as the feed reaches,
//! and nobody else waits.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::handle::Control;
use crate::port::{Cursors, Documents, FeedEntry, Notice, Observers};

/// Events that are read at a time. The cursor is written after so many at the latest.
const MOST_AT_ONCE: usize = 100;
/// The first and the longest pause after an event was not taken.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Who is told what by whom.
#[derive(Clone)]
pub struct Observing {
    /// Where events come from.
    pub control: Control,
    /// Who is told.
    pub observers: Arc<dyn Observers>,
    /// How far they are.
    pub cursors: Arc<dyn Cursors>,
    /// What they are told.
    pub documents: Arc<dyn Documents>,
}

/// Tells observers until it is dropped. Those that come are told from then on, those that go are
/// told nothing more.
pub async fn observe(observing: Observing) {
    let mut names = observing.observers.names();
    let mut told = JoinSet::new();
    let mut under_way = HashMap::new();
    loop {
        let present = names.borrow_and_update().clone();
        under_way.retain(|name: &String, task: &mut tokio::task::AbortHandle| {
            let stays = present.contains(name) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for name in present.iter() {
            if !under_way.contains_key(name) {
                let (observing, observer) = (observing.clone(), name.clone());
                let task = told.spawn(async move { observing.tell(&observer).await });
                under_way.insert(name.clone(), task);
            }
        }
        tokio::select! {
            // Ended ones must not pile up.
            Some(_) = told.join_next(), if !told.is_empty() => {}
            changed = names.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

impl Observing {
    /// Tells one observer, for ever.
    async fn tell(&self, observer: &str) {
        let mut position = self.control.feed_position();
        let newest = *position.borrow_and_update();
        let mut cursor = self.begin(observer, newest).await;
        let lag = metrics::gauge!("taskwright_observer_lag", "observer" => observer.to_owned());
        loop {
            let newest = *position.borrow_and_update();
            lag.set(newest.saturating_sub(cursor) as f64);
            if newest <= cursor {
                if position.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let entries = match self.control.feed(cursor, None, MOST_AT_ONCE).await {
                Ok(entries) => entries,
                Err(message) => {
                    tracing::warn!(
                        observer,
                        message,
                        "events could not be read for an observer"
                    );
                    tokio::time::sleep(PAUSES.1).await;
                    continue;
                }
            };
            if entries.is_empty() {
                // Told of and not published yet, or gone from the feed as a whole.
                tokio::time::sleep(PAUSES.0).await;
                continue;
            }
            for entry in entries {
                let sequence = entry.sequence;
                let mut taken = pin!(self.insist(observer, entry, cursor));
                // It may take days; what comes meanwhile waits, too.
                loop {
                    let newest = *position.borrow_and_update();
                    lag.set(newest.saturating_sub(cursor) as f64);
                    tokio::select! {
                        () = &mut taken => break,
                        changed = position.changed() => if changed.is_err() {
                            break taken.await;
                        }
                    }
                }
                cursor = sequence;
            }
            if let Err(message) = self.cursors.write(observer, cursor).await {
                tracing::warn!(
                    observer,
                    message,
                    "how far an observer was told is not on record"
                );
            }
        }
    }

    /// Where the telling begins: behind what it took, or with what comes next if it is new.
    async fn begin(&self, observer: &str, newest: u64) -> u64 {
        let mut pause = PAUSES.0;
        loop {
            let found = match self.cursors.read(observer).await {
                // A feed that begins anew, as after a store was lost, is told from its beginning.
                Ok(Some(cursor)) if cursor > newest => Ok(0),
                Ok(Some(cursor)) => Ok(cursor),
                Ok(None) => self.cursors.write(observer, newest).await.map(|()| newest),
                Err(message) => Err(message),
            };
            match found {
                Ok(cursor) => return cursor,
                Err(message) => {
                    tracing::warn!(observer, message, "an observer waits for its cursor");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Tells of one event until it is taken.
    async fn insist(&self, observer: &str, entry: FeedEntry, cursor: u64) {
        let results = |result: &'static str| {
            metrics::counter!(
                "taskwright_observer_events_total",
                "observer" => observer.to_owned(), "result" => result
            )
        };
        let missed = entry.sequence.saturating_sub(cursor + 1);
        if missed > 0 {
            tracing::warn!(
                observer,
                missed,
                "events left the feed before an observer took them"
            );
            results("missed").increment(missed);
        }
        let notice = Notice {
            document: self.documents.event(&entry),
            entry,
            missed,
        };
        let mut pause = PAUSES.0;
        let mut told = None;
        loop {
            match self.observers.notice(observer, notice.clone()).await {
                Ok(()) => return results("ok").increment(1),
                Err(message) => {
                    results("refused").increment(1);
                    // It may go on for days: what is new is told, not that it goes on.
                    if told.as_ref() != Some(&message) {
                        let sequence = notice.entry.sequence;
                        tracing::warn!(
                            observer,
                            sequence,
                            message,
                            "an observer did not take an event"
                        );
                        told = Some(message);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }
}
