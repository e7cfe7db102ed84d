//! Create, read, list, cancel.

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::port::{Created, StoreError, TaskKeyed, TaskPage, TaskQuery};
use taskwright_queue::task::Tries;
use taskwright_queue::{Attempt, AttemptEnd, Cause, LogLevel, NewTask, QueuedTask, TaskStatus};

use super::ends::{self, Ending};
use super::{PAGE_BYTES, conditions, locked, logs, totals, workers};
use crate::queue::rows::{self, attempt_columns, task_columns};
use crate::queue::sql::{Mode, OpError, Operation, Sql, Value, Within};

/// How long a key is remembered, in milliseconds.
const KEY_LIFETIME: i64 = 24 * 3600 * 1000;
/// How many old keys are forgotten for each new one.
const FORGOTTEN: i64 = 4;

pub(crate) struct Create {
    pub(crate) task: NewTask,
    pub(crate) now: Timestamp,
    /// The most tasks that may wait.
    pub(crate) most_waiting: u64,
}

impl Operation for Create {
    type Output = Created;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "create";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Created, OpError> {
        let Self { task, now, .. } = self;
        if let Some(key) = &task.idempotency {
            let used = "SELECT fingerprint, task_id FROM queue_keys WHERE key = ?1 AND at > ?2";
            let oldest = now.as_millis().saturating_sub(KEY_LIFETIME);
            let values = [(&key.key).into(), oldest.into()];
            if let Some(mut row) = sql.row(used, &values).await? {
                if row.text(0)? != key.fingerprint {
                    return Err(StoreError::KeyReused.into());
                }
                let made = rows::id(&mut row, 1)?;
                let task = read(sql, made).await?.ok_or(StoreError::NoSuchTask(made))?;
                return Ok(Created {
                    task,
                    repeated: true,
                });
            }
        }
        if totals::waiting(sql).await? >= self.most_waiting {
            return Err(StoreError::Full(format!(
                "{} tasks are waiting, as many as may: wait until workers have taken some",
                self.most_waiting
            ))
            .into());
        }
        let id = task.id.to_string();
        let Tries { failures, losses } = task.tries;
        let limit = i64::try_from(task.time_limit.as_millis()).unwrap_or(i64::MAX);
        let inserted = sql
            .row(
                concat!(
                    "INSERT INTO queue_tasks (id, problem_id, parameters, priority, backend, \
                     limit_ms, failures_allowed, losses_allowed, callback_url, status, attempt, \
                     losses, created_at, updated_at, not_before, revision) VALUES \
                     (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'pending', 0, 0, ?10, ?10, 0, 1) \
                     ON CONFLICT (id) DO NOTHING RETURNING ",
                    task_columns!()
                ),
                &[
                    (&id).into(),
                    task.problem_id.as_str().into(),
                    task.parameters.as_str().into(),
                    task.priority.into(),
                    task.backend_type.as_deref().unwrap_or("").into(),
                    limit.into(),
                    failures.into(),
                    losses.into(),
                    task.callback_url.as_deref().into(),
                    now.as_millis().into(),
                ],
            )
            .await?;
        let Some(row) = inserted else {
            return Err(StoreError::Conflict(format!("there is a task {id} already")).into());
        };
        let created = rows::task(row)?;
        let problem = task.problem_id.as_str();
        sql.run(
            "INSERT INTO queue_problems (problem_id) VALUES (?1) ON CONFLICT DO NOTHING",
            &[problem.into()],
        )
        .await?;
        totals::add(sql, totals::CREATED, "", totals::One::default()).await?;
        totals::add(sql, totals::PROBLEM, problem, totals::One::default()).await?;
        logs::note(sql, task.id, *now, LogLevel::Info, "Task created", "{}").await?;
        if let Some(key) = &task.idempotency {
            remember(sql, key, &id, *now).await?;
        }
        Ok(Created {
            task: created,
            repeated: false,
        })
    }
}

async fn remember<S: Sql>(
    sql: &mut S,
    key: &taskwright_queue::task::Idempotency,
    task: &str,
    now: Timestamp,
) -> Result<(), OpError> {
    let oldest = now.as_millis().saturating_sub(KEY_LIFETIME);
    // A few at a time, so that no submission is long.
    sql.run(
        "DELETE FROM queue_keys WHERE key IN \
         (SELECT key FROM queue_keys WHERE at <= ?1 ORDER BY at LIMIT ?2)",
        &[oldest.into(), FORGOTTEN.into()],
    )
    .await?;
    // Two that come at the same time: the second finds this row taken, and is made again.
    sql.run(
        "INSERT INTO queue_keys (key, fingerprint, task_id, at) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, \
         task_id = excluded.task_id, at = excluded.at WHERE queue_keys.at <= ?5",
        &[
            (&key.key).into(),
            (&key.fingerprint).into(),
            task.into(),
            now.as_millis().into(),
            oldest.into(),
        ],
    )
    .await
    .map_err(OpError::from)
    .and_then(|changed| match changed {
        0 => Err(OpError::Sql(crate::queue::sql::SqlError {
            kind: crate::queue::sql::SqlFault::Raced,
            message: "another request used the same key at the same time".to_owned(),
        })),
        _ => Ok(()),
    })
}

/// One task, as it is on record.
pub(super) async fn read<S: Sql>(sql: &mut S, id: TaskId) -> Result<Option<QueuedTask>, OpError> {
    let statement = concat!(
        "SELECT ",
        task_columns!(),
        " FROM queue_tasks WHERE id = ?1"
    );
    let row = sql.row(statement, &[(&id.to_string()).into()]).await?;
    Ok(row.map(rows::task).transpose()?)
}

/// Refuses what is about a task that is not there.
pub(super) async fn must_exist<S: Sql>(sql: &mut S, id: TaskId) -> Result<(), OpError> {
    let known = "SELECT 1 FROM queue_tasks WHERE id = ?1";
    match sql.row(known, &[(&id.to_string()).into()]).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::NoSuchTask(id).into()),
    }
}

/// One task that is about to be changed.
pub(super) async fn read_locked<S: Sql>(
    sql: &mut S,
    id: TaskId,
) -> Result<Option<QueuedTask>, OpError> {
    let statement = concat!(
        "SELECT ",
        task_columns!(),
        " FROM queue_tasks WHERE id = ?1"
    );
    let statement = locked::<S>(statement, "FOR UPDATE");
    let row = sql.row(&statement, &[(&id.to_string()).into()]).await?;
    Ok(row.map(rows::task).transpose()?)
}

pub(crate) struct Read(pub(crate) TaskId);

impl Operation for Read {
    type Output = Option<QueuedTask>;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "task";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        read(sql, self.0).await
    }
}

pub(crate) struct Revision(pub(crate) TaskId);

impl Operation for Revision {
    type Output = Option<u64>;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "task_revision";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        let statement = "SELECT revision FROM queue_tasks WHERE id = ?1";
        let row = sql.row(statement, &[(&self.0.to_string()).into()]).await?;
        Ok(row.map(|mut row| row.count(0)).transpose()?)
    }
}

pub(crate) struct Attempts(pub(crate) TaskId);

impl Operation for Attempts {
    type Output = Vec<Attempt>;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "attempts";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        let statement = concat!(
            "SELECT ",
            attempt_columns!(),
            " FROM queue_attempts WHERE task_id = ?1 ORDER BY number LIMIT ?2"
        );
        let most = i64::from(Tries::MOST) * 2;
        let found = sql
            .rows(statement, &[(&self.0.to_string()).into(), most.into()])
            .await?;
        Ok(found
            .into_iter()
            .map(rows::attempt)
            .collect::<Result<_, _>>()?)
    }
}

/// The most tasks that a count with several conditions goes through.
const MOST_COUNTED: i64 = 1_000_000;

pub(crate) struct List(pub(crate) TaskQuery);

impl Operation for List {
    type Output = TaskPage;
    const MODE: Mode = Mode::ReadParts;
    const NAME: &'static str = "tasks";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<TaskPage, OpError> {
        let query = &self.0;
        let wanted = [
            // As the index for lists has it.
            ("status || ''", query.status.map(TaskStatus::word)),
            (
                "problem_id",
                query.problem.as_ref().map(|problem| problem.as_str()),
            ),
            (
                "worker_id",
                query.worker.as_ref().map(|worker| worker.as_str()),
            ),
        ];
        let (conditions, mut values) = conditions(&wanted);
        let total = if query.count {
            Some(count(sql, query, &conditions, &values).await?)
        } else {
            None
        };
        let (column, nullable) = match query.order.by {
            TaskKeyed::CreatedAt => ("created_at", false),
            TaskKeyed::UpdatedAt => ("updated_at", false),
            TaskKeyed::StartedAt => ("started_at", true),
            TaskKeyed::CompletedAt => ("completed_at", true),
            TaskKeyed::Priority => ("priority", false),
        };
        let direction = if query.order.descending {
            "DESC"
        } else {
            "ASC"
        };
        // What has no such time comes last, whatever the direction.
        let last = if nullable { " NULLS LAST" } else { "" };
        values.push(query.most.into());
        let most = values.len();
        values.push(i64::try_from(query.offset).unwrap_or(i64::MAX).into());
        let offset = values.len();
        let listed = |columns: &str| {
            format!(
                "SELECT {columns} FROM queue_tasks{conditions} ORDER BY {column} \
                 {direction}{last}, id {direction} LIMIT ?{most} OFFSET ?{offset}"
            )
        };
        let mut found = Within::default();
        if query.order.by == TaskKeyed::CompletedAt && query.order.descending {
            // What ended last is asked for most, and an index has it if nothing else is meant.
            let joint = if conditions.is_empty() {
                " WHERE"
            } else {
                " AND"
            };
            let statement = format!(
                "SELECT {} FROM queue_tasks{conditions}{joint} completed_at IS NOT NULL \
                 ORDER BY completed_at DESC, id DESC LIMIT ?{most} OFFSET ?{offset}",
                task_columns!()
            );
            found = sql.rows_within(&statement, &values, PAGE_BYTES).await?;
        }
        // What has not ended comes behind it.
        if !found.cut && found.rows.len() < query.most as usize {
            let statement = listed(task_columns!());
            found = sql.rows_within(&statement, &values, PAGE_BYTES).await?;
        }
        let mut rest = Vec::new();
        if found.cut {
            let ids = sql.rows(&listed("id"), &values).await?.into_iter();
            let ids = ids
                .skip(found.rows.len())
                .map(|mut row| rows::id(&mut row, 0));
            rest = ids.collect::<Result<_, _>>()?;
        }
        let tasks = found.rows.into_iter().map(rows::task);
        Ok(TaskPage {
            tasks: tasks.collect::<Result<_, _>>()?,
            rest,
            total,
        })
    }
}

/// How many match: from the sums that are kept where there is one condition or none.
async fn count<S: Sql>(
    sql: &mut S,
    query: &TaskQuery,
    conditions: &str,
    values: &[Value<'_>],
) -> Result<u64, OpError> {
    match (query.status, &query.problem, &query.worker) {
        (status, None, None) => {
            let counts = totals::counts(sql).await?;
            Ok(status.map_or(counts.total(), |status| counts.of(status)))
        }
        (None, Some(problem), None) => totals::sum(sql, totals::PROBLEM, problem.as_str()).await,
        (None, None, Some(worker)) => {
            let ended = totals::sum(sql, totals::WORKER, worker.as_str()).await?;
            let held = workers::held(sql, worker).await?.len();
            Ok(ended.saturating_add(u64::try_from(held).unwrap_or(u64::MAX)))
        }
        _ => {
            let statement = format!(
                "SELECT count(*) FROM (SELECT 1 FROM queue_tasks{conditions} LIMIT {MOST_COUNTED}) \
                 AS matching"
            );
            match sql.row(&statement, values).await? {
                Some(mut row) => Ok(row.count(0)?),
                None => Ok(0),
            }
        }
    }
}

pub(crate) struct Cancel {
    pub(crate) id: TaskId,
    pub(crate) now: Timestamp,
}

impl Operation for Cancel {
    type Output = QueuedTask;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "cancel";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<QueuedTask, OpError> {
        let found = read_locked(sql, self.id)
            .await?
            .ok_or(StoreError::NoSuchTask(self.id))?;
        if found.status.is_ended() {
            return Err(StoreError::Conflict(format!(
                "task {} is {} already and cannot be cancelled",
                self.id,
                found.status.word()
            ))
            .into());
        }
        let ending = Ending {
            status: TaskStatus::Cancelled,
            end: AttemptEnd::Cancelled,
            cause: Cause::Cancelled,
            result: None,
            error: None,
            document: None,
        };
        let ended = ends::end(sql, &found, &ending, self.now).await?;
        let line = "Task cancelled by user";
        logs::note(sql, self.id, self.now, LogLevel::Info, line, "{}").await?;
        Ok(ended)
    }
}
