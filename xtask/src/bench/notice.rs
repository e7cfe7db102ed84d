//! (g) From a process's exit to the answer of the client that waits for it.
//!
//! The process is this very program: it notes the time as the last thing before it exits.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};

use super::Bench;
use super::client::{Connection, Request};
use super::daemon::{self, Daemon};
use super::report::{Goal, Row, Table, Unit};
use super::stats::{quantile, sorted};

/// The hidden verb: `xtask bench stamp FILE`.
pub(super) const STAMP: &str = "stamp";
/// How long the process lives. What its start still writes shall be over by then.
const LIFE: Duration = Duration::from_millis(50);

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let times = bench.pick(200, 20);
    let place = bench.place()?;
    let daemon = Daemon::start(&bench.binary, &place, &[])?;
    let mut connection = daemon.connect()?;
    let delays = (0..times)
        .map(|number| delay(bench, &mut connection, number, &place.path("stamp")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    daemon.stop(&place)?;

    let delays = sorted(delays);
    Ok(Table {
        id: "g",
        title: "Exit to answer",
        method: format!(
            "{times} processes that live {} ms and note the time last of all before exit; a client waits in POST \
             /tasks?wait, and the end is durable before it is told",
            LIFE.as_millis()
        ),
        rows: vec![
            Row::goal(
                "median",
                "median",
                quantile(&delays, 0.5),
                Unit::Seconds,
                Goal::AtMost(0.002),
            ),
            Row::fact(
                "p99",
                "99th percentile",
                quantile(&delays, 0.99),
                Unit::Seconds,
            ),
        ],
    })
}

fn delay(
    bench: &Bench,
    connection: &mut Connection,
    number: usize,
    stamp: &Path,
) -> anyhow::Result<f64> {
    File::create(stamp)?;
    let program = bench
        .xtask
        .to_str()
        .context("the path of xtask is no text")?;
    let file = stamp.to_str().context("the path of the stamp is no text")?;
    let body = daemon::task(&format!("g-{number}"), &[program, "bench", STAMP, file]);
    let answer = connection.ask(&Request::post("/tasks?wait=30s", &body))?;
    let arrived = now()?;
    answer.expect(&[200, 201])?;
    ensure!(
        daemon::ended_well(answer.body),
        "the stamping task failed: {}",
        String::from_utf8_lossy(answer.body)
    );
    let mut bytes = [0; 16];
    File::open(stamp)?
        .read_exact_at(&mut bytes, 0)
        .context("read the stamp")?;
    let exited = u128::from_le_bytes(bytes);
    let delay = arrived
        .checked_sub(exited)
        .context("the clock was set back during the measurement")?;
    Ok(delay as f64 / 1e9)
}

/// Lives for a while, notes the time in `file`, and is gone.
pub(super) fn stamp(file: &Path) -> anyhow::Result<()> {
    let file = File::options().write(true).open(file)?;
    std::thread::sleep(LIFE);
    file.write_all_at(&now()?.to_le_bytes(), 0)?;
    std::process::exit(0)
}

/// Nanoseconds of the clock that all processes of a machine share.
fn now() -> anyhow::Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())
}
