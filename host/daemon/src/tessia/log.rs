//! `output.log`: what a task prints, both of its streams in the order in which they came, and a
//! line of the runner's own at the start, every minute and at the end.
//!
//! It begins as a new file that takes the place of an older one, and only grows from then on.
//! Where it is begun again, after a restart of the daemon, it holds the same bytes again, one
//! stream behind the other.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{open_plain, replace, stamp};

/// Its name.
const NAME: &str = "output.log";

/// An `output.log` that grows.
#[derive(Debug)]
pub(crate) struct OutputLog {
    path: PathBuf,
    /// The most bytes that it takes.
    most: u64,
    written: u64,
    full: bool,
}

impl OutputLog {
    /// Begins one in `directory`, with the line that says so.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn begin(directory: &Path, most: u64, started: Timestamp) -> io::Result<Self> {
        let line = line(started, "Runner started");
        let path = directory.join(NAME);
        replace(&path, line.as_bytes())?;
        Ok(Self {
            path,
            most,
            written: line.len() as u64,
            full: false,
        })
    }

    /// Adds what was printed.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.full || bytes.is_empty() {
            return Ok(());
        }
        let room = usize::try_from(self.most.saturating_sub(self.written)).unwrap_or(usize::MAX);
        let fits = bytes.get(..room).unwrap_or(bytes);
        self.append(fits)?;
        if fits.len() < bytes.len() {
            self.full = true;
            self.append(b"\n[more was printed: it is in stdout.log and stderr.log]\n")?;
        }
        Ok(())
    }

    /// Adds a line of the runner's own. There is always room for it.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn say(&mut self, at: Timestamp, message: &str) -> io::Result<()> {
        self.append(line(at, message).as_bytes())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = open_plain(&self.path, OpenOptions::new().append(true))?;
        file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// What the runner says last of a task that ended with this code.
pub(crate) fn last_words(code: i32) -> &'static str {
    match code {
        -1 => "Runner cancelled",
        -2 => "Runner timed out",
        -3 => "Runner aborted",
        ..0 => "Runner lost its task",
        0.. => "Runner completed",
    }
}

/// A line as the original writes them.
fn line(at: Timestamp, message: &str) -> String {
    format!("[{}] INFO [task_runner.run:0] {message}\n", stamp(at))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn it_begins_anew_and_ends_where_it_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let read = || std::fs::read_to_string(folder.path().join(NAME)).unwrap();
        std::fs::write(folder.path().join(NAME), "old").unwrap();
        let mut log = OutputLog::begin(folder.path(), 1000, Timestamp::UNIX_EPOCH).unwrap();
        log.add(b"hello\n").unwrap();
        log.say(Timestamp::UNIX_EPOCH, "Still running").unwrap();
        let text = read();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.get(1), Some(&"hello"));
        let last = lines.last().unwrap();
        assert!(
            last.ends_with("] INFO [task_runner.run:0] Still running"),
            "{last}"
        );
        log.add(&[b'x'; 2000]).unwrap();
        log.add(b"never").unwrap();
        log.say(Timestamp::UNIX_EPOCH, "Runner completed").unwrap();
        let text = read();
        assert!(text.len() < 1200 && !text.contains("never"), "{text}");
        assert!(text.contains("more was printed") && text.ends_with("Runner completed\n"));
    }
}
