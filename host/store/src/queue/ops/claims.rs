//! Which task a worker gets: the one of the highest priority, and of those the oldest.
//!
//! One statement takes it, and gives the worker a place of its own; it succeeds only
//! for a worker that is on record as it is known here, alive for long enough, and has
//! a free place. When it brings nothing, the reason is looked up.

use std::sync::Arc;

use taskwright_model::Timestamp;
use taskwright_queue::port::{Claim, Claimed, StoreError};
use taskwright_queue::worker::Problems;
use taskwright_queue::{QueuedTask, Worker};

use super::{lists, locked, workers};
use crate::queue::rows::{self, task_columns};
use crate::queue::sql::{MOST_RACES, Mode, OpError, Operation, Sql, SqlError, SqlFault, Value};

/// The most problems of a worker that takes only some; beyond it, only those are looked at that
/// come first in the alphabet.
const MOST_PROBLEMS: i64 = 10_000;

/// The worker, if it may claim: ?1 its id, ?2 its revision, ?3 now, ?4 how long its lease has to
/// go on. The lock keeps it from leaving, or registering anew, until what it takes is on record;
/// heartbeats go past it.
macro_rules! claimer {
    ($lock:literal) => {
        concat!(
            "WITH me AS (SELECT w.id AS worker, \
         (SELECT min(s.n) FROM queue_slots s WHERE s.n < w.max_parallel AND NOT EXISTS \
         (SELECT 1 FROM queue_tasks r WHERE r.worker_id = w.id AND r.slot = s.n \
         AND r.status = 'running')) AS place \
         FROM queue_workers w WHERE w.id = ?1 AND w.revision = ?2 AND w.alive_until >= ?4 ",
            $lock,
            ")"
        )
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
    ($worker_lock:literal, $lock:literal) => {
        concat!(
            claimer!($worker_lock),
            ", next AS (SELECT t.id FROM queue_tasks t WHERE (SELECT me.place FROM me) IS NOT NULL \
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
pub const CLAIM_POSTGRES: &str = next_of_all!("FOR KEY SHARE OF w", "FOR UPDATE OF t SKIP LOCKED");
pub(crate) const CLAIM_SQLITE: &str = next_of_all!("", "");

/// A worker as claims know it: the record, and its patterns made ready. Making them ready takes
/// longer than a claim, so it is kept from one claim to the next.
pub(crate) struct Claimer {
    worker: Worker,
    problems: Problems,
}

impl Claimer {
    fn of(worker: Worker) -> Result<Arc<Self>, OpError> {
        let problems =
            Problems::parse(&worker.capabilities.problems).map_err(StoreError::Conflict)?;
        Ok(Arc::new(Self { worker, problems }))
    }
}

pub(crate) struct Take {
    pub(crate) claim: Claim,
    pub(crate) now: Timestamp,
    /// The worker as it was known a moment ago; what has changed since is noticed.
    pub(crate) known: Option<Arc<Claimer>>,
}

/// What a claim brought, and the worker as it is known now.
pub(crate) struct Took {
    pub(crate) claimed: Claimed,
    pub(crate) claimer: Arc<Claimer>,
}

/// What one look brought.
enum Next {
    Task(Box<QueuedTask>),
    /// Nothing that the worker takes was there.
    Nothing,
    /// There was something; others took it, or the worker may not have it.
    Missed,
}

impl Operation for Take {
    type Output = Took;
    const MODE: Mode = Mode::Single;
    const NAME: &'static str = "claim";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Took, OpError> {
        let Self { claim, now, known } = self;
        let mut claimer = match known {
            Some(known) => known.clone(),
            None => Claimer::of(workers::known(sql, &claim.worker).await?)?,
        };
        let lasting = now.plus(claim.lease / 4 * 3);
        for look in 0..MOST_RACES {
            let mut next = Next::Missed;
            if look == 0 && claimer.problems.takes_all() {
                next = next_of_all(sql, &claimer.worker, *now, lasting).await?;
            }
            if matches!(next, Next::Missed) {
                next = next_of_some(sql, &claimer, *now, lasting, look).await?;
            }
            if let Next::Task(task) = next {
                let claimed = Claimed::Task(task);
                return Ok(Took { claimed, claimer });
            }
            // Nothing: why?
            let found = workers::known(sql, &claim.worker).await?;
            if found.alive_until < lasting {
                if claim.lease.is_zero() {
                    let claimed = Claimed::Nothing { next: None };
                    let claimer = Claimer::of(found)?;
                    return Ok(Took { claimed, claimer });
                }
                let renewed = workers::renew(sql, &claim.worker, false, claim.lease, *now).await?;
                let renewed = renewed.ok_or_else(|| StoreError::NoSuchWorker(claim.worker.clone()));
                claimer = Claimer::of(renewed?)?;
                continue;
            }
            if found.revision != claimer.worker.revision {
                claimer = Claimer::of(found)?;
                continue;
            }
            let held = workers::held(sql, &claim.worker).await?.len();
            let claimed = if held >= found.capabilities.max_parallel as usize {
                Claimed::Full
            } else if matches!(next, Next::Missed) {
                continue;
            } else {
                let next = next_pause(sql, *now).await?;
                Claimed::Nothing { next }
            };
            return Ok(Took { claimed, claimer });
        }
        Err(OpError::Sql(SqlError {
            kind: SqlFault::Raced,
            message: format!(
                "worker {} found others before it all the time",
                claim.worker
            ),
        }))
    }
}

async fn next_of_all<S: Sql>(
    sql: &mut S,
    worker: &Worker,
    now: Timestamp,
    lasting: Timestamp,
) -> Result<Next, OpError> {
    let statement = if S::POSTGRES {
        CLAIM_POSTGRES
    } else {
        CLAIM_SQLITE
    };
    let values = values_of(worker, now, lasting, &worker.backend_type);
    Ok(match sql.row(statement, &values).await? {
        Some(row) => Next::Task(Box::new(rows::task(row)?)),
        // Nobody else takes anything meanwhile in SQLite. In PostgreSQL all of the better kind may
        // be in others' hands, and some of the other kind free: another look tells.
        None if S::POSTGRES => Next::Missed,
        None => Next::Nothing,
    })
}

fn values_of<'a>(
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

/// How many waiting tasks of each kind are looked at one by one for one that the worker takes.
const LOOKED_AT: usize = 64;
/// How many of those it takes are tried in one statement: others may be after the same.
const TRIED: usize = 32;

/// The first tasks that wait for anybody, and for the worker's kind: ?1 now, ?2 its kind.
pub(crate) const HEADS: &str = "SELECT h.id, h.problem_id, h.lane FROM (\
     SELECT * FROM (SELECT 0 AS lane, id, problem_id, priority, created_at FROM queue_tasks \
     WHERE status = 'pending' AND backend = '' AND not_before <= ?1 \
     ORDER BY priority DESC, created_at, id LIMIT 64) a UNION ALL \
     SELECT * FROM (SELECT 1 AS lane, id, problem_id, priority, created_at FROM queue_tasks \
     WHERE status = 'pending' AND backend = ?2 AND not_before <= ?1 \
     ORDER BY priority DESC, created_at, id LIMIT 64) b) h \
     ORDER BY h.priority DESC, h.created_at, h.id";

/// One of the first waiting tasks.
struct Head {
    id: String,
    problem: String,
    /// Whether it waits for the worker's kind.
    bound: bool,
}

/// What can be said from the first tasks.
#[derive(Debug, PartialEq, Eq)]
enum Chosen {
    /// These are the best that the worker takes, in order.
    These(Vec<String>),
    /// It takes none of all that wait.
    None,
    /// It takes none of these, and there may be more.
    Unknown,
}

/// The best tasks that a worker takes, as far as `heads`, in their order and at most `each` of a
/// kind, can tell.
fn choose(heads: Vec<Head>, problems: &Problems, each: usize) -> Chosen {
    let mut chosen = Vec::new();
    let (mut seen, mut cut) = ([0_usize; 2], false);
    for head in heads {
        if problems.takes(&head.problem) {
            chosen.push(head.id);
        }
        let [free, bound] = &mut seen;
        let count = if head.bound { bound } else { free };
        *count += 1;
        cut = *count >= each;
        // What comes next of this kind was not read, and may be better than what follows.
        if cut || chosen.len() == TRIED {
            break;
        }
    }
    match (chosen.is_empty(), cut) {
        (false, _) => Chosen::These(chosen),
        (true, false) => Chosen::None,
        (true, true) => Chosen::Unknown,
    }
}

/// The best of the problems that the worker takes. Mostly it is among the first that wait; where
/// it is not, the first of each problem is looked at.
async fn next_of_some<S: Sql>(
    sql: &mut S,
    claimer: &Claimer,
    now: Timestamp,
    lasting: Timestamp,
    look: u32,
) -> Result<Next, OpError> {
    let Claimer { worker, problems } = claimer;
    let values = [now.as_millis().into(), (&worker.backend_type).into()];
    let mut heads = Vec::with_capacity(2 * LOOKED_AT);
    for mut row in sql.rows(HEADS, &values).await? {
        heads.push(Head {
            id: row.text(0)?,
            problem: row.text(1)?,
            bound: row.int(2)? == 1,
        });
    }
    let chosen = match choose(heads, problems, LOOKED_AT) {
        Chosen::These(chosen) => chosen,
        Chosen::None => return Ok(Next::Nothing),
        Chosen::Unknown => Vec::from_iter(best_of_each(sql, claimer, now).await?),
    };
    if chosen.is_empty() {
        return Ok(Next::Nothing);
    }
    let chosen = serde_json::to_string(&chosen).unwrap_or_default();
    // At first what others are taking is passed over. When all of it was, it is waited for: each
    // wait ends with a task that somebody has.
    let lock = if look < 2 {
        "FOR UPDATE OF t SKIP LOCKED"
    } else {
        "FOR UPDATE OF t"
    };
    let next = locked::<S>(
        &format!(
            "SELECT t.id FROM queue_tasks t WHERE (SELECT me.place FROM me) IS NOT NULL AND t.id IN ({}) \
             AND t.status = 'pending' AND t.not_before <= ?3 \
             ORDER BY t.priority DESC, t.created_at, t.id LIMIT 1",
            lists::members::<S>(5)
        ),
        lock,
    );
    let claimer = if S::POSTGRES {
        claimer!("FOR KEY SHARE OF w")
    } else {
        claimer!("")
    };
    let take = format!("{claimer}, next AS ({next}) {}", taken!());
    let values = values_of(worker, now, lasting, &chosen);
    Ok(match sql.row(&take, &values).await? {
        Some(row) => Next::Task(Box::new(rows::task(row)?)),
        None => Next::Missed,
    })
}

/// The best of the first of each problem that the worker takes.
async fn best_of_each<S: Sql>(
    sql: &mut S,
    claimer: &Claimer,
    now: Timestamp,
) -> Result<Option<String>, OpError> {
    let all = "SELECT problem_id FROM queue_problems ORDER BY problem_id LIMIT ?1";
    let mut taken = Vec::new();
    for mut row in sql.rows(all, &[MOST_PROBLEMS.into()]).await? {
        let problem = row.text(0)?;
        if claimer.problems.takes(&problem) {
            taken.push(problem);
        }
    }
    if taken.is_empty() {
        return Ok(None);
    }
    let taken = serde_json::to_string(&taken).unwrap_or_default();
    let heads = format!(
        "SELECT t.id FROM (SELECT (SELECT q.id FROM queue_tasks q WHERE q.status = 'pending' \
         AND q.problem_id = p.problem_id AND q.not_before <= ?2 AND q.backend IN ('', ?3) \
         ORDER BY q.priority DESC, q.created_at, q.id LIMIT 1) AS id FROM queue_problems p \
         WHERE p.problem_id IN ({})) head JOIN queue_tasks t ON t.id = head.id \
         ORDER BY t.priority DESC, t.created_at, t.id LIMIT 1",
        lists::members::<S>(1)
    );
    let values = [
        (&taken).into(),
        now.as_millis().into(),
        (&claimer.worker.backend_type).into(),
    ];
    let best = sql.row(&heads, &values).await?;
    Ok(best.map(|mut row| row.text(0)).transpose()?)
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

#[cfg(test)]
mod tests {
    //! What the first waiting tasks tell.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Heads in words: the problem, after `+` one for the worker's kind; ids are their places.
    fn check(heads: &str, pattern: &str, expected: Chosen) {
        let problems = Problems::parse(&[pattern]).unwrap();
        let words = heads.split_whitespace().enumerate();
        let heads = words.map(|(place, word)| Head {
            id: place.to_string(),
            problem: word.trim_start_matches('+').to_owned(),
            bound: word.starts_with('+'),
        });
        assert_eq!(choose(heads.collect(), &problems, 3), expected, "{pattern}");
    }

    fn these(places: &[&str]) -> Chosen {
        Chosen::These(places.iter().map(|place| (*place).to_owned()).collect())
    }

    #[test]
    fn what_the_worker_takes_is_chosen_in_order() {
        check("a b +a", "a*", these(&["0", "2"]));
        check("a b +a", "b*", these(&["1"]));
        check("", "a*", Chosen::None);
        check("a b +a", "c*", Chosen::None);
    }

    #[test]
    fn nothing_is_chosen_past_what_was_not_read() {
        // A fourth for anybody may come before the last two.
        check("a a a +b +b", "b*", Chosen::Unknown);
        check("a a b +b", "b*", these(&["2"]));
        check("+a +a +a", "b*", Chosen::Unknown);
        check("+a a +a b +a b", "b*", these(&["3"]));
    }
}
