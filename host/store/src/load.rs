//! Everything on record, with what cannot be read set aside.
//!
//! A record whose checksum or form is wrong moves to the table `damaged` with
//! the reason beside it, and the rest is kept.

use rusqlite::{Connection, Row, params};
use taskwright_control::port::{FeedEntry, IdempotencyRecord};
use taskwright_model::{Task, Timestamp};

use crate::history;
use crate::journal::oldest_idempotency;
use crate::record::{self, Kind};
use crate::schema::{self, signed, unsigned};
use crate::witness::Progress;

/// Damaged records that are named one by one; of more, only the number is told.
const MOST_NAMED: usize = 50;

/// What was on record.
pub(crate) struct Loaded {
    pub(crate) tasks: Vec<Task>,
    pub(crate) feed: Vec<FeedEntry>,
    pub(crate) idempotency: Vec<IdempotencyRecord>,
    pub(crate) progress: Progress,
    pub(crate) oldest_line: u64,
    pub(crate) damage: Vec<String>,
}

/// A record that cannot be read.
struct Bad {
    kind: Kind,
    row: i64,
    reason: String,
}

/// Reads all tasks, the newest `lines` feed lines and the idempotency keys that still count.
pub(crate) fn load(
    connection: &mut Connection,
    lines: usize,
    now: Timestamp,
) -> rusqlite::Result<Loaded> {
    let mut bad = Vec::new();
    let tasks = tasks(connection, &mut bad)?;
    let feed = newest_feed(connection, lines, &mut bad)?;
    let idempotency = idempotency(connection, now, &mut bad)?;
    let mut progress = schema::progress(connection)?;
    let (oldest, newest) = bounds(connection)?;
    progress.last_sequence = progress.last_sequence.max(newest);
    set_aside(connection, &bad, now)?;
    Ok(Loaded {
        tasks,
        feed,
        idempotency,
        progress,
        oldest_line: oldest.unwrap_or(progress.last_sequence.saturating_add(1)),
        damage: told(&bad),
    })
}

fn tasks(connection: &Connection, bad: &mut Vec<Bad>) -> rusqlite::Result<Vec<Task>> {
    let mut query = connection.prepare("SELECT rowid, id, body FROM tasks NOT INDEXED")?;
    collect(Kind::Task, query.query([])?, bad, |row| {
        let key = history::blob(row, 1).and_then(history::task_id);
        let (Some(id), Some(body)) = (key, history::blob(row, 2)) else {
            return Err("it has no id or no body".to_owned());
        };
        record::read_task(id, body).map_err(|error| format!("task {id}: {error}"))
    })
}

fn newest_feed(
    connection: &Connection,
    lines: usize,
    bad: &mut Vec<Bad>,
) -> rusqlite::Result<Vec<FeedEntry>> {
    let sql = "SELECT sequence, task, body FROM feed ORDER BY sequence DESC LIMIT ?1";
    let mut query = connection.prepare(sql)?;
    let rows = query.query([signed(lines as u64)])?;
    let mut feed = collect(Kind::Feed, rows, bad, history::decode)?;
    feed.reverse();
    Ok(feed)
}

fn idempotency(
    connection: &Connection,
    now: Timestamp,
    bad: &mut Vec<Bad>,
) -> rusqlite::Result<Vec<IdempotencyRecord>> {
    let sql = "SELECT rowid, key, body FROM idempotency NOT INDEXED WHERE at >= ?1";
    let mut query = connection.prepare(sql)?;
    let rows = query.query([oldest_idempotency(now)])?;
    collect(Kind::Idempotency, rows, bad, |row| {
        let (Ok(key), Some(body)) = (row.get::<_, String>(1), history::blob(row, 2)) else {
            return Err("it has no key or no body".to_owned());
        };
        record::read_idempotency(&key, body).map_err(|error| error.to_string())
    })
}

/// Decodes every row; the row's number is in its first column.
fn collect<T>(
    kind: Kind,
    mut rows: rusqlite::Rows<'_>,
    bad: &mut Vec<Bad>,
    decode: impl Fn(&Row<'_>) -> Result<T, String>,
) -> rusqlite::Result<Vec<T>> {
    let mut good = Vec::new();
    while let Some(row) = rows.next()? {
        match decode(row) {
            Ok(value) => good.push(value),
            Err(reason) => bad.push(Bad {
                kind,
                row: row.get(0)?,
                reason,
            }),
        }
    }
    Ok(good)
}

fn bounds(connection: &Connection) -> rusqlite::Result<(Option<u64>, u64)> {
    // Two queries: SQLite answers each from one end of the tree, both at once by reading it all.
    let end = |sql: &str| {
        connection.query_row(sql, [], |row| {
            Ok(row.get::<_, Option<i64>>(0)?.map(unsigned))
        })
    };
    let oldest = end("SELECT min(sequence) FROM feed")?;
    let newest = end("SELECT max(sequence) FROM feed")?;
    Ok((oldest, newest.unwrap_or(0)))
}

fn set_aside(connection: &mut Connection, bad: &[Bad], now: Timestamp) -> rusqlite::Result<()> {
    if bad.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for record in bad {
        let (table, key) = match record.kind {
            Kind::Task => ("tasks", "id"),
            Kind::Feed => ("feed", "sequence"),
            Kind::Idempotency => ("idempotency", "key"),
        };
        let copy = format!(
            "INSERT INTO damaged (at, source, key, body, reason) \
             SELECT ?1, ?2, ifnull({key}, ''), body, ?3 FROM {table} WHERE rowid = ?4"
        );
        let parameters = params![now.as_millis(), table, record.reason, record.row];
        transaction.prepare_cached(&copy)?.execute(parameters)?;
        let remove = format!("DELETE FROM {table} WHERE rowid = ?1");
        transaction.prepare_cached(&remove)?.execute([record.row])?;
    }
    transaction.commit()
}

fn told(bad: &[Bad]) -> Vec<String> {
    let mut damage: Vec<String> = bad
        .iter()
        .take(MOST_NAMED)
        .map(|record| {
            let source = record.kind.as_str();
            let reason = &record.reason;
            format!("a record of {source} was moved to the table `damaged`: {reason}")
        })
        .collect();
    if let Some(more @ 1..) = bad.len().checked_sub(MOST_NAMED) {
        damage.push(format!(
            "{more} more records were moved to the table `damaged`"
        ));
    }
    damage
}
