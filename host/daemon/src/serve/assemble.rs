//! The parts list: what a daemon is built of, in the order in which it is built.
//!
//! What can be done at the same time is: a restart is a pause for everybody who waits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use taskwright_api::{
    ApiLimits, ApiState, AuthConfig, Drained, LeftTasks, Listener, NothingLeft, Room, ServeLimits,
    TaskDocuments, Token, VersionInfo,
};
use taskwright_capability::{Capability, ContainerHost, Grants};
use taskwright_control::observe::{Observing, observe};
use taskwright_control::port::{BUILT_IN, Clock as _, Recovered, Strategies};
use taskwright_control::{Control, Parts, Running};
use taskwright_cri::CriHost;
use taskwright_engine::record::Records;
use taskwright_engine::{Containers, Engine, EngineConfig, Host, PluginSource, Runtimes};
use taskwright_model::{Namespace, RuntimeName};
use taskwright_queue::Queue;
use taskwright_store::queue::{open_postgres, open_sqlite};
use taskwright_store::{Options, SqliteFeedHistory, SqliteJournal, Store};
use taskwright_supervisor::{OutputReader, SupervisorClient, SupervisorConfig};
use taskwright_worker::direct::Direct;
use taskwright_worker::{Pool, Runs};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::boot::Boot;
use super::callbacks::Callbacks;
use super::clock::RealClock;
use super::compile::ChildCompiler;
use super::containers::{self, Remembered};
use super::cursors::CursorFiles;
use super::data_dir::DataDir;
use super::default_runtime::CommandsTo;
use super::execs::ContainerExecs;
use super::left::LeftOver;
use super::listen::{Bound, SocketFile};
use super::outputs::TaskOutputs;
use super::places::Places;
use super::tessia::{self, Homes};
use super::units::{TaskUnits, blocking, report};
use super::workers;
use crate::builtin::{self, Builtin};
use crate::failure::Advise as _;
use crate::folder::{Folders, Replaced};
use crate::settings::Config;
use crate::settings::queue::QueueSettings;
use crate::{task_env, versions};

/// The bytes of large bodies and answers in memory at a time: those of so many largest bodies,
/// and no less than so many bytes.
const BODIES_IN_ROOM: usize = 16;
const LEAST_ROOM: usize = 128 << 20;

/// What is around a daemon, and not its configuration.
pub(crate) struct Surroundings {
    /// Renders every metric of this process.
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Where compiled plugins are kept, if not in the data directory.
    pub(crate) cache: Option<PathBuf>,
    /// Whether the store is for more than a moment.
    pub(crate) lasting: bool,
    /// Cancelled when the daemon is to stop.
    pub(crate) shutdown: CancellationToken,
}

/// A daemon that is ready to serve.
pub(crate) struct Daemon {
    data_dir: DataDir,
    running: Running,
    supervisor: Arc<SupervisorClient>,
    api: ApiState,
    listeners: Vec<Listener>,
    limits: ServeLimits,
    shutdown: CancellationToken,
    /// What runs beside it and ends with it.
    helpers: JoinSet<()>,
    _socket: Option<SocketFile>,
}

impl Daemon {
    /// Builds a daemon. Nothing is answered before it serves.
    ///
    /// # Errors
    /// Which part could not be had, and what to do.
    pub(crate) async fn assemble(
        config: &Config,
        bound: Bound,
        surroundings: Surroundings,
    ) -> anyhow::Result<Self> {
        let open_files = raise_open_files();
        let data_dir = DataDir::prepare(&config.data_dir)?;
        let places = Places::of(&data_dir);
        let boot = Boot::detect(data_dir.boot_id());

        // The store first: its lock says that this directory is ours, supervisor and all.
        let cache = surroundings.cache.unwrap_or_else(|| data_dir.cache());
        let options = Options {
            reserve_log: surroundings.lasting,
            ..Options::at(RealClock.now())
        };
        let (store, queue, engine) = tokio::join!(
            open_store(&data_dir, options),
            open_queue(&config.queue, &data_dir),
            start_engine(cache)
        );
        let (journal, history, recovered) = store?;
        let queue = queue?;
        let engine = engine?;

        let (supervisor, reports) = start_supervisor(config, &data_dir, open_files.before).await?;
        let reader =
            Arc::new(OutputReader::open(data_dir.root()).context("open the data directory")?);
        let container = match &config.container {
            Some(wanted) => Some(containers::connect(wanted, config.output_cap, &data_dir)?),
            None => None,
        };
        let (cri, container_reports) = container.unzip();
        let units = Arc::new(TaskUnits::new(
            supervisor.clone(),
            cri.clone().map(|host| host as Arc<dyn ContainerHost>),
            reader.clone(),
            places.clone(),
        ));
        let hosts = Hosts {
            supervisor: supervisor.clone(),
            containers: cri.clone(),
            units: units.clone(),
            work: data_dir.work(),
        };
        let (runtimes, built_in) = load_plugins(engine, config, &hosts, &places).await?;
        let mut folders = Folders::new(&config.plugins, runtimes.clone(), built_in)?;
        // Attempts that are found running may be theirs.
        folders.load_all().await?;
        let live = containers::live(&recovered.tasks, &units);

        let kept_places = places.clone();
        let parts = Parts {
            journal,
            history: Arc::new(history),
            strategies: strategies(config, runtimes.clone())?,
            units: units.clone(),
            policies: runtimes.clone(),
            documents: Arc::new(TaskDocuments),
            plugins: runtimes.clone(),
            outputs: Arc::new(TaskOutputs::new(reader, places)),
            execs: Arc::new(ContainerExecs {
                host: cri.clone().map(|host| host as Arc<dyn ContainerHost>),
                units: units.clone(),
            }),
            clock: Arc::new(RealClock),
        };
        let mut running = taskwright_control::start(parts, recovered, loop_config(config, &boot))
            .await
            .map_err(|message| anyhow!(message).context("start the control loop"))?;

        let mut helpers = JoinSet::new();
        if let Some(recovered) = running.recovered() {
            helpers.spawn(async move {
                // Whoever is interrupted before must find the same again.
                if recovered.await.is_ok()
                    && let Err(error) = boot.remember()
                {
                    tracing::error!(?error, "this boot could not be put on record");
                }
            });
        }
        let control = running.control.clone();
        let shutdown = surroundings.shutdown.clone();
        helpers.spawn(async move {
            control.ended().await;
            if !shutdown.is_cancelled() {
                tracing::error!("the control loop ended by itself; the daemon goes down");
                shutdown.cancel();
            }
        });
        for mut reports in [Some(reports), container_reports].into_iter().flatten() {
            let control = running.control.clone();
            helpers.spawn(async move {
                while let Some(ended) = reports.recv().await {
                    control.report(report(ended));
                }
            });
        }
        helpers.spawn(queue.clone().watch_time(surroundings.shutdown.clone()));
        let queue_api = config.queue_api.queue_api();
        let streams = queue_api.live.clone();
        helpers.spawn(streams.follow(queue.clone(), surroundings.shutdown.clone()));
        let callbacks = Callbacks {
            queue: queue.clone(),
            policy: config.queue_api.callbacks.clone(),
            secret: config.queue_api.callback_secret.clone(),
        };
        helpers.spawn(callbacks.deliver(surroundings.shutdown.clone()));
        helpers.spawn(folders.follow(surroundings.shutdown.clone()));
        helpers.spawn(observe(Observing {
            control: running.control.clone(),
            observers: runtimes,
            cursors: Arc::new(CursorFiles::at(data_dir.observers())),
            documents: Arc::new(TaskDocuments),
        }));
        helpers.spawn(tessia::keep(
            running.control.clone(),
            Homes::new(kept_places, config.tessia_work_root.clone()),
            config.output_cap,
        ));
        if let Some(host) = cri {
            helpers.spawn(containers::sweep(host, units, live));
        }
        let work = &config.queue.workers;
        let (setup, names) = workers::setup(
            work,
            config.queue.config.heartbeat_timeout,
            Arc::new(Direct::new(queue.clone())),
            workers::runs(running.control.clone(), &data_dir, config.max_body),
            &data_dir,
        );
        let pool = Pool::new(&setup, work.count, work.start);
        helpers.spawn(pool.clone().keep(setup, names));
        let api = ApiState {
            control: running.control.clone(),
            queue,
            workers: Arc::new(pool),
            queue_api: Arc::new(queue_api),
            auth: AuthConfig::with_tokens(tokens(config)?),
            version: version_info(),
            metrics: surroundings.metrics,
            namespace: Namespace::native(),
            left: left_tasks(config.tessia_work_root.clone(), &data_dir).await?,
            limits: ApiLimits {
                body_bytes: config.max_body,
                ..ApiLimits::default()
            },
            room: Room::new(
                config
                    .max_body
                    .saturating_mul(BODIES_IN_ROOM)
                    .max(LEAST_ROOM),
            ),
            shutdown: surroundings.shutdown.clone(),
        };
        Ok(Self {
            data_dir,
            running,
            supervisor,
            api,
            listeners: bound.listeners,
            limits: ServeLimits {
                connections: open_files.connections(),
                reader_patience: config.queue_api.reader_patience,
                drain_time: config.drain_timeout,
                ..ServeLimits::default()
            },
            shutdown: surroundings.shutdown,
            helpers,
            _socket: bound.socket,
        })
    }

    /// Runs `helper` for as long as the daemon serves.
    pub(crate) fn keep(&mut self, helper: impl Future<Output = ()> + Send + 'static) {
        self.helpers.spawn(helper);
    }

    /// The loop's front.
    pub(crate) fn control(&self) -> &Control {
        &self.running.control
    }

    /// The client of the supervisor.
    pub(crate) fn supervisor(&self) -> Arc<SupervisorClient> {
        self.supervisor.clone()
    }

    /// Where its records are.
    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.root()
    }

    /// What this machine runs for workers.
    pub(crate) fn runs(&self, largest_result: usize) -> Runs {
        workers::runs(self.control().clone(), &self.data_dir, largest_result)
    }

    /// The ids of this machine's workers.
    pub(crate) fn worker_ids(&self) -> PathBuf {
        self.data_dir.worker_ids()
    }

    /// How many tasks are on record.
    pub(crate) fn task_count(&self) -> usize {
        self.control().counts().iter().map(|(_, count)| count).sum()
    }

    /// Serves until the shutdown token is cancelled, then ends the loop. Tasks go on running.
    pub(crate) async fn serve(mut self) {
        let router = taskwright_api::router(self.api);
        let Drained { cut } =
            taskwright_api::serve(self.listeners, router, self.limits, self.shutdown).await;
        if cut > 0 {
            tracing::warn!(requests = cut, "cut requests that did not end in time");
        }
        self.running.stop().await;
        self.helpers.shutdown().await;
    }
}

async fn open_store(
    data_dir: &DataDir,
    options: Options,
) -> anyhow::Result<(SqliteJournal, SqliteFeedHistory, Recovered)> {
    let directory = data_dir.own();
    let opening = move || Store::open(&directory, options);
    // Damage is told by the store itself; it goes on with what could be read.
    Ok(tokio::task::spawn_blocking(opening).await??)
}

async fn open_queue(settings: &QueueSettings, data_dir: &DataDir) -> anyhow::Result<Queue> {
    let limits = settings.limits.clone();
    let store = match &settings.store {
        Some(address) => open_postgres(address, limits).await?,
        None => open_sqlite(data_dir.queue(), limits).await?,
    };
    Ok(Queue::new(store, settings.config.clone()))
}

async fn start_engine(cache: PathBuf) -> anyhow::Result<Engine> {
    let config = EngineConfig {
        cache_dir: Some(cache),
        ..EngineConfig::default()
    };
    let engine = tokio::task::spawn_blocking(move || Engine::new(config)).await?;
    engine.context("start the plugin engine")
}

async fn start_supervisor(
    config: &Config,
    data_dir: &DataDir,
    open_files: Option<u64>,
) -> anyhow::Result<(
    Arc<SupervisorClient>,
    tokio::sync::mpsc::Receiver<taskwright_capability::UnitReport>,
)> {
    let program = std::env::current_exe().context("find this program's own file")?;
    let mut supervisor = SupervisorConfig::new(data_dir.supervisor(), program);
    supervisor.options.output_cap = config.output_cap;
    // Tasks get the limit that the daemon was started with, not the one it needs for itself.
    supervisor.options.open_files = open_files;
    SupervisorClient::connect_or_start(supervisor)
        .await
        .context("start the supervisor")
}

/// Tasks that another runner left under the work root.
async fn left_tasks(
    work_root: Option<PathBuf>,
    data_dir: &DataDir,
) -> anyhow::Result<Arc<dyn LeftTasks>> {
    let forgotten = data_dir.forgotten();
    Ok(match work_root {
        Some(root) => Arc::new(
            blocking(move || LeftOver::find(&root, forgotten))
                .await
                .map_err(anyhow::Error::msg)?,
        ),
        None => Arc::new(NothingLeft),
    })
}

/// Who carries out what plugins ask for.
struct Hosts {
    supervisor: Arc<SupervisorClient>,
    containers: Option<Arc<CriHost>>,
    units: Arc<TaskUnits>,
    /// Where tasks of the queue that run here have their folders.
    work: PathBuf,
}

async fn load_plugins(
    engine: Engine,
    config: &Config,
    hosts: &Hosts,
    places: &Places,
) -> anyhow::Result<(Arc<Runtimes>, Replaced)> {
    let (tasks, scratch) = (places.clone(), places.clone());
    let container = hosts.containers.clone().zip(config.container.as_ref());
    let host = Host {
        units: hosts.units.clone(),
        process: hosts.units.clone(),
        namespace: hosts.supervisor.clone(),
        container: container.map(|(host, allowed)| Containers {
            host: Arc::new(Remembered {
                host,
                units: hosts.units.clone(),
            }),
            host_paths: allowed.host_paths.clone(),
            host_folders: Some(hosts.work.clone()),
            host_network: allowed.host_network,
            loopback: allowed.loopback_handler.is_some(),
            privileged: allowed.privileged,
        }),
        base_env: task_env::base(std::env::vars_os(), &config.task_env),
        task_directory: Box::new(move |key| tasks.task(key)),
        scratch_directory: Box::new(move |task| scratch.scratch(task)),
    };
    let mut runtimes = Runtimes::new(engine, Arc::new(ChildCompiler), host);
    if let Some(directory) = &config.record_plugins {
        let records = Records::in_directory(directory)
            .with_context(|| format!("record plugin calls in {}", directory.display()))
            .hint("name another directory by --record-plugins, or leave it out")?;
        tracing::warn!(
            directory = %directory.display(),
            "every plugin call is recorded, with all that plugins see"
        );
        runtimes = runtimes.recording(records);
    }
    let mut built_in = Replaced::new();
    for plugin in builtin::ALL {
        // Without container mode its tasks are refused where no runtime takes them.
        if plugin.grants.contains(&Capability::Container) && config.container.is_none() {
            continue;
        }
        let source = PluginSource {
            name: plugin.name.to_owned(),
            origin: BUILT_IN.to_owned(),
            component: plugin.component.into(),
            script: None,
            grants: grants(plugin, config),
            limits: None,
            policy: None,
        };
        built_in.insert(source.name.clone(), source.clone());
        runtimes
            .load(source)
            .await
            .context("load the built-in plugins")?;
    }
    Ok((Arc::new(runtimes), built_in))
}

/// What a built-in plugin is lent and told.
fn grants(plugin: Builtin, config: &Config) -> Grants {
    let mut grants = Grants::of(plugin.grants);
    let mut tell = |key: &str, value: String| {
        grants.settings.insert(key.to_owned(), value);
    };
    match plugin.name {
        "sidecar" => {
            let sidecar = &config.sidecar_runtime;
            tell("main-container-name", sidecar.main_container.clone());
            tell("identity", sidecar.identity.clone());
            tell("cgroup", sidecar.cgroup.clone());
            tell(
                "target-wait-seconds",
                sidecar.wait.as_secs_f64().to_string(),
            );
            for namespace in &sidecar.namespaces {
                grants.capabilities.insert(match namespace.as_str() {
                    "user" => Capability::UserNamespace,
                    _ => Capability::CgroupNamespace,
                });
            }
        }
        "container" => {
            if let Some(container) = &config.container {
                tell("runtime-wait", container.wait.as_secs().to_string());
            }
        }
        _ => {}
    }
    grants
}

/// With sidecar mode a command belongs into the main container, unless it names a runtime.
fn strategies(config: &Config, runtimes: Arc<Runtimes>) -> anyhow::Result<Arc<dyn Strategies>> {
    if !config.sidecar {
        return Ok(runtimes);
    }
    let sidecar = RuntimeName::parse("sidecar").context("name the sidecar runtime")?;
    Ok(Arc::new(CommandsTo::new(sidecar, runtimes)))
}

fn loop_config(config: &Config, boot: &Boot) -> taskwright_control::Config {
    if boot.rebooted && boot.known {
        tracing::info!("the machine was restarted: what ran before does not run any more");
    }
    taskwright_control::Config {
        max_active: config.max_running,
        max_tasks: config.max_tasks,
        rebooted: boot.rebooted,
        ..taskwright_control::Config::default()
    }
}

fn tokens(config: &Config) -> anyhow::Result<Vec<Token>> {
    let tokens = config.tokens.iter().map(|token| {
        Token::new(&token.name, &hex::encode(token.sha256), token.scope)
            .with_context(|| format!("use the token {}", token.name))
    });
    tokens.collect()
}

fn version_info() -> VersionInfo {
    VersionInfo {
        version: versions::PRODUCT.to_owned(),
        commit: None,
        plugin_api: vec![versions::plugin_api().to_owned()],
    }
}

/// How many files this process may have open.
struct OpenFiles {
    /// The limit it was started with, where there was one.
    before: Option<u64>,
    now: Option<u64>,
}

impl OpenFiles {
    /// Connections that leave room for everything else.
    fn connections(&self) -> usize {
        let most = self.now.unwrap_or(u64::MAX) / 2;
        usize::try_from(most)
            .unwrap_or(usize::MAX)
            .clamp(64, 16_384)
    }
}

/// Raises the soft limit to the hard one: each client is an open file.
fn raise_open_files() -> OpenFiles {
    let found = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: found.maximum,
        maximum: found.maximum,
    };
    let raised = setrlimit(Resource::Nofile, wanted).is_ok();
    OpenFiles {
        before: found.current,
        now: if raised { found.maximum } else { found.current },
    }
}
