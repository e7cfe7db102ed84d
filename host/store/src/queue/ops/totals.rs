//! Sums that are kept, and read.
//!
//! A count over a million tasks takes longer than anybody waits for a page, so the
//! end of each task adds to sums. In PostgreSQL every connection adds to a share of
//! its own: sums are read often enough, but no two tasks end one after the other
//! only because both are counted.

use taskwright_model::Timestamp;
use taskwright_queue::stats::{ConversationStats, Counts, TaskStats, WorkerStats};
use taskwright_queue::{TaskStatus, WorkerId};

use crate::queue::rows;
use crate::queue::sql::{Mode, OpError, Operation, Sql};

/// Tasks that were submitted.
pub(super) const CREATED: &str = "created";
/// Tasks that ended, by status.
pub(super) const ENDED: &str = "ended";
/// Tasks that were submitted, by problem.
pub(super) const PROBLEM: &str = "problem";
/// Attempts that ended their task, by worker.
pub(super) const WORKER: &str = "worker";

/// The most problems or workers that are told.
const MOST_TOLD: i64 = 1000;

/// What one more adds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct One {
    /// Seconds it waited.
    pub(super) waited: f64,
    /// Seconds it ran.
    pub(super) ran: f64,
}

/// Adds one.
pub(super) async fn add<S: Sql>(
    sql: &mut S,
    kind: &str,
    key: &str,
    one: One,
) -> Result<(), OpError> {
    let statement = if S::POSTGRES {
        "INSERT INTO queue_totals (share, kind, key, n, waited, ran) \
         VALUES (pg_backend_pid() % 64, ?1, ?2, 1, ?3, ?4) \
         ON CONFLICT (kind, key, share) DO UPDATE SET n = queue_totals.n + 1, \
         waited = queue_totals.waited + excluded.waited, ran = queue_totals.ran + excluded.ran"
    } else {
        "INSERT INTO queue_totals (share, kind, key, n, waited, ran) VALUES (0, ?1, ?2, 1, ?3, ?4) \
         ON CONFLICT (kind, key, share) DO UPDATE SET n = n + 1, \
         waited = waited + excluded.waited, ran = ran + excluded.ran"
    };
    let values = [kind.into(), key.into(), one.waited.into(), one.ran.into()];
    sql.run(statement, &values).await?;
    Ok(())
}

/// How many were counted under a key.
pub(super) async fn sum<S: Sql>(sql: &mut S, kind: &str, key: &str) -> Result<u64, OpError> {
    let statement = "SELECT CAST(coalesce(sum(n), 0) AS BIGINT) FROM queue_totals \
                     WHERE kind = ?1 AND key = ?2";
    match sql.row(statement, &[kind.into(), key.into()]).await? {
        Some(mut row) => Ok(row.count(0)?),
        None => Ok(0),
    }
}

struct Sums {
    counts: Counts,
    /// Of those that run: seconds that they waited.
    waited_running: f64,
    /// Of those that brought a result.
    waited_completed: f64,
    ran_completed: f64,
}

async fn sums<S: Sql>(sql: &mut S) -> Result<Sums, OpError> {
    let mut sums = Sums {
        counts: Counts::default(),
        waited_running: 0.0,
        waited_completed: 0.0,
        ran_completed: 0.0,
    };
    let created = sum(sql, CREATED, "").await?;
    let ended = "SELECT key, CAST(sum(n) AS BIGINT), sum(waited), sum(ran) FROM queue_totals \
                 WHERE kind = ?1 GROUP BY key";
    for mut row in sql.rows(ended, &[ENDED.into()]).await? {
        let Some(status) = TaskStatus::of_word(&row.text(0)?) else {
            continue;
        };
        sums.counts.set(status, row.count(1)?);
        if status == TaskStatus::Completed {
            sums.waited_completed = row.real(2)?.unwrap_or_default();
            sums.ran_completed = row.real(3)?.unwrap_or_default();
        }
    }
    let running = "SELECT count(*), \
                   CAST(coalesce(sum((started_at - created_at) / 1000.0), 0) AS DOUBLE PRECISION) \
                   FROM queue_tasks WHERE status = 'running'";
    if let Some(mut row) = sql.row(running, &[]).await? {
        sums.counts.running = row.count(0)?;
        sums.waited_running = row.real(1)?.unwrap_or_default();
    }
    let known = sums.counts.total();
    sums.counts.pending = created.saturating_sub(known);
    Ok(sums)
}

/// How many tasks there are.
pub(super) async fn counts<S: Sql>(sql: &mut S) -> Result<Counts, OpError> {
    Ok(sums(sql).await?.counts)
}

/// How many wait, or run: what a bound on submissions goes by.
pub(super) async fn waiting<S: Sql>(sql: &mut S) -> Result<u64, OpError> {
    let statement = "SELECT CAST(coalesce(sum(CASE WHEN kind = 'created' THEN n ELSE -n END), 0) \
                     AS BIGINT) FROM queue_totals WHERE kind IN ('created', 'ended')";
    match sql.row(statement, &[]).await? {
        Some(mut row) => Ok(row.count(0)?),
        None => Ok(0),
    }
}

pub(crate) struct CountAll;

impl Operation for CountAll {
    type Output = Counts;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "counts";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Counts, OpError> {
        counts(sql).await
    }
}

pub(crate) struct Tasks;

impl Operation for Tasks {
    type Output = TaskStats;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "task_stats";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<TaskStats, OpError> {
        let sums = sums(sql).await?;
        let started = sums.counts.running.saturating_add(sums.counts.completed);
        let by = "SELECT key, CAST(sum(n) AS BIGINT) AS many FROM queue_totals WHERE kind = ?1 \
                  GROUP BY key ORDER BY many DESC, key LIMIT ?2";
        let by_problem = sql.rows(by, &[PROBLEM.into(), MOST_TOLD.into()]).await?;
        let by_worker = sql.rows(by, &[WORKER.into(), MOST_TOLD.into()]).await?;
        let held = "SELECT worker_id, count(*) FROM queue_tasks WHERE status = 'running' \
                    GROUP BY worker_id ORDER BY worker_id LIMIT ?1";
        let held = sql.rows(held, &[MOST_TOLD.into()]).await?;
        let mut by_worker = counted(by_worker)?;
        for (worker, running) in counted(held)? {
            match by_worker.iter_mut().find(|(known, _)| *known == worker) {
                Some((_, count)) => *count = count.saturating_add(running),
                None => by_worker.push((worker, running)),
            }
        }
        Ok(TaskStats {
            counts: sums.counts,
            average_wait: average(sums.waited_running + sums.waited_completed, started),
            average_execution: average(sums.ran_completed, sums.counts.completed),
            by_problem: counted(by_problem)?,
            by_worker,
        })
    }
}

fn counted(rows: Vec<crate::queue::sql::Row>) -> Result<Vec<(String, u64)>, OpError> {
    Ok(rows
        .into_iter()
        .map(rows::counted)
        .collect::<Result<_, _>>()?)
}

#[expect(clippy::cast_precision_loss, reason = "averages are not exact")]
fn average(sum: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum / count as f64)
}

pub(crate) struct OfWorker(pub(crate) WorkerId);

impl Operation for OfWorker {
    type Output = WorkerStats;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "worker_stats";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<WorkerStats, OpError> {
        let statement = "SELECT CAST(coalesce(sum(n), 0) AS BIGINT), sum(ran) FROM queue_totals \
                         WHERE kind = 'completed-by' AND key = ?1";
        let Some(mut row) = sql.row(statement, &[self.0.as_str().into()]).await? else {
            return Ok(WorkerStats::default());
        };
        let completed = row.count(0)?;
        Ok(WorkerStats {
            average_execution: average(row.real(1)?.unwrap_or_default(), completed),
        })
    }
}

/// Tasks that brought a result, by worker, with the time they took.
pub(super) const COMPLETED_BY: &str = "completed-by";

pub(crate) struct Conversations;

impl Operation for Conversations {
    type Output = ConversationStats;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "conversation_stats";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<ConversationStats, OpError> {
        let all = "SELECT count(*), CAST(coalesce(sum(messages), 0) AS BIGINT), \
                   CAST(coalesce(sum(coalesce(input_tokens + output_tokens, characters / 4)), 0) \
                   AS BIGINT), CAST(coalesce(sum(CASE WHEN success = 1 THEN 1 ELSE 0 END), 0) \
                   AS BIGINT) FROM queue_conversations";
        let by_model = "SELECT model_name, count(*) AS many FROM queue_conversations \
                        GROUP BY model_name ORDER BY many DESC, model_name LIMIT ?1";
        let by_model = counted(sql.rows(by_model, &[MOST_TOLD.into()]).await?)?;
        let Some(mut row) = sql.row(all, &[]).await? else {
            return Ok(ConversationStats::default());
        };
        Ok(ConversationStats {
            conversations: row.count(0)?,
            by_model,
            messages: row.count(1)?,
            tokens: row.count(2)?,
            successful: row.count(3)?,
        })
    }
}

/// Seconds between two times.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64()
}
