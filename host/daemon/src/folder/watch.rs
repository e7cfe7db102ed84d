//! Hears that something changed in the folders.

use std::path::PathBuf;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Between two looks at files that are being written, and how many there are.
pub(super) const SETTLING: Duration = Duration::from_millis(50);
pub(super) const MOST_SETTLING: u32 = 100;
/// A look although nothing was heard: not every file system tells.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// A watch over folders. Where the kernel gives none, only time passes.
pub(super) struct Watch {
    heard: mpsc::Receiver<()>,
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    pub(super) fn start(folders: &[PathBuf]) -> Self {
        let (tell, heard) = mpsc::channel(1);
        let hear = move |event: notify::Result<notify::Event>| {
            // Opening and reading is what we do ourselves.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _one_is_enough = tell.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(hear).and_then(|mut watcher| {
            for folder in folders {
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(
                %error,
                "changes of plugin folders are not heard; they are looked at every {} s",
                AT_LEAST_EVERY.as_secs()
            );
        });
        Self {
            heard,
            _watcher: watcher.ok(),
        }
    }

    /// Something may have changed.
    pub(super) async fn changed(&mut self) {
        let heard = tokio::time::timeout(AT_LEAST_EVERY, self.heard.recv());
        // Without a watcher nobody tells.
        if let Ok(None) = heard.await {
            tokio::time::sleep(AT_LEAST_EVERY).await;
        }
    }
}
