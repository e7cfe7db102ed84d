//! (h) One command in a main container, from its submission to the answer that it has ended,
//! against a bare loop that enters the container by `nsenter` and does the same durable work.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::bare::{self, Command, Log};
use super::client::Connection;
use super::component::Spent;
use super::daemon::Daemon;
use super::main_container::MainContainer;
use super::report::{Row, Table, Unit};
use super::stats::{median, quantile, seconds};
use super::{Bench, Skipped, runtime, submit};

/// Runs in one block; the three sides take turns block by block.
const BLOCK: usize = 50;

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let blocks = bench.pick(12, 2);
    let busybox = runtime::busybox(bench)?;
    let place = bench.place()?;
    // A name that nobody else's main container has.
    let name = format!("bench-{}", std::process::id());
    let container = MainContainer::start(&busybox, &place, &name)?;
    let nsenter = nsenter(&container)?;
    let daemon = Daemon::start(&bench.binary, &place, &["--main-container-name", &name])?;
    let mut connection = daemon.connect()?;
    let mut log = Log::open(&place.path("bare-log"))?;

    // The first runs of each side fill caches.
    submit_block(&mut connection, "warm")?;
    bare::durable_runs(&mut log, &nsenter, BLOCK)?;
    let before = daemon.metrics()?;
    let (mut ours, mut theirs, mut entries) = (vec![], vec![], vec![]);
    let (mut ratios, mut more) = (vec![], vec![]);
    for block in 0..blocks {
        let mine = submit_block(&mut connection, &format!("h-{block}"))?;
        let bare = bare::durable_runs(&mut log, &nsenter, BLOCK)?;
        entries.extend(runs(&nsenter)?);
        let middle = |times: &[Duration]| quantile(&seconds(times), 0.5);
        ratios.push(middle(&mine) / middle(&bare));
        more.push(middle(&mine) - middle(&bare));
        ours.extend(mine);
        theirs.extend(bare);
    }
    let spent = Spent::between(&before, &daemon.metrics()?, "");
    daemon.stop(&place)?;
    drop(container);

    let launches = ours.len();
    let (ours, theirs, entries) = (seconds(&ours), seconds(&theirs), seconds(&entries));
    let middle = |times: &[f64]| quantile(times, 0.5);
    let time = |key, label: &str, value| Row::fact(key, label, value, Unit::Seconds);
    Ok(Table {
        id: "h",
        title: "One command in a main container, submit to end",
        method: format!(
            "{launches} runs of a static `true` by the runtime `sidecar` through POST /tasks?wait on one connection; as \
             many of append + fdatasync, nsenter -t PID -m -u -i -n -p -- true, append + fdatasync; and as many of \
             nsenter alone; in turns of {BLOCK}"
        ),
        rows: vec![
            Row::fact(
                "ratio",
                "ours / bare nsenter loop",
                median(&ratios),
                Unit::Ratio,
            ),
            time("median", "ours, median", middle(&ours)),
            time("p99", "ours, 99th percentile", quantile(&ours, 0.99)),
            time("bareMedian", "bare loop, median", middle(&theirs)),
            time(
                "bareP99",
                "bare loop, 99th percentile",
                quantile(&theirs, 0.99),
            ),
            time("nsenterMedian", "nsenter alone, median", middle(&entries)),
            time(
                "own",
                "ours less bare loop: the daemon's own",
                median(&more),
            ),
            time(
                "component",
                "of it in the component, mean",
                spent.in_component / launches as f64,
            ),
        ],
    })
}

/// The program that enters the container, ready to be spawned.
fn nsenter(container: &MainContainer) -> anyhow::Result<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|folder| folder.join("nsenter"));
    let Some(program) = programs.find(|program| program.is_file()) else {
        bail!(Skipped("no `nsenter` (package util-linux)".to_owned()));
    };
    let program = program.to_str().context("the path of nsenter is no text")?;
    let pid = container.pid.to_string();
    let words = [
        program, "-t", &pid, "-m", "-u", "-i", "-n", "-p", "--", "true",
    ];
    Command::new(&words, container.environment())
}

/// One block of nothing but the command.
fn runs(command: &Command) -> anyhow::Result<Vec<Duration>> {
    let one = |_| {
        let begun = Instant::now();
        command.run()?;
        Ok(begun.elapsed())
    };
    (0..BLOCK).map(one).collect()
}

fn submit_block(connection: &mut Connection, name: &str) -> anyhow::Result<Vec<Duration>> {
    let one = |number| {
        let body = json!({
            "name": format!("{name}-{number}"),
            "runtime": "sidecar",
            "process": { "command": ["true"] },
        });
        submit::run_to_end(connection, &body.to_string())
    };
    (0..BLOCK).map(one).collect()
}
