//! A daemon for one `run --local`: everything a daemon has, in a folder of its own, reachable
//! by nobody else, and gone afterwards.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use taskwright_control::Control;
use taskwright_control::request::Selector;
use taskwright_supervisor::SupervisorClient;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::assemble::{Daemon, Surroundings};
use super::listen;
use super::telemetry;
use crate::client::Server;
use crate::offline::user_cache;
use crate::settings::config::LogFormat;
use crate::settings::{self, Config, Sources, flags::Flags};

/// How long the end of everything may take.
const END_TIME: Duration = Duration::from_secs(30);

/// A private daemon.
pub(crate) struct LocalDaemon {
    folder: Folder,
    control: Control,
    supervisor: Arc<SupervisorClient>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

/// What a start makes.
type Started = (
    Control,
    Arc<SupervisorClient>,
    CancellationToken,
    JoinHandle<()>,
);

impl LocalDaemon {
    /// Starts one.
    ///
    /// # Errors
    /// Whatever keeps a daemon from starting.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = Folder::make()?;
        let started = Self::start_in(&folder.0).await;
        match started {
            Ok((control, supervisor, shutdown, serving)) => Ok(Self {
                folder,
                control,
                supervisor,
                shutdown,
                serving,
            }),
            Err(error) => {
                // The error that brought us here says more than one about its traces would.
                let _ = folder.remove();
                Err(error)
            }
        }
    }

    async fn start_in(folder: &Path) -> anyhow::Result<Started> {
        let socket = folder.join("api.sock");
        let config = config(folder)?;
        telemetry::start(&config.log_level, config.log_format)?;
        let bound = listen::bind(None, Some(&socket)).await?;
        let shutdown = CancellationToken::new();
        let surroundings = Surroundings {
            metrics: Arc::new(String::new),
            cache: user_cache(),
            lasting: false,
            shutdown: shutdown.clone(),
        };
        let daemon = Daemon::assemble(&config, bound, surroundings).await?;
        let (control, supervisor) = (daemon.control().clone(), daemon.supervisor());
        let serving = tokio::spawn(daemon.serve());
        Ok((control, supervisor, shutdown, serving))
    }

    /// Where it is.
    pub(crate) fn server(&self) -> Server {
        Server::Unix(self.folder.0.join("api.sock"))
    }

    /// Ends it and all that it started, and removes every trace.
    ///
    /// # Errors
    /// When something would not end in time; its folder is then left where it is.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let ending = async {
            delete_all(&self.control).await?;
            self.shutdown.cancel();
            self.serving.await.context("end the private daemon")?;
            while !self.supervisor.shutdown_if_idle().await? {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        let left = || format!("clean up after the task in {}", self.folder.0.display());
        match tokio::time::timeout(END_TIME, ending).await {
            Ok(ended) => ended.with_context(left)?,
            Err(_) => anyhow::bail!("{}: it did not end within {} s", left(), END_TIME.as_secs()),
        }
        self.folder.remove()
    }
}

/// Deletes every task of every dialect and waits until none is left: what they left running ends
/// with them.
async fn delete_all(control: &Control) -> anyhow::Result<()> {
    const AT_ONCE: usize = 100;
    loop {
        let tasks = control.list(&Selector::default(), None, AT_ONCE).tasks;
        if tasks.is_empty() {
            return Ok(());
        }
        for task in tasks.iter().filter(|task| task.deleting_since.is_none()) {
            control.delete(task.key.clone()).await?;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The defaults, in `folder`; neither the operator's file nor the environment has a say here.
fn config(folder: &Path) -> anyhow::Result<Config> {
    let settings = settings::resolve(&Sources {
        flags: &Flags::default(),
        config_flag: Some(Path::new("/dev/null")),
        variable: &|_| None,
    });
    let defaults = Config::from_settings(&settings)?;
    let wanted = settings::process_variable(crate::env::LOG_LEVEL);
    Ok(Config {
        data_dir: folder.join("data"),
        listen_addr: None,
        log_level: wanted.unwrap_or_else(|| "error".to_owned()),
        log_format: LogFormat::Text,
        ..defaults
    })
}

/// A folder for the owner alone.
struct Folder(PathBuf);

impl Folder {
    fn make() -> anyhow::Result<Self> {
        let name = format!("taskwright-local-{}", uuid::Uuid::now_v7().simple());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("make the folder {}", path.display()))?;
        Ok(Self(path))
    }

    fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.0)
            .with_context(|| format!("remove the folder {}", self.0.display()))
    }
}
