//! Lines of a task, numbered without gaps in the order in which they came.

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::log::LogQuery;
use taskwright_queue::port::StoreError;
use taskwright_queue::{LogEntry, LogLevel, NewLogEntry, Writer};

use super::{PAGE_BYTES, lists, tasks, writers};
use crate::queue::rows::{self, log_columns};
use crate::queue::sql::{Mode, OpError, Operation, Sql, Value};

/// Lines that one statement inserts.
const LINES_A_STATEMENT: usize = 500;

/// Keeps one line of our own.
pub(super) async fn note<S: Sql>(
    sql: &mut S,
    task: TaskId,
    at: Timestamp,
    level: LogLevel,
    message: &str,
    context: &str,
) -> Result<(), OpError> {
    let id = task.to_string();
    let sequence = number(sql, &id, 1).await?;
    sql.run(
        "INSERT INTO queue_logs (task_id, sequence, at, level, message, context) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        &[
            (&id).into(),
            sequence.into(),
            at.as_millis().into(),
            rows::level_number(level).into(),
            message.into(),
            context.into(),
        ],
    )
    .await?;
    Ok(())
}

/// Takes so many numbers; answers the last. Whoever comes at the same time waits.
async fn number<S: Sql>(sql: &mut S, task: &str, many: i64) -> Result<i64, OpError> {
    let statement = "INSERT INTO queue_log_heads (task_id, lines) VALUES (?1, ?2) \
                     ON CONFLICT (task_id) DO UPDATE SET \
                     lines = queue_log_heads.lines + excluded.lines RETURNING lines";
    match sql.row(statement, &[task.into(), many.into()]).await? {
        Some(mut row) => Ok(row.int(0)?),
        None => Ok(many),
    }
}

pub(crate) struct Append {
    pub(crate) task: TaskId,
    pub(crate) writer: Option<Writer>,
    pub(crate) lines: Vec<NewLogEntry>,
    pub(crate) now: Timestamp,
}

impl Operation for Append {
    type Output = u64;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "append_logs";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<u64, OpError> {
        let id = self.task.to_string();
        let attempt = writers::check(sql, self.task, self.writer.as_ref())
            .await?
            .told;
        let many = i64::try_from(self.lines.len()).unwrap_or(i64::MAX);
        if many == 0 {
            return Ok(0);
        }
        let last = number(sql, &id, many).await?;
        if u64::try_from(last).unwrap_or(0) > LogEntry::MOST {
            let most = LogEntry::MOST;
            let full = format!("task {} has {most} lines, as many as may be", self.task);
            return Err(StoreError::Full(full).into());
        }
        let place = Place { task: &id, attempt };
        let mut sequence = last.saturating_sub(many);
        if S::POSTGRES && many > 1 {
            insert_lists(sql, place, &self.lines, sequence, self.now).await?;
        } else {
            for lines in self.lines.chunks(LINES_A_STATEMENT) {
                insert(sql, place, lines, &mut sequence, self.now).await?;
            }
        }
        Ok(u64::try_from(last).unwrap_or(0))
    }
}

/// Where lines belong.
#[derive(Clone, Copy)]
struct Place<'a> {
    task: &'a str,
    attempt: Option<u32>,
}

/// Inserts lines whose numbers follow `sequence`, as PostgreSQL takes many of them for the least: a
/// list for each column instead of a parameter for each cell.
async fn insert_lists<S: Sql>(
    sql: &mut S,
    place: Place<'_>,
    lines: &[NewLogEntry],
    sequence: i64,
    now: Timestamp,
) -> Result<(), OpError> {
    let statement = "INSERT INTO queue_logs (task_id, sequence, at, level, message, context, \
                     attempt) SELECT CAST(?1 AS TEXT), CAST(?2 AS BIGINT) + l.n, l.at, l.level, \
                     l.message, l.context, CAST(?3 AS BIGINT) FROM unnest(\
                     CAST(CAST(?4 AS TEXT) AS BIGINT[]), CAST(CAST(?5 AS TEXT) AS BIGINT[]), \
                     CAST(CAST(?6 AS TEXT) AS TEXT[]), CAST(CAST(?7 AS TEXT) AS TEXT[])) \
                     WITH ORDINALITY AS l (at, level, message, context, n)";
    let numbers = |of: &dyn Fn(&NewLogEntry) -> i64| {
        let numbers: Vec<String> = lines.iter().map(|line| of(line).to_string()).collect();
        format!("{{{}}}", numbers.join(","))
    };
    let times = numbers(&|line| line.at.unwrap_or(now).as_millis());
    let levels = numbers(&|line| rows::level_number(line.level));
    let messages = lists::array(lines.iter().map(|line| line.message.as_str()));
    let contexts = lists::array(lines.iter().map(|line| line.context.as_str()));
    let values = [
        place.task.into(),
        sequence.into(),
        place.attempt.into(),
        (&times).into(),
        (&levels).into(),
        (&messages).into(),
        (&contexts).into(),
    ];
    sql.run(statement, &values).await?;
    Ok(())
}

/// Inserts lines whose numbers follow `sequence`.
async fn insert<S: Sql>(
    sql: &mut S,
    place: Place<'_>,
    lines: &[NewLogEntry],
    sequence: &mut i64,
    now: Timestamp,
) -> Result<(), OpError> {
    const COLUMNS: usize = 7;
    let full = lines.len() == LINES_A_STATEMENT;
    let mut values: Vec<Value<'_>> = Vec::with_capacity(lines.len() * COLUMNS);
    for line in lines {
        *sequence = sequence.saturating_add(1);
        let row: [Value<'_>; COLUMNS] = [
            place.task.into(),
            (*sequence).into(),
            line.at.unwrap_or(now).as_millis().into(),
            rows::level_number(line.level).into(),
            line.message.as_str().into(),
            line.context.as_str().into(),
            place.attempt.into(),
        ];
        values.extend_from_slice(&row);
    }
    let insert = "INSERT INTO queue_logs (task_id, sequence, at, level, message, context, \
                  attempt) VALUES ";
    if full || lines.len() == 1 {
        sql.run(&with_rows(insert, lines.len(), COLUMNS), &values)
            .await?;
        return Ok(());
    }
    // Statements of any other length would each be prepared anew.
    for row in values.chunks(COLUMNS) {
        sql.run(&with_rows(insert, 1, COLUMNS), row).await?;
    }
    Ok(())
}

/// A statement with so many rows of parameters.
pub(super) fn with_rows(insert: &str, rows: usize, columns: usize) -> String {
    let mut statement = String::with_capacity(insert.len() + rows * columns * 6);
    statement.push_str(insert);
    for row in 0..rows {
        statement.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..columns {
            let joint = if column == 0 { "?" } else { ", ?" };
            statement.push_str(joint);
            statement.push_str(&(row * columns + column + 1).to_string());
        }
        statement.push(')');
    }
    statement
}

pub(crate) struct Read(pub(crate) LogQuery);

impl Operation for Read {
    type Output = Vec<LogEntry>;
    const MODE: Mode = Mode::ReadParts;
    const NAME: &'static str = "logs";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Vec<LogEntry>, OpError> {
        let LogQuery {
            task,
            level,
            since,
            after,
            most,
        } = self.0;
        let id = task.to_string();
        tasks::must_exist(sql, task).await?;
        let mut statement = concat!(
            "SELECT ",
            log_columns!(),
            " FROM queue_logs WHERE task_id = ?1"
        )
        .to_owned();
        let mut values: Vec<Value<'_>> = vec![(&id).into()];
        let conditions = [
            (" AND level = ?", level.map(rows::level_number)),
            (" AND at >= ?", since.map(Timestamp::as_millis)),
            (" AND sequence > ?", after.map(super::ends::signed)),
        ];
        for (condition, value) in conditions {
            if let Some(value) = value {
                values.push(value.into());
                statement.push_str(condition);
                statement.push_str(&values.len().to_string());
            }
        }
        values.push(most.into());
        // The newest ones, unless the reader goes on from where it was.
        let direction = if after.is_some() { "ASC" } else { "DESC" };
        statement.push_str(&format!(
            " ORDER BY sequence {direction} LIMIT ?{}",
            values.len()
        ));
        let found = sql.rows_within(&statement, &values, PAGE_BYTES).await?;
        let mut entries: Vec<LogEntry> = found
            .rows
            .into_iter()
            .map(|row| rows::log_entry(task, row))
            .collect::<Result<_, _>>()?;
        entries.sort_by_key(|entry| entry.sequence);
        Ok(entries)
    }
}
