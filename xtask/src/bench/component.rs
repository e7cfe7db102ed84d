//! (c) What of a launch is spent in the component, and what one call in a fresh instance
//! costs.
//!
//! From the daemon's own account: it measures each call, and apart from that the time
//! in which the component waits for host functions, the spawn above all. The difference is
//! the component's: store, instance, guest code, conversion of values.

use super::Bench;
use super::daemon::{Daemon, Metrics};
use super::report::{Goal, Row, Table, Unit};
use super::stats::{quantile, seconds};
use super::submit;

/// The functions called for every task, and what they are called in the report.
const FUNCTIONS: [(&str, &str, &str); 3] = [
    ("validate", "callValidate", "one call of validate, mean"),
    ("start", "callStart", "one call of start, mean"),
    ("on-event", "callOnEvent", "one call of on-event, mean"),
];

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let blocks = bench.pick(10, 2);
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
    let after = daemon.metrics()?;
    daemon.stop(&place)?;

    let launch = quantile(&seconds(&launches), 0.5);
    let all = Spent::between(&before, &after, "");
    let part = 100.0 * all.in_component / launches.len() as f64 / launch;
    let mut rows = vec![
        Row::goal(
            "part",
            "component's part of submit to end",
            part,
            Unit::Percent,
            Goal::AtMost(5.0),
        ),
        Row::goal(
            "call",
            "one call, mean of all",
            all.each(),
            Unit::Seconds,
            Goal::AtMost(30e-6),
        ),
    ];
    for (function, key, label) in FUNCTIONS {
        let spent = Spent::between(&before, &after, &format!("func=\"{function}\""));
        rows.push(Row::fact(key, label, spent.each(), Unit::Seconds));
    }
    rows.push(Row::fact(
        "calls",
        "calls for each task",
        all.calls / launches.len() as f64,
        Unit::Count,
    ));
    rows.push(Row::fact(
        "launch",
        "submit to end, median",
        launch,
        Unit::Seconds,
    ));
    Ok(Table {
        id: "c",
        title: "The component's share",
        method: format!(
            "{} runs of /bin/true one at a time; from the daemon's metrics, time in calls less time in host functions",
            launches.len()
        ),
        rows,
    })
}

/// What was spent in components between two looks at the metrics.
struct Spent {
    calls: f64,
    /// Seconds.
    in_component: f64,
}

impl Spent {
    /// Of the samples whose labels hold `label`.
    fn between(before: &Metrics, after: &Metrics, label: &str) -> Self {
        let rise = |name: &str| after.sum(name, label) - before.sum(name, label);
        Self {
            calls: rise("taskwright_plugin_call_seconds_count"),
            in_component: rise("taskwright_plugin_call_seconds_sum")
                - rise("taskwright_plugin_host_seconds_sum"),
        }
    }

    /// Seconds for one call.
    fn each(&self) -> f64 {
        if self.calls > 0.0 {
            self.in_component / self.calls
        } else {
            0.0
        }
    }
}
