//! Orders to the container runtime that may take longer than a call of a component.
//!
//! Each is carried out by a future of its own, a few at a time. Whoever asks waits a moment, is
//! told that it is under way, and asks again for the answer: by then it is there, or the same
//! order still goes on. So a hundred tasks that are started at once wait for their turn, starting,
//! and not in a call that would be overdue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use taskwright_capability::ContainerError;
use taskwright_capability::container::{ContainerState, Sandbox};
use taskwright_model::{AttemptNumber, Enforced, TaskId, UnitName};
use tokio::sync::{Semaphore, watch};

/// Orders at a time: more make a runtime slower, not faster.
const MOST_AT_ONCE: usize = 8;
/// How long whoever asks waits for the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a removal waits for what is still being done. The orders have deadlines of their own.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);
/// Answers that nobody came for are dropped beyond this.
const MOST_KEPT: usize = 4096;

/// What is being done, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Order {
    pub(crate) task: TaskId,
    pub(crate) attempt: AttemptNumber,
    pub(crate) step: Step,
}

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The sandbox is run.
    Sandbox,
    /// A container is created.
    Create(UnitName),
    /// A container is started.
    Start(UnitName),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Sandbox(Sandbox),
    Created(Enforced),
    Started(ContainerState),
}

type Outcome = Result<Done, ContainerError>;
type Watched = watch::Receiver<Option<Outcome>>;

/// The orders under way.
pub(crate) struct UnderWay {
    orders: Mutex<HashMap<Order, Watched>>,
    room: Arc<Semaphore>,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            orders: Mutex::default(),
            room: Arc::new(Semaphore::new(MOST_AT_ONCE)),
        }
    }
}

impl UnderWay {
    /// The answer to an order, which is given unless it is under way already. `wanted` is asked
    /// when its turn comes.
    ///
    /// # Errors
    /// Those of the order; [`ContainerError::UnderWay`] when it takes longer than a moment.
    pub(crate) async fn ask(
        &self,
        order: Order,
        wanted: impl FnOnce() -> bool + Send + 'static,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Outcome {
        let mut watched = self.watch(order.clone(), wanted, work);
        let told = tokio::time::timeout(PATIENCE, watched.wait_for(Option::is_some)).await;
        let outcome = match told {
            Ok(Ok(outcome)) => outcome.clone(),
            // Its future panicked: the next to ask gives the order again.
            Ok(Err(_)) => None,
            Err(_) => {
                let detail = "it takes its time, or others come first".to_owned();
                return Err(ContainerError::UnderWay { detail });
            }
        };
        self.orders.lock().remove(&order);
        outcome.unwrap_or_else(|| {
            let detail = "it was given up".to_owned();
            Err(ContainerError::Unavailable { detail })
        })
    }

    fn watch(
        &self,
        order: Order,
        wanted: impl FnOnce() -> bool + Send + 'static,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Watched {
        let mut orders = self.orders.lock();
        if let Some(watched) = orders.get(&order) {
            return watched.clone();
        }
        if orders.len() >= MOST_KEPT {
            orders.retain(|_, watched| watched.borrow().is_none());
        }
        let (tell, watched) = watch::channel(None);
        orders.insert(order, watched.clone());
        let room = self.room.clone();
        tokio::spawn(async move {
            // Never closed.
            let _turn = room.acquire_owned().await;
            let outcome = if wanted() {
                work.await
            } else {
                let detail = "its attempt is over".to_owned();
                Err(ContainerError::NotRunning { detail })
            };
            let _nobody_may_ask = tell.send(Some(outcome));
        });
        watched
    }

    /// Resolves when nothing is done any more for a task, or one attempt of it.
    ///
    /// # Errors
    /// A sentence, when it takes too long.
    pub(crate) async fn settled(
        &self,
        task: TaskId,
        attempt: Option<AttemptNumber>,
    ) -> Result<(), String> {
        let concerned = |order: &Order| {
            order.task == task && attempt.is_none_or(|attempt| order.attempt == attempt)
        };
        let found: Vec<Watched> = {
            let orders = self.orders.lock();
            let concerned = orders.iter().filter(|(order, _)| concerned(order));
            concerned.map(|(_, watched)| watched.clone()).collect()
        };
        let all = found.into_iter().map(|mut watched| async move {
            let _over_either_way = watched.wait_for(Option::is_some).await;
        });
        tokio::time::timeout(SETTLED_WITHIN, futures::future::join_all(all))
            .await
            .map_err(|_| "an order to the container runtime does not end".to_owned())?;
        self.orders.lock().retain(|order, _| !concerned(order));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn order(number: u128) -> Order {
        Order {
            task: TaskId::from_u128(number),
            attempt: AttemptNumber(1),
            step: Step::Sandbox,
        }
    }

    async fn after(pause: Duration) -> Outcome {
        tokio::time::sleep(pause).await;
        Ok(Done::Created(Enforced::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_order_is_answered_at_once_and_a_slow_one_when_it_is_asked_again() {
        let orders = UnderWay::default();
        let quick = orders.ask(order(1), || true, after(Duration::from_millis(10)));
        assert!(quick.await.is_ok());
        let slow = || orders.ask(order(2), || true, after(Duration::from_secs(150)));
        for _ in 0..149 {
            let told = slow().await;
            assert!(matches!(told, Err(ContainerError::UnderWay { .. })));
        }
        assert!(slow().await.is_ok() || slow().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_carried_out_at_a_time_and_each_once() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static ALL: AtomicUsize = AtomicUsize::new(0);
        let orders = Arc::new(UnderWay::default());
        let work = || async {
            let others = NOW.fetch_add(1, Ordering::SeqCst);
            assert!(others < MOST_AT_ONCE);
            tokio::time::sleep(Duration::from_millis(700)).await;
            NOW.fetch_sub(1, Ordering::SeqCst);
            ALL.fetch_add(1, Ordering::SeqCst);
            Ok(Done::Created(Enforced::default()))
        };
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..50 {
            let orders = orders.clone();
            asked.spawn(async move {
                while orders.ask(order(number), || true, work()).await.is_err() {}
            });
        }
        while let Some(answered) = asked.join_next().await {
            answered.unwrap();
        }
        assert_eq!(ALL.load(Ordering::SeqCst), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_waits_for_what_is_done_and_nothing_is_begun_after_it() {
        let orders = UnderWay::default();
        let _asked = orders
            .ask(order(1), || true, after(Duration::from_secs(5)))
            .await;
        let begun = tokio::time::Instant::now();
        orders
            .settled(TaskId::from_u128(1), Some(AttemptNumber(1)))
            .await
            .unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(3));
        let late = orders.ask(order(1), || false, after(Duration::ZERO)).await;
        assert!(matches!(late, Err(ContainerError::NotRunning { .. })));
    }
}
