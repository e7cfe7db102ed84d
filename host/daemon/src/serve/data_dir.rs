//! The data directory: the tasks' own directories, and ours beside them.
//!
//! ```text
//! <data-dir>/                    0755, as the reference executor makes it
//!   <task>/stdout.log, ...       each task's own, owner-only
//!   .taskwright-work/            0711: a folder for each task of the queue that runs here
//!   .taskwright/                 0700: ours alone; no task can have a name like that
//!     store.db, lock, ...        the store
//!     queue.db                   tasks that wait for workers
//!     worker-ids                 ids of this daemon's workers
//!     supervisor/                the supervisor's log and socket
//!     tasks/<namespace>/<task>/  the same of tasks of other dialects
//!     cache/                     compiled plugins
//!     observers/                 how far observers were told
//!     containers/                logs and empty directories of containers that run
//!     forgotten                  which tasks of another Tessia runner are told of no more
//!     instance                   by which this daemon knows its containers
//!     boot-id                    which boot of the machine saw us last
//! ```

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::failure::advised;

/// The data directory, checked.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Makes what is missing of it and makes sure that it can be written.
    ///
    /// # Errors
    /// What stands in the way, with the next step.
    pub(crate) fn prepare(root: &Path) -> anyhow::Result<Self> {
        make(root, 0o755).map_err(|error| explain(root, error))?;
        // Children are asked for by absolute path, whatever their working directory is.
        let root = root
            .canonicalize()
            .with_context(|| format!("find the data directory {}", root.display()))?;
        probe(&root).map_err(|error| explain(&root, error))?;
        let own = root.join(".taskwright");
        make_private(&own).map_err(|error| explain(&own, error))?;
        Ok(Self { root })
    }

    /// The directory itself, absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where tasks of the queue that run here have their folders. Not in our own part: they may
    /// run as other users.
    pub(crate) fn work(&self) -> PathBuf {
        self.root.join(".taskwright-work")
    }

    /// The ids of this daemon's workers.
    pub(crate) fn worker_ids(&self) -> PathBuf {
        self.own().join("worker-ids")
    }

    /// Our own part of it.
    pub(crate) fn own(&self) -> PathBuf {
        self.root.join(".taskwright")
    }

    /// Tasks that wait for workers.
    pub(crate) fn queue(&self) -> PathBuf {
        self.own().join("queue.db")
    }

    /// Compiled plugins.
    pub(crate) fn cache(&self) -> PathBuf {
        self.own().join("cache")
    }

    /// The supervisor's log and socket.
    pub(crate) fn supervisor(&self) -> PathBuf {
        self.own().join("supervisor")
    }

    /// How far observers were told.
    pub(crate) fn observers(&self) -> PathBuf {
        self.own().join("observers")
    }

    /// Logs and empty directories of containers that run.
    pub(crate) fn containers(&self) -> PathBuf {
        self.own().join("containers")
    }

    /// Which tasks of another Tessia runner are told of no more.
    pub(crate) fn forgotten(&self) -> PathBuf {
        self.own().join("forgotten")
    }

    /// By which this daemon knows its containers among those of others: made once, kept for ever.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn instance(&self) -> anyhow::Result<String> {
        let path = self.own().join("instance");
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        if uuid::Uuid::parse_str(known.trim()).is_ok() {
            return Ok(known.trim().to_owned());
        }
        let fresh = uuid::Uuid::now_v7().to_string();
        let new = path.with_extension("new");
        std::fs::write(&new, &fresh)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))?;
        Ok(fresh)
    }

    /// Which boot of the machine saw us last.
    pub(crate) fn boot_id(&self) -> PathBuf {
        self.own().join("boot-id")
    }
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::ErrorKind::NotADirectory.into())
        }
        other => other,
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    make(path, 0o700)?;
    let found = std::fs::symlink_metadata(path)?;
    // A link here would send our records wherever its maker likes.
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if found.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Writes a file and removes it again: permissions alone do not tell of read-only mounts
/// and full disks.
fn probe(root: &Path) -> io::Result<()> {
    let path = root.join(format!(".taskwright-probe-{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(b"probe\n"));
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}

fn explain(path: &Path, error: io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "it lies on a read-only file system: choose another --data-dir, or mount it for writing"
        }
        io::ErrorKind::NotADirectory => {
            "there is a file or a link where a directory is wanted: choose another --data-dir, or move it away"
        }
        io::ErrorKind::PermissionDenied => {
            "run as its owner, change its permissions, or choose another --data-dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: make room, or choose another --data-dir"
        }
        _ => "choose another --data-dir",
    };
    let what = format!("use the data directory {}", path.display());
    advised(anyhow::Error::new(error).context(what), hint)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("taskwright-{name}-{}", std::process::id()))
    }

    #[test]
    fn what_is_missing_is_made_and_ours_is_private() {
        let root = scratch("data-dir").join("a/b");
        let made = DataDir::prepare(&root).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&made.own()), 0o700);
        assert!(
            std::fs::read_dir(&root).unwrap().count() == 1,
            "the probe is gone"
        );
        std::fs::set_permissions(made.own(), Permissions::from_mode(0o755)).unwrap();
        DataDir::prepare(&root).unwrap();
        assert_eq!(mode(&made.own()), 0o700);
        std::fs::remove_dir_all(scratch("data-dir")).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_told() {
        let root = scratch("data-file");
        std::fs::write(&root, "x").unwrap();
        let error = format!("{:#}", DataDir::prepare(&root).unwrap_err());
        assert!(error.contains("use the data directory"), "{error}");
        std::fs::remove_file(&root).unwrap();
    }
}
