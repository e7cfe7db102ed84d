//! Reading one container's log, and the part of it that was rotated away.
//!
//! A log that grew too long is renamed after its generation, the runtime is told to begin a new
//! one, the old part is read to its end, the book is turned to the next generation, and the old
//! part is removed. A crash between any two of these is found and gone on from by what is there:
//!
//! | book says | on disk | so |
//! |---|---|---|
//! | g | `log` | nothing was rotated |
//! | g | `log.g` | it was renamed, and is still being written |
//! | g | `log.g`, `log` | a new one was begun: `log.g` first, then `log` |
//! | g+1 | `log.g`, `log` | `log.g` was read to its end: remove it |

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use taskwright_capability::OutputStream;
use taskwright_model::UnitName;

use super::Pair;
use super::book::{Book, Position};
use super::line::LogReader;

const BUFFER: usize = 256 * 1024;

/// How far a look at the log got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There was something, and there may be more.
    Some,
    /// Everything that is there was carried over.
    End,
    /// There is no log yet.
    NoLog,
}

/// Reads one container's log into its task's output.
pub(crate) struct Follower {
    place: PathBuf,
    unit: UnitName,
    book: Book,
    reading: Option<Reading>,
    /// Kept from one look to the next.
    buffer: Vec<u8>,
}

struct Reading {
    file: File,
    generation: u64,
    rotated: bool,
    offset: u64,
    reader: LogReader,
    /// How much of the first line is in the output already.
    told_before: u64,
    skip: Pair,
}

/// The name of a container's log below its attempt's directory.
pub(crate) fn log_name(unit: &UnitName) -> String {
    format!("{unit}.log")
}

impl Follower {
    pub(crate) fn new(place: &Path, unit: UnitName, book: Book) -> Self {
        Self {
            place: place.to_owned(),
            unit,
            book,
            reading: None,
            buffer: Vec::new(),
        }
    }

    /// Makes the log before the runtime does, so that it can be watched from its first byte on.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be made, or the book not be written.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.book.enter(&self.unit)?;
        let mut options = File::options();
        options.append(true).create(true).mode(0o600);
        options.open(self.log()).map(drop)
    }

    /// The path of the log that is being read.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.reading {
            Some(reading) if reading.rotated => self.part(reading.generation),
            Some(_) | None => self.log(),
        }
    }

    /// How long the log that is being read is.
    pub(crate) fn length(&self) -> u64 {
        let metadata = self.reading.as_ref().map(|reading| reading.file.metadata());
        metadata.and_then(Result::ok).map_or(0, |found| found.len())
    }

    /// Whether the log that is being read was renamed.
    pub(crate) fn is_rotated(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.rotated)
    }

    /// Whether the runtime has begun another log beside the one that was renamed.
    pub(crate) fn has_successor(&self) -> bool {
        self.is_rotated() && self.log().exists()
    }

    /// Carries over a piece of what there is. Blocks on the disk. After an error the next call
    /// begins again with what the book and the output files tell.
    ///
    /// # Errors
    /// When the log cannot be read or the output not be appended to.
    pub(crate) fn carry(&mut self) -> io::Result<Progress> {
        let carried = self.try_carry();
        if carried.is_err() {
            self.reading = None;
        }
        carried
    }

    fn try_carry(&mut self) -> io::Result<Progress> {
        if self.reading.is_none() {
            self.reading = self.open()?;
        }
        let Some(reading) = &mut self.reading else {
            return Ok(Progress::NoLog);
        };
        self.buffer.resize(BUFFER, 0);
        let count = reading.file.read_at(&mut self.buffer, reading.offset)?;
        let bytes = self.buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            self.buffer = Vec::new();
            return reading.at_end();
        }
        let garbage = reading.reader.garbage();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (told_before, skip) = (&mut reading.told_before, &mut reading.skip);
        reading.reader.feed(bytes, |stream, text| {
            let text = beyond(text, told_before);
            let text = beyond(text, skip.of(stream));
            match stream {
                OutputStream::Stdout => stdout.extend_from_slice(text),
                OutputStream::Stderr => stderr.extend_from_slice(text),
            }
        });
        reading.offset += count as u64;
        if garbage == 0 && reading.reader.garbage() > 0 {
            tracing::warn!(log = %self.place.join(log_name(&self.unit)).display(),
                "a container's log holds lines that are no entries; they are passed over");
        }
        let position = reading.position();
        self.book.append(&self.unit, &stdout, &stderr, position)?;
        Ok(Progress::Some)
    }

    /// The log by what the book and the directory tell.
    fn open(&self) -> io::Result<Option<Reading>> {
        let position = self.book.resume(&self.unit);
        let generation = position.generation;
        if let Some(before) = generation.checked_sub(1) {
            remove_if_there(&self.part(before))?;
        }
        let part = self.part(generation);
        let (file, rotated) = match open_plain(&part) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match open_plain(&self.log()) {
                    Ok(file) => (file, false),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        Ok(Some(Reading {
            file,
            generation,
            rotated,
            offset: position.line,
            reader: LogReader::new(),
            told_before: position.told,
            skip: position.ahead,
        }))
    }

    /// Renames the log that is being read; the runtime must be told afterwards. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        if !reading.rotated {
            let name = format!("{}.{}", log_name(&self.unit), reading.generation);
            std::fs::rename(self.place.join(log_name(&self.unit)), self.place.join(name))?;
            reading.rotated = true;
        }
        Ok(())
    }

    /// Turns from the renamed log, read to its end, to the next one. Blocks on the disk.
    ///
    /// # Errors
    /// When the book cannot be written or the old part not be removed.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        let Some(reading) = &self.reading else {
            return Ok(());
        };
        let generation = reading.generation;
        self.book.turn(&self.unit, generation + 1)?;
        self.reading = None;
        remove_if_there(&self.part(generation))
    }

    fn log(&self) -> PathBuf {
        self.place.join(log_name(&self.unit))
    }

    fn part(&self, generation: u64) -> PathBuf {
        self.place
            .join(format!("{}.{generation}", log_name(&self.unit)))
    }
}

impl Reading {
    fn position(&self) -> Position {
        let (in_line, told) = self.reader.unfinished();
        Position {
            generation: self.generation,
            line: self.offset.saturating_sub(in_line),
            told: told + self.told_before,
            ahead: self.skip,
        }
    }

    fn at_end(&mut self) -> io::Result<Progress> {
        let length = self.file.metadata()?.len();
        if length < self.offset {
            tracing::warn!(
                "a container's log was made shorter by somebody; it is read on from \
                its new end"
            );
            self.offset = length;
            self.reader = LogReader::new();
            self.told_before = 0;
        }
        if !self.skip.is_zero() {
            // What is in the output was read from this log, so it must have been there.
            tracing::warn!(
                "a container's output holds more than its log; it was changed by somebody"
            );
            self.skip = Pair::default();
        }
        Ok(Progress::End)
    }
}

/// What of `text` lies beyond the next `skip` bytes.
fn beyond<'a>(text: &'a [u8], skip: &mut u64) -> &'a [u8] {
    let length = usize::try_from(*skip).unwrap_or(usize::MAX).min(text.len());
    *skip -= length as u64;
    text.get(length..).unwrap_or_default()
}

/// An ordinary file. The directory is owner-only, but what stands there is still looked at.
fn open_plain(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other(format!(
        "{} is no ordinary file",
        path.display()
    )))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
