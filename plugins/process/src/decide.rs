//! What the runtime answers, as plain functions of what it was told.

use crate::exports::taskwright::plugin::runtime::{End, Failure, Problem, Step, Task};
use crate::taskwright::plugin::process::{Error, SpawnRequest, Spawned};
use crate::taskwright::plugin::types::{Command, ExitStatus, Outcome, Waiting};

/// The kind of work this runtime takes.
pub(crate) const KIND: &str = "process";

/// What a shell says of a program that is not there.
const NOT_FOUND: u8 = 127;
/// What a shell says of a program that is there and does not start.
const NOT_EXECUTABLE: u8 = 126;

/// Everything that keeps a task from ever being started, all of it at once.
pub(crate) fn problems(task: &Task) -> Vec<Problem> {
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

fn problem(field: &str, message: &str) -> Problem {
    Problem {
        field: field.to_owned(),
        message: message.to_owned(),
    }
}

/// What to ask the host for.
pub(crate) fn spawn_request(task: Task) -> Result<SpawnRequest, Failure> {
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

/// What comes after asking for the start.
pub(crate) fn after_spawn(answer: Result<Spawned, Error>) -> Result<Step, Failure> {
    match answer {
        Ok(Spawned {
            ended: Some(end), ..
        }) => Ok(after_exit(end)),
        Ok(Spawned { ended: None, .. }) => Ok(wait()),
        Err(Error::NotFound(sentence)) => Ok(unusable(NOT_FOUND, sentence)),
        Err(
            Error::NotExecutable(sentence)
            | Error::WorkingDirectory(sentence)
            | Error::BadCommand(sentence),
        ) => Ok(unusable(NOT_EXECUTABLE, sentence)),
        Err(Error::Denied(sentence) | Error::Unavailable(sentence)) => {
            Err(Failure::Infrastructure(sentence))
        }
        Err(Error::NotRunning(sentence) | Error::Other(sentence)) => Err(Failure::Other(sentence)),
    }
}

/// What the attempt's end is, by the end of its one unit.
pub(crate) fn after_exit(end: End) -> Step {
    Step::Done(match end.status {
        _ if end.out_of_memory => Outcome::OutOfMemory,
        ExitStatus::Code(code) => Outcome::Exited(code),
        ExitStatus::Signal(number) => Outcome::Signaled(number),
        ExitStatus::Unknown => Outcome::Lost(
            "the process ended while nothing was alive that could have seen how".to_owned(),
        ),
    })
}

/// What comes after asking for the stop: the end, as an event.
pub(crate) fn after_stop(answer: Result<(), Error>) -> Result<Step, Failure> {
    match answer {
        Ok(()) | Err(Error::NotRunning(_)) => Ok(wait()),
        Err(
            Error::NotFound(sentence)
            | Error::NotExecutable(sentence)
            | Error::WorkingDirectory(sentence)
            | Error::BadCommand(sentence)
            | Error::Denied(sentence)
            | Error::Unavailable(sentence)
            | Error::Other(sentence),
        ) => Err(Failure::Infrastructure(sentence)),
    }
}

/// Waits, with nothing to remember.
pub(crate) fn wait() -> Step {
    Step::Wait(Waiting {
        state: Vec::new(),
        wake_after_ms: None,
    })
}

fn unusable(code: u8, sentence: String) -> Step {
    Step::Done(Outcome::Unusable((code, sentence)))
}

#[cfg(test)]
mod tests;
