//! What runs for tasks, as the ports of the loop and of the engine: process trees of the
//! supervisor and containers of the machine's container runtime.
//!
//! The loop speaks of attempts, the hosts of units. Which units an attempt has is remembered
//! here as they are started, so that releasing one never asks for a list of all, and a task
//! that never had a container never asks the container runtime.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taskwright_capability::process::Enforceable;
use taskwright_capability::{
    ContainerHost, ProcessHost, SpawnError, SpawnRequest, Spawned, StopError, UnitEnd, UnitEvent,
    UnitHost, UnitState,
};
use taskwright_control::port::{KnownUnit, UnitEnded, UnitReport, Units};
use taskwright_model::{AttemptNumber, Task, TaskId, Timestamp, UnitKey, UnitName};
use taskwright_supervisor::OutputReader;

use super::containers;
use super::places::Places;
use super::under_way::UnderWay;

/// Everything that runs for tasks.
pub(crate) struct TaskUnits {
    processes: Arc<dyn ProcessHost>,
    containers: Option<Arc<dyn ContainerHost>>,
    reader: Arc<OutputReader>,
    places: Places,
    known: Mutex<HashMap<TaskId, Vec<(AttemptNumber, UnitName)>>>,
    /// Attempts that have, or may have, something at the container runtime.
    contained: Mutex<HashSet<(TaskId, AttemptNumber)>>,
    /// Attempts for which nothing more is begun at the container runtime: they are over.
    closed: Mutex<HashSet<(TaskId, AttemptNumber)>>,
    under_way: UnderWay,
}

impl TaskUnits {
    /// Units of these hosts, whose output is below `reader`'s directory.
    pub(crate) fn new(
        processes: Arc<dyn ProcessHost>,
        containers: Option<Arc<dyn ContainerHost>>,
        reader: Arc<OutputReader>,
        places: Places,
    ) -> Self {
        Self {
            processes,
            containers,
            reader,
            places,
            known: Mutex::default(),
            contained: Mutex::default(),
            closed: Mutex::default(),
            under_way: UnderWay::default(),
        }
    }

    fn remember(&self, unit: &UnitKey) {
        let mut known = self.known.lock();
        let units = known.entry(unit.task).or_default();
        let unit = (unit.attempt, unit.unit.clone());
        if !units.contains(&unit) {
            units.push(unit);
        }
    }

    /// Notes that an attempt has something at the container runtime.
    pub(crate) fn remember_container(&self, task: TaskId, attempt: AttemptNumber) {
        self.contained.lock().insert((task, attempt));
    }

    /// What is being done at the container runtime.
    pub(crate) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// Whether something may be begun at the container runtime for an attempt.
    pub(crate) fn may_have_containers(&self, task: TaskId, attempt: AttemptNumber) -> bool {
        let attempt = (task, attempt);
        self.contained.lock().contains(&attempt) && !self.closed.lock().contains(&attempt)
    }

    /// Whether an attempt has something at the container runtime.
    pub(crate) fn has_containers(&self, task: TaskId, attempt: AttemptNumber) -> bool {
        self.contained.lock().contains(&(task, attempt))
    }

    fn forget(&self, task: TaskId, attempt: AttemptNumber) {
        let mut known = self.known.lock();
        if let Some(units) = known.get_mut(&task) {
            units.retain(|(of, _)| *of != attempt);
            if units.is_empty() {
                known.remove(&task);
            }
        }
    }

    fn units_of(&self, task: TaskId, attempt: AttemptNumber) -> Vec<UnitKey> {
        let known = self.known.lock();
        let units = known.get(&task).map(Vec::as_slice).unwrap_or_default();
        units
            .iter()
            .filter(|(of, _)| *of == attempt)
            .map(|(_, unit)| UnitKey {
                task,
                attempt,
                unit: unit.clone(),
            })
            .collect()
    }

    /// The container runtime, if this attempt has something there.
    fn containers_of(
        &self,
        task: TaskId,
        attempt: AttemptNumber,
    ) -> Option<&Arc<dyn ContainerHost>> {
        let contained = self.contained.lock().contains(&(task, attempt));
        self.containers.as_ref().filter(|_| contained)
    }

    /// The container runtime, if this unit is one of its containers.
    fn container(&self, unit: &UnitKey) -> Option<&Arc<dyn ContainerHost>> {
        let is_process = self.units_of(unit.task, unit.attempt).contains(unit);
        self.containers_of(unit.task, unit.attempt)
            .filter(|_| !is_process)
    }
}

impl Units for TaskUnits {
    fn terminate(&self, task: TaskId, attempt: AttemptNumber) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            for unit in self.units_of(task, attempt) {
                self.processes
                    .stop(unit, Duration::ZERO)
                    .await
                    .map_err(told)?;
            }
            if let Some(containers) = self.containers_of(task, attempt) {
                self.closed.lock().insert((task, attempt));
                self.under_way.settled(task, Some(attempt)).await?;
                containers.terminate(task, attempt).await.map_err(told)?;
            }
            Ok(())
        })
    }

    fn release(&self, task: TaskId, attempt: AttemptNumber) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            for unit in self.units_of(task, attempt) {
                self.processes.release(unit).await.map_err(told)?;
            }
            self.forget(task, attempt);
            if let Some(containers) = self.containers_of(task, attempt) {
                self.closed.lock().insert((task, attempt));
                self.under_way.settled(task, Some(attempt)).await?;
                containers.release(task, attempt).await.map_err(told)?;
                self.contained.lock().remove(&(task, attempt));
                self.closed.lock().remove(&(task, attempt));
            }
            Ok(())
        })
    }

    fn remove(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.processes.purge(task.id).await.map_err(told)?;
            self.known.lock().remove(&task.id);
            let had = self.contained.lock().iter().any(|(id, _)| *id == task.id);
            let may_have_had = containers::may_have(&task);
            if let Some(containers) = self.containers.as_ref().filter(|_| had || may_have_had) {
                let attempts = task
                    .attempts
                    .iter()
                    .map(|attempt| (task.id, attempt.number));
                self.closed.lock().extend(attempts);
                self.under_way.settled(task.id, None).await?;
                containers.purge(task.id).await.map_err(told)?;
                self.contained.lock().retain(|(id, _)| *id != task.id);
                self.closed.lock().retain(|(id, _)| *id != task.id);
            }
            let reader = self.reader.clone();
            let directory = self.places.below_data_dir(&task.key);
            let scratch = self.places.scratch(task.id);
            blocking(move || {
                reader
                    .remove_task_dir(&directory)
                    .and_then(|()| remove_if_there(scratch))
                    .map_err(|error| format!("remove the files of {}: {error}", task.key))
            })
            .await?
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<KnownUnit>, String>> {
        Box::pin(async move {
            let units = self.processes.list().await.map_err(told)?;
            let mut known: Vec<KnownUnit> = units
                .into_iter()
                .map(|(key, state)| {
                    self.remember(&key);
                    known_unit(key, state)
                })
                .collect();
            if let Some(containers) = &self.containers {
                match containers.list().await {
                    Ok(units) => known.extend(units.into_iter().map(|(key, state)| {
                        self.remember_container(key.task, key.attempt);
                        known_unit(key, state)
                    })),
                    // Tasks that are no containers go on without it; the strategies of those that
                    // are ask until it is back.
                    Err(error) => tracing::warn!(%error, "containers could not be looked for"),
                }
            }
            Ok(known)
        })
    }

    fn last_output(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Option<Timestamp>, String>> {
        let reader = self.reader.clone();
        let directory = self.places.below_data_dir(&task.key);
        Box::pin(async move {
            let looked = blocking(move || reader.last_output(&directory)).await?;
            looked.map_err(|error| format!("look at the output of {}: {error}", task.key))
        })
    }
}

impl UnitHost for TaskUnits {
    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>> {
        match self.container(&unit) {
            Some(containers) => containers.stop(unit, grace),
            None => self.processes.stop(unit, grace),
        }
    }

    fn signal(&self, unit: UnitKey, signal: i32) -> BoxFuture<'_, Result<(), StopError>> {
        if self.container(&unit).is_some() {
            let detail = "a container takes no signals but its stop".to_owned();
            return Box::pin(async { Err(StopError::Unavailable { detail }) });
        }
        self.processes.signal(unit, signal)
    }
}

/// The same host for the engine: what a plugin starts is remembered before it is started, so
/// that an answer that was lost on the way leaves no unit behind that nobody knows.
impl ProcessHost for TaskUnits {
    fn spawn(&self, request: SpawnRequest) -> BoxFuture<'_, Result<Spawned, SpawnError>> {
        self.remember(&request.unit);
        self.processes.spawn(request)
    }

    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>> {
        self.processes.stop(unit, grace)
    }

    fn signal(&self, unit: UnitKey, signal: i32) -> BoxFuture<'_, Result<(), StopError>> {
        self.processes.signal(unit, signal)
    }

    fn inspect(&self, unit: UnitKey) -> BoxFuture<'_, Result<Option<UnitState>, StopError>> {
        self.processes.inspect(unit)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(UnitKey, UnitState)>, StopError>> {
        self.processes.list()
    }

    fn release(&self, unit: UnitKey) -> BoxFuture<'_, Result<(), StopError>> {
        self.processes.release(unit)
    }

    fn purge(&self, task: TaskId) -> BoxFuture<'_, Result<(), StopError>> {
        self.processes.purge(task)
    }

    fn enforceable(&self) -> BoxFuture<'_, Result<Enforceable, StopError>> {
        self.processes.enforceable()
    }
}

/// A report of the supervisor as the loop takes it.
pub(crate) fn report(report: taskwright_capability::UnitReport) -> UnitReport {
    let UnitEvent::Ended(end) = report.event;
    UnitReport {
        task: report.unit.task,
        attempt: report.unit.attempt,
        unit: report.unit.unit,
        ended: ended(end),
    }
}

fn known_unit(key: UnitKey, state: UnitState) -> KnownUnit {
    let (process, end) = match state {
        UnitState::Running(spawned) => (Some(spawned.process), spawned.exit),
        UnitState::Ended(end) => (None, Some(end)),
    };
    KnownUnit {
        task: key.task,
        attempt: key.attempt,
        unit: key.unit,
        process,
        ended: end.map(ended),
    }
}

fn ended(end: UnitEnd) -> UnitEnded {
    UnitEnded {
        status: end.status,
        out_of_memory: end.out_of_memory,
    }
}

fn told(error: StopError) -> String {
    error.to_string()
}

fn remove_if_there(path: PathBuf) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Work that waits for the disk, on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| format!("the work was given up: {error}"))
}
