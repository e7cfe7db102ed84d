//! `process`: units of an attempt, by way of the host's process capability.

use std::sync::Arc;
use std::time::Duration;

use taskwright_capability::{Lifetime, SpawnRequest};
use taskwright_control::port::{StrategyTask, UnitEnded};
use taskwright_model::{UnitKey, UnitName};

use crate::bindings::process::{Error, Host, SpawnRequest as Request, Spawned};
use crate::call::CallState;
use crate::convert;

/// Units that one call may start. An attempt starts them in its first call, so this is the
/// bound of an attempt too, for every strategy that is not set on walking around it.
const MOST_UNITS: usize = 16;
/// The one key of `spawn-request.extra` that this host knows.
const DESCENDANTS: &str = "descendants";

impl Host for CallState {
    async fn spawn(
        &mut self,
        unit: String,
        request: Request,
    ) -> wasmtime::Result<Result<Spawned, Error>> {
        let (given, unit) = match self.acting_on(&unit) {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if !self.account.units.contains(&unit) {
            if self.account.units.len() >= MOST_UNITS {
                return Ok(Err(Error::Denied(format!(
                    "an attempt has at most {MOST_UNITS} units"
                ))));
            }
            self.account.units.push(unit.clone());
        }
        let request = match self.complete(given, unit.clone(), request) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let host = Arc::clone(&self.host);
        let answer = self
            .outlast(
                "process.spawn",
                async move { host.process.spawn(request).await },
            )
            .await?;
        Ok(match answer {
            Ok(spawned) => {
                self.account.process.get_or_insert(spawned.process);
                let ended = spawned.exit.map(|end| UnitEnded {
                    status: end.status,
                    out_of_memory: end.out_of_memory,
                });
                if let Some(end) = ended {
                    self.account.ended.push((unit, end));
                }
                Ok(Spawned {
                    pid: spawned.process.pid,
                    ended: ended.map(convert::end),
                })
            }
            Err(error) => Err(convert::spawn_error(&error)),
        })
    }

    async fn stop(&mut self, unit: String, grace_ms: u64) -> wasmtime::Result<Result<(), Error>> {
        let key = match self.unit_key(&unit) {
            Ok(key) => key,
            Err(error) => return Ok(Err(error)),
        };
        let host = Arc::clone(&self.host);
        let grace = Duration::from_millis(grace_ms).min(convert::MOST_WAIT);
        let answer = self
            .outlast("process.stop", async move {
                host.process.stop(key, grace).await
            })
            .await?;
        Ok(answer.map_err(|error| convert::stop_error(&error)))
    }

    async fn signal(&mut self, unit: String, number: u32) -> wasmtime::Result<Result<(), Error>> {
        let key = match self.unit_key(&unit) {
            Ok(key) => key,
            Err(error) => return Ok(Err(error)),
        };
        let Some(signal) = i32::try_from(number)
            .ok()
            .filter(|signal| (1..=64).contains(signal))
        else {
            return Ok(Err(Error::Other(format!("there is no signal {number}"))));
        };
        let host = Arc::clone(&self.host);
        let answer = self
            .outlast("process.signal", async move {
                host.process.signal(key, signal).await
            })
            .await?;
        Ok(answer.map_err(|error| convert::stop_error(&error)))
    }
}

impl CallState {
    /// The attempt this call may act for, and the unit it names.
    fn acting_on(&self, unit: &str) -> Result<(StrategyTask, UnitName), Error> {
        let Some(given) = self.scope.attempt() else {
            let sentence = "processes are started and stopped in start and on-event only";
            return Err(Error::Denied(sentence.to_owned()));
        };
        let unit = UnitName::parse(unit).map_err(|error| Error::Other(error.to_string()))?;
        Ok((given.clone(), unit))
    }

    fn unit_key(&self, unit: &str) -> Result<UnitKey, Error> {
        let (given, unit) = self.acting_on(unit)?;
        Ok(UnitKey {
            task: given.task.id,
            attempt: given.attempt,
            unit,
        })
    }

    /// The plugin's request with everything that the host decides.
    fn complete(
        &self,
        given: StrategyTask,
        unit: UnitName,
        request: Request,
    ) -> Result<SpawnRequest, Error> {
        let lifetime = lifetime(&request.extra)?;
        if request.argv.is_empty() {
            return Err(Error::BadCommand("argv is empty".to_owned()));
        }
        let task = &given.task;
        let directory = (self.host.task_directory)(&task.key);
        let output = directory.display().to_string();
        let mut env = self.host.base_env.clone();
        env.extend(task_env(&given, output));
        env.extend(request.env.into_iter().map(|own| (own.name, own.value)));
        Ok(SpawnRequest {
            unit: UnitKey {
                task: task.id,
                attempt: given.attempt,
                unit,
            },
            name: task.key.name.clone(),
            // A relative one is relative to the task's own directory: the daemon's means
            // nothing to whoever wrote the task.
            working_dir: request.working_dir.map(|given| directory.join(given)),
            directory,
            argv: request.argv,
            env,
            lifetime,
        })
    }
}

/// What every process of a task is told of itself.
fn task_env(given: &StrategyTask, output: String) -> Vec<(String, String)> {
    let task = &given.task;
    let mut env = vec![
        ("TASKWRIGHT_TASK_ID", task.id.to_string()),
        ("TASKWRIGHT_TASK_NAME", task.key.name.as_str().to_owned()),
        (
            "TASKWRIGHT_NAMESPACE",
            task.key.namespace.as_str().to_owned(),
        ),
        ("TASKWRIGHT_ATTEMPT", given.attempt.to_string()),
        ("TASKWRIGHT_OUTPUT_DIR", output),
    ];
    let attempt = task.attempts.iter().find(|one| one.number == given.attempt);
    if let (Some(limit), Some(attempt)) = (task.spec.limits.run, attempt) {
        // Seconds since 1970. The limit runs from the moment the task is running, which is
        // later than this: a task that keeps to it is always in time.
        let at = attempt.launched_at.plus(limit).as_millis() / 1000;
        env.push(("TASKWRIGHT_DEADLINE", at.to_string()));
    }
    env.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What becomes of the tree, by the request's `extra`. A key that is not known is refused by
/// name, so that nothing a plugin asks for is silently left out.
fn lifetime(extra: &[(String, String)]) -> Result<Lifetime, Error> {
    let mut lifetime = Lifetime::LeaveDescendants;
    for (key, value) in extra {
        lifetime = match (key.as_str(), value.as_str()) {
            (DESCENDANTS, "leave") => Lifetime::LeaveDescendants,
            (DESCENDANTS, "kill") => Lifetime::KillDescendants,
            (DESCENDANTS, other) => {
                return Err(Error::Other(convert::text(format!(
                    "spawn-request.extra: {DESCENDANTS} is \"leave\" or \"kill\", not {other:?}"
                ))));
            }
            (other, _) => {
                return Err(Error::Other(convert::text(format!(
                    "spawn-request.extra: this host does not know the key {other:?}"
                ))));
            }
        };
    }
    Ok(lifetime)
}
