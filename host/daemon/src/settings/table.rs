//! Every setting of the daemon: one row each, with its flag, variable, file key and default.
//!
//! Flags, the reading of the configuration file, `config show` and the defaults all come
//! from this table, so they can't tell different stories.

use std::path::PathBuf;
use std::time::Duration;

use taskwright_api::Cors;
use taskwright_capability::grant::http::HostPattern;

use crate::env;
use crate::units::{parse_bytes, parse_duration};

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its key in the configuration file: `name`, or `section.name`.
    pub(crate) key: &'static str,
    /// Its flag, without dashes.
    pub(crate) flag: &'static str,
    /// Its environment variable.
    pub(crate) variable: Option<&'static str>,
    /// What its value is.
    pub(crate) kind: Kind,
    /// Its value where nobody says anything; `None`: it is off.
    pub(crate) default: Option<&'static str>,
    /// Whose it is.
    pub(crate) origin: Origin,
    /// What it does, in one sentence.
    pub(crate) help: &'static str,
}

/// Where a flag comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The reference executor has it too: one dash will do as well.
    Reference,
    /// The reference executor has it; here it changes nothing.
    WithoutEffect,
    /// It is ours.
    Ours,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// `ADDRESS:PORT`, or `none`.
    Address,
    /// One of these words, with `|` between them.
    Choice(&'static str),
    /// `true` or `false`.
    Switch,
    /// A whole number above 0.
    Count,
    /// A whole number, 0 included.
    Whole,
    /// A number, fractions and a sign included.
    Decimal,
    /// A size in bytes.
    Bytes,
    /// A duration.
    Duration,
    /// A path.
    Path,
    /// `NAME` or `NAME=VALUE`, any number of them.
    Variables,
    /// Absolute paths, any number of them.
    Paths,
    /// Some of these words, with `|` between them.
    Choices(&'static str),
    /// Hosts, any number of them.
    Hosts,
    /// Origins of web pages, or `*`.
    Origins,
}

/// A value that was parsed as its kind asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Text, address, choice.
    Text(String),
    /// Switch.
    Switch(bool),
    /// Count, bytes.
    Number(u64),
    /// Duration.
    Duration(Duration),
    /// Path.
    Path(PathBuf),
    /// Variables, paths, choices.
    List(Vec<String>),
}

impl Kind {
    /// Whether its value is a list.
    pub(crate) fn is_list(self) -> bool {
        matches!(
            self,
            Self::Variables | Self::Paths | Self::Choices(_) | Self::Hosts | Self::Origins
        )
    }

    /// What stands for the value in help texts.
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Address => "ADDRESS:PORT",
            Self::Choice(words) | Self::Choices(words) => words,
            Self::Switch => "true|false",
            Self::Count | Self::Whole | Self::Decimal => "N",
            Self::Bytes => "BYTES",
            Self::Duration => "DURATION",
            Self::Path | Self::Paths => "PATH",
            Self::Variables => "NAME[=VALUE]",
            Self::Hosts => "HOST[:PORT]",
            Self::Origins => "ORIGIN",
        }
    }

    /// Parses one value. A list is given as all its elements, everything else as one.
    ///
    /// # Errors
    /// A sentence that says what is allowed.
    pub(crate) fn parse(self, words: &[String]) -> Result<Value, String> {
        match self {
            Self::Variables => return parse_variables(words).map(Value::List),
            Self::Paths => return parse_paths(words).map(Value::List),
            Self::Choices(all) => {
                for word in words {
                    one_of(all, word)?;
                }
                return Ok(Value::List(words.to_vec()));
            }
            Self::Hosts => {
                for word in words {
                    word.parse::<HostPattern>().map_err(|bad| bad.to_string())?;
                }
                return Ok(Value::List(words.to_vec()));
            }
            Self::Origins => {
                Cors::parse(words.iter().map(String::as_str))?;
                return Ok(Value::List(words.to_vec()));
            }
            _ => {}
        }
        let [word] = words else {
            return Err("one value is wanted, not a list".to_owned());
        };
        match self {
            Self::Text => Ok(Value::Text(word.clone())),
            Self::Address if word == "none" || word.contains(':') => Ok(Value::Text(word.clone())),
            Self::Address => Err(format!("{word:?} is not ADDRESS:PORT, as 127.0.0.1:5758")),
            Self::Choice(all) => one_of(all, word).map(|()| Value::Text(word.clone())),
            Self::Switch => parse_switch(word).map(Value::Switch),
            Self::Count => match word.parse::<u64>() {
                Ok(number) if number > 0 => Ok(Value::Number(number)),
                _ => Err(format!("{word:?} is not a whole number above 0")),
            },
            Self::Whole => match word.parse::<u64>() {
                Ok(number) => Ok(Value::Number(number)),
                Err(_) => Err(format!("a whole number is wanted, not {word:?}")),
            },
            Self::Decimal => match word.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Value::Text(word.clone())),
                _ => Err(format!("{word:?} is not a number")),
            },
            Self::Bytes => parse_bytes(word).map(Value::Number),
            Self::Duration => parse_duration(word).map(Value::Duration),
            Self::Path if word.is_empty() => Err("a path must not be empty".to_owned()),
            Self::Path => Ok(Value::Path(word.into())),
            Self::Variables | Self::Paths | Self::Choices(_) | Self::Hosts | Self::Origins => {
                Err("a list is wanted".to_owned())
            }
        }
    }
}

fn one_of(all: &str, word: &str) -> Result<(), String> {
    if all.split('|').any(|one| one == word) {
        return Ok(());
    }
    Err(format!("{word:?} is none of {}", all.replace('|', ", ")))
}

fn parse_paths(words: &[String]) -> Result<Vec<String>, String> {
    for word in words {
        if !word.starts_with('/') {
            return Err(format!("{word:?} is not an absolute path"));
        }
    }
    Ok(words.to_vec())
}

/// Reads a switch as Go's flags do.
fn parse_switch(word: &str) -> Result<bool, String> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{word:?} is neither true nor false")),
    }
}

fn parse_variables(words: &[String]) -> Result<Vec<String>, String> {
    for word in words {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        if name.is_empty() || word.contains('\0') {
            return Err("a variable is written NAME or NAME=VALUE".to_owned());
        }
    }
    Ok(words.to_vec())
}

/// The setting with this key.
pub(crate) fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting with this flag.
pub(crate) fn by_flag(flag: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.flag == flag)
}

/// Whether a variable of the reference executor is set.
pub(crate) fn reference_is_configured(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    SETTINGS
        .iter()
        .filter(|setting| setting.origin == Origin::Reference)
        .filter_map(|setting| variable(setting.variable?))
        .any(|value| !value.is_empty())
}

const fn setting(
    key: &'static str,
    flag: &'static str,
    variable: Option<&'static str>,
    kind: Kind,
    default: Option<&'static str>,
    origin: Origin,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        flag,
        variable,
        kind,
        default,
        origin,
        help,
    }
}

use Kind::{
    Address, Bytes, Choice, Choices, Count, Decimal, Duration as Time, Hosts, Origins, Path, Paths,
    Switch, Text, Variables, Whole,
};
use Origin::{Ours, Reference, WithoutEffect};

/// All of them, in the order in which people read them.
#[rustfmt::skip]
pub(crate) static SETTINGS: &[Setting] = &[
    setting("data-dir", "data-dir", Some(env::DATA_DIR), Path, Some("/var/lib/sandbox/tasks"), Reference,
        "Directory of records and output: <data-dir>/<task>/stdout.log and stderr.log"),
    setting("listen-addr", "listen-addr", Some(env::LISTEN_ADDR), Address, Some("0.0.0.0:5758"), Reference,
        "Address and port of the API; `none` for no TCP at all"),
    setting("unix-socket", "unix-socket", Some(env::UNIX_SOCKET), Path, None, Ours,
        "Unix socket that the API is served on as well, for the owner and root only"),
    setting("drain-timeout", "drain-timeout", Some(env::DRAIN_TIMEOUT), Time, Some("30s"), Ours,
        "How long requests in flight may take when the daemon stops"),
    setting("plugin-dir", "plugin-dir", Some(env::PLUGIN_DIR), Paths, None, Ours,
        "Folders with plugins beside the built-in ones: NAME.wasm or the script NAME.rhai, and NAME.toml with what it is lent; watched"),
    setting("plugins.lock", "plugin-lock", Some(env::PLUGIN_LOCK), Choice("off|enforce"), Some("off"), Ours,
        "Whether a plugin folder's files are loaded only as its plugins.lock has them"),
    setting("plugins.require-signature", "plugin-require-signature", Some(env::PLUGIN_REQUIRE_SIGNATURE), Switch, Some("false"), Ours,
        "Whether a plugin folder's files are loaded only if a key of [[plugins.trusted-keys]] signed them"),
    setting("record-plugins", "record-plugins", Some(env::RECORD_PLUGINS), Path, None, Ours,
        "Directory in which every plugin call is recorded for `taskwright plugin replay`: all that plugins see, secrets included"),
    setting("tessia.work-root", "tessia-work-root", Some(env::TESSIA_WORK_ROOT), Path, None, Ours,
        "Directory of task-<id>/<id>.result and output.log of Tessia tasks, where another runner's are looked for, too; without one they are beside the task's output"),
    setting("queue.store", "store", Some(env::DATABASE_URL), Text, None, Ours,
        "Where queued tasks are kept: postgres://USER:PASSWORD@HOST/DATABASE for several daemons; without it, a file in the data directory"),
    setting("queue.worker-heartbeat-timeout", "worker-heartbeat-timeout", Some(env::WORKER_HEARTBEAT_TIMEOUT), Time, Some("60s"), Ours,
        "How long a worker of the queue may be silent until it loses its tasks"),
    setting("queue.timeout-check-interval", "timeout-check-interval", Some(env::TIMEOUT_CHECK_INTERVAL), Time, Some("60s"), Ours,
        "How often, at least, the queue's time limits and leases are looked at"),
    setting("queue.background-tasks", "enable-background-tasks", Some(env::ENABLE_BACKGROUND_TASKS), Switch, Some("true"), Ours,
        "Whether this daemon looks at the queue's time limits and leases"),
    setting("queue.default-timeout-minutes", "default-timeout-minutes", Some(env::DEFAULT_TIMEOUT_MINUTES), Count, Some("30"), Ours,
        "Minutes that a queued task may run unless it says otherwise"),
    setting("queue.default-max-steps", "default-max-steps", Some(env::DEFAULT_MAX_STEPS), Count, Some("30"), Ours,
        "Steps that a queued task may take unless it says otherwise"),
    setting("queue.default-priority", "default-priority", Some(env::DEFAULT_PRIORITY), Decimal, Some("5"), Ours,
        "Priority of a queued task unless it says otherwise; higher is sooner"),
    setting("queue.default-agent-model", "default-agent-model", Some(env::DEFAULT_AGENT_MODEL), Text, Some("gpt-4"), Ours,
        "Model of a queued task's agent unless it says otherwise"),
    setting("queue.lost-attempts", "queue-lost-attempts", Some(env::QUEUE_LOST_ATTEMPTS), Count, Some("3"), Ours,
        "How often a queued task may lose its worker before it has failed"),
    setting("queue.max-waiting", "queue-max-waiting", Some(env::QUEUE_MAX_WAITING), Count, Some("10000000"), Ours,
        "How many queued tasks wait or run; more are refused"),
    setting("queue.internal-workers", "internal-workers", Some(env::NUM_INTERNAL_WORKERS), Whole, Some("3"), Ours,
        "How many workers of the queue this daemon has itself, up to 50; they run what [[queue.templates]] says"),
    setting("queue.start-workers", "start-workers", Some(env::AUTO_START_WORKERS), Switch, Some("true"), Ours,
        "Whether they work from the start, if there is a template"),
    setting("queue.worker-poll-interval", "worker-poll-interval", Some(env::WORKER_POLL_INTERVAL), Time, Some("5s"), Ours,
        "How long they pause after a claim that could not be made; otherwise nothing is polled"),
    setting("queue.any-worker-id", "queue-any-worker-id", Some(env::QUEUE_ANY_WORKER_ID), Switch, Some("false"), Ours,
        "Take workers whose ids are not of the form worker-NNN-kind"),
    setting("queue.submissions-per-second", "queue-submissions-per-second", Some(env::QUEUE_SUBMISSIONS_PER_SECOND), Decimal, None, Ours,
        "How many queued tasks one client may submit in a second on average; fractions too. A client is a token, or an address where none is asked for"),
    setting("queue.submission-burst", "queue-submission-burst", Some(env::QUEUE_SUBMISSION_BURST), Count, Some("20"), Ours,
        "How many it may submit at once, where that is limited"),
    setting("queue.max-streams", "queue-max-streams", Some(env::QUEUE_MAX_STREAMS), Count, Some("1024"), Ours,
        "How many live streams of queued tasks may be open at a time; more are refused"),
    setting("queue.callback-hosts", "queue-callback-hosts", Some(env::QUEUE_CALLBACK_HOSTS), Hosts, None, Ours,
        "Host that a queued task's callback_url may name, as hooks.example.org, *.jobs.svc:8080 or 10.0.0.7:80; may be repeated. Without any, no callback_url is taken"),
    setting("queue.callback-private-addresses", "queue-callback-private-addresses", Some(env::QUEUE_CALLBACK_PRIVATE_ADDRESSES), Switch, Some("false"), Ours,
        "Whether the name of such a host may lead into a private network; never to this machine or its link, unless the address is listed itself"),
    setting("queue.callback-secret-file", "queue-callback-secret-file", Some(env::QUEUE_CALLBACK_SECRET_FILE), Path, None, Ours,
        "File with the key by which callbacks are signed: taskwright-signature, HMAC-SHA256 of the body"),
    setting("queue.callback-tries", "queue-callback-tries", Some(env::QUEUE_CALLBACK_TRIES), Count, Some("10"), Ours,
        "How often a callback is tried, in 24 hours at the most, until it is given up"),
    setting("api.cors-origins", "cors-origins", Some(env::CORS_ORIGINS), Origins, None, Ours,
        "Origin whose web pages may use the queue's API, as https://pages.example.org, or `*` for all; may be repeated. Without any, others may read where that is no risk"),
    setting("api.reader-patience", "reader-patience", Some(env::READER_PATIENCE), Time, Some("30s"), Ours,
        "How long a client may take nothing of an answer or a live stream until its connection is cut"),
    setting("api.docs", "enable-docs", Some(env::ENABLE_DOCS), Switch, Some("true"), Ours,
        "Whether /docs and /redoc are served"),
    setting("api.metrics", "enable-metrics", Some(env::ENABLE_METRICS), Switch, Some("true"), Ours,
        "Whether /metrics is served"),
    setting("limits.max-running", "max-running", Some(env::MAX_RUNNING), Count, Some("10000"), Ours,
        "How many tasks run at once; the others wait for their turn"),
    setting("limits.max-tasks", "max-tasks", Some(env::MAX_TASKS), Count, Some("100000"), Ours,
        "How many tasks are kept on record, ended ones included; more are refused"),
    setting("limits.output-cap", "output-cap", Some(env::OUTPUT_CAP), Bytes, Some("64MiB"), Ours,
        "How much of each output stream of a task is kept: its head and its tail"),
    setting("limits.max-body", "max-body", Some(env::MAX_BODY), Bytes, Some("8MiB"), Ours,
        "The largest request body that is taken"),
    setting("auth.token-file", "token-file", Some(env::AUTH_TOKEN_FILE), Path, None, Ours,
        "File with the tokens that the API accepts, `SCOPE TOKEN` on each line; read, submit or admin"),
    setting("tasks.env", "task-env", Some(env::TASK_ENV), Variables, None, Ours,
        "Variable that every task inherits (NAME) or is given (NAME=VALUE); may be repeated"),
    setting("log.level", "log-level", Some(env::LOG_LEVEL), Text, Some("info"), Ours,
        "What is logged: error, warn, info, debug, trace, or directives as `taskwright_store=debug`"),
    setting("log.format", "log-format", Some(env::LOG_FORMAT), Choice("text|json"), Some("text"), Ours,
        "How log lines look on standard error"),
    setting("sidecar.enabled", "enable-sidecar-mode", Some(env::ENABLE_SIDECAR_MODE), Switch, Some("false"), Reference,
        "Run commands inside the main container, unless a task names another runtime"),
    setting("sidecar.main-container-name", "main-container-name", Some(env::MAIN_CONTAINER_NAME), Text, Some("main"), Reference,
        "The main container's name in sidecar mode: the value of SANDBOX_MAIN_CONTAINER in its environment"),
    setting("sidecar.identity", "sidecar-identity", Some(env::SIDECAR_IDENTITY), Choice("daemon|target"), Some("daemon"), Ours,
        "As whom commands run in there unless they say: as the daemon, or as the main container's user with its capabilities"),
    setting("sidecar.cgroup", "sidecar-cgroup", Some(env::SIDECAR_CGROUP), Choice("own|target"), Some("own"), Ours,
        "Whose limits they keep unless they say: their own, or the main container's"),
    setting("sidecar.wait", "sidecar-wait", Some(env::SIDECAR_WAIT), Time, Some("10s"), Ours,
        "How long a task waits for its main container"),
    setting("sidecar.namespaces", "sidecar-namespaces", Some(env::SIDECAR_NAMESPACES), Choices("user|cgroup"), None, Ours,
        "Namespaces that tasks may enter beside mount, UTS, IPC, network and PID; may be repeated"),
    setting("container.enabled", "enable-container-mode", Some(env::ENABLE_CONTAINER_MODE), Switch, Some("false"), Reference,
        "Take container tasks, and run them by the machine's container runtime"),
    setting("container.cri-socket", "cri-socket", Some(env::CRI_SOCKET), Path, Some("/var/run/containerd/containerd.sock"), Reference,
        "The container runtime's socket in container mode"),
    setting("container.wait", "container-wait", Some(env::CONTAINER_WAIT), Time, Some("30s"), Ours,
        "How long a task that is being started waits for a container runtime that is away"),
    setting("container.cgroup-parent", "container-cgroup-parent", Some(env::CONTAINER_CGROUP_PARENT), Text, Some("/taskwright"), Ours,
        "Cgroup that containers are put under, or a slice where the runtime uses systemd; empty: the runtime's own choice"),
    setting("container.loopback-handler", "container-loopback-handler", Some(env::CONTAINER_LOOPBACK_HANDLER), Text, None, Ours,
        "The container runtime's handler whose pods have a loopback alone: what `network: none` needs"),
    setting("container.host-paths", "container-host-paths", Some(env::CONTAINER_HOST_PATHS), Paths, None, Ours,
        "Path of this machine that containers may mount, exactly as written; may be repeated"),
    setting("container.host-network", "container-host-network", Some(env::CONTAINER_HOST_NETWORK), Switch, Some("false"), Ours,
        "Allow containers the machine's own network"),
    setting("container.privileged", "container-privileged", Some(env::CONTAINER_PRIVILEGED), Switch, Some("false"), Ours,
        "Allow containers further privileges: privileged ones, and added Linux capabilities"),
    setting("reconcile-interval", "reconcile-interval", None, Time, Some("500ms"), WithoutEffect,
        "Accepted without effect: nothing is polled, an end is known at once"),
    setting("log.dir", "log-dir", None, Text, None, WithoutEffect,
        "Accepted without effect: logs go to standard error"),
    setting("log.max-size", "log-max-size", None, Text, None, WithoutEffect,
        "Accepted without effect: whoever keeps standard error rotates it"),
    setting("log.max-backups", "log-max-backups", None, Text, None, WithoutEffect,
        "Accepted without effect: whoever keeps standard error rotates it"),
    setting("log.max-age", "log-max-age", None, Text, None, WithoutEffect,
        "Accepted without effect: whoever keeps standard error rotates it"),
];
