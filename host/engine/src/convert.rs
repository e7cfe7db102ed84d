//! WIT values to model values and back, by hand. What a guest says is cut to
//! size here, so nothing behind this file needs to.

use std::sync::Arc;
use std::time::Duration;

use taskwright_capability::{ContainerError, SpawnError, StopError};
use taskwright_control::port::{SpecProblem, Step, StrategyEvent, StrategyTask, UnitEnded};
use taskwright_model::{ExitStatus, Fault, Outcome, Work};

use crate::bindings::{container, runtime, types, units};
use crate::call::CallError;

/// Bytes of state a strategy may ask us to keep.
const MOST_STATE_BYTES: usize = 64 << 10;
/// Bytes of any sentence for people.
const MOST_TEXT_BYTES: usize = 4 << 10;
/// The longest time that a guest may ask for, so that no clock arithmetic meets its end.
pub(crate) const MOST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// Problems of one task that are passed on.
const MOST_PROBLEMS: usize = 100;

/// The record that a call is given.
pub(crate) fn task(given: &StrategyTask) -> types::Task {
    let task = &given.task;
    let (command, document) = match &task.spec.work {
        Work::Process(spec) => {
            let command = types::Command {
                command: spec.command.clone(),
                args: spec.args.clone(),
                env: spec
                    .env
                    .iter()
                    .map(|variable| types::EnvVar {
                        name: variable.name.clone(),
                        value: variable.value.clone(),
                    })
                    .collect(),
                working_dir: spec.working_dir.clone(),
            };
            (Some(command), String::new())
        }
        Work::Document { json, .. } => (None, json.clone()),
    };
    types::Task {
        id: task.id.to_string(),
        namespace: task.key.namespace.as_str().to_owned(),
        name: task.key.name.as_str().to_owned(),
        attempt: given.attempt.0,
        kind: task.spec.work.kind().to_owned(),
        process: command,
        document,
        labels: task
            .spec
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        config: task.spec.config.clone(),
        extra: Vec::new(),
    }
}

/// The event that a call is told of.
pub(crate) fn event(event: &StrategyEvent) -> runtime::Event {
    match event {
        StrategyEvent::Exited { unit, end } => runtime::Event::Exited(runtime::UnitExit {
            unit: unit.as_str().to_owned(),
            end: self::end(*end),
        }),
        StrategyEvent::StopRequested { grace } => {
            runtime::Event::StopRequested(runtime::StopRequest {
                grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            })
        }
        StrategyEvent::Woke => runtime::Event::Woke,
        StrategyEvent::Recovered => runtime::Event::Recovered,
    }
}

fn exit_status(status: Option<ExitStatus>) -> types::ExitStatus {
    match status {
        Some(ExitStatus::Code(code)) => types::ExitStatus::Code(code),
        Some(ExitStatus::Signal(number)) => types::ExitStatus::Signal(number.unsigned_abs()),
        None => types::ExitStatus::Unknown,
    }
}

/// The end of a unit.
pub(crate) fn end(end: UnitEnded) -> types::End {
    types::End {
        status: exit_status(end.status),
        out_of_memory: end.out_of_memory,
    }
}

/// What a strategy wants next. `seen` is the end that it was told of in this call: an outcome
/// that only names a cause keeps it.
pub(crate) fn step(
    answer: Result<types::Step, types::Failure>,
    seen: Option<ExitStatus>,
) -> Result<Step, CallError> {
    match answer {
        Ok(types::Step::Wait(waiting)) => {
            if waiting.state.len() > MOST_STATE_BYTES {
                return Err(CallError::Plugin(format!(
                    "it asks to keep {} bytes of state, at most {MOST_STATE_BYTES} are kept",
                    waiting.state.len()
                )));
            }
            Ok(Step::Wait {
                running: waiting.running,
                state: Arc::from(waiting.state),
                wake_after: waiting
                    .wake_after_ms
                    .map(|wish| Duration::from_millis(wish).min(MOST_WAIT)),
            })
        }
        Ok(types::Step::Done(outcome)) => self::outcome(outcome, seen).map(Step::Done),
        Err(types::Failure::Infrastructure(sentence)) => Err(CallError::Host(text(sentence))),
        Err(types::Failure::Bug(sentence) | types::Failure::Other(sentence)) => {
            Err(CallError::Plugin(text(sentence)))
        }
    }
}

fn outcome(outcome: types::Outcome, seen: Option<ExitStatus>) -> Result<Outcome, CallError> {
    Ok(match outcome {
        types::Outcome::Exited(code) => Outcome::Exited {
            code,
            message: None,
        },
        types::Outcome::Signaled(number) => Outcome::Signaled {
            signal: i32::try_from(number)
                .map_err(|_| CallError::Plugin(format!("it says that signal {number} exists")))?,
        },
        types::Outcome::OutOfMemory => Outcome::OutOfMemory { exit: seen },
        types::Outcome::ExitedBecause((code, sentence)) => Outcome::Exited {
            code,
            message: Some(text(sentence)),
        },
        types::Outcome::Lost(sentence) => Outcome::Lost {
            message: text(sentence),
        },
        types::Outcome::ImageUnavailable(sentence) => failed(Fault::Image, sentence),
        types::Outcome::RuntimeUnavailable(sentence) => failed(Fault::ContainerRuntime, sentence),
        types::Outcome::SandboxLost(sentence) => failed(Fault::Sandbox, sentence),
        types::Outcome::TargetLost(sentence) => failed(Fault::Target, sentence),
    })
}

fn failed(fault: Fault, sentence: String) -> Outcome {
    Outcome::Infrastructure {
        fault,
        message: text(sentence),
    }
}

/// What a strategy holds against a spec.
///
/// A plugin points into the task as it sees it (`/process/command`); a submitter wrote that
/// part below `/spec`, unless it is one that stands at the top.
pub(crate) fn problems(answer: Result<(), Vec<types::Problem>>) -> Vec<SpecProblem> {
    let Err(problems) = answer else {
        return Vec::new();
    };
    let mut found: Vec<SpecProblem> = problems
        .into_iter()
        .take(MOST_PROBLEMS)
        .map(|problem| SpecProblem {
            field: text(submitted_at(&problem.field)),
            message: text(problem.message),
        })
        .collect();
    if found.is_empty() {
        // It said no, so no it is.
        found.push(SpecProblem {
            field: "/spec".to_owned(),
            message: "the runtime refuses this task without saying why".to_owned(),
        });
    }
    found
}

/// Where the submitter wrote what a plugin points at.
fn submitted_at(field: &str) -> String {
    const AT_THE_TOP: [&str; 2] = ["podTemplateSpec", "config"];
    let field = field.trim_start_matches('/');
    let first = field.split('/').next().unwrap_or_default();
    if AT_THE_TOP.contains(&first) {
        format!("/{field}")
    } else if field.is_empty() {
        "/spec".to_owned()
    } else {
        format!("/spec/{field}")
    }
}

/// Why nothing was started, for the guest.
pub(crate) fn spawn_error(error: &SpawnError) -> types::SpawnError {
    let sentence = error.to_string();
    match error {
        SpawnError::NotFound { .. } => types::SpawnError::NotFound(sentence),
        SpawnError::NotExecutable { .. } => types::SpawnError::NotExecutable(sentence),
        SpawnError::WorkingDirectory { .. } | SpawnError::ReadOnlyPath { .. } => {
            types::SpawnError::WorkingDirectory(sentence)
        }
        SpawnError::BadCommand { .. } => types::SpawnError::BadCommand(sentence),
        SpawnError::TargetGone { .. } => types::SpawnError::TargetGone(sentence),
        SpawnError::NoRoom { .. }
        | SpawnError::Unavailable { .. }
        | SpawnError::NotEnforceable { .. } => types::SpawnError::Unavailable(sentence),
    }
}

/// Why an order was not carried out, for the guest.
pub(crate) fn stop_error(error: &StopError) -> units::Error {
    let sentence = error.to_string();
    match error {
        StopError::Unavailable { .. } => units::Error::Unavailable(sentence),
        StopError::NotRunning { .. } => units::Error::NotRunning(sentence),
    }
}

/// Why something about containers was not done, for the guest.
pub(crate) fn container_error(error: &ContainerError) -> container::Error {
    let sentence = text(error.to_string());
    match error {
        ContainerError::ImageUnavailable { .. } => container::Error::ImageUnavailable(sentence),
        ContainerError::NotFound { .. } => container::Error::NotFound(sentence),
        ContainerError::NotExecutable { .. } => container::Error::NotExecutable(sentence),
        ContainerError::Refused { .. } => container::Error::Refused(sentence),
        ContainerError::NotRunning { .. } => container::Error::NotRunning(sentence),
        ContainerError::SandboxLost { .. } => container::Error::SandboxLost(sentence),
        ContainerError::NeverBegun { .. } => container::Error::NeverBegun(sentence),
        ContainerError::PerhapsBegun { .. } => container::Error::PerhapsBegun(sentence),
        ContainerError::UnderWay { .. } => container::Error::UnderWay(sentence),
        ContainerError::Overdue(_) | ContainerError::Unavailable { .. } => {
            container::Error::Unavailable(sentence)
        }
    }
}

/// A sentence of a guest's, of a size that a record can keep.
pub(crate) fn text(mut sentence: String) -> String {
    cut(&mut sentence, MOST_TEXT_BYTES);
    sentence
}

/// Cuts a text to at most `most` bytes, at a character.
pub(crate) fn cut(sentence: &mut String, most: usize) {
    if sentence.len() > most {
        let end = sentence.floor_char_boundary(most.saturating_sub('…'.len_utf8()));
        sentence.truncate(end);
        sentence.push('…');
    }
}
