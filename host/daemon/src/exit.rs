//! Exit codes of the command line. They are part of the interface: scripts test them.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; with `run` and `wait`: the task ended with 0 |
//! | 1 | `serve` could not start; `doctor`, `config check`, `plugin check`, `plugin test` or `plugin verify` found a problem, or `plugin replay` a difference; what `plugin new` would make is there; `plugin install` took something not |
//! | 2 | the command line is wrong |
//! | 124 | `run`, `wait`: one of the task's time limits fired; `exec`: the command's time is over |
//! | 125 | Taskwright failed, not the task: no daemon, no such task, a fault of the machine |
//! | 126 | `run`, `wait`, `exec`: the program cannot be executed |
//! | 127 | `run`, `wait`, `exec`: the program was not found |
//! | 128 + n | `run`, `wait`, `exec`: signal n ended the task, or the command |
//! | any other | `run`, `wait`, `exec`: the task's, or the command's, own exit code |
//!
//! `run`, `wait` and `exec` also write a line to standard error whenever the code is not the
//! task's own, so that a task that itself exits with 125 can be told from a failure of ours.

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u8);

impl Code {
    /// Done.
    pub(crate) const DONE: Self = Self(0);
    /// The daemon could not start, or a check found something.
    pub(crate) const PROBLEM: Self = Self(1);
    /// The command line is wrong. Clap uses the same number.
    pub(crate) const USAGE: Self = Self(2);
    /// A time limit of the task fired, or the time of a command in it is over.
    pub(crate) const TIMEOUT: Self = Self(124);
    /// Taskwright failed, not the task.
    pub(crate) const OURS: Self = Self(125);
    /// The program cannot be executed.
    pub(crate) const NOT_EXECUTABLE: Self = Self(126);
    /// The program was not found.
    pub(crate) const NOT_FOUND: Self = Self(127);
    /// TERM ended it: what a canceled task shows whose own end is not known.
    pub(crate) const CANCELED: Self = Self(128 + 15);

    /// The code for a death by `signal`.
    pub(crate) fn signal(signal: i32) -> Self {
        Self(u8::try_from(128_i32.saturating_add(signal)).unwrap_or(u8::MAX))
    }
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}
