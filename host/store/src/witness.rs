//! A second opinion on how far the journal went.
//!
//! SQLite takes a damaged tail of its write-ahead log for one that was never
//! finished, and says nothing. So after each commit has returned, its number
//! is also written here. The file is not synced: after a power loss it may be
//! behind the database, but it is never ahead, because a commit is on disk
//! before its number is written. A witness that is ahead has seen commits that
//! the database no longer holds.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const MAGIC: [u8; 4] = *b"TWc1";
const LENGTH: usize = 24;

/// How far a journal went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Commits ever made.
    pub(crate) commits: u64,
    /// The highest feed number ever used; 0 before the first.
    pub(crate) last_sequence: u64,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Witness(File);

impl Witness {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        Ok(Self(file))
    }

    /// What was written last; `None` for a new, torn or foreign file.
    pub(crate) fn read(&self) -> io::Result<Option<Progress>> {
        let mut bytes = [0; LENGTH];
        match self.0.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes in place: the file never grows, so a full disk is no obstacle.
    pub(crate) fn write(&self, progress: Progress) -> io::Result<()> {
        self.0.write_all_at(&encode(progress), 0)
    }
}

fn encode(progress: Progress) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let parts = MAGIC
        .into_iter()
        .chain(progress.commits.to_le_bytes())
        .chain(progress.last_sequence.to_le_bytes());
    for (place, byte) in bytes.iter_mut().zip(parts) {
        *place = byte;
    }
    if let Some((body, sum)) = bytes.split_last_chunk_mut::<4>() {
        *sum = crc32fast::hash(body).to_le_bytes();
    }
    bytes
}

fn decode(bytes: &[u8; LENGTH]) -> Option<Progress> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    let rest = body.strip_prefix(&MAGIC)?;
    let (commits, rest) = rest.split_first_chunk::<8>()?;
    let (last_sequence, _) = rest.split_first_chunk::<8>()?;
    Some(Progress {
        commits: u64::from_le_bytes(*commits),
        last_sequence: u64::from_le_bytes(*last_sequence),
    })
}
