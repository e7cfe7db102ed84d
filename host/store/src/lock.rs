//! One daemon per directory.
//!
//! The lock is `flock(2)`, which the kernel lets go of when its holder dies:
//! the file of a dead daemon is no obstacle. The pid in it is only for people.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Held for as long as the store is open.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "open means locked")] File);

/// Why the directory is not ours.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds it; its pid, if it wrote one.
    Held(Option<u32>),
    /// The file could not be opened, locked or written.
    Io(io::Error),
}

impl Lock {
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LockError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LockError::Held(holder(&mut file))),
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
        sign(&mut file).map_err(LockError::Io)?;
        Ok(Self(file))
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
