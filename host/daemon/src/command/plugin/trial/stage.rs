//! A stage for a runtime: the real engine, a host that starts nothing, and tasks to give to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use taskwright_capability::fake::{FakeProcessHost, Mood};
use taskwright_capability::{ProcessHost as _, UnitEnd, UnitState};
use taskwright_control::port::{
    PluginInfo, Plugins as _, SpecProblem, Step, Strategies as _, StrategyError, StrategyEvent,
    StrategyTask, UnitEnded,
};
use taskwright_engine::{PluginSource, Runtimes};
use taskwright_model::{
    Attempt, AttemptNumber, Confinement, EnvVar, ExitStatus, Namespace, Outcome, ProcessSpec,
    Remarks, RetryPolicy, RuntimeName, Task, TaskId, TaskKey, TaskName, TaskSpec, TimeLimits,
    Timestamp, UnitKey, UnitName, Work,
};

use crate::offline::{Offline, Scratch};

/// Further calls of one attempt: a runtime that goes on and on is told so.
const MOST_EVENTS: usize = 32;
/// When everything happens here.
const AT: i64 = 1_700_000_000_000;

/// A loaded plugin, and what it asked for.
pub(super) struct Stage {
    pub(super) info: PluginInfo,
    /// What its tasks run: a program that it may start.
    pub(super) program: String,
    runtimes: Runtimes,
    processes: FakeProcessHost,
    source: PluginSource,
    /// What each of its tasks asks for, and the command in it.
    model: (TaskSpec, ProcessSpec),
    key: TaskKey,
    runtime: RuntimeName,
    tasks: AtomicU32,
    _scratch: Scratch,
}

impl Stage {
    pub(super) async fn new(source: PluginSource, config: String) -> anyhow::Result<Self> {
        let Offline {
            runtimes,
            processes,
            scratch,
        } = Offline::start().await?;
        let info = runtimes.load(source.clone()).await?;
        let runtime = RuntimeName::parse(&info.name)?;
        let lent = source.grants.programs.iter().flatten().next().cloned();
        let program = lent.unwrap_or_else(|| "/bin/true".to_owned());
        Ok(Self {
            info,
            model: model(&program, config),
            program,
            runtimes,
            processes,
            source,
            key: TaskKey {
                namespace: Namespace::native(),
                name: TaskName::parse("trial").context("name a task")?,
            },
            runtime,
            tasks: AtomicU32::new(1),
            _scratch: scratch,
        })
    }

    /// Takes this task as the model of all, instead of a small command.
    pub(super) fn take_model(&mut self, name: TaskName, spec: TaskSpec, command: ProcessSpec) {
        let words = command.command.iter().chain(&command.args);
        if let Some(program) = words.into_iter().next() {
            self.program.clone_from(program);
        }
        self.key.name = name;
        self.model = (spec, command);
    }

    /// A plugin that failed is called again: each claim is tried.
    pub(super) async fn forgive(&self) {
        if self
            .runtimes
            .list()
            .await
            .iter()
            .any(|info| info.faults > 0)
        {
            // It was loaded before. If not now, the next claim says so.
            let _told_by_the_next_claim = self.runtimes.load(self.source.clone()).await;
        }
    }

    pub(super) fn takes_commands(&self) -> bool {
        self.info.kinds.iter().any(|kind| kind == "process")
    }

    pub(super) async fn health(&self) -> Result<(), String> {
        let all = self.runtimes.list().await;
        all.into_iter().try_for_each(|info| info.health)
    }

    /// Work for it, at its first attempt.
    pub(super) fn task(&self) -> StrategyTask {
        self.given(self.model.1.clone())
    }

    pub(super) fn task_without_program(&self) -> StrategyTask {
        self.given(ProcessSpec {
            command: Vec::new(),
            ..self.model.1.clone()
        })
    }

    /// What is wrong with a task, each problem with its field.
    pub(super) async fn validate(&self, task: StrategyTask) -> Result<Vec<String>, String> {
        let problems = self.runtimes.validate(task).await.map_err(said)?;
        let line = |one: &SpecProblem| format!("{} {}", one.field, one.message);
        Ok(problems.iter().map(line).collect())
    }

    /// The first step of an attempt on a host of that mood.
    pub(super) async fn start_in(&self, mood: Mood) -> Result<Step, StrategyError> {
        self.processes.set_mood(mood);
        let stepped = self.runtimes.start(self.task()).await;
        self.processes.set_mood(Mood::Well);
        Ok(stepped?.step)
    }

    fn given(&self, command: ProcessSpec) -> StrategyTask {
        let number = self.tasks.fetch_add(1, Ordering::Relaxed);
        let spec = TaskSpec {
            work: Work::Process(command),
            ..self.model.0.clone()
        };
        let at = Timestamp::from_millis(AT);
        let id = TaskId::from_u128(u128::from(number));
        let mut task = Task::new(
            id,
            self.key.clone(),
            Arc::new(spec),
            self.runtime.clone(),
            at,
        );
        task.attempts.push(Attempt {
            number: AttemptNumber(1),
            launched_at: at,
            started_at: None,
            ended_at: None,
            outcome: None,
            process: None,
            strategy_state: Arc::from([]),
            remarks: Remarks::default(),
        });
        StrategyTask {
            task: Arc::new(task),
            attempt: AttemptNumber(1),
        }
    }
}

/// What tasks ask for where nobody says otherwise.
fn model(program: &str, config: String) -> (TaskSpec, ProcessSpec) {
    let command = ProcessSpec {
        command: vec![program.to_owned()],
        args: vec!["an argument".to_owned()],
        env: vec![EnvVar {
            name: "COLOUR".to_owned(),
            value: "blue".to_owned(),
        }],
        working_dir: None,
    };
    let spec = TaskSpec {
        work: Work::Process(command.clone()),
        runtime: None,
        labels: BTreeMap::new(),
        priority: 0,
        limits: TimeLimits::default(),
        retry: RetryPolicy::default(),
        confinement: Confinement::default(),
        config,
    };
    (spec, command)
}

/// An attempt that was started.
pub(super) struct Run<'a> {
    stage: &'a Stage,
    given: StrategyTask,
    /// What it answered last.
    pub(super) step: Step,
}

impl<'a> Run<'a> {
    /// Starts an attempt and leads it to where units run.
    pub(super) async fn start(stage: &'a Stage) -> Result<Self, String> {
        let given = stage.task();
        let stepped = stage.runtimes.start(given.clone()).await.map_err(said)?;
        let mut run = Self {
            stage,
            given,
            step: stepped.step,
        };
        for _ in 0..MOST_EVENTS {
            if !run.running().await.is_empty() {
                return Ok(run);
            }
            run.wake().await?;
        }
        Err(format!(
            "it was woken {MOST_EVENTS} times and started nothing"
        ))
    }

    /// Asks for the start once more, as a host does that crashed.
    pub(super) async fn start_again(self) -> Result<Self, String> {
        let started = self.stage.runtimes.start(self.given.clone()).await;
        let step = started.map_err(said)?.step;
        Ok(Self { step, ..self })
    }

    /// Tells of something that happened.
    pub(super) async fn tell(&mut self, event: StrategyEvent) -> Result<(), String> {
        let state = match &self.step {
            Step::Wait { state, .. } => Arc::clone(state),
            Step::Done(outcome) => return Err(format!("it ended already: {outcome:?}")),
        };
        let told = self
            .stage
            .runtimes
            .on_event(self.given.clone(), state, event);
        self.step = told.await.map_err(said)?.step;
        Ok(())
    }

    async fn wake(&mut self) -> Result<(), String> {
        match &self.step {
            Step::Done(outcome) => Err(format!("no unit was started, but it ended: {outcome:?}")),
            Step::Wait {
                wake_after: None, ..
            } => Err("no unit runs, and it asks for no wake-up: it would wait for ever".to_owned()),
            Step::Wait { .. } => self.tell(StrategyEvent::Woke).await,
        }
    }

    /// Every unit ends like this, as often as it starts further ones. The outcome.
    pub(super) async fn end(
        mut self,
        status: Option<ExitStatus>,
        out_of_memory: bool,
    ) -> Result<Outcome, String> {
        for _ in 0..MOST_EVENTS {
            if let Step::Done(outcome) = self.step {
                return Ok(outcome);
            }
            let Some(unit) = self.running().await.into_iter().next() else {
                self.wake().await?;
                continue;
            };
            let end = UnitEnd {
                status,
                out_of_memory,
                at: Timestamp::from_millis(AT),
            };
            self.stage.processes.end(&self.key(&unit), end);
            let end = UnitEnded {
                status,
                out_of_memory,
            };
            self.tell(StrategyEvent::Exited { unit, end }).await?;
        }
        Err(format!("it was told {MOST_EVENTS} events and did not end"))
    }

    /// Its units that run.
    pub(super) async fn running(&self) -> Vec<UnitName> {
        let all = self.stage.processes.list().await.unwrap_or_default();
        let ours = all.into_iter().filter(|(key, state)| {
            key.task == self.given.task.id && matches!(state, UnitState::Running(_))
        });
        ours.map(|(key, _)| key.unit).collect()
    }

    /// Its units whose stop was asked for, and with which grace.
    pub(super) fn stopped(&self) -> Vec<(UnitName, Duration)> {
        let all = self.stage.processes.stopped().into_iter();
        let ours = all.filter(|(key, _)| key.task == self.given.task.id);
        ours.map(|(key, grace)| (key.unit, grace)).collect()
    }

    fn key(&self, unit: &UnitName) -> UnitKey {
        UnitKey {
            task: self.given.task.id,
            attempt: self.given.attempt,
            unit: unit.clone(),
        }
    }
}

fn said(error: StrategyError) -> String {
    error.to_string()
}
