//! How a task ended, and whose doing it was.
//!
//! A machine's failure is never reported as the task's failure: whoever reads
//! an outcome can tell an exit code of the command from everything else.

use crate::deadline::Limit;

/// How a process ended, as `waitid(2)` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It called `exit` with this code, 0 to 255.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// The number a shell would show: the code, or 128 + the signal.
    #[must_use]
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => i32::from(code),
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// How an attempt, and with its last attempt the task, ended.
///
/// `exit` beside a cause tells how the main process really ended, where that
/// is known: a timed out task that still exited with 3 says both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended by itself.
    Exited {
        /// Its exit code.
        code: u8,
        /// What to tell a person beside the code, as "program not found".
        message: Option<String>,
    },
    /// A signal that we did not send ended the command.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel ended it for want of memory.
    OutOfMemory {
        /// How the main process ended.
        exit: Option<ExitStatus>,
    },
    /// One of the task's time limits fired.
    TimedOut {
        /// Which one.
        limit: Limit,
        /// How the main process ended when it was stopped.
        exit: Option<ExitStatus>,
    },
    /// Somebody asked for it to be stopped or deleted.
    Canceled {
        /// How the main process ended when it was stopped.
        exit: Option<ExitStatus>,
    },
    /// A policy refused it.
    Denied {
        /// The policy's name.
        policy: String,
        /// The policy's reason, for people.
        reason: String,
    },
    /// The strategy component failed: trap, limit, broken contract.
    PluginFault {
        /// The runtime's name.
        runtime: String,
        /// What happened, for people.
        message: String,
    },
    /// This machine, this daemon or something beside it could not do its part.
    Infrastructure {
        /// What failed.
        fault: Fault,
        /// What happened, for people.
        message: String,
    },
    /// It ended while nobody who could know its exit was alive.
    Lost {
        /// What is known, for people.
        message: String,
    },
}

/// What failed where it was not the task. Each is a cause of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// This machine or this daemon.
    #[default]
    Machine,
    /// The image is not there and could not be pulled.
    Image,
    /// The container runtime cannot be reached, or could not do it.
    ContainerRuntime,
    /// The sandbox ended under its containers.
    Sandbox,
    /// The process whose namespaces were to be entered is not there, ended, or was replaced.
    Target,
    /// A policy gave no verdict.
    Policy,
}

impl Fault {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Machine,
        Self::Image,
        Self::ContainerRuntime,
        Self::Sandbox,
        Self::Target,
        Self::Policy,
    ];

    /// The cause of an outcome that it brings about.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Machine => "infrastructure",
            Self::Image => "image-unavailable",
            Self::ContainerRuntime => "runtime-unavailable",
            Self::Sandbox => "sandbox-lost",
            Self::Target => "target-lost",
            Self::Policy => "policy-error",
        }
    }
}

impl Outcome {
    /// The one word for the cause, the same in JSON, metrics and prose.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "exit",
            Self::Signaled { .. } => "signal",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::TimedOut { .. } => "timeout",
            Self::Canceled { .. } => "canceled",
            Self::Denied { .. } => "denied",
            Self::PluginFault { .. } => "plugin-fault",
            Self::Infrastructure { fault, .. } => fault.cause(),
            Self::Lost { .. } => "lost",
        }
    }

    /// How the main process ended, where that is known.
    #[must_use]
    pub fn exit(&self) -> Option<ExitStatus> {
        match self {
            Self::Exited { code, .. } => Some(ExitStatus::Code(*code)),
            Self::Signaled { signal } => Some(ExitStatus::Signal(*signal)),
            Self::OutOfMemory { exit } | Self::TimedOut { exit, .. } | Self::Canceled { exit } => {
                *exit
            }
            Self::Denied { .. }
            | Self::PluginFault { .. }
            | Self::Infrastructure { .. }
            | Self::Lost { .. } => None,
        }
    }

    /// The command ended by itself with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0, .. })
    }
}
