//! Every function that the host lends, from a guest that means ill and on a host that is ill.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, pending, ready};
use futures::stream::BoxStream;
use taskwright_capability::container::{
    ContainerRequest, ContainerState, ContainerStats, ExecEnd, ExecPiece, ImageState, IsLive,
    PullPolicy, RuntimeStatus, Sandbox, SandboxRequest,
};
use taskwright_capability::fake::Mood;
use taskwright_capability::{
    ContainerError, ContainerHost, Directory, Secret, SecretSource, StopError, UnitState,
};
use taskwright_control::port::{Plugins, Strategies, StrategyError};
use taskwright_engine::{CallLimits, Containers, PluginSource};
use taskwright_model::{AttemptNumber, Enforced, TaskId, UnitKey};

use crate::support::{Bench, given, misbehaving, mischief, process, tight};

/// The functions that wait for somebody else.
pub(crate) const WAIT: [&str; 14] = [
    "process.spawn",
    "units.stop",
    "units.signal",
    "namespace.find",
    "namespace.is-alive",
    "namespace.spawn",
    "container.check",
    "container.image",
    "container.run-sandbox",
    "container.create",
    "container.start",
    "container.inspect",
    "container.stats",
    "container.exec",
];
/// Those that work on the disk.
pub(crate) const DISK: [&str; 9] = [
    "files.read",
    "files.write",
    "files.remove",
    "directories.read",
    "directories.list",
    "directories.stat",
    "directories.write",
    "directories.remove",
    "secrets.get",
];
/// Those that are done at once.
pub(crate) const AT_ONCE: [&str; 8] = [
    "directories.all",
    "namespace.may-enter",
    "container.may-run",
    "container.may-create",
    "settings.get",
    "log.write",
    "status.note",
    "status.parts",
];

/// Containers that are never answered for, or always refused.
#[derive(Clone, Copy)]
pub(crate) enum NoContainers {
    Silent,
    Refusing,
}

impl NoContainers {
    fn answer<T: Send + 'static>(self) -> BoxFuture<'static, Result<T, ContainerError>> {
        match self {
            Self::Silent => Box::pin(pending()),
            Self::Refusing => Box::pin(ready(Err(ContainerError::Refused {
                detail: "as a test wants it".to_owned(),
            }))),
        }
    }

    fn stopped<T: Send + 'static>(self) -> BoxFuture<'static, Result<T, StopError>> {
        match self {
            Self::Silent => Box::pin(pending()),
            Self::Refusing => Box::pin(ready(Err(StopError::Unavailable {
                detail: "as a test wants it".to_owned(),
            }))),
        }
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, ContainerError>>;
type Stopped<'a, T> = BoxFuture<'a, Result<T, StopError>>;

impl ContainerHost for NoContainers {
    fn check(&self) -> Answer<'_, RuntimeStatus> {
        self.answer()
    }
    fn image(&self, _: String, _: PullPolicy, _: Duration) -> Answer<'_, ImageState> {
        self.answer()
    }
    fn run_sandbox(&self, _: SandboxRequest) -> Answer<'_, Sandbox> {
        self.answer()
    }
    fn create(&self, _: ContainerRequest) -> Answer<'_, Enforced> {
        self.answer()
    }
    fn start(&self, _: UnitKey) -> Answer<'_, ContainerState> {
        self.answer()
    }
    fn stop(&self, _: UnitKey, _: Duration) -> Stopped<'_, ()> {
        self.stopped()
    }
    fn inspect(&self, _: UnitKey) -> Answer<'_, Option<ContainerState>> {
        self.answer()
    }
    fn stats(&self, _: UnitKey) -> Answer<'_, ContainerStats> {
        self.answer()
    }
    fn exec(&self, _: UnitKey, _: Vec<String>, _: Duration) -> Answer<'_, ExecEnd> {
        self.answer()
    }
    fn exec_stream(
        &self,
        _: UnitKey,
        _: Vec<String>,
        _: Duration,
    ) -> Answer<'_, BoxStream<'static, Result<ExecPiece, ContainerError>>> {
        self.answer()
    }
    fn list(&self) -> Stopped<'_, Vec<(UnitKey, UnitState)>> {
        self.stopped()
    }
    fn terminate(&self, _: TaskId, _: AttemptNumber) -> Stopped<'_, ()> {
        self.stopped()
    }
    fn release(&self, _: TaskId, _: AttemptNumber) -> Stopped<'_, ()> {
        self.stopped()
    }
    fn purge(&self, _: TaskId) -> Stopped<'_, ()> {
        self.stopped()
    }
    fn sweep<'a>(&'a self, _: IsLive<'a>) -> Stopped<'a, ()> {
        self.stopped()
    }
}

/// A bench with containers, and the guest told to call one function.
async fn calling(containers: NoContainers, limits: CallLimits, settings: &[(&str, &str)]) -> Bench {
    calling_with(containers, limits, misbehaving(settings)).await
}

/// A bench with containers and this plugin.
pub(crate) async fn calling_with(
    containers: NoContainers,
    limits: CallLimits,
    mut source: PluginSource,
) -> Bench {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("own");
    std::fs::create_dir(&path).unwrap();
    let secret = SecretSource::Variable {
        name: "OWN".to_owned(),
        value: Some(Secret::new(b"nobody's".to_vec())),
    };
    source.grants.secrets.insert("own".to_owned(), secret);
    let directory = Directory { path, write: true };
    source
        .grants
        .directories
        .insert("own".to_owned(), directory);
    let containers = Containers {
        host: Arc::new(containers),
        host_paths: Vec::new(),
        host_folders: None,
        host_network: false,
        loopback: true,
        privileged: false,
    };
    let bench = Bench::with_containers(limits, folder, Some(containers));
    bench.runtimes.load(process()).await.unwrap();
    bench.runtimes.load(source).await.unwrap();
    bench
}

#[tokio::test]
async fn a_function_that_is_never_answered_ends_the_call_and_is_named() {
    let short = CallLimits {
        deadline: Duration::from_millis(300),
        ..tight()
    };
    for function in WAIT {
        let bench = calling(NoContainers::Silent, short.clone(), &[("call", function)]).await;
        bench.processes.set_mood(Mood::Silent);
        let error = bench.runtimes.start(given(mischief())).await;
        let Err(StrategyError::Host { message }) = error else {
            panic!("{function}: {error:?}");
        };
        let expected = format!("{function} gave no answer within the 300 ms");
        assert!(message.contains(&expected), "{message}");
        bench.processes.set_mood(Mood::Well);
        bench.check_that_others_work().await;
    }
}

#[tokio::test]
async fn a_function_that_panics_is_not_the_plugins_fault() {
    for function in WAIT
        .into_iter()
        .filter(|name| !name.starts_with("container"))
    {
        let bench = calling(NoContainers::Refusing, tight(), &[("call", function)]).await;
        bench.processes.set_mood(Mood::Panics);
        let error = bench.runtimes.start(given(mischief())).await;
        let Err(StrategyError::Host { message }) = error else {
            panic!("{function}: {error:?}");
        };
        assert!(message.contains(function), "{message}");
        bench.processes.set_mood(Mood::Well);
        bench.check_that_others_work().await;
    }
}

#[tokio::test]
async fn a_guest_that_calls_without_end_is_ended_by_its_own_fault() {
    let patient = CallLimits {
        deadline: Duration::from_secs(60),
        ..tight()
    };
    let most = "more than 1000 times";
    // Each return from a wait costs up to a tick of CPU time: on a slow disk that is over first.
    let cpu = "200 ms of CPU time";
    let waits = WAIT.into_iter().chain(DISK).map(|one| (one, [most, cpu]));
    let at_once = AT_ONCE.into_iter().map(|one| (one, [cpu, cpu]));
    for (function, expected) in waits.chain(at_once) {
        let settings = [("call", function), ("times", "endless")];
        let bench = calling(NoContainers::Refusing, patient.clone(), &settings).await;
        let begun = Instant::now();
        let error = bench.runtimes.start(given(mischief())).await;
        let Err(StrategyError::Plugin { message, .. }) = error else {
            panic!("{function}: {error:?}");
        };
        let told = expected.iter().any(|expected| message.contains(expected));
        assert!(told, "{function}: {message}");
        assert!(begun.elapsed() < Duration::from_secs(50), "{function}");
        bench.check_that_others_work().await;
        let list = bench.runtimes.list().await;
        let faults = list.iter().find(|info| info.name == "misbehave");
        assert_eq!(faults.map(|info| info.faults), Some(1), "{function}");
    }
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_makes_nobody_wait() {
    for (start, pipe) in [("odd-file", "odd"), ("odd-write", ".new")] {
        let bench = Bench::with_misbehaving(&[("start", start)]).await;
        let task = mischief();
        let scratch = bench.folder.path().join("scratch");
        let scratch = scratch.join(task.id.to_string());
        std::fs::create_dir_all(&scratch).unwrap();
        let status = std::process::Command::new("mkfifo")
            .arg(scratch.join(pipe))
            .status();
        assert!(status.unwrap().success());
        // What is to be read is none; what is in the way of a write is taken away.
        match bench.start(task).await {
            Ok(_) => assert_eq!(start, "odd-write"),
            Err(message) => {
                assert_eq!(start, "odd-file");
                assert!(message.contains("plain file"), "{message}");
            }
        }
        bench.check_that_others_work().await;
    }
}
