//! `files`: small files of a task, in a directory that nothing leads out of.
//!
//! Every path goes through a directory handle of cap-std, which resolves it
//! component by component below that directory; a link that leads outside is
//! an error, not a way.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};

use crate::bindings::files::{Error, Host};
use crate::call::CallState;

/// Bytes read or written in one call.
const MOST_CALL_BYTES: usize = 1 << 20;
/// Bytes of all files of a task.
const MOST_TASK_BYTES: u64 = 64 << 20;
/// Files and directories of a task.
const MOST_ENTRIES: usize = 4096;
/// Directories within directories.
const MOST_DEPTH: usize = 16;
/// What new bytes are called until they are whole.
const FRESH: &str = ".new";
/// Bytes of a path.
const MOST_PATH_BYTES: usize = 1024;

impl Host for CallState {
    async fn read(
        &mut self,
        path: String,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        self.on_disk("files.read", path, move |scratch, path| {
            let most = MOST_CALL_BYTES.min(length as usize);
            let mut file = scratch.open()?.open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(most as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        })
        .await
    }

    async fn write(&mut self, path: String, bytes: Vec<u8>) -> wasmtime::Result<Result<(), Error>> {
        self.on_disk("files.write", path, move |scratch, path| {
            if bytes.len() > MOST_CALL_BYTES {
                return Err(Fault::TooLarge(format!(
                    "{} bytes in one call, at most {MOST_CALL_BYTES} are taken",
                    bytes.len()
                )));
            }
            let root = scratch.make()?;
            let mut tally = Tally::default();
            tally.count(&root, 0)?;
            if tally.bytes + bytes.len() as u64 > MOST_TASK_BYTES
                || tally.entries >= MOST_ENTRIES
            {
                return Err(Fault::TooLarge(format!(
                    "the task keeps {} bytes in {} files already, of at most {MOST_TASK_BYTES} in {MOST_ENTRIES}",
                    tally.bytes, tally.entries
                )));
            }
            replace(&root, path, &bytes)
        })
        .await
    }

    async fn remove(&mut self, path: String) -> wasmtime::Result<Result<(), Error>> {
        self.on_disk("files.remove", path, |scratch, path| {
            match scratch.open().and_then(|root| root.remove_file(path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => Ok(removed?),
            }
        })
        .await
    }
}

impl CallState {
    /// Does work on the scratch directory, on a thread for blocking work.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        function: &'static str,
        path: String,
        work: impl FnOnce(&Scratch, &str) -> Result<T, Fault> + Send + 'static,
    ) -> wasmtime::Result<Result<T, Error>> {
        let Some(given) = self.scope.attempt() else {
            let sentence = "files are kept in start and on-event only";
            return Ok(Err(Error::Other(sentence.to_owned())));
        };
        if let Err(sentence) = check_path(&path) {
            return Ok(Err(Error::BadPath(sentence.to_owned())));
        }
        let scratch = Scratch((self.host.scratch_directory)(given.task.id));
        self.outlast(function, async move {
            tokio::task::spawn_blocking(move || {
                work(&scratch, &path).map_err(|fault| fault.told(&path))
            })
            .await
            .unwrap_or_else(|error| Err(Error::Other(error.to_string())))
        })
        .await
    }
}

/// The directory of a task's files, which may not be there yet.
struct Scratch(PathBuf);

impl Scratch {
    fn open(&self) -> io::Result<Dir> {
        Dir::open_ambient_dir(&self.0, ambient_authority())
    }

    fn make(&self) -> io::Result<Dir> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.0)?;
        self.open()
    }
}

/// Why it was not done.
enum Fault {
    Io(io::Error),
    TooLarge(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fault {
    fn told(self, path: &str) -> Error {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                Error::NotFound(format!("there is no file {path:?}"))
            }
            Self::Io(error) => Error::Io(format!("{path:?}: {error}")),
            Self::TooLarge(sentence) => Error::TooLarge(sentence),
        }
    }
}

/// Relative, with plain parts only. The directory handle would refuse the rest as well; this
/// says so in words and before anything is touched.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > MOST_PATH_BYTES {
        return Err("the path is longer than 1024 bytes");
    }
    if path.contains('\0') {
        return Err("the path holds NUL");
    }
    let mut depth = 0;
    for part in path.split('/') {
        depth += 1;
        if matches!(part, "" | "." | "..") {
            return Err("a path is relative, of names with / between them, without . and ..");
        }
    }
    if depth > MOST_DEPTH {
        return Err("the path has more than 16 parts");
    }
    Ok(())
}

/// Writes beside the file and renames, so readers see the old bytes or the new ones. Calls of
/// one attempt come one after the other, so one name for the new bytes is enough.
fn replace(root: &Dir, path: &str, bytes: &[u8]) -> Result<(), Fault> {
    let (directory, name) = match path.rsplit_once('/') {
        Some((parent, name)) => {
            root.create_dir_all(parent)?;
            (root.open_dir(parent)?, name)
        }
        None => (root.try_clone()?, path),
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = directory
        .open_with(FRESH, &options)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| directory.rename(FRESH, &directory, name));
    if written.is_err() {
        // Best effort: the next write takes it over.
        let _ = directory.remove_file(FRESH);
    }
    Ok(written?)
}

/// What a task keeps already.
#[derive(Default)]
struct Tally {
    bytes: u64,
    entries: usize,
}

impl Tally {
    fn count(&mut self, directory: &Dir, depth: usize) -> io::Result<()> {
        for entry in directory.entries()? {
            let entry = entry?;
            self.entries += 1;
            if self.entries >= MOST_ENTRIES {
                return Ok(());
            }
            let found = entry.metadata()?;
            if found.is_dir() && depth < MOST_DEPTH {
                self.count(&entry.open_dir()?, depth + 1)?;
            } else {
                self.bytes = self.bytes.saturating_add(found.len());
            }
        }
        Ok(())
    }
}
