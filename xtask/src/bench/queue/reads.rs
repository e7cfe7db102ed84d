//! Pages and sums of a queue with a long history.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::super::client::{Connection, Request};
use super::super::report::{Goal, Row, Unit};
use super::super::stats::{quantile, seconds};
use super::fill::{PROBLEMS, Tasks};
use super::{Scene, Sizes};

/// What an operator waits for a page, at most.
const GOAL: f64 = 0.050;
/// Pages that go through all that comes before them: told, and no goal.
const THROUGH_ALL: [&str; 2] = ["listFar", "listWorker"];

pub(super) fn measure(scene: &Scene<'_>, sizes: &Sizes) -> anyhow::Result<Vec<Row>> {
    let kind = scene.kind;
    scene.target.add(Tasks::Ended, 1, sizes.many)?;
    let daemon = scene.daemon()?;
    let mut connection = daemon.connect()?;
    let many = sizes.many;
    let failed = many / 1000;
    let looks = sizes.looks / 4;
    let mut rows = Vec::new();
    let mut row = |keys: [&'static str; 2], what: &str, path: &str, total: (&str, u64)| {
        let (pointer, wanted) = total;
        let times = look(&mut connection, path, looks, |answer| {
            let told = answer.pointer(pointer).and_then(Value::as_u64);
            ensure!(
                told == Some(wanted),
                "{path} tells {told:?} at {pointer}, not {wanted}"
            );
            Ok(())
        })?;
        let [file, postgres] = keys;
        let is_aim = !THROUGH_ALL.contains(&file);
        let label = format!("{}, {many} ended: {what}, 99th percentile", kind.word());
        let value = quantile(&seconds(&times), 0.99);
        let key = kind.key(file, postgres);
        rows.push(if is_aim {
            Row::goal(key, &label, value, Unit::Seconds, Goal::AtMost(GOAL))
        } else {
            Row::fact(key, &label, value, Unit::Seconds)
        });
        anyhow::Ok(())
    };
    let page = "/api/v1/tasks?page=1&page_size=50";
    row(
        ["list", "listPostgres"],
        "page of 50",
        page,
        ("/total", many),
    )?;
    let far = format!("/api/v1/tasks?page={}&page_size=50", (many / 100).max(1));
    row(
        ["listFar", "listFarPostgres"],
        "the page in the middle",
        &far,
        ("/total", many),
    )?;
    let rare = format!("{page}&status=failed");
    row(
        ["listFailed", "listFailedPostgres"],
        "page of the few that failed",
        &rare,
        ("/total", failed),
    )?;
    let waiting = format!("{page}&status=pending");
    row(
        ["listPending", "listPendingPostgres"],
        "page of those that wait, none",
        &waiting,
        ("/total", 0),
    )?;
    let problem = format!("{page}&problem_id=problem-7");
    let of_it = many / PROBLEMS;
    row(
        ["listProblem", "listProblemPostgres"],
        "page of one problem",
        &problem,
        ("/total", of_it),
    )?;
    let ended = format!("{page}&sort=-completed_at");
    row(
        ["listEnded", "listEndedPostgres"],
        "page of what ended last",
        &ended,
        ("/total", many),
    )?;
    let worker = format!("{page}&worker_id=worker-000-kind&sort=-completed_at");
    row(
        ["listWorker", "listWorkerPostgres"],
        "page of one worker, by end",
        &worker,
        ("/total", many),
    )?;
    row(
        ["stats", "statsPostgres"],
        "sums",
        "/api/v1/tasks/stats",
        ("/total_tasks", many),
    )?;
    row(
        ["health", "healthPostgres"],
        "health",
        "/aiopslab/health",
        ("/queue/completed", many - failed),
    )?;
    daemon.stop(&scene.place)?;
    Ok(rows)
}

/// The times of requests of one kind; each answer is looked at.
fn look(
    connection: &mut Connection,
    path: &str,
    many: usize,
    check: impl Fn(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Duration>> {
    let request = Request::get(path);
    let mut times = Vec::with_capacity(many);
    // The first fills caches.
    for turn in 0..=many.max(1) {
        let begun = Instant::now();
        let answer = connection.ask(&request)?;
        let took = begun.elapsed();
        answer.expect(&[200])?;
        check(&answer.json().context("a page")?)?;
        if turn > 0 {
            times.push(took);
        }
        // A page that takes seconds is known to after a few.
        if times.iter().sum::<Duration>() > Duration::from_secs(4) {
            break;
        }
    }
    Ok(times)
}
