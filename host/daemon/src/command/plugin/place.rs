//! The plugin folder that a command works in: which one it is, that one at a time changes it, and
//! that a change is seen whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::Args;

use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder::{self, Rules};
use crate::settings::config::PluginConfig;
use crate::settings::flags::Flags;
use crate::settings::{self, Sources};

/// How long somebody else may take to change the folder.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// What is being written is hidden, and so is no plugin.
const BEGIN: &str = ".taskwright-";
const END: &str = ".part";

/// Which folder, and whose signatures count.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// The plugin folder [default: the first of the daemon's configuration]
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<PathBuf>,
    /// The daemon's configuration: its plugin folder, and whose signatures count
    #[arg(long, value_name = "FILE", env = crate::env::CONFIG)]
    config: Option<PathBuf>,
}

/// A plugin folder.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) rules: Rules,
}

/// A plugin folder that nobody else changes as long as this is there.
#[derive(Debug)]
pub(super) struct Held {
    folder: PathBuf,
    directory: File,
}

/// A file that is written and not seen yet. Dropped before, it is gone.
#[derive(Debug)]
pub(super) struct Staged {
    hidden: PathBuf,
    target: PathBuf,
}

impl PlaceArgs {
    /// Finds out.
    ///
    /// # Errors
    /// When there is none, or it is none.
    pub(super) fn settle(&self) -> anyhow::Result<Place> {
        let settings = settings::resolve(&Sources {
            flags: &Flags::default(),
            config_flag: self.config.as_deref(),
            variable: &settings::process_variable,
        });
        let PluginConfig { folders, rules } = PluginConfig::from_settings(&settings)?;
        let folder = match &self.plugin_dir {
            Some(folder) => Some(std::path::absolute(folder)?),
            None => folders.into_iter().next(),
        };
        let folder = folder
            .context("find the plugin folder: none is configured")
            .exit_with(Code::USAGE)
            .hint(
                "name it with --plugin-dir DIR, or the daemon's configuration with --config FILE",
            )?;
        folder::check_folder(&folder)
            .with_context(|| format!("use the plugin folder {}", folder.display()))
            .exit_with(Code::PROBLEM)?;
        Ok(Place { folder, rules })
    }
}

impl Place {
    /// Waits until nobody else changes the folder, and takes away what somebody who was
    /// interrupted left.
    ///
    /// # Errors
    /// When somebody changes it for long.
    pub(super) async fn hold(&self) -> anyhow::Result<Held> {
        let trying = || format!("change the plugin folder {}", self.folder.display());
        let directory = File::open(&self.folder).with_context(trying)?;
        let begun = Instant::now();
        loop {
            match directory.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let error = anyhow!("another command changes it for more than 10 s");
                    return Err(error).with_context(trying);
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(trying),
            }
        }
        let held = Held {
            folder: self.folder.clone(),
            directory,
        };
        held.sweep().with_context(trying)?;
        Ok(held)
    }
}

impl Held {
    /// Nobody is at work now, so what is half done was left.
    fn sweep(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(BEGIN) && name.ends_with(END) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes a file to the disk, out of sight.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn stage(&self, name: &str, bytes: &[u8]) -> anyhow::Result<Staged> {
        let staged = Staged {
            hidden: self.folder.join(format!("{BEGIN}{name}{END}")),
            target: self.folder.join(name),
        };
        let write = || {
            // Never through a link, and never into what somebody else opened.
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&staged.hidden)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().with_context(|| format!("write {}", staged.target.display()))?;
        Ok(staged)
    }

    /// Lets files be seen, one right after the other in this order, and takes others away. A daemon
    /// that follows the folder waits until nothing changes, so it sees all of them.
    ///
    /// # Errors
    /// When one cannot be put in its place.
    pub(super) fn show(&self, staged: Vec<Staged>, gone: &[PathBuf]) -> anyhow::Result<()> {
        for one in &staged {
            fs::rename(&one.hidden, &one.target)
                .with_context(|| format!("put {} in its place", one.target.display()))?;
        }
        for path in gone {
            remove(path)?;
        }
        self.directory
            .sync_all()
            .with_context(|| format!("write {}", self.folder.display()))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // It is in its place then, or of no use.
        let _gone = fs::remove_file(&self.hidden);
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    //! Nothing half done is seen, and nothing is left.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn place(folder: &Path) -> Place {
        Place {
            folder: folder.to_owned(),
            rules: Rules::default(),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_is_staged_is_no_plugin_until_it_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let held = place(folder.path()).hold().await.unwrap();
        let staged = held.stage("a.wasm", b"new").unwrap();
        assert!(folder::plugins_in(folder.path()).unwrap().is_empty());
        drop(staged);
        assert!(names(folder.path()).is_empty(), "what is given up is gone");
        let staged = held.stage("a.wasm", b"new").unwrap();
        fs::write(folder.path().join("a.rhai"), "old").unwrap();
        let gone = [folder.path().join("a.rhai"), folder.path().join("none")];
        held.show(vec![staged], &gone).unwrap();
        assert_eq!(names(folder.path()), ["a.wasm"]);
        assert_eq!(fs::read(folder.path().join("a.wasm")).unwrap(), b"new");
    }

    #[tokio::test]
    async fn a_link_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        for name in ["a.wasm", ".taskwright-b.wasm.part"] {
            std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(name)).unwrap();
        }
        let held = place(folder.path()).hold().await.unwrap();
        let staged = ["a.wasm", "b.wasm"].map(|name| held.stage(name, b"new").unwrap());
        held.show(staged.into(), &[]).unwrap();
        assert_eq!(fs::read(elsewhere.path()).unwrap(), b"");
        let kind = fs::symlink_metadata(folder.path().join("a.wasm")).unwrap();
        assert!(kind.is_file());
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_changes_a_folder_and_what_was_left_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".taskwright-a.wasm.part"), "half").unwrap();
        let first = place(folder.path()).hold().await.unwrap();
        assert!(names(folder.path()).is_empty());
        let folder_of_second = place(folder.path());
        let second = tokio::spawn(async move { folder_of_second.hold().await.is_ok() });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap());
    }
}
