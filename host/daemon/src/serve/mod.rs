//! The daemon: its parts, its start and its end.
//!
//! | module | about |
//! |---|---|
//! | [`assemble`] | the parts list |
//! | [`listen`], [`port_holder`] | where requests come in |
//! | [`data_dir`], [`places`], [`boot`] | what is on disk, and whose life it is from |
//! | [`units`], [`outputs`], [`clock`] | ports of the loop over what there is |
//! | [`default_runtime`] | sidecar mode: whom commands belong to |
//! | [`callbacks`] | ends of queued tasks, told to whoever asked for it |
//! | [`tessia`], [`left`] | files of the Tessia task runner, ours and those of another |
//! | [`workers`] | the workers of this daemon |
//! | [`compile`] | plugins are compiled in a child process |
//! | [`telemetry`], [`metrics`], [`systemd`] | what operators see |
//! | [`local`] | a daemon for one `run --local` |

pub(crate) mod assemble;
pub(crate) mod boot;
pub(crate) mod callbacks;
pub(crate) mod clock;
pub(crate) mod compile;
pub(crate) mod containers;
mod cursors;
pub(crate) mod data_dir;
mod default_runtime;
mod execs;
mod left;
pub(crate) mod listen;
pub(crate) mod local;
pub(crate) mod metrics;
pub(crate) mod outputs;
pub(crate) mod places;
mod port_holder;
pub(crate) mod systemd;
pub(crate) mod telemetry;
mod tessia;
mod under_way;
pub(crate) mod units;
pub(crate) mod workers;

use std::sync::Arc;

use anyhow::Context as _;
use taskwright_control::request::Selector;
use taskwright_model::Task;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::settings::Config;
use crate::versions;
use assemble::{Daemon, Surroundings};

/// Serves until it is told to stop.
///
/// # Errors
/// What kept the daemon from starting. Once it serves, it ends without an error.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    telemetry::start(&config.log_level, config.log_format)?;
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let metrics = metrics::Metrics::install()?;
    // Before anything slow: a signal that comes during the start is not lost.
    let shutdown = CancellationToken::new();
    let signals = Signals::listen(shutdown.clone())?;

    let bound = listen::bind(config.listen_addr.as_deref(), config.unix_socket.as_deref()).await?;
    warn_if_open_to_all(&config, &bound);
    let addresses = bound.addresses.join(", ");
    let surroundings = Surroundings {
        metrics: metrics.renderer(),
        cache: None,
        lasting: true,
        shutdown,
    };
    let mut daemon = Daemon::assemble(&config, bound, surroundings).await?;
    warn_of_containers_out_of_reach(&config, &daemon);
    daemon.keep(metrics.upkeep());
    daemon.keep(systemd::watchdog(daemon.control().clone()));
    daemon.keep(signals.obey());

    tracing::info!(
        version = versions::PRODUCT,
        data_dir = %daemon.data_dir().display(),
        tasks = daemon.task_count(),
        took_ms = begun.elapsed().as_millis(),
        "serving on {addresses}"
    );
    systemd::ready(&format!("serving on {addresses}"));
    daemon.serve().await;
    tracing::info!("stopped; running tasks go on");
    Ok(())
}

fn warn_if_open_to_all(config: &Config, bound: &listen::Bound) {
    if bound.exposed && config.tokens.is_empty() {
        tracing::warn!(
            "ANYBODY WHO REACHES THIS MACHINE MAY RUN COMMANDS ON IT: {} asks for no token. \
             Set tokens (--token-file), or listen on 127.0.0.1 (--listen-addr)",
            bound.addresses.join(", ")
        );
    }
}

/// Container tasks of an earlier life can neither be watched nor stopped without container mode.
fn warn_of_containers_out_of_reach(config: &Config, daemon: &Daemon) {
    if config.container.is_some() {
        return;
    }
    let everything = Selector::default();
    let tasks = daemon.control().list(&everything, None, usize::MAX).tasks;
    let out_of_reach = |task: &&Arc<Task>| !task.state.is_ended() && containers::may_have(task);
    let count = tasks.iter().filter(out_of_reach).count();
    if count > 0 {
        tracing::warn!(
            tasks = count,
            "container tasks are on record and container mode is off: they are neither watched nor \
             stopped until the daemon is started with --enable-container-mode"
        );
    }
}

/// TERM and INT end the daemon, HUP is noticed.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    shutdown: CancellationToken,
}

impl Signals {
    fn listen(shutdown: CancellationToken) -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            shutdown,
        })
    }

    /// The first one drains, the second does not wait for that.
    async fn obey(mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => {
                    tracing::warn!("HUP: the configuration is read at start only; restart to change it, tasks go on");
                    continue;
                }
            }
            if self.shutdown.is_cancelled() {
                tracing::warn!("told to stop a second time: requests in flight are cut");
                std::process::exit(0);
            }
            tracing::info!("stopping: no new requests, those in flight are finished");
            systemd::stopping();
            self.shutdown.cancel();
        }
    }
}
