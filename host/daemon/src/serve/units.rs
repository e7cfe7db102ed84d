//! The supervisor's client as the ports of the loop and of the engine.
//!
//! The loop speaks of attempts, the supervisor of units. Which units an attempt has is
//! remembered here as they are started, so that releasing one never asks for a list of all.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taskwright_capability::{
    ProcessHost, SpawnError, SpawnRequest, Spawned, StopError, UnitEnd, UnitEvent, UnitState,
};
use taskwright_control::port::{KnownUnit, UnitEnded, UnitReport, Units};
use taskwright_model::{AttemptNumber, Task, TaskId, Timestamp, UnitKey, UnitName};
use taskwright_supervisor::OutputReader;

use super::places::Places;

/// Units by attempt, over the supervisor's client.
pub(crate) struct SupervisedUnits {
    host: Arc<dyn ProcessHost>,
    reader: Arc<OutputReader>,
    places: Places,
    known: Mutex<HashMap<TaskId, Vec<(AttemptNumber, UnitName)>>>,
}

impl SupervisedUnits {
    /// Units of `host`, whose output is below `reader`'s directory.
    pub(crate) fn new(
        host: Arc<dyn ProcessHost>,
        reader: Arc<OutputReader>,
        places: Places,
    ) -> Self {
        Self {
            host,
            reader,
            places,
            known: Mutex::default(),
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
}

impl Units for SupervisedUnits {
    fn terminate(&self, task: TaskId, attempt: AttemptNumber) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            for unit in self.units_of(task, attempt) {
                self.host.stop(unit, Duration::ZERO).await.map_err(told)?;
            }
            Ok(())
        })
    }

    fn release(&self, task: TaskId, attempt: AttemptNumber) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            for unit in self.units_of(task, attempt) {
                self.host.release(unit).await.map_err(told)?;
            }
            self.forget(task, attempt);
            Ok(())
        })
    }

    fn remove(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.host.purge(task.id).await.map_err(told)?;
            self.known.lock().remove(&task.id);
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
            let units = self.host.list().await.map_err(told)?;
            let known = units.into_iter().map(|(key, state)| {
                self.remember(&key);
                known_unit(key, state)
            });
            Ok(known.collect())
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

/// The same host for the engine: what a plugin starts is remembered before it is started, so
/// that an answer that was lost on the way leaves no unit behind that nobody knows.
impl ProcessHost for SupervisedUnits {
    fn spawn(&self, request: SpawnRequest) -> BoxFuture<'_, Result<Spawned, SpawnError>> {
        self.remember(&request.unit);
        self.host.spawn(request)
    }

    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>> {
        self.host.stop(unit, grace)
    }

    fn signal(&self, unit: UnitKey, signal: i32) -> BoxFuture<'_, Result<(), StopError>> {
        self.host.signal(unit, signal)
    }

    fn inspect(&self, unit: UnitKey) -> BoxFuture<'_, Result<Option<UnitState>, StopError>> {
        self.host.inspect(unit)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(UnitKey, UnitState)>, StopError>> {
        self.host.list()
    }

    fn release(&self, unit: UnitKey) -> BoxFuture<'_, Result<(), StopError>> {
        self.host.release(unit)
    }

    fn purge(&self, task: TaskId) -> BoxFuture<'_, Result<(), StopError>> {
        self.host.purge(task)
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
