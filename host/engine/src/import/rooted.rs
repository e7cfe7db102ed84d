//! Files below a directory that nothing leads out of: what `files` and `directories` have in
//! common.
//!
//! Every path goes through a directory handle of cap-std, which resolves it
//! component by component below that directory; a link that leads outside is
//! an error, not a way, whoever exchanges it meanwhile.

use std::io::{self, Read, Seek, SeekFrom, Write};

use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;

/// Bytes read or written in one call of a host function.
pub(super) const MOST_CALL_BYTES: usize = 1 << 20;
/// Directories within directories.
pub(super) const MOST_DEPTH: usize = 16;
/// Bytes of a path.
const MOST_PATH_BYTES: usize = 1024;

/// Why it was not done.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    TooLarge(String),
    /// It leads to something that is no plain file.
    NoFile,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What people are told of something that is neither opened nor waited for.
pub(super) fn no_file(path: &str) -> String {
    format!("{path:?} is no plain file: only those are read and replaced")
}

/// Relative, with plain parts only. The directory handle would refuse the rest as well; this
/// says so in words and before anything is touched.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > MOST_PATH_BYTES {
        return Err("the path is longer than 1024 bytes");
    }
    if path.contains('\0') {
        return Err("the path holds NUL");
    }
    let mut depth = 0;
    for part in path.split('/') {
        depth += 1;
        if matches!(part, "" | "." | "..") {
            return Err("a path is relative, of names with / between them, without . and ..");
        }
    }
    if depth > MOST_DEPTH {
        return Err("the path has more than 16 parts");
    }
    Ok(())
}

/// Up to `length` bytes from `offset`, and never more than one call may bring.
pub(super) fn read(root: &Dir, path: &str, offset: u64, length: u32) -> Result<Vec<u8>, Fault> {
    let most = MOST_CALL_BYTES.min(length as usize);
    let mut file = open(root, path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a plain file. A pipe would be waited for, and a device may do something when it is
/// opened: it is looked at before, and again once it is open, as it may be another one by then.
fn open(root: &Dir, path: &str) -> Result<File, Fault> {
    if !root.metadata(path)?.is_file() {
        return Err(Fault::NoFile);
    }
    let mut options = OpenOptions::new();
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = root.open_with(path, &options)?;
    if !file.metadata()?.is_file() {
        return Err(Fault::NoFile);
    }
    Ok(file)
}

/// Writes under the name `fresh` beside the file and renames, so readers see the old bytes or the
/// new ones. Nobody else may use that name meanwhile.
pub(super) fn replace(root: &Dir, path: &str, bytes: &[u8], fresh: &str) -> Result<(), Fault> {
    let (directory, name) = match path.rsplit_once('/') {
        Some((parent, name)) => {
            root.create_dir_all(parent)?;
            (root.open_dir(parent)?, name)
        }
        None => (root.try_clone()?, path),
    };
    match directory.symlink_metadata(name) {
        Ok(there) if !there.is_file() && !there.is_symlink() => return Err(Fault::NoFile),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut options = OpenOptions::new();
    // Made by this call and no other: whatever lay there is not written to.
    options.write(true).create_new(true).mode(0o600);
    let written = remove(&directory, fresh)
        .and_then(|()| directory.open_with(fresh, &options))
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| directory.rename(fresh, &directory, name));
    if written.is_err() {
        // Best effort: the failure itself is what is told.
        let _ = directory.remove_file(fresh);
    }
    Ok(written?)
}

/// Removes a file or a link; what is not there is removed.
pub(super) fn remove(root: &Dir, path: &str) -> io::Result<()> {
    match root.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    //! What lies in such a directory may be anybody's doing.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use cap_std::ambient_authority;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn rooted() -> (tempfile::TempDir, Dir) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("secret"), "outside").unwrap();
        let root = Dir::open_ambient_dir(folder.path().join("in"), ambient_authority()).unwrap();
        (folder, root)
    }

    fn pipe(path: &std::path::Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let (folder, root) = rooted();
        for (name, target) in [
            ("up", "../secret"),
            ("absolute", "/etc/passwd"),
            ("directory", ".."),
            ("magic", "/proc/self/root"),
            ("loop", "loop"),
        ] {
            symlink(target, folder.path().join("in").join(name)).unwrap();
        }
        for path in [
            "up",
            "absolute",
            "directory/secret",
            "magic/etc/passwd",
            "loop",
        ] {
            assert!(read(&root, path, 0, 9).is_err(), "{path}");
        }
        for path in ["directory/new", "magic/tmp/new"] {
            assert!(replace(&root, path, b"x", ".new").is_err(), "{path}");
        }
        // A link is replaced by what is written to it, and what it led to stays.
        replace(&root, "up", b"mine", ".new").unwrap();
        assert_eq!(read(&root, "up", 0, 9).unwrap(), b"mine");
        let kept = std::fs::read(folder.path().join("secret")).unwrap();
        assert_eq!(kept, b"outside");
        symlink("../secret", folder.path().join("in/.new")).unwrap();
        replace(&root, "other", b"mine", ".new").unwrap();
        let kept = std::fs::read(folder.path().join("secret")).unwrap();
        assert_eq!(kept, b"outside");
    }

    #[test]
    fn pipes_and_devices_are_not_waited_for() {
        let (folder, root) = rooted();
        pipe(&folder.path().join("in/pipe"));
        pipe(&folder.path().join("in/.new"));
        assert!(matches!(read(&root, "pipe", 0, 9), Err(Fault::NoFile)));
        let refused = replace(&root, "pipe", b"x", ".new");
        assert!(matches!(refused, Err(Fault::NoFile)));
        replace(&root, "file", b"x", ".new").unwrap();
        std::fs::create_dir(folder.path().join("in/folder")).unwrap();
        assert!(read(&root, "folder", 0, 9).is_err());
        assert!(replace(&root, "folder", b"x", ".new").is_err());
        let devices = Dir::open_ambient_dir("/dev", ambient_authority()).unwrap();
        assert!(matches!(read(&devices, "zero", 0, 9), Err(Fault::NoFile)));
    }

    #[test]
    fn a_link_that_is_exchanged_all_the_time_never_leads_outside() {
        let (folder, root) = rooted();
        let (inside, own) = (folder.path().join("in"), folder.path().join("in/own"));
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("secret"), "inside").unwrap();
        symlink("own", inside.join("link")).unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (link, next) = (inside.join("link"), inside.join("next"));
                while !ended.load(Ordering::Relaxed) {
                    for target in ["own", ".."] {
                        let _ = std::fs::remove_file(&next);
                        symlink(target, &next).unwrap();
                        std::fs::rename(&next, &link).unwrap();
                    }
                }
            });
            for round in 0..2000_u32 {
                if let Ok(bytes) = read(&root, "link/secret", 0, 9) {
                    assert_eq!(bytes, b"inside", "in round {round}");
                }
                let _ = replace(&root, "link/secret", b"inside", ".fresh");
            }
            ended.store(true, Ordering::Relaxed);
        });
        let kept = std::fs::read(folder.path().join("secret")).unwrap();
        assert_eq!(kept, b"outside");
    }

    #[test]
    fn a_path_is_relative_and_small() {
        for good in ["a", "a/b.c", "..."] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        let (deep, long) = ("a/".repeat(16) + "a", "a".repeat(1025));
        for bad in [
            "", "/a", "a/", "a//b", ".", "../a", "a/../b", "a\0b", &deep, &long,
        ] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
