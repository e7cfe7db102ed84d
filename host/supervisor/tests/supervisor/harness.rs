//! A data directory of its own with a supervisor of its own, ended with the test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use taskwright_capability::{
    Lifetime, ProcessHost as _, SpawnError, SpawnRequest, Spawned, UnitEnd, UnitEvent, UnitReport,
};
use taskwright_model::{
    AttemptNumber, Confinement, ExitStatus, TaskId, TaskName, UnitKey, UnitName,
};
use taskwright_native::process;
use taskwright_supervisor::{SupervisorClient, SupervisorConfig, TreeLevel};
use tokio::sync::mpsc::Receiver;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const KILL: i32 = 9;

pub(crate) struct Host {
    pub(crate) data: tempfile::TempDir,
    pub(crate) config: SupervisorConfig,
    pub(crate) client: Arc<SupervisorClient>,
    pub(crate) reports: Receiver<UnitReport>,
    /// Ends that arrived before anybody asked.
    pub(crate) ends: HashMap<UnitKey, UnitEnd>,
    tasks: Vec<TaskId>,
}

impl Host {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn at_level(level: TreeLevel) -> Self {
        Self::start_with(|config| config.options.tree_level = Some(level)).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut SupervisorConfig)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let state_dir = data.path().join(".taskwright/supervisor");
        let mut config = SupervisorConfig::new(state_dir, program());
        change(&mut config);
        let (client, reports) = SupervisorClient::connect_or_start(config.clone())
            .await
            .unwrap();
        Self {
            data,
            config,
            client,
            reports,
            ends: HashMap::new(),
            tasks: Vec::new(),
        }
    }

    /// Another daemon in place of this one.
    pub(crate) async fn reconnect(&mut self) {
        let (client, reports) = SupervisorClient::connect_or_start(self.config.clone())
            .await
            .unwrap();
        (self.client, self.reports) = (client, reports);
        self.ends.clear();
    }

    pub(crate) fn request(&mut self, argv: &[&str]) -> SpawnRequest {
        // The scan level knows trees by their unit, machine-wide: no two tests share one.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let task = TaskId::from_u128(u128::from(number) << 64 | u128::from(std::process::id()));
        self.tasks.push(task);
        let name = format!("task-{number}");
        SpawnRequest {
            unit: UnitKey {
                task,
                attempt: AttemptNumber(1),
                unit: UnitName::parse("main").unwrap(),
            },
            directory: self.data.path().join(&name),
            name: TaskName::parse(&name).unwrap(),
            argv: argv.iter().map(|&text| text.to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            working_dir: None,
            lifetime: Lifetime::LeaveDescendants,
            inside: None,
            confinement: Confinement::default(),
        }
    }

    /// Notes the end that an answer tells of: no report of it follows.
    pub(crate) fn answered(&mut self, unit: &UnitKey, spawned: Spawned) -> Spawned {
        if let Some(end) = spawned.exit {
            self.ends.insert(unit.clone(), end);
        }
        spawned
    }

    pub(crate) async fn try_run(
        &mut self,
        argv: &[&str],
    ) -> (SpawnRequest, Result<Spawned, SpawnError>) {
        let request = self.request(argv);
        let spawned = self.client.spawn(request.clone()).await;
        (request, spawned)
    }

    pub(crate) async fn run(&mut self, argv: &[&str]) -> Running {
        let (request, spawned) = self.try_run(argv).await;
        let spawned = self.answered(&request.unit, spawned.unwrap());
        Running { request, spawned }
    }

    pub(crate) async fn shell(&mut self, script: &str) -> Running {
        self.run(&["sh", "-c", script]).await
    }

    /// Waits until this unit's end is reported.
    pub(crate) async fn end_of(&mut self, unit: &UnitKey) -> UnitEnd {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.ends.get(unit) {
                return *end;
            }
            let report = tokio::time::timeout_at(deadline, self.reports.recv())
                .await
                .unwrap_or_else(|_| panic!("no report of {unit} in time"))
                .unwrap();
            let UnitEvent::Ended(end) = report.event;
            self.ends.insert(report.unit, end);
        }
    }

    pub(crate) async fn status_of(&mut self, running: &Running) -> Option<ExitStatus> {
        self.end_of(&running.request.unit).await.status
    }

    pub(crate) async fn pids(&self) -> (i32, i32) {
        let status = self.client.status().await.unwrap();
        (
            status.guardian_pid.cast_signed(),
            status.supervisor_pid.cast_signed(),
        )
    }

    /// The name of its cgroups.
    pub(crate) fn nickname(&self) -> String {
        use std::os::unix::ffi::OsStrExt as _;
        let path = &self.config.options.state_dir;
        let hash = crc32fast::hash(path.as_os_str().as_bytes());
        format!("taskwright-{hash:08x}")
    }

    /// Purges everything and ends the supervisor, so that nothing is left of the test.
    pub(crate) async fn finish(self) {
        for task in self.tasks {
            self.client.purge(task).await.unwrap();
        }
        assert!(self.client.shutdown_if_idle().await.unwrap());
    }
}

pub(crate) struct Running {
    pub(crate) request: SpawnRequest,
    pub(crate) spawned: Spawned,
}

impl Running {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.request.directory.join(name)
    }

    /// Waits for a process id that the task writes to a file of its directory.
    pub(crate) fn pid_in(&self, name: &str) -> (i32, u64) {
        let path = self.file(name);
        let pid = eventually("a process id is written", || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.strip_suffix('\n')?.trim().parse::<i32>().ok()
        });
        (pid, process::stat(pid).unwrap().start_ticks)
    }
}

/// The program with the hidden verb, beside this test program.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.parent().and_then(Path::parent).unwrap();
    target.join("examples/supervise")
}

/// Makes a program, by another process: were it open for writing in this one, whatever another
/// test forks just then would keep it from being executed for a moment.
pub(crate) fn make_program(path: &Path, text: &str) {
    let script = "printf %s \"$1\" > \"$0\" && chmod 700 \"$0\"";
    let mut shell = std::process::Command::new("sh");
    let status = shell.args(["-c", script]).arg(path).arg(text).status();
    assert!(status.unwrap().success());
}

/// A copy of a program, made as in [`make_program`].
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg(from).arg(to).status().unwrap().success());
}

pub(crate) fn eventually<T>(claim: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {claim}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A zombie is dead.
pub(crate) fn lives((pid, ticks): (i32, u64)) -> bool {
    process::stat(pid).is_ok_and(|stat| stat.start_ticks == ticks && !stat.is_zombie())
}

pub(crate) fn wait_until_dead(process: (i32, u64)) {
    eventually("the process is dead", || (!lives(process)).then_some(()));
}

/// `kill -9` of a process of ours, by pid.
pub(crate) fn kill(pid: i32) {
    let ticks = process::stat(pid).unwrap().start_ticks;
    let pidfd = process::open_if_same(pid, ticks).unwrap();
    process::signal(&pidfd, KILL).unwrap();
    wait_until_dead((pid, ticks));
}
