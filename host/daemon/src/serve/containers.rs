//! The container runtime, as the engine and the loop see it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use taskwright_capability::container::{
    ContainerRequest, ContainerState, ContainerStats, ExecEnd, ExecPiece, ImageState, IsLive,
    PullPolicy, RuntimeStatus, Sandbox, SandboxRequest,
};
use taskwright_capability::{
    ContainerError, ContainerHost, OutputSink, OutputStream, StopError, UnitReport, UnitState,
};
use taskwright_control::port::Clock as _;
use taskwright_cri::{CriConfig, CriHost};
use taskwright_model::{AttemptNumber, Enforced, Task, TaskId, UnitKey, Work};
use taskwright_supervisor::OutputWriter;
use tokio::sync::mpsc;

use super::clock::RealClock;
use super::data_dir::DataDir;
use super::under_way::{Done, Order, Step};
use super::units::TaskUnits;
use crate::settings::config::ContainerConfig;

/// How often the sweep after a start is tried, and the longest pause between two tries.
const MOST_SWEEPS: u32 = 1000;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The client of the container runtime, which need not be there yet.
///
/// # Errors
/// When the daemon's own id among others cannot be had.
pub(crate) fn connect(
    config: &ContainerConfig,
    output_cap: u64,
    data_dir: &DataDir,
) -> anyhow::Result<(Arc<CriHost>, mpsc::Receiver<UnitReport>)> {
    let output = OutputWriter::new(data_dir.root().to_owned(), output_cap);
    Ok(CriHost::new(CriConfig {
        socket: config.socket.clone(),
        instance: data_dir.instance()?,
        state_dir: data_dir.containers(),
        cgroup_parent: config.cgroup_parent.clone(),
        loopback_handler: config.loopback_handler.clone(),
        output: Arc::new(output),
        clock: || RealClock.now(),
    }))
}

/// What a container runtime says of itself, for `doctor`.
///
/// # Errors
/// That it cannot be reached.
pub(crate) async fn look(socket: &Path) -> Result<RuntimeStatus, ContainerError> {
    /// Nothing is run to look at a runtime, so nothing is printed.
    struct Nowhere;

    impl OutputSink for Nowhere {
        fn length(&self, _: &Path, _: OutputStream) -> std::io::Result<u64> {
            Ok(0)
        }

        fn append(&self, _: &Path, _: OutputStream, _: &[u8]) -> std::io::Result<()> {
            Ok(())
        }
    }

    let (host, _nothing_ends) = CriHost::new(CriConfig {
        socket: socket.to_owned(),
        // Nobody's: no container is told of.
        instance: uuid::Uuid::now_v7().to_string(),
        state_dir: std::env::temp_dir(),
        cgroup_parent: None,
        loopback_handler: None,
        output: Arc::new(Nowhere),
        clock: || RealClock.now(),
    });
    host.check().await
}

/// Whether a task is of a kind that may have containers. Scripts of `echo` are processes; of other
/// kinds only their runtimes know.
pub(crate) fn may_have(task: &Task) -> bool {
    matches!(&task.spec.work, Work::Document { kind, .. } if kind != "echo")
}

/// The attempts that were under way when the daemon was last alive. Those that may have
/// something at the container runtime are noted: it may be away now and cannot tell.
pub(crate) fn live(tasks: &[Task], units: &TaskUnits) -> HashSet<(TaskId, AttemptNumber)> {
    let mut live = HashSet::new();
    for task in tasks.iter().filter(|task| task.state.is_active()) {
        let Some(attempt) = task.attempt() else {
            continue;
        };
        if may_have(task) {
            units.remember_container(task.id, attempt.number);
        }
        live.insert((task.id, attempt.number));
    }
    live
}

/// Removes what a crash left at the container runtime, once that can be reached.
pub(crate) async fn sweep(
    host: Arc<CriHost>,
    units: Arc<TaskUnits>,
    live: HashSet<(TaskId, AttemptNumber)>,
) {
    let mut pause = Duration::from_millis(500);
    for _ in 0..MOST_SWEEPS {
        let is_live = |task: TaskId, attempt: AttemptNumber| {
            live.contains(&(task, attempt)) || units.has_containers(task, attempt)
        };
        match host.sweep(&is_live).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "leftovers of containers are looked for later"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The same host for the engine: an attempt is remembered before anything is made for it, so
/// that an answer that was lost on the way leaves nothing behind that nobody knows.
pub(crate) struct Remembered {
    /// Who carries it out.
    pub(crate) host: Arc<dyn ContainerHost>,
    /// Who remembers.
    pub(crate) units: Arc<TaskUnits>,
}

impl Remembered {
    /// Gives an order that may take its time.
    async fn ask(
        &self,
        task: TaskId,
        attempt: AttemptNumber,
        step: Step,
        work: impl Future<Output = Result<Done, ContainerError>> + Send + 'static,
    ) -> Result<Done, ContainerError> {
        self.units.remember_container(task, attempt);
        let units = self.units.clone();
        let wanted = move || units.may_have_containers(task, attempt);
        let order = Order {
            task,
            attempt,
            step,
        };
        self.units.under_way().ask(order, wanted, work).await
    }
}

/// The answer to another order: a bug of ours.
fn mixed_up(done: &Done) -> ContainerError {
    ContainerError::Unavailable {
        detail: format!("an order was answered with {done:?}"),
    }
}

impl ContainerHost for Remembered {
    fn check(&self) -> BoxFuture<'_, Result<RuntimeStatus, ContainerError>> {
        self.host.check()
    }

    fn image(
        &self,
        image: String,
        policy: PullPolicy,
        wait: Duration,
    ) -> BoxFuture<'_, Result<ImageState, ContainerError>> {
        self.host.image(image, policy, wait)
    }

    fn run_sandbox(
        &self,
        request: SandboxRequest,
    ) -> BoxFuture<'_, Result<Sandbox, ContainerError>> {
        let (task, attempt) = (request.task, request.attempt);
        let host = self.host.clone();
        let work = async move { host.run_sandbox(request).await.map(Done::Sandbox) };
        Box::pin(async move {
            match self.ask(task, attempt, Step::Sandbox, work).await? {
                Done::Sandbox(sandbox) => Ok(sandbox),
                other => Err(mixed_up(&other)),
            }
        })
    }

    fn create(&self, request: ContainerRequest) -> BoxFuture<'_, Result<Enforced, ContainerError>> {
        let unit = request.unit.clone();
        let host = self.host.clone();
        let work = async move { host.create(request).await.map(Done::Created) };
        Box::pin(async move {
            let step = Step::Create(unit.unit);
            match self.ask(unit.task, unit.attempt, step, work).await? {
                Done::Created(enforced) => Ok(enforced),
                other => Err(mixed_up(&other)),
            }
        })
    }

    fn start(&self, unit: UnitKey) -> BoxFuture<'_, Result<ContainerState, ContainerError>> {
        let (host, key) = (self.host.clone(), unit.clone());
        let work = async move { host.start(key).await.map(Done::Started) };
        Box::pin(async move {
            let step = Step::Start(unit.unit);
            match self.ask(unit.task, unit.attempt, step, work).await? {
                Done::Started(state) => Ok(state),
                other => Err(mixed_up(&other)),
            }
        })
    }

    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>> {
        self.host.stop(unit, grace)
    }

    fn inspect(
        &self,
        unit: UnitKey,
    ) -> BoxFuture<'_, Result<Option<ContainerState>, ContainerError>> {
        self.host.inspect(unit)
    }

    fn stats(&self, unit: UnitKey) -> BoxFuture<'_, Result<ContainerStats, ContainerError>> {
        self.host.stats(unit)
    }

    fn exec(
        &self,
        unit: UnitKey,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecEnd, ContainerError>> {
        self.host.exec(unit, argv, timeout)
    }

    fn exec_stream(
        &self,
        unit: UnitKey,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ExecPiece, ContainerError>>, ContainerError>>
    {
        self.host.exec_stream(unit, argv, timeout)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(UnitKey, UnitState)>, StopError>> {
        self.host.list()
    }

    fn terminate(
        &self,
        task: TaskId,
        attempt: AttemptNumber,
    ) -> BoxFuture<'_, Result<(), StopError>> {
        self.host.terminate(task, attempt)
    }

    fn release(
        &self,
        task: TaskId,
        attempt: AttemptNumber,
    ) -> BoxFuture<'_, Result<(), StopError>> {
        self.host.release(task, attempt)
    }

    fn purge(&self, task: TaskId) -> BoxFuture<'_, Result<(), StopError>> {
        self.host.purge(task)
    }

    fn sweep<'a>(&'a self, is_live: IsLive<'a>) -> BoxFuture<'a, Result<(), StopError>> {
        self.host.sweep(is_live)
    }
}
