//! The real engine without a daemon: plugins run, and what they ask the host to start is
//! remembered, not started.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use taskwright_capability::fake::FakeProcessHost;
use taskwright_engine::{Engine, EngineConfig, Host, Runtimes};

use crate::serve::compile::ChildCompiler;

/// Calls at a time.
const MOST_CALLS: u32 = 4;

/// Where what was compiled outlives a command or a private daemon, so that only the first of them
/// compiles what comes with the product. The engine takes a folder only if it is ours alone.
pub(crate) fn user_cache() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    let folder = base.join("taskwright");
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder);
    made.is_ok().then_some(folder)
}

/// An engine with nothing behind it.
pub(crate) struct Offline {
    /// What was loaded.
    pub(crate) runtimes: Runtimes,
    /// What it asked for.
    pub(crate) processes: FakeProcessHost,
    /// Removed with it.
    pub(crate) scratch: Scratch,
}

/// A folder for `files`, made when it is first used.
pub(crate) struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Most never use it.
        let _not_there = std::fs::remove_dir_all(&self.0);
    }
}

impl Offline {
    /// Starts one, with no plugin loaded.
    ///
    /// # Errors
    /// When this machine cannot run components.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let config = EngineConfig {
            most_calls: MOST_CALLS,
            cache_dir: user_cache(),
            cache_ours_only: true,
            ..EngineConfig::default()
        };
        let engine = tokio::task::spawn_blocking(move || Engine::new(config)).await?;
        let engine = engine.context("start the plugin engine")?;
        let processes = FakeProcessHost::new();
        let id = uuid::Uuid::now_v7();
        let scratch = Scratch(std::env::temp_dir().join(format!("taskwright-offline-{id}")));
        let below = scratch.0.clone();
        let host = Host {
            units: Arc::new(processes.clone()),
            process: Arc::new(processes.clone()),
            namespace: Arc::new(processes.clone()),
            container: None,
            base_env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            task_directory: Box::new(|key| PathBuf::from("/tasks").join(key.name.as_str())),
            scratch_directory: Box::new(move |task| below.join(task.to_string())),
        };
        Ok(Self {
            runtimes: Runtimes::new(engine, Arc::new(ChildCompiler), host),
            processes,
            scratch,
        })
    }
}
