//! What strategies that run a command answer, as plain functions of what they were told.

use crate::{
    Command, End, Event, ExitStatus, Failure, Outcome, Problem, SpawnError, SpawnRequest, Spawned,
    Step, Task, Waiting, units,
};

/// The kind of work that is a command.
pub const KIND: &str = "process";
/// The one unit of an attempt that is one command.
pub const MAIN: &str = "main";

/// What a shell says of a program that is not there.
pub const NOT_FOUND: u8 = 127;
/// What a shell says of a program that is there and does not start.
pub const NOT_EXECUTABLE: u8 = 126;

/// Everything that keeps a command from ever being started, all of it at once.
#[must_use]
pub fn problems(task: &Task) -> Vec<Problem> {
    let Some(command) = &task.process else {
        return vec![problem(
            "/process",
            "is missing: this runtime runs a command",
        )];
    };
    let mut found = Vec::new();
    match command.command.first() {
        None => found.push(problem(
            "/process/command",
            "must not be empty: its first word is the program",
        )),
        Some(program) if program.is_empty() => found.push(problem(
            "/process/command/0",
            "must not be empty: it is the program",
        )),
        Some(_) => {}
    }
    for (place, words) in [("command", &command.command), ("args", &command.args)] {
        for (index, word) in words.iter().enumerate() {
            if word.contains('\0') {
                found.push(no_nul(&format!("/process/{place}/{index}")));
            }
        }
    }
    for (index, variable) in command.env.iter().enumerate() {
        let name = &variable.name;
        if name.is_empty() {
            found.push(problem(
                &format!("/process/env/{index}/name"),
                "must not be empty",
            ));
        } else if name.contains(['=', '\0']) {
            found.push(problem(
                &format!("/process/env/{index}/name"),
                "must hold neither = nor NUL",
            ));
        }
        if variable.value.contains('\0') {
            found.push(no_nul(&format!("/process/env/{index}/value")));
        }
    }
    if let Some(directory) = &command.working_dir
        && directory.contains('\0')
    {
        found.push(no_nul("/process/workingDir"));
    }
    found
}

fn no_nul(field: &str) -> Problem {
    problem(
        field,
        "must not hold NUL: the kernel would end the text there",
    )
}

/// Something wrong with a task.
#[must_use]
pub fn problem(field: &str, message: &str) -> Problem {
    Problem {
        field: field.to_owned(),
        message: message.to_owned(),
    }
}

/// What to ask the host for.
///
/// # Errors
/// [`Failure::Bug`] for work that has no command, which the host gives to nobody who did not ask
/// for it.
pub fn spawn_request(task: Task) -> Result<SpawnRequest, Failure> {
    let Some(Command {
        command: mut argv,
        args,
        env,
        working_dir,
    }) = task.process
    else {
        return Err(Failure::Bug(format!(
            "asked to start work of kind {:?}, which has no command",
            task.kind
        )));
    };
    argv.extend(args);
    Ok(SpawnRequest {
        argv,
        env,
        working_dir,
        extra: Vec::new(),
    })
}

/// What comes after asking for the start of the one unit.
///
/// # Errors
/// [`Failure`] where it was not started and that is not the task's doing.
pub fn after_spawn(answer: Result<Spawned, SpawnError>) -> Result<Step, Failure> {
    match answer {
        Ok(Spawned {
            ended: Some(end), ..
        }) => Ok(Step::Done(outcome(end))),
        Ok(Spawned { ended: None, .. }) => Ok(running(Vec::new())),
        Err(error) => not_spawned(error),
    }
}

/// Hears of an event, for a runtime whose attempts are one unit called [`MAIN`]. Asks for its stop
/// where that is wished.
///
/// # Errors
/// [`Failure`] where the host could not do it.
pub fn hear(event: Event) -> Result<Step, Failure> {
    match event {
        Event::Exited(exit) if exit.unit == MAIN => Ok(Step::Done(outcome(exit.end))),
        // A unit of another name was never started here.
        Event::Exited(_) | Event::Woke | Event::Recovered => Ok(running(Vec::new())),
        Event::StopRequested(request) => after_stop(units::stop(MAIN, request.grace_ms)),
    }
}

/// What comes of a command that was not started.
///
/// # Errors
/// [`Failure`] where that is not the task's doing.
pub fn not_spawned(error: SpawnError) -> Result<Step, Failure> {
    let because = |code, sentence| Ok(Step::Done(Outcome::ExitedBecause((code, sentence))));
    match error {
        SpawnError::NotFound(sentence) => because(NOT_FOUND, sentence),
        SpawnError::NotExecutable(sentence)
        | SpawnError::WorkingDirectory(sentence)
        | SpawnError::BadCommand(sentence) => because(NOT_EXECUTABLE, sentence),
        SpawnError::TargetGone(sentence) => Ok(Step::Done(Outcome::TargetLost(sentence))),
        SpawnError::Denied(sentence) | SpawnError::Unavailable(sentence) => {
            Err(Failure::Infrastructure(sentence))
        }
        SpawnError::Other(sentence) => Err(Failure::Other(sentence)),
    }
}

/// What the attempt's end is, by the end of its one unit.
#[must_use]
pub fn outcome(end: End) -> Outcome {
    match end.status {
        _ if end.out_of_memory => Outcome::OutOfMemory,
        ExitStatus::Code(code) => Outcome::Exited(code),
        ExitStatus::Signal(number) => Outcome::Signaled(number),
        ExitStatus::Unknown => Outcome::Lost(
            "the process ended while nothing was alive that could have seen how".to_owned(),
        ),
    }
}

/// What comes after asking for the stop: the end, as an event.
///
/// # Errors
/// [`Failure`] where the host could not do it.
pub fn after_stop(answer: Result<(), units::Error>) -> Result<Step, Failure> {
    match answer {
        Ok(()) | Err(units::Error::NotRunning(_)) => Ok(running(Vec::new())),
        Err(
            units::Error::Denied(sentence)
            | units::Error::Unavailable(sentence)
            | units::Error::Other(sentence),
        ) => Err(Failure::Infrastructure(sentence)),
    }
}

/// Goes on waiting for what runs, and remembers `state`.
#[must_use]
pub fn running(state: Vec<u8>) -> Step {
    Step::Wait(Waiting {
        running: true,
        state,
        wake_after_ms: None,
    })
}

#[cfg(test)]
mod tests;
