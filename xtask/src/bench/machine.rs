//! Facts of the machine: without them a number means little.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bare::Log;
use super::place::Place;
use super::stats;

/// How often it is tried what the disk takes for one operation.
const PROBES: usize = 100;
/// How long it is watched whether somebody else uses the processors.
const WATCHED: Duration = Duration::from_secs(1);
/// The least idle time, in percent, at which a measurement means something: on a busy machine
/// a process that is woken may wait for the next tick of the clock, 4 ms on some kernels.
pub(super) const LEAST_IDLE: f64 = 90.0;

/// What is said of the machine, and of the disk that holds `place`.
pub(super) fn facts(place: &Place) -> anyhow::Result<Value> {
    let idle = idle_percent();
    let mut log = Log::open(&place.path("sync-probe"))?;
    let sync = timed(|_| log.append())?;
    let create = timed(|number| {
        fs::File::create_new(place.path(&format!("create-probe-{number}")))?;
        Ok(())
    })?;
    Ok(json!({
        "cores": std::thread::available_parallelism()?.get(),
        "cpu": line_value("/proc/cpuinfo", "model name"),
        "memoryKiB": line_value("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>().ok(),
        "kernel": text("/proc/sys/kernel/osrelease"),
        "loadAverage": load_average(),
        "idlePercentBefore": idle.round(),
        "appendAndSyncMicroseconds": (sync * 1e6).round(),
        "createFileMicroseconds": (create * 1e6).round(),
    }))
}

/// The median of some runs of `work`, in seconds.
fn timed(mut work: impl FnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let one = |number| {
        let begun = Instant::now();
        work(number)?;
        anyhow::Ok(begun.elapsed())
    };
    let times = (0..PROBES).map(one).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(stats::quantile(&stats::seconds(&times), 0.5))
}

/// The load of the last minute, the last five and the last fifteen.
pub(super) fn load_average() -> String {
    let words = text("/proc/loadavg");
    words.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Whether others left the processors alone before the run began.
pub(super) fn was_idle(facts: &Value) -> bool {
    let idle = facts.get("idlePercentBefore").and_then(Value::as_f64);
    idle.is_some_and(|idle| idle >= LEAST_IDLE)
}

/// How much of all processors' time nobody used, watched for a moment.
fn idle_percent() -> f64 {
    let (idle, all) = processor_ticks();
    std::thread::sleep(WATCHED);
    let (idle_after, all_after) = processor_ticks();
    100.0 * (idle_after - idle) / (all_after - all).max(1.0)
}

/// Ticks since the machine's start: idle ones and all of them (proc_stat(5)).
fn processor_ticks() -> (f64, f64) {
    let text = text("/proc/stat");
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // Idle, and idle with the disk at work.
    let idle = ticks.iter().skip(3).take(2).sum();
    (idle, ticks.iter().sum())
}

/// The facts in one line.
pub(super) fn line(facts: &Value) -> String {
    let fact = |key: &str| match facts.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "unknown".to_owned(),
    };
    format!(
        "{} cores ({}), Linux {}, append + fdatasync {} µs, new file {} µs, {} % idle",
        fact("cores"),
        fact("cpu"),
        fact("kernel"),
        fact("appendAndSyncMicroseconds"),
        fact("createFileMicroseconds"),
        fact("idlePercentBefore"),
    )
}

fn text(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The value of the first `name : value` in a file of such lines.
fn line_value(path: &str, name: &str) -> String {
    let text = text(path);
    let value = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name);
    value.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}
