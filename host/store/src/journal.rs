//! Writing: one batch, one transaction, one fsync.
//!
//! The dispatcher calls from a thread of its own, so a commit simply blocks.
//! A commit that fails is rolled back whole, and the journal can be used again
//! as soon as the cause is gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};
use taskwright_control::port::{Batch, CommitError, Journal, KEY_LIFETIME, MOST_KEYS};
use taskwright_model::Timestamp;

use crate::lock::Lock;
use crate::record::{self, RecordError};
use crate::schema::{self, signed};
use crate::witness::{Progress, Witness};

/// Feed lines that may stand above the limit before any are removed, so that removal comes in
/// steps worth their cost.
const PRUNE_AT: u64 = 256;

/// Below this much room an I/O error is taken for a full disk.
const NO_ROOM: u64 = 1 << 20;

/// The writing side of a store.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    witness: Witness,
    progress: Progress,
    /// The oldest feed number that may still be on record.
    oldest_line: u64,
    lines_kept: u64,
    directory: PathBuf,
    /// One buffer for every body that is written.
    body: Vec<u8>,
    witness_failed: bool,
    // Last, so that it is let go of after the connection was closed.
    _lock: Arc<Lock>,
}

/// What a journal is made of once a store was opened.
pub(crate) struct Parts {
    pub(crate) connection: Connection,
    pub(crate) witness: Witness,
    pub(crate) progress: Progress,
    pub(crate) oldest_line: u64,
    pub(crate) lines_kept: u64,
    pub(crate) directory: PathBuf,
    pub(crate) lock: Arc<Lock>,
}

/// Why a transaction was given up.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("a statement failed")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a record could not be written")]
    Record(#[from] RecordError),
    #[error("feed line {found} does not follow line {last}")]
    Order { found: u64, last: u64 },
}

impl Journal for SqliteJournal {
    async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.commit_blocking(batch)
    }
}

impl SqliteJournal {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            connection: parts.connection,
            witness: parts.witness,
            progress: parts.progress,
            oldest_line: parts.oldest_line,
            lines_kept: parts.lines_kept,
            directory: parts.directory,
            body: Vec::with_capacity(4096),
            witness_failed: false,
            _lock: parts.lock,
        }
    }

    fn commit_blocking(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let began = Instant::now();
        let written = self.write(batch);
        metrics::histogram!("taskwright_journal_commit_seconds").record(began.elapsed());
        metrics::gauge!("taskwright_journal_batch_tasks").set(size(batch.put.len()));
        let result = if written.is_ok() { "ok" } else { "failed" };
        metrics::counter!("taskwright_journal_commits_total", "result" => result).increment(1);
        let (progress, oldest_line) = written.map_err(|fault| self.explain(&fault))?;
        self.progress = progress;
        self.oldest_line = oldest_line;
        self.testify();
        Ok(())
    }

    /// The transaction. Dropped before its end, it rolls itself back.
    fn write(&mut self, batch: &Batch) -> Result<(Progress, u64), Fault> {
        let Self {
            connection, body, ..
        } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        put_tasks(&transaction, batch, body)?;
        let last_sequence = append_feed(&transaction, batch, body, self.progress.last_sequence)?;
        put_idempotency(&transaction, batch, body)?;
        let grown = batch.feed.len();
        let oldest_line = prune_feed(
            &transaction,
            self.oldest_line,
            last_sequence,
            self.lines_kept,
            grown,
        )?;
        let progress = Progress {
            commits: self.progress.commits.saturating_add(1),
            last_sequence,
        };
        schema::set_progress(&transaction, progress)?;
        transaction.commit()?;
        Ok((progress, oldest_line))
    }

    /// The commit is durable whether or not this succeeds, so a failure is only told, once.
    fn testify(&mut self) {
        let written = self.witness.write(self.progress);
        if let (Err(error), false) = (&written, self.witness_failed) {
            tracing::warn!(%error, "the file `committed` could not be written: a damaged journal may go unnoticed");
        }
        self.witness_failed = written.is_err();
    }

    fn explain(&self, fault: &Fault) -> CommitError {
        let disk_full = match fault {
            Fault::Sqlite(error) => self.is_disk_full(error),
            Fault::Record(_) | Fault::Order { .. } => false,
        };
        let cause = std::error::Error::source(fault);
        let mut message = match cause {
            Some(cause) => format!("{fault}: {cause}"),
            None => fault.to_string(),
        };
        if let Fault::Sqlite(error) = fault
            && schema::is_malformed(error)
        {
            message.push_str("; start taskwright again, it then rescues what can be read");
        }
        CommitError { message, disk_full }
    }

    fn is_disk_full(&self, error: &rusqlite::Error) -> bool {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => true,
            // Growing the shared-memory file fails as plain I/O error; the disk itself knows better.
            Some(ErrorCode::SystemIoFailure) => rustix::fs::statvfs(&self.directory)
                .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < NO_ROOM),
            _ => false,
        }
    }

    /// Makes the database as full as a disk can be: `pages` is the most it may have.
    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: u32) -> rusqlite::Result<()> {
        let sql = format!("PRAGMA max_page_count = {pages}");
        self.connection.query_row(&sql, [], |_| Ok(()))
    }
}

impl Drop for SqliteJournal {
    /// Moves the log into the database, so that a store at rest is one file. Where a reader is in
    /// the way, or anything fails, the next opening does it.
    fn drop(&mut self) {
        let emptied = self
            .connection
            .busy_timeout(Duration::from_millis(200))
            .and_then(|()| {
                let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
                self.connection.query_row(sql, [], |_| Ok(()))
            });
        if let Err(error) = emptied {
            tracing::debug!(%error, "the log was left beside the database");
        }
    }
}

fn put_tasks(connection: &Connection, batch: &Batch, body: &mut Vec<u8>) -> Result<(), Fault> {
    if !batch.put.is_empty() {
        let mut put = connection.prepare_cached(
            "INSERT INTO tasks (id, body) VALUES (?1, ?2) \
             ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        )?;
        for task in &batch.put {
            record::write_task(task, body)?;
            put.execute(params![record::task_key(task.id), &*body])?;
        }
    }
    if !batch.remove.is_empty() {
        let mut remove = connection.prepare_cached("DELETE FROM tasks WHERE id = ?1")?;
        for id in &batch.remove {
            remove.execute([record::task_key(*id)])?;
        }
    }
    Ok(())
}

/// Returns the highest number used so far.
fn append_feed(
    connection: &Connection,
    batch: &Batch,
    body: &mut Vec<u8>,
    mut last: u64,
) -> Result<u64, Fault> {
    if batch.feed.is_empty() {
        return Ok(last);
    }
    let mut append =
        connection.prepare_cached("INSERT INTO feed (sequence, task, body) VALUES (?1, ?2, ?3)")?;
    for entry in &batch.feed {
        if entry.sequence != last.saturating_add(1) {
            let found = entry.sequence;
            return Err(Fault::Order { found, last });
        }
        record::write_feed(entry, body)?;
        let task = record::task_key(entry.task);
        append.execute(params![signed(entry.sequence), task, &*body])?;
        last = entry.sequence;
    }
    Ok(last)
}

fn put_idempotency(
    connection: &Connection,
    batch: &Batch,
    body: &mut Vec<u8>,
) -> Result<(), Fault> {
    let Some(newest) = batch.idempotency.iter().map(|record| record.at).max() else {
        return Ok(());
    };
    let mut put = connection
        .prepare_cached("INSERT OR REPLACE INTO idempotency (key, at, body) VALUES (?1, ?2, ?3)")?;
    for used in &batch.idempotency {
        record::write_idempotency(used, body)?;
        put.execute(params![used.key, used.at.as_millis(), &*body])?;
    }
    // Twice as many as came, so that a backlog shrinks and no commit is long.
    let most = batch.idempotency.len().saturating_mul(2).saturating_add(16);
    connection
        .prepare_cached(
            "DELETE FROM idempotency WHERE at < ?1 AND rowid IN \
             (SELECT rowid FROM idempotency ORDER BY rowid LIMIT ?2)",
        )?
        .execute([oldest_idempotency(newest), signed(most as u64)])?;
    // Row numbers grow with each key, so those far behind the newest are more than are kept.
    connection
        .prepare_cached(
            "DELETE FROM idempotency WHERE rowid IN (SELECT rowid FROM idempotency \
             WHERE rowid <= (SELECT max(rowid) FROM idempotency) - ?1 ORDER BY rowid LIMIT ?2)",
        )?
        .execute([signed(MOST_KEYS as u64), signed(most as u64)])?;
    Ok(())
}

/// Idempotency keys used before this many milliseconds after the epoch are forgotten at `now`.
pub(crate) fn oldest_idempotency(now: Timestamp) -> i64 {
    let kept = i64::try_from(KEY_LIFETIME.as_millis()).unwrap_or(i64::MAX);
    now.as_millis().saturating_sub(kept)
}

/// Removes the oldest lines above the limit, a few at a time. Returns the oldest number left.
fn prune_feed(
    connection: &Connection,
    oldest: u64,
    last: u64,
    kept: u64,
    grown: usize,
) -> Result<u64, Fault> {
    let surplus = last
        .saturating_add(1)
        .saturating_sub(oldest)
        .saturating_sub(kept);
    if surplus < PRUNE_AT {
        return Ok(oldest);
    }
    // Twice as many as came, so that a lowered limit is reached and no commit is long.
    let step = surplus.min((grown as u64).saturating_mul(2).saturating_add(PRUNE_AT));
    let oldest = oldest.saturating_add(step);
    connection
        .prepare_cached("DELETE FROM feed WHERE sequence < ?1")?
        .execute([signed(oldest)])?;
    Ok(oldest)
}

fn size(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
