//! The way from a directory to a checked, loaded store.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};
use taskwright_control::port::Recovered;
use taskwright_model::Timestamp;

use crate::history::SqliteFeedHistory;
use crate::journal::{Parts, SqliteJournal};
use crate::load::{self, Loaded};
use crate::lock::{Lock, LockError};
use crate::reserve;
use crate::salvage::{self, SalvageError, beside};
use crate::schema::{self, Found};
use crate::witness::{Progress, Witness};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The present time: it names files that are set aside and dates idempotency keys.
    pub now: Timestamp,
    /// Feed lines kept on record; older ones are removed bit by bit.
    pub feed_lines_kept: u64,
    /// The newest feed lines handed out with [`Recovered`].
    pub feed_lines_loaded: usize,
    /// Whether opening makes room for the log, 16 MiB, so that commits are faster from the first
    /// one on. For a store that is used for long.
    pub reserve_log: bool,
}

impl Options {
    /// The usual options, at this time.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            feed_lines_kept: 200_000,
            feed_lines_loaded: 10_000,
            reserve_log: true,
        }
    }
}

/// Why a store was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is a file where the directory should be.
    #[error("{} is not a directory: point --data-dir elsewhere, or move the file away", path.display())]
    NotADirectory {
        /// Where the directory should be.
        path: PathBuf,
    },
    /// The directory or a file in it may not be written.
    #[error("{} cannot be written: give this user the directory, or point --data-dir elsewhere", path.display())]
    NotWritable {
        /// What cannot be written.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no room.
    #[error("no room is left on the disk for {}: free some, or point --data-dir elsewhere", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// Another daemon works in this directory.
    #[error("{} is in use by {}: stop that one, or point --data-dir elsewhere", path.display(), holder(*pid))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other daemon's process, if it told.
        pid: Option<u32>,
    },
    /// It was written by a later version of this program.
    #[error(
        "{} was written by a newer taskwright (schema {found}, this one knows {}): \
         start that version, or point --data-dir elsewhere",
        path.display(), schema::VERSION
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// It is somebody else's database.
    #[error("{} is a database of another program: move it away, or point --data-dir elsewhere", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// Another failure of the file system.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another failure of SQLite.
    #[error("open the database {}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("another taskwright, process {pid}"),
        None => "another taskwright".to_owned(),
    }
}

/// The durable store on SQLite.
#[derive(Debug)]
pub enum Store {}

impl Store {
    /// Opens the store in `directory`, or makes one there; the directory and its files are for
    /// their owner only. Damage is set aside and told in [`Recovered::damage`], never deleted.
    ///
    /// # Errors
    /// [`OpenError`], whose message says what to do.
    pub fn open(
        directory: &Path,
        options: Options,
    ) -> Result<(SqliteJournal, SqliteFeedHistory, Recovered), OpenError> {
        prepare_directory(directory)?;
        let lock = Arc::new(take_lock(directory)?);
        let witness_path = directory.join("committed");
        let witness = Witness::open(&witness_path).map_err(io_error("open", &witness_path))?;
        let seen = witness.read().map_err(io_error("read", &witness_path))?;
        let path = directory.join("store.db");
        let (connection, mut loaded) = open_database(&path, seen, &options)?;
        let progress = level(loaded.progress, seen);
        if progress != loaded.progress {
            // Told once: from now on the lost commits count as made.
            schema::set_progress(&connection, progress)
                .map_err(|error| sqlite_error(&path, error))?;
        }
        witness
            .write(progress)
            .map_err(io_error("write", &witness_path))?;
        if options.reserve_log
            && let Err(error) = reserve::reserve(&beside(&path, "-wal"), schema::LOG_BYTES)
        {
            tracing::debug!(%error, "no room was made for the log: the first commits are slower");
        }
        let history = SqliteFeedHistory::open(&path, Arc::clone(&lock))
            .map_err(|error| sqlite_error(&path, error))?;
        for damage in &loaded.damage {
            tracing::warn!(%damage, "the store was damaged");
        }
        let recovered = Recovered {
            tasks: std::mem::take(&mut loaded.tasks),
            feed: loaded.feed,
            next_sequence: progress.last_sequence.saturating_add(1),
            idempotency: loaded.idempotency,
            damage: loaded.damage,
        };
        let journal = SqliteJournal::new(Parts {
            connection,
            witness,
            progress,
            oldest_line: loaded.oldest_line,
            lines_kept: options.feed_lines_kept,
            directory: directory.to_owned(),
            lock,
        });
        Ok((journal, history, recovered))
    }
}

/// Numbers that were ever seen are never used again, even where their lines are lost.
fn level(database: Progress, witness: Option<Progress>) -> Progress {
    let witness = witness.unwrap_or_default();
    Progress {
        commits: database.commits.max(witness.commits),
        last_sequence: database.last_sequence.max(witness.last_sequence),
    }
}

/// Makes an empty file that only its owner may read; one that is there is left alone.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop)
}

fn prepare_directory(path: &Path) -> Result<(), OpenError> {
    let not_a_directory = || OpenError::NotADirectory {
        path: path.to_owned(),
    };
    let made = !path.exists();
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(not_a_directory()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(not_a_directory()),
        Err(error) => return Err(io_error("create the directory", path)(error)),
    }
    let mode = fs::metadata(path)
        .map_err(io_error("look at", path))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(io_error("make private", path))?;
    }
    if let Some(parent) = path.parent().filter(|_| made) {
        // SQLite syncs the directory of its files, but nobody else syncs the name of that one.
        fs::File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(io_error("sync", parent))?;
    }
    Ok(())
}

fn take_lock(directory: &Path) -> Result<Lock, OpenError> {
    let path = directory.join("lock");
    Lock::take(&path).map_err(|error| match error {
        LockError::Held(pid) => OpenError::Locked {
            path: directory.to_owned(),
            pid,
        },
        LockError::Io(error) => io_error("lock", &path)(error),
    })
}

/// Why a database was not loaded.
enum Trouble {
    /// The file itself is broken: worth a salvage.
    Malformed,
    /// Anything else.
    Error(OpenError),
}

fn open_database(
    path: &Path,
    seen: Option<Progress>,
    options: &Options,
) -> Result<(Connection, Loaded), OpenError> {
    create_private(path).map_err(io_error("create", path))?;
    match try_database(path, seen, options) {
        Ok(opened) => return Ok(opened),
        Err(Trouble::Error(error)) => return Err(error),
        Err(Trouble::Malformed) => {}
    }
    let mut told =
        salvage::salvage(path, seen, options.now).map_err(|error| salvage_error(path, error))?;
    let (connection, mut loaded) =
        try_database(path, seen, options).map_err(|trouble| match trouble {
            Trouble::Error(error) => error,
            Trouble::Malformed => OpenError::Io {
                what: "read back the salvaged database",
                path: path.to_owned(),
                source: io::ErrorKind::InvalidData.into(),
            },
        })?;
    told.append(&mut loaded.damage);
    loaded.damage = told;
    Ok((connection, loaded))
}

fn try_database(
    path: &Path,
    seen: Option<Progress>,
    options: &Options,
) -> Result<(Connection, Loaded), Trouble> {
    let trouble = |error: rusqlite::Error| {
        if schema::is_malformed(&error) {
            Trouble::Malformed
        } else {
            Trouble::Error(sqlite_error(path, error))
        }
    };
    let mut connection = schema::connect(path).map_err(trouble)?;
    let found = schema::identify(&connection).map_err(trouble)?;
    let present = match found {
        Found::Empty => Progress::default(),
        Found::Ours(schema::VERSION) => schema::progress(&connection).map_err(trouble)?,
        Found::Ours(found) => {
            let path = path.to_owned();
            return Err(Trouble::Error(OpenError::Newer { path, found }));
        }
        Found::Foreign => {
            let path = path.to_owned();
            return Err(Trouble::Error(OpenError::Foreign { path }));
        }
    };
    let missing = missing_commits(path, present, seen, options.now).map_err(Trouble::Error)?;
    schema::prepare_writer(&connection).map_err(trouble)?;
    if found == Found::Empty {
        schema::create(&mut connection).map_err(trouble)?;
    }
    if !is_sound(&connection).map_err(trouble)? {
        return Err(Trouble::Malformed);
    }
    let mut loaded =
        load::load(&mut connection, options.feed_lines_loaded, options.now).map_err(trouble)?;
    loaded.damage.extend(missing);
    Ok((connection, loaded))
}

/// Walks every page. Costs about as much as reading the file.
fn is_sound(connection: &Connection) -> rusqlite::Result<bool> {
    let answer: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok(answer == "ok")
}

/// Compares with the witness, and keeps the log before anything is written over its tail.
fn missing_commits(
    path: &Path,
    present: Progress,
    seen: Option<Progress>,
    now: Timestamp,
) -> Result<Option<String>, OpenError> {
    let Some(seen) = seen.filter(|seen| seen.commits > present.commits) else {
        return Ok(None);
    };
    let commits = seen.commits - present.commits;
    let mut told =
        format!("the last {commits} commits are missing: the journal's tail was damaged");
    if seen.last_sequence > present.last_sequence {
        let first = present.last_sequence + 1;
        told.push_str(&format!(" (feed lines {first} to {})", seen.last_sequence));
    }
    let log = beside(path, "-wal");
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        let kept = beside(&log, &format!(".damaged-{}", now.as_millis()));
        fs::copy(&log, &kept).map_err(io_error("keep the damaged log as", &kept))?;
        told.push_str(&format!("; its bytes are kept in {}", kept.display()));
    }
    Ok(Some(told))
}

fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                OpenError::NotWritable { path, source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                OpenError::DiskFull { path }
            }
            _ => OpenError::Io { what, path, source },
        }
    }
}

fn sqlite_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => OpenError::DiskFull { path },
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            let source = io::Error::new(io::ErrorKind::PermissionDenied, source);
            OpenError::NotWritable { path, source }
        }
        _ => OpenError::Sqlite { path, source },
    }
}

fn salvage_error(path: &Path, error: SalvageError) -> OpenError {
    match error {
        SalvageError::File { what, source } => io_error(what, path)(source),
        SalvageError::Sqlite(source) => sqlite_error(path, source),
    }
}
