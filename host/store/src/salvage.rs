//! What can still be read out of a malformed database.
//!
//! Every row that SQLite can reach is copied into a new file, which then takes
//! the old one's place; the old bytes stay under another name. Where reading
//! fails, the range of row numbers behind the failure is halved again and
//! again, so that only what lies on the broken pages is lost. Whether the
//! rescued records are whole is not decided here: loading checks each.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use taskwright_model::Timestamp;

use crate::schema;
use crate::witness::Progress;

/// Failed reads after which the rest of a table is given up: about a second's worth.
const MOST_FAILURES: u32 = 200_000;

/// The highest row number looked for where the table's own end cannot be read.
const FAR: i64 = 1 << 32;

/// What is copied: the row's number first, then the columns, in the order of the new table.
const TABLES: [(&str, &str, &str); 4] = [
    ("tasks", "rowid", "rowid, id, body"),
    ("feed", "sequence", "sequence, task, body"),
    ("idempotency", "rowid", "rowid, key, at, body"),
    ("damaged", "rowid", "rowid, at, source, key, body, reason"),
];

/// Why a damaged database could not be replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SalvageError {
    #[error("{what}")]
    File {
        what: &'static str,
        source: io::Error,
    },
    #[error("write the salvaged records")]
    Sqlite(#[from] rusqlite::Error),
}

/// Puts a new database with everything readable in the place of `store`. Says, for people, what
/// was kept and where the old bytes are.
pub(crate) fn salvage(
    store: &Path,
    witness: Option<Progress>,
    now: Timestamp,
) -> Result<Vec<String>, SalvageError> {
    let damaged = keep_old_bytes(store, now)?;
    let fresh = beside(store, ".new");
    remove_if_there(&fresh)?;
    remove_if_there(&beside(&fresh, "-journal"))?;
    let mut told = vec![format!(
        "the database was malformed: its bytes are kept in {}, and every readable record was copied",
        damaged.display()
    )];
    copy_all(&damaged, &fresh, witness, &mut told)?;
    // Only now: until the rename the old file must not be taken for whole without its log.
    let file = |what| move |source| SalvageError::File { what, source };
    remove_if_there(&beside(store, "-shm"))?;
    remove_if_there(&beside(store, "-wal"))?;
    fs::rename(&fresh, store).map_err(file("put the salvaged database in place"))?;
    let directory = store.parent().unwrap_or(Path::new("."));
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(file("sync the directory"))?;
    Ok(told)
}

/// `store.db` and `-wal`: the path with `suffix` appended to its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Gives the database and its log second names, under which SQLite finds them together.
fn keep_old_bytes(store: &Path, now: Timestamp) -> Result<PathBuf, SalvageError> {
    let stamp = now.as_millis();
    let mut damaged = beside(store, &format!(".damaged-{stamp}"));
    for again in 1..1000 {
        if !damaged.exists() {
            break;
        }
        damaged = beside(store, &format!(".damaged-{stamp}-{again}"));
    }
    let keep = |from: &Path, to: &Path| {
        // Not every file system has links.
        fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_| ()))
    };
    let kept = |source| SalvageError::File {
        what: "keep the damaged database under another name",
        source,
    };
    let log = beside(store, "-wal");
    if log.exists() {
        keep(&log, &beside(&damaged, "-wal")).map_err(kept)?;
    }
    keep(store, &damaged).map_err(kept)?;
    Ok(damaged)
}

fn remove_if_there(path: &Path) -> Result<(), SalvageError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SalvageError::File {
            what: "remove a file that the salvaged database replaces",
            source,
        }),
        _ => Ok(()),
    }
}

fn copy_all(
    damaged: &Path,
    fresh: &Path,
    witness: Option<Progress>,
    told: &mut Vec<String>,
) -> Result<(), SalvageError> {
    crate::open::create_private(fresh).map_err(|source| SalvageError::File {
        what: "create the new database",
        source,
    })?;
    let mut to = schema::connect(fresh)?;
    to.pragma_update(None, "page_size", 4096)?;
    schema::create(&mut to)?;
    let from = match schema::connect(damaged) {
        Ok(from) => from,
        Err(error) => {
            told.push(format!("nothing in it could be read: {error}"));
            return Ok(schema::set_progress(&to, witness.unwrap_or_default())?);
        }
    };
    let transaction = to.transaction()?;
    for (table, row, columns) in TABLES {
        let copied = copy_table(&from, &transaction, table, row, columns)?;
        if table != "damaged" || copied.kept > 0 {
            told.push(copied.told(table));
        }
    }
    transaction.commit()?;
    // Where even the progress is lost, the witness is the only one who knows it.
    let progress = schema::progress(&from).ok().or(witness).unwrap_or_default();
    Ok(schema::set_progress(&to, progress)?)
}

#[derive(Debug, Default)]
struct Copied {
    kept: u64,
    unreadable: u64,
    given_up: Option<i64>,
    reason: Option<String>,
}

impl Copied {
    fn told(&self, table: &str) -> String {
        let mut text = format!("{table}: {} records were copied", self.kept);
        if self.unreadable > 0 {
            text.push_str(&format!(
                ", {} row numbers could not be read",
                self.unreadable
            ));
        }
        if let Some(row) = self.given_up {
            text.push_str(&format!(", all from row {row} on was given up"));
        }
        if let Some(reason) = &self.reason {
            text.push_str(&format!(" ({reason})"));
        }
        text
    }
}

fn copy_table(
    from: &Connection,
    to: &Connection,
    table: &str,
    row: &str,
    columns: &str,
) -> rusqlite::Result<Copied> {
    let mut copied = Copied::default();
    let places = vec!["?"; columns.split(',').count()].join(", ");
    let sql = format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})");
    let mut insert = to.prepare(&sql)?;
    let sql = format!(
        "SELECT {columns} FROM {table} NOT INDEXED WHERE {row} BETWEEN ?1 AND ?2 ORDER BY {row}"
    );
    let mut select = match from.prepare(&sql) {
        Ok(select) => select,
        Err(error) => {
            copied.reason = Some(error.to_string());
            return Ok(copied);
        }
    };
    let last = format!("SELECT max({row}) FROM {table} NOT INDEXED");
    let last = match from.query_row(&last, [], |row| row.get::<_, Option<i64>>(0)) {
        Ok(last) => last.unwrap_or(0),
        Err(_) => FAR,
    };
    let mut failures = 0;
    // Lower ranges lie on top, so that what is given up in the end is the far end.
    let mut ranges = vec![(1, last)];
    while let Some((low, high)) = ranges.pop() {
        if failures == MOST_FAILURES {
            copied.given_up = Some(low);
            break;
        }
        let mut next = low;
        let Err(error) = copy_range(&mut select, &mut insert, high, &mut next, &mut copied.kept)?
        else {
            continue;
        };
        failures += 1;
        copied.reason.get_or_insert_with(|| error.to_string());
        if next == high {
            copied.unreadable += 1;
        } else if next < high {
            let middle = next + (high - next) / 2;
            ranges.push((middle + 1, high));
            ranges.push((next, middle));
        }
    }
    Ok(copied)
}

/// Copies rows from number `next` to `high`; `next` is left behind the last one copied.
/// The outer error is of the new file, the inner one of the damaged.
fn copy_range(
    select: &mut rusqlite::Statement<'_>,
    insert: &mut rusqlite::Statement<'_>,
    high: i64,
    next: &mut i64,
    kept: &mut u64,
) -> rusqlite::Result<rusqlite::Result<()>> {
    let columns = select.column_count();
    let mut rows = match select.query([*next, high]) {
        Ok(rows) => rows,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        let values: rusqlite::Result<Vec<Value>> = (0..columns).map(|at| row.get(at)).collect();
        let values = match values {
            Ok(values) => values,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(Value::Integer(number)) = values.first() {
            *next = number.saturating_add(1).max(*next);
        }
        *kept += insert.execute(params_from_iter(values))? as u64;
    }
}
