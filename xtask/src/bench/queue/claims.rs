//! How many claims a second, and how long one takes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::super::client::{Answer, Request, Swarm};
use super::super::daemon::Daemon;
use super::super::report::{Goal, Row, Unit};
use super::super::stats::{median, quantile, seconds};
use super::fill::{self, Target, Tasks};
use super::{Kind, Scene, Sizes, WORKERS, pgbench};

/// What workers did together.
#[derive(Default)]
struct Shift {
    /// From asking to having, of each claim.
    claims: Vec<Duration>,
    /// Tasks that were completed, each once.
    done: HashSet<String>,
    elapsed: Duration,
}

impl Shift {
    fn per_second(&self) -> f64 {
        self.done.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// What a worker waits for.
enum Waits {
    Claim(Instant),
    Completion(String),
}

/// Lets workers claim and complete, one task after the other, for `time` or until `most` tasks are
/// done.
fn work(
    swarm: &mut Swarm,
    first: usize,
    workers: usize,
    time: Duration,
    most: usize,
) -> anyhow::Result<Shift> {
    let mut shift = Shift::default();
    let mut taken = HashSet::new();
    let mut waits: Vec<Waits> = Vec::with_capacity(workers);
    let claims: Vec<Request> = (0..workers)
        .map(|worker| {
            let name = fill::name(first + worker);
            Request::post(&format!("/api/v1/workers/{name}/claim"), "{}")
        })
        .collect();
    let begun = Instant::now();
    swarm.converse(time, |worker, answer| {
        let claim = claims.get(worker).context("a worker")?;
        let Some(answer) = answer else {
            waits.push(Waits::Claim(Instant::now()));
            return Ok(Some(claim.clone()));
        };
        let waits = waits.get_mut(worker).context("a worker")?;
        match waits {
            Waits::Claim(asked) => {
                let took = asked.elapsed();
                let task = claimed(answer)?;
                ensure!(taken.insert(task.clone()), "task {task} was claimed twice");
                shift.claims.push(took);
                let name = fill::name(first + worker);
                let path = format!("/api/v1/workers/{name}/tasks/{task}/complete?attempt=1");
                *waits = Waits::Completion(task);
                Ok(Some(Request::post(&path, r#"{"ok":true}"#)))
            }
            Waits::Completion(task) => {
                answer.expect(&[200])?;
                ensure!(
                    has(answer.body, b"\"completed\""),
                    "task {task} was not completed"
                );
                if begun.elapsed() <= time {
                    shift.done.insert(std::mem::take(task));
                    shift.elapsed = begun.elapsed();
                }
                *waits = Waits::Claim(Instant::now());
                Ok((shift.done.len() < most).then(|| claim.clone()))
            }
        }
    })?;
    Ok(shift)
}

/// The id of the task in the answer to a claim: a search in its bytes, as parsing would cost the
/// load more than all the rest.
fn claimed(answer: &Answer<'_>) -> anyhow::Result<String> {
    if answer.status == 204 {
        bail!("nothing was left to claim: too few tasks were put in");
    }
    answer.expect(&[200])?;
    let id = b"\"id\":\"";
    let at = answer.body.windows(id.len()).position(|part| part == id);
    let from = at.context("the task has no id")? + id.len();
    let id = answer
        .body
        .get(from..from + 36)
        .context("the id is too short")?;
    Ok(std::str::from_utf8(id)?.to_owned())
}

fn has(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len()).any(|part| part == text)
}

/// Claims and completions a second.
pub(super) fn rates(scene: &Scene<'_>, sizes: &Sizes) -> anyhow::Result<Vec<Row>> {
    let kind = scene.kind;
    let most = WORKERS.into_iter().max().unwrap_or(1);
    scene.target.workers(most, "[]")?;
    let mut next = 1;
    scene.target.add(Tasks::Pending, next, sizes.supply)?;
    next += sizes.supply;
    let daemon = scene.daemon()?;
    let mut rows = Vec::new();
    let keys = [
        ["claims1", "claims1Postgres", "ratio1Postgres"],
        ["claims16", "claims16Postgres", "ratio16Postgres"],
        ["claims64", "claims64Postgres", "ratio64Postgres"],
    ];
    for (workers, [file, postgres, ratio]) in WORKERS.into_iter().zip(keys) {
        let mut swarm = Swarm::open(daemon.address, workers)?;
        settle(&scene.target)?;
        work(&mut swarm, 0, workers, sizes.turn / 4, usize::MAX)?;
        let (mut ours, mut theirs, mut ratios) = (vec![], vec![], vec![]);
        for _ in 0..sizes.turns {
            let left = scene
                .target
                .number("SELECT count(*) FROM queue_tasks WHERE status = 'pending'")?;
            if left < sizes.supply / 2 {
                scene.target.add(Tasks::Pending, next, sizes.supply)?;
                next += sizes.supply;
            }
            settle(&scene.target)?;
            let ended = ended(&scene.target)?;
            let shift = work(&mut swarm, 0, workers, sizes.turn, usize::MAX)?;
            let counted = self::ended(&scene.target)? - ended;
            let done = shift.done.len() as u64;
            ensure!(
                (done..=done + workers as u64).contains(&counted),
                "{counted} tasks count as completed, of {done} that were"
            );
            ours.push(shift.per_second());
            if let Target::Postgres { server, database } = &scene.target {
                settle(&scene.target)?;
                let rate = pgbench::rate(server, database, &scene.place, workers, sizes.turn)?;
                theirs.push(rate);
                ratios.push(shift.per_second() / rate);
            }
        }
        let label = format!("{}, claims and completions, {workers} workers", kind.word());
        let key = kind.key(file, postgres);
        rows.push(Row::fact(key, &label, median(&ours), Unit::PerSecond));
        if kind == Kind::Postgres {
            let label = format!(
                "the same / pgbench with {workers} clients ({:.0}/s)",
                median(&theirs)
            );
            rows.push(Row::goal(
                ratio,
                &label,
                median(&ratios),
                Unit::Ratio,
                Goal::AtLeast(0.7),
            ));
        }
    }
    daemon.stop(&scene.place)?;
    Ok(rows)
}

/// What a worker still holds goes back, so that each side begins with free hands.
fn settle(target: &Target<'_>) -> anyhow::Result<()> {
    target.run(
        "UPDATE queue_tasks SET status = 'pending', worker_id = NULL, slot = NULL, started_at = NULL, \
         deadline = NULL, attempt = 0 WHERE status = 'running'",
    )
}

fn ended(target: &Target<'_>) -> anyhow::Result<u64> {
    target.number(
        "SELECT CAST(coalesce(sum(n), 0) AS BIGINT) FROM queue_totals WHERE kind = 'ended' AND key = 'completed'",
    )
}

/// How long one claim takes, with few and with many tasks that wait; also by patterns, the worst of
/// which take what waits at the very end.
pub(super) fn delays(scene: &Scene<'_>, sizes: &Sizes) -> anyhow::Result<Vec<Row>> {
    let kind = scene.kind;
    scene.target.workers(1, "[]")?;
    scene.target.run(
        "INSERT INTO queue_workers (id, backend_type, max_parallel, problems, capabilities, metadata, \
         registered_at, last_heartbeat, alive_until, leaving, completed, failed, revision) \
         SELECT 'worker-001-kind', 'kind', 1, '[\"problem-7*\"]', '{}', '{}', registered_at, last_heartbeat, \
         alive_until, 0, 0, 0, 1 FROM queue_workers UNION ALL \
         SELECT 'worker-002-kind', 'kind', 1, '[\"problem-[1-9]0\"]', '{}', '{}', registered_at, last_heartbeat, \
         alive_until, 0, 0, 0, 1 FROM queue_workers",
    )?;
    scene.target.add(Tasks::Pending, 1, sizes.few)?;
    let daemon = scene.daemon()?;
    // Enough of the few are left for the last to be as the first.
    let looks = sizes.looks.min(sizes.few as usize / 5);
    let few = one_by_one(&daemon, 0, looks)?;
    scene
        .target
        .add(Tasks::Pending, sizes.few + 1, sizes.many)?;
    let many = one_by_one(&daemon, 0, sizes.looks)?;
    let patterns = one_by_one(&daemon, 1, sizes.looks)?;
    let behind = one_by_one(&daemon, 2, sizes.looks)?;
    daemon.stop(&scene.place)?;
    let middle = |times: &[f64]| quantile(times, 0.5);
    let last = |times: &[f64]| quantile(times, 0.99);
    let ratio = |key, what: &str, value| {
        let label = format!("{}, one claim, many waiting / few: {what}", kind.word());
        Row::goal(key, &label, value, Unit::Ratio, Goal::AtMost(2.0))
    };
    Ok(vec![
        kind.time(
            ["claimFew", "claimFewPostgres"],
            "one claim, few waiting, median",
            middle(&few),
        ),
        kind.time(
            ["claimFewP99", "claimFewP99Postgres"],
            "99th percentile",
            last(&few),
        ),
        kind.time(
            ["claimMany", "claimManyPostgres"],
            "one claim, many waiting, median",
            middle(&many),
        ),
        kind.time(
            ["claimManyP99", "claimManyP99Postgres"],
            "99th percentile",
            last(&many),
        ),
        ratio(
            kind.key("claimRatio", "claimRatioPostgres"),
            "median",
            middle(&many) / middle(&few),
        ),
        ratio(
            kind.key("claimRatioP99", "claimRatioP99Postgres"),
            "99th percentile",
            last(&many) / last(&few),
        ),
        kind.time(
            ["patterns", "patternsPostgres"],
            "one claim by patterns, many waiting, median",
            middle(&patterns),
        ),
        kind.time(
            ["patternsBehind", "patternsBehindPostgres"],
            "the same, where what it takes waits behind all else",
            middle(&behind),
        ),
    ])
}

/// Claims by one worker, each completed; their times, the shortest first.
fn one_by_one(daemon: &Daemon, worker: usize, many: usize) -> anyhow::Result<Vec<f64>> {
    let mut swarm = Swarm::open(daemon.address, 1)?;
    let longest = Duration::from_secs(60);
    work(&mut swarm, worker, 1, longest, many / 10 + 1)?;
    let shift = work(&mut swarm, worker, 1, longest, many)?;
    ensure!(
        shift.done.len() >= many,
        "only {} claims in {longest:?}",
        shift.done.len()
    );
    Ok(seconds(&shift.claims))
}
