//! Room for the write-ahead log, made before it is needed.
//!
//! A commit that makes the log longer waits for the file system to write down the file's new
//! length and blocks, too; one that overwrites waits for its own bytes only, less than half as
//! long (docs/spec.md). SQLite reuses the log from its start after each checkpoint, so all that
//! is missing is the first round: it is filled with zeros here. SQLite takes a log of zeros, or
//! zeros behind its last frame, for nothing at all, as it takes frames of a former round.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// Zeros written at a time.
const PIECE: usize = 256 * 1024;
/// A disk with less room than so many logs is left alone.
const ROOM_FOR: u64 = 16;

/// Makes the log `bytes` long, if it is shorter. To be called by whoever holds the store's lock,
/// with no transaction open. Where it fails the log is as it was, or has some zeros at its end.
pub(crate) fn reserve(log: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(log)?;
    let before = file.metadata()?.len();
    let mut missing = bytes.saturating_sub(before);
    let disk = rustix::fs::fstatvfs(&file)?;
    let room = disk.f_bavail.saturating_mul(disk.f_frsize);
    if missing == 0 || room < bytes.saturating_mul(ROOM_FOR) {
        return Ok(());
    }
    let zeros = vec![0; PIECE];
    while missing > 0 {
        let step = usize::try_from(missing).map_or(PIECE, |missing| missing.min(PIECE));
        let piece = zeros.get(..step).unwrap_or_default();
        if let Err(error) = file.write_all(piece) {
            // Room for so little is better used by commits.
            file.set_len(before)?;
            return Err(error);
        }
        missing -= step as u64;
    }
    // Else the first commit would wait for all of it.
    file.sync_data()
}
