//! Processes as units: started once per key, stopped as whole trees, their ends reported truly.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use taskwright_model::{
    Confinement, Enforced, ExitStatus, Mechanism, ProcessIdentity, Restriction, TaskId, TaskName,
    Timestamp, UnitKey,
};

use crate::namespace::Inside;

/// Starts, stops and remembers processes, keyed by [`UnitKey`].
///
/// Asking twice with one key finds the first: that is how a crash between a
/// spawn and its record stays at-most-once. Ends arrive as [`UnitReport`]s on
/// the channel that the implementation was made with, each at least once, until
/// [`ProcessHost::release`] says that it is on record.
pub trait ProcessHost: Send + Sync + 'static {
    /// Starts a unit, or finds it if this key was started before, running or ended.
    fn spawn(&self, request: SpawnRequest) -> BoxFuture<'_, Result<Spawned, SpawnError>>;

    /// Stops a unit: TERM to its whole tree, KILL to the whole tree after `grace`. Answers as
    /// soon as the order is on record; the end arrives as a report. A unit that has ended, or
    /// was never started, is `Ok`: nothing of it runs... except what a normal end left behind,
    /// which is killed now.
    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>>;

    /// Sends one signal to the main process of a unit and to nothing else.
    fn signal(&self, unit: UnitKey, signal: i32) -> BoxFuture<'_, Result<(), StopError>>;

    /// What is known of a unit; `None` when this key was never started.
    fn inspect(&self, unit: UnitKey) -> BoxFuture<'_, Result<Option<UnitState>, StopError>>;

    /// Every unit that was not released, running or ended.
    fn list(&self) -> BoxFuture<'_, Result<Vec<(UnitKey, UnitState)>, StopError>>;

    /// The end of the unit is on record elsewhere: its report need not be repeated. What a
    /// normal end left running stays running and can still be killed by
    /// [`ProcessHost::purge`].
    fn release(&self, unit: UnitKey) -> BoxFuture<'_, Result<(), StopError>>;

    /// Kills whatever is left of every unit of a task and forgets the task.
    fn purge(&self, task: TaskId) -> BoxFuture<'_, Result<(), StopError>>;

    /// What this machine can enforce of a confinement.
    fn enforceable(&self) -> BoxFuture<'_, Result<Enforceable, StopError>>;
}

/// What a machine can enforce, and by what; otherwise a sentence that says what is missing. In the
/// order of [`Restriction::ALL`].
pub type Enforceable = Vec<(Restriction, Result<Mechanism, String>)>;

/// What to start. Everything is decided: nothing is inherited from the daemon.
#[derive(Clone, PartialEq, Eq)]
pub struct SpawnRequest {
    /// The key under which it is found again.
    pub unit: UnitKey,
    /// The task's name, for the path of its output.
    pub name: TaskName,
    /// The task's own directory, absolute. Made if missing, owner-only. `stdout.log` and
    /// `stderr.log` in it are opened for appending, without following links.
    pub directory: PathBuf,
    /// The program and its arguments, not empty. A program without `/` is looked up in the
    /// `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment, `NAME`, `VALUE`. Later ones win.
    pub env: Vec<(String, String)>,
    /// Where it starts. `None`: the task's own directory.
    pub working_dir: Option<PathBuf>,
    /// Whether what it leaves running survives its normal end.
    pub lifetime: Lifetime,
    /// In whose namespaces it runs; `None`: beside the daemon.
    pub inside: Option<Inside>,
    /// What it may use, and as whom it runs.
    pub confinement: Confinement,
}

/// What becomes of the tree when the main process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// What daemonised lives on (a sandbox's entry point ends, the sandbox does not).
    LeaveDescendants,
    /// The whole tree ends with its main process.
    KillDescendants,
}

/// A unit that was started, now or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawned {
    /// The main process.
    pub process: ProcessIdentity,
    /// When it was started.
    pub started_at: Timestamp,
    /// The end, if it is over already.
    pub exit: Option<UnitEnd>,
    /// What is enforced of its confinement. Told by the answer to a spawn, not by lists.
    pub enforced: Enforced,
}

/// How a unit's main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitEnd {
    /// Its status; `None` when it ended while nobody who could know it was alive.
    pub status: Option<ExitStatus>,
    /// Whether the kernel's out-of-memory killer ended it.
    pub out_of_memory: bool,
    /// When it was seen to have ended.
    pub at: Timestamp,
}

/// What is known of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// Its main process runs.
    Running(Spawned),
    /// Its main process ended.
    Ended(UnitEnd),
}

/// Something a unit did, said to whoever drives tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitReport {
    /// Which unit.
    pub unit: UnitKey,
    /// What it did.
    pub event: UnitEvent,
}

/// What a unit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitEvent {
    /// Its main process ended.
    Ended(UnitEnd),
}

/// Why a unit was not started. Each names what was tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// No such program.
    #[error("program {program:?} was not found: {detail}")]
    NotFound {
        /// As it was asked for.
        program: String,
        /// Where it was looked for.
        detail: String,
    },
    /// The program is there and may not be executed.
    #[error("program {program:?} cannot be executed: {detail}")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// What the kernel said.
        detail: String,
    },
    /// The working directory is missing or may not be entered.
    #[error("working directory {path:?} cannot be entered: {detail}")]
    WorkingDirectory {
        /// As it was asked for.
        path: String,
        /// What the kernel said.
        detail: String,
    },
    /// A path that shall be read-only is not there.
    #[error("{path:?} cannot be made read-only: {detail}")]
    ReadOnlyPath {
        /// As it was asked for.
        path: String,
        /// What the kernel said.
        detail: String,
    },
    /// A text holds NUL, argv is empty, or the arguments are larger than the kernel takes.
    #[error("the command cannot be passed to the kernel: {detail}")]
    BadCommand {
        /// What is wrong.
        detail: String,
    },
    /// The process whose namespaces were to be entered is gone, or is another one now.
    #[error("the process to enter is gone: {detail}")]
    TargetGone {
        /// Which one, and what was found.
        detail: String,
    },
    /// A restriction cannot be enforced here, and the task does not take less.
    #[error("{} cannot be enforced on this machine: {detail}", restriction.as_str())]
    NotEnforceable {
        /// Which one.
        restriction: Restriction,
        /// What is missing.
        detail: String,
    },
    /// The machine has no room: processes, files, memory, disk.
    #[error("this machine has no room for another process: {detail}")]
    NoRoom {
        /// What the kernel said.
        detail: String,
    },
    /// The supervisor cannot be reached, or could not do it.
    #[error("the supervisor could not start it: {detail}")]
    Unavailable {
        /// What happened.
        detail: String,
    },
}

/// Why an order about a unit was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// The supervisor cannot be reached, or could not do it.
    #[error("the supervisor could not do it: {detail}")]
    Unavailable {
        /// What happened.
        detail: String,
    },
    /// No process of that unit runs.
    #[error("no process of unit {unit} runs")]
    NotRunning {
        /// Which unit.
        unit: UnitKey,
    },
}
