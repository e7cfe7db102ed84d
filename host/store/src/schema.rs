//! Tables, versions, and how a connection is set up.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::witness::Progress;

/// The schema this build writes. A build refuses newer ones and moves older ones forward.
pub(crate) const VERSION: u32 = 1;

/// `TWst`: tells our files from other people's SQLite databases.
pub(crate) const APPLICATION_ID: u32 = 0x5457_7374;

/// Frames in the write-ahead log before a commit copies them into the database. Four times
/// SQLite's default: pages that are written again and again are then copied a quarter as often,
/// and the log stays at about 16 MiB.
const CHECKPOINT_PAGES: u32 = 4000;
const PAGE_BYTES: u32 = 4096;
/// What such a log is long: a header, and a header for each page.
pub(crate) const LOG_BYTES: u64 = 32 + (PAGE_BYTES as u64 + 24) * CHECKPOINT_PAGES as u64;

/// Tasks are in a table with row numbers, because bodies above about 1000 bytes would each
/// occupy pages of their own in a table without. Row numbers of idempotency keys grow with
/// time, so the oldest are found without an index.
const TABLES: &str = "
    CREATE TABLE tasks (id BLOB PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE feed (sequence INTEGER PRIMARY KEY, task BLOB NOT NULL, body BLOB NOT NULL);
    CREATE TABLE idempotency (key TEXT PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE damaged (
        at INTEGER NOT NULL, source TEXT NOT NULL, key BLOB NOT NULL, body BLOB, reason TEXT NOT NULL
    );
    CREATE TABLE progress (
        only INTEGER PRIMARY KEY CHECK (only = 1), commits INTEGER NOT NULL, last_sequence INTEGER NOT NULL
    );
    INSERT INTO progress VALUES (1, 0, 0);
";

/// What kind of file a connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing was ever written to it.
    Empty,
    /// One of ours, of this schema version.
    Ours(u32),
    /// A SQLite database of somebody else.
    Foreign,
}

/// Opens a file for writing, without changing a byte of it.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // A file that turns out not to be ours, or damaged, must close as it was.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Looks at what a file is.
pub(crate) fn identify(connection: &Connection) -> rusqlite::Result<Found> {
    let application: u32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, objects) {
        (APPLICATION_ID, _) => Found::Ours(version),
        (0, 0) => Found::Empty,
        _ => Found::Foreign,
    })
}

/// Sets a connection up for durable group commits.
pub(crate) fn prepare_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Makes the tables, all of them or none.
pub(crate) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// How far the database went.
pub(crate) fn progress(connection: &Connection) -> rusqlite::Result<Progress> {
    let sql = "SELECT commits, last_sequence FROM progress WHERE only = 1";
    connection.query_row(sql, [], |row| {
        Ok(Progress {
            commits: unsigned(row.get(0)?),
            last_sequence: unsigned(row.get(1)?),
        })
    })
}

/// Writes how far the database went, as part of a transaction if one is open.
pub(crate) fn set_progress(connection: &Connection, progress: Progress) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE progress SET commits = ?1, last_sequence = ?2 WHERE only = 1")?
        .execute([signed(progress.commits), signed(progress.last_sequence)])
        .map(drop)
}

/// SQLite's integers are signed; ours are counters that never get that far.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// See [`signed`].
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Whether SQLite says that the file itself is broken, as opposed to unreachable.
pub(crate) fn is_malformed(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}
