//! The queue in a file of SQLite: one writer thread, readers beside it.
//!
//! Whatever waits for the writer is committed together, with one sync for all of it.
//! Each operation has a savepoint of its own: one that fails takes none with it.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use parking_lot::Mutex;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::schema::{self, SchemaError};
use super::sql::{Cell, Mode, OpError, Operation, Row, Sql, SqlError, SqlFault, Value, Within};
use super::{Engine, OpenQueueError};

/// Tells our queues from other people's databases: `TWqu`.
const APPLICATION_ID: u32 = 0x5457_7175;
/// Operations that may wait for the writer; whoever comes then is told that it is busy.
const MOST_WAITING: usize = 4096;
/// Operations that are committed together, and how long they may take before they are.
const MOST_TOGETHER: usize = 512;
const TOGETHER_TIME: Duration = Duration::from_millis(20);
/// Connections that read at a time.
const READERS: usize = 2;
const STATEMENTS_KEPT: usize = 128;

/// The engine. Clones share it.
#[derive(Clone)]
pub(crate) struct SqliteEngine {
    writer: mpsc::Sender<Box<dyn Job>>,
    readers: Arc<Readers>,
}

struct Readers {
    places: Semaphore,
    connections: Vec<Mutex<Connection>>,
}

impl SqliteEngine {
    /// Opens the file, which is made if need be, and moves its tables forward. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenQueueError> {
        let at = |error: rusqlite::Error| OpenQueueError::File {
            path: path.to_owned(),
            message: error.to_string(),
        };
        crate::open::create_private(path).map_err(|error| OpenQueueError::File {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let mut connection = crate::schema::connect(path).map_err(at)?;
        let application: u32 = connection
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .map_err(at)?;
        let objects: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(at)?;
        if application != APPLICATION_ID && objects > 0 {
            return Err(OpenQueueError::Foreign {
                path: path.to_owned(),
            });
        }
        crate::schema::prepare_writer(&connection).map_err(at)?;
        connection
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(at)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        migrate(&mut connection, path)?;
        let mut readers = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            let reader = crate::schema::connect(path).map_err(at)?;
            reader.pragma_update(None, "query_only", true).map_err(at)?;
            reader.busy_timeout(Duration::from_secs(5)).map_err(at)?;
            reader.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
            readers.push(Mutex::new(reader));
        }
        let (writer, jobs) = mpsc::channel(MOST_WAITING);
        thread::Builder::new()
            .name("tw-queue".to_owned())
            .spawn(move || write(connection, jobs))
            .map_err(|error| OpenQueueError::File {
                path: path.to_owned(),
                message: format!("no thread for its writer: {error}"),
            })?;
        Ok(Self {
            writer,
            readers: Arc::new(Readers {
                places: Semaphore::new(READERS),
                connections: readers,
            }),
        })
    }

    async fn read<O: Operation>(&self, operation: O) -> Result<O::Output, OpError> {
        let readers = &self.readers;
        let away = |message: &str| {
            OpError::Sql(SqlError {
                kind: SqlFault::Away,
                message: message.to_owned(),
            })
        };
        let Ok(_place) = readers.places.acquire().await else {
            return Err(away("the readers are gone"));
        };
        let reading = readers.clone();
        let read = tokio::task::spawn_blocking(move || {
            // A place is held, so a connection is free.
            let free = reading.connections.iter().find_map(Mutex::try_lock);
            let Some(mut connection) = free else {
                return Err(away("no reader is free"));
            };
            let mut sql = SqliteSql {
                connection: &mut connection,
            };
            // One view of the database for the whole operation.
            sql.plain("BEGIN")?;
            let answer = at_once(operation.run(&mut sql));
            sql.plain("COMMIT")?;
            answer
        });
        read.await
            .unwrap_or_else(|error| Err(away(&format!("a reader failed: {error}"))))
    }
}

impl Engine for SqliteEngine {
    const DISTANT: bool = false;

    async fn run<O: Operation>(&self, operation: O) -> Result<O::Output, OpError> {
        if matches!(O::MODE, Mode::Read | Mode::ReadParts) {
            return self.read(operation).await;
        }
        let (reply, answer) = oneshot::channel();
        let job = OperationJob {
            operation,
            result: None,
            reply,
        };
        self.writer
            .try_send(Box::new(job))
            .map_err(|_| OpError::Refused(taskwright_queue::StoreError::Busy))?;
        answer.await.unwrap_or_else(|_| {
            Err(OpError::Sql(SqlError {
                kind: SqlFault::Away,
                message: "the writer ended".to_owned(),
            }))
        })
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenQueueError> {
    let file = |message: String| OpenQueueError::File {
        path: path.to_owned(),
        message,
    };
    let mut sql = SqliteSql { connection };
    sql.plain("BEGIN IMMEDIATE")
        .map_err(|error| file(error.message))?;
    let moved = match schema::migrate(&mut sql).now_or_never() {
        Some(moved) => moved,
        None => return Err(file("its tables could not be made at once".to_owned())),
    };
    match moved {
        Ok(_) => sql.plain("COMMIT").map_err(|error| file(error.message)),
        Err(SchemaError::Newer(found)) => Err(OpenQueueError::Newer {
            place: path.display().to_string(),
            found,
        }),
        Err(SchemaError::Sql(error)) => Err(file(error.message)),
    }
}

/// SQLite never keeps anybody waiting: its futures are ready when they are made.
fn at_once<T>(operation: impl Future<Output = Result<T, OpError>>) -> Result<T, OpError> {
    operation.now_or_never().unwrap_or_else(|| {
        Err(OpError::Sql(SqlError {
            kind: SqlFault::Other,
            message: "an operation waited for something that is not the database".to_owned(),
        }))
    })
}

/// An operation that waits for the writer, and whoever waits for its answer.
trait Job: Send {
    /// Runs it; whether it is to be kept.
    fn run(&mut self, sql: &mut SqliteSql<'_>) -> bool;
    /// Answers, once the commit succeeded or failed.
    fn answer(self: Box<Self>, committed: Result<(), SqlError>);
}

struct OperationJob<O: Operation> {
    operation: O,
    result: Option<Result<O::Output, OpError>>,
    reply: oneshot::Sender<Result<O::Output, OpError>>,
}

impl<O: Operation> Job for OperationJob<O> {
    fn run(&mut self, sql: &mut SqliteSql<'_>) -> bool {
        // Nobody races with the only writer, but constraints may still object for a reason that
        // goes away.
        let result = at_once(self.operation.run(sql));
        let kept = result.is_ok();
        self.result = Some(result);
        kept
    }

    fn answer(self: Box<Self>, committed: Result<(), SqlError>) {
        let answer = match (self.result, committed) {
            (Some(Ok(output)), Ok(())) => Ok(output),
            (Some(Ok(_)), Err(error)) => Err(OpError::Sql(error)),
            (Some(Err(error)), _) => Err(error),
            (None, committed) => Err(OpError::Sql(committed.err().unwrap_or(SqlError {
                kind: SqlFault::Other,
                message: "the operation was not run".to_owned(),
            }))),
        };
        // Whoever asked may be gone.
        let _ = self.reply.send(answer);
    }
}

/// The writer's thread: until nobody can send any more.
fn write(mut connection: Connection, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut together: Vec<Box<dyn Job>> = Vec::new();
    while let Some(first) = jobs.blocking_recv() {
        let begun = Instant::now();
        let mut sql = SqliteSql {
            connection: &mut connection,
        };
        let mut committed = sql.plain("BEGIN IMMEDIATE");
        let mut next = Some(first);
        while let Some(mut job) = next.take() {
            if committed.is_ok() {
                committed = run_apart(&mut sql, job.as_mut());
            }
            together.push(job);
            if together.len() < MOST_TOGETHER && begun.elapsed() < TOGETHER_TIME {
                next = jobs.try_recv().ok();
            }
        }
        if committed.is_ok() {
            committed = sql.plain("COMMIT");
        }
        if committed.is_err() && !connection.is_autocommit() {
            let undone = SqliteSql {
                connection: &mut connection,
            }
            .plain("ROLLBACK");
            if let Err(error) = undone {
                tracing::error!(%error, "a failed transaction of the queue could not be undone");
            }
        }
        metrics::histogram!("taskwright_queue_commit_seconds").record(begun.elapsed());
        for job in together.drain(..) {
            job.answer(committed.clone());
        }
    }
    let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = emptied {
        tracing::debug!(%error, "the queue's log was left beside it");
    }
}

/// Runs one operation so that a failure of it undoes nothing else.
fn run_apart(sql: &mut SqliteSql<'_>, job: &mut dyn Job) -> Result<(), SqlError> {
    sql.plain("SAVEPOINT operation")?;
    if !job.run(sql) {
        sql.plain("ROLLBACK TO operation")?;
    }
    sql.plain("RELEASE operation")
}

/// A connection of SQLite.
struct SqliteSql<'c> {
    connection: &'c mut Connection,
}

impl SqliteSql<'_> {
    fn plain(&mut self, sql: &str) -> Result<(), SqlError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(told)?;
        statement.execute([]).map_err(told)?;
        Ok(())
    }

    fn query(&mut self, sql: &str, values: &[Value<'_>], bytes: usize) -> Result<Within, SqlError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(told)?;
        let columns = statement.column_count();
        let values = rusqlite::params_from_iter(values);
        let mut found = statement.query(values).map_err(told)?;
        let mut within = Within::default();
        while let Some(row) = found.next().map_err(told)? {
            let mut cells = Vec::with_capacity(columns);
            for column in 0..columns {
                cells.push(match row.get_ref(column).map_err(told)? {
                    ValueRef::Null => Cell::Null,
                    ValueRef::Integer(number) => Cell::Int(number),
                    ValueRef::Real(number) => Cell::Real(number),
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                        Cell::Text(String::from_utf8_lossy(bytes).into_owned())
                    }
                });
            }
            if !within.push(Row(cells), bytes) {
                break;
            }
        }
        Ok(within)
    }

    fn change(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, SqlError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(told)?;
        let changed = statement
            .execute(rusqlite::params_from_iter(values))
            .map_err(told)?;
        Ok(changed as u64)
    }
}

impl Sql for SqliteSql<'_> {
    const POSTGRES: bool = false;

    fn rows(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, SqlError>> + Send {
        let found = self.query(sql, values, usize::MAX);
        std::future::ready(found.map(|within| within.rows))
    }

    fn rows_within(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        bytes: usize,
    ) -> impl Future<Output = Result<Within, SqlError>> + Send {
        std::future::ready(self.query(sql, values, bytes))
    }

    fn run(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, SqlError>> + Send {
        std::future::ready(self.change(sql, values))
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(number),
            Self::Real(number) => ValueRef::Real(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn told(error: rusqlite::Error) -> SqlError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => SqlFault::DiskFull,
        Some(ErrorCode::ConstraintViolation) => SqlFault::Raced,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SqlFault::Away,
        _ => SqlFault::Other,
    };
    SqlError {
        kind,
        message: error.to_string(),
    }
}
