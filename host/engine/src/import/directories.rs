//! `directories`: files in directories that the operator lent by name.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, FileType, MetadataExt as _};
use taskwright_capability::Directory;

use super::rooted::{self, Fault, MOST_CALL_BYTES};
use crate::bindings::directories::{Entry, Error, Host, Kind, Lent, Metadata};
use crate::call::CallState;
use crate::convert;

/// Bytes written in one call of the plugin.
const MOST_WRITTEN: u64 = 16 << 20;
/// Names that one list gives.
const MOST_LISTED: usize = 1000;
/// Names of a directory that are looked at.
const MOST_LOOKED_AT: usize = 1 << 16;
/// Bytes of a file system that are left to others.
const LEAST_FREE: u64 = 64 << 20;

impl Host for CallState {
    async fn all(&mut self) -> wasmtime::Result<Vec<Lent>> {
        let lent = self.plugin.grants.directories.iter();
        Ok(lent
            .map(|(name, directory)| Lent {
                name: name.clone(),
                write: directory.write,
            })
            .collect())
    }

    async fn read(
        &mut self,
        directory: String,
        path: String,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let lent = match self.lent_directory(&directory, &path, Root::Refused) {
            Ok(lent) => lent,
            Err(error) => return Ok(Err(error)),
        };
        self.in_directory("directories.read", lent, path, move |root, path| {
            rooted::read(root, path, offset, length)
        })
        .await
    }

    async fn list(
        &mut self,
        directory: String,
        path: String,
        after: Option<String>,
    ) -> wasmtime::Result<Result<Vec<Entry>, Error>> {
        let lent = match self.lent_directory(&directory, &path, Root::Taken) {
            Ok(lent) => lent,
            Err(error) => return Ok(Err(error)),
        };
        self.in_directory("directories.list", lent, path, move |root, path| {
            list(root, path, after.as_deref())
        })
        .await
    }

    async fn stat(
        &mut self,
        directory: String,
        path: String,
    ) -> wasmtime::Result<Result<Metadata, Error>> {
        let lent = match self.lent_directory(&directory, &path, Root::Taken) {
            Ok(lent) => lent,
            Err(error) => return Ok(Err(error)),
        };
        self.in_directory("directories.stat", lent, path, |root, path| {
            let found = match path {
                "" => root.dir_metadata()?,
                path => root.metadata(path)?,
            };
            let changed = found.modified().ok().map(|time| time.into_std());
            let changed = changed.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            Ok(Metadata {
                kind: kind(found.file_type()),
                size: found.size(),
                changed_ms: changed.map(millis),
            })
        })
        .await
    }

    async fn write(
        &mut self,
        directory: String,
        path: String,
        bytes: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let lent = match self.lent_to_change(&directory, &path) {
            Ok(lent) => lent,
            Err(error) => return Ok(Err(error)),
        };
        let size = bytes.len() as u64;
        let written = self.account.written.saturating_add(size);
        if bytes.len() > MOST_CALL_BYTES || written > MOST_WRITTEN {
            return Ok(Err(Error::TooLarge(format!(
                "{size} bytes for {path:?}: at most {MOST_CALL_BYTES} are written at a time, and \
                 {MOST_WRITTEN} in one call of the plugin"
            ))));
        }
        self.account.written = written;
        self.in_directory("directories.write", lent, path, move |root, path| {
            let disk = rustix::fs::fstatvfs(root).map_err(io::Error::from)?;
            if disk.f_bavail.saturating_mul(disk.f_frsize) < LEAST_FREE.saturating_add(size) {
                return Err(Fault::TooLarge(
                    "the file system is nearly full: its last 64 MiB are left to others".to_owned(),
                ));
            }
            rooted::replace(root, path, &bytes, &fresh())
        })
        .await
    }

    async fn remove(
        &mut self,
        directory: String,
        path: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        let lent = match self.lent_to_change(&directory, &path) {
            Ok(lent) => lent,
            Err(error) => return Ok(Err(error)),
        };
        self.in_directory("directories.remove", lent, path, |root, path| {
            Ok(rooted::remove(root, path)?)
        })
        .await
    }
}

/// Whether an empty path means the directory itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Taken,
    Refused,
}

impl CallState {
    /// The directory of this name, and whether the path may be one in it.
    fn lent_directory(&self, name: &str, path: &str, root: Root) -> Result<Directory, Error> {
        let Some(lent) = self.plugin.grants.directories.get(name) else {
            let plugin = &self.plugin.name;
            return Err(Error::Denied(convert::text(format!(
                "plugin {plugin} was lent no directory {name:?}: add `{name} = {{ path = \"/PATH\" }}` \
                 to `directories` under `[grants]` in {plugin}.toml"
            ))));
        };
        if !(path.is_empty() && root == Root::Taken) {
            rooted::check_path(path).map_err(|sentence| Error::BadPath(sentence.to_owned()))?;
        }
        Ok(lent.clone())
    }

    fn lent_to_change(&self, name: &str, path: &str) -> Result<Directory, Error> {
        let lent = self.lent_directory(name, path, Root::Refused)?;
        if !lent.write {
            let plugin = &self.plugin.name;
            return Err(Error::Denied(format!(
                "plugin {plugin} may only read in its directory {name:?}: add `write = true` to \
                 `{name}` of `directories` under `[grants]` in {plugin}.toml"
            )));
        }
        if self.scope.attempt().is_none() {
            let sentence = "files are written and removed in start and on-event only";
            return Err(Error::Denied(sentence.to_owned()));
        }
        Ok(lent)
    }

    /// Does work in a directory, on a thread for blocking work.
    async fn in_directory<T: Send + 'static>(
        &mut self,
        function: &'static str,
        lent: Directory,
        path: String,
        work: impl FnOnce(&Dir, &str) -> Result<T, Fault> + Send + 'static,
    ) -> wasmtime::Result<Result<T, Error>> {
        self.outlast(function, async move {
            tokio::task::spawn_blocking(move || {
                let root = Dir::open_ambient_dir(&lent.path, ambient_authority());
                root.map_err(Fault::from)
                    .and_then(|root| work(&root, &path))
                    .map_err(|fault| told(fault, &path))
            })
            .await
            .unwrap_or_else(|error| Err(Error::Other(error.to_string())))
        })
        .await
    }
}

fn told(fault: Fault, path: &str) -> Error {
    match fault {
        Fault::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            Error::NotFound(format!("there is no {path:?}"))
        }
        Fault::Io(error) => Error::Io(format!("{path:?}: {error}")),
        Fault::TooLarge(sentence) => Error::TooLarge(sentence),
        Fault::NoFile => Error::BadPath(rooted::no_file(path)),
    }
}

/// The names behind `after`, the least of them by their bytes.
fn list(root: &Dir, path: &str, after: Option<&str>) -> Result<Vec<Entry>, Fault> {
    let entries = match path {
        "" => root.entries()?,
        path => root.read_dir(path)?,
    };
    let mut least = BTreeMap::new();
    for (looked_at, entry) in entries.enumerate() {
        if looked_at >= MOST_LOOKED_AT {
            return Err(Fault::TooLarge(format!(
                "{path:?} holds more than {MOST_LOOKED_AT} names"
            )));
        }
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if after.is_some_and(|after| name.as_str() <= after) {
            continue;
        }
        // What was removed meanwhile is not there.
        if let Ok(found) = entry.file_type() {
            least.insert(name, kind(found));
        }
        if least.len() > MOST_LISTED {
            least.pop_last();
        }
    }
    let entries = least.into_iter();
    Ok(entries.map(|(name, kind)| Entry { name, kind }).collect())
}

fn kind(found: FileType) -> Kind {
    if found.is_file() {
        Kind::File
    } else if found.is_dir() {
        Kind::Directory
    } else if found.is_symlink() {
        Kind::Link
    } else {
        Kind::Other
    }
}

fn millis(since: Duration) -> u64 {
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A name for new bytes that no other call uses, of this daemon or of one before it.
fn fresh() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(".taskwright-{}-{number}.new", std::process::id())
}
