//! (e) Requests that start nothing: reading a task, and submitting tasks that stay queued.

use std::time::Duration;

use super::Bench;
use super::client::{Request, Swarm};
use super::daemon::{self, Daemon};
use super::report::{Goal, Row, Table, Unit};
use super::stats::{quantile, seconds};
use super::throughput::CLIENTS;

/// Connections that read at once: few, so that their side of the work leaves the machine
/// to the daemon, and many, as real clients are.
const FEW_READERS: usize = 4;

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let time = Duration::from_secs(bench.pick(3, 1));
    let place = bench.place()?;
    // One place, taken by a sleeper: whatever else comes stays in the queue.
    let daemon = Daemon::start(&bench.binary, &place, &["--max-running", "1"])?;
    let sleeper = Request::post(
        "/tasks",
        &daemon::task("sleeper", &["/bin/sleep", "100000"]),
    );
    daemon.connect()?.ask(&sleeper)?.expect(&[201])?;

    let get = |connections| {
        let mut swarm = Swarm::open(daemon.address, connections)?;
        let request = Request::get("/tasks/sleeper");
        let next = || Some(request.clone());
        swarm.drive(time / 4, next, |answer| answer.expect(&[200]))?;
        swarm.drive(time, next, |answer| answer.expect(&[200]))
    };
    let few = get(FEW_READERS)?;
    let many = get(CLIENTS)?;

    let mut number = 0;
    let mut swarm = Swarm::open(daemon.address, CLIENTS)?;
    let next = || {
        number += 1;
        Some(Request::post(
            "/tasks",
            &daemon::task(&format!("queued-{number}"), &["/bin/true"]),
        ))
    };
    let posts = swarm.drive(time, next, |answer| answer.expect(&[201]))?;
    daemon.stop(&place)?;

    let posts_median = quantile(&seconds(&posts.latencies), 0.5);
    let best = few.per_second().max(many.per_second());
    Ok(Table {
        id: "e",
        title: "Requests",
        method: format!(
            "{} s each, the client on the same processors; GET /tasks/{{name}} of a running task, POST /tasks of tasks \
             that stay queued, answered when durable",
            time.as_secs()
        ),
        rows: vec![
            Row::goal(
                "get",
                "GET, the better of both",
                best,
                Unit::PerSecond,
                Goal::AtLeast(20_000.0),
            ),
            Row::fact(
                "getFew",
                &format!("GET, {FEW_READERS} connections"),
                few.per_second(),
                Unit::PerSecond,
            ),
            Row::fact(
                "getMany",
                &format!("GET, {CLIENTS} connections"),
                many.per_second(),
                Unit::PerSecond,
            ),
            Row::goal(
                "post",
                &format!("durable POST, {CLIENTS} connections"),
                posts.per_second(),
                Unit::PerSecond,
                Goal::AtLeast(3_000.0),
            ),
            Row::fact(
                "postMedian",
                "durable POST, median",
                posts_median,
                Unit::Seconds,
            ),
        ],
    })
}
