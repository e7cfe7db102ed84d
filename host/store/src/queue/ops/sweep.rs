//! What is out of time, and whose worker is lost.

use taskwright_model::Timestamp;
use taskwright_queue::port::Swept;
use taskwright_queue::{AttemptEnd, Cause, LogLevel, TaskStatus, WorkerId};

use super::ends::{self, Ending};
use super::{locked, logs, workers};
use crate::queue::rows::{self, task_columns};
use crate::queue::sql::{Mode, OpError, Operation, Sql};

/// Tasks that are ended in one transaction.
const MOST_TASKS: i64 = 64;
/// Workers that are given up in one transaction.
const MOST_WORKERS: i64 = 16;

pub(crate) struct Sweep {
    pub(crate) now: Timestamp,
}

impl Operation for Sweep {
    type Output = Swept;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "sweep";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Swept, OpError> {
        let now = self.now;
        let mut swept = Swept::default();
        let late = concat!(
            "SELECT ",
            task_columns!(),
            " FROM queue_tasks WHERE status = 'running' AND deadline <= ?1 \
             ORDER BY deadline LIMIT ?2"
        );
        let late = locked::<S>(late, "FOR UPDATE SKIP LOCKED");
        let late = sql
            .rows(&late, &[now.as_millis().into(), MOST_TASKS.into()])
            .await?;
        swept.more = late.len() >= usize::try_from(MOST_TASKS).unwrap_or(0);
        for row in late {
            let task = rows::task(row)?;
            let minutes = task.time_limit.as_secs_f64() / 60.0;
            let told = format!("Task exceeded its time limit of {minutes} minutes");
            let ending = Ending {
                status: TaskStatus::Timeout,
                end: AttemptEnd::Timeout,
                cause: Cause::TimeLimit,
                result: None,
                error: Some(&told),
                document: None,
            };
            ends::end(sql, &task, &ending, now).await?;
            let context = format!("{{\"timeout_minutes\":{minutes}}}");
            logs::note(sql, task.id, now, LogLevel::Warning, &told, &context).await?;
            swept.timed_out.push(task.id);
        }
        let silent = "SELECT w.id, w.last_heartbeat FROM queue_workers w WHERE w.alive_until <= ?1 \
                      AND EXISTS (SELECT 1 FROM queue_tasks t WHERE t.worker_id = w.id \
                      AND t.slot >= 0 AND t.status = 'running') ORDER BY w.id LIMIT ?2";
        let silent = locked::<S>(silent, "FOR UPDATE OF w SKIP LOCKED");
        let silent = sql
            .rows(&silent, &[now.as_millis().into(), MOST_WORKERS.into()])
            .await?;
        swept.more |= silent.len() >= usize::try_from(MOST_WORKERS).unwrap_or(0);
        for mut row in silent {
            let worker = WorkerId::from_store(row.text(0)?);
            let heard = rows::time(&mut row, 1)?;
            let told = format!(
                "worker {worker} was lost: nothing was heard of it for {} s",
                now.since(heard).as_secs()
            );
            for task in workers::release(sql, &worker, Cause::WorkerLost, &told, now).await? {
                if task.status == TaskStatus::Pending {
                    swept.requeued.push(task.id);
                } else {
                    swept.failed.push(task.id);
                }
            }
        }
        swept.next = next(sql).await?;
        Ok(swept)
    }
}

/// When the next task is out of time, or the next worker that holds one.
async fn next<S: Sql>(sql: &mut S) -> Result<Option<Timestamp>, OpError> {
    let deadline = "SELECT deadline FROM queue_tasks WHERE status = 'running' \
                    AND deadline IS NOT NULL ORDER BY deadline LIMIT 1";
    let lease = "SELECT min(w.alive_until) FROM queue_workers w WHERE EXISTS \
                 (SELECT 1 FROM queue_tasks t WHERE t.worker_id = w.id AND t.slot >= 0 \
                 AND t.status = 'running')";
    let mut next = None;
    for statement in [deadline, lease] {
        if let Some(mut row) = sql.row(statement, &[]).await?
            && let Some(at) = rows::opt_time(&mut row, 0)?
        {
            next = Some(next.map_or(at, |known: Timestamp| known.min(at)));
        }
    }
    Ok(next)
}
