//! Reading the feed, beside the writer.
//!
//! SQLite blocks, so a thread of its own owns the read-only connection and
//! answers one question after the other. It ends when the last asker is gone.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, params};
use taskwright_control::port::{CommitError, FeedEntry, FeedHistory};
use taskwright_model::TaskId;
use tokio::sync::{mpsc, oneshot};

use crate::lock::Lock;
use crate::record;
use crate::schema::{signed, unsigned};

/// Questions that may wait; further askers wait for a place.
const MOST_WAITING: usize = 32;

/// The most lines one question is answered with, so that no read keeps an old snapshot for long:
/// the write-ahead log cannot be emptied under it.
const MOST_LINES: usize = 10_000;

/// The reading side of a store's feed.
#[derive(Debug)]
pub struct SqliteFeedHistory {
    /// `None` only while it is dropped.
    questions: Option<mpsc::Sender<Question>>,
    reader: Option<JoinHandle<()>>,
}

struct Question {
    after: u64,
    task: Option<TaskId>,
    most: usize,
    answer: oneshot::Sender<Result<Vec<FeedEntry>, CommitError>>,
}

impl SqliteFeedHistory {
    /// Opens the database at `path` once more and starts the reader.
    pub(crate) fn open(path: &Path, lock: Arc<Lock>) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "cache_size", -2048)?;
        let (questions, mut waiting) = mpsc::channel::<Question>(MOST_WAITING);
        let work = move || {
            while let Some(question) = waiting.blocking_recv() {
                if question.answer.is_closed() {
                    continue;
                }
                let lines = read(&connection, question.after, question.task, question.most)
                    .map_err(|error| unreadable(&error.to_string()));
                // An asker who no longer waits needs no answer.
                drop(question.answer.send(lines));
            }
            drop(connection);
            drop(lock);
        };
        let reader = std::thread::Builder::new()
            .name("feed-history".to_owned())
            .spawn(work)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(Self {
            questions: Some(questions),
            reader: Some(reader),
        })
    }
}

impl FeedHistory for SqliteFeedHistory {
    fn read(
        &self,
        after: u64,
        task: Option<TaskId>,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<FeedEntry>, CommitError>> {
        async move {
            let gone = || unreadable("its reader has ended");
            let (answer, answered) = oneshot::channel();
            let question = Question {
                after,
                task,
                most,
                answer,
            };
            let questions = self.questions.as_ref().ok_or_else(gone)?;
            questions.send(question).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        }
        .boxed()
    }
}

impl Drop for SqliteFeedHistory {
    /// Waits for the read under way, which is bounded, so that files and lock are free afterwards.
    fn drop(&mut self) {
        self.questions = None;
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            tracing::error!("the reader of the feed's history had panicked");
        }
    }
}

fn unreadable(why: &str) -> CommitError {
    CommitError {
        message: format!("the feed's history could not be read: {why}"),
        disk_full: false,
    }
}

/// Lines that cannot be read are left out; [`crate::Store::open`] reports those it meets.
fn read(
    connection: &Connection,
    after: u64,
    task: Option<TaskId>,
    most: usize,
) -> rusqlite::Result<Vec<FeedEntry>> {
    let most = signed(most.min(MOST_LINES) as u64);
    let mut lines = Vec::new();
    let mut keep = |row: &Row<'_>| -> rusqlite::Result<()> {
        match decode(row) {
            Ok(line) => lines.push(line),
            Err(reason) => tracing::warn!(%reason, "a line of the feed was left out"),
        }
        Ok(())
    };
    match task {
        None => {
            let sql = "SELECT sequence, task, body FROM feed WHERE sequence > ?1 \
                       ORDER BY sequence LIMIT ?2";
            let mut query = connection.prepare_cached(sql)?;
            let mut rows = query.query(params![signed(after), most])?;
            while let Some(row) = rows.next()? {
                keep(row)?;
            }
        }
        Some(id) => {
            let sql = "SELECT sequence, task, body FROM feed WHERE sequence > ?1 AND task = ?3 \
                       ORDER BY sequence LIMIT ?2";
            let mut query = connection.prepare_cached(sql)?;
            let mut rows = query.query(params![signed(after), most, record::task_key(id)])?;
            while let Some(row) = rows.next()? {
                keep(row)?;
            }
        }
    }
    Ok(lines)
}

/// A feed line from `sequence, task, body`; otherwise why not.
pub(crate) fn decode(row: &Row<'_>) -> Result<FeedEntry, String> {
    let sequence = row.get::<_, i64>(0).map_err(|error| error.to_string())?;
    let task = blob(row, 1).and_then(task_id);
    let body = blob(row, 2);
    let (Some(task), Some(body)) = (task, body) else {
        return Err(format!("line {sequence} has no task or no body"));
    };
    record::read_feed(unsigned(sequence), task, body)
        .map_err(|error| format!("line {sequence}: {error}"))
}

/// The bytes of a column that should be a blob.
pub(crate) fn blob<'r>(row: &'r Row<'_>, index: usize) -> Option<&'r [u8]> {
    match row.get_ref(index) {
        Ok(ValueRef::Blob(bytes)) => Some(bytes),
        _ => None,
    }
}

/// The id whose key these bytes are.
pub(crate) fn task_id(key: &[u8]) -> Option<TaskId> {
    let bits = u128::from_be_bytes(key.try_into().ok()?);
    Some(TaskId::from_u128(bits))
}
