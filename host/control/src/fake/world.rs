//! Everything put together: one call gives a loop that runs among fakes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taskwright_model::{
    AttemptNumber, ExitStatus, Namespace, ProcessSpec, RetryPolicy, Task, TaskId, TaskKey,
    TaskName, TaskSpec, TimeLimits, Timestamp, Work,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::policies::{FakeDocuments, FakePolicies};
use super::{FakeStrategies, FakeUnits, MemoryHistory, MemoryJournal};
use crate::dispatcher::{Config, Parts, assemble};
use crate::handle::Control;
use crate::port::{Clock, OutputChunk, OutputError, Outputs, PluginInfo, Plugins, Stream};
use crate::request::{Submission, SubmitError};

/// Feed lines that a restart reads back.
const RECOVERED_FEED: usize = 1000;

/// A clock that follows tokio's: paused and moved with it. Ids count from 1.
pub struct PausedClock {
    origin: Instant,
    ids: AtomicU64,
}

impl Default for PausedClock {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            ids: AtomicU64::new(1),
        }
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        // Some time in 2023: no test may lean on a time that begins at zero.
        Timestamp::from_millis(1_700_000_000_000).plus(self.origin.elapsed())
    }

    fn new_id(&self) -> TaskId {
        TaskId::from_u128(u128::from(self.ids.fetch_add(1, Ordering::Relaxed)))
    }
}

/// What tasks printed, as the test wrote it.
#[derive(Default)]
pub struct FakeOutputs {
    written: Mutex<HashMap<(TaskKey, Stream), Vec<u8>>>,
    changed: tokio::sync::Notify,
}

impl FakeOutputs {
    /// The task prints this.
    pub fn print(&self, key: &TaskKey, stream: Stream, bytes: &[u8]) {
        let mut written = self.written.lock();
        let place = written.entry((key.clone(), stream)).or_default();
        place.extend_from_slice(bytes);
        self.changed.notify_waiters();
    }

    fn length(&self, key: &TaskKey, stream: Stream) -> u64 {
        let written = self.written.lock();
        let bytes = written.get(&(key.clone(), stream));
        bytes.map_or(0, |bytes| bytes.len() as u64)
    }
}

impl Outputs for FakeOutputs {
    fn read(
        &self,
        key: TaskKey,
        stream: Stream,
        offset: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<OutputChunk, OutputError>> {
        let written = self.written.lock();
        let all = written
            .get(&(key, stream))
            .map_or(&[][..], |bytes| bytes.as_slice());
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = all.iter().skip(from).take(most).copied().collect();
        let end = all.len() as u64;
        Box::pin(std::future::ready(Ok(OutputChunk { offset, bytes, end })))
    }

    fn grown(
        &self,
        key: TaskKey,
        stream: Stream,
        end: u64,
        at_most: Duration,
    ) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let grows = async {
                loop {
                    let changed = self.changed.notified();
                    tokio::pin!(changed);
                    // Listening begins before looking: what is printed between is noticed.
                    changed.as_mut().enable();
                    if self.length(&key, stream) > end {
                        return;
                    }
                    changed.await;
                }
            };
            let _ = tokio::time::timeout(at_most, grows).await;
        })
    }
}

/// The plugins a test says there are.
#[derive(Default)]
pub struct FakePlugins {
    /// All of them.
    pub plugins: Mutex<Vec<PluginInfo>>,
}

impl Plugins for FakePlugins {
    fn list(&self) -> BoxFuture<'_, Vec<PluginInfo>> {
        let plugins = self.plugins.lock().clone();
        Box::pin(std::future::ready(plugins))
    }

    fn runtimes(&self) -> Vec<(String, Vec<String>)> {
        let plugins = self.plugins.lock();
        let told = plugins
            .iter()
            .map(|one| (one.name.clone(), one.kinds.clone()));
        told.collect()
    }
}

/// A loop that runs on the current runtime, and everything around it.
pub struct FakeWorld {
    /// The loop's front.
    pub control: Control,
    /// What is durable.
    pub journal: MemoryJournal,
    /// Where old feed lines are read.
    pub history: MemoryHistory,
    /// What runs.
    pub units: Arc<FakeUnits>,
    /// Who runs it.
    pub strategies: Arc<FakeStrategies>,
    /// What it prints.
    pub outputs: Arc<FakeOutputs>,
    /// Who is asked about tasks.
    pub policies: Arc<FakePolicies>,
    /// The plugins, for people.
    pub plugins: Arc<FakePlugins>,
    /// The time.
    pub clock: Arc<PausedClock>,
    dispatcher: JoinHandle<()>,
}

impl FakeWorld {
    /// An empty world whose loop runs.
    pub async fn start(config: Config) -> Self {
        Self::start_from(MemoryJournal::new(), Arc::new(FakeUnits::default()), config).await
    }

    /// A world whose loop begins with what this journal and these units hold.
    pub async fn start_from(journal: MemoryJournal, units: Arc<FakeUnits>, config: Config) -> Self {
        let strategies = Arc::new(FakeStrategies::new(units.clone()));
        let outputs = Arc::<FakeOutputs>::default();
        let plugins = Arc::<FakePlugins>::default();
        let policies = Arc::<FakePolicies>::default();
        let clock = Arc::<PausedClock>::default();
        let history = MemoryHistory::of(&journal);
        let parts = Parts {
            journal: journal.clone(),
            history: Arc::new(history.clone()),
            strategies: strategies.for_one_life(),
            units: units.clone(),
            policies: policies.clone(),
            documents: Arc::new(FakeDocuments::default()),
            plugins: plugins.clone(),
            outputs: outputs.clone(),
            execs: Arc::new(NoExecs),
            clock: clock.clone(),
        };
        let (control, dispatcher) = run(parts, &journal, &units, config).await;
        Self {
            control,
            journal,
            history,
            units,
            strategies,
            outputs,
            policies,
            plugins,
            clock,
            dispatcher,
        }
    }

    /// The daemon dies and is started again: units live on, calls do not.
    pub async fn restart(&mut self, config: Config) {
        self.kill().await;
        let parts = Parts {
            journal: self.journal.clone(),
            history: Arc::new(self.history.clone()),
            strategies: self.strategies.for_one_life(),
            units: self.units.clone(),
            policies: self.policies.clone(),
            documents: Arc::new(FakeDocuments::default()),
            plugins: self.plugins.clone(),
            outputs: self.outputs.clone(),
            execs: Arc::new(NoExecs),
            clock: self.clock.clone(),
        };
        let (control, dispatcher) = run(parts, &self.journal, &self.units, config).await;
        self.control = control;
        self.dispatcher = dispatcher;
        self.units.report_all();
    }

    /// The daemon dies, without any chance to say goodbye.
    pub async fn kill(&mut self) {
        self.strategies.crash();
        self.dispatcher.abort();
        if !self.dispatcher.is_finished() {
            // Only its end matters, and that it was aborted is what we wanted.
            let _ = (&mut self.dispatcher).await;
        }
    }

    /// Whether the loop still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.dispatcher.is_finished()
    }

    /// Submits a task of the native namespace.
    ///
    /// # Errors
    /// As [`Control::submit`].
    pub async fn submit(&self, name: &str, spec: TaskSpec) -> Result<Arc<Task>, SubmitError> {
        let submitted = self.control.submit(submission(name, spec)).await?;
        Ok(submitted.task)
    }

    /// The task of this name in the native namespace, as published.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Task>> {
        self.control.get(&task_key(name))
    }

    /// The unit of the task's newest attempt ends with this code.
    pub fn exit(&self, task: TaskId, code: u8) {
        let newest = self.control.view.by_id(task);
        let number = newest.and_then(|task| task.attempt().map(|attempt| attempt.number));
        let number = number.unwrap_or(AttemptNumber(1));
        self.units.end(task, number, Some(ExitStatus::Code(code)));
    }

    /// Waits until `wanted` is so. Under paused time this may take as long as it needs.
    ///
    /// # Panics
    /// After ten minutes of the runtime's time.
    pub async fn until(&self, what: &str, mut wanted: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(600);
        while !wanted(self) {
            assert!(Instant::now() < deadline, "never came true: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the task of this name is in this state (`TaskState::as_str`).
    ///
    /// # Panics
    /// After ten minutes of the runtime's time.
    pub async fn until_state(&self, name: &str, state: &str) -> Arc<Task> {
        let what = format!("{name} is {state}");
        let is = |world: &Self| world.get(name).filter(|task| task.state.as_str() == state);
        self.until(&what, |world| is(world).is_some()).await;
        let found = is(self);
        #[expect(clippy::unwrap_used, reason = "it was so, and nothing ran since")]
        found.unwrap()
    }
}

#[expect(
    clippy::unwrap_used,
    reason = "fake units can always be listed, and nothing else can fail"
)]
async fn run(
    parts: Parts<MemoryJournal>,
    journal: &MemoryJournal,
    units: &FakeUnits,
    config: Config,
) -> (Control, JoinHandle<()>) {
    let recovered = journal.recover(RECOVERED_FEED);
    let assembled = assemble(parts, recovered, config, Handle::current()).await;
    let (control, dispatcher) = assembled.unwrap();
    units.report_to(control.clone());
    (control, tokio::spawn(dispatcher.run()))
}

/// The key of a task in the native namespace.
///
/// # Panics
/// If `name` is not a name.
#[must_use]
#[expect(clippy::unwrap_used, reason = "the test wrote it")]
pub fn task_key(name: &str) -> TaskKey {
    TaskKey {
        namespace: Namespace::native(),
        name: TaskName::parse(name).unwrap(),
    }
}

/// A plain command that is tried once and has no limits.
#[must_use]
pub fn spec() -> TaskSpec {
    TaskSpec {
        work: Work::Process(ProcessSpec {
            command: vec!["sleep".into()],
            args: vec!["7".into()],
            env: Vec::new(),
            working_dir: None,
        }),
        runtime: None,
        labels: [].into(),
        priority: 0,
        limits: TimeLimits::default(),
        retry: RetryPolicy::default(),
        confinement: taskwright_model::Confinement::default(),
        config: String::new(),
    }
}

/// A submission to the native namespace.
///
/// # Panics
/// If `name` is not a name.
#[must_use]
pub fn submission(name: &str, spec: TaskSpec) -> Submission {
    Submission {
        key: task_key(name),
        spec: Arc::new(spec),
        idempotency: None,
    }
}

/// Nothing can be run inside these tasks.
#[derive(Debug)]
struct NoExecs;

impl crate::port::Execs for NoExecs {
    fn exec(
        &self,
        _: crate::port::ExecRequest,
    ) -> BoxFuture<'_, Result<crate::port::ExecPieces, crate::port::ExecError>> {
        let sentence = "a double runs nothing".to_owned();
        Box::pin(async { Err(crate::port::ExecError::Unsupported(sentence)) })
    }
}
