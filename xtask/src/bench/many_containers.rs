//! (j) Many containers that sleep, submitted at once: how long it takes until all run, what they
//! cost while nothing happens, and how long it takes to be rid of them.
//!
//! Each is a sandbox with a shim, a pause process and a network of its own, which is the larger
//! part of the cost and not the daemon's. So the machine may not take all of them: the rise is
//! ended when its memory runs low or the time is over, those that do not run by then are deleted,
//! and the rest is measured. Those that failed when all came at once are counted, and come again a
//! few at a time, so that what is measured afterwards is about as many in every run.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Bench;
use super::client::{Connection, Request, Swarm};
use super::container::task;
use super::cri::{Client, Network};
use super::daemon::Daemon;
use super::place;
use super::report::{Goal, Row, Table, Unit};
use super::runtime::Runtime;
use super::sleepers::{cpu_at_rest, get_latencies, memory};
use super::stats::quantile;
use super::submit::run_to_end;

/// How many there are, if the machine takes them.
const MOST: usize = 200;
/// The part of the machine's memory that must stay available.
const LEAST_AVAILABLE: f64 = 0.2;
/// Connections that submit.
const SUBMITTERS: usize = 16;
/// How many of those that failed come again at a time.
const AGAIN: usize = 8;
/// Between two looks at how many run.
const LOOK: Duration = Duration::from_millis(100);
/// How long it may take until what was deleted is gone, from the daemon and from the runtime.
const LONGEST_FALL: Duration = Duration::from_secs(180);

/// The first process of a container ignores TERM unless it says otherwise, and would be killed
/// after its grace.
const SLEEP: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let wanted = bench.pick(MOST, 8);
    let longest_rise = Duration::from_secs(bench.pick(240, 30));
    let rest = Duration::from_secs(bench.pick(10, 3));
    let place = bench.place()?;
    let runtime = Runtime::start(bench)?;
    let flags = runtime.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&bench.binary, &place, &flags)?;
    let client = Client::connect(&runtime.socket())?;
    // Base: a daemon that has run a container before.
    let warm = task("warm", Network::Pod, &["true"]).to_string();
    run_to_end(&mut daemon.connect()?, &warm)?;
    daemon.delete_all()?;
    client.wait_until_empty(LONGEST_FALL)?;
    let base = memory(&daemon, &place)?;
    let available = available_memory()?;

    let mut connection = daemon.connect()?;
    let begun = Instant::now();
    let deadline = begun + longest_rise;
    submit(&daemon, 0..wanted)?;
    let mut bound = settle(&mut connection, deadline)?;
    let burst = begun.elapsed();
    let failed = Tasks::now(&mut connection)?.failed;
    let mut next = wanted;
    let end = wanted + failed.len();
    while bound == Bound::None && next < end {
        let wave = next..end.min(next + AGAIN);
        next = wave.end;
        submit(&daemon, wave)?;
        bound = settle(&mut connection, deadline)?;
    }
    let names = keep_running(&mut connection)?;
    let count = names.len() as f64;

    let runtime_before = place::processor_seconds(runtime.pid())?;
    let resting = Instant::now();
    let cpu = cpu_at_rest(&daemon, &place, rest)?;
    let runtime_cpu = place::processor_seconds(runtime.pid())? - runtime_before;
    let runtime_cpu = 100.0 * runtime_cpu / resting.elapsed().as_secs_f64();
    let held = memory(&daemon, &place)?.saturating_sub(base) as f64;
    let taken = available.saturating_sub(available_memory()?) as f64;
    let gets = get_latencies(&mut connection, &names)?;

    let falling = Instant::now();
    let deleted = daemon.delete_all()?;
    client.wait_until_empty(LONGEST_FALL)?;
    let fall = falling.elapsed();
    let left = client.count()? + runtime_shims_left(&runtime)?;
    daemon.stop(&place)?;
    runtime.stop()?;

    let time = |key, label: &str, value: Duration| {
        Row::fact(key, label, value.as_secs_f64(), Unit::Seconds)
    };
    Ok(Table {
        id: "j",
        title: "Many containers",
        method: format!(
            "{wanted} containers that sleep, submitted at once, each on a pod network of its own; those that failed once \
             more, {AGAIN} at a time; bound met: {bound}; first failure: {}; memory is RssAnon + RssShmem of daemon and supervisor beyond that before, processor time is over {} s, and of \
             one processor",
            failed.first().map_or("none", |(_, why)| why.as_str()),
            rest.as_secs()
        ),
        rows: vec![
            time("rise", "all at once: until each runs or failed", burst),
            Row::goal(
                "failed",
                "all at once: failed",
                failed.len() as f64,
                Unit::Count,
                Goal::AtMost(0.0),
            ),
            Row::fact("running", "containers that run at rest", count, Unit::Count),
            Row::fact(
                "memory",
                "daemon and supervisor, memory beyond the base",
                held,
                Unit::Bytes,
            ),
            Row::fact(
                "memoryPerTask",
                "the same, for each container",
                held / count.max(1.0),
                Unit::Bytes,
            ),
            Row::fact("base", "base, without tasks", base as f64, Unit::Bytes),
            Row::fact(
                "machineMemoryPerTask",
                "all of the machine's memory, for each container",
                taken / count.max(1.0),
                Unit::Bytes,
            ),
            Row::fact(
                "cpu",
                "daemon and supervisor, processor time at rest",
                cpu,
                Unit::Percent,
            ),
            Row::fact(
                "runtimeCpu",
                "containerd, processor time at rest",
                runtime_cpu,
                Unit::Percent,
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
            time("deleted", "until no task is on record", deleted),
            time("fall", "until the runtime has nothing of them", fall),
            Row::goal(
                "left",
                "sandboxes, containers and shims left",
                left as f64,
                Unit::Count,
                Goal::AtMost(0.0),
            ),
        ],
    })
}

/// What ended the rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// Nothing did: each runs or failed.
    None,
    /// The machine's memory ran low.
    Memory,
    /// The time was over.
    Time,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "none"),
            Self::Memory => write!(
                f,
                "memory, less than {:.0} % was available",
                LEAST_AVAILABLE * 100.0
            ),
            Self::Time => write!(f, "time"),
        }
    }
}

fn submit(daemon: &Daemon, mut numbers: Range<usize>) -> anyhow::Result<()> {
    let mut swarm = Swarm::open(daemon.address, SUBMITTERS)?;
    let next = || {
        let name = format!("container-{}", numbers.next()?);
        let body = task(&name, Network::Pod, &["/bin/sh", "-c", SLEEP]);
        Some(Request::post("/tasks", &body.to_string()))
    };
    swarm.drive(LONGEST_FALL, next, |answer| answer.expect(&[201]))?;
    Ok(())
}

/// Waits until each task runs or failed, or a bound is met.
fn settle(connection: &mut Connection, deadline: Instant) -> anyhow::Result<Bound> {
    let enough = meminfo("MemTotal:")? as f64 * LEAST_AVAILABLE;
    loop {
        if Tasks::now(connection)?.waiting.is_empty() {
            return Ok(Bound::None);
        }
        if (available_memory()? as f64) < enough {
            return Ok(Bound::Memory);
        }
        if Instant::now() > deadline {
            return Ok(Bound::Time);
        }
        std::thread::sleep(LOOK);
    }
}

/// Deletes what does not run and waits until that is gone; says what runs.
fn keep_running(connection: &mut Connection) -> anyhow::Result<Vec<String>> {
    let begun = Instant::now();
    let tasks = Tasks::now(connection)?;
    let failed = tasks.failed.iter().map(|(name, _)| name);
    for name in tasks.waiting.iter().chain(failed) {
        let request = Request::delete(&format!("/tasks/{name}"));
        connection.ask(&request)?.expect(&[204])?;
    }
    while Tasks::now(connection)?.count() > tasks.running.len() {
        ensure!(
            begun.elapsed() < LONGEST_FALL,
            "tasks that do not run are still there {LONGEST_FALL:?} after their deletion"
        );
        std::thread::sleep(LOOK);
    }
    ensure!(!tasks.running.is_empty(), "no container runs");
    Ok(tasks.running)
}

/// The names of all tasks, by how they are.
#[derive(Default)]
struct Tasks {
    waiting: Vec<String>,
    running: Vec<String>,
    /// With what is said of it.
    failed: Vec<(String, String)>,
}

impl Tasks {
    fn now(connection: &mut Connection) -> anyhow::Result<Self> {
        let answer = connection.ask(&Request::get("/getTasks"))?;
        answer.expect(&[200])?;
        let list = answer.json()?;
        let list = list.as_array().context("the list of tasks is no list")?;
        let mut tasks = Self::default();
        for task in list {
            let name = name_of(task).to_owned();
            if task.pointer("/processStatus/running").is_some() {
                tasks.running.push(name);
            } else if let Some(end) = task.pointer("/processStatus/terminated") {
                let why = end.get("message").and_then(Value::as_str);
                tasks
                    .failed
                    .push((name, why.unwrap_or_default().to_owned()));
            } else {
                tasks.waiting.push(name);
            }
        }
        Ok(tasks)
    }

    fn count(&self) -> usize {
        self.waiting.len() + self.running.len() + self.failed.len()
    }
}

fn name_of(task: &Value) -> &str {
    task.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Shims end a moment after the sandbox of theirs is removed.
fn runtime_shims_left(runtime: &Runtime) -> anyhow::Result<usize> {
    let begun = Instant::now();
    while runtime.shims() > 0 && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(LOOK);
    }
    Ok(runtime.shims())
}

fn available_memory() -> anyhow::Result<u64> {
    meminfo("MemAvailable:")
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib = kib.with_context(|| format!("/proc/meminfo tells no {name}"))?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
