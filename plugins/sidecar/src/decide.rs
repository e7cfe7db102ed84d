//! What the runtime answers, as plain functions of what it was told.

use serde::{Deserialize, Serialize};
use taskwright_plugin_sdk::command;
use taskwright_plugin_sdk::namespace::Target;
use taskwright_plugin_sdk::{
    End, ExitStatus, Failure, Outcome, SpawnError, Spawned, Step, Waiting,
};

use crate::config::Wanted;

/// The signal with which the kernel ends what is left in a PID namespace.
const KILL: u32 = 9;
/// The first and the longest pause between two looks for a target, in milliseconds.
const PAUSES: (u64, u64) = (50, 1000);

/// What is remembered between calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// The process whose namespaces were entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Known>,
    /// How long it has been looked for, in milliseconds; absent when it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    looked_ms: Option<u64>,
}

/// A target that was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pid: u32,
    start_ticks: u64,
    is_init: bool,
}

impl From<Known> for Target {
    fn from(known: Known) -> Self {
        Self {
            pid: known.pid,
            start_ticks: known.start_ticks,
            candidates: 1,
            is_init: known.is_init,
        }
    }
}

impl Memory {
    /// The unit runs inside this one.
    pub(crate) fn inside(target: Target) -> Self {
        Self {
            target: Some(Known {
                pid: target.pid,
                start_ticks: target.start_ticks,
                is_init: target.is_init,
            }),
            looked_ms: None,
        }
    }

    /// What was kept. Nothing is, when the host crashed before it kept the first of it.
    pub(crate) fn read(state: &[u8]) -> Self {
        serde_json::from_slice(state).unwrap_or_default()
    }

    fn kept(&self) -> Vec<u8> {
        // Numbers and switches: this cannot fail, and reads as nothing kept if it did.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether the target is still looked for.
    pub(crate) fn is_looking(&self) -> bool {
        self.looked_ms.is_some()
    }
}

/// What came of a start inside.
pub(crate) enum Seen {
    /// The command is over already.
    Over(End),
    /// The target went away under our hands.
    TargetGone,
    /// Anything else.
    Step(Result<Step, Failure>),
}

/// What comes after asking for the start.
pub(crate) fn after_spawn(answer: Result<Spawned, SpawnError>, target: Target) -> Seen {
    match answer {
        Ok(Spawned {
            ended: Some(end), ..
        }) => Seen::Over(end),
        Ok(Spawned { ended: None, .. }) => Seen::Step(Ok(go_on(&Memory::inside(target)))),
        Err(SpawnError::TargetGone(_)) => Seen::TargetGone,
        Err(error) => Seen::Step(command::not_spawned(error)),
    }
}

/// Goes on waiting for what runs.
pub(crate) fn go_on(memory: &Memory) -> Step {
    command::running(memory.kept())
}

/// Waits for the target a little longer, or no more.
pub(crate) fn look_again(wanted: &Wanted, memory: Memory) -> Step {
    if let Some(pid) = wanted.pid() {
        // Whoever has this number some day is not who was meant.
        return Step::Done(Outcome::TargetLost(format!(
            "there is no process {pid} to enter: it has ended, or never was, or came from a task"
        )));
    }
    let looked = memory.looked_ms.unwrap_or(0);
    if looked >= wanted.wait_ms {
        return Step::Done(Outcome::TargetLost(format!(
            "there is no process {}, and none came within {} s",
            wanted.described(),
            wanted.wait_ms as f64 / 1000.0
        )));
    }
    let (first, longest) = PAUSES;
    let pause = (looked / 4)
        .clamp(first, longest)
        .min(wanted.wait_ms.saturating_sub(looked));
    let memory = Memory {
        target: None,
        looked_ms: Some(looked.saturating_add(pause)),
    };
    Step::Wait(Waiting {
        running: false,
        state: memory.kept(),
        wake_after_ms: Some(pause),
    })
}

/// What people read while it waits.
pub(crate) fn waits_for(wanted: &Wanted) -> String {
    format!("waits for a process {}", wanted.described())
}

/// Which of several was taken, for the operator.
pub(crate) fn choice(wanted: &Wanted, target: &Target) -> String {
    format!(
        "{} processes {}: the oldest, {}, is entered",
        target.candidates,
        wanted.described(),
        target.pid
    )
}

/// It was stopped before there was anything to stop.
pub(crate) fn stopped_early() -> Step {
    Step::Done(Outcome::Lost(
        "it was stopped while its main container was waited for".to_owned(),
    ))
}

/// What the attempt's end is. `alive`: whether the target outlived it, where that is known.
pub(crate) fn after_exit(memory: &Memory, end: End, alive: Option<bool>) -> Step {
    let Some(target) = memory.target.filter(|_| alive == Some(false)) else {
        return Step::Done(command::outcome(end));
    };
    let gone = format!("the main container's process {} ended", target.pid);
    Step::Done(match end.status {
        _ if end.out_of_memory => Outcome::OutOfMemory,
        // With the first process of a PID namespace the kernel kills all the others.
        ExitStatus::Signal(KILL) => Outcome::TargetLost(format!("{gone}, and the command with it")),
        ExitStatus::Unknown => {
            Outcome::TargetLost(format!("{gone}, and nobody saw how the command ended"))
        }
        ExitStatus::Code(code) => Outcome::ExitedBecause((
            code,
            format!("the command ended with exit code {code}; {gone} meanwhile"),
        )),
        ExitStatus::Signal(_) => command::outcome(end),
    })
}

#[cfg(test)]
mod tests;
