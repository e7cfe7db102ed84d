//! What the runtime answers, as plain functions of what it was told.

use crate::bindings::taskwright::plugin::types::{
    End, EnvVar, ExitStatus, Failure, Outcome, Problem, SpawnError, SpawnRequest, Spawned, Step,
    Task, Waiting,
};
use crate::bindings::taskwright::plugin::units;

/// Everything that keeps a task from ever being started, all of it at once.
pub fn problems(task: &Task) -> Vec<Problem> {
    let words = task.process.iter().flat_map(|process| &process.command);
    let mut found = Vec::new();
    if words.take(1).all(String::is_empty) {
        found.push(Problem {
            field: "/process/command".to_owned(),
            message: "must begin with a program".to_owned(),
        });
    }
    if !task.config.is_empty() {
        found.push(Problem {
            field: "/config".to_owned(),
            message: "means nothing to this runtime: leave it out".to_owned(),
        });
    }
    found
}

/// What to start: the task's command, with one more variable.
pub fn request(task: Task, greeting: Option<String>) -> Result<SpawnRequest, Failure> {
    let Some(process) = task.process else {
        return Err(Failure::Bug("a task without a command came here".into()));
    };
    let mut env = process.env;
    env.push(EnvVar {
        name: "GREETING".to_owned(),
        value: greeting.unwrap_or_else(|| "good day".to_owned()),
    });
    Ok(SpawnRequest {
        argv: [process.command, process.args].concat(),
        env,
        working_dir: process.working_dir,
        extra: Vec::new(),
    })
}

/// What comes after asking for the start.
pub fn after_spawn(answer: Result<Spawned, SpawnError>) -> Result<Step, Failure> {
    let not_started = |code, why| Ok(Step::Done(Outcome::ExitedBecause((code, why))));
    match answer {
        // A short command may be over already.
        Ok(spawned) => Ok(spawned
            .ended
            .map_or_else(running, |end| Step::Done(end.into()))),
        // As a shell says it: 127 for what is not there, 126 for what does not start.
        Err(SpawnError::NotFound(why)) => not_started(127, why),
        Err(
            SpawnError::NotExecutable(why)
            | SpawnError::WorkingDirectory(why)
            | SpawnError::BadCommand(why),
        ) => not_started(126, why),
        // Not the task's doing.
        Err(
            SpawnError::TargetGone(why)
            | SpawnError::Denied(why)
            | SpawnError::Unavailable(why)
            | SpawnError::Other(why),
        ) => Err(Failure::Infrastructure(why)),
    }
}

/// What comes after asking for the stop: the end, as an event.
pub fn after_stop(answer: Result<(), units::Error>) -> Result<Step, Failure> {
    match answer {
        Ok(()) | Err(units::Error::NotRunning(_)) => Ok(running()),
        Err(
            units::Error::Denied(why) | units::Error::Unavailable(why) | units::Error::Other(why),
        ) => Err(Failure::Infrastructure(why)),
    }
}

/// Goes on waiting. There is nothing to remember.
pub fn running() -> Step {
    Step::Wait(Waiting {
        running: true,
        state: Vec::new(),
        wake_after_ms: None,
    })
}

impl From<End> for Outcome {
    /// The attempt's end, by the end of its one unit.
    fn from(end: End) -> Self {
        match end.status {
            _ if end.out_of_memory => Self::OutOfMemory,
            ExitStatus::Code(code) => Self::Exited(code),
            ExitStatus::Signal(number) => Self::Signaled(number),
            ExitStatus::Unknown => Self::Lost("nobody saw how it ended".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::taskwright::plugin::types::Command;

    fn task(command: &[&str]) -> Task {
        let words = command.iter().map(|&word| word.to_owned()).collect();
        Task {
            id: "01980000-0000-7000-8000-000000000000".to_owned(),
            namespace: "default".to_owned(),
            name: "build".to_owned(),
            attempt: 1,
            kind: "process".to_owned(),
            process: Some(Command {
                command: words,
                args: vec!["an argument".to_owned()],
                env: Vec::new(),
                working_dir: None,
            }),
            document: String::new(),
            labels: Vec::new(),
            config: String::new(),
            extra: Vec::new(),
        }
    }

    #[test]
    fn a_task_needs_a_program_and_no_configuration() {
        let fields = |task: &Task| -> Vec<String> {
            problems(task).into_iter().map(|one| one.field).collect()
        };
        assert!(fields(&task(&["echo"])).is_empty());
        assert_eq!(fields(&task(&[""])), ["/process/command"]);
        let mut configured = task(&[]);
        configured.config = "{}".to_owned();
        assert_eq!(fields(&configured), ["/process/command", "/config"]);
    }

    #[test]
    fn the_command_gets_a_greeting() {
        let request = request(task(&["echo"]), Some("hi".to_owned())).unwrap();
        assert_eq!(request.argv, ["echo", "an argument"]);
        assert_eq!(request.env[0].name, "GREETING");
        assert_eq!(request.env[0].value, "hi");
    }

    #[test]
    fn an_end_becomes_the_outcome() {
        let end = |status, out_of_memory| {
            Outcome::from(End {
                status,
                out_of_memory,
            })
        };
        assert!(matches!(
            end(ExitStatus::Code(7), false),
            Outcome::Exited(7)
        ));
        assert!(matches!(
            end(ExitStatus::Signal(9), true),
            Outcome::OutOfMemory
        ));
        assert!(matches!(end(ExitStatus::Unknown, false), Outcome::Lost(_)));
    }

    #[test]
    fn what_is_not_there_ends_the_attempt_and_a_full_machine_does_not() {
        let missing = after_spawn(Err(SpawnError::NotFound("not in PATH".to_owned())));
        let Ok(Step::Done(Outcome::ExitedBecause((127, _)))) = missing else {
            panic!("{missing:?}");
        };
        let full = after_spawn(Err(SpawnError::Unavailable("no room".to_owned())));
        assert!(matches!(full, Err(Failure::Infrastructure(_))));
    }
}
