//! What the loop needs of the world: a journal, strategies, a clock, outputs.
//!
//! Stores, the engine and the supervisor's client implement these; tests bring
//! fakes. Nothing here knows SQLite, Wasmtime or Linux.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use taskwright_model::{
    Answer, AttemptNumber, ExitStatus, Happening, Mode, Outcome, ProcessIdentity, Remarks,
    RuntimeName, Stage, Task, TaskId, TaskKey, TaskSpec, Timestamp, UnitName,
};
use tokio::sync::watch;
use wildmatch::WildMatch;

use crate::request::LabelMatch;

/// One line of the numbered feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its number: from 1, no gaps in what one store ever committed, never used again.
    pub sequence: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Of which task.
    pub task: TaskId,
    /// The task's name then.
    pub key: TaskKey,
    /// What became true.
    pub happening: Happening,
}

/// Everything that one group commit makes durable, all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Tasks as they are now. A task stands here at most once.
    pub put: Vec<Arc<Task>>,
    /// Tasks that are gone.
    pub remove: Vec<TaskId>,
    /// The feed's next lines, in order.
    pub feed: Vec<FeedEntry>,
    /// Idempotency keys that were used: the key with its scope, and the task it made.
    pub idempotency: Vec<IdempotencyRecord>,
}

/// How long an idempotency key is remembered, by the loop and by stores.
pub const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How many idempotency keys are remembered, by the loop and by stores: the newest.
pub const MOST_KEYS: usize = 100_000;

/// That a request with this key was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Namespace and the client's key, at most 320 bytes.
    pub key: String,
    /// A digest of the request, so that another request under the same key is noticed.
    pub fingerprint: [u8; 32],
    /// The task that the request made.
    pub task: TaskId,
    /// When it was used; kept for a day.
    pub at: Timestamp,
}

/// What a store held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every readable task.
    pub tasks: Vec<Task>,
    /// The newest feed lines, oldest first, at most as many as the caller asked for.
    pub feed: Vec<FeedEntry>,
    /// The number the next feed line gets.
    pub next_sequence: u64,
    /// Idempotency keys that are not too old.
    pub idempotency: Vec<IdempotencyRecord>,
    /// What could not be read, for people; each was set aside, not deleted.
    pub damage: Vec<String>,
}

/// Why a batch is not durable. None of it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store could not commit: {message}")]
pub struct CommitError {
    /// What happened, for people.
    pub message: String,
    /// Whether the disk is full: worth its own answer (HTTP 507).
    pub disk_full: bool,
}

/// Durable memory of tasks. Called from the dispatcher's own thread only, so it may block.
pub trait Journal: Send + 'static {
    /// Makes `batch` durable before it returns.
    ///
    /// # Errors
    /// [`CommitError`]; then nothing of the batch was kept.
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send;
}

/// Reads of the feed that reach further back than memory.
pub trait FeedHistory: Send + Sync + 'static {
    /// Up to `most` lines with numbers above `after`, of one task if `task` is given, in order.
    fn read(
        &self,
        after: u64,
        task: Option<TaskId>,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<FeedEntry>, CommitError>>;
}

/// A task as a strategy sees it.
#[derive(Clone, Debug)]
pub struct StrategyTask {
    /// The task. Its spec is what was submitted.
    pub task: Arc<Task>,
    /// Which attempt the call is about.
    pub attempt: AttemptNumber,
}

/// What a strategy is told of, once it started something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrategyEvent {
    /// A unit it started ended.
    Exited {
        /// The strategy's word for the unit.
        unit: UnitName,
        /// How.
        end: UnitEnded,
    },
    /// The attempt is to stop. The strategy stops its units; their ends follow as events.
    StopRequested {
        /// Time between TERM and KILL.
        grace: Duration,
    },
    /// The wake-up it asked for.
    Woke,
    /// The daemon was restarted. Its units were found again and go on.
    Recovered,
}

/// What a strategy wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on waiting: for the end of its units, for a stop, for a wake-up.
    Wait {
        /// Whether the work runs. Until a step says so the attempt is being started.
        running: bool,
        /// Opaque; kept on the attempt and handed back with the next event. At most 64 KiB.
        state: Arc<[u8]>,
        /// Ask again after this long, whatever happens.
        wake_after: Option<Duration>,
    },
    /// The attempt is over.
    Done(Outcome),
}

/// A step, and what the call itself did on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stepped {
    /// What the strategy wants next.
    pub step: Step,
    /// The main process, if this call started one.
    pub process: Option<ProcessIdentity>,
    /// Ends of units that the strategy was told of during the call, and of which no report
    /// follows. One that goes on waiting is told of them once more, as events.
    pub ended: Vec<(UnitName, UnitEnded)>,
    /// What people are to see of the attempt.
    pub remarks: Remarks,
}

/// The step of a call that started nothing.
impl From<Step> for Stepped {
    fn from(step: Step) -> Self {
        Self {
            step,
            process: None,
            ended: Vec::new(),
            remarks: Remarks::default(),
        }
    }
}

/// Why a strategy call gave no step. Never the task's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// The component trapped, ran out of a limit or broke the contract.
    #[error("plugin {runtime} failed: {message}")]
    Plugin {
        /// The runtime's name.
        runtime: String,
        /// What happened.
        message: String,
    },
    /// The component failed so often that it is not called for a while. It was not asked.
    #[error("plugin {runtime} is not called: {message}")]
    Resting {
        /// The runtime's name.
        runtime: String,
        /// Why, and for how long.
        message: String,
        /// After this long it may be tried.
        after: Duration,
    },
    /// The machine or the daemon could not do its part.
    #[error("{message}")]
    Host {
        /// What happened.
        message: String,
    },
}

/// A problem a strategy found in a spec, before anything was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecProblem {
    /// The field, as a JSON pointer into the task (`/spec/process/command`).
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// The strategies there are, by runtime name. Implemented by the engine.
pub trait Strategies: Send + Sync + 'static {
    /// The runtime for this spec: the one asked for, or the one that takes its kind.
    ///
    /// # Errors
    /// A problem naming the field, what was asked for and what there is.
    fn resolve(&self, spec: &TaskSpec) -> Result<RuntimeName, SpecProblem>;

    /// The strategy's own check of a spec, before anything is stored. An empty list is good.
    fn validate(
        &self,
        task: StrategyTask,
    ) -> BoxFuture<'_, Result<Vec<SpecProblem>, StrategyError>>;

    /// Starts an attempt. After a crash it may be asked again with the same attempt.
    fn start(&self, task: StrategyTask) -> BoxFuture<'_, Result<Stepped, StrategyError>>;

    /// Tells the strategy of an event and asks for the next step.
    fn on_event(
        &self,
        task: StrategyTask,
        state: Arc<[u8]>,
        event: StrategyEvent,
    ) -> BoxFuture<'_, Result<Stepped, StrategyError>>;
}

/// What the operator says of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyTerms {
    /// Lower ones are asked first; of two alike the first by name.
    pub order: i32,
    /// What its verdicts are worth.
    pub mode: Mode,
    /// What becomes of a task on which it gives no verdict.
    pub on_error: OnError,
    /// About which tasks it is asked.
    pub scope: PolicyScope,
    /// How long its questions wait for an answer, unless it says so itself.
    pub ask_within: Option<Duration>,
    /// The answer when nobody gives one, unless it says so itself.
    pub ask_otherwise: Option<Answer>,
}

/// What becomes of a task on which a policy gives no verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// It waits until there is one.
    #[default]
    Closed,
    /// It goes on without.
    Open,
}

/// About which tasks a policy is asked. Where nothing is said, about all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyScope {
    /// Only in these namespaces; `*` and `?` stand for any characters and for one.
    pub namespaces: Vec<String>,
    /// Only for these runtimes, as above.
    pub runtimes: Vec<String>,
    /// Only with all of these labels.
    pub labels: Vec<LabelMatch>,
}

impl PolicyScope {
    /// Whether it takes in this task.
    #[must_use]
    pub fn covers(&self, key: &TaskKey, spec: &TaskSpec, runtime: &RuntimeName) -> bool {
        let one_of = |patterns: &[String], word: &str| {
            let fits = |pattern: &String| WildMatch::new(pattern).matches(word);
            patterns.is_empty() || patterns.iter().any(fits)
        };
        one_of(&self.namespaces, key.namespace.as_str())
            && one_of(&self.runtimes, runtime.as_str())
            && self.labels.iter().all(|term| term.matches(&spec.labels))
    }
}

/// A policy that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEntry {
    /// Its name.
    pub name: String,
    /// What the operator says of it.
    pub terms: PolicyTerms,
}

/// What a policy is asked.
#[derive(Clone, Debug)]
pub struct ReviewRequest {
    /// When.
    pub stage: Stage,
    /// The task as it is on record, and the attempt that is to be made.
    pub task: StrategyTask,
    /// The runtime that takes it, after the changes of policies before.
    pub runtime: RuntimeName,
    /// Its document ([`Documents::write`]), after the changes of policies before.
    pub document: Arc<str>,
    /// Whether somebody already answered its question about this task with yes.
    pub approved: bool,
}

/// What a policy says about a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyVerdict {
    /// Nothing stands against it.
    Allow,
    /// It may go on, changed.
    Change {
        /// JSON Merge Patch (RFC 7396) of the document.
        patch: String,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// It must not run.
    Deny {
        /// Why, for people.
        reason: String,
        /// The field, as a JSON pointer into the document; empty for all of it.
        field: String,
    },
    /// Somebody is to decide.
    Ask {
        /// What, for people.
        question: String,
        /// How long it waits for an answer.
        within: Option<Duration>,
        /// The answer when nobody gives one.
        otherwise: Option<Answer>,
    },
}

/// The policies there are. Implemented by the engine.
pub trait Policies: Send + Sync + 'static {
    /// All of them in the order in which they are asked. Cheap: asked for every launch.
    fn in_order(&self) -> Arc<[PolicyEntry]>;

    /// Changes whenever a policy, or a runtime that checks what they make of tasks, was loaded
    /// anew or went: what gave no verdict before may give one now.
    fn renewals(&self) -> watch::Receiver<()>;

    /// Asks one.
    ///
    /// # Errors
    /// A sentence, when it gave no verdict. Never the task's fault.
    fn review(
        &self,
        policy: &str,
        request: ReviewRequest,
    ) -> BoxFuture<'_, Result<PolicyVerdict, String>>;
}

/// The observers there are. Implemented by the engine.
pub trait Observers: Send + Sync + 'static {
    /// Their names; changes whenever one comes or goes.
    fn names(&self) -> watch::Receiver<Arc<[String]>>;

    /// Tells one of an event.
    ///
    /// # Errors
    /// A sentence, when it did not take it: it is to be told again.
    fn notice(&self, observer: &str, notice: Notice) -> BoxFuture<'_, Result<(), String>>;
}

/// What an observer is told.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The event.
    pub entry: FeedEntry,
    /// What watchers are told of it ([`Documents::event`]).
    pub document: String,
    /// How many events before it left the feed untold.
    pub missed: u64,
}

/// How far observers have been told, durably.
pub trait Cursors: Send + Sync + 'static {
    /// The number of the last event that an observer took; `None` when it is new.
    ///
    /// # Errors
    /// A sentence.
    fn read(&self, observer: &str) -> BoxFuture<'_, Result<Option<u64>, String>>;

    /// Remembers it.
    ///
    /// # Errors
    /// A sentence; then the one before is still remembered.
    fn write(&self, observer: &str, sequence: u64) -> BoxFuture<'_, Result<(), String>>;
}

/// What plugins see of tasks: the document that a submitter could have sent. Implemented by the
/// dialect that knows such documents.
pub trait Documents: Send + Sync + 'static {
    /// The whole document of a task, as JSON text.
    fn write(&self, key: &TaskKey, spec: &TaskSpec) -> String;

    /// What a merge patch (RFC 7396) makes of a document: the task, and the new document.
    ///
    /// # Errors
    /// A sentence, when it makes no task, or one of another name.
    fn patch(&self, document: &str, patch: &str) -> Result<(TaskSpec, String), String>;

    /// What watchers are told of an event, as JSON text.
    fn event(&self, entry: &FeedEntry) -> String;
}

/// What the host can do to units without asking a strategy. Implemented over the supervisor's client.
pub trait Units: Send + Sync + 'static {
    /// Kills everything of one attempt, without grace.
    fn terminate(&self, task: TaskId, attempt: AttemptNumber) -> BoxFuture<'_, Result<(), String>>;

    /// The ends of an attempt's units are on record: they need not be reported again.
    fn release(&self, task: TaskId, attempt: AttemptNumber) -> BoxFuture<'_, Result<(), String>>;

    /// Kills what is left of a task and removes its output and its scratch files.
    fn remove(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), String>>;

    /// Every unit that is known and not released.
    fn list(&self) -> BoxFuture<'_, Result<Vec<KnownUnit>, String>>;

    /// When a task last printed something; `None` when it never did. An error when nobody could
    /// look, which is not the same.
    fn last_output(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Option<Timestamp>, String>>;
}

/// A unit that outlived a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownUnit {
    /// Whose it is.
    pub task: TaskId,
    /// In which attempt it was started.
    pub attempt: AttemptNumber,
    /// The strategy's word for it.
    pub unit: UnitName,
    /// Its main process.
    pub process: Option<ProcessIdentity>,
    /// Its end, if it ended.
    pub ended: Option<UnitEnded>,
}

/// How a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitEnded {
    /// `None` when nobody who could know it was alive.
    pub status: Option<ExitStatus>,
    /// Whether the out-of-memory killer ended it.
    pub out_of_memory: bool,
}

/// A unit's end, reported to the dispatcher; repeated until released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitReport {
    /// Whose it is.
    pub task: TaskId,
    /// In which attempt it was started.
    pub attempt: AttemptNumber,
    /// The strategy's word for it.
    pub unit: UnitName,
    /// How it ended.
    pub ended: UnitEnded,
}

/// Wall-clock time and fresh ids. The daemon's is real, a test's follows tokio's paused time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
    /// A new id; version 7, so ids sort by time.
    fn new_id(&self) -> TaskId;
}

/// Which of a task's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// `stdout.log`.
    Stdout,
    /// `stderr.log`.
    Stderr,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where `bytes` begin in all that was ever printed. Above the offset asked for when
    /// the middle of a long output was dropped.
    pub offset: u64,
    /// The bytes; empty at the end.
    pub bytes: Vec<u8>,
    /// How much was printed so far.
    pub end: u64,
}

/// Why an output was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// There is something else in its place: the task's doing.
    #[error("there is something else in place of the output: {0}")]
    Replaced(String),
    /// The machine could not read it.
    #[error("the output could not be read: {0}")]
    Unreadable(String),
}

/// Reads what tasks print. Implemented by the supervisor's crate.
pub trait Outputs: Send + Sync + 'static {
    /// Up to `most` bytes from `offset`. An output that does not exist yet is empty.
    fn read(
        &self,
        key: TaskKey,
        stream: Stream,
        offset: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<OutputChunk, OutputError>>;

    /// Resolves when a stream may have grown beyond `end`, or after `at_most`.
    fn grown(&self, key: TaskKey, stream: Stream, end: u64, at_most: Duration)
    -> BoxFuture<'_, ()>;
}

/// A command to run inside a task that runs.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    /// The task.
    pub task: Arc<Task>,
    /// Which part of it, as a container of a pod; its only one where nothing is said.
    pub part: Option<String>,
    /// The command, not empty.
    pub argv: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// A piece of what a command inside a task does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecPiece {
    /// It printed.
    Printed(Stream, Vec<u8>),
    /// It ended with this code, 128 + n by signal n. The last piece.
    Ended(i32),
}

/// Why a command was not run inside a task, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// The task, or the part, does not run.
    #[error("{0}")]
    NotRunning(String),
    /// Nothing can be run inside a task of this kind.
    #[error("{0}")]
    Unsupported(String),
    /// The command, or the part that was named, means nothing there.
    #[error("{0}")]
    Refused(String),
    /// There is no such program in there.
    #[error("{0}")]
    NotFound(String),
    /// The program is there and cannot be executed.
    #[error("{0}")]
    NotExecutable(String),
    /// It took longer than it may.
    #[error("{0}")]
    Overdue(String),
    /// The machine could not do it.
    #[error("{0}")]
    Unavailable(String),
}

/// What a command does, piece by piece.
pub type ExecPieces = BoxStream<'static, Result<ExecPiece, ExecError>>;

/// Runs commands inside tasks. Nothing of it is kept.
pub trait Execs: Send + Sync + 'static {
    /// Runs one.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecPieces, ExecError>>;
}

/// What a plugin is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It runs tasks.
    Runtime,
    /// It reviews them.
    Policy,
    /// It is told what happens to them.
    Observer,
}

impl Role {
    /// The word for it in JSON and prose.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Policy => "policy",
            Self::Observer => "observer",
        }
    }

    /// The beginning of a sentence that says what one exports.
    #[must_use]
    pub fn with_article(self) -> &'static str {
        match self {
            Self::Runtime => "a runtime exports",
            Self::Policy => "a policy exports",
            Self::Observer => "an observer exports",
        }
    }
}

/// A plugin, for people and for `/plugins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    /// The name it gives itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What it is good for.
    pub roles: Vec<Role>,
    /// The kinds of work it takes.
    pub kinds: Vec<String>,
    /// What the operator says of it, if it is a policy.
    pub policy: Option<PolicyTerms>,
    /// `built-in`, or the file it came from.
    pub source: String,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// The interfaces it exports, with versions.
    pub exports: Vec<String>,
    /// The interfaces it imports, with versions.
    pub imports: Vec<String>,
    /// The capabilities it was lent.
    pub grants: Vec<String>,
    /// JSON Schema of its own configuration, if it has one.
    pub config_schema: Option<String>,
    /// `Ok` when its probe says that it works here and now.
    pub health: Result<(), String>,
    /// Why the newest version of its file does not serve; an older one does, or none.
    pub refused: Option<String>,
    /// Calls made, and calls that failed by its fault.
    pub calls: u64,
    /// Calls that failed by its fault.
    pub faults: u64,
}

/// Where the plugins come from that are part of the product.
pub const BUILT_IN: &str = "built-in";

impl PluginInfo {
    /// Whether it is part of the product.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        self.source == BUILT_IN
    }
}

/// The plugins that are loaded, for people.
pub trait Plugins: Send + Sync + 'static {
    /// All of them, by name.
    fn list(&self) -> BoxFuture<'_, Vec<PluginInfo>>;

    /// The runtimes among them, by name, each with the kinds of work it takes. Asks no plugin.
    fn runtimes(&self) -> Vec<(String, Vec<String>)>;
}
