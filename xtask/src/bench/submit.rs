//! (a) One task at a time, from its submission to the answer that it has ended, against a
//! bare loop that does the same durable work.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::Bench;
use super::bare::{self, Command, Log};
use super::client::{Connection, Request};
use super::daemon::{self, Daemon};
use super::place::Place;
use super::report::{Goal, Row, Table, Unit};
use super::stats::{median, quantile, seconds};

/// Runs in one block. Ours and the bare loop take turns block by block, so that what drifts
/// in the machine drifts for both.
const BLOCK: usize = 50;

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let blocks = bench.pick(24, 4);
    let place = bench.place()?;
    let daemon = Daemon::start(&bench.binary, &place, &[])?;
    let mut connection = daemon.connect()?;
    let bare_command = Command::new(&["/bin/true"], &environment(&mut connection, &place)?)?;
    let mut log = Log::open(&place.path("bare-log"))?;

    // The first runs of each side fill caches.
    submit_block(&mut connection, "warm")?;
    bare::durable_runs(&mut log, &bare_command, BLOCK)?;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for block in 0..blocks {
        let mine = submit_block(&mut connection, &format!("a-{block}"))?;
        let bare = bare::durable_runs(&mut log, &bare_command, BLOCK)?;
        let middle = |times: &[Duration]| quantile(&seconds(times), 0.5);
        ratios.push(middle(&mine) / middle(&bare));
        ours.extend(mine);
        theirs.extend(bare);
    }
    daemon.stop(&place)?;

    let (ours, theirs) = (seconds(&ours), seconds(&theirs));
    let time = |key, label: &str, value| Row::fact(key, label, value, Unit::Seconds);
    Ok(Table {
        id: "a",
        title: "One task, submit to end",
        method: format!(
            "{} runs of /bin/true through POST /tasks?wait on one connection, and as many of append + \
             fdatasync, posix_spawn, waitpid, append + fdatasync, in turns of {BLOCK}",
            ours.len()
        ),
        rows: vec![
            Row::goal(
                "ratio",
                "ours / bare loop",
                median(&ratios),
                Unit::Ratio,
                Goal::AtMost(1.5),
            ),
            time("median", "ours, median", quantile(&ours, 0.5)),
            time("p99", "ours, 99th percentile", quantile(&ours, 0.99)),
            time("bareMedian", "bare loop, median", quantile(&theirs, 0.5)),
            time(
                "bareP99",
                "bare loop, 99th percentile",
                quantile(&theirs, 0.99),
            ),
        ],
    })
}

/// The environment that a task is given, so that the bare loop passes the same.
pub(super) fn environment(connection: &mut Connection, place: &Place) -> anyhow::Result<String> {
    let request = Request::post(
        "/tasks?wait=30s",
        &daemon::task("environment", &["/usr/bin/env"]),
    );
    let answer = connection.ask(&request)?;
    answer.expect(&[200, 201])?;
    ensure!(
        daemon::ended_well(answer.body),
        "a task could not print its environment"
    );
    Ok(fs::read_to_string(
        daemon::data_dir(place)
            .join("environment")
            .join("stdout.log"),
    )?)
}

/// Submits one block of tasks, one after another; the time of each.
pub(super) fn submit_block(
    connection: &mut Connection,
    name: &str,
) -> anyhow::Result<Vec<Duration>> {
    let one = |number| {
        let body = daemon::task(&format!("{name}-{number}"), &["/bin/true"]);
        run_to_end(connection, &body)
    };
    (0..BLOCK).map(one).collect()
}

/// Submits a task; the time until the answer that it has ended well.
pub(super) fn run_to_end(connection: &mut Connection, body: &str) -> anyhow::Result<Duration> {
    let request = Request::post("/tasks?wait=30s", body);
    let begun = Instant::now();
    let answer = connection.ask(&request)?;
    let elapsed = begun.elapsed();
    answer.expect(&[200, 201])?;
    ensure!(
        daemon::ended_well(answer.body),
        "a task did not end well: {}",
        String::from_utf8_lossy(answer.body)
    );
    Ok(elapsed)
}
