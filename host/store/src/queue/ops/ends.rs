//! What an attempt's end changes, whoever says it: the task, the record of attempts,
//! the worker's place and counters, the sums, and whom to tell.

use std::sync::Arc;
use std::time::Duration;

use taskwright_model::Timestamp;
use taskwright_queue::port::{Report, ReportedEnd, StoreError};
use taskwright_queue::task::{After, after};
use taskwright_queue::{AttemptEnd, Cause, Json, LogLevel, QueuedTask, TaskStatus};

use super::totals::{self, One};
use super::{logs, tasks};
use crate::queue::rows::{self, task_columns};
use crate::queue::sql::{Mode, OpError, Operation, Sql, SqlError, SqlFault};

/// An end of a task.
pub(super) struct Ending<'a> {
    pub(super) status: TaskStatus,
    pub(super) end: AttemptEnd,
    pub(super) cause: Cause,
    pub(super) result: Option<&'a Json>,
    pub(super) error: Option<&'a str>,
    pub(super) document: Option<&'a Json>,
}

/// Ends a task that is locked and not ended.
pub(super) async fn end<S: Sql>(
    sql: &mut S,
    task: &QueuedTask,
    ending: &Ending<'_>,
    now: Timestamp,
) -> Result<QueuedTask, OpError> {
    // With several machines a clock may be behind another's; times of one task never are.
    let now = now.max(task.started_at.unwrap_or(task.created_at));
    let id = task.id.to_string();
    let row = sql
        .row(
            concat!(
                "UPDATE queue_tasks SET status = ?2, result = ?3, error = ?4, \
                 error_document = ?5, cause = ?6, completed_at = ?7, updated_at = ?7, \
                 slot = NULL, deadline = NULL, revision = revision + 1 \
                 WHERE id = ?1 AND revision = ?8 RETURNING ",
                task_columns!()
            ),
            &[
                (&id).into(),
                ending.status.word().into(),
                ending.result.map(Json::as_str).into(),
                ending.error.into(),
                ending.document.map(Json::as_str).into(),
                ending.cause.word().into(),
                now.as_millis().into(),
                signed(task.revision).into(),
            ],
        )
        .await?;
    let ended = rows::task(row.ok_or_else(raced)?)?;
    let mut one = One::default();
    if let (Some(worker), Some(started)) = (&task.worker, task.started_at) {
        one = One {
            waited: totals::seconds(task.created_at, started),
            ran: totals::seconds(started, now),
        };
        record_attempt(sql, task, ending.end, ending.cause, ending.error, now).await?;
        let (completed, failed) = match ending.status {
            TaskStatus::Completed => (1_i64, 0_i64),
            TaskStatus::Failed | TaskStatus::Timeout => (0, 1),
            TaskStatus::Pending | TaskStatus::Running | TaskStatus::Cancelled => (0, 0),
        };
        if completed + failed > 0 {
            sql.run(
                "UPDATE queue_workers SET completed = completed + ?2, failed = failed + ?3 \
                 WHERE id = ?1",
                &[worker.as_str().into(), completed.into(), failed.into()],
            )
            .await?;
        }
        totals::add(sql, totals::WORKER, worker.as_str(), One::default()).await?;
        if completed > 0 {
            totals::add(sql, totals::COMPLETED_BY, worker.as_str(), one).await?;
        }
    }
    totals::add(sql, totals::ENDED, ending.status.word(), one).await?;
    if let Some(url) = &task.callback_url {
        sql.run(
            "INSERT INTO queue_callbacks (task_id, url, tries, due) VALUES (?1, ?2, 0, ?3) \
             ON CONFLICT DO NOTHING",
            &[(&id).into(), url.into(), now.as_millis().into()],
        )
        .await?;
    }
    Ok(ended)
}

async fn record_attempt<S: Sql>(
    sql: &mut S,
    task: &QueuedTask,
    end: AttemptEnd,
    cause: Cause,
    error: Option<&str>,
    now: Timestamp,
) -> Result<(), OpError> {
    let (Some(worker), Some(started)) = (&task.worker, task.started_at) else {
        return Ok(());
    };
    sql.run(
        "INSERT INTO queue_attempts (task_id, number, worker_id, started_at, ended_at, outcome, \
         cause, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        &[
            (&task.id.to_string()).into(),
            task.attempt.into(),
            worker.as_str().into(),
            started.as_millis().into(),
            now.as_millis().into(),
            end.word().into(),
            cause.word().into(),
            error.into(),
        ],
    )
    .await?;
    Ok(())
}

/// Lets a task wait for a worker again.
async fn again<S: Sql>(
    sql: &mut S,
    task: &QueuedTask,
    cause: Cause,
    error: &str,
    pause: Duration,
    now: Timestamp,
) -> Result<QueuedTask, OpError> {
    let now = now.max(task.started_at.unwrap_or(task.created_at));
    let end = if cause.is_machines() && cause != Cause::Infrastructure {
        AttemptEnd::Lost
    } else {
        AttemptEnd::Failed
    };
    record_attempt(sql, task, end, cause, Some(error), now).await?;
    let row = sql
        .row(
            concat!(
                "UPDATE queue_tasks SET status = 'pending', worker_id = NULL, slot = NULL, \
                 started_at = NULL, deadline = NULL, updated_at = ?2, not_before = ?3, \
                 losses = losses + ?4, revision = revision + 1 \
                 WHERE id = ?1 AND revision = ?5 RETURNING ",
                task_columns!()
            ),
            &[
                (&task.id.to_string()).into(),
                now.as_millis().into(),
                now.plus(pause).as_millis().into(),
                i64::from(cause.is_machines()).into(),
                signed(task.revision).into(),
            ],
        )
        .await?;
    Ok(rows::task(row.ok_or_else(raced)?)?)
}

/// What an attempt that brought no result is told as.
pub(super) struct Setback<'a> {
    pub(super) cause: Cause,
    pub(super) error: &'a str,
    pub(super) document: Option<&'a Json>,
}

/// An attempt brought no result: the task waits again or has failed.
pub(super) async fn set_back<S: Sql>(
    sql: &mut S,
    task: &QueuedTask,
    setback: &Setback<'_>,
    now: Timestamp,
) -> Result<QueuedTask, OpError> {
    let Setback {
        cause,
        error,
        document,
    } = *setback;
    let losses = task.losses.saturating_add(u32::from(cause.is_machines()));
    match after(task.tries, task.attempt, losses, cause) {
        After::Again { pause } => {
            let next = again(sql, task, cause, error, pause, now).await?;
            let line = format!(
                "Attempt {} ended ({}): {error}. It is tried again in {} s",
                task.attempt,
                cause.word(),
                pause.as_secs()
            );
            logs::note(sql, task.id, now, LogLevel::Warning, &line, "{}").await?;
            Ok(next)
        }
        After::Over => {
            let lost = matches!(cause, Cause::WorkerLost | Cause::WorkerRestarted);
            let told = match lost {
                true => format!("{error}; that was attempt {}, and the last", task.attempt),
                false => error.to_owned(),
            };
            let ending = Ending {
                status: TaskStatus::Failed,
                end: if lost {
                    AttemptEnd::Lost
                } else {
                    AttemptEnd::Failed
                },
                cause,
                result: None,
                error: Some(&told),
                document,
            };
            let ended = end(sql, task, &ending, now).await?;
            if lost {
                logs::note(sql, task.id, now, LogLevel::Error, &told, "{}").await?;
            }
            Ok(ended)
        }
    }
}

/// A result, taken in one statement: ?1 the task, ?2 the worker, ?3 the attempt if it is told, ?4
/// the result, ?5 now. It writes what `end` writes, in one journey to the server where that
/// takes ten. Where the report is not as plainly right as this, it changes nothing. Benchmarks run
/// it by other means for comparison.
pub const COMPLETE_POSTGRES: &str = concat!(
    "WITH ended AS (UPDATE queue_tasks SET status = 'completed', result = ?4, error = NULL, \
     error_document = NULL, cause = 'reported', completed_at = greatest(?5, started_at), \
     updated_at = greatest(?5, started_at), slot = NULL, deadline = NULL, \
     revision = revision + 1 WHERE id = ?1 AND status = 'running' AND worker_id = ?2 \
     AND attempt = coalesce(?3, attempt) AND EXISTS (SELECT 1 FROM queue_workers WHERE id = ?2) \
     RETURNING ",
    task_columns!(),
    "), kept AS (INSERT INTO queue_attempts (task_id, number, worker_id, started_at, ended_at, \
     outcome, cause) SELECT id, attempt, worker_id, started_at, completed_at, 'completed', \
     'reported' FROM ended), \
     counted AS (UPDATE queue_workers SET completed = completed + 1 FROM ended \
     WHERE queue_workers.id = ended.worker_id), \
     summed AS (INSERT INTO queue_totals (share, kind, key, n, waited, ran) \
     SELECT pg_backend_pid() % 64, s.kind, s.key, 1, s.waited, s.ran FROM (SELECT worker_id, \
     CAST((started_at - created_at) / 1000.0 AS DOUBLE PRECISION) AS waited, \
     CAST((completed_at - started_at) / 1000.0 AS DOUBLE PRECISION) AS ran FROM ended) e, \
     LATERAL (VALUES ('worker', e.worker_id, 0, 0), ('completed-by', e.worker_id, e.waited, e.ran), \
     ('ended', 'completed', e.waited, e.ran)) AS s (kind, key, waited, ran) \
     ON CONFLICT (kind, key, share) DO UPDATE SET n = queue_totals.n + 1, \
     waited = queue_totals.waited + excluded.waited, ran = queue_totals.ran + excluded.ran), \
     told AS (INSERT INTO queue_callbacks (task_id, url, tries, due) \
     SELECT id, callback_url, 0, completed_at FROM ended WHERE callback_url IS NOT NULL \
     ON CONFLICT DO NOTHING) SELECT ",
    task_columns!(),
    " FROM ended AS queue_tasks"
);

/// Takes a result in one statement; only PostgreSQL knows it. `None`: it is not as simple as that.
pub(crate) struct Complete {
    pub(crate) report: Arc<Report>,
    pub(crate) now: Timestamp,
}

impl Operation for Complete {
    type Output = Option<QueuedTask>;
    const MODE: Mode = Mode::Single;
    const NAME: &'static str = "complete";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Option<QueuedTask>, OpError> {
        let report = &self.report;
        let ReportedEnd::Completed { result } = &report.end else {
            return Ok(None);
        };
        let task = report.task.to_string();
        let values = [
            (&task).into(),
            report.worker.as_str().into(),
            report.attempt.into(),
            result.as_str().into(),
            self.now.as_millis().into(),
        ];
        let row = sql.row(COMPLETE_POSTGRES, &values).await?;
        Ok(row.map(rows::task).transpose()?)
    }
}

pub(crate) struct Hear {
    pub(crate) report: Arc<Report>,
    pub(crate) now: Timestamp,
}

impl Operation for Hear {
    type Output = QueuedTask;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "report";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<QueuedTask, OpError> {
        let Report {
            worker,
            task,
            attempt,
            end: said,
        } = &*self.report;
        let known = "SELECT 1 FROM queue_workers WHERE id = ?1";
        if sql.row(known, &[worker.as_str().into()]).await?.is_none() {
            return Err(StoreError::NoSuchWorker(worker.clone()).into());
        }
        let found = tasks::read_locked(sql, *task)
            .await?
            .ok_or(StoreError::NoSuchTask(*task))?;
        let holds = found.worker.as_ref() == Some(worker)
            && attempt.is_none_or(|attempt| attempt == found.attempt);
        if holds && found.status.is_ended() && same(&found, said) {
            return Ok(found);
        }
        if !holds || found.status != TaskStatus::Running {
            if said_before(sql, &found, &self.report).await? {
                return Ok(found);
            }
            return Err(StoreError::Conflict(not_its(&found, worker, *attempt)).into());
        }
        match said {
            ReportedEnd::Completed { result } => {
                let ending = Ending {
                    status: TaskStatus::Completed,
                    end: AttemptEnd::Completed,
                    cause: Cause::Reported,
                    result: Some(result),
                    error: None,
                    document: None,
                };
                end(sql, &found, &ending, self.now).await
            }
            ReportedEnd::Failed {
                error,
                document,
                cause,
            } => {
                let setback = Setback {
                    cause: *cause,
                    error,
                    document: document.as_ref(),
                };
                set_back(sql, &found, &setback, self.now).await
            }
        }
    }
}

/// Whether a failure was reported before, in the same words, and the task waits again since.
async fn said_before<S: Sql>(
    sql: &mut S,
    found: &QueuedTask,
    report: &Report,
) -> Result<bool, OpError> {
    let (ReportedEnd::Failed { error, .. }, TaskStatus::Pending) = (&report.end, found.status)
    else {
        return Ok(false);
    };
    let said = "SELECT 1 FROM queue_attempts WHERE task_id = ?1 AND number = ?2 \
                AND worker_id = ?3 AND error = ?4";
    let id = found.id.to_string();
    let values = [
        (&id).into(),
        report.attempt.unwrap_or(found.attempt).into(),
        report.worker.as_str().into(),
        error.into(),
    ];
    Ok(sql.row(said, &values).await?.is_some())
}

/// Whether a report says once more what ended the task.
fn same(found: &QueuedTask, said: &ReportedEnd) -> bool {
    match said {
        ReportedEnd::Completed { result } => {
            found.status == TaskStatus::Completed && found.result.as_ref() == Some(result)
        }
        ReportedEnd::Failed { error, .. } => {
            found.status == TaskStatus::Failed && found.error.as_deref() == Some(error)
        }
    }
}

fn not_its(
    found: &QueuedTask,
    worker: &taskwright_queue::WorkerId,
    attempt: Option<u32>,
) -> String {
    let id = found.id;
    match (&found.worker, attempt) {
        _ if found.status.is_ended() => {
            format!(
                "task {id} is {} already; the report changed nothing",
                found.status.word()
            )
        }
        (Some(holder), _) if holder != worker => {
            format!("task {id} is held by {holder} and not by {worker}; the report changed nothing")
        }
        (Some(_), Some(attempt)) => format!(
            "task {id} is in attempt {}, and the report is about attempt {attempt}; it changed \
             nothing",
            found.attempt
        ),
        _ => format!(
            "task {id} is {} and not held by {worker}; the report changed nothing",
            found.status.word()
        ),
    }
}

fn raced() -> SqlError {
    SqlError {
        kind: SqlFault::Raced,
        message: "the task changed at the same time".to_owned(),
    }
}

/// A counter of ours in a column.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
