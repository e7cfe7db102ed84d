//! A scripted [`ProcessHost`] for tests: it starts nothing, remembers what it was asked, and
//! fails or dawdles on request.

use std::collections::BTreeMap;
use std::sync::Arc;

use std::time::Duration;

use futures::future::{BoxFuture, pending};
use parking_lot::Mutex;
use taskwright_model::{
    Enforced, Mechanism, ProcessIdentity, Restriction, TaskId, Timestamp, UnitKey,
};

use crate::namespace::{NamespaceHost, Target, TargetSelector};
use crate::process::{
    Enforceable, ProcessHost, SpawnError, SpawnRequest, Spawned, StopError, UnitEnd, UnitState,
};
use crate::unit::UnitHost;

/// What the next orders meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Everything works.
    #[default]
    Well,
    /// Spawns fail with this.
    SpawnFails(SpawnError),
    /// Nothing is ever answered.
    Silent,
    /// The implementation itself has a bug.
    Panics,
}

/// The double. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct FakeProcessHost(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    mood: Mood,
    spawned: Vec<SpawnRequest>,
    stopped: Vec<(UnitKey, Duration)>,
    signaled: Vec<(UnitKey, i32)>,
    units: BTreeMap<UnitKey, UnitState>,
    target: Option<Target>,
    next_pid: u32,
}

impl std::fmt::Debug for SpawnRequest {
    /// Without the values of variables: they may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpawnRequest")
            .field("unit", &self.unit)
            .field("argv", &self.argv)
            .finish_non_exhaustive()
    }
}

impl FakeProcessHost {
    /// A host on which everything works.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the next orders meet.
    pub fn set_mood(&self, mood: Mood) {
        self.0.lock().mood = mood;
    }

    /// Every spawn that was asked for, repeats included.
    #[must_use]
    pub fn spawned(&self) -> Vec<SpawnRequest> {
        self.0.lock().spawned.clone()
    }

    /// Every stop that was asked for.
    #[must_use]
    pub fn stopped(&self) -> Vec<(UnitKey, Duration)> {
        self.0.lock().stopped.clone()
    }

    /// Every signal that was asked for.
    #[must_use]
    pub fn signaled(&self) -> Vec<(UnitKey, i32)> {
        self.0.lock().signaled.clone()
    }

    /// The process that every look for a target finds; `None` when it ended.
    pub fn set_target(&self, target: Option<Target>) {
        self.0.lock().target = target;
    }

    /// A unit's main process ends.
    pub fn end(&self, unit: &UnitKey, end: UnitEnd) {
        self.0
            .lock()
            .units
            .insert(unit.clone(), UnitState::Ended(end));
    }

    /// Does `work` in the mood of now.
    fn answer<T: Send + 'static>(&self, work: impl FnOnce(&mut Inner) -> T) -> BoxFuture<'_, T> {
        let mut inner = self.0.lock();
        match inner.mood {
            Mood::Well | Mood::SpawnFails(_) => {
                let answer = work(&mut inner);
                Box::pin(async move { answer })
            }
            Mood::Silent => Box::pin(pending()),
            Mood::Panics => Box::pin(async { unreachable!("a bug, asked for by a test") }),
        }
    }
}

impl Inner {
    fn spawn(&mut self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let unit = request.unit.clone();
        self.spawned.push(request);
        match self.units.get(&unit) {
            Some(UnitState::Running(spawned)) => return Ok(spawned.clone()),
            Some(UnitState::Ended(end)) => {
                return Ok(Spawned {
                    process: ProcessIdentity {
                        pid: 1,
                        start_ticks: 1,
                    },
                    started_at: end.at,
                    exit: Some(*end),
                    enforced: Enforced::default(),
                });
            }
            None => {}
        }
        if let Mood::SpawnFails(error) = &self.mood {
            return Err(error.clone());
        }
        self.next_pid += 1;
        let spawned = Spawned {
            process: ProcessIdentity {
                pid: 1000 + self.next_pid,
                start_ticks: u64::from(self.next_pid),
            },
            started_at: Timestamp::from_millis(0),
            exit: None,
            enforced: Enforced::default(),
        };
        self.units.insert(unit, UnitState::Running(spawned.clone()));
        Ok(spawned)
    }
}

impl UnitHost for FakeProcessHost {
    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>> {
        ProcessHost::stop(self, unit, grace)
    }

    fn signal(&self, unit: UnitKey, signal: i32) -> BoxFuture<'_, Result<(), StopError>> {
        ProcessHost::signal(self, unit, signal)
    }
}

impl NamespaceHost for FakeProcessHost {
    fn find(&self, _: TargetSelector) -> BoxFuture<'_, Result<Option<Target>, StopError>> {
        self.answer(|inner| Ok(inner.target))
    }

    fn is_alive(&self, process: ProcessIdentity) -> BoxFuture<'_, Result<bool, StopError>> {
        self.answer(move |inner| Ok(inner.target.is_some_and(|target| target.process == process)))
    }
}

impl ProcessHost for FakeProcessHost {
    fn spawn(&self, request: SpawnRequest) -> BoxFuture<'_, Result<Spawned, SpawnError>> {
        self.answer(|inner| inner.spawn(request))
    }

    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>> {
        self.answer(|inner| {
            inner.stopped.push((unit, grace));
            Ok(())
        })
    }

    fn signal(&self, unit: UnitKey, signal: i32) -> BoxFuture<'_, Result<(), StopError>> {
        self.answer(|inner| match inner.units.get(&unit) {
            Some(UnitState::Running(_)) => {
                inner.signaled.push((unit, signal));
                Ok(())
            }
            Some(UnitState::Ended(_)) | None => Err(StopError::NotRunning { unit }),
        })
    }

    fn inspect(&self, unit: UnitKey) -> BoxFuture<'_, Result<Option<UnitState>, StopError>> {
        self.answer(|inner| Ok(inner.units.get(&unit).cloned()))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(UnitKey, UnitState)>, StopError>> {
        self.answer(|inner| {
            let units = inner.units.iter();
            Ok(units
                .map(|(key, state)| (key.clone(), state.clone()))
                .collect())
        })
    }

    fn release(&self, unit: UnitKey) -> BoxFuture<'_, Result<(), StopError>> {
        self.answer(|inner| {
            if matches!(inner.units.get(&unit), Some(UnitState::Ended(_))) {
                inner.units.remove(&unit);
            }
            Ok(())
        })
    }

    fn purge(&self, task: TaskId) -> BoxFuture<'_, Result<(), StopError>> {
        self.answer(|inner| {
            inner.units.retain(|unit, _| unit.task != task);
            Ok(())
        })
    }

    fn enforceable(&self) -> BoxFuture<'_, Result<Enforceable, StopError>> {
        self.answer(|_| {
            let rlimit = |one| (one, Ok(Mechanism::Rlimit));
            Ok(Restriction::ALL.into_iter().map(rlimit).collect())
        })
    }
}
