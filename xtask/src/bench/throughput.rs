//! (b) Many clients at once, everything durable, against loops on all processors that only
//! spawn and wait.

use std::time::Duration;

use anyhow::ensure;

use super::Bench;
use super::bare::{self, Command};
use super::client::{Request, Swarm, Tally};
use super::daemon::{self, Daemon};
use super::place::{self, Place};
use super::report::{Goal, Row, Table, Unit};
use super::stats::{median, quantile, seconds};
use super::submit;

/// Clients that submit and wait at once.
pub(super) const CLIENTS: usize = 64;

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    // Nothing is deleted meanwhile, so this bounds the records: some ten thousand.
    let rounds = bench.pick(6, 2);
    let time = Duration::from_secs(bench.pick(3, 1));
    let place = bench.place()?;
    let daemon = Daemon::start(&bench.binary, &place, &[])?;
    let environment = submit::environment(&mut daemon.connect()?, &place)?;
    let command = Command::new(&["/bin/true"], &environment)?;
    let mut swarm = Swarm::open(daemon.address, CLIENTS)?;

    // The first runs of each side fill caches.
    run_tasks(&mut swarm, "warm", time / 4, usize::MAX)?;
    bare::runs_per_second(&command, time / 4)?;
    let (mut ours, mut theirs, mut parts, mut latencies) = (vec![], vec![], vec![], vec![]);
    let mut spent = Spent::default();
    for round in 0..rounds {
        let before = Spent::until_now(&daemon, &place)?;
        let tally = run_tasks(&mut swarm, &format!("b-{round}"), time, usize::MAX)?;
        spent.add(&Spent::until_now(&daemon, &place)?, &before);
        let bare = bare::runs_per_second(&command, time)?;
        parts.push(100.0 * tally.per_second() / bare);
        ours.push(tally.per_second());
        theirs.push(bare);
        latencies.extend(tally.latencies);
    }
    daemon.stop(&place)?;

    // A few more than are counted: those in flight at the end.
    let tasks = latencies.len() as f64;
    let each = |key, label: &str, value| Row::fact(key, label, value, Unit::Seconds);
    Ok(Table {
        id: "b",
        title: "Many tasks at once",
        method: format!(
            "{CLIENTS} connections, each submitting /bin/true through POST /tasks?wait and waiting for its end, \
             and a posix_spawn + waitpid loop on each processor with nothing durable, in {rounds} turns of {} s",
            time.as_secs()
        ),
        rows: vec![
            Row::goal(
                "part",
                "ours / bare loops",
                median(&parts),
                Unit::Percent,
                Goal::AtLeast(60.0),
            ),
            Row::fact(
                "rate",
                "ours, tasks from submit to end",
                median(&ours),
                Unit::PerSecond,
            ),
            Row::fact(
                "bareRate",
                "bare loops, processes",
                median(&theirs),
                Unit::PerSecond,
            ),
            each(
                "median",
                "ours, one task, median",
                quantile(&seconds(&latencies), 0.5),
            ),
            each(
                "daemonTime",
                "processor time of daemon and supervisor, for each task",
                spent.daemon / tasks,
            ),
            each(
                "clientTime",
                "processor time of the clients, for each task",
                spent.client / tasks,
            ),
        ],
    })
}

/// Processor time, in seconds.
#[derive(Debug, Default)]
struct Spent {
    daemon: f64,
    client: f64,
}

impl Spent {
    fn until_now(daemon: &Daemon, place: &Place) -> anyhow::Result<Self> {
        Ok(Self {
            daemon: daemon.processor_seconds(place)?,
            client: place::processor_seconds(std::process::id() as i32)?,
        })
    }

    fn add(&mut self, after: &Self, before: &Self) {
        self.daemon += after.daemon - before.daemon;
        self.client += after.client - before.client;
    }
}

/// Runs `/bin/true` as fast as `swarm` can for `time`, at most `most` times.
pub(super) fn run_tasks(
    swarm: &mut Swarm,
    name: &str,
    time: Duration,
    most: usize,
) -> anyhow::Result<Tally> {
    run_bodies(swarm, time, most, |number| {
        daemon::task(&format!("{name}-{number}"), &["/bin/true"])
    })
}

/// The same with tasks of another kind: `body` has the number of each, from 1.
pub(super) fn run_bodies(
    swarm: &mut Swarm,
    time: Duration,
    most: usize,
    body: impl Fn(usize) -> String,
) -> anyhow::Result<Tally> {
    let mut number = 0;
    let next = || {
        number += 1;
        (number <= most).then(|| Request::post("/tasks?wait=60s", &body(number)))
    };
    swarm.drive(time, next, |answer| {
        answer.expect(&[200, 201])?;
        ensure!(
            daemon::ended_well(answer.body),
            "a task did not end well: {}",
            String::from_utf8_lossy(answer.body)
        );
        Ok(())
    })
}
