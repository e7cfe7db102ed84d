//! The file in which the calls of a plugin are noted: JSON Lines, a header and then a line for
//! each call.
//!
//! It holds what the plugin saw, secrets and environments of tasks included, so it is its owner's
//! alone. Nothing in it is needed by a daemon: one that cannot be written is told of once, and the
//! calls go on without.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use taskwright_capability::Capability;

use crate::limits::CallLimits;
use crate::load::Identity;

/// The form of the lines. Another number is another form.
const FORMAT: u32 = 1;
/// Bytes of one line. A call with more to it is noted as left out.
pub(crate) const MOST_LINE_BYTES: usize = 16 << 20;
/// Bytes of a file. It stops growing there.
const MOST_FILE_BYTES: u64 = 256 << 20;
/// Files of a directory. It takes no more then.
const MOST_FILES: usize = 256;
/// Names that are tried for a new file.
const MOST_NAMES: u64 = 100;

/// The directory that records are made in.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
}

/// The first line of a record: what its calls were made of and with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The form of the file.
    #[serde(rename = "taskwright-record")]
    format: u32,
    /// The plugin's name.
    pub plugin: String,
    /// Where it came from: `built-in`, or a path.
    pub origin: String,
    /// Of the component, or of the component and the script.
    pub digest: String,
    /// Whether it was a script.
    pub script: bool,
    /// The names of the capabilities it was lent.
    grants: Vec<String>,
    memory_bytes: usize,
    cpu_ms: u64,
    deadline_ms: u64,
    /// When it was begun, in milliseconds since 1970.
    pub begun_at_ms: u64,
}

impl Header {
    pub(crate) fn capabilities(&self) -> BTreeSet<Capability> {
        let known = Capability::ALL.into_iter();
        known
            .filter(|one| self.grants.iter().any(|word| word == one.as_str()))
            .collect()
    }

    pub(crate) fn limits(&self) -> CallLimits {
        CallLimits {
            memory_bytes: self.memory_bytes.min(crate::limits::MOST_MEMORY_BYTES),
            cpu: Duration::from_millis(self.cpu_ms),
            deadline: Duration::from_millis(self.deadline_ms),
        }
    }
}

/// A call as it was noted.
#[derive(Clone, Debug, Deserialize)]
pub struct NotedCall {
    /// The function that was called: `INTERFACE.NAME`.
    pub export: String,
    /// The plugin, and the task and attempt if there was one: what its random numbers follow from.
    pub(crate) about: String,
    #[serde(default)]
    pub(crate) http: bool,
    #[serde(default)]
    pub(crate) left_out: bool,
    #[serde(default)]
    pub(crate) arguments: Value,
    #[serde(default)]
    pub(crate) calls: Vec<HostCall>,
    /// There even if it is null, which some functions answer.
    #[serde(default, deserialize_with = "present")]
    pub(crate) answer: Option<Value>,
    pub(crate) error: Option<Value>,
}

/// What a call asked of the host.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct HostCall {
    pub(crate) function: String,
    #[serde(default)]
    pub(crate) arguments: Value,
    #[serde(default, deserialize_with = "present")]
    pub(crate) answer: Option<Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl fmt::Display for HostCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.function, self.arguments)
    }
}

impl Records {
    /// In this directory, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or others may write into it.
    pub fn in_directory(directory: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let mode = std::fs::metadata(directory)?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            let sentence = format!("others may write into it (mode {mode:o}): chmod go-w");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence));
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// Begins the record of a plugin. None where that cannot be had, which the log says.
    pub(crate) async fn begin(
        &self,
        plugin: &Identity,
        origin: &str,
        digest: &str,
    ) -> Option<Arc<Record>> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let limits = &plugin.limits;
        let header = Header {
            format: FORMAT,
            plugin: plugin.name.to_string(),
            origin: origin.to_owned(),
            digest: digest.to_owned(),
            script: plugin.is_script,
            grants: plugin
                .grants
                .capabilities
                .iter()
                .map(Capability::to_string)
                .collect(),
            memory_bytes: limits.memory_bytes,
            cpu_ms: millis(limits.cpu),
            deadline_ms: millis(limits.deadline),
            begun_at_ms: SystemTime::UNIX_EPOCH.elapsed().map_or(0, millis),
        };
        let (directory, name) = (self.directory.clone(), header.plugin.clone());
        let begun = tokio::task::spawn_blocking(move || Record::begin(&directory, &header)).await;
        let begun = begun.unwrap_or_else(|error| Err(io::Error::other(error)));
        begun
            .inspect_err(|error| {
                let directory = self.directory.display();
                tracing::error!(
                    plugin = name,
                    "its calls are not recorded in {directory}: {error}"
                );
            })
            .ok()
            .map(Arc::new)
    }
}

/// The record of one plugin, being written.
#[derive(Debug)]
pub(crate) struct Record {
    plugin: String,
    path: PathBuf,
    /// The file and its bytes.
    file: Mutex<(File, u64)>,
    /// Nothing is written any more.
    full: AtomicBool,
}

impl Record {
    fn begin(directory: &Path, header: &Header) -> io::Result<Self> {
        let found = std::fs::read_dir(directory)?.take(MOST_FILES).count();
        if found >= MOST_FILES {
            return Err(io::Error::other(format!(
                "it holds {MOST_FILES} files already: move some away"
            )));
        }
        let (path, file) = create(directory, header)?;
        let record = Self {
            plugin: header.plugin.clone(),
            path,
            file: Mutex::new((file, 0)),
            full: AtomicBool::new(false),
        };
        let mut line = serde_json::to_string(header)?;
        line.push('\n');
        record.append(&line)?;
        Ok(record)
    }

    /// Whether a call has anywhere to go.
    pub(crate) fn takes_more(&self) -> bool {
        !self.full.load(Ordering::Relaxed)
    }

    /// Adds a line. The first that cannot be added is the end of the record, and told of.
    pub(crate) fn write(&self, line: &str) {
        if let Err(error) = self.append(line)
            && !self.full.swap(true, Ordering::Relaxed)
        {
            let (plugin, path) = (&self.plugin, self.path.display());
            tracing::warn!(
                plugin,
                "no more of its calls are recorded in {path}: {error}"
            );
        }
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let (file, written) = &mut *self.file.lock();
        if !self.takes_more() {
            return Ok(());
        }
        let after = *written + line.len() as u64;
        if after > MOST_FILE_BYTES {
            let sentence = format!("it has {written} bytes, of at most {MOST_FILE_BYTES}");
            return Err(io::Error::other(sentence));
        }
        file.write_all(line.as_bytes())?;
        *written = after;
        Ok(())
    }
}

/// A new file of its own, which nobody else can read.
fn create(directory: &Path, header: &Header) -> io::Result<(PathBuf, File)> {
    let mut tried = Err(io::Error::other("it has no name left"));
    for further in 0..MOST_NAMES {
        let name = format!("{}-{}.jsonl", header.plugin, header.begun_at_ms + further);
        let path = directory.join(name);
        tried = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map(|file| (path, file));
        if !matches!(&tried, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
            break;
        }
    }
    tried
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be opened, or the disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not begin as one.
    #[error("it is no record of a plugin's calls: its first line is no header ({detail})")]
    NoHeader {
        /// What the reader said.
        detail: String,
    },
    /// It was written by another version.
    #[error("it is of format {found}, this version reads {FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
    /// A line is none.
    #[error("line {line} is no call: {detail}")]
    Broken {
        /// Counted from 1, with the header.
        line: usize,
        /// What the reader said.
        detail: String,
    },
    /// The last line has no end: whoever wrote it was ended, or the file was cut.
    #[error("it breaks off in line {line}")]
    BrokenOff {
        /// Counted from 1, with the header.
        line: usize,
    },
}

/// A record, being read.
pub struct RecordReader {
    file: BufReader<File>,
    line: usize,
}

impl RecordReader {
    /// Opens a record.
    ///
    /// # Errors
    /// When it cannot be read, or is none of this version.
    pub fn open(path: &Path) -> Result<(Header, Self), RecordError> {
        let file = OpenOptions::new()
            .read(true)
            // Opening a pipe would wait for whoever writes into it.
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(RecordError::Io(io::Error::other("it is no file")));
        }
        let mut reader = Self {
            file: BufReader::new(file),
            line: 0,
        };
        let no_header = |detail: String| RecordError::NoHeader { detail };
        let bytes = reader.next_line()?;
        let bytes = bytes.ok_or_else(|| no_header("it is empty".to_owned()))?;
        let header: Header =
            serde_json::from_slice(&bytes).map_err(|error| no_header(error.to_string()))?;
        if header.format != FORMAT {
            let found = header.format;
            return Err(RecordError::Format { found });
        }
        Ok((header, reader))
    }

    /// The next call; none at the end.
    ///
    /// # Errors
    /// When there is no whole call.
    pub fn next_call(&mut self) -> Result<Option<NotedCall>, RecordError> {
        let Some(bytes) = self.next_line()? else {
            return Ok(None);
        };
        let call = serde_json::from_slice(&bytes).map_err(|error| RecordError::Broken {
            line: self.line,
            detail: error.to_string(),
        })?;
        Ok(Some(call))
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, RecordError> {
        self.line += 1;
        let mut bytes = Vec::new();
        let most = MOST_LINE_BYTES as u64 + 1;
        (&mut self.file).take(most).read_until(b'\n', &mut bytes)?;
        let line = self.line;
        match bytes.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(bytes)),
            Some(_) if bytes.len() > MOST_LINE_BYTES => Err(RecordError::Broken {
                line,
                detail: format!("it has more than {MOST_LINE_BYTES} bytes"),
            }),
            Some(_) => Err(RecordError::BrokenOff { line }),
        }
    }
}

#[cfg(test)]
mod tests {
    //! What a record takes, and what is taken for one.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn header() -> Header {
        Header {
            format: FORMAT,
            plugin: "wrap".to_owned(),
            origin: "wrap.rhai".to_owned(),
            digest: "00".to_owned(),
            script: true,
            grants: vec!["process".to_owned()],
            memory_bytes: 1 << 20,
            cpu_ms: 1000,
            deadline_ms: 1000,
            begun_at_ms: 7,
        }
    }

    #[test]
    fn a_record_is_its_owners_alone_and_never_another_file() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join("wrap-7.jsonl")).unwrap();
        let record = Record::begin(folder.path(), &header()).unwrap();
        assert_eq!(record.path, folder.path().join("wrap-8.jsonl"));
        let mode = std::fs::metadata(&record.path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let shared = std::fs::Permissions::from_mode(0o770);
        std::fs::set_permissions(folder.path(), shared).unwrap();
        let told = Records::in_directory(folder.path())
            .unwrap_err()
            .to_string();
        assert!(told.contains("chmod go-w"), "{told}");
    }

    #[test]
    fn a_file_ends_at_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::begin(folder.path(), &header()).unwrap();
        record.file.lock().1 = MOST_FILE_BYTES - 4;
        record.write("123\n");
        assert!(record.takes_more());
        record.write("4\n");
        assert!(!record.takes_more());
        let kept = std::fs::read_to_string(&record.path).unwrap();
        assert!(kept.ends_with("123\n"), "{kept}");
    }

    #[test]
    fn what_is_no_record_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let good = serde_json::to_string(&header()).unwrap();
        let call = r#"{"export":"runtime.probe","about":"x","answer":{"Ok":null}}"#;
        for (text, expected) in [
            (String::new(), "it is empty"),
            ("{}\n".to_owned(), "no header"),
            (good.replace(":1,", ":2,") + "\n", "of format 2"),
            (format!("{good}\n{call}"), "breaks off in line 2"),
            (format!("{good}\n{call}\n{{}}\n"), "line 3 is no call"),
        ] {
            std::fs::write(&path, text).unwrap();
            let read = || {
                let (_, mut reader) = RecordReader::open(&path)?;
                while reader.next_call()?.is_some() {}
                Ok::<_, RecordError>(())
            };
            let told = read().unwrap_err().to_string();
            assert!(told.contains(expected), "{told} lacks {expected}");
        }
    }
}
