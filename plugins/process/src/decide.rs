//! What the runtime answers, as plain functions of what it was told.

use taskwright_plugin_sdk::command;
use taskwright_plugin_sdk::{Problem, Task};

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

#[cfg(test)]
mod tests;
