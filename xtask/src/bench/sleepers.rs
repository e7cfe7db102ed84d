//! (d) Ten thousand tasks that sleep: what they cost while nothing happens, how fast the
//! daemon answers meanwhile, and how long it takes to be rid of them.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Bench;
use super::client::{Connection, Request, Swarm};
use super::daemon::{self, Daemon};
use super::place::{self, Place};
use super::report::{Goal, Row, Table, Unit};
use super::stats::{quantile, seconds};
use super::submit;

/// Connections that submit the sleepers.
const SUBMITTERS: usize = 32;
/// How long all of them may take to run.
const LONGEST_RISE: Duration = Duration::from_secs(180);

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let sleepers = bench.pick(10_000, 1_000);
    let rest = Duration::from_secs(bench.pick(10, 3));
    let place = bench.place()?;
    let daemon = Daemon::start(&bench.binary, &place, &[])?;
    // Base: a daemon that has worked before, not one that never touched its memory.
    submit::submit_block(&mut daemon.connect()?, "warm")?;
    daemon.delete_all()?;
    let base = memory(&daemon, &place)?;

    let begun = Instant::now();
    submit_sleepers(&daemon, sleepers)?;
    let mut connection = daemon.connect()?;
    wait_until_running(&mut connection, sleepers)?;
    let rise = begun.elapsed();

    let cpu = cpu_at_rest(&daemon, &place, rest)?;
    let held = memory(&daemon, &place)?.saturating_sub(base) as f64;
    let names: Vec<String> = (0..sleepers).map(name).collect();
    let gets = get_latencies(&mut connection, &names)?;
    let fall = daemon.delete_all()?;
    daemon.stop(&place)?;

    Ok(Table {
        id: "d",
        title: "Sleeping tasks",
        method: format!(
            "{sleepers} tasks of `sleep 100000`; memory is RssAnon + RssShmem of daemon and supervisor beyond that \
             before the tasks, processor time is theirs over {} s",
            rest.as_secs()
        ),
        rows: vec![
            Row::goal(
                "memory",
                "memory beyond the base",
                held,
                Unit::Bytes,
                Goal::AtMost(64.0 * 1_048_576.0),
            ),
            Row::fact(
                "memoryPerTask",
                "memory for each task",
                held / sleepers as f64,
                Unit::Bytes,
            ),
            Row::fact("base", "base, without tasks", base as f64, Unit::Bytes),
            Row::goal(
                "cpu",
                "processor time at rest",
                cpu,
                Unit::Percent,
                Goal::AtMost(1.0),
            ),
            Row::fact(
                "getMedian",
                "GET /tasks/{name}, median",
                quantile(&gets, 0.5),
                Unit::Seconds,
            ),
            Row::fact(
                "getP99",
                "GET /tasks/{name}, 99th percentile",
                quantile(&gets, 0.99),
                Unit::Seconds,
            ),
            Row::fact("rise", "until all run", rise.as_secs_f64(), Unit::Seconds),
            Row::fact(
                "fall",
                "until all are deleted",
                fall.as_secs_f64(),
                Unit::Seconds,
            ),
        ],
    })
}

fn submit_sleepers(daemon: &Daemon, sleepers: usize) -> anyhow::Result<()> {
    let mut swarm = Swarm::open(daemon.address, SUBMITTERS)?;
    let mut bodies =
        (0..sleepers).map(|number| daemon::task(&name(number), &["/bin/sleep", "100000"]));
    let tally = swarm.drive(
        LONGEST_RISE,
        || bodies.next().map(|body| Request::post("/tasks", &body)),
        |answer| answer.expect(&[201]),
    )?;
    ensure!(
        tally.latencies.len() == sleepers,
        "the sleepers were not submitted within {LONGEST_RISE:?}"
    );
    Ok(())
}

fn wait_until_running(connection: &mut Connection, sleepers: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + LONGEST_RISE;
    loop {
        let answer = connection.ask(&Request::get("/getTasks"))?;
        answer.expect(&[200])?;
        let list = answer.json()?;
        let list = list.as_array().context("the list of tasks is no list")?;
        let runs = |task: &&Value| task.pointer("/processStatus/running").is_some();
        let running = list.iter().filter(runs).count();
        if running == sleepers {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "only {running} of {sleepers} sleepers run"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// How long it takes to be told of one of these, in seconds, smallest first.
pub(super) fn get_latencies(
    connection: &mut Connection,
    names: &[String],
) -> anyhow::Result<Vec<f64>> {
    // A step that shares no divisor with the count visits them all over the place.
    let one = |number: usize| {
        let name = names.get(number * 7_919 % names.len());
        let name = name.context("there is no task to ask for")?;
        let request = Request::get(&format!("/tasks/{name}"));
        let begun = Instant::now();
        connection.ask(&request)?.expect(&[200])?;
        anyhow::Ok(begun.elapsed())
    };
    Ok(seconds(
        &(0..2_000).map(one).collect::<anyhow::Result<Vec<_>>>()?,
    ))
}

/// What daemon and supervisor hold, in bytes.
pub(super) fn memory(daemon: &Daemon, place: &Place) -> anyhow::Result<u64> {
    let own = daemon
        .own_processes(place)
        .into_iter()
        .map(place::own_memory);
    own.sum::<Result<u64, _>>()
        .context("read the memory of daemon and supervisor")
}

/// The part of one processor that daemon and supervisor use while nothing is asked of them.
pub(super) fn cpu_at_rest(daemon: &Daemon, place: &Place, time: Duration) -> anyhow::Result<f64> {
    let before = daemon.processor_seconds(place)?;
    let begun = Instant::now();
    std::thread::sleep(time);
    let used = daemon.processor_seconds(place)? - before;
    Ok(100.0 * used / begun.elapsed().as_secs_f64())
}

fn name(number: usize) -> String {
    format!("sleeper-{number}")
}
