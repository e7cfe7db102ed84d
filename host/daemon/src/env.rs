//! Every environment variable that Taskwright reads, in one place.
//!
//! The bare names are those of the reference executor; all others begin with `TASKWRIGHT_`.
//! Variables of the daemon never reach a task ([`crate::task_env`]).

/// Where tasks keep their records and output. As the reference executor.
pub(crate) const DATA_DIR: &str = "DATA_DIR";
/// Address and port of the API. As the reference executor.
pub(crate) const LISTEN_ADDR: &str = "LISTEN_ADDR";
/// Whether process tasks run inside a main container. As the reference executor.
pub(crate) const ENABLE_SIDECAR_MODE: &str = "ENABLE_SIDECAR_MODE";
/// Which main container that is. As the reference executor.
pub(crate) const MAIN_CONTAINER_NAME: &str = "MAIN_CONTAINER_NAME";
/// Whether container tasks are taken. As the reference executor.
pub(crate) const ENABLE_CONTAINER_MODE: &str = "ENABLE_CONTAINER_MODE";
/// The container runtime's socket. As the reference executor.
pub(crate) const CRI_SOCKET: &str = "CRI_SOCKET";

/// As whom commands run inside a main container: `daemon` or `target`.
pub(crate) const SIDECAR_IDENTITY: &str = "TASKWRIGHT_SIDECAR_IDENTITY";
/// In whose cgroup they run: `own` or `target`.
pub(crate) const SIDECAR_CGROUP: &str = "TASKWRIGHT_SIDECAR_CGROUP";
/// How long a main container is waited for.
pub(crate) const SIDECAR_WAIT: &str = "TASKWRIGHT_SIDECAR_WAIT";
/// Further namespaces of a main container that may be entered, separated by commas.
pub(crate) const SIDECAR_NAMESPACES: &str = "TASKWRIGHT_SIDECAR_NAMESPACES";
/// Paths of the host that containers may mount, separated by commas.
pub(crate) const CONTAINER_HOST_PATHS: &str = "TASKWRIGHT_CONTAINER_HOST_PATHS";
/// Whether containers may use the machine's own network.
pub(crate) const CONTAINER_HOST_NETWORK: &str = "TASKWRIGHT_CONTAINER_HOST_NETWORK";
/// Whether containers may have further privileges.
pub(crate) const CONTAINER_PRIVILEGED: &str = "TASKWRIGHT_CONTAINER_PRIVILEGED";
/// Under which cgroup containers are put.
pub(crate) const CONTAINER_CGROUP_PARENT: &str = "TASKWRIGHT_CONTAINER_CGROUP_PARENT";
/// The runtime handler whose pods have a loopback and no other network.
pub(crate) const CONTAINER_LOOPBACK_HANDLER: &str = "TASKWRIGHT_CONTAINER_LOOPBACK_HANDLER";
/// How long a container runtime that is away is waited for.
pub(crate) const CONTAINER_WAIT: &str = "TASKWRIGHT_CONTAINER_WAIT";

/// Whether plugins must stand in their folder's lock file: `off` or `enforce`.
pub(crate) const PLUGIN_LOCK: &str = "TASKWRIGHT_PLUGIN_LOCK";
/// Whether plugins must be signed by a trusted key.
pub(crate) const PLUGIN_REQUIRE_SIGNATURE: &str = "TASKWRIGHT_PLUGIN_REQUIRE_SIGNATURE";
/// The user for a registry, beside [`REGISTRY_PASSWORD`] or [`REGISTRY_PASSWORD_FILE`].
pub(crate) const REGISTRY_USER: &str = "TASKWRIGHT_REGISTRY_USER";
/// The password for a registry.
pub(crate) const REGISTRY_PASSWORD: &str = "TASKWRIGHT_REGISTRY_PASSWORD";
/// A file with the password for a registry.
pub(crate) const REGISTRY_PASSWORD_FILE: &str = "TASKWRIGHT_REGISTRY_PASSWORD_FILE";
/// The folder of the `config.json` that `docker login` writes.
pub(crate) const DOCKER_CONFIG: &str = "DOCKER_CONFIG";

/// The configuration file of `serve`.
pub(crate) const CONFIG: &str = "TASKWRIGHT_CONFIG";
/// A Unix socket that the API is served on as well.
pub(crate) const UNIX_SOCKET: &str = "TASKWRIGHT_UNIX_SOCKET";
/// How many tasks run at once.
pub(crate) const MAX_RUNNING: &str = "TASKWRIGHT_MAX_RUNNING";
/// How many tasks are kept on record.
pub(crate) const MAX_TASKS: &str = "TASKWRIGHT_MAX_TASKS";
/// How much of each output stream is kept.
pub(crate) const OUTPUT_CAP: &str = "TASKWRIGHT_OUTPUT_CAP";
/// The largest request body.
pub(crate) const MAX_BODY: &str = "TASKWRIGHT_MAX_BODY";
/// How long requests in flight may take when the daemon stops.
pub(crate) const DRAIN_TIMEOUT: &str = "TASKWRIGHT_DRAIN_TIMEOUT";
/// What is logged: a level, or directives as in `RUST_LOG`.
pub(crate) const LOG_LEVEL: &str = "RUST_LOG";
/// How log lines look: `text` or `json`.
pub(crate) const LOG_FORMAT: &str = "TASKWRIGHT_LOG_FORMAT";
/// A file with the tokens that the API accepts.
pub(crate) const AUTH_TOKEN_FILE: &str = "TASKWRIGHT_AUTH_TOKEN_FILE";
/// What tasks inherit or are given, `NAME` or `NAME=VALUE`, separated by commas.
pub(crate) const TASK_ENV: &str = "TASKWRIGHT_TASK_ENV";
/// A folder with plugins. Reserved.
pub(crate) const PLUGIN_DIR: &str = "TASKWRIGHT_PLUGIN_DIR";

/// A directory in which the calls of plugins are recorded.
pub(crate) const RECORD_PLUGINS: &str = "TASKWRIGHT_RECORD_PLUGINS";

/// Where the files of Tessia tasks are, if not beside the tasks.
pub(crate) const TESSIA_WORK_ROOT: &str = "TASKWRIGHT_TESSIA_WORK_ROOT";

/// Where queued tasks are kept. As AIOpsLab's task executor, whose names those below are, too.
pub(crate) const DATABASE_URL: &str = "DATABASE_URL";
/// How long a worker may be silent, in seconds.
pub(crate) const WORKER_HEARTBEAT_TIMEOUT: &str = "WORKER_HEARTBEAT_TIMEOUT";
/// How often time limits are looked at, in seconds.
pub(crate) const TIMEOUT_CHECK_INTERVAL: &str = "TIMEOUT_CHECK_INTERVAL";
/// Whether they are looked at.
pub(crate) const ENABLE_BACKGROUND_TASKS: &str = "ENABLE_BACKGROUND_TASKS";
/// How long a queued task may run, in minutes.
pub(crate) const DEFAULT_TIMEOUT_MINUTES: &str = "DEFAULT_TIMEOUT_MINUTES";
/// How many steps a queued task may take.
pub(crate) const DEFAULT_MAX_STEPS: &str = "DEFAULT_MAX_STEPS";
/// The priority of a queued task.
pub(crate) const DEFAULT_PRIORITY: &str = "DEFAULT_PRIORITY";
/// The model of a queued task's agent.
pub(crate) const DEFAULT_AGENT_MODEL: &str = "DEFAULT_AGENT_MODEL";
/// How many workers of its queue a daemon has itself.
pub(crate) const NUM_INTERNAL_WORKERS: &str = "NUM_INTERNAL_WORKERS";
/// Whether they work from the start.
pub(crate) const AUTO_START_WORKERS: &str = "AUTO_START_WORKERS";
/// How long they pause after a claim that could not be made, in seconds.
pub(crate) const WORKER_POLL_INTERVAL: &str = "WORKER_POLL_INTERVAL";
/// The queue of `taskwright worker`.
pub(crate) const API_URL: &str = "API_URL";
/// How often a queued task may lose its worker.
pub(crate) const QUEUE_LOST_ATTEMPTS: &str = "TASKWRIGHT_QUEUE_LOST_ATTEMPTS";
/// How many queued tasks wait or run.
pub(crate) const QUEUE_MAX_WAITING: &str = "TASKWRIGHT_QUEUE_MAX_WAITING";
/// Whether workers may have ids of any form.
pub(crate) const QUEUE_ANY_WORKER_ID: &str = "TASKWRIGHT_QUEUE_ANY_WORKER_ID";

/// How many queued tasks a client may submit in a second.
pub(crate) const QUEUE_SUBMISSIONS_PER_SECOND: &str = "TASKWRIGHT_QUEUE_SUBMISSIONS_PER_SECOND";
/// How many it may submit at once.
pub(crate) const QUEUE_SUBMISSION_BURST: &str = "TASKWRIGHT_QUEUE_SUBMISSION_BURST";
/// How many live streams may be open.
pub(crate) const QUEUE_MAX_STREAMS: &str = "TASKWRIGHT_QUEUE_MAX_STREAMS";
/// How long the reader of an answer or a stream may take nothing.
pub(crate) const READER_PATIENCE: &str = "TASKWRIGHT_READER_PATIENCE";
/// Hosts that callbacks may go to, separated by commas.
pub(crate) const QUEUE_CALLBACK_HOSTS: &str = "TASKWRIGHT_QUEUE_CALLBACK_HOSTS";
/// Whether their names may lead into a private network.
pub(crate) const QUEUE_CALLBACK_PRIVATE_ADDRESSES: &str =
    "TASKWRIGHT_QUEUE_CALLBACK_PRIVATE_ADDRESSES";
/// A file with the key that signs callbacks.
pub(crate) const QUEUE_CALLBACK_SECRET_FILE: &str = "TASKWRIGHT_QUEUE_CALLBACK_SECRET_FILE";
/// How often a callback is tried.
pub(crate) const QUEUE_CALLBACK_TRIES: &str = "TASKWRIGHT_QUEUE_CALLBACK_TRIES";
/// Origins of web pages that may use the queue's API: a JSON array, or separated by commas. As
/// AIOpsLab's task executor, as those up to [`OFFLINE_THRESHOLD`].
pub(crate) const CORS_ORIGINS: &str = "CORS_ORIGINS";
/// Whether `/docs` is served.
pub(crate) const ENABLE_DOCS: &str = "ENABLE_DOCS";
/// Whether `/metrics` is served.
pub(crate) const ENABLE_METRICS: &str = "ENABLE_METRICS";
/// The model of a queued task's agent; counts more than [`OPENAI_MODEL`].
pub(crate) const OPENROUTER_MODEL: &str = "OPENROUTER_MODEL";
/// The model of a queued task's agent; counts more than [`DEFAULT_AGENT_MODEL`].
pub(crate) const OPENAI_MODEL: &str = "OPENAI_MODEL";
/// What is logged, where nothing of ours says so.
pub(crate) const PLAIN_LOG_LEVEL: &str = "LOG_LEVEL";
/// How log lines look, where nothing of ours says so.
pub(crate) const PLAIN_LOG_FORMAT: &str = "LOG_FORMAT";
/// The address of the API, where nothing of ours says so.
pub(crate) const HOST: &str = "HOST";
/// The port of the API, where nothing of ours says so.
pub(crate) const PORT: &str = "PORT";
/// How long a worker may be silent, where [`WORKER_HEARTBEAT_TIMEOUT`] is not set.
pub(crate) const OFFLINE_THRESHOLD: &str = "WORKER_OFFLINE_THRESHOLD";

/// The daemon that client commands speak to.
pub(crate) const SERVER: &str = "TASKWRIGHT_SERVER";
/// The token that client commands show.
pub(crate) const TOKEN: &str = "TASKWRIGHT_TOKEN";
/// A file with the token that client commands show.
pub(crate) const TOKEN_FILE: &str = "TASKWRIGHT_TOKEN_FILE";
/// No colours, whatever its value (<https://no-color.org>).
pub(crate) const NO_COLOR: &str = "NO_COLOR";

/// The prefix of everything that is ours, and is kept from tasks.
pub(crate) const PREFIX: &str = "TASKWRIGHT_";
