//! Where an export goes: a file that appears when it is whole, or standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::Format;
use super::kept::Kept;
use crate::failure::{Advise as _, advised};
use crate::output;

/// What the last line of rows begins with, and the last of a document.
const END_OF_LINES: &[u8] = b"{\"export\":";
const END_OF_DOCUMENT: &[u8] = b"]";
/// The last line is kept in memory; it is short.
const MOST_END: usize = 4096;

/// Where it goes.
pub(super) struct Sink {
    format: Format,
    place: Place,
    rows: u64,
    bytes: u64,
    /// The line that is arriving, as far as it has to be known to tell whether it is the last.
    head: Vec<u8>,
    line: Line,
    /// It could not be written: asking again does not help.
    failed: bool,
    /// Whether it begins anew after a cut.
    anew: bool,
}

enum Place {
    Stdout,
    File(Files),
}

struct Files {
    whole: PathBuf,
    partial: PathBuf,
    query: PathBuf,
    file: File,
}

/// Which line is arriving.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Too little of it is there to tell.
    Unknown,
    /// A row.
    Row,
    /// The last.
    End,
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

impl Sink {
    pub(super) fn stdout(format: Format) -> anyhow::Result<Self> {
        if format == Format::Parquet {
            let refused = anyhow!("Parquet is no text for standard output");
            return Err(refused).hint("name a file with -o");
        }
        Ok(Self::new(format, Place::Stdout))
    }

    fn new(format: Format, place: Place) -> Self {
        Self {
            format,
            place,
            rows: 0,
            bytes: 0,
            head: Vec::new(),
            line: Line::Unknown,
            failed: false,
            anew: format == Format::Parquet,
        }
    }

    /// What is told once more after a cut would be told twice.
    pub(super) fn beginning_anew(mut self, anew: bool) -> Self {
        self.anew |= anew;
        self
    }

    /// Opens FILE.partial, anew or to go on with; answers whether there is something in it.
    pub(super) fn file(
        path: &Path,
        format: Format,
        query: &str,
        resume: bool,
    ) -> anyhow::Result<(Self, bool)> {
        let (partial, asked) = (beside(path, ".partial"), beside(path, ".partial.query"));
        let there = resume && partial.exists();
        if there {
            let before = fs::read_to_string(&asked).unwrap_or_default();
            if before != query {
                let told = format!("{} was asked for with other words", partial.display());
                return Err(advised(
                    anyhow!(told),
                    format!("go on with those, or leave --resume out (they were: {before})"),
                ));
            }
        }
        let opening = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(!there)
            .open(&partial);
        let file = opening
            .with_context(|| format!("open {}", partial.display()))
            .hint("name a file in a directory that you may write to")?;
        fs::write(&asked, query).with_context(|| format!("write {}", asked.display()))?;
        let files = Files {
            whole: path.to_owned(),
            partial,
            query: asked,
            file,
        };
        Ok((Self::new(format, Place::File(files)), there))
    }

    /// Looks how far the file goes, and cuts off what is not whole.
    pub(super) fn look(&mut self) -> anyhow::Result<Kept> {
        let Place::File(files) = &mut self.place else {
            return Ok(Kept::default());
        };
        let kept = match self.anew {
            true => Ok(Kept::default()),
            false => Kept::of(&mut files.file, self.format),
        };
        let kept = kept
            .and_then(|kept| {
                files.file.set_len(kept.bytes)?;
                files.file.seek(SeekFrom::Start(kept.bytes))?;
                Ok(kept)
            })
            .with_context(|| format!("go on with {}", files.partial.display()))?;
        self.rows = kept.rows;
        self.bytes = kept.bytes;
        self.head.clear();
        self.line = Line::Unknown;
        Ok(kept)
    }

    /// Whether what was cut off can be gone on with at once.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self.place, Place::File(_)) && !self.failed
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes what arrived.
    pub(super) fn take(&mut self, data: &[u8]) -> anyhow::Result<()> {
        if self.format == Format::Parquet {
            return self.write(data);
        }
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            self.part_of_line(line)?;
            if line.ends_with(b"\n") {
                self.end_of_line()?;
            }
        }
        Ok(())
    }

    fn part_of_line(&mut self, part: &[u8]) -> anyhow::Result<()> {
        if self.line == Line::Row {
            return self.write(part);
        }
        self.head.extend_from_slice(part);
        let end = match self.format {
            Format::Aiopslab => END_OF_DOCUMENT,
            Format::Chat | Format::Tasks | Format::Parquet => END_OF_LINES,
        };
        if self.head.starts_with(end) {
            self.line = Line::End;
            if self.head.len() > MOST_END {
                return Err(anyhow!("the end of the export is too long"));
            }
        } else if self.head.len() >= end.len() {
            self.line = Line::Row;
            let head = std::mem::take(&mut self.head);
            return self.write(&head);
        }
        Ok(())
    }

    fn end_of_line(&mut self) -> anyhow::Result<()> {
        match self.line {
            Line::Row => {
                self.rows += 1;
                self.line = Line::Unknown;
            }
            // Whatever is that short is a row of nothing.
            Line::Unknown => {
                let head = std::mem::take(&mut self.head);
                self.write(&head)?;
            }
            // A document is only whole with it; rows are better off without.
            Line::End if self.format == Format::Aiopslab => {
                let head = self.head.clone();
                self.write(&head)?;
            }
            Line::End => {}
        }
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> anyhow::Result<()> {
        self.bytes += data.len() as u64;
        let written = match &mut self.place {
            Place::Stdout => output::write(data),
            Place::File(files) => files
                .file
                .write_all(data)
                .with_context(|| format!("write {}", files.partial.display())),
        };
        self.failed |= written.is_err();
        written
    }

    /// The cursor at the end of a whole export.
    pub(super) fn whole(&mut self) -> anyhow::Result<String> {
        let cut = || anyhow!("the export ends before its end");
        if self.format == Format::Parquet {
            let Place::File(files) = &self.place else {
                return Err(cut());
            };
            let file = files.file.try_clone().context("look at the file")?;
            return taskwright_api::export_cursor(file)
                .map_err(|told| anyhow!("the file is not whole: {told}"));
        }
        if self.line != Line::End || !self.head.ends_with(b"\n") {
            return Err(cut());
        }
        let text = match self.head.strip_prefix(b"]".as_slice()) {
            // What follows the list of tasks, as an object of its own.
            Some(rest) => [b"{".as_slice(), rest.strip_prefix(b",").unwrap_or(rest)].concat(),
            None => self.head.clone(),
        };
        let end: serde_json::Value = serde_json::from_slice(&text).context("read its end")?;
        let cursor = end.get("cursor").and_then(serde_json::Value::as_str);
        cursor.map(str::to_owned).ok_or_else(cut)
    }

    /// Makes the file appear, with its cursor beside it.
    pub(super) fn finish(self, cursor: &str) -> anyhow::Result<()> {
        let Place::File(files) = self.place else {
            return Ok(());
        };
        let finish = || -> std::io::Result<()> {
            files.file.sync_all()?;
            fs::rename(&files.partial, &files.whole)?;
            // After it: a cursor may be behind its file, never before.
            fs::write(beside(&files.whole, ".cursor"), format!("{cursor}\n"))?;
            fs::remove_file(&files.query)
        };
        finish().with_context(|| format!("write {}", files.whole.display()))
    }
}
