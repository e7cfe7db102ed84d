//! Which runtime takes a command that names none: with `--enable-sidecar-mode` it is
//! `sidecar`, never silently a process beside the daemon.

use std::sync::Arc;

use futures::future::BoxFuture;
use taskwright_control::port::{
    SpecProblem, Stepped, Strategies, StrategyError, StrategyEvent, StrategyTask,
};
use taskwright_model::{RuntimeName, TaskSpec, Work};

/// Strategies in which commands belong to another runtime than the one they would find.
pub(crate) struct CommandsTo {
    runtime: RuntimeName,
    inner: Arc<dyn Strategies>,
}

impl CommandsTo {
    /// `inner`, with commands that name no runtime given to `runtime`.
    pub(crate) fn new(runtime: RuntimeName, inner: Arc<dyn Strategies>) -> Self {
        Self { runtime, inner }
    }
}

impl Strategies for CommandsTo {
    fn resolve(&self, spec: &TaskSpec) -> Result<RuntimeName, SpecProblem> {
        if spec.runtime.is_some() || !matches!(spec.work, Work::Process(_)) {
            return self.inner.resolve(spec);
        }
        let named = TaskSpec {
            runtime: Some(self.runtime.clone()),
            ..spec.clone()
        };
        self.inner.resolve(&named).map_err(|problem| SpecProblem {
            message: format!(
                "{} (the daemon runs in {} mode: name another runtime, or start it without)",
                problem.message, self.runtime
            ),
            ..problem
        })
    }

    fn validate(
        &self,
        task: StrategyTask,
    ) -> BoxFuture<'_, Result<Vec<SpecProblem>, StrategyError>> {
        self.inner.validate(task)
    }

    fn start(&self, task: StrategyTask) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        self.inner.start(task)
    }

    fn on_event(
        &self,
        task: StrategyTask,
        state: Arc<[u8]>,
        event: StrategyEvent,
    ) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        self.inner.on_event(task, state, event)
    }
}
