//! What runs: the daemon, and the supervisor with its way of keeping trees together.

use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use taskwright_capability::ProcessHost as _;
use taskwright_capability::process::Enforceable;
use taskwright_supervisor::{SupervisorClient, SupervisorConfig, SupervisorStatus};

use super::{Check, Verdict};
use crate::client::Client;
use crate::serve::containers;
use crate::settings::config::ContainerConfig;
use crate::versions::PRODUCT;

const DAEMON: &str = "daemon";
const SUPERVISOR: &str = "supervisor";
const TREES: &str = "process trees";
const LIMITS: &str = "limits";
const CONTAINERS: &str = "containers";
/// How long a supervisor may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The daemon that client commands would speak to, as it describes itself.
pub(crate) struct Running {
    server: String,
    /// What it says is its version; `None` inside: it says nothing of one.
    version: Result<Option<String>, String>,
    ready: Result<(), String>,
    plugins: Result<Vec<Plugin>, String>,
}

/// A plugin that it has loaded.
struct Plugin {
    name: String,
    /// What its probe complains of.
    trouble: Option<String>,
}

impl Running {
    /// Asks whoever answers there.
    pub(crate) async fn at(client: &Client) -> Self {
        let told = |error: anyhow::Error| format!("{error:#}");
        let version = client.version().await.map_err(told);
        let version = version.map(|answer| {
            let version = answer.get("version").and_then(Value::as_str);
            version.map(str::to_owned)
        });
        let answers = version.is_ok();
        Self {
            server: client.server().to_string(),
            version,
            ready: match answers {
                true => client.ready().await.map_err(told),
                false => Ok(()),
            },
            plugins: match answers {
                true => client
                    .plugins()
                    .await
                    .map_err(told)
                    .map(|list| plugins(&list)),
                false => Ok(Vec::new()),
            },
        }
    }

    /// Whether there is one.
    pub(crate) fn answers(&self) -> bool {
        self.version.is_ok()
    }

    /// Whether it takes container tasks, if it tells.
    fn takes_containers(&self) -> Option<bool> {
        let plugins = self.plugins.as_ref().ok()?;
        self.answers()
            .then(|| plugins.iter().any(|plugin| plugin.name == "container"))
    }

    /// What is to be said of it.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let server = &self.server;
        let version = match &self.version {
            Ok(version) => version,
            Err(error) => {
                return vec![Check::warn(
                    DAEMON,
                    error,
                    "start one with `taskwright serve`, or name another with --server",
                )];
            }
        };
        let daemon = match (&self.ready, version.as_deref()) {
            (Err(error), _) => Check::warn(
                DAEMON,
                format!("at {server}, but not ready: {error}"),
                "look at /readyz and at its log",
            ),
            (_, Some(PRODUCT)) => Check::ok(DAEMON, format!("version {PRODUCT} at {server}")),
            (_, Some(version)) => Check::warn(
                DAEMON,
                format!("version {version} at {server}, this program is {PRODUCT}"),
                "restart the daemon; running tasks go on",
            ),
            (_, None) => Check::warn(
                DAEMON,
                format!("{server} tells no version"),
                "is it Taskwright?",
            ),
        };
        vec![daemon, self.runtimes()]
    }

    /// The plugins that it has, and what is wrong with them.
    fn runtimes(&self) -> Check {
        const SUBJECT: &str = "daemon's runtimes";
        let plugins = match &self.plugins {
            Ok(plugins) => plugins,
            Err(error) => {
                let remedy = "give the token of an operator by --token-file";
                return Check::warn(SUBJECT, format!("are not told: {error}"), remedy);
            }
        };
        let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let trouble: Vec<String> = plugins
            .iter()
            .filter_map(|plugin| {
                let trouble = plugin.trouble.as_ref()?;
                Some(format!("{}: {trouble}", plugin.name))
            })
            .collect();
        if trouble.is_empty() {
            return Check::ok(SUBJECT, names.join(", "));
        }
        let remedy = "see `taskwright plugin list` and the daemon's log";
        Check::warn(SUBJECT, trouble.join("; "), remedy)
    }
}

fn plugins(answer: &Value) -> Vec<Plugin> {
    let list = answer.get("items").unwrap_or(answer).as_array();
    let text = |plugin: &Value, key: &str| {
        let text = plugin.get(key).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let plugin = |plugin: &Value| Plugin {
        name: text(plugin, "name"),
        trouble: (plugin.get("healthy") == Some(&Value::Bool(false)))
            .then(|| text(plugin, "trouble")),
    };
    list.into_iter().flatten().map(plugin).collect()
}

/// The supervisor of `data_dir` if one runs; otherwise one that is started for the question
/// and ends with it.
pub(crate) async fn supervisor(data_dir: &Path) -> Vec<Check> {
    let state = data_dir.join(".taskwright/supervisor");
    if UnixStream::connect(state.join("sock")).is_ok() {
        return match ask(state, false).await {
            Ok((status, enforceable)) => {
                let mut checks = vec![of_running(&status), trees(&status)];
                checks.extend(limits(&enforceable));
                checks
            }
            Err(message) => vec![Check::warn(
                SUPERVISOR,
                format!("it does not answer: {message}"),
                "look at the file `messages` in its directory",
            )],
        };
    }
    let none = Check::ok(SUPERVISOR, "none runs; the daemon starts it");
    let folder = std::env::temp_dir().join(format!("taskwright-doctor-{}", std::process::id()));
    let asked = match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => ask(folder.join("supervisor"), true).await,
        Err(error) => Err(error.to_string()),
    };
    let _ = std::fs::remove_dir_all(&folder);
    match asked {
        Ok((status, enforceable)) => {
            let mut checks = vec![none, trees(&status)];
            checks.extend(limits(&enforceable));
            checks
        }
        Err(message) => vec![Check::fail(
            SUPERVISOR,
            format!("it cannot be started: {message}"),
            "without it no task runs",
        )],
    }
}

/// Asks a supervisor for its status and for what it can enforce; one of our own is ended after
/// that.
async fn ask(state: PathBuf, ours: bool) -> Result<(SupervisorStatus, Enforceable), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut config = SupervisorConfig::new(state, program);
    config.patience = PATIENCE;
    let connected = SupervisorClient::connect_or_start(config).await;
    let (client, _reports) =
        connected.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
    let status = client.status().await.map_err(|error| error.to_string());
    let enforceable = client
        .enforceable()
        .await
        .map_err(|error| error.to_string());
    if ours {
        client
            .shutdown_if_idle()
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok((status?, enforceable?))
}

/// One line for each way of enforcing, and one for each reason why something is not enforced.
fn limits(enforceable: &Enforceable) -> Vec<Check> {
    let mut lines: Vec<(Result<&'static str, &str>, Vec<&'static str>)> = Vec::new();
    for (restriction, how) in enforceable {
        let how = how.as_ref().map(|by| by.as_str()).map_err(String::as_str);
        match lines.iter_mut().find(|(line, _)| *line == how) {
            Some((_, restrictions)) => restrictions.push(restriction.as_str()),
            None => lines.push((how, vec![restriction.as_str()])),
        }
    }
    let mut checks: Vec<Check> = Vec::new();
    for (how, restrictions) in lines {
        let restrictions = restrictions.join(", ");
        checks.push(match how {
            Ok(by) => Check::ok(LIMITS, format!("{restrictions}: by {by}")),
            Err(why) => Check::warn(
                LIMITS,
                format!("{restrictions}: not enforced: {why}"),
                "tasks that ask for it are refused unless they say `bestEffort`; run the daemon \
                 as root, with a cgroup it may write (systemd: Delegate=yes)",
            ),
        });
    }
    checks
}

/// Containers: as they are configured, and as the daemon that runs has them.
pub(crate) async fn containers(config: Option<&ContainerConfig>, daemon: &Running) -> Check {
    const DIFFERS: &str = "what is checked here is not what it was started with: give doctor the \
                           same --config and flags, or restart the daemon";
    let server = &daemon.server;
    match (config, daemon.takes_containers()) {
        (None, Some(true)) => Check::warn(
            CONTAINERS,
            format!("on in the daemon at {server}, off in this configuration"),
            DIFFERS,
        ),
        (None, _) => Check::ok(CONTAINERS, "off; --enable-container-mode turns it on"),
        (Some(config), running) => {
            let configured = runtime(config).await;
            match running {
                Some(false) if configured.verdict == Verdict::Ok => Check::warn(
                    CONTAINERS,
                    format!(
                        "{}; on in this configuration, off in the daemon at {server}",
                        configured.found
                    ),
                    DIFFERS,
                ),
                _ => configured,
            }
        }
    }
}

/// The container runtime that is configured.
async fn runtime(config: &ContainerConfig) -> Check {
    match containers::look(&config.socket).await {
        Ok(status) => {
            let events = if status.events {
                "tells ends as events"
            } else {
                "is asked for ends"
            };
            let found = format!("{} {}, {events}", status.name, status.version);
            match status.network {
                Ok(()) => Check::ok(CONTAINERS, found),
                Err(why) => Check::warn(
                    CONTAINERS,
                    format!("{found}; pods get no network: {why}"),
                    "give the runtime a CNI configuration, or have tasks say another `network`",
                ),
            }
        }
        Err(error) => Check::fail(
            CONTAINERS,
            error.to_string(),
            "start the container runtime, or name its socket by --cri-socket (`cri-socket` under \
             [container])",
        ),
    }
}

fn of_running(status: &SupervisorStatus) -> Check {
    let SupervisorStatus {
        version,
        supervisor_pid,
        guardian_pid,
        running,
        left_behind,
        damage,
        ..
    } = status;
    let found = format!(
        "pid {supervisor_pid}, guardian {guardian_pid}, version {version}: {running} running, \
         {left_behind} left something behind"
    );
    if !damage.is_empty() {
        let remedy = "exits of before may be unknown; tasks say `lost` then";
        return Check::warn(
            SUPERVISOR,
            format!("{found}; its log was damaged: {damage}"),
            remedy,
        );
    }
    if *guardian_pid == 0 {
        let remedy = "if it dies now, exit codes are lost; it is replaced once no task runs";
        return Check::warn(SUPERVISOR, found, remedy);
    }
    if version != PRODUCT {
        let remedy = format!("this program is {PRODUCT}; it is replaced once no task runs");
        return Check::warn(SUPERVISOR, found, remedy);
    }
    Check::ok(SUPERVISOR, found)
}

fn trees(status: &SupervisorStatus) -> Check {
    let found = format!("{}: {}", status.tree_level, status.tree_why);
    if status.tree_level == "scan" {
        let remedy = "processes that hide from their session can escape a stop: give the daemon \
                      a cgroup it may write (systemd: Delegate=yes)";
        return Check::warn(TREES, found, remedy);
    }
    Check::ok(TREES, found)
}
