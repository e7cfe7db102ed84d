//! Containers of a CRI runtime as units, and the sandboxes (pods) they live in.
//!
//! Every object is labelled with the daemon's own instance id; objects without it belong to
//! somebody else and are neither touched nor told of.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use taskwright_model::{
    AttemptNumber, Confinement, Enforced, TaskId, TaskName, Timestamp, UnitKey,
};

use crate::process::{StopError, UnitEnd, UnitState};

/// Whether an attempt is under way.
pub type IsLive<'a> = &'a (dyn Fn(TaskId, AttemptNumber) -> bool + Send + Sync);

/// Pulls images, runs sandboxes and containers, and remembers them, keyed by attempt and unit.
///
/// Asking twice with one key finds the first, also after a crash in between: the runtime's own
/// objects are the memory. Ends arrive as [`crate::UnitReport`]s on the channel that the
/// implementation was made with, each at least once until [`ContainerHost::release`]; the whole
/// output is in the task's files before an end is reported.
pub trait ContainerHost: Send + Sync + 'static {
    /// Whether the runtime can be reached and is ready, and what it is.
    fn check(&self) -> BoxFuture<'_, Result<RuntimeStatus, ContainerError>>;

    /// Looks for an image and has it pulled if the policy says so. One pull serves everybody who
    /// asks meanwhile. Waits up to `wait` for the pull to end before it answers.
    fn image(
        &self,
        image: String,
        policy: PullPolicy,
        wait: Duration,
    ) -> BoxFuture<'_, Result<ImageState, ContainerError>>;

    /// Runs the sandbox of an attempt, or finds it.
    fn run_sandbox(
        &self,
        request: SandboxRequest,
    ) -> BoxFuture<'_, Result<Sandbox, ContainerError>>;

    /// Creates a container in the sandbox of its attempt, or finds it. Answers what is enforced of
    /// its confinement.
    fn create(&self, request: ContainerRequest) -> BoxFuture<'_, Result<Enforced, ContainerError>>;

    /// Starts a container that was created; one that runs or has ended is left as it is.
    fn start(&self, unit: UnitKey) -> BoxFuture<'_, Result<ContainerState, ContainerError>>;

    /// Stops a container: its stop signal, KILL after `grace`. Answers as soon as the order is
    /// under way; the end arrives as a report. A unit that has ended or is not there is `Ok`.
    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>>;

    /// How a container is; `None` when there is none of this key.
    fn inspect(
        &self,
        unit: UnitKey,
    ) -> BoxFuture<'_, Result<Option<ContainerState>, ContainerError>>;

    /// What a container uses.
    fn stats(&self, unit: UnitKey) -> BoxFuture<'_, Result<ContainerStats, ContainerError>>;

    /// Runs a command in a running container and waits for its end, `timeout` at most.
    fn exec(
        &self,
        unit: UnitKey,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecEnd, ContainerError>>;

    /// Runs a command in a running container; its output arrives as it is printed, its end last.
    fn exec_stream(
        &self,
        unit: UnitKey,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ExecPiece, ContainerError>>, ContainerError>>;

    /// Every container of this daemon that was not released, running or ended. One that was
    /// created and never started is not told of.
    fn list(&self) -> BoxFuture<'_, Result<Vec<(UnitKey, UnitState)>, StopError>>;

    /// Kills every container of an attempt, without grace. Nothing of it runs when this answers.
    fn terminate(
        &self,
        task: TaskId,
        attempt: AttemptNumber,
    ) -> BoxFuture<'_, Result<(), StopError>>;

    /// The ends of an attempt's containers are on record elsewhere: containers and sandbox are
    /// removed.
    fn release(&self, task: TaskId, attempt: AttemptNumber)
    -> BoxFuture<'_, Result<(), StopError>>;

    /// Kills and removes whatever there is of a task.
    fn purge(&self, task: TaskId) -> BoxFuture<'_, Result<(), StopError>>;

    /// Removes what this daemon's earlier lives left of attempts that are not live, as after a
    /// crash between two steps of a start. Whether they are is asked once it is known what is
    /// there, so that an attempt that begins meanwhile loses nothing.
    fn sweep<'a>(&'a self, is_live: IsLive<'a>) -> BoxFuture<'a, Result<(), StopError>>;
}

/// What a container runtime says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Its name, as `containerd`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether pods can have a network of their own; the sentence says why not.
    pub network: Result<(), String>,
    /// Whether ends are told as events; otherwise they are polled for.
    pub events: bool,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// If it is not there.
    #[default]
    IfNotPresent,
    /// Whether it is there or not.
    Always,
    /// Never: it must be there.
    Never,
}

/// How an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// It is there.
    Present {
        /// The runtime's id for it.
        id: String,
        /// Its size, in bytes.
        size: u64,
    },
    /// It is being pulled.
    Pulling(PullProgress),
}

/// How far a pull is. CRI tells no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// For how long, in whole seconds.
    pub seconds: u64,
    /// How many attempts wait for it.
    pub waiters: u32,
}

/// A sandbox to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxRequest {
    /// Whose it is.
    pub task: TaskId,
    /// For which attempt.
    pub attempt: AttemptNumber,
    /// The task's name, for people.
    pub name: TaskName,
    /// Its network.
    pub network: Network,
    /// Its host name; the task's name where nothing is said.
    pub hostname: Option<String>,
    /// Whether its containers share one PID namespace.
    pub share_pids: bool,
    /// Whether a container of it gets every privilege: runtimes want to know beforehand.
    pub privileged: bool,
}

/// The network of a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The machine's own.
    Host,
    /// A namespace with nothing but a loopback.
    #[default]
    None,
    /// A pod network, made by the runtime's CNI plugins.
    Pod,
}

/// A sandbox that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id for it.
    pub id: String,
    /// Its address, where it has a network of its own.
    pub ip: Option<String>,
}

/// A container to create. Everything is decided: nothing is inherited from the daemon.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerRequest {
    /// The key under which it is found again.
    pub unit: UnitKey,
    /// The task's own directory on the host, absolute; where its output goes.
    pub directory: PathBuf,
    /// The image, as it was asked for, and found by [`ContainerHost::image`].
    pub image: String,
    /// Replaces the image's entry point, if not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments, if not empty.
    pub args: Vec<String>,
    /// Variables over the image's own.
    pub env: Vec<(String, String)>,
    /// Where it starts; the image's own choice where nothing is said.
    pub working_dir: Option<String>,
    /// What is mounted into it.
    pub mounts: Vec<Mount>,
    /// What it may use, and as whom it runs.
    pub confinement: Confinement,
    /// The name of its user in the image, where `confinement` names none by number.
    pub username: Option<String>,
    /// Whether its root file system is read-only.
    pub read_only_root: bool,
    /// Linux capabilities beyond and without the usual ones, as `NET_ADMIN`.
    pub capabilities: Capabilities,
    /// Whether it gets every privilege. Only in a sandbox that runs for it alone.
    pub privileged: bool,
}

/// Changes to the usual set of Linux capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Given.
    pub add: Vec<String>,
    /// Taken.
    pub drop: Vec<String>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Where, absolute, in the container.
    pub path: String,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A directory or file of the host, absolute; it must be there.
    HostPath(PathBuf),
    /// A directory that is empty at first, shared by this attempt's containers under this name, and
    /// removed with the attempt.
    EmptyDir(String),
}

/// The least memory that a container is sure to start with: what starts it counts as its own, and
/// takes some MiB, how many is a matter of the runtime's version.
pub const LEAST_MEMORY_BYTES: u64 = 6 << 20;

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Not started yet.
    Created,
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It ended.
    Ended(UnitEnd),
}

/// What a container uses, as far as its runtime tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// Processor time since its start, in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory that cannot be given back at once, in bytes.
    pub memory_bytes: Option<u64>,
    /// Bytes of its writable layer.
    pub disk_bytes: Option<u64>,
}

/// A command in a container that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecEnd {
    /// Its exit code; 128 + n by signal n.
    pub code: i32,
    /// What it printed; 16 MiB at most, which the runtime bounds.
    pub stdout: Vec<u8>,
    /// What it printed to standard error.
    pub stderr: Vec<u8>,
}

/// A piece of what a command in a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecPiece {
    /// It printed.
    Stdout(Vec<u8>),
    /// It printed to standard error.
    Stderr(Vec<u8>),
    /// It ended with this code. The last piece.
    Ended(i32),
}

/// Why something about containers was not done. Each names what was tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// The image is not there and could not be pulled.
    #[error("image {image:?} cannot be had: {detail}")]
    ImageUnavailable {
        /// As it was asked for.
        image: String,
        /// What the runtime said.
        detail: String,
    },
    /// The program does not exist in the image.
    #[error("the program was not found in the image: {detail}")]
    NotFound {
        /// What the runtime said.
        detail: String,
    },
    /// The program may not be executed, or its working directory not be entered.
    #[error("the program cannot be executed: {detail}")]
    NotExecutable {
        /// What the runtime said.
        detail: String,
    },
    /// The request means nothing to the runtime, or is refused by it.
    #[error("the container runtime refuses it: {detail}")]
    Refused {
        /// What it said.
        detail: String,
    },
    /// There is no such sandbox or container, or it ended.
    #[error("it is not there, or has ended: {detail}")]
    NotRunning {
        /// Which.
        detail: String,
    },
    /// The sandbox ended under its containers.
    #[error("the sandbox is gone: {detail}")]
    SandboxLost {
        /// What is known.
        detail: String,
    },
    /// A start was cut off before the program began. What is left of the container is taken away
    /// when it is created again.
    #[error("its start was cut off before the program began: {detail}")]
    NeverBegun {
        /// What the runtime said.
        detail: String,
    },
    /// A start was cut off when the program may have begun.
    #[error("its start was cut off, and nobody knows what the program did until then: {detail}")]
    PerhapsBegun {
        /// What the runtime said.
        detail: String,
    },
    /// It is being done, or waits for its turn. Not said by a runtime, but by who asks it.
    #[error("it is being done: {detail}")]
    UnderWay {
        /// Why it takes long.
        detail: String,
    },
    /// It took longer than it may.
    #[error("it took longer than {} ms", .0.as_millis())]
    Overdue(Duration),
    /// The runtime cannot be reached, or could not do it.
    #[error("the container runtime could not do it: {detail}")]
    Unavailable {
        /// What happened, with the socket's path where it cannot be reached.
        detail: String,
    },
}
