//! Strategies that follow a script, by the name of the task.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taskwright_model::{
    AttemptNumber, ExitStatus, Outcome, RuntimeName, TaskId, TaskName, TaskSpec,
};
use tokio::sync::watch;

use super::units::{FakeUnits, main_unit};
use crate::port::{
    SpecProblem, Step, Stepped, Strategies, StrategyError, StrategyEvent, StrategyTask,
};

/// The priority of a task that no fake strategy takes.
pub const CANNOT_RUN: i32 = -99;

/// What a call to `start` does.
#[derive(Clone, Debug, Default)]
pub enum OnStart {
    /// Starts the unit `main` and waits for it.
    #[default]
    Run,
    /// Starts the unit, is told in the same call that it has ended with this code, and is done.
    RunToEnd(u8),
    /// As `RunToEnd`, but does not look at what it is told and waits for the event.
    RunPastEnd(u8),
    /// Does not return before [`FakeStrategies::unblock`]; then like `Run`.
    Block,
    /// Fails, having started nothing.
    Fail(StrategyError),
    /// Starts the unit, then fails.
    RunAndFail(StrategyError),
    /// Is done at once.
    Done(Outcome),
    /// Waits without a unit, to be asked again after this long, if given.
    Wait(Option<Duration>),
}

/// What happens when it is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStop {
    /// The unit ends by TERM at once.
    #[default]
    Ends,
    /// The unit ignores TERM and is killed after the grace.
    EndsAfterGrace,
    /// Nothing ends: only the host can end it.
    Ignores,
}

/// What a task's strategy does.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// At `start`.
    pub start: OnStart,
    /// When asked to stop.
    pub stop: OnStop,
    /// What `validate` finds.
    pub problems: Vec<SpecProblem>,
    /// How many calls to `on_event` fail by the host before one works.
    pub host_failures: usize,
}

/// Strategies that follow scripts, and remember every call.
pub struct FakeStrategies {
    units: Arc<FakeUnits>,
    inner: Mutex<Inner>,
    unblocked: watch::Sender<HashSet<TaskName>>,
    /// Raised by a crash: calls of a former life never return.
    life: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    scripts: HashMap<TaskName, Script>,
    starts: Vec<(TaskId, AttemptNumber)>,
    events: Vec<(TaskId, AttemptNumber, StrategyEvent)>,
    under_way: HashMap<(TaskId, AttemptNumber), usize>,
    overlaps: usize,
}

impl FakeStrategies {
    /// Strategies whose units are `units`. A task without a script runs until its unit ends.
    #[must_use]
    pub fn new(units: Arc<FakeUnits>) -> Self {
        Self {
            units,
            inner: Mutex::default(),
            unblocked: watch::Sender::default(),
            life: watch::Sender::default(),
        }
    }

    /// Tasks of this name follow this script from now on.
    pub fn script(&self, name: &TaskName, script: Script) {
        self.inner.lock().scripts.insert(name.clone(), script);
    }

    /// Lets blocked starts of this name return, now and later.
    pub fn unblock(&self, name: &TaskName) {
        self.unblocked
            .send_modify(|names| names.extend([name.clone()]));
    }

    /// Every call to `start` so far.
    #[must_use]
    pub fn starts(&self) -> Vec<(TaskId, AttemptNumber)> {
        self.inner.lock().starts.clone()
    }

    /// Every event told so far.
    #[must_use]
    pub fn events(&self) -> Vec<(TaskId, AttemptNumber, StrategyEvent)> {
        self.inner.lock().events.clone()
    }

    /// How many stops were told of a task.
    #[must_use]
    pub fn stops(&self, task: TaskId) -> usize {
        let inner = self.inner.lock();
        let is_stop = |event: &StrategyEvent| matches!(event, StrategyEvent::StopRequested { .. });
        let told = inner.events.iter();
        told.filter(|(id, _, event)| *id == task && is_stop(event))
            .count()
    }

    /// How often a call for an attempt came while another was under way. Always 0.
    #[must_use]
    pub fn overlaps(&self) -> usize {
        self.inner.lock().overlaps
    }

    /// What a daemon started now calls. Dies with [`FakeStrategies::crash`].
    #[must_use]
    pub fn for_one_life(self: &Arc<Self>) -> Arc<dyn Strategies> {
        Arc::new(OneLife {
            all: self.clone(),
            life: *self.life.borrow(),
        })
    }

    /// The daemon died: no call that is under way ever returns.
    pub fn crash(&self) {
        self.life.send_modify(|life| *life += 1);
        self.inner.lock().under_way.clear();
    }

    fn enter(&self, call: &StrategyTask) -> Script {
        let mut inner = self.inner.lock();
        let key = (call.task.id, call.attempt);
        let under_way = inner.under_way.entry(key).or_default();
        *under_way += 1;
        let overlaps = *under_way > 1;
        inner.overlaps += usize::from(overlaps);
        let script = inner.scripts.get(&call.task.key.name);
        script.cloned().unwrap_or_default()
    }

    fn leave(&self, call: &StrategyTask) {
        let key = (call.task.id, call.attempt);
        if let Some(under_way) = self.inner.lock().under_way.get_mut(&key) {
            *under_way = under_way.saturating_sub(1);
        }
    }

    async fn follow_start(
        &self,
        call: &StrategyTask,
        script: Script,
    ) -> Result<Stepped, StrategyError> {
        // A call to a component takes a moment, and other things happen in it.
        tokio::task::yield_now().await;
        let (id, attempt) = (call.task.id, call.attempt);
        match script.start {
            OnStart::Block => {
                let name = &call.task.key.name;
                let mut unblocked = self.unblocked.subscribe();
                let _ = unblocked.wait_for(|names| names.contains(name)).await;
            }
            OnStart::Run => {}
            OnStart::RunToEnd(code) | OnStart::RunPastEnd(code) => {
                let status = ExitStatus::Code(code);
                let (process, end) = self.units.spawn_and_end(id, attempt, status);
                let step = match script.start {
                    OnStart::RunToEnd(_) => outcome(end.status),
                    _ => wait(b"running", None),
                };
                return Ok(Stepped {
                    step,
                    process: Some(process),
                    ended: vec![(main_unit(), end)],
                    remarks: taskwright_model::Remarks::default(),
                });
            }
            OnStart::Fail(error) => return Err(error),
            OnStart::RunAndFail(error) => {
                self.units.spawn(id, attempt);
                return Err(error);
            }
            OnStart::Done(outcome) => return Ok(Step::Done(outcome).into()),
            OnStart::Wait(wake_after) => return Ok(wait(b"waiting", wake_after).into()),
        }
        let process = Some(self.units.spawn(id, attempt));
        Ok(Stepped {
            process,
            ..wait(b"running", None).into()
        })
    }

    async fn follow_event(
        &self,
        call: &StrategyTask,
        state: Arc<[u8]>,
        event: StrategyEvent,
        script: Script,
    ) -> Result<Stepped, StrategyError> {
        tokio::task::yield_now().await;
        if script.host_failures > 0 {
            let mut inner = self.inner.lock();
            if let Some(script) = inner.scripts.get_mut(&call.task.key.name) {
                script.host_failures -= 1;
            }
            let message = "the supervisor was away".into();
            return Err(StrategyError::Host { message });
        }
        self.inner
            .lock()
            .events
            .push((call.task.id, call.attempt, event.clone()));
        match event {
            StrategyEvent::Exited { end, .. } => Ok(outcome(end.status).into()),
            StrategyEvent::StopRequested { grace } => {
                self.stop_unit(call, script.stop, grace);
                Ok(wait(&state, None).into())
            }
            StrategyEvent::Woke | StrategyEvent::Recovered => Ok(wait(&state, None).into()),
        }
    }

    fn stop_unit(&self, call: &StrategyTask, stop: OnStop, grace: Duration) {
        let (units, id, attempt) = (self.units.clone(), call.task.id, call.attempt);
        match stop {
            OnStop::Ends => units.end(id, attempt, Some(ExitStatus::Signal(15))),
            OnStop::EndsAfterGrace => {
                // Ends with the grace; the unit outlives a crash of the daemon, as real ones do.
                tokio::spawn(async move {
                    tokio::time::sleep(grace).await;
                    units.end(id, attempt, Some(ExitStatus::Signal(9)));
                });
            }
            OnStop::Ignores => {}
        }
    }
}

impl Strategies for FakeStrategies {
    fn resolve(&self, spec: &TaskSpec) -> Result<RuntimeName, SpecProblem> {
        let wanted = spec.runtime.clone();
        let name = wanted.map_or_else(|| RuntimeName::parse(spec.work.kind()), Ok);
        name.map_err(|error| SpecProblem {
            field: "/spec/runtime".into(),
            message: error.to_string(),
        })
    }

    fn validate(
        &self,
        task: StrategyTask,
    ) -> BoxFuture<'_, Result<Vec<SpecProblem>, StrategyError>> {
        let scripts = &self.inner.lock().scripts;
        let script = scripts.get(&task.task.key.name);
        let mut problems = script
            .map(|script| script.problems.clone())
            .unwrap_or_default();
        if task.task.spec.priority == CANNOT_RUN {
            problems.push(SpecProblem {
                field: "/priority".to_owned(),
                message: "cannot run".to_owned(),
            });
        }
        Box::pin(std::future::ready(Ok(problems)))
    }

    fn start(&self, task: StrategyTask) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        Box::pin(async move {
            self.inner.lock().starts.push((task.task.id, task.attempt));
            let script = self.enter(&task);
            let answer = self.follow_start(&task, script).await;
            self.leave(&task);
            answer
        })
    }

    fn on_event(
        &self,
        task: StrategyTask,
        state: Arc<[u8]>,
        event: StrategyEvent,
    ) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        Box::pin(async move {
            let script = self.enter(&task);
            let answer = self.follow_event(&task, state, event, script).await;
            self.leave(&task);
            answer
        })
    }
}

/// The strategies as one life of a daemon sees them: a dead daemon calls nobody, and hears no
/// answer, though in a test its futures are still there.
struct OneLife {
    all: Arc<FakeStrategies>,
    life: u64,
}

impl OneLife {
    async fn alive<T>(&self, call: impl Future<Output = T>) -> T {
        let mut life = self.all.life.subscribe();
        if *life.borrow_and_update() != self.life {
            return std::future::pending().await;
        }
        tokio::select! {
            biased;
            _ = life.changed() => std::future::pending().await,
            answer = call => answer,
        }
    }
}

impl Strategies for OneLife {
    fn resolve(&self, spec: &TaskSpec) -> Result<RuntimeName, SpecProblem> {
        self.all.resolve(spec)
    }

    fn validate(
        &self,
        task: StrategyTask,
    ) -> BoxFuture<'_, Result<Vec<SpecProblem>, StrategyError>> {
        Box::pin(self.alive(self.all.validate(task)))
    }

    fn start(&self, task: StrategyTask) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        Box::pin(self.alive(self.all.start(task)))
    }

    fn on_event(
        &self,
        task: StrategyTask,
        state: Arc<[u8]>,
        event: StrategyEvent,
    ) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        Box::pin(self.alive(self.all.on_event(task, state, event)))
    }
}

fn wait(state: &[u8], wake_after: Option<Duration>) -> Step {
    let state = state.into();
    Step::Wait {
        running: true,
        state,
        wake_after,
    }
}

fn outcome(status: Option<ExitStatus>) -> Step {
    Step::Done(match status {
        Some(ExitStatus::Code(code)) => Outcome::Exited {
            code,
            message: None,
        },
        Some(ExitStatus::Signal(signal)) => Outcome::Signaled { signal },
        None => Outcome::Lost {
            message: "nobody was there".into(),
        },
    })
}
