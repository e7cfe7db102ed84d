//! Appending to the output files of tasks from within the daemon, for what prints elsewhere than
//! into them.
//!
//! Nothing is kept open: a task that is quiet costs nothing, and a file that was put in the place
//! of another one is seen. Links are refused wherever they stand below the data directory.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use taskwright_capability::{OutputSink, OutputStream};
use taskwright_native::files;

use crate::cap;
use crate::output::OutputFile as _;

/// Writes below one data directory, and keeps each file below a cap.
#[derive(Clone, Debug)]
pub struct OutputWriter {
    data_dir: PathBuf,
    cap: u64,
}

/// Whether a directory that is missing is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Made,
    AnError,
}

impl OutputWriter {
    /// A writer below `data_dir`. A file that takes more than `cap` bytes of disk loses its
    /// middle.
    #[must_use]
    pub fn new(data_dir: PathBuf, cap: u64) -> Self {
        Self { data_dir, cap }
    }

    /// A task's directory, opened step by step without following a link.
    fn open(&self, directory: &Path, missing: Missing) -> io::Result<OwnedFd> {
        let outside = || {
            let why = format!("{} is not below the data directory", directory.display());
            io::Error::new(io::ErrorKind::InvalidInput, why)
        };
        let below = directory.strip_prefix(&self.data_dir);
        let below = below.map_err(|_| outside())?;
        if below.as_os_str().is_empty() {
            return Err(outside());
        }
        let mut opened = files::open_dir(&self.data_dir)?;
        for part in below.components() {
            let Component::Normal(name) = part else {
                return Err(outside());
            };
            let name = CString::new(name.as_bytes())?;
            opened = match missing {
                Missing::Made => files::open_or_make_dir(&opened, &name)?,
                Missing::AnError => files::open_existing_dir(&opened, &name)?,
            };
        }
        Ok(opened)
    }
}

impl OutputSink for OutputWriter {
    fn length(&self, directory: &Path, stream: OutputStream) -> io::Result<u64> {
        match self.open(directory, Missing::AnError) {
            Ok(dir) => Ok(files::extent(&dir, stream.file_name()).map_or(0, |(length, _)| length)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn append(&self, directory: &Path, stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
        let dir = self.open(directory, Missing::Made)?;
        let mut file = File::from(files::open_append(&dir, stream.file_name())?);
        file.write_all(bytes)?;
        let looked = cap::keep_below(&dir, stream.file_name(), self.cap);
        if let Err(error) = looked.and_then(|looked| looked.map_or(Ok(()), |found| found.kept)) {
            tracing::warn!(directory = %directory.display(), %error,
                "an output file cannot be made smaller");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    const STDOUT: OutputStream = OutputStream::Stdout;

    #[test]
    fn what_is_appended_is_counted() {
        let data = tempfile::tempdir().unwrap();
        let writer = OutputWriter::new(data.path().to_owned(), 1 << 20);
        let task = data.path().join("space/task");
        assert_eq!(writer.length(&task, STDOUT).unwrap(), 0);
        writer.append(&task, STDOUT, b"one ").unwrap();
        writer.append(&task, STDOUT, b"two").unwrap();
        assert_eq!(writer.length(&task, STDOUT).unwrap(), 7);
        assert_eq!(writer.length(&task, OutputStream::Stderr).unwrap(), 0);
        let file = task.join("stdout.log");
        assert_eq!(fs::read(&file).unwrap(), b"one two");
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(task.metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn beyond_the_cap_the_middle_goes_and_offsets_stay() {
        const MIB: usize = 1024 * 1024;
        let data = tempfile::tempdir().unwrap();
        let writer = OutputWriter::new(data.path().to_owned(), 4 * MIB as u64);
        let task = data.path().join("task");
        for part in 0..16_u8 {
            writer.append(&task, STDOUT, &vec![part + 1; MIB]).unwrap();
        }
        assert_eq!(writer.length(&task, STDOUT).unwrap(), 16 * MIB as u64);
        let bytes = fs::read(task.join("stdout.log")).unwrap();
        assert_eq!(bytes.first(), Some(&1));
        assert_eq!(bytes.last(), Some(&16));
        assert_eq!(bytes.get(8 * MIB), Some(&0), "the middle is a hole");
        let on_disk = task.join("stdout.log").metadata().unwrap().blocks() * 512;
        assert!(on_disk <= 5 * MIB as u64, "{on_disk}");
    }

    #[test]
    fn links_and_ways_out_are_refused() {
        let data = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("task")).unwrap();
        symlink(elsewhere.path(), data.path().join("link")).unwrap();
        symlink("/dev/null", data.path().join("task/stdout.log")).unwrap();
        let writer = OutputWriter::new(data.path().to_owned(), 1 << 20);
        for path in ["task", "link", "link/task", "", "../out", "task/../../out"] {
            let answer = writer.append(&data.path().join(path), STDOUT, b"x");
            assert!(answer.is_err(), "{path}");
        }
        assert!(writer.append(elsewhere.path(), STDOUT, b"x").is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
