//! `taskwright worker`: takes tasks from a queue elsewhere and runs them on this machine.
//!
//! Everything that a daemon has, for a socket of its own, and a worker over it that speaks to the
//! queue by HTTP alone. Killed in the middle, it leaves what runs to the supervisor, and goes on
//! with it when it is started again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use taskwright_queue::worker::Problems;
use taskwright_queue::{Capabilities, WorkerId};
use taskwright_worker::names::Names;
use taskwright_worker::worker::{Ended, Habits, Orders};
use taskwright_worker::{QueueError, Runs, Standing, Template, Templates, WorkQueue, Worker};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::queue::RemoteQueue;
use crate::client::{Client, Server};
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::output;
use crate::serve::assemble::{Daemon, Surroundings};
use crate::serve::{listen, telemetry, workers};
use crate::settings::{self, Config, Sources, flags::Flags, templates};
use crate::units::parse_duration;

#[derive(Debug, Args)]
#[command(
    after_help = "What it runs is the command after two dashes, for the problems of --problem, or what the\n\
        [[queue.templates]] of a configuration file say. The task's parameters are in the file\n\
        $TASKWRIGHT_PARAMETERS and in variables TASKWRIGHT_PARAM_NAME; its result is what the command\n\
        writes to $TASKWRIGHT_RESULT, or its exit code.\n\n\
        TERM or Ctrl-C: no further task, and the end when what it holds has ended. A second one: at once;\n\
        what runs goes on, and with it the next worker of the same --data-dir."
)]
pub(crate) struct WorkerArgs {
    /// The queue: http://HOST:PORT, as of `taskwright serve`
    #[arg(long, value_name = "URL", env = crate::env::API_URL)]
    api_url: Server,
    /// Its id; without one, an id that no other worker has
    #[arg(long, value_name = "worker-NNN-kind")]
    id: Option<String>,
    /// Its kind: tasks that name another are not given to it
    #[arg(long, value_name = "KIND", default_value = "default")]
    backend_type: String,
    /// How many tasks it runs at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(Capabilities::MOST_PARALLEL)))]
    parallel: u32,
    /// Problems that the command is for: a glob, or a text that occurs in the id; may be repeated
    #[arg(long, value_name = "PATTERN")]
    problem: Vec<String>,
    /// The runtime that takes the command
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// How often it says that it is alive
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    heartbeat_interval: Duration,
    /// Where its records and the output of what it runs are, from one start to the next
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A configuration file, for templates and what runtimes are told
    #[arg(long, value_name = "FILE", env = crate::env::CONFIG)]
    config: Option<PathBuf>,
    /// A file with the token to show to the queue
    #[arg(long, value_name = "FILE", env = crate::env::TOKEN_FILE)]
    token_file: Option<PathBuf>,
    /// The command that solves a task
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<String>,
}

pub(crate) fn carry_out(args: &WorkerArgs) -> anyhow::Result<Code> {
    // What can be wrong with the words is told before anything is started.
    let id = args.id.as_deref().map(WorkerId::parse_free).transpose();
    let id = id.map_err(anyhow::Error::msg).exit_with(Code::USAGE)?;
    let mut config = configuration(args)?;
    let templates = what_to_run(args, &config)?;
    config.data_dir = match &args.data_dir {
        Some(directory) => directory.clone(),
        None => default_directory(id.as_ref())?,
    };
    let client = Client::new(args.api_url.clone(), token(args)?.as_deref())?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(work(args, config, templates, client, id))
}

/// The operator's configuration, but for what belongs to a daemon with a queue.
fn configuration(args: &WorkerArgs) -> anyhow::Result<Config> {
    let settings = settings::resolve(&Sources {
        flags: &Flags::default(),
        config_flag: args.config.as_deref(),
        variable: &settings::process_variable,
    });
    let mut config = Config::from_settings(&settings)?;
    config.listen_addr = None;
    config.queue.store = None;
    config.queue.workers.start = false;
    Ok(config)
}

fn what_to_run(args: &WorkerArgs, config: &Config) -> anyhow::Result<Templates> {
    if args.command.is_empty() {
        let templates = config.queue.workers.templates.clone();
        if templates.is_empty() {
            return Err(anyhow!("nothing says what this worker runs"))
                .exit_with(Code::USAGE)
                .hint("write a command after two dashes, or [[queue.templates]] into a file for --config");
        }
        return Ok(templates);
    }
    Problems::parse(&args.problem)
        .map_err(anyhow::Error::msg)
        .exit_with(Code::USAGE)?;
    let mut task = serde_json::json!({"spec": {"process": {"command": args.command}}});
    if let (Some(runtime), Some(task)) = (&args.runtime, task.as_object_mut()) {
        task.insert("runtime".to_owned(), runtime.as_str().into());
    }
    let template = Template::new(args.problem.clone(), task, None).map_err(anyhow::Error::msg)?;
    templates::check(&template)
        .map_err(|problems| anyhow!(problems.join("\n")))
        .exit_with(Code::USAGE)?;
    Ok(Templates::new(vec![template]))
}

fn token(args: &WorkerArgs) -> anyhow::Result<Option<String>> {
    let Some(path) = &args.token_file else {
        return Ok(settings::process_variable(crate::env::TOKEN));
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the token file {}", path.display()))
        .hint("name a readable file that holds the token alone")?;
    Ok(Some(text.trim().to_owned()))
}

fn default_directory(id: Option<&WorkerId>) -> anyhow::Result<PathBuf> {
    let name = id.map_or("worker", WorkerId::as_str);
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/taskwright-worker").join(name));
    }
    let of = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let base = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")));
    let base = base
        .context("find a place for the worker's records")
        .hint("name a directory by --data-dir")?;
    Ok(base.join("taskwright").join(name))
}

async fn work(
    args: &WorkerArgs,
    config: Config,
    templates: Templates,
    client: Client,
    id: Option<WorkerId>,
) -> anyhow::Result<Code> {
    telemetry::start(&config.log_level, config.log_format)?;
    let drain = CancellationToken::new();
    let signals = tokio::spawn(obey(drain.clone())?);
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("make the directory {}", config.data_dir.display()))
        .hint("name another one by --data-dir")?;
    let socket = config.data_dir.join(".api.sock");
    let bound = listen::bind(None, Some(&socket)).await?;
    let shutdown = CancellationToken::new();
    let surroundings = Surroundings {
        metrics: Arc::new(String::new),
        cache: None,
        lasting: true,
        shutdown: shutdown.clone(),
    };
    let daemon = Daemon::assemble(&config, bound, surroundings)
        .await
        .hint("each worker of a machine has a --data-dir of its own")?;
    let supervisor = daemon.supervisor();
    let runs = daemon.runs(config.max_body);
    let names = Names::read(daemon.worker_ids());
    let serving = tokio::spawn(daemon.serve());
    let queue: Arc<dyn WorkQueue> = Arc::new(RemoteQueue::new(client));
    let ended = tokio::select! {
        ended = under_an_id(args, id, names, queue, runs, Arc::new(templates), &drain) => ended,
        // A second signal: what runs goes on.
        _ = signals => Ok(()),
    };
    shutdown.cancel();
    serving.await.context("end the worker's daemon")?;
    if let Ok(false) = supervisor.shutdown_if_idle().await {
        output::note(
            "taskwright: what runs goes on; the next worker of this --data-dir follows it",
        );
    }
    ended.map(|()| Code::DONE)
}

/// Works until told to end, under the id that was given, or one after the other.
async fn under_an_id(
    args: &WorkerArgs,
    id: Option<WorkerId>,
    mut names: Names,
    queue: Arc<dyn WorkQueue>,
    runs: Runs,
    templates: Arc<Templates>,
    drain: &CancellationToken,
) -> anyhow::Result<()> {
    let nobody = WorkerId::numbered(0);
    let who = workers::introduction(nobody, &args.backend_type, args.parallel, &templates);
    loop {
        let (name, registered) = match &id {
            Some(id) => (id.clone(), None),
            None => tokio::select! {
                name = some_id(&mut names, &*queue, &who) => name?,
                () = drain.cancelled() => return Ok(()),
            },
        };
        output::note(&format!(
            "taskwright: {name} takes tasks from {}",
            args.api_url
        ));
        let worker = Worker {
            who: taskwright_worker::port::Introduction {
                id: name.clone(),
                ..who.clone()
            },
            queue: queue.clone(),
            runs: runs.clone(),
            templates: templates.clone(),
            habits: Habits {
                heartbeat: args.heartbeat_interval,
                ..Habits::default()
            },
            registered,
        };
        let orders = Orders {
            drain: drain.clone(),
            doing: watch::channel(Vec::new()).0,
        };
        match worker.work(&orders).await {
            Ended::Drained => return Ok(()),
            Ended::NameTaken if id.is_some() => {
                return Err(anyhow!("another worker registered as {name}"))
                    .hint("give each worker an --id of its own, or none");
            }
            Ended::NameTaken => names.forget(&name),
        }
    }
}

/// An id that no other worker has. The numbers are looked through from somewhere, so that many
/// workers that start together do not all begin with the same.
async fn some_id(
    names: &mut Names,
    queue: &dyn WorkQueue,
    who: &taskwright_worker::port::Introduction,
) -> anyhow::Result<(WorkerId, Option<Standing>)> {
    const PAUSE: Duration = Duration::from_secs(2);
    let first =
        u16::try_from((uuid::Uuid::now_v7().as_u128() & 0xffff_ffff) % 999 + 1).unwrap_or(1);
    loop {
        match names.take(queue, who, first).await {
            Ok(found) => return Ok(found),
            Err(QueueError::Refused(why)) => return Err(anyhow!(why)),
            Err(error) => {
                tracing::warn!(%error, "the queue did not answer a worker");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The first signal drains; resolves with the second.
fn obey(drain: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("listen for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if drain.is_cancelled() {
                return;
            }
            tracing::info!("takes no further task; ends when what it holds has ended");
            drain.cancel();
        }
    })
}
