//! What the runtime answers, as plain functions of what it was told.

use serde_json::Value;
use taskwright_plugin_sdk::command::{self, problem};
use taskwright_plugin_sdk::{
    End, Event, ExitStatus, Failure, Outcome, Problem, SpawnError, SpawnRequest, Spawned, Step,
    Task,
};

use crate::script::{self, Act, Command};

/// The kind of work that is a script.
pub(crate) const KIND: &str = "echo";
/// The exit status of a script that raised: -3, as a process can say it.
pub(crate) const RAISED: u8 = 253;
/// The one program for all scripts.
const PROGRAM: &str = include_str!("program.sh");
/// Where the script stands in a task.
const FIELD: &str = "/document/content";

/// Everything that keeps a task from ever being started, all of it at once.
pub(crate) fn problems(task: &Task) -> Vec<Problem> {
    let mut found = Vec::new();
    if task.kind != KIND {
        found.push(problem(
            "",
            "this runtime runs scripts, as spec.document of kind echo",
        ));
    } else if let Err(wrong) = script::read(&content(task)) {
        found.extend(wrong.iter().map(|wrong| match wrong.index {
            Some(index) => problem(&format!("{FIELD}/{index}"), &wrong.message),
            None => problem(FIELD, &wrong.message),
        }));
    }
    if !task.config.is_empty() {
        found.push(problem(
            "/config",
            "means nothing to this runtime: leave it out",
        ));
    }
    found
}

/// What to ask the host for.
///
/// # Errors
/// [`Failure::Bug`] for a script that was never checked.
pub(crate) fn spawn_request(task: &Task) -> Result<SpawnRequest, Failure> {
    let commands = commands(task)?;
    let mut argv: Vec<String> = ["sh", "-c", PROGRAM, "echo"].map(str::to_owned).to_vec();
    for Command { line, act } in &commands {
        let word = match act {
            Act::Echo(_) => "echo",
            Act::Sleep(_) => "sleep",
            Act::Log(..) => "log",
            Act::Return(_) => "return",
            Act::Raise => "raise",
            Act::Cleanup => "cleanup",
        };
        let told = match act {
            Act::Log(level, text) => format!("{level} [echo.script:{line}] {text}"),
            other => other.to_string(),
        };
        argv.extend([word.to_owned(), told]);
    }
    Ok(SpawnRequest {
        argv,
        env: Vec::new(),
        working_dir: None,
        // A sleep that a stop cut short is nothing to leave behind.
        extra: vec![("descendants".to_owned(), "kill".to_owned())],
    })
}

/// What comes after asking for the start.
///
/// # Errors
/// [`Failure`] where it was not started and that is not the task's doing.
pub(crate) fn after_spawn(
    task: &Task,
    answer: Result<Spawned, SpawnError>,
) -> Result<Step, Failure> {
    match answer {
        Ok(Spawned {
            ended: Some(end), ..
        }) => Ok(Step::Done(outcome(task, end))),
        other => command::after_spawn(other),
    }
}

/// Hears of an event.
///
/// # Errors
/// [`Failure`] where the host could not do it.
pub(crate) fn hear(task: &Task, event: Event) -> Result<Step, Failure> {
    match event {
        Event::Exited(exit) if exit.unit == command::MAIN => {
            Ok(Step::Done(outcome(task, exit.end)))
        }
        other => command::hear(other),
    }
}

/// What the attempt's end is. A script that raised is told from one that returned the same number.
fn outcome(task: &Task, end: End) -> Outcome {
    let raised = commands(task).ok().and_then(|commands| raise(&commands));
    match (&end.status, raised) {
        (ExitStatus::Code(RAISED), Some(line)) if !end.out_of_memory => {
            Outcome::ExitedBecause((RAISED, format!("RAISE in line {line} of the script")))
        }
        _ => command::outcome(end),
    }
}

/// The line that raises, if the script ends that way. A script has no branches, so that is known.
fn raise(commands: &[Command]) -> Option<usize> {
    let section = |cleaning: bool| {
        let cleanup = commands.iter().position(|one| one.act == Act::Cleanup);
        let cleanup = cleanup.unwrap_or(commands.len());
        let (main, rest) = commands.split_at_checked(cleanup).unwrap_or_default();
        let section = if cleaning { rest } else { main };
        let ends = |one: &&Command| matches!(one.act, Act::Return(_) | Act::Raise);
        section.iter().find(ends)
    };
    let failed = |one: &Command| match one.act {
        Act::Raise => Some(one.line),
        _ => None,
    };
    match section(false) {
        Some(end) if end.act == Act::Raise => Some(end.line),
        Some(Command {
            act: Act::Return(number),
            ..
        }) if number.rem_euclid(256) != 0 => None,
        _ => section(true).and_then(failed),
    }
}

fn commands(task: &Task) -> Result<Vec<Command>, Failure> {
    script::read(&content(task)).map_err(|wrong| {
        let first = wrong.first().map_or("", |wrong| &*wrong.message);
        Failure::Bug(format!("asked to start what was never checked: {first}"))
    })
}

fn content(task: &Task) -> Value {
    serde_json::from_str(&task.document).unwrap_or_default()
}

#[cfg(test)]
mod tests;
