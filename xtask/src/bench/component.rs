//! (c) What of a launch is spent in the component, and what one call in a fresh instance
//! costs.
//!
//! From the daemon's own account: it measures each call, and apart from that the time
//! in which the component waits for host functions, the spawn above all. The difference is
//! the component's: store, instance, guest code, conversion of values.
//!
//! One task at a time, every call finds the processor's caches cold and the processor often
//! asleep; under load it does not. Both are told. Calls that wait for no host function can be
//! told by their median as well, from the histogram: close to its bounds, guessed between them.

use std::time::Duration;

use super::Bench;
use super::client::Swarm;
use super::daemon::{Daemon, Metrics};
use super::report::{Goal, Row, Table, Unit};
use super::stats::{quantile, seconds};
use super::submit;
use super::throughput::{self, CLIENTS};

/// The functions called for every task, with the label that metrics know them by.
const VALIDATE: &str = "func=\"validate\"";
const START: &str = "func=\"start\"";
const ON_EVENT: &str = "func=\"on-event\"";

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let blocks = bench.pick(10, 2);
    let time = Duration::from_secs(bench.pick(4, 1));
    let place = bench.place()?;
    let daemon = Daemon::start(&bench.binary, &place, &[])?;
    let mut connection = daemon.connect()?;
    submit::submit_block(&mut connection, "warm")?;
    let before = daemon.metrics()?;
    let mut launches = Vec::new();
    for block in 0..blocks {
        launches.extend(submit::submit_block(
            &mut connection,
            &format!("c-{block}"),
        )?);
    }
    let alone = daemon.metrics()?;
    let mut swarm = Swarm::open(daemon.address, CLIENTS)?;
    throughput::run_tasks(&mut swarm, "c", time, usize::MAX)?;
    let loaded = daemon.metrics()?;
    daemon.stop(&place)?;

    let launch = quantile(&seconds(&launches), 0.5);
    let mean = |label| Spent::between(&before, &alone, label).each();
    let all = Spent::between(&before, &alone, "");
    let part = 100.0 * all.in_component / launches.len() as f64 / launch;
    let call = |key, label: &str, value| Row::fact(key, label, value, Unit::Seconds);
    let hot = median_call(&alone, &loaded);
    Ok(Table {
        id: "c",
        title: "The component's share",
        method: format!(
            "{} runs of /bin/true one at a time, then {CLIENTS} clients for {} s; from the daemon's metrics, time in \
             calls less time in host functions; medians are of validate and on-event, which wait for none",
            launches.len(),
            time.as_secs()
        ),
        rows: vec![
            Row::goal(
                "part",
                "component's part of submit to end",
                part,
                Unit::Percent,
                Goal::AtMost(5.0),
            ),
            Row::goal(
                "call",
                "one call under load, median",
                hot,
                Unit::Seconds,
                Goal::AtMost(30e-6),
            ),
            call(
                "callAlone",
                "one call, one task at a time, median",
                median_call(&before, &alone),
            ),
            call(
                "callValidate",
                "validate, one at a time, mean",
                mean(VALIDATE),
            ),
            call("callStart", "start, one at a time, mean", mean(START)),
            call(
                "callOnEvent",
                "on-event, one at a time, mean",
                mean(ON_EVENT),
            ),
            Row::fact(
                "calls",
                "calls for each task",
                all.calls / launches.len() as f64,
                Unit::Count,
            ),
            call("launch", "submit to end, median", launch),
        ],
    })
}

/// The median of the calls that wait for no host function, in seconds.
fn median_call(before: &Metrics, after: &Metrics) -> f64 {
    let name = "taskwright_plugin_call_seconds_bucket";
    let mut below: Vec<(f64, f64)> = Vec::new();
    for bound in after.bounds(name) {
        let label = format!("le=\"{bound}\"");
        let rise = |function: &str| {
            let labels = [function, label.as_str()];
            after.sum_of(name, &labels) - before.sum_of(name, &labels)
        };
        if let Ok(bound) = bound.parse::<f64>() {
            below.push((bound, rise(VALIDATE) + rise(ON_EVENT)));
        }
    }
    middle_of(&below)
}

/// Where the middle lies when so many values lie below each bound, the last of them all.
fn middle_of(below: &[(f64, f64)]) -> f64 {
    let half = below.last().map_or(0.0, |(_, all)| all / 2.0);
    let (mut low, mut passed) = (0.0, 0.0);
    for (bound, count) in below {
        if *count >= half && *count > passed && bound.is_finite() {
            return low + (bound - low) * (half - passed) / (count - passed);
        }
        (low, passed) = (*bound, *count);
    }
    0.0
}

/// What was spent in components between two looks at the metrics.
pub(super) struct Spent {
    calls: f64,
    /// Seconds.
    pub(super) in_component: f64,
}

impl Spent {
    /// Of the samples whose labels hold `label`.
    pub(super) fn between(before: &Metrics, after: &Metrics, label: &str) -> Self {
        Self::of(before, after, &[label])
    }

    /// Of the samples whose labels hold all of `labels`.
    pub(super) fn of(before: &Metrics, after: &Metrics, labels: &[&str]) -> Self {
        let rise = |name: &str| after.sum_of(name, labels) - before.sum_of(name, labels);
        Self {
            calls: rise("taskwright_plugin_call_seconds_count"),
            in_component: rise("taskwright_plugin_call_seconds_sum")
                - rise("taskwright_plugin_host_seconds_sum"),
        }
    }

    /// Seconds for one call.
    pub(super) fn each(&self) -> f64 {
        if self.calls > 0.0 {
            self.in_component / self.calls
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_guessed_between_two_bounds() {
        assert_eq!(middle_of(&[(10.0, 0.0), (20.0, 10.0), (30.0, 10.0)]), 15.0);
        assert_eq!(
            middle_of(&[(10.0, 4.0), (20.0, 8.0), (f64::INFINITY, 8.0)]),
            10.0
        );
        assert_eq!(middle_of(&[]), 0.0);
    }
}
