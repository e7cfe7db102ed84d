//! Units that are entries in a map: they end when told to, and report it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taskwright_model::{
    AttemptNumber, ExitStatus, ProcessIdentity, Task, TaskId, Timestamp, UnitName,
};

use crate::handle::Control;
use crate::port::{KnownUnit, UnitEnded, UnitReport, Units};

/// An order that [`FakeUnits`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// [`Units::terminate`]
    Terminate(TaskId, AttemptNumber),
    /// [`Units::release`]
    Release(TaskId, AttemptNumber),
    /// [`Units::remove`]
    Remove(TaskId),
}

/// Units without processes.
#[derive(Default)]
pub struct FakeUnits {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    units: BTreeMap<(TaskId, AttemptNumber), KnownUnit>,
    orders: Vec<Order>,
    failures: usize,
    last_output: HashMap<TaskId, Timestamp>,
    spawned: u32,
    reports_to: Option<Control>,
}

impl FakeUnits {
    /// Ends are reported to this loop from now on.
    pub fn report_to(&self, control: Control) {
        self.inner.lock().reports_to = Some(control);
    }

    /// Every order so far.
    #[must_use]
    pub fn orders(&self) -> Vec<Order> {
        self.inner.lock().orders.clone()
    }

    /// How often this order came.
    #[must_use]
    pub fn count(&self, order: Order) -> usize {
        let inner = self.inner.lock();
        inner.orders.iter().filter(|one| **one == order).count()
    }

    /// The next `orders` orders fail. They are recorded all the same.
    pub fn fail_next(&self, orders: usize) {
        self.inner.lock().failures = orders;
    }

    /// When a task last printed something.
    pub fn set_last_output(&self, task: TaskId, at: Timestamp) {
        self.inner.lock().last_output.insert(task, at);
    }

    /// How many units are alive.
    #[must_use]
    pub fn alive(&self) -> usize {
        let inner = self.inner.lock();
        let alive = inner.units.values().filter(|unit| unit.ended.is_none());
        alive.count()
    }

    /// Whether an attempt's unit is alive.
    #[must_use]
    pub fn is_alive(&self, task: TaskId, attempt: AttemptNumber) -> bool {
        let inner = self.inner.lock();
        let unit = inner.units.get(&(task, attempt));
        unit.is_some_and(|unit| unit.ended.is_none())
    }

    /// Starts an attempt's one unit, `main`; asking twice finds the first.
    pub fn spawn(&self, task: TaskId, attempt: AttemptNumber) -> ProcessIdentity {
        let mut inner = self.inner.lock();
        inner.spawned += 1;
        let fresh = ProcessIdentity {
            pid: 1000 + inner.spawned,
            start_ticks: u64::from(inner.spawned),
        };
        let unit = inner
            .units
            .entry((task, attempt))
            .or_insert_with(|| KnownUnit {
                task,
                attempt,
                unit: main_unit(),
                process: Some(fresh),
                ended: None,
            });
        unit.process.unwrap_or(fresh)
    }

    /// As [`FakeUnits::spawn`], and the unit ends before that is answered: no report follows.
    pub fn spawn_and_end(
        &self,
        task: TaskId,
        attempt: AttemptNumber,
        status: ExitStatus,
    ) -> (ProcessIdentity, UnitEnded) {
        let process = self.spawn(task, attempt);
        let fresh = UnitEnded {
            status: Some(status),
            out_of_memory: false,
        };
        let mut inner = self.inner.lock();
        let unit = inner.units.get_mut(&(task, attempt));
        let ended = unit.map(|unit| *unit.ended.get_or_insert(fresh));
        (process, ended.unwrap_or(fresh))
    }

    /// The unit ends like this, if it is alive, and that is reported.
    pub fn end(&self, task: TaskId, attempt: AttemptNumber, status: Option<ExitStatus>) {
        if let Some(unit) = self.inner.lock().units.get_mut(&(task, attempt))
            && unit.ended.is_none()
        {
            unit.ended = Some(UnitEnded {
                status,
                out_of_memory: false,
            });
        }
        self.report(task, attempt);
    }

    /// Reports the unit's end, again if need be.
    pub fn report(&self, task: TaskId, attempt: AttemptNumber) {
        let (report, control) = {
            let inner = self.inner.lock();
            let unit = inner.units.get(&(task, attempt));
            let ended = unit.and_then(|unit| unit.ended.map(|ended| (unit.unit.clone(), ended)));
            (ended, inner.reports_to.clone())
        };
        if let (Some((unit, ended)), Some(control)) = (report, control) {
            control.report(UnitReport {
                task,
                attempt,
                unit,
                ended,
            });
        }
    }

    /// Reports every end that was not released, as a supervisor does to a new daemon.
    pub fn report_all(&self) {
        let known: Vec<_> = self.inner.lock().units.keys().copied().collect();
        for (task, attempt) in known {
            self.report(task, attempt);
        }
    }

    fn order(&self, order: Order) -> Result<(), String> {
        let mut inner = self.inner.lock();
        inner.orders.push(order);
        if inner.failures > 0 {
            inner.failures -= 1;
            return Err("the test said so".into());
        }
        Ok(())
    }

    fn kill(&self, task: TaskId, attempt: AttemptNumber) {
        self.end(task, attempt, Some(ExitStatus::Signal(9)));
    }
}

impl Units for FakeUnits {
    fn terminate(&self, task: TaskId, attempt: AttemptNumber) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.order(Order::Terminate(task, attempt))?;
            self.kill(task, attempt);
            Ok(())
        })
    }

    fn release(&self, task: TaskId, attempt: AttemptNumber) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.order(Order::Release(task, attempt))?;
            let mut inner = self.inner.lock();
            let ended = inner.units.get(&(task, attempt)).map(|unit| unit.ended);
            if ended.flatten().is_some() {
                inner.units.remove(&(task, attempt));
            }
            Ok(())
        })
    }

    fn remove(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.order(Order::Remove(task.id))?;
            self.inner.lock().units.retain(|key, _| key.0 != task.id);
            Ok(())
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<KnownUnit>, String>> {
        let known = self.inner.lock().units.values().cloned().collect();
        Box::pin(std::future::ready(Ok(known)))
    }

    fn last_output(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Option<Timestamp>, String>> {
        let seen = self.inner.lock().last_output.get(&task.id).copied();
        Box::pin(std::future::ready(Ok(seen)))
    }
}

/// The one word for a unit that the fakes know.
#[expect(clippy::unwrap_used, reason = "a constant that is a unit name")]
pub(super) fn main_unit() -> UnitName {
    UnitName::parse("main").unwrap()
}
