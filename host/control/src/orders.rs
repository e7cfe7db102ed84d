//! Orders about a task's attempts and units, carried out one after the other for each task.
//!
//! Two orders of one task must never overtake each other: a unit released
//! before it was killed would be forgotten alive, and a next attempt started
//! before the last one was killed would run beside it. A task without orders
//! under way costs nothing here; starts and stops then pass straight through.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use taskwright_model::{AttemptNumber, Task, TaskId};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::attempts::Attempts;
use crate::message::Fact;
use crate::port::{StrategyEvent, Units};

/// The first and the longest pause between two tries of an order that must succeed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often a release is tried. A unit not released is only reported again, and released then.
const MOST_RELEASES: u32 = 5;

/// Something to be done for a task.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Ask the strategy to start this attempt.
    Start(Arc<Task>, AttemptNumber),
    /// Tell the strategy of a stop.
    Stop(AttemptNumber, Duration),
    /// Kill everything of this attempt, however long it takes.
    Terminate(AttemptNumber),
    /// The ends of this attempt are on record.
    Release(AttemptNumber),
    /// Remove what is left of the task, however long it takes; then say so.
    Remove(Arc<Task>),
}

/// The orders under way.
pub(crate) struct Orders {
    /// An entry exists just while a future works on it. Each attempt brings a handful of
    /// orders, so a queue is bounded by what the state machine does in the time of one order.
    queues: Mutex<HashMap<TaskId, VecDeque<Order>>>,
    attempts: Arc<Attempts>,
    units: Arc<dyn Units>,
    facts: mpsc::UnboundedSender<Fact>,
    runtime: Handle,
}

impl Orders {
    pub(crate) fn new(
        attempts: Arc<Attempts>,
        units: Arc<dyn Units>,
        facts: mpsc::UnboundedSender<Fact>,
        runtime: Handle,
    ) -> Self {
        Self {
            queues: Mutex::default(),
            attempts,
            units,
            facts,
            runtime,
        }
    }

    /// Has `order` carried out after every earlier one of the task.
    pub(crate) fn push(self: &Arc<Self>, task: TaskId, order: Order) {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get_mut(&task) {
            queue.push_back(order);
            return;
        }
        let order = match self.at_once(task, order) {
            Some(order) => order,
            None => return,
        };
        queues.insert(task, VecDeque::from([order]));
        drop(queues);
        let this = self.clone();
        self.runtime.spawn(async move {
            while let Some(order) = this.next(task) {
                // An order that panics must not leave those behind it waiting for ever.
                let done = AssertUnwindSafe(this.carry_out(task, order)).catch_unwind();
                if done.await.is_err() {
                    tracing::error!(%task, "an order about a task panicked");
                }
            }
        });
    }

    fn next(&self, task: TaskId) -> Option<Order> {
        let mut queues = self.queues.lock();
        let order = queues.get_mut(&task).and_then(VecDeque::pop_front);
        if order.is_none() {
            queues.remove(&task);
        }
        order
    }

    /// Does what takes no waiting; gives back what does.
    fn at_once(&self, id: TaskId, order: Order) -> Option<Order> {
        match order {
            Order::Start(task, attempt) => self.attempts.start(task, attempt),
            Order::Stop(attempt, grace) => {
                let event = StrategyEvent::StopRequested { grace };
                self.attempts.tell(id, attempt, event);
            }
            waits @ (Order::Terminate(_) | Order::Release(_) | Order::Remove(_)) => {
                return Some(waits);
            }
        }
        None
    }

    async fn carry_out(&self, id: TaskId, order: Order) {
        match self.at_once(id, order) {
            None | Some(Order::Start(..) | Order::Stop(..)) => {}
            Some(Order::Terminate(attempt)) => {
                self.attempts.forget(id, attempt);
                let kill = || self.units.terminate(id, attempt);
                self.insist(id, "kill an attempt's units", u32::MAX, kill)
                    .await;
            }
            Some(Order::Release(attempt)) => {
                let release = || self.units.release(id, attempt);
                self.insist(id, "release an attempt's units", MOST_RELEASES, release)
                    .await;
            }
            Some(Order::Remove(task)) => {
                let remove = || self.units.remove(task.clone());
                if self.insist(id, "remove a task", u32::MAX, remove).await {
                    let _ = self.facts.send(Fact::Removed(id));
                }
            }
        }
    }

    /// Tries until it is done, or `most` times, or until the loop is gone. Answers whether it
    /// was done.
    async fn insist<'a>(
        &'a self,
        task: TaskId,
        what: &str,
        most: u32,
        act: impl Fn() -> futures::future::BoxFuture<'a, Result<(), String>>,
    ) -> bool {
        let (mut pause, longest) = PAUSES;
        for _ in 0..most {
            let Err(message) = act().await else {
                return true;
            };
            tracing::warn!(%task, %message, "failed to {what}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
            if self.facts.is_closed() {
                break;
            }
        }
        false
    }
}
