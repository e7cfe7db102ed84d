//! What `process` and `namespace` have in common: the host's part of a spawn.

use std::path::PathBuf;
use std::sync::Arc;

use taskwright_capability::{Inside, Lifetime, SpawnRequest};
use taskwright_control::port::{StrategyTask, UnitEnded};
use taskwright_model::{Confinement, UnitKey, UnitName};

use crate::bindings::types::{SpawnError, SpawnRequest as Request, Spawned};
use crate::call::CallState;
use crate::convert;

/// The one key of `spawn-request.extra` that this host knows.
const DESCENDANTS: &str = "descendants";

impl CallState {
    /// Starts a unit beside the daemon, or inside another process's namespaces.
    pub(super) async fn spawn_unit(
        &mut self,
        function: &'static str,
        unit: String,
        inside: Option<Inside>,
        request: Request,
    ) -> wasmtime::Result<Result<Spawned, SpawnError>> {
        let (given, unit) = match self.acting_on(&unit) {
            Ok(found) => found,
            Err(why) => return Ok(Err(SpawnError::Denied(why.to_string()))),
        };
        if let Err(sentence) = self.count_unit(&unit) {
            return Ok(Err(SpawnError::Denied(sentence)));
        }
        let request = match self.complete(given, unit.clone(), inside, request) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let host = Arc::clone(&self.host);
        let answer = self
            .outlast(function, async move { host.process.spawn(request).await })
            .await?;
        Ok(match answer {
            Ok(spawned) => {
                let account = &mut self.account;
                account.process.get_or_insert(spawned.process);
                account.remarks.enforced.take(&spawned.enforced);
                let ended = spawned.exit.map(|end| UnitEnded {
                    status: end.status,
                    out_of_memory: end.out_of_memory,
                });
                if let Some(end) = ended {
                    account.ended.push((unit, end));
                }
                Ok(Spawned {
                    pid: spawned.process.pid,
                    ended: ended.map(convert::end),
                })
            }
            Err(error) => Err(convert::spawn_error(&error)),
        })
    }

    /// What restricts a unit beside the daemon: the task's word, and the operator's.
    fn on_terms(&self, task: &Confinement) -> Result<Confinement, SpawnError> {
        self.plugin.grants.process.over(task).map_err(|refused| {
            SpawnError::Denied(format!(
                "plugin {name}: {refused}; leave it out of the task, or change `user` of `process` \
                 under `[grants]` in {name}.toml",
                name = self.plugin.name
            ))
        })
    }

    /// The plugin's request with everything that the host decides.
    fn complete(
        &self,
        given: StrategyTask,
        unit: UnitName,
        inside: Option<Inside>,
        request: Request,
    ) -> Result<SpawnRequest, SpawnError> {
        let lifetime = lifetime(&request.extra)?;
        let Some(program) = request.argv.first() else {
            return Err(SpawnError::BadCommand("argv is empty".to_owned()));
        };
        if inside.is_none() && !self.plugin.grants.allows_program(program) {
            return Err(SpawnError::Denied(convert::text(format!(
                "plugin {} may not start {program:?}: add it to `programs` of \
                 `process` under `[grants]` in {}.toml, by its absolute path",
                self.plugin.name, self.plugin.name
            ))));
        }
        let task = &given.task;
        let directory = (self.host.task_directory)(&task.key);
        let confinement = match inside {
            Some(_) => task.spec.confinement.clone(),
            None => self.on_terms(&task.spec.confinement)?,
        };
        // A relative working directory is relative to where the unit would start otherwise: the
        // daemon's own means nothing to whoever wrote the task.
        let (mut env, start) = match inside {
            // The target's environment is the base; the host's paths mean nothing in there.
            Some(_) => (task_env(&given), PathBuf::from("/")),
            None => {
                let mut env = self.host.base_env.clone();
                env.extend(task_env(&given));
                let output = directory.display().to_string();
                env.push(("TASKWRIGHT_OUTPUT_DIR".to_owned(), output));
                (env, home(&directory, &confinement))
            }
        };
        env.extend(request.env.into_iter().map(|own| (own.name, own.value)));
        let working_dir = match request.working_dir {
            Some(wanted) => Some(start.join(wanted)),
            None => Some(start).filter(|start| *start != directory),
        };
        Ok(SpawnRequest {
            unit: UnitKey {
                task: task.id,
                attempt: given.attempt,
                unit,
            },
            name: task.key.name.clone(),
            directory,
            argv: request.argv,
            env,
            working_dir,
            lifetime,
            inside,
            confinement,
        })
    }
}

/// Where a task starts that does not say. Its own directory is its owner's alone, so one that runs
/// as somebody else starts at the root.
fn home(directory: &std::path::Path, confinement: &Confinement) -> PathBuf {
    match confinement.user {
        Some(_) => PathBuf::from("/"),
        None => directory.to_owned(),
    }
}

/// What every process of a task is told of itself.
pub(super) fn task_env(given: &StrategyTask) -> Vec<(String, String)> {
    let task = &given.task;
    let mut env = vec![
        ("TASKWRIGHT_TASK_ID", task.id.to_string()),
        ("TASKWRIGHT_TASK_NAME", task.key.name.as_str().to_owned()),
        (
            "TASKWRIGHT_NAMESPACE",
            task.key.namespace.as_str().to_owned(),
        ),
        ("TASKWRIGHT_ATTEMPT", given.attempt.to_string()),
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
fn lifetime(extra: &[(String, String)]) -> Result<Lifetime, SpawnError> {
    let mut lifetime = Lifetime::LeaveDescendants;
    for (key, value) in extra {
        lifetime = match (key.as_str(), value.as_str()) {
            (DESCENDANTS, "leave") => Lifetime::LeaveDescendants,
            (DESCENDANTS, "kill") => Lifetime::KillDescendants,
            (DESCENDANTS, other) => {
                return Err(SpawnError::Other(convert::text(format!(
                    "spawn-request.extra: {DESCENDANTS} is \"leave\" or \"kill\", not {other:?}"
                ))));
            }
            (other, _) => {
                return Err(SpawnError::Other(convert::text(format!(
                    "spawn-request.extra: this host does not know the key {other:?}"
                ))));
            }
        };
    }
    Ok(lifetime)
}
