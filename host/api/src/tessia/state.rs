//! What the contract calls a task's state and its exit code.

use taskwright_model::{ExitStatus, Outcome, Task, TaskState};

/// The task ended by itself with success.
const SUCCESS: i32 = 0;
/// Somebody stopped it.
const CANCELLED: i32 = -1;
/// One of its time limits fired.
const TIMEOUT: i32 = -2;
/// The machine failed, or could not be run.
const EXCEPTION: i32 = -3;
/// Nobody knows.
const UNDETERMINED: i32 = -99;

/// The statuses of a process by which a machine says that it failed, where its runtime says so:
/// it was not found, could not be executed, or raised an exception (-3 as a byte).
const SAYS_FAILED: [u8; 3] = [127, 126, 253];

/// The contract's word for a task's state.
#[must_use]
pub fn state_of(task: &Task) -> &'static str {
    match &task.state {
        // It waits for its turn, or for somebody's word. The original starts everything at once.
        TaskState::Pending { .. } if task.attempts.is_empty() => "created",
        TaskState::Pending { .. } | TaskState::Starting { .. } | TaskState::Running { .. } => {
            "running"
        }
        TaskState::Stopping { .. } => "stopping",
        TaskState::Ended {
            outcome: Outcome::Lost { .. },
            ..
        } => "lost",
        TaskState::Ended { .. } => "exited",
    }
}

/// The contract's exit code of an outcome: that of the machine, or one of the contract's own
/// below 0.
#[must_use]
pub fn exit_code(outcome: &Outcome) -> i32 {
    match outcome {
        Outcome::Exited {
            code,
            message: Some(_),
        } if SAYS_FAILED.contains(code) => EXCEPTION,
        Outcome::Exited { code, .. } => SUCCESS + i32::from(*code),
        // As a shell says it: the contract's negative numbers have meanings of their own.
        Outcome::Signaled { signal } => ExitStatus::Signal(*signal).shell_code(),
        Outcome::Canceled { .. } => CANCELLED,
        Outcome::TimedOut { .. } => TIMEOUT,
        Outcome::OutOfMemory { .. }
        | Outcome::Denied { .. }
        | Outcome::PluginFault { .. }
        | Outcome::Infrastructure { .. } => EXCEPTION,
        Outcome::Lost { .. } => UNDETERMINED,
    }
}

#[cfg(test)]
mod tests {
    use taskwright_model::{Fault, Limit};

    use super::*;

    #[test]
    fn exit_codes_are_the_contracts() {
        let exited = |code, message: Option<&str>| Outcome::Exited {
            code,
            message: message.map(str::to_owned),
        };
        let message = String::new;
        for (outcome, code) in [
            (exited(0, None), 0),
            (exited(7, None), 7),
            (exited(253, None), 253),
            (exited(253, Some("RAISE")), -3),
            (exited(127, Some("not found")), -3),
            (exited(3, Some("a sentence")), 3),
            (Outcome::Signaled { signal: 9 }, 137),
            (Outcome::Canceled { exit: None }, -1),
            (
                Outcome::TimedOut {
                    limit: Limit::Run,
                    exit: None,
                },
                -2,
            ),
            (Outcome::OutOfMemory { exit: None }, -3),
            (
                Outcome::Infrastructure {
                    fault: Fault::Machine,
                    message: message(),
                },
                -3,
            ),
            (Outcome::Lost { message: message() }, -99),
        ] {
            assert_eq!(exit_code(&outcome), code, "{outcome:?}");
        }
    }
}
