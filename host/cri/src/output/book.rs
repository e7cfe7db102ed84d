//! How far each container's log has been carried over into its task's output files.
//!
//! The containers of an attempt write into the same two files, and the files' lengths are all
//! that a crash is sure to leave. So the book tells, on disk, who alone may have appended since
//! which lengths, and where in its log that one was then: what was appended since is its, and
//! that much of its log is passed over when it is read again. The book is written before somebody
//! else appends, and when a log is rotated.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use taskwright_capability::{OutputSink, OutputStream};
use taskwright_model::UnitName;

use super::Pair;

const FILE: &str = "output.book";
const FIRST_LINE: &str = "taskwright output book 1";
/// After so many bytes by one writer the book is written anew, so that little must be read again
/// after a crash.
const WRITE_AFTER: u64 = 4 * 1024 * 1024;

/// A place in a container's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// How many times the log was rotated before.
    pub(crate) generation: u64,
    /// Where the line begins.
    pub(crate) line: u64,
    /// How much of what was printed this line has told so far.
    pub(crate) told: u64,
    /// How much of what is told from there on is in the files already.
    pub(crate) ahead: Pair,
}

/// Whether what is written must outlive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durably {
    Yes,
    No,
}

/// The book of one attempt, shared by its containers.
#[derive(Clone)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

struct Pages {
    /// The attempt's own directory, where the book and the logs are.
    place: PathBuf,
    /// The task's directory, where the output goes.
    directory: PathBuf,
    sink: Arc<dyn OutputSink>,
    /// As on disk.
    written: Page,
    /// As in fact.
    now: Page,
    /// Nobody appends any more: another reader may have begun.
    closed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Page {
    lengths: Pair,
    writer: Option<UnitName>,
    positions: BTreeMap<UnitName, Position>,
}

impl Book {
    /// Opens the book of an attempt, or begins it. Blocks on the disk.
    ///
    /// # Errors
    /// When the output files cannot be looked at.
    pub(crate) fn open(
        place: &Path,
        directory: &Path,
        sink: Arc<dyn OutputSink>,
    ) -> io::Result<Self> {
        let written = read(&place.join(FILE))?.unwrap_or_default();
        let now = written.clone();
        let mut pages = Pages {
            place: place.to_owned(),
            directory: directory.to_owned(),
            sink,
            written,
            now,
            closed: false,
        };
        // What was appended since the page was written is its writer's.
        pages.now.lengths = pages.lengths()?;
        if let Some(writer) = pages.written.writer.clone() {
            pages.note_ahead(&writer, pages.written.lengths);
        }
        Ok(Self(Arc::new(Mutex::new(pages))))
    }

    /// Enters a container that has not printed yet; one that is in it already is left as it is.
    /// Must be done before the container starts. Blocks on the disk.
    ///
    /// # Errors
    /// When the book cannot be written.
    pub(crate) fn enter(&self, unit: &UnitName) -> io::Result<()> {
        let mut pages = self.0.lock();
        if pages.now.positions.contains_key(unit) {
            return Ok(());
        }
        let mut page = pages.now.clone();
        page.positions.insert(unit.clone(), Position::default());
        pages.write(page.clone(), Durably::Yes)?;
        pages.now = page;
        Ok(())
    }

    /// Where to go on with a container's log.
    pub(crate) fn resume(&self, unit: &UnitName) -> Position {
        let mut pages = self.0.lock();
        if let Some(known) = pages.now.positions.get(unit) {
            return *known;
        }
        tracing::warn!(
            place = %pages.place.display(),
            unit = %unit,
            "it is not known how much of a container's log is in its output; it is read from its \
             beginning, and may appear twice"
        );
        let beginning = Position::default();
        pages.now.positions.insert(unit.clone(), beginning);
        beginning
    }

    /// Appends for a container whose log was read up to `position` with this. After a failure
    /// the reader must begin again with [`Book::resume`]. Blocks on the disk.
    ///
    /// # Errors
    /// When not everything could be appended.
    pub(crate) fn append(
        &self,
        unit: &UnitName,
        stdout: &[u8],
        stderr: &[u8],
        position: Position,
    ) -> io::Result<()> {
        let mut pages = self.0.lock();
        if pages.closed {
            return Err(io::Error::other("its output is no longer kept"));
        }
        let new = !(stdout.is_empty() && stderr.is_empty());
        if new && pages.now.writer.as_ref() != Some(unit) {
            let mut page = pages.now.clone();
            page.writer = Some(unit.clone());
            page.lengths = pages.lengths()?;
            pages.write(page.clone(), Durably::No)?;
            pages.now = page;
        }
        let before = pages.now.lengths;
        let both = [
            (OutputStream::Stdout, stdout),
            (OutputStream::Stderr, stderr),
        ];
        for (stream, bytes) in both {
            if bytes.is_empty() {
                continue;
            }
            if let Err(error) = pages.sink.append(&pages.directory, stream, bytes) {
                pages.stay_behind(unit, stream, before);
                return Err(error);
            }
            *pages.now.lengths.of(stream) += bytes.len() as u64;
        }
        pages.now.positions.insert(unit.clone(), position);
        let grown = |stream| {
            let was = pages.written.lengths.get(stream);
            pages.now.lengths.get(stream).saturating_sub(was)
        };
        if grown(OutputStream::Stdout) + grown(OutputStream::Stderr) > WRITE_AFTER {
            let page = pages.now.clone();
            pages.write(page, Durably::No)?;
        }
        Ok(())
    }

    /// Puts down that a container's log goes on in its next generation. Blocks on the disk.
    ///
    /// # Errors
    /// When the book cannot be written.
    pub(crate) fn turn(&self, unit: &UnitName, generation: u64) -> io::Result<()> {
        let mut pages = self.0.lock();
        let position = Position {
            generation,
            ..Position::default()
        };
        let mut page = pages.now.clone();
        page.positions.insert(unit.clone(), position);
        pages.write(page.clone(), Durably::Yes)?;
        pages.now = page;
        Ok(())
    }

    /// Ends all appending, for good.
    pub(crate) fn close(&self) {
        self.0.lock().closed = true;
    }
}

impl Pages {
    fn lengths(&self) -> io::Result<Pair> {
        Ok(Pair {
            stdout: self.sink.length(&self.directory, OutputStream::Stdout)?,
            stderr: self.sink.length(&self.directory, OutputStream::Stderr)?,
        })
    }

    /// An append to `failed` got only so far: what did reach the files is noted at the place
    /// where the reader was before, so that somebody else may append meanwhile.
    fn stay_behind(&mut self, unit: &UnitName, failed: OutputStream, before: Pair) {
        if let Ok(length) = self.sink.length(&self.directory, failed) {
            *self.now.lengths.of(failed) = length;
        }
        self.note_ahead(unit, before);
    }

    /// What the files grew by since `before` is told by `unit`'s log after its position.
    fn note_ahead(&mut self, unit: &UnitName, before: Pair) {
        let lengths = self.now.lengths;
        let position = self.now.positions.entry(unit.clone()).or_default();
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            *position.ahead.of(stream) += lengths.get(stream).saturating_sub(before.get(stream));
        }
    }

    fn write(&mut self, page: Page, durably: Durably) -> io::Result<()> {
        let path = self.place.join(FILE);
        let new = self.place.join("output.book.new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text(&page).as_bytes())?;
        if durably == Durably::Yes {
            file.sync_data()?;
        }
        std::fs::rename(&new, &path)?;
        if durably == Durably::Yes {
            File::open(&self.place)?.sync_all()?;
        }
        self.written = page;
        Ok(())
    }
}

fn text(page: &Page) -> String {
    let mut text = format!(
        "{FIRST_LINE}\nlengths {} {}\n",
        page.lengths.stdout, page.lengths.stderr
    );
    if let Some(writer) = &page.writer {
        text.push_str(&format!("writer {writer}\n"));
    }
    for (unit, at) in &page.positions {
        let line = format!(
            "unit {unit} {} {} {} {} {}\n",
            at.generation, at.line, at.told, at.ahead.stdout, at.ahead.stderr
        );
        text.push_str(&line);
    }
    text.push_str("end\n");
    text
}

/// `None` when there is no book, or none that can be understood.
fn read(path: &Path) -> io::Result<Option<Page>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let page = parse(&String::from_utf8_lossy(&bytes));
            if page.is_none() {
                tracing::warn!(path = %path.display(), "the book of an attempt's output is damaged");
            }
            Ok(page)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Option<Page> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    let mut page = Page::default();
    for line in lines {
        let mut words = line.split(' ');
        let word = words.next()?;
        let number = |words: &mut std::str::Split<'_, char>| words.next()?.parse::<u64>().ok();
        match word {
            "end" => return Some(page),
            "lengths" => {
                page.lengths.stdout = number(&mut words)?;
                page.lengths.stderr = number(&mut words)?;
            }
            "writer" => page.writer = Some(UnitName::parse(words.next()?).ok()?),
            "unit" => {
                let unit = UnitName::parse(words.next()?).ok()?;
                let position = Position {
                    generation: number(&mut words)?,
                    line: number(&mut words)?,
                    told: number(&mut words)?,
                    ahead: Pair {
                        stdout: number(&mut words)?,
                        stderr: number(&mut words)?,
                    },
                };
                page.positions.insert(unit, position);
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_page_is_read_back() {
        let mut page = Page {
            lengths: Pair {
                stdout: 5,
                stderr: 7,
            },
            writer: Some(UnitName::parse("main").unwrap()),
            positions: BTreeMap::new(),
        };
        for (name, generation) in [("main", 3), ("side", 0)] {
            let position = Position {
                generation,
                line: 12,
                told: 4,
                ahead: Pair {
                    stdout: 1,
                    stderr: 0,
                },
            };
            page.positions
                .insert(UnitName::parse(name).unwrap(), position);
        }
        assert_eq!(parse(&text(&page)), Some(page));
    }

    #[test]
    fn a_torn_page_is_no_page() {
        let whole = text(&Page::default());
        for length in 0..whole.len() - 1 {
            assert_eq!(parse(whole.get(..length).unwrap()), None, "{length}");
        }
    }
}
