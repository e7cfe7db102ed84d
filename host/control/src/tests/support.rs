//! Words that many tests use.

use std::sync::Arc;
use std::time::Duration;

use taskwright_model::{AttemptNumber, RetryPolicy, Task, TaskSpec};

use crate::dispatcher::Config;
pub(super) use crate::fake::{
    FakeWorld, OnStart, OnStop, Order, Script, spec, submission, task_key,
};

pub(super) const FIRST: AttemptNumber = AttemptNumber(1);
pub(super) const SECOND: AttemptNumber = AttemptNumber(2);

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) async fn world() -> FakeWorld {
    FakeWorld::start(Config::default()).await
}

pub(super) async fn world_with(change: impl FnOnce(&mut Config)) -> FakeWorld {
    let mut config = Config::default();
    change(&mut config);
    FakeWorld::start(config).await
}

pub(super) fn retried(max_attempts: u32, backoff: Duration) -> TaskSpec {
    let mut spec = spec();
    spec.retry = RetryPolicy {
        max_attempts,
        backoff,
        ..RetryPolicy::default()
    };
    spec
}

pub(super) fn script(world: &FakeWorld, name: &str, script: Script) {
    world.strategies.script(&task_key(name).name, script);
}

pub(super) fn on_start(start: OnStart) -> Script {
    Script {
        start,
        ..Script::default()
    }
}

pub(super) fn on_stop(stop: OnStop) -> Script {
    Script {
        stop,
        ..Script::default()
    }
}

/// A running task of this name.
pub(super) async fn running(world: &FakeWorld, name: &str, spec: TaskSpec) -> Arc<Task> {
    world.submit(name, spec).await.unwrap();
    world.until_state(name, "running").await
}

/// How a task ended, in a word, with its exit.
pub(super) fn ending(task: &Task) -> String {
    let outcome = task.outcome().unwrap();
    match outcome.exit() {
        Some(exit) => format!("{} {}", outcome.cause(), exit.shell_code()),
        None => outcome.cause().to_owned(),
    }
}

/// Lets everything that is ready run, and a moment pass.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// How the task of this name ends.
pub(super) async fn end_of(world: &FakeWorld, name: &str) -> String {
    let ended = world.until_state(name, "ended").await;
    ending(&ended)
}
