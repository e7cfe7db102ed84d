//! What runs: the daemon, and the supervisor with its way of keeping trees together.

use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use taskwright_capability::ProcessHost as _;
use taskwright_capability::process::Enforceable;
use taskwright_supervisor::{SupervisorClient, SupervisorConfig, SupervisorStatus};

use super::Check;
use crate::client::Client;
use crate::serve::containers;
use crate::settings::config::ContainerConfig;
use crate::versions::PRODUCT;

const DAEMON: &str = "daemon";
const SUPERVISOR: &str = "supervisor";
const TREES: &str = "process trees";
/// How long a supervisor may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The daemon that client commands would speak to.
pub(crate) async fn daemon(client: &Client) -> Check {
    let server = client.server();
    let version = match client.version().await {
        Ok(answer) => answer
            .get("version")
            .and_then(Value::as_str)
            .map(str::to_owned),
        Err(error) => {
            return Check::warn(
                DAEMON,
                format!("{error:#}"),
                "start one with `taskwright serve`, or name another with --server",
            );
        }
    };
    if let Err(error) = client.ready().await {
        let found = format!("at {server}, but not ready: {error:#}");
        return Check::warn(DAEMON, found, "look at /readyz and at its log");
    }
    match version {
        Some(version) if version == PRODUCT => {
            Check::ok(DAEMON, format!("version {version} at {server}"))
        }
        Some(version) => Check::warn(
            DAEMON,
            format!("version {version} at {server}, this program is {PRODUCT}"),
            "restart the daemon; running tasks go on",
        ),
        None => Check::warn(
            DAEMON,
            format!("{server} tells no version"),
            "is it Taskwright?",
        ),
    }
}

/// The supervisor of `data_dir` if one runs; otherwise one that is started for the question
/// and ends with it.
pub(crate) async fn supervisor(data_dir: &Path) -> Vec<Check> {
    let state = data_dir.join(".taskwright/supervisor");
    if UnixStream::connect(state.join("sock")).is_ok() {
        return match ask(state, false).await {
            Ok((status, enforceable)) => {
                vec![of_running(&status), trees(&status), limits(&enforceable)]
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
        Ok((status, enforceable)) => vec![none, trees(&status), limits(&enforceable)],
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

fn limits(enforceable: &Enforceable) -> Check {
    const SUBJECT: &str = "limits";
    let can = enforceable.iter().filter_map(|(restriction, how)| {
        let by = how.as_ref().ok()?;
        Some(format!("{} by {}", restriction.as_str(), by.as_str()))
    });
    let cannot = enforceable.iter().filter_map(|(restriction, how)| {
        let why = how.as_ref().err()?;
        Some(format!("{}: {why}", restriction.as_str()))
    });
    let (can, cannot): (Vec<_>, Vec<_>) = (can.collect(), cannot.collect());
    let enforced = format!("enforces {}", can.join(", "));
    if cannot.is_empty() {
        return Check::ok(SUBJECT, enforced);
    }
    Check::warn(
        SUBJECT,
        format!("{enforced}; not {}", cannot.join("; ")),
        "tasks that ask for what is missing are refused unless they say `bestEffort`; run the \
         daemon as root, with a cgroup it may write (systemd: Delegate=yes)",
    )
}

/// The container runtime, in container mode.
pub(crate) async fn containers(config: &ContainerConfig) -> Check {
    const SUBJECT: &str = "containers";
    match containers::look(&config.socket).await {
        Ok(status) => {
            let events = if status.events {
                "tells ends as events"
            } else {
                "is asked for ends"
            };
            let found = format!("{} {}, {events}", status.name, status.version);
            match status.network {
                Ok(()) => Check::ok(SUBJECT, found),
                Err(why) => Check::warn(
                    SUBJECT,
                    format!("{found}; pods get no network: {why}"),
                    "give the runtime a CNI configuration, or have tasks say another `network`",
                ),
            }
        }
        Err(error) => Check::fail(
            SUBJECT,
            error.to_string(),
            "start the container runtime, or name its socket by --cri-socket",
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
