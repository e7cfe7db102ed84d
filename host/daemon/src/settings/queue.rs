//! The settings of the queue, under the names that AIOpsLab's documents give them.

use std::time::Duration;

use anyhow::Context as _;
use taskwright_queue::QueueConfig;
use taskwright_queue::task::Tries;
use taskwright_store::queue::QueueLimits;
use taskwright_worker::{Pool, Templates};

use super::{Settings, Source};
use crate::exit::Code;
use crate::failure::Advise as _;

/// How the queue is kept, and what it does.
#[derive(Clone, Debug)]
pub(crate) struct QueueSettings {
    /// The server's address; `None`: a file in the data directory.
    pub(crate) store: Option<String>,
    /// What it may hold.
    pub(crate) limits: QueueLimits,
    /// What it does.
    pub(crate) config: QueueConfig,
    /// The workers of this daemon.
    pub(crate) workers: WorkerSettings,
}

/// The workers of this daemon, or of `taskwright worker`.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSettings {
    /// What they run for which problem.
    pub(crate) templates: Templates,
    /// How many.
    pub(crate) count: usize,
    /// Whether they work from the start.
    pub(crate) start: bool,
    /// Their pause after a claim that could not be made.
    pub(crate) poll: Duration,
}

impl QueueSettings {
    pub(super) fn from_settings(settings: &Settings) -> anyhow::Result<Self> {
        let minutes = settings.number("queue.default-timeout-minutes")?;
        let small = |key: &str| -> anyhow::Result<u32> {
            u32::try_from(settings.number(key)?).with_context(|| format!("setting {key}"))
        };
        let priority = settings.text("queue.default-priority")?;
        let defaults = QueueConfig::default();
        Ok(Self {
            store: address(settings)?,
            limits: QueueLimits {
                waiting: settings.number("queue.max-waiting")?,
            },
            config: QueueConfig {
                heartbeat_timeout: settings.duration("queue.worker-heartbeat-timeout")?,
                check_interval: settings.duration("queue.timeout-check-interval")?,
                checks: settings.switch("queue.background-tasks")?,
                tries: Tries {
                    losses: small("queue.lost-attempts")?.min(Tries::MOST),
                    ..defaults.tries
                },
                time_limit: Duration::from_secs(minutes.saturating_mul(60)),
                priority: priority.parse().context("setting queue.default-priority")?,
                max_steps: small("queue.default-max-steps")?,
                default_model: settings.text("queue.default-agent-model")?,
                free_worker_ids: settings.switch("queue.any-worker-id")?,
            },
            workers: WorkerSettings::from_settings(settings)?,
        })
    }
}

impl WorkerSettings {
    fn from_settings(settings: &Settings) -> anyhow::Result<Self> {
        let count = settings.number("queue.internal-workers")?;
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= Pool::MOST);
        let templates = Templates::new(settings.templates.clone());
        Ok(Self {
            count: count
                .with_context(|| format!("queue.internal-workers: at most {}", Pool::MOST))
                .exit_with(Code::PROBLEM)?,
            start: settings.switch("queue.start-workers")? && !templates.is_empty(),
            poll: settings.duration("queue.worker-poll-interval")?,
            templates,
        })
    }
}

/// The address of a PostgreSQL server. `DATABASE_URL` is a name that many programs use: another
/// kind of database in it is another program's.
fn address(settings: &Settings) -> anyhow::Result<Option<String>> {
    const KEY: &str = "queue.store";
    let Some(super::table::Value::Text(text)) = settings.value(KEY) else {
        return Ok(None);
    };
    if let Some(address) = postgres_address(text) {
        return Ok(Some(address));
    }
    let elsewhere = matches!(settings.source(KEY), Some(Source::Environment(_)));
    if elsewhere && !text.is_empty() {
        let name = crate::env::DATABASE_URL;
        crate::output::note(&format!(
            "taskwright: {name} names no PostgreSQL server and does not count: the queue is kept in the \
             data directory"
        ));
    }
    if elsewhere || text.is_empty() {
        return Ok(None);
    }
    Err(anyhow::anyhow!(
        "the store of the queue is no address of PostgreSQL"
    ))
    .exit_with(Code::PROBLEM)
    .hint("write --store postgres://USER:PASSWORD@HOST:5432/DATABASE, or leave it out")
}

/// An address as libraries other than ours write it, too: `postgresql+asyncpg://...`.
fn postgres_address(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let plain = scheme.split('+').next()?;
    matches!(plain, "postgres" | "postgresql").then(|| format!("postgres://{rest}"))
}

#[cfg(test)]
mod tests {
    //! Addresses as they are written elsewhere.
    use taskwright_store::queue::without_password;

    use super::*;

    #[test]
    fn addresses_of_other_libraries_are_read() {
        for (text, read) in [
            ("postgres://a:b@h/d", Some("postgres://a:b@h/d")),
            (
                "postgresql+asyncpg://a:b@h:1/d",
                Some("postgres://a:b@h:1/d"),
            ),
            ("mysql://a@h/d", None),
            ("/tmp/queue.db", None),
        ] {
            assert_eq!(postgres_address(text).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_password("postgres://me:p@ss@h/d"),
            "postgres://me:***@h/d"
        );
        assert_eq!(without_password("postgres://h/d"), "postgres://h/d");
    }
}
