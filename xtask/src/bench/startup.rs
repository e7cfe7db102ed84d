//! (f) From the daemon's start to its first answer that it is ready.

use std::fs;
use std::time::Duration;

use anyhow::ensure;

use super::Bench;
use super::client::Swarm;
use super::daemon::Daemon;
use super::place::Place;
use super::report::{Goal, Row, Table, Unit};
use super::stats::median;
use super::throughput::{self, CLIENTS};

/// How long the tasks on record may take to be run.
const LONGEST_FILLING: Duration = Duration::from_secs(180);

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let times = bench.pick(7, 3);
    let records = bench.pick(10_000, 1_000);
    let mut cold = Vec::new();
    let mut empty = bench.place()?;
    for _ in 0..times {
        empty = bench.place()?;
        cold.push(start_and_stop(bench, &empty)?);
    }
    // The last of them has everything in its cache now.
    let cached = starts(bench, &empty, times)?;

    let full = bench.place()?;
    fill(bench, &full, records)?;
    let with_records = starts(bench, &full, times)?;

    let time =
        |key, label: &str, values: &[f64]| Row::fact(key, label, median(values), Unit::Seconds);
    let goal = |key, label: &str, values: &[f64], most| {
        Row::goal(
            key,
            label,
            median(values),
            Unit::Seconds,
            Goal::AtMost(most),
        )
    };
    Ok(Table {
        id: "f",
        title: "Start",
        method: format!(
            "exec to the first 200 of /readyz, asked every 0.5 ms; median of {times} starts each, no supervisor \
             running before; the binary is {:.1} MB",
            fs::metadata(&bench.binary)?.len() as f64 / 1e6
        ),
        rows: vec![
            time("cold", "cold: plugins are compiled", &cold),
            goal("cached", "with cache, no tasks", &cached, 0.150),
            goal(
                "records",
                &format!("with cache, {records} ended tasks on record"),
                &with_records,
                1.0,
            ),
        ],
    })
}

/// Leaves `records` ended tasks on record, made as all tasks are: by running them.
fn fill(bench: &Bench, place: &Place, records: usize) -> anyhow::Result<()> {
    let daemon = Daemon::start(&bench.binary, place, &[])?;
    let mut swarm = Swarm::open(daemon.address, CLIENTS)?;
    let tally = throughput::run_tasks(&mut swarm, "f", LONGEST_FILLING, records)?;
    ensure!(
        tally.latencies.len() == records,
        "{records} tasks did not end within {LONGEST_FILLING:?}"
    );
    daemon.stop(place)
}

fn starts(bench: &Bench, place: &Place, times: usize) -> anyhow::Result<Vec<f64>> {
    (0..times).map(|_| start_and_stop(bench, place)).collect()
}

fn start_and_stop(bench: &Bench, place: &Place) -> anyhow::Result<f64> {
    let daemon = Daemon::start(&bench.binary, place, &[])?;
    let after = daemon.ready_after.as_secs_f64();
    daemon.stop(place)?;
    Ok(after)
}
