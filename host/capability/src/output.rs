//! Where the output of a unit goes that the host itself does not write into files.

use std::io;
use std::path::Path;

/// Which of a task's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// `stdout.log`.
    Stdout,
    /// `stderr.log`.
    Stderr,
}

/// Appends to the output files of tasks: made owner-only if missing, opened without following
/// links, kept below the cap by dropping the middle. Blocks on the disk.
pub trait OutputSink: Send + Sync + 'static {
    /// How many bytes were ever appended; 0 when there is no file yet. `directory` is the task's
    /// own, absolute.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    fn length(&self, directory: &Path, stream: OutputStream) -> io::Result<u64>;

    /// Appends `bytes`.
    ///
    /// # Errors
    /// When not all of them could be written; [`OutputSink::length`] tells how many were.
    fn append(&self, directory: &Path, stream: OutputStream, bytes: &[u8]) -> io::Result<()>;
}
