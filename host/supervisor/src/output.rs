//! Reading what tasks print, by offset, without following a link out of the data directory.
//!
//! Offsets count every byte that was ever printed. The middle of a long output
//! is given back to the disk as a hole, so an offset keeps its meaning and a
//! reader that asks for a dropped byte is told where the next one is.

use std::ffi::CStr;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cap_fs_ext::DirExt as _;
use cap_std::fs::Dir;
use taskwright_model::Timestamp;
use taskwright_native::files::{self, Access};

use crate::remove::remove_tree;

pub use taskwright_capability::OutputStream;

/// The file of an output.
pub(crate) trait OutputFile: Sized {
    /// Both outputs of a task.
    const BOTH: [Self; 2];

    /// Its name in the task's directory.
    fn file_name(self) -> &'static CStr;
}

impl OutputFile for OutputStream {
    const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    fn file_name(self) -> &'static CStr {
        match self {
            Self::Stdout => c"stdout.log",
            Self::Stderr => c"stderr.log",
        }
    }
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPiece {
    /// Where `bytes` begin. Above the offset asked for when the bytes between were dropped.
    pub offset: u64,
    /// The bytes; empty at the end.
    pub bytes: Vec<u8>,
    /// How much was printed so far.
    pub end: u64,
}

/// The most bytes one read answers, whatever was asked for.
pub const MOST_READ_BYTES: usize = 4 * 1024 * 1024;

/// A mount at or below `directory`, if there is one: what a task mounted and did not unmount is
/// somebody else's and must not be removed through it (proc_pid_mountinfo(5), field 5).
fn mount_within(directory: &Path) -> io::Result<Option<String>> {
    let directory = std::fs::canonicalize(directory)?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(mounts
        .map(unescaped)
        .find(|mount| Path::new(mount).starts_with(&directory)))
}

/// A path of mountinfo: space, tab, newline and backslash stand there as octal escapes.
fn unescaped(text: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let replace = |text: String, (from, to): (&str, &str)| text.replace(from, to);
    escapes.into_iter().fold(text.to_owned(), replace)
}

/// Reads below one data directory. Task directories are given relative to it.
pub struct OutputReader {
    root: Dir,
    path: PathBuf,
}

impl OutputReader {
    /// A reader below `data_dir`.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let root = Dir::open_ambient_dir(data_dir, cap_std::ambient_authority())?;
        let path = data_dir.to_owned();
        Ok(Self { root, path })
    }

    /// Up to `most` bytes from `offset`. An output that does not exist yet is empty. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or is no ordinary file.
    pub fn read(
        &self,
        task_dir: &Path,
        stream: OutputStream,
        offset: u64,
        most: usize,
    ) -> io::Result<OutputPiece> {
        let nothing = |end: u64| OutputPiece {
            offset: offset.min(end),
            bytes: Vec::new(),
            end,
        };
        let file = match self.open_output(task_dir, stream) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nothing(0)),
            Err(error) => return Err(error),
        };
        let end = file.metadata()?.len();
        if offset >= end || most == 0 {
            return Ok(nothing(end));
        }
        let Some(from) = files::next_data(&file, offset)? else {
            // Only dropped bytes are left: go on where the next one will be.
            return Ok(OutputPiece {
                offset: end,
                bytes: Vec::new(),
                end,
            });
        };
        let until = files::next_hole(&file, from).unwrap_or(end);
        let length = usize::try_from(until.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(most).min(MOST_READ_BYTES)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, from + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(OutputPiece {
            offset: from,
            bytes,
            end,
        })
    }

    /// How much a stream printed so far; 0 when it does not exist yet.
    #[must_use]
    pub fn end(&self, task_dir: &Path, stream: OutputStream) -> u64 {
        self.open_dir(task_dir)
            .ok()
            .and_then(|dir| files::extent(&dir, stream.file_name()))
            .map_or(0, |(length, _)| length)
    }

    /// Resolves when a stream has grown beyond `end`, or after `at_most`.
    ///
    /// Looks again after 2 ms, then ever more rarely: a watch per reader would need a
    /// descriptor each, and users have few of those.
    pub async fn grown(&self, task_dir: &Path, stream: OutputStream, end: u64, at_most: Duration) {
        const LONGEST_PAUSE: Duration = Duration::from_millis(100);
        let deadline = tokio::time::Instant::now() + at_most;
        let mut pause = Duration::from_millis(2);
        while self.end(task_dir, stream) <= end {
            let now = tokio::time::Instant::now();
            if now >= deadline {
                return;
            }
            tokio::time::sleep(pause.min(deadline - now)).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// When a task last printed something; `None` when it never did.
    ///
    /// # Errors
    /// When it cannot be looked at. That there is no output yet is no error.
    pub fn last_output(&self, task_dir: &Path) -> io::Result<Option<Timestamp>> {
        let dir = match self.open_dir(task_dir) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut newest = None;
        for stream in OutputStream::BOTH {
            let found = match dir.symlink_metadata(stream.file_name().to_string_lossy().as_ref()) {
                Ok(found) if found.len() > 0 => found,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let modified = found.modified()?.into_std();
            let since = modified
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            newest = newest.max(Some(Timestamp::from_millis(millis)));
        }
        Ok(newest)
    }

    /// Removes a task's directory and all in it; a link is removed, not followed. One that is
    /// not there is fine.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn remove_task_dir(&self, task_dir: &Path) -> io::Result<()> {
        check_relative(task_dir)?;
        let found = match self.root.symlink_metadata(task_dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let removed = if found.is_dir() {
            if let Some(mount) = mount_within(&self.path.join(task_dir))? {
                let told = format!("{mount} is mounted there; unmount it, then it is removed");
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, told));
            }
            remove_tree(&self.root, task_dir)
        } else {
            self.root.remove_file(task_dir)
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn open_dir(&self, task_dir: &Path) -> io::Result<Dir> {
        check_relative(task_dir)?;
        self.root.open_dir_nofollow(task_dir)
    }

    fn open_output(&self, task_dir: &Path, stream: OutputStream) -> io::Result<std::fs::File> {
        let dir = self.open_dir(task_dir)?;
        files::open_existing(&dir, stream.file_name(), Access::Read)
    }
}

/// A path below the data directory, and not the data directory itself.
fn check_relative(path: &Path) -> io::Result<()> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.as_os_str().is_empty() || !path.components().all(plain) {
        let why = "a task directory is named relative to the data directory";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const STDOUT: OutputStream = OutputStream::Stdout;

    fn with_output(bytes: &[u8]) -> (tempfile::TempDir, OutputReader) {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("a")).unwrap();
        fs::write(data.path().join("a/stdout.log"), bytes).unwrap();
        let reader = OutputReader::open(data.path()).unwrap();
        (data, reader)
    }

    #[test]
    fn reading_goes_on_where_it_was_cut_off() {
        let (_data, reader) = with_output(b"one two three");
        let first = reader.read(Path::new("a"), STDOUT, 0, 4).unwrap();
        assert_eq!((first.bytes.as_slice(), first.end), (&b"one "[..], 13));
        let rest = reader.read(Path::new("a"), STDOUT, 4, 100).unwrap();
        assert_eq!(rest.bytes, b"two three");
        let end = reader.read(Path::new("a"), STDOUT, 13, 100).unwrap();
        assert_eq!((end.offset, end.bytes.len()), (13, 0));
    }

    #[test]
    fn an_output_that_does_not_exist_is_empty() {
        let (_data, reader) = with_output(b"");
        let nothing = reader.read(Path::new("b"), STDOUT, 7, 100).unwrap();
        assert_eq!((nothing.offset, nothing.end), (0, 0));
        assert_eq!(reader.last_output(Path::new("a")).unwrap(), None);
    }

    #[test]
    fn a_dropped_middle_is_a_jump_of_the_offset() {
        let (data, reader) = with_output(&vec![b'x'; 1024 * 1024]);
        let dir = fs::File::open(data.path().join("a")).unwrap();
        let file = files::open_existing(&dir, c"stdout.log", Access::Change).unwrap();
        files::punch_hole(&file, 65536, 524_288).unwrap();
        let head = reader.read(Path::new("a"), STDOUT, 0, 1 << 20).unwrap();
        assert_eq!((head.offset, head.bytes.len()), (0, 65536));
        let tail = reader.read(Path::new("a"), STDOUT, 65536, 1 << 20).unwrap();
        assert_eq!((tail.offset, tail.bytes.len()), (524_288, 524_288));
    }

    #[test]
    fn links_and_ways_out_are_refused() {
        let (data, reader) = with_output(b"secret");
        fs::create_dir(data.path().join("b")).unwrap();
        symlink(
            data.path().join("a/stdout.log"),
            data.path().join("b/stdout.log"),
        )
        .unwrap();
        symlink("a", data.path().join("c")).unwrap();
        for path in ["b", "c", "../a", "/a", ""] {
            assert!(
                reader.read(Path::new(path), STDOUT, 0, 10).is_err(),
                "{path}"
            );
        }
    }

    #[test]
    fn removing_a_link_leaves_what_it_points_to() {
        let (data, reader) = with_output(b"kept");
        symlink("a", data.path().join("c")).unwrap();
        reader.remove_task_dir(Path::new("c")).unwrap();
        assert!(data.path().join("a/stdout.log").exists());
        reader.remove_task_dir(Path::new("a")).unwrap();
        reader.remove_task_dir(Path::new("a")).unwrap();
        assert!(!data.path().join("a").exists());
        assert!(reader.remove_task_dir(Path::new("..")).is_err());
    }
}
