#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use crate::EnvVar;

fn task(command: &[&str]) -> Task {
    Task {
        id: "0198b0e5-0000-7000-8000-000000000001".to_owned(),
        namespace: "default".to_owned(),
        name: "build".to_owned(),
        attempt: 1,
        kind: KIND.to_owned(),
        process: Some(Command {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
        }),
        document: String::new(),
        labels: Vec::new(),
        config: String::new(),
        extra: Vec::new(),
    }
}

fn fields(change: impl FnOnce(&mut Command)) -> Vec<String> {
    let mut task = task(&["true"]);
    change(task.process.as_mut().unwrap());
    problems(&task)
        .into_iter()
        .map(|problem| problem.field)
        .collect()
}

fn told(step: &Step) -> String {
    match step {
        Step::Wait(_) => "wait".to_owned(),
        Step::Done(Outcome::ExitedBecause((code, _))) => format!("because {code}"),
        Step::Done(outcome) => format!("{outcome:?}"),
    }
}

#[test]
fn a_plain_command_has_no_problem() {
    assert!(problems(&task(&["true"])).is_empty());
}

#[test]
fn every_problem_names_its_field() {
    assert_eq!(fields(|c| c.command.clear()), ["/process/command"]);
    assert_eq!(
        fields(|c| c.command = vec![String::new()]),
        ["/process/command/0"]
    );
    assert_eq!(
        fields(|c| c.args = vec!["a".to_owned(), "b\0".to_owned()]),
        ["/process/args/1"]
    );
    assert_eq!(
        fields(|c| c.working_dir = Some("a\0".to_owned())),
        ["/process/workingDir"]
    );
    let variable = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    assert_eq!(
        fields(|c| c.env = vec![variable("A", "1"), variable("B=C", "\0"), variable("", "")]),
        [
            "/process/env/1/name",
            "/process/env/1/value",
            "/process/env/2/name"
        ]
    );
}

#[test]
fn work_without_a_command_is_a_problem_and_never_started() {
    let mut task = task(&["true"]);
    task.process = None;
    assert_eq!(problems(&task).len(), 1);
    assert!(matches!(spawn_request(task), Err(Failure::Bug(_))));
}

#[test]
fn argv_is_command_then_args() {
    let mut task = task(&["sh", "-c"]);
    task.process.as_mut().unwrap().args = vec!["exit 3".to_owned()];
    assert_eq!(spawn_request(task).unwrap().argv, ["sh", "-c", "exit 3"]);
}

#[test]
fn a_command_that_cannot_be_had_ends_the_attempt_as_a_shell_would() {
    let sentence = || "why".to_owned();
    let ends = [
        (SpawnError::NotFound(sentence()), "because 127"),
        (SpawnError::NotExecutable(sentence()), "because 126"),
        (SpawnError::WorkingDirectory(sentence()), "because 126"),
        (SpawnError::BadCommand(sentence()), "because 126"),
    ];
    for (error, expected) in ends {
        assert_eq!(told(&not_spawned(error).unwrap()), expected);
    }
    assert!(matches!(
        not_spawned(SpawnError::Unavailable(sentence())),
        Err(Failure::Infrastructure(_))
    ));
}

#[test]
fn the_end_of_the_unit_is_the_end_of_the_attempt() {
    let end = |status, out_of_memory| {
        told(&Step::Done(outcome(End {
            status,
            out_of_memory,
        })))
    };
    assert_eq!(end(ExitStatus::Code(7), false), "Outcome::Exited(7)");
    assert_eq!(end(ExitStatus::Signal(9), false), "Outcome::Signaled(9)");
    assert_eq!(end(ExitStatus::Signal(9), true), "Outcome::OutOfMemory");
    assert!(end(ExitStatus::Unknown, false).starts_with("Outcome::Lost"));
}

#[test]
fn stopping_what_has_ended_is_no_failure() {
    assert_eq!(told(&after_stop(Ok(())).unwrap()), "wait");
    let gone = Err(units::Error::NotRunning("main".to_owned()));
    assert_eq!(told(&after_stop(gone).unwrap()), "wait");
}

#[test]
fn a_unit_that_is_over_already_needs_no_event() {
    let after = |ended| after_spawn(Ok(Spawned { pid: 7, ended })).unwrap();
    assert!(matches!(
        after(None),
        Step::Wait(Waiting { running: true, .. })
    ));
    let ended = End {
        status: ExitStatus::Code(3),
        out_of_memory: false,
    };
    assert!(matches!(after(Some(ended)), Step::Done(Outcome::Exited(3))));
}

#[test]
fn events_of_the_one_unit_decide() {
    let exited = |unit: &str| {
        let end = End {
            status: ExitStatus::Signal(9),
            out_of_memory: false,
        };
        let unit = unit.to_owned();
        told(&hear(Event::Exited(crate::UnitExit { unit, end })).unwrap())
    };
    assert_eq!(exited(MAIN), "Outcome::Signaled(9)");
    assert_eq!(exited("other"), "wait");
    for event in [Event::Woke, Event::Recovered] {
        assert_eq!(told(&hear(event).unwrap()), "wait");
    }
}
