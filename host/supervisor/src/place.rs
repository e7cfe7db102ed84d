//! The state directory: owner-only, one supervisor at a time, a socket whatever the path's length.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use taskwright_native::{daemonize, files};

/// The log of what was started and how it ended.
pub(crate) const LOG: &str = "log";
/// What the supervisor has to say to people.
pub(crate) const MESSAGES: &str = "messages";
/// What the start of a supervisor has to say to people.
pub(crate) const STARTUP: &str = "startup";
const LOCK: &str = "lock";
const SOCKET: &str = "sock";

/// An open state directory.
pub(crate) struct Place {
    path: PathBuf,
    dir: OwnedFd,
}

impl Place {
    /// Opens the directory, made owner-only if missing. Another user's is refused.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let dir = files::open_dir(path)?;
        let found = std::fs::metadata(path)?;
        if found.uid() != daemonize::this_user() || found.mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the state directory belongs to, or can be written by, somebody else",
            ));
        }
        let path = path.to_owned();
        Ok(Self { path, dir })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A short path to the socket: the address of a Unix socket has room for 108 bytes only.
    pub(crate) fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", self.dir.as_raw_fd()))
    }

    /// The lock that makes this the only supervisor here, for as long as it stays open in any
    /// process; `None` when another has it.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.file(LOCK))?;
        Ok(files::try_lock(&file)?.then_some(file))
    }

    /// Opens a file for what is said to people, emptied when it has grown long.
    pub(crate) fn messages(&self, name: &str) -> io::Result<File> {
        const MOST_BYTES: u64 = 1024 * 1024;
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.file(name))?;
        if file.metadata()?.len() > MOST_BYTES {
            file.set_len(0)?;
        }
        Ok(file)
    }

    /// A name for what this directory's supervisor keeps elsewhere, as its cgroups.
    pub(crate) fn nickname(&self) -> String {
        nickname(&self.path)
    }
}

/// See [`Place::nickname`].
pub(crate) fn nickname(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let hash = crc32fast::hash(path.as_os_str().as_bytes());
    format!("taskwright-{hash:08x}")
}
