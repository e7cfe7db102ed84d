//! What a submitter asked for. Built by a dialect, checked there, never changed after.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::confinement::Confinement;
use crate::id::RuntimeName;

/// Grace between TERM and KILL where a task names none.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Everything a task is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// What to run.
    pub work: Work,
    /// The runtime asked for by name; otherwise the one that takes this kind of work.
    pub runtime: Option<RuntimeName>,
    /// Words to find it by. Not interpreted.
    pub labels: BTreeMap<String, String>,
    /// Higher runs first; equal ones in order of submission. 0 where nothing is said.
    pub priority: i32,
    /// Its time limits.
    pub limits: TimeLimits,
    /// Whether and how it is tried again.
    pub retry: RetryPolicy,
    /// What it may use of the machine, and as whom it runs.
    pub confinement: Confinement,
    /// What only its runtime understands: JSON text, an object. Empty where nothing is said.
    pub config: String,
}

/// What to run, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A command.
    Process(ProcessSpec),
    /// A document that only the runtime taking this kind understands.
    Document {
        /// The kind, as `container` or `podTemplateSpec`.
        kind: String,
        /// JSON text.
        json: String,
    },
}

impl Work {
    /// The word by which a runtime for this work is found.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Process(_) => "process",
            Self::Document { kind, .. } => kind,
        }
    }
}

/// A command to run. The words of `command` and `args` together are its argv.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    /// The program and its first arguments; not empty.
    pub command: Vec<String>,
    /// Further arguments. Kept apart because dialects show them apart.
    pub args: Vec<String>,
    /// Variables beside the base environment; later ones win.
    pub env: Vec<EnvVar>,
    /// Where it starts; the task's own directory where nothing is said.
    pub working_dir: Option<String>,
}

/// One variable of an environment.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name, not empty, without `=` and NUL.
    pub name: String,
    /// Its value, without NUL.
    pub value: String,
}

impl std::fmt::Debug for EnvVar {
    /// Values may be secrets, so they never reach a log by way of `{:?}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=…", self.name)
    }
}

/// The four time limits of a task, and its grace. `None` means no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// How long it may wait for its first attempt, from submission.
    pub queue: Option<Duration>,
    /// How long an attempt may take from launch to running.
    pub start: Option<Duration>,
    /// How long it may print nothing while running.
    pub idle: Option<Duration>,
    /// How long an attempt may run, from running.
    pub run: Option<Duration>,
    /// How long it has between TERM and KILL.
    pub grace: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            queue: None,
            start: None,
            idle: None,
            run: None,
            grace: DEFAULT_GRACE,
        }
    }
}

/// Whether and how a task is tried again. The default tries once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
    /// Wait before the second attempt; doubles with each further one.
    pub backoff: Duration,
    /// The longest wait between attempts.
    pub max_backoff: Duration,
    /// The causes ([`crate::Outcome::cause`]) that deserve another attempt.
    pub on: Vec<String>,
}

impl RetryPolicy {
    /// The causes retried where a task asks for attempts and names no causes.
    pub const DEFAULT_CAUSES: [&'static str; 11] = [
        "exit",
        "signal",
        "out-of-memory",
        "timeout",
        "plugin-fault",
        "infrastructure",
        "image-unavailable",
        "runtime-unavailable",
        "sandbox-lost",
        "target-lost",
        "lost",
    ];
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 1,
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            on: Self::DEFAULT_CAUSES.map(str::to_owned).to_vec(),
        }
    }
}
