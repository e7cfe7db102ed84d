//! An engine in a folder of its own, the double of the host, and tasks to give to it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taskwright_capability::fake::FakeProcessHost;
use taskwright_capability::{Capability, Grants};
use taskwright_control::port::{Stepped, Strategies, StrategyTask};
use taskwright_engine::record::Records;
use taskwright_engine::{
    CallLimits, CompileError, Compiler, Containers, Engine, EngineConfig, Host, LoadError,
    PluginSource, Runtimes, Script, compile_component,
};
use taskwright_model::{
    Attempt, AttemptNumber, EnvVar, Namespace, ProcessSpec, RetryPolicy, RuntimeName, Task, TaskId,
    TaskKey, TaskName, TaskSpec, TimeLimits, Timestamp, Work,
};
use taskwright_test_guests::{MISBEHAVE, PROCESS, SCRIPT};

/// The limits of most tests: a guest that never ends is to end soon.
pub(crate) fn tight() -> CallLimits {
    CallLimits {
        memory_bytes: 32 << 20,
        cpu: Duration::from_millis(200),
        deadline: Duration::from_secs(2),
    }
}

/// Runtimes over a double, in a folder that goes away with it.
pub(crate) struct Bench {
    pub(crate) runtimes: Arc<Runtimes>,
    pub(crate) processes: FakeProcessHost,
    pub(crate) compiler: CountingCompiler,
    pub(crate) folder: Arc<tempfile::TempDir>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(tight(), Arc::new(tempfile::tempdir().unwrap()))
    }

    pub(crate) fn with(limits: CallLimits, folder: Arc<tempfile::TempDir>) -> Self {
        Self::with_containers(limits, folder, None)
    }

    pub(crate) fn with_containers(
        limits: CallLimits,
        folder: Arc<tempfile::TempDir>,
        container: Option<Containers>,
    ) -> Self {
        let processes = FakeProcessHost::new();
        let compiler = CountingCompiler::default();
        let engine = Engine::new(EngineConfig {
            limits,
            most_calls: 8,
            cache_dir: Some(cache_of(folder.path())),
            cache_ours_only: false,
        })
        .unwrap();
        let scratch = folder.path().join("scratch");
        let host = Host {
            units: Arc::new(processes.clone()),
            process: Arc::new(processes.clone()),
            namespace: Arc::new(processes.clone()),
            container,
            base_env: vec![
                ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
                ("LANG".to_owned(), "C".to_owned()),
            ],
            task_directory: Box::new(|key: &TaskKey| Path::new("/tasks").join(key.name.as_str())),
            scratch_directory: Box::new(move |task: TaskId| scratch.join(task.to_string())),
        };
        let runtimes = Runtimes::new(engine, Arc::new(compiler.clone()), host);
        Self {
            runtimes: Arc::new(runtimes),
            processes,
            compiler,
            folder,
        }
    }

    /// One that records every call, below `records`.
    pub(crate) fn recording() -> Self {
        let mut bench = Self::new();
        let records = Records::in_directory(&bench.folder.path().join("records")).unwrap();
        let runtimes = Arc::into_inner(bench.runtimes).unwrap();
        bench.runtimes = Arc::new(runtimes.recording(records));
        bench
    }

    /// The shipped runtime, loaded.
    pub(crate) async fn with_process() -> Self {
        let bench = Self::new();
        bench.runtimes.load(process()).await.unwrap();
        bench
    }

    /// The shipped runtime and a guest that does as its settings say.
    pub(crate) async fn with_misbehaving(settings: &[(&str, &str)]) -> Self {
        let bench = Self::with_process().await;
        bench.runtimes.load(misbehaving(settings)).await.unwrap();
        bench
    }

    /// A call of the good plugin still works.
    pub(crate) async fn check_that_others_work(&self) {
        let stepped = self.runtimes.start(given(command(&["true"]))).await;
        assert!(stepped.unwrap().process.is_some());
    }

    pub(crate) async fn start(&self, task: Task) -> Result<Stepped, String> {
        let stepped = self.runtimes.start(given(task)).await;
        stepped.map_err(|error| error.to_string())
    }
}

pub(crate) fn cache_of(folder: &Path) -> PathBuf {
    folder.join("cache")
}

pub(crate) fn process() -> PluginSource {
    PluginSource {
        name: "process".to_owned(),
        origin: "built-in".to_owned(),
        component: PROCESS.into(),
        script: None,
        grants: Grants::of(&[Capability::Process]),
        limits: None,
        policy: None,
    }
}

/// This text as the runtime `wrap`.
pub(crate) fn script(text: &str) -> PluginSource {
    PluginSource {
        name: "wrap".to_owned(),
        origin: "wrap.rhai".to_owned(),
        component: SCRIPT.into(),
        script: Some(Script {
            file: "wrap.rhai".to_owned(),
            text: text.into(),
        }),
        grants: Grants::of(&[Capability::Process]),
        limits: None,
        policy: None,
    }
}

pub(crate) fn misbehaving(settings: &[(&str, &str)]) -> PluginSource {
    let mut grants = Grants::of(&Capability::ALL);
    grants.settings = settings
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    PluginSource {
        name: "misbehave".to_owned(),
        origin: "misbehave.wasm".to_owned(),
        component: MISBEHAVE.into(),
        script: None,
        grants,
        limits: None,
        policy: None,
    }
}

/// Everything that a load error says, cause by cause.
pub(crate) fn said(error: &LoadError) -> String {
    format!("{error}: {}", error.fault)
}

/// Work for the shipped runtime.
pub(crate) fn command(argv: &[&str]) -> Task {
    command_for("process", argv)
}

/// A command for a runtime of this name.
pub(crate) fn command_for(runtime: &str, argv: &[&str]) -> Task {
    task(
        runtime,
        Work::Process(ProcessSpec {
            command: argv.iter().map(|&word| word.to_owned()).collect(),
            args: Vec::new(),
            env: vec![EnvVar {
                name: "COLOUR".to_owned(),
                value: "blue".to_owned(),
            }],
            working_dir: None,
        }),
    )
}

/// Work for the guest that misbehaves.
pub(crate) fn mischief() -> Task {
    task(
        "misbehave",
        Work::Document {
            kind: "misbehave".to_owned(),
            json: "{}".to_owned(),
        },
    )
}

/// The same for that guest under another name.
pub(crate) fn mischief_on(runtime: &str) -> Task {
    let mut task = mischief();
    task.runtime = RuntimeName::parse(runtime).unwrap();
    task
}

fn task(runtime: &str, work: Work) -> Task {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) as u128;
    let at = Timestamp::from_millis(1_700_000_000_000);
    let spec = TaskSpec {
        work,
        runtime: None,
        labels: BTreeMap::from([("team".to_owned(), "research".to_owned())]),
        priority: 0,
        limits: TimeLimits {
            run: Some(Duration::from_secs(60)),
            ..TimeLimits::default()
        },
        retry: RetryPolicy::default(),
        confinement: taskwright_model::Confinement::default(),
        config: String::new(),
    };
    let key = TaskKey {
        namespace: Namespace::native(),
        name: TaskName::parse("build").unwrap(),
    };
    let mut task = Task::new(
        TaskId::from_u128(number),
        key,
        Arc::new(spec),
        RuntimeName::parse(runtime).unwrap(),
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
        remarks: taskwright_model::Remarks::default(),
    });
    task
}

/// The task, at its first attempt.
pub(crate) fn given(task: Task) -> StrategyTask {
    StrategyTask {
        task: Arc::new(task),
        attempt: AttemptNumber(1),
    }
}

/// The compiler of tests, which counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct CountingCompiler(Arc<AtomicUsize>);

impl CountingCompiler {
    pub(crate) fn runs(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was compiled in this run. Most tests use the same two components and none is about
/// how they are compiled.
static COMPILED: LazyLock<Mutex<Compiled>> = LazyLock::new(Mutex::default);

/// Code by component.
type Compiled = HashMap<Arc<[u8]>, Vec<u8>>;

impl Compiler for CountingCompiler {
    fn compile(&self, component: Arc<[u8]>) -> BoxFuture<'_, Result<Vec<u8>, CompileError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let compile = move || {
                let mut compiled = COMPILED.lock();
                if let Some(code) = compiled.get(&component) {
                    return Ok(code.clone());
                }
                let code = compile_component(&component)?;
                compiled.insert(component, code.clone());
                Ok(code)
            };
            tokio::task::spawn_blocking(compile).await.unwrap()
        })
    }
}
