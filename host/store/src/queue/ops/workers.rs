//! Register, hear, list, let go.
//!
//! What a worker holds is asked for by its places (`slot >= 0`, as all that runs has one):
//! otherwise SQLite goes through everything that it ever held.

use std::time::Duration;

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::port::{
    Entry, Heard, Heartbeat, NAME_KEPT, NewWorker, Registered, StoreError,
};
use taskwright_queue::stats::WorkerCounts;
use taskwright_queue::worker::WorkerStatus;
use taskwright_queue::{Cause, QueuedTask, Worker, WorkerId};

use super::ends::{self, Setback};
use super::locked;
use crate::queue::rows::{self, task_columns, worker_columns};
use crate::queue::sql::{Mode, OpError, Operation, Sql};

/// The most tasks that are told as held by workers in a list of all.
const MOST_HELD: i64 = 20_000;
/// The most workers on record.
const MOST_WORKERS: i64 = 10_000;

pub(crate) struct Register {
    pub(crate) worker: NewWorker,
    pub(crate) now: Timestamp,
}

impl Operation for Register {
    type Output = Registered;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "register";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Registered, OpError> {
        let Self { worker, now } = self;
        let problems = serde_json::to_string(&worker.capabilities.problems).unwrap_or_default();
        let count = "SELECT count(*) FROM queue_workers";
        if let Some(mut row) = sql.row(count, &[]).await?
            && row.int(0)? >= MOST_WORKERS
            && read(sql, &worker.id).await?.is_none()
        {
            let full = format!("{MOST_WORKERS} workers are on record, as many as may be");
            return Err(StoreError::Full(full).into());
        }
        let silent_since = match worker.entry {
            Entry::Anew | Entry::Resumed => Timestamp::from_millis(i64::MAX),
            Entry::Fresh => now.minus(NAME_KEPT),
        };
        // A claim of its earlier life is on record then, and is let go below.
        let earlier = locked::<S>("SELECT 1 FROM queue_workers WHERE id = ?1", "FOR UPDATE");
        sql.row(&earlier, &[worker.id.as_str().into()]).await?;
        let registered = sql
            .row(
                concat!(
                    "INSERT INTO queue_workers (id, backend_type, max_parallel, problems, \
                     capabilities, metadata, registered_at, last_heartbeat, alive_until, leaving, \
                     completed, failed, revision) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, 0, 0, 0, 1) \
                     ON CONFLICT (id) DO UPDATE SET backend_type = excluded.backend_type, \
                     max_parallel = excluded.max_parallel, problems = excluded.problems, \
                     capabilities = excluded.capabilities, metadata = excluded.metadata, \
                     last_heartbeat = excluded.last_heartbeat, \
                     alive_until = excluded.alive_until, leaving = 0, \
                     revision = queue_workers.revision + 1 \
                     WHERE queue_workers.alive_until <= ?9 RETURNING ",
                    worker_columns!()
                ),
                &[
                    worker.id.as_str().into(),
                    (&worker.backend_type).into(),
                    worker.capabilities.max_parallel.into(),
                    (&problems).into(),
                    worker.capabilities.document.as_str().into(),
                    worker.metadata.as_str().into(),
                    now.as_millis().into(),
                    now.plus(worker.lease).as_millis().into(),
                    silent_since.as_millis().into(),
                ],
            )
            .await?
            .ok_or_else(|| {
                StoreError::Conflict(format!("the name {} is another worker's", worker.id))
            })?;
        let mut registered = rows::worker(registered)?;
        let released = if registered.revision > 1 && worker.entry != Entry::Resumed {
            let told = format!(
                "worker {} registered anew and does not know the task",
                worker.id
            );
            release(sql, &worker.id, Cause::WorkerRestarted, &told, *now).await?
        } else {
            Vec::new()
        };
        registered.running = held(sql, &worker.id).await?;
        Ok(Registered {
            worker: registered,
            released: released.iter().map(|task| task.id).collect(),
        })
    }
}

/// Takes from a worker what it holds. Tasks that somebody is just ending are left to them.
pub(super) async fn release<S: Sql>(
    sql: &mut S,
    worker: &WorkerId,
    cause: Cause,
    told: &str,
    now: Timestamp,
) -> Result<Vec<QueuedTask>, OpError> {
    let statement = concat!(
        "SELECT ",
        task_columns!(),
        " FROM queue_tasks WHERE worker_id = ?1 AND slot >= 0 AND status = 'running' ORDER BY id"
    );
    let statement = locked::<S>(statement, "FOR UPDATE SKIP LOCKED");
    let mut released = Vec::new();
    for row in sql.rows(&statement, &[worker.as_str().into()]).await? {
        let task = rows::task(row)?;
        let setback = Setback {
            cause,
            error: told,
            document: None,
        };
        released.push(ends::set_back(sql, &task, &setback, now).await?);
    }
    Ok(released)
}

async fn read<S: Sql>(sql: &mut S, id: &WorkerId) -> Result<Option<Worker>, OpError> {
    let statement = concat!(
        "SELECT ",
        worker_columns!(),
        " FROM queue_workers WHERE id = ?1"
    );
    let row = sql.row(statement, &[id.as_str().into()]).await?;
    Ok(row.map(rows::worker).transpose()?)
}

/// The worker without what it holds: enough for a claim.
pub(super) async fn known<S: Sql>(sql: &mut S, id: &WorkerId) -> Result<Worker, OpError> {
    let found = read(sql, id).await?;
    Ok(found.ok_or_else(|| StoreError::NoSuchWorker(id.clone()))?)
}

/// The tasks that a worker holds, the newest last.
pub(super) async fn held<S: Sql>(sql: &mut S, id: &WorkerId) -> Result<Vec<TaskId>, OpError> {
    let statement = "SELECT id FROM queue_tasks WHERE worker_id = ?1 AND slot >= 0 \
                     AND status = 'running' ORDER BY started_at, id";
    let mut held = Vec::new();
    for mut row in sql.rows(statement, &[id.as_str().into()]).await? {
        held.push(rows::id(&mut row, 0)?);
    }
    Ok(held)
}

pub(crate) struct ReadOne(pub(crate) WorkerId);

impl Operation for ReadOne {
    type Output = Option<Worker>;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "worker";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        let Some(mut worker) = read(sql, &self.0).await? else {
            return Ok(None);
        };
        worker.running = held(sql, &self.0).await?;
        Ok(Some(worker))
    }
}

pub(crate) struct ReadAll(pub(crate) u32);

impl Operation for ReadAll {
    type Output = Vec<Worker>;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "workers";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        let all = concat!(
            "SELECT ",
            worker_columns!(),
            " FROM queue_workers ORDER BY id LIMIT ?1"
        );
        let all = sql.rows(all, &[self.0.into()]).await?;
        let mut workers: Vec<Worker> = all
            .into_iter()
            .map(rows::worker)
            .collect::<Result<_, _>>()?;
        let held = "SELECT worker_id, id FROM queue_tasks WHERE status = 'running' \
                    ORDER BY worker_id, started_at, id LIMIT ?1";
        for mut row in sql.rows(held, &[MOST_HELD.into()]).await? {
            let holder = row.text(0)?;
            let task = rows::id(&mut row, 1)?;
            let place = workers.binary_search_by(|worker| worker.id.as_str().cmp(&holder));
            if let Some(worker) = place.ok().and_then(|place| workers.get_mut(place)) {
                worker.running.push(task);
            }
        }
        Ok(workers)
    }
}

pub(crate) struct Count {
    pub(crate) now: Timestamp,
}

impl Operation for Count {
    type Output = WorkerCounts;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "worker_counts";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<WorkerCounts, OpError> {
        // The same order of questions as `Worker::status`.
        let statement = "SELECT state, count(*) FROM (SELECT CASE WHEN w.alive_until <= ?1 THEN 'offline' \
                         WHEN EXISTS (SELECT 1 FROM queue_tasks t WHERE t.worker_id = w.id \
                         AND t.slot >= 0 AND t.status = 'running') THEN 'busy' \
                         WHEN w.leaving <> 0 THEN 'offline' ELSE 'idle' END AS state \
                         FROM queue_workers w) AS states GROUP BY state";
        let mut counts = WorkerCounts::default();
        for mut row in sql.rows(statement, &[self.now.as_millis().into()]).await? {
            if let Some(status) = WorkerStatus::of_word(&row.text(0)?) {
                counts.set(status, row.count(1)?);
            }
        }
        Ok(counts)
    }
}

pub(crate) struct Beat {
    pub(crate) heartbeat: Heartbeat,
    pub(crate) now: Timestamp,
}

impl Operation for Beat {
    type Output = Heard;
    const MODE: Mode = Mode::Single;
    const NAME: &'static str = "heartbeat";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Heard, OpError> {
        let Heartbeat {
            worker,
            leaving,
            lease,
        } = &self.heartbeat;
        let heard = renew(sql, worker, *leaving, *lease, self.now).await?;
        let mut heard = heard.ok_or_else(|| StoreError::NoSuchWorker(worker.clone()))?;
        heard.running = held(sql, worker).await?;
        Ok(Heard { worker: heard })
    }
}

/// Renews a worker's leases. A word that was long on its way, past a later one, takes nothing of
/// them back.
pub(super) async fn renew<S: Sql>(
    sql: &mut S,
    worker: &WorkerId,
    leaving: bool,
    lease: Duration,
    now: Timestamp,
) -> Result<Option<Worker>, OpError> {
    let statement = concat!(
        "UPDATE queue_workers SET \
         last_heartbeat = CASE WHEN last_heartbeat > ?2 THEN last_heartbeat ELSE ?2 END, \
         alive_until = CASE WHEN last_heartbeat > ?2 THEN alive_until ELSE ?3 END, leaving = ?4 \
         WHERE id = ?1 RETURNING ",
        worker_columns!()
    );
    let values = [
        worker.as_str().into(),
        now.as_millis().into(),
        now.plus(lease).as_millis().into(),
        i64::from(leaving).into(),
    ];
    let row = sql.row(statement, &values).await?;
    Ok(row.map(rows::worker).transpose()?)
}

pub(crate) struct Deregister {
    pub(crate) id: WorkerId,
    pub(crate) now: Timestamp,
}

impl Operation for Deregister {
    type Output = Vec<TaskId>;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "deregister";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Vec<TaskId>, OpError> {
        let gone = "DELETE FROM queue_workers WHERE id = ?1";
        if sql.run(gone, &[self.id.as_str().into()]).await? == 0 {
            return Err(StoreError::NoSuchWorker(self.id.clone()).into());
        }
        let told = format!("worker {} left", self.id);
        let released = release(sql, &self.id, Cause::WorkerLost, &told, self.now).await?;
        Ok(released.iter().map(|task| task.id).collect())
    }
}
