//! The append-only file of [`Record`]s: what survives this process.
//!
//! Plain writes without fsync: a crash of this process loses nothing that was
//! written, and a crash of the machine ends the processes it tells of, too.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::record::{MAGIC, Record};

/// Below this size a log is not worth rewriting.
const LEAST_REWRITTEN_BYTES: u64 = 4 * 1024 * 1024;

/// The open log. Records are gathered by [`Log::put`] and written by [`Log::flush`].
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// The length up to which the file is whole.
    length: u64,
    buffer: Vec<u8>,
    rewrite_above: u64,
}

/// What a log held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    /// What could not be read, for people; empty is good.
    pub(crate) damage: String,
}

impl Log {
    /// Opens or makes the log. A damaged tail is set aside beside it and cut off.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Found)> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (found, good) = parse(&bytes);
        if let Some(rest) = bytes.get(good..).filter(|rest| !rest.is_empty()) {
            let mut aside = path.to_owned();
            aside.add_extension("damaged");
            write_private(&aside, rest)?;
        }
        if good == 0 {
            file.set_len(0)?;
            file.write_all_at(MAGIC, 0)?;
        }
        let length = u64::try_from(good.max(MAGIC.len())).unwrap_or(u64::MAX);
        file.set_len(length)?;
        let log = Self {
            path: path.to_owned(),
            file,
            length,
            buffer: Vec::new(),
            rewrite_above: LEAST_REWRITTEN_BYTES,
        };
        Ok((log, found))
    }

    /// Gathers a record.
    pub(crate) fn put(&mut self, record: &Record) {
        record.put(&mut self.buffer);
    }

    /// Writes what was gathered. After a failure it stays gathered and the file stays whole.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all_at(&self.buffer, self.length) {
            let _cut_at_the_next_start_anyway = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Whether something gathered is not written yet.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Puts one record and writes it with all that was gathered. When that fails this record is
    /// forgotten again; what was gathered before stays.
    pub(crate) fn put_now(&mut self, record: &Record) -> io::Result<()> {
        let before = self.buffer.len();
        self.put(record);
        self.flush().inspect_err(|_| self.buffer.truncate(before))
    }

    /// Whether most of the file tells of units that are forgotten.
    pub(crate) fn wants_rewriting(&self) -> bool {
        self.length > self.rewrite_above
    }

    /// As if the file had grown long.
    #[cfg(test)]
    pub(crate) fn want_rewriting(&mut self) {
        self.rewrite_above = 0;
    }

    /// Replaces the file by one that holds exactly `records`, all of it or nothing.
    pub(crate) fn rewrite(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        for record in records {
            record.put(&mut bytes);
        }
        let mut beside = self.path.clone();
        beside.add_extension("new");
        let result = write_private(&beside, &bytes)
            .and_then(|file| std::fs::rename(&beside, &self.path).map(|()| file));
        // Whatever happened, not again before it has grown as much once more.
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match result {
            Ok(file) => {
                self.file = file;
                self.length = length;
                self.buffer.clear();
                self.rewrite_above = LEAST_REWRITTEN_BYTES.max(length.saturating_mul(2));
                Ok(())
            }
            Err(error) => {
                self.rewrite_above = self.length.saturating_add(LEAST_REWRITTEN_BYTES);
                Err(error)
            }
        }
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// The records up to the first damage, and up to where the bytes are whole.
fn parse(bytes: &[u8]) -> (Found, usize) {
    let mut found = Found::default();
    if bytes.is_empty() {
        return (found, 0);
    }
    if !bytes.starts_with(MAGIC) {
        found.damage = "the log does not begin as a log of this version; it was set aside".into();
        return (found, 0);
    }
    let mut at = MAGIC.len();
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match Record::take(rest) {
            Ok((record, taken)) => {
                found.records.extend(record);
                at += taken;
            }
            Err(error) => {
                found.damage = format!(
                    "the log is damaged at byte {at} ({error}); {} bytes after it were set aside",
                    rest.len()
                );
                break;
            }
        }
    }
    (found, at)
}

#[cfg(test)]
mod tests;
