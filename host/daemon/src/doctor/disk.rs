//! The data directory: may it be written, is there room, can the middle of files be dropped.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::Check;

/// Below this much room a warning is due.
const LITTLE_ROOM: u64 = 1 << 30;

const DIRECTORY: &str = "data directory";
const ROOM: &str = "room on disk";
const HOLES: &str = "hole punching";
const CACHE: &str = "plugin cache";

/// Everything about `data_dir`.
pub(crate) fn check(data_dir: &Path) -> Vec<Check> {
    if !data_dir.exists() {
        return vec![not_there(data_dir)];
    }
    if !data_dir.is_dir() {
        let found = format!("{} is not a directory", data_dir.display());
        return vec![Check::fail(
            DIRECTORY,
            found,
            "choose another --data-dir, or move it away",
        )];
    }
    let mut checks = vec![match probe(data_dir) {
        Ok(probe) => {
            let written = Check::ok(DIRECTORY, format!("{} can be written", data_dir.display()));
            return finish(vec![written, holes(&probe)], data_dir);
        }
        Err(error) => Check::fail(
            DIRECTORY,
            format!("{} cannot be written: {error}", data_dir.display()),
            "run the daemon as its owner, change its permissions, or choose another --data-dir",
        ),
    }];
    checks.push(room(data_dir));
    checks
}

fn finish(mut checks: Vec<Check>, data_dir: &Path) -> Vec<Check> {
    checks.push(room(data_dir));
    checks.push(cache(&data_dir.join(".taskwright/cache")));
    checks
}

/// It will be made: then its nearest parent must allow that.
fn not_there(data_dir: &Path) -> Check {
    let parent = data_dir.ancestors().skip(1).find(|parent| parent.is_dir());
    match parent.map(probe) {
        Some(Ok(_)) => Check::ok(
            DIRECTORY,
            format!("{} is not there yet and will be made", data_dir.display()),
        ),
        _ => Check::fail(
            DIRECTORY,
            format!("{} is not there and cannot be made", data_dir.display()),
            "make it for the daemon's user, or choose another --data-dir",
        ),
    }
}

/// A file of ours, removed when it is dropped.
struct Probe {
    file: File,
    path: PathBuf,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn probe(folder: &Path) -> io::Result<Probe> {
    let path = folder.join(format!(".taskwright-doctor-{}", std::process::id()));
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    Ok(Probe { file, path })
}

fn holes(probe: &Probe) -> Check {
    const BLOCK: usize = 64 << 10;
    let punched = (|| -> io::Result<()> {
        std::io::Write::write_all(&mut &probe.file, &vec![1; 3 * BLOCK])?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&probe.file, flags, BLOCK as u64, BLOCK as u64)?)
    })();
    match punched {
        Ok(()) => Check::ok(
            HOLES,
            "the middle of a long output can be given back to the disk",
        ),
        Err(error) => Check::warn(
            HOLES,
            format!("not supported here: {error}; a long output keeps its head only"),
            "use ext4, xfs, btrfs or tmpfs for the data directory",
        ),
    }
}

fn room(data_dir: &Path) -> Check {
    let Ok(found) = statvfs(data_dir) else {
        return Check::warn(ROOM, "the file system does not tell", "look yourself");
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let told = format!("{} MiB are free", free >> 20);
    if free < LITTLE_ROOM {
        return Check::warn(ROOM, told, "make room: a full disk stops new tasks");
    }
    if found.f_files > 0 && found.f_favail < 10_000 {
        let told = format!("{} files can still be made", found.f_favail);
        return Check::warn(ROOM, told, "make room for files: each task needs four");
    }
    Check::ok(ROOM, told)
}

fn cache(path: &Path) -> Check {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Check::ok(CACHE, "empty: the next start compiles the plugins");
    };
    if !found.is_dir() || found.mode() & 0o077 != 0 {
        return Check::warn(
            CACHE,
            format!(
                "{} is open to others and therefore not used",
                path.display()
            ),
            format!("chmod 700 {}", path.display()),
        );
    }
    Check::ok(CACHE, path.display().to_string())
}
