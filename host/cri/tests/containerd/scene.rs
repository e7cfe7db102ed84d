//! A host against the real runtime, with what tests ask of it again and again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use taskwright_capability::container::{
    Capabilities, ContainerRequest, ContainerState, ImageState, Network, PullPolicy, Sandbox,
    SandboxRequest,
};
use taskwright_capability::{
    ContainerError, ContainerHost, OutputSink, OutputStream, UnitEnd, UnitEvent, UnitReport,
};
use taskwright_cri::{CriConfig, CriHost};
use taskwright_model::{
    AttemptNumber, Confinement, ExitStatus, TaskId, TaskName, Timestamp, UnitKey, UnitName,
};
use tokio::sync::mpsc;

/// Everything a test waits for comes within this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What the environment offers; `None`, said aloud, where there is no runtime.
pub(crate) fn offered() -> Option<(PathBuf, String)> {
    let (Some(socket), Ok(image)) = (
        std::env::var_os("TASKWRIGHT_TEST_CRI_SOCKET"),
        std::env::var("TASKWRIGHT_TEST_CRI_IMAGE"),
    ) else {
        println!("skipped: TASKWRIGHT_TEST_CRI_SOCKET or TASKWRIGHT_TEST_CRI_IMAGE is not set");
        return None;
    };
    Some((socket.into(), image))
}

/// A variable that a test needs beside.
pub(crate) fn further(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        println!("skipped: {name} is not set");
    }
    value
}

/// Plain files, appended to.
pub(crate) struct Files;

impl Files {
    pub(crate) fn path(directory: &Path, stream: OutputStream) -> PathBuf {
        directory.join(match stream {
            OutputStream::Stdout => "stdout.log",
            OutputStream::Stderr => "stderr.log",
        })
    }
}

impl OutputSink for Files {
    fn length(&self, directory: &Path, stream: OutputStream) -> io::Result<u64> {
        match fs::metadata(Self::path(directory, stream)) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn append(&self, directory: &Path, stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let mut options = fs::File::options();
        let mut file = options
            .append(true)
            .create(true)
            .open(Self::path(directory, stream))?;
        file.write_all(bytes)
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::from_millis(i64::try_from(since.unwrap().as_millis()).unwrap())
}

/// An id that no other test has.
fn fresh_id() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    (since.unwrap().as_nanos() << 16) | u128::from(number)
}

/// One daemon's container host, its tasks, and what it reported.
pub(crate) struct Scene {
    pub(crate) data: tempfile::TempDir,
    pub(crate) config: CriConfig,
    pub(crate) host: Arc<CriHost>,
    pub(crate) image: String,
    reports: Mutex<mpsc::Receiver<UnitReport>>,
    ended: Mutex<BTreeMap<UnitKey, UnitEnd>>,
    sink: Arc<dyn OutputSink>,
}

impl Scene {
    /// `None` where there is no runtime to test against.
    pub(crate) fn new() -> Option<Self> {
        let (socket, image) = offered()?;
        let data = tempfile::tempdir().unwrap();
        let sink: Arc<dyn OutputSink> = Arc::new(Files);
        let instance = format!("test-{:x}", fresh_id());
        let config = CriConfig {
            socket,
            state_dir: data.path().join("cri"),
            cgroup_parent: Some(format!("/tw-{instance}")),
            instance,
            loopback_handler: std::env::var("TASKWRIGHT_TEST_CRI_LOOPBACK").ok(),
            output: sink.clone(),
            clock: now,
        };
        let (host, reports) = CriHost::new(config.clone());
        Some(Self {
            data,
            config,
            host,
            image,
            reports: Mutex::new(reports),
            ended: Mutex::default(),
            sink,
        })
    }

    /// The daemon dies and comes back; what it knew is gone.
    pub(crate) async fn restart_daemon(mut self) -> Self {
        drop(self.host);
        // A thread that was writing has the sink until it is done: a dead process has none.
        let configured = 2;
        let alone = || Arc::strong_count(&self.sink) <= configured;
        wait_until("the old host's threads end", || std::future::ready(alone())).await;
        let (host, reports) = CriHost::new(self.config.clone());
        self.host = host;
        self.reports = Mutex::new(reports);
        self.ended = Mutex::default();
        self
    }

    pub(crate) fn unit(&self) -> UnitKey {
        UnitKey {
            task: TaskId::from_u128(fresh_id()),
            attempt: AttemptNumber(1),
            unit: UnitName::parse("main").unwrap(),
        }
    }

    pub(crate) fn directory(&self, unit: &UnitKey) -> PathBuf {
        self.data.path().join("tasks").join(unit.task.to_string())
    }

    pub(crate) fn sandbox_request(&self, unit: &UnitKey) -> SandboxRequest {
        SandboxRequest {
            task: unit.task,
            attempt: unit.attempt,
            name: TaskName::parse("test").unwrap(),
            network: Network::Host,
            hostname: None,
            share_pids: false,
            privileged: false,
        }
    }

    pub(crate) fn request(&self, unit: &UnitKey, command: &[&str]) -> ContainerRequest {
        ContainerRequest {
            unit: unit.clone(),
            directory: self.directory(unit),
            image: self.image.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            confinement: Confinement::default(),
            username: None,
            read_only_root: false,
            capabilities: Capabilities::default(),
            privileged: false,
        }
    }

    pub(crate) async fn sandbox(&self, unit: &UnitKey) -> Result<Sandbox, ContainerError> {
        let image = self.host.image(
            self.image.clone(),
            PullPolicy::IfNotPresent,
            Duration::from_secs(1),
        );
        assert!(matches!(image.await, Ok(ImageState::Present { .. })));
        self.host.run_sandbox(self.sandbox_request(unit)).await
    }

    /// Starts a shell command in a sandbox of its own.
    pub(crate) async fn run(&self, script: &str) -> UnitKey {
        let unit = self.unit();
        self.run_as(&unit, script).await;
        unit
    }

    pub(crate) async fn run_as(&self, unit: &UnitKey, script: &str) -> ContainerState {
        let request = self.request(unit, &["sh", "-c", script]);
        self.run_request(request).await.unwrap()
    }

    pub(crate) async fn run_request(
        &self,
        request: ContainerRequest,
    ) -> Result<ContainerState, ContainerError> {
        let unit = request.unit.clone();
        self.sandbox(&unit).await.unwrap();
        self.host.create(request).await?;
        self.host.start(unit).await
    }

    /// The reported end of a unit.
    pub(crate) async fn end(&self, unit: &UnitKey) -> UnitEnd {
        let mut end = None;
        wait_until("the end is reported", || {
            while let Ok(report) = self.reports.lock().try_recv() {
                let UnitEvent::Ended(end) = report.event;
                self.ended.lock().insert(report.unit, end);
            }
            end = self.ended.lock().get(unit).copied();
            std::future::ready(end.is_some())
        })
        .await;
        end.unwrap()
    }

    pub(crate) async fn exit(&self, unit: &UnitKey) -> Option<u8> {
        match self.end(unit).await.status? {
            ExitStatus::Code(code) => Some(code),
            ExitStatus::Signal(signal) => panic!("a container has no signals: {signal}"),
        }
    }

    pub(crate) fn bytes(&self, unit: &UnitKey, stream: OutputStream) -> Vec<u8> {
        fs::read(Files::path(&self.directory(unit), stream)).unwrap_or_default()
    }

    /// The last bytes of standard output, of a file too long to read again and again.
    pub(crate) fn bytes_end(&self, unit: &UnitKey) -> Vec<u8> {
        use std::os::unix::fs::FileExt as _;
        let path = Files::path(&self.directory(unit), OutputStream::Stdout);
        let Ok(file) = fs::File::open(path) else {
            return Vec::new();
        };
        let length = file.metadata().unwrap().len();
        let mut last = vec![0; 16];
        let count = file.read_at(&mut last, length.saturating_sub(16)).unwrap();
        last.truncate(count);
        last
    }

    pub(crate) fn stdout(&self, unit: &UnitKey) -> String {
        String::from_utf8(self.bytes(unit, OutputStream::Stdout)).unwrap()
    }

    /// Removes everything of this test, and sees that it is gone.
    pub(crate) async fn clean(&self) {
        let mut last = Ok(());
        for _ in 0..5 {
            last = self.host.sweep(&|_, _| false).await;
            if last.is_ok() {
                break;
            }
        }
        last.unwrap();
        assert_eq!(self.host.list().await.unwrap(), Vec::new());
        let parent = self.config.cgroup_parent.as_ref().unwrap();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let group = hierarchy.unwrap().path().join(parent.trim_matches('/'));
            let left = fs::read_dir(&group).map(|entries| {
                let entries = entries.filter_map(Result::ok);
                let groups = entries.filter(|entry| entry.path().is_dir());
                groups.map(|entry| entry.file_name()).collect::<Vec<_>>()
            });
            assert_eq!(left.unwrap_or_default(), Vec::<std::ffi::OsString>::new());
            let _not_there = fs::remove_dir(&group);
        }
    }
}

/// Waits for a condition, with a deadline.
pub(crate) async fn wait_until<F>(what: &str, mut is_so: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a test where there is a runtime.
pub(crate) fn with_runtime<F: Future<Output = ()>>(test: impl FnOnce(Scene) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if let Some(scene) = Scene::new() {
            test(scene).await;
        }
    });
}
