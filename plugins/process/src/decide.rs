//! What the runtime answers, as plain functions of what it was told.

use taskwright_plugin_sdk::command;
use taskwright_plugin_sdk::{Failure, Problem, SpawnError, Spawned, Step, Task};

/// Everything that keeps a task from ever being started, all of it at once.
pub(crate) fn problems(task: &Task) -> Vec<Problem> {
    let mut found = command::problems(task);
    if !task.config.is_empty() {
        found.push(command::problem(
            "/config",
            "means nothing to this runtime: leave it out, or name another runtime",
        ));
    }
    found
}

/// What comes after asking for the start.
pub(crate) fn after_spawn(answer: Result<Spawned, SpawnError>) -> Result<Step, Failure> {
    match answer {
        Ok(Spawned {
            ended: Some(end), ..
        }) => Ok(Step::Done(command::outcome(end))),
        Ok(Spawned { ended: None, .. }) => Ok(command::running(Vec::new())),
        Err(error) => command::not_spawned(error),
    }
}

#[cfg(test)]
mod tests;
