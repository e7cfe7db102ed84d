//! Directories and files relative to a descriptor, never through a link; holes in files.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom};

/// A directory to work in, by its path.
///
/// # Errors
/// When it cannot be opened or is no directory.
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A new directory `name` in `parent`, owner-only.
///
/// # Errors
/// `AlreadyExists`, whatever it is that does; or when it cannot be made.
pub fn make_dir(parent: &impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
    open_existing_dir(parent, name)
}

/// The directory `name` in `parent`, made owner-only if missing. A link is refused.
///
/// # Errors
/// When it cannot be made or is no directory.
pub fn open_or_make_dir(parent: &impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    match make_dir(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            open_existing_dir(parent, name)
        }
        other => other,
    }
}

/// Gives what is called `name` in `parent` another name there. Nothing of that name is fine.
///
/// # Errors
/// When it cannot be renamed.
pub fn rename_if_there(parent: &impl AsFd, name: &CStr, other: &CStr) -> io::Result<bool> {
    match rustix::fs::renameat(parent, name, parent, other) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The directory `name` in `parent`. A link is refused.
///
/// # Errors
/// When it cannot be opened or is no directory.
pub fn open_existing_dir(parent: &impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// The ordinary file `name` in `dir` for appending, made owner-only if missing. Links, pipes
/// and devices are refused, without waiting for anybody at their other end.
///
/// # Errors
/// When it cannot be opened or is no ordinary file.
pub fn open_append(dir: &impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != rustix::fs::FileType::RegularFile {
        return Err(io::Error::other("it is no ordinary file"));
    }
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

/// What an existing file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Making holes.
    Change,
}

/// The ordinary file `name` in `dir`; links, pipes and devices are refused.
///
/// # Errors
/// When it cannot be opened or is no ordinary file.
pub fn open_existing(dir: &impl AsFd, name: &CStr, access: Access) -> io::Result<File> {
    let access = match access {
        Access::Read => OFlags::RDONLY,
        Access::Change => OFlags::RDWR,
    };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != rustix::fs::FileType::RegularFile {
        let kind = io::ErrorKind::InvalidData;
        return Err(io::Error::new(kind, "it is no ordinary file"));
    }
    Ok(File::from(file))
}

/// Whether everything in `dir` is called one of `names` and empty.
///
/// # Errors
/// When it cannot be read.
pub fn holds_only_empty(dir: &impl AsFd, names: &[&CStr]) -> io::Result<bool> {
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let itself = name == c"." || name == c"..";
        let empty = || extent(dir, name).is_some_and(|(length, _)| length == 0);
        if !(itself || names.contains(&name) && empty()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How long a file is, and how many bytes of disk it takes; `None` if it does not exist.
#[must_use]
pub fn extent(dir: &impl AsFd, name: &CStr) -> Option<(u64, u64)> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    Some((length, blocks.saturating_mul(512)))
}

/// Gives the disk back from `from` to `to`, without changing the file's length.
///
/// # Errors
/// When the file system has no holes.
pub fn punch_hole(file: &impl AsFd, from: u64, to: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let length = to.saturating_sub(from);
    Ok(rustix::fs::fallocate(file, flags, from, length)?)
}

/// The first byte at or after `from` that is data; `None` when there is only a hole left.
///
/// # Errors
/// When the file cannot be asked.
pub fn next_data(file: &impl AsFd, from: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        // A file system without holes has data everywhere.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(Some(from)),
        Err(error) => Err(error.into()),
    }
}

/// The first byte at or after `from` that is in a hole, or the end of the file.
///
/// # Errors
/// When the file cannot be asked, or `from` is beyond its end.
pub fn next_hole(file: &impl AsFd, from: u64) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, SeekFrom::Hole(from))?)
}

/// Whether the mount by which `path` is reached is read-only, or its file system.
///
/// # Errors
/// When it cannot be reached.
pub fn is_on_read_only_mount(path: &CStr) -> io::Result<bool> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Takes the only lock on `file`, until it is closed; false when another has it.
///
/// # Errors
/// When the file system has no locks.
pub fn try_lock(file: &impl AsFd) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
