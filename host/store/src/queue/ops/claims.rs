//! Which task a worker gets: the one of the highest priority, and of those the oldest.
//!
//! One statement takes it, and gives the worker a place of its own; it succeeds only
//! for a worker that is on record as it is known here, alive for long enough, and has
//! a free place. When it brings nothing, the reason is looked up.

use taskwright_model::Timestamp;
use taskwright_queue::port::{Claim, Claimed, StoreError};
use taskwright_queue::worker::Problems;
use taskwright_queue::{QueuedTask, Worker};

use super::{locked, workers};
use crate::queue::rows::{self, task_columns};
use crate::queue::sql::{MOST_RACES, Mode, OpError, Operation, Sql, SqlError, SqlFault, Value};

/// The most problems of a worker that takes only some; beyond it, only those are looked at that
/// come first in the alphabet.
const MOST_PROBLEMS: i64 = 10_000;

/// The worker, if it may claim: ?1 its id, ?2 its revision, ?3 now, ?4 how long its lease has to
/// go on.
macro_rules! claimer {
    () => {
        "WITH me AS (SELECT w.id AS worker, \
         (SELECT min(s.n) FROM queue_slots s WHERE s.n < w.max_parallel AND NOT EXISTS \
         (SELECT 1 FROM queue_tasks r WHERE r.worker_id = w.id AND r.slot = s.n \
         AND r.status = 'running')) AS place \
         FROM queue_workers w WHERE w.id = ?1 AND w.revision = ?2 AND w.alive_until >= ?4)"
    };
}

/// What a claim changes, for the task `next.id`.
macro_rules! taken {
    () => {
        concat!(
            "UPDATE queue_tasks SET status = 'running', worker_id = me.worker, slot = me.place, \
             attempt = attempt + 1, started_at = CASE WHEN created_at > ?3 THEN created_at \
             ELSE ?3 END, updated_at = ?3, deadline = ?3 + limit_ms, revision = revision + 1 \
             FROM me, next WHERE queue_tasks.id = next.id AND queue_tasks.status = 'pending' \
             AND me.place IS NOT NULL RETURNING ",
            task_columns!()
        )
    };
}

/// The next task of any problem: ?5 the worker's kind. Of tasks for anybody and of those for this
/// kind the first is found, each in one step; then the first of the better kind that nobody else
/// is taking.
macro_rules! next_of_all {
    ($lock:literal) => {
        concat!(
            claimer!(),
            ", next AS (SELECT t.id FROM queue_tasks t, me WHERE me.place IS NOT NULL \
             AND t.status = 'pending' AND t.not_before <= ?3 AND t.backend = \
             (SELECT h.backend FROM (\
             SELECT * FROM (SELECT backend, priority, created_at, id FROM queue_tasks \
             WHERE status = 'pending' AND backend = '' AND not_before <= ?3 \
             ORDER BY priority DESC, created_at, id LIMIT 1) a UNION ALL \
             SELECT * FROM (SELECT backend, priority, created_at, id FROM queue_tasks \
             WHERE status = 'pending' AND backend = ?5 AND not_before <= ?3 \
             ORDER BY priority DESC, created_at, id LIMIT 1) b) h \
             ORDER BY h.priority DESC, h.created_at, h.id LIMIT 1) \
             ORDER BY t.priority DESC, t.created_at, t.id LIMIT 1 ",
            $lock,
            ") ",
            taken!()
        )
    };
}

/// The statement that claims without regard to problems, as PostgreSQL takes it; benchmarks run
/// it by other means for comparison.
pub(crate) const CLAIM_POSTGRES: &str = next_of_all!("FOR UPDATE OF t SKIP LOCKED");
const CLAIM_SQLITE: &str = next_of_all!("");

pub(crate) struct Take {
    pub(crate) claim: Claim,
    pub(crate) now: Timestamp,
    /// The worker as it was known a moment ago; what has changed since is noticed.
    pub(crate) known: Option<Worker>,
}

/// What a claim brought, and the worker as it is known now.
pub(crate) struct Took {
    pub(crate) claimed: Claimed,
    pub(crate) worker: Worker,
}

impl Operation for Take {
    type Output = Took;
    const MODE: Mode = Mode::Single;
    const NAME: &'static str = "claim";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Took, OpError> {
        let Self { claim, now, known } = self;
        let mut worker = match known {
            Some(worker) => worker.clone(),
            None => workers::known(sql, &claim.worker).await?,
        };
        for _ in 0..MOST_RACES {
            let problems =
                Problems::parse(&worker.capabilities.problems).map_err(StoreError::Conflict)?;
            let lasting = now.plus(claim.lease / 4 * 3);
            let taken = if problems.takes_all() {
                next_of_all(sql, &worker, *now, lasting).await?
            } else {
                next_of_some(sql, &worker, &problems, *now, lasting).await?
            };
            if let Some(task) = taken {
                let claimed = Claimed::Task(Box::new(task));
                return Ok(Took { claimed, worker });
            }
            // Nothing: why?
            let found = workers::known(sql, &claim.worker).await?;
            if found.alive_until < lasting {
                let renewed = workers::renew(sql, &claim.worker, false, claim.lease, *now).await?;
                worker = renewed.ok_or_else(|| StoreError::NoSuchWorker(claim.worker.clone()))?;
                continue;
            }
            if found.revision != worker.revision {
                worker = found;
                continue;
            }
            worker = found;
            let held = workers::held(sql, &claim.worker).await?.len();
            let claimed = if held >= worker.capabilities.max_parallel as usize {
                Claimed::Full
            } else {
                let next = next_pause(sql, *now).await?;
                Claimed::Nothing { next }
            };
            return Ok(Took { claimed, worker });
        }
        Err(OpError::Sql(SqlError {
            kind: SqlFault::Raced,
            message: format!("worker {} changes all the time", claim.worker),
        }))
    }
}

async fn next_of_all<S: Sql>(
    sql: &mut S,
    worker: &Worker,
    now: Timestamp,
    lasting: Timestamp,
) -> Result<Option<QueuedTask>, OpError> {
    let statement = if S::POSTGRES {
        CLAIM_POSTGRES
    } else {
        CLAIM_SQLITE
    };
    let values = claimer(worker, now, lasting, &worker.backend_type);
    let row = sql.row(statement, &values).await?;
    Ok(row.map(rows::task).transpose()?)
}

fn claimer<'a>(
    worker: &'a Worker,
    now: Timestamp,
    lasting: Timestamp,
    last: &'a str,
) -> [Value<'a>; 5] {
    [
        worker.id.as_str().into(),
        super::ends::signed(worker.revision).into(),
        now.as_millis().into(),
        lasting.as_millis().into(),
        last.into(),
    ]
}

/// The first of each problem that the worker takes, and the best of those.
async fn next_of_some<S: Sql>(
    sql: &mut S,
    worker: &Worker,
    problems: &Problems,
    now: Timestamp,
    lasting: Timestamp,
) -> Result<Option<QueuedTask>, OpError> {
    let all = "SELECT problem_id FROM queue_problems ORDER BY problem_id LIMIT ?1";
    let mut taken = Vec::new();
    for mut row in sql.rows(all, &[MOST_PROBLEMS.into()]).await? {
        let problem = row.text(0)?;
        if problems.takes(&problem) {
            taken.push(problem);
        }
    }
    if taken.is_empty() {
        return Ok(None);
    }
    let taken = serde_json::to_string(&taken).unwrap_or_default();
    let listed = if S::POSTGRES {
        "SELECT json_array_elements_text(CAST(CAST(?1 AS TEXT) AS json))"
    } else {
        "SELECT value FROM json_each(?1)"
    };
    let heads = format!(
        "SELECT t.id FROM (SELECT (SELECT q.id FROM queue_tasks q WHERE q.status = 'pending' \
         AND q.problem_id = p.problem_id AND q.not_before <= ?2 AND q.backend IN ('', ?3) \
         ORDER BY q.priority DESC, q.created_at, q.id LIMIT 1) AS id FROM queue_problems p \
         WHERE p.problem_id IN ({listed})) head JOIN queue_tasks t ON t.id = head.id \
         ORDER BY t.priority DESC, t.created_at, t.id LIMIT 1"
    );
    let take = locked::<S>(
        "SELECT t.id FROM queue_tasks t, me WHERE me.place IS NOT NULL AND t.id = ?5 \
         AND t.status = 'pending'",
        "FOR UPDATE OF t SKIP LOCKED",
    );
    let take = format!("{}, next AS ({take}) {}", claimer!(), taken!());
    for _ in 0..MOST_RACES {
        let values = [
            (&taken).into(),
            now.as_millis().into(),
            (&worker.backend_type).into(),
        ];
        let Some(mut head) = sql.row(&heads, &values).await? else {
            return Ok(None);
        };
        let head = head.text(0)?;
        if let Some(row) = sql
            .row(&take, &claimer(worker, now, lasting, &head))
            .await?
        {
            return Ok(Some(rows::task(row)?));
        }
        // Taken by another, or the worker may not: the head tells.
        let waits = "SELECT 1 FROM queue_tasks WHERE id = ?1 AND status = 'pending'";
        if sql.row(waits, &[(&head).into()]).await?.is_some() {
            return Ok(None);
        }
    }
    Ok(None)
}

/// When the next task may be had that waits for a pause to be over.
async fn next_pause<S: Sql>(sql: &mut S, now: Timestamp) -> Result<Option<Timestamp>, OpError> {
    let statement = "SELECT not_before FROM queue_tasks WHERE status = 'pending' \
                     AND not_before > 0 AND not_before > ?1 ORDER BY not_before LIMIT 1";
    match sql.row(statement, &[now.as_millis().into()]).await? {
        Some(mut row) => Ok(Some(rows::time(&mut row, 0)?)),
        None => Ok(None),
    }
}
