//! Observers are told of everything, in order, at least once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::support::*;
use crate::fake::FakeDocuments;
use crate::observe::{Observing, observe};
use crate::port::{Cursors, Notice, Observers};

/// Remembers what it was told, and refuses while it is told to.
struct Ears {
    names: watch::Sender<Arc<[String]>>,
    heard: Mutex<Vec<(String, u64, u64)>>,
    refuses: Mutex<usize>,
}

impl Ears {
    fn of(names: &[&str]) -> Arc<Self> {
        let ears = Self {
            names: watch::Sender::new([].into()),
            heard: Mutex::default(),
            refuses: Mutex::default(),
        };
        ears.be(names);
        Arc::new(ears)
    }

    fn be(&self, names: &[&str]) {
        self.names
            .send_replace(names.iter().map(|&name| name.to_owned()).collect());
    }

    /// The numbers that one was told, in order.
    fn heard(&self, observer: &str) -> Vec<u64> {
        let heard = self.heard.lock();
        let of = heard.iter().filter(|(name, ..)| name == observer);
        of.map(|(_, sequence, _)| *sequence).collect()
    }
}

impl Observers for Ears {
    fn names(&self) -> watch::Receiver<Arc<[String]>> {
        self.names.subscribe()
    }

    fn notice(&self, observer: &str, notice: Notice) -> BoxFuture<'_, Result<(), String>> {
        let mut refuses = self.refuses.lock();
        let answer = if *refuses > 0 {
            *refuses -= 1;
            Err("not now".to_owned())
        } else {
            let told = (observer.to_owned(), notice.entry.sequence, notice.missed);
            self.heard.lock().push(told);
            Ok(())
        };
        Box::pin(std::future::ready(answer))
    }
}

#[derive(Default)]
struct Memory(Mutex<HashMap<String, u64>>);

impl Cursors for Memory {
    fn read(&self, observer: &str) -> BoxFuture<'_, Result<Option<u64>, String>> {
        let found = self.0.lock().get(observer).copied();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn write(&self, observer: &str, sequence: u64) -> BoxFuture<'_, Result<(), String>> {
        self.0.lock().insert(observer.to_owned(), sequence);
        Box::pin(std::future::ready(Ok(())))
    }
}

fn start(world: &FakeWorld, ears: &Arc<Ears>, memory: &Arc<Memory>) -> JoinHandle<()> {
    tokio::spawn(observe(Observing {
        control: world.control.clone(),
        observers: ears.clone(),
        cursors: memory.clone(),
        documents: Arc::new(FakeDocuments::default()),
    }))
}

#[tokio::test(start_paused = true)]
async fn everything_is_told_in_order_from_where_it_was_first_there() {
    let world = world().await;
    running(&world, "before", spec()).await;
    let (ears, memory) = (Ears::of(&["a"]), Arc::<Memory>::default());
    let observing = start(&world, &ears, &memory);
    settle().await;
    let first = world.journal.feed().len() as u64 + 1;
    let task = running(&world, "after", spec()).await;
    world.exit(task.id, 0);
    world.until_state("after", "ended").await;
    settle().await;
    assert_eq!(ears.heard("a"), (first..first + 4).collect::<Vec<_>>());
    // Another one begins with what comes next, and the first goes on.
    ears.be(&["a", "b"]);
    settle().await;
    running(&world, "third", spec()).await;
    settle().await;
    assert_eq!(ears.heard("b"), (first + 4..first + 7).collect::<Vec<_>>());
    ears.be(&["b"]);
    settle().await;
    running(&world, "fourth", spec()).await;
    settle().await;
    assert_eq!(ears.heard("a").len(), 7, "what is gone is told nothing");
    assert_eq!(ears.heard("b").len(), 6);
    observing.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_is_told_again_and_nothing_before_it() {
    let world = world().await;
    let (ears, memory) = (Ears::of(&["a"]), Arc::<Memory>::default());
    let _observing = start(&world, &ears, &memory);
    settle().await;
    *ears.refuses.lock() = 12;
    running(&world, "a", spec()).await;
    world
        .until("it heard of it all", |_| ears.heard("a").len() == 3)
        .await;
    assert_eq!(ears.heard("a"), [1, 2, 3]);
}

/// The gauge of how far behind an observer is: the only metric that it keeps.
#[derive(Default)]
struct Lag(Arc<AtomicU64>);

impl Lag {
    fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl Recorder for Lag {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match key.name() {
            "taskwright_observer_lag" => Gauge::from_arc(Arc::clone(&self.0)),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(start_paused = true)]
async fn the_lag_grows_while_one_event_is_not_taken() {
    let lag = Lag::default();
    let _here = metrics::set_default_local_recorder(&lag);
    let world = world().await;
    let (ears, memory) = (Ears::of(&["a"]), Arc::<Memory>::default());
    let _observing = start(&world, &ears, &memory);
    settle().await;
    *ears.refuses.lock() = usize::MAX;
    for name in ["a", "b"] {
        running(&world, name, spec()).await;
        settle().await;
    }
    assert_eq!(lag.value(), 6.0);
    *ears.refuses.lock() = 0;
    world
        .until("it heard of it all", |_| ears.heard("a").len() == 6)
        .await;
    settle().await;
    assert_eq!(lag.value(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_leaves_none_out() {
    let mut world = world().await;
    let (ears, memory) = (Ears::of(&["a"]), Arc::<Memory>::default());
    let observing = start(&world, &ears, &memory);
    settle().await;
    running(&world, "a", spec()).await;
    settle().await;
    observing.abort();
    running(&world, "unseen", spec()).await;
    world.restart(crate::Config::default()).await;
    let _again = start(&world, &ears, &memory);
    settle().await;
    assert_eq!(ears.heard("a"), [1, 2, 3, 4, 5, 6]);
}
