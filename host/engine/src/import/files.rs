//! `files`: small files of a task, in a directory that nothing leads out of.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::rooted::{self, Fault, MOST_CALL_BYTES, MOST_DEPTH};
use crate::bindings::files::{Error, Host};
use crate::call::CallState;

/// Bytes of all files of a task.
const MOST_TASK_BYTES: u64 = 64 << 20;
/// Files and directories of a task.
const MOST_ENTRIES: usize = 4096;
/// What new bytes are called until they are whole. Calls of one attempt come one after the other,
/// so one name is enough.
const FRESH: &str = ".new";

impl Host for CallState {
    async fn read(
        &mut self,
        path: String,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        self.on_disk("files.read", path, move |scratch, path| {
            rooted::read(&scratch.open()?, path, offset, length)
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
            rooted::replace(&root, path, &bytes, FRESH)
        })
        .await
    }

    async fn remove(&mut self, path: String) -> wasmtime::Result<Result<(), Error>> {
        self.on_disk("files.remove", path, |scratch, path| match scratch.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            root => Ok(rooted::remove(&root?, path)?),
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
        if let Err(sentence) = rooted::check_path(&path) {
            return Ok(Err(Error::BadPath(sentence.to_owned())));
        }
        let scratch = Scratch((self.host.scratch_directory)(given.task.id));
        self.outlast(function, async move {
            tokio::task::spawn_blocking(move || {
                work(&scratch, &path).map_err(|fault| told(fault, &path))
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

fn told(fault: Fault, path: &str) -> Error {
    match fault {
        Fault::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            Error::NotFound(format!("there is no file {path:?}"))
        }
        Fault::Io(error) => Error::Io(format!("{path:?}: {error}")),
        Fault::TooLarge(sentence) => Error::TooLarge(sentence),
        Fault::NoFile => Error::BadPath(rooted::no_file(path)),
    }
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
