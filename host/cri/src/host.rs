//! The container host: what it is made of, and every order of the trait with who does it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use taskwright_capability::container::{
    ContainerRequest, ContainerState, ContainerStats, ExecEnd, ExecPiece, ImageState, IsLive,
    PullPolicy, RuntimeStatus, Sandbox, SandboxRequest,
};
use taskwright_capability::{
    ContainerError, ContainerHost, OutputSink, StopError, UnitReport, UnitState,
};
use taskwright_model::{AttemptNumber, Enforced, TaskId, Timestamp, UnitKey};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::ends::EventsState;
use crate::fault;
use crate::image::Pulls;
use crate::marks::Marks;
use crate::messages::{StatusRequest, VersionRequest};
use crate::output::notice::Notices;
use crate::rpc::Runtime;
use crate::track::Tracker;

/// Reports that wait for whoever drives tasks. Ends wait in their own tasks when it is full.
const REPORT_QUEUE: usize = 1024;
/// Hints that a container may have ended. When it is full, the next look finds out.
const HINT_QUEUE: usize = 1024;
/// Stops under way at a time. One more is refused, and may be asked for again.
const MOST_STOPS: usize = 4096;
/// How long a runtime that has events may take to say that it has none.
const EVENTS_TOLD_WITHIN: Duration = Duration::from_secs(1);

/// How a container host is made.
#[derive(Clone)]
pub struct CriConfig {
    /// The runtime's socket. It need not exist yet.
    pub socket: PathBuf,
    /// Which daemon this is, the same in all its lives. What carries another id is not touched.
    pub instance: String,
    /// The daemon's own directory for containers' logs and empty directories, absolute; made
    /// owner-only if missing. The runtime writes below it.
    pub state_dir: PathBuf,
    /// Under which cgroup containers are put, as `/taskwright`, or a slice where the runtime uses
    /// systemd. The runtime's own choice where nothing is said. A path gives each attempt a group
    /// of its own below it; on cgroup v1, processes can be counted only then.
    pub cgroup_parent: Option<String>,
    /// The runtime handler whose pods have a loopback and nothing else. CRI has no way to ask for
    /// that, so without one [`taskwright_capability::container::Network::None`] is refused.
    pub loopback_handler: Option<String>,
    /// Where output goes.
    pub output: Arc<dyn OutputSink>,
    /// What time it is.
    pub clock: fn() -> Timestamp,
}

/// Containers of a CRI runtime. Its background work ends when it is dropped; containers run on.
pub struct CriHost {
    inner: Arc<Inner>,
}

/// What all orders and all background work share.
pub(crate) struct Inner {
    pub(crate) config: CriConfig,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) runtime: Runtime,
    pub(crate) marks: Marks,
    pub(crate) notices: Arc<Notices>,
    pub(crate) tracker: Tracker,
    pub(crate) pulls: Pulls,
    pub(crate) events: EventsState,
    pub(crate) reports: mpsc::Sender<UnitReport>,
    pub(crate) hints: mpsc::Sender<String>,
    /// Room for stops that are under way.
    pub(crate) stops: Arc<Semaphore>,
    /// Rings when everything should be looked at.
    pub(crate) look: Notify,
    /// `None` when the host was dropped.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl CriHost {
    /// A host for the containers of one runtime, and where ends are reported. The runtime need
    /// not be there yet. Must be called within a runtime of tokio.
    #[must_use]
    pub fn new(config: CriConfig) -> (Arc<Self>, mpsc::Receiver<UnitReport>) {
        let (reports, reported) = mpsc::channel(REPORT_QUEUE);
        let (hints, hinted) = mpsc::channel(HINT_QUEUE);
        let inner = Arc::new(Inner {
            clock: config.clock,
            runtime: Runtime::new(&config.socket),
            marks: Marks::new(config.instance.clone()),
            notices: Arc::new(Notices::new(hints.clone())),
            tracker: Tracker::default(),
            pulls: Pulls::new(),
            events: EventsState::default(),
            reports,
            hints,
            stops: Arc::new(Semaphore::new(MOST_STOPS)),
            look: Notify::new(),
            tasks: Mutex::new(Some(JoinSet::new())),
            config,
        });
        let notices = inner.notices.clone();
        inner.spawn(async move { notices.ring().await });
        inner.spawn(inner.clone().follow_events());
        inner.spawn(inner.clone().look_for_ends(hinted));
        (Arc::new(Self { inner }), reported)
    }
}

impl Drop for CriHost {
    fn drop(&mut self) {
        // Books first: a thread that is still writing must not go on beside a later host.
        self.inner.tracker.close();
        self.inner.tasks.lock().take();
    }
}

impl Inner {
    /// Background work that ends with the host at the latest.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = self.tasks.lock().as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(work);
        }
    }

    /// The same, and a handle to end it sooner.
    pub(crate) fn spawn_abortable(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Option<tokio::task::AbortHandle> {
        let mut tasks = self.tasks.lock();
        tasks.as_mut().map(|tasks| tasks.spawn(work))
    }

    async fn check(self: Arc<Self>) -> Result<RuntimeStatus, ContainerError> {
        let version = self.runtime.look(VersionRequest {
            version: "v1".to_owned(),
        });
        let version = version.await.map_err(fault::general)?;
        let status = self.runtime.look(StatusRequest { verbose: false });
        let status = status.await.map_err(fault::general)?;
        let conditions = status.status.unwrap_or_default().conditions;
        let condition = |kind: &str| {
            let found = conditions.iter().find(|condition| condition.kind == kind);
            match found {
                Some(found) if found.status => Ok(()),
                Some(found) => Err(format!("{}: {}", found.reason, found.message)),
                None => Err(format!("the runtime does not tell its {kind}")),
            }
        };
        condition("RuntimeReady").map_err(|why| ContainerError::Unavailable {
            detail: format!("{} is not ready: {why}", version.runtime_name),
        })?;
        let told = self.events.told(EVENTS_TOLD_WITHIN);
        Ok(RuntimeStatus {
            name: version.runtime_name,
            version: version.runtime_version,
            network: condition("NetworkReady"),
            events: told.await,
        })
    }
}

impl ContainerHost for CriHost {
    fn check(&self) -> BoxFuture<'_, Result<RuntimeStatus, ContainerError>> {
        Box::pin(self.inner.clone().check())
    }

    fn image(
        &self,
        image: String,
        policy: PullPolicy,
        wait: Duration,
    ) -> BoxFuture<'_, Result<ImageState, ContainerError>> {
        Box::pin(self.inner.clone().image(image, policy, wait))
    }

    fn run_sandbox(
        &self,
        request: SandboxRequest,
    ) -> BoxFuture<'_, Result<Sandbox, ContainerError>> {
        Box::pin(self.inner.run_sandbox(request))
    }

    fn create(&self, request: ContainerRequest) -> BoxFuture<'_, Result<Enforced, ContainerError>> {
        Box::pin(self.inner.create(request))
    }

    fn start(&self, unit: UnitKey) -> BoxFuture<'_, Result<ContainerState, ContainerError>> {
        Box::pin(self.inner.clone().start(unit))
    }

    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(self.inner.clone().stop(unit, grace))
    }

    fn inspect(
        &self,
        unit: UnitKey,
    ) -> BoxFuture<'_, Result<Option<ContainerState>, ContainerError>> {
        Box::pin(self.inner.clone().inspect(unit))
    }

    fn stats(&self, unit: UnitKey) -> BoxFuture<'_, Result<ContainerStats, ContainerError>> {
        Box::pin(self.inner.stats(unit))
    }

    fn exec(
        &self,
        unit: UnitKey,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecEnd, ContainerError>> {
        Box::pin(self.inner.exec(unit, argv, timeout))
    }

    fn exec_stream(
        &self,
        unit: UnitKey,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ExecPiece, ContainerError>>, ContainerError>>
    {
        Box::pin(self.inner.exec_stream(unit, argv, timeout))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(UnitKey, UnitState)>, StopError>> {
        Box::pin(self.inner.clone().list())
    }

    fn terminate(
        &self,
        task: TaskId,
        attempt: AttemptNumber,
    ) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(self.inner.terminate((task, attempt)))
    }

    fn release(
        &self,
        task: TaskId,
        attempt: AttemptNumber,
    ) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(self.inner.release((task, attempt)))
    }

    fn purge(&self, task: TaskId) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(self.inner.purge(task))
    }

    fn sweep<'a>(&'a self, is_live: IsLive<'a>) -> BoxFuture<'a, Result<(), StopError>> {
        Box::pin(self.inner.sweep(is_live))
    }
}
