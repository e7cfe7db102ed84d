//! What it costs to have plugins: the time until they serve, and the memory that they take.

use std::fs;
use std::time::Instant;

use anyhow::Context;

use super::made::Made;
use super::with_folder;
use crate::bench::Bench;
use crate::bench::daemon::Daemon;
use crate::bench::place;
use crate::bench::stats::median;

/// So many copies of a plugin are loaded for the memory of one.
pub(super) const COPIES: usize = 20;

/// Seconds from the daemon's start until a plugin of the folder serves: when it is compiled, and
/// when it was.
pub(super) fn times(bench: &Bench, plugin: &Made) -> anyhow::Result<(f64, f64)> {
    let (mut cold, mut cached) = (Vec::new(), Vec::new());
    for _ in 0..bench.pick(5, 2) {
        let place = bench.place()?;
        let folder = place.path("plugins");
        fs::create_dir(&folder)?;
        // So that what comes with the binary is compiled already.
        with_folder(bench, &place, &folder, &[])?.stop(&place)?;
        plugin.put(&folder)?;
        for times in [&mut cold, &mut cached] {
            let begun = Instant::now();
            let daemon = with_folder(bench, &place, &folder, &[])?;
            plugin.until_serving(&mut daemon.connect()?)?;
            times.push(begun.elapsed().as_secs_f64());
            daemon.stop(&place)?;
        }
    }
    Ok((median(&cold), median(&cached)))
}

/// Bytes that one more of a plugin takes: the median of a few daemons with [`COPIES`] of it
/// against as many with none.
pub(super) fn memory(bench: &Bench, copies: &[Made]) -> anyhow::Result<f64> {
    let with = |copies: &[Made]| -> anyhow::Result<f64> {
        let mut sizes = Vec::new();
        let place = bench.place()?;
        let folder = place.path("plugins");
        fs::create_dir(&folder)?;
        for copy in copies {
            copy.put(&folder)?;
        }
        // The first start compiles: what that leaves behind is not what a plugin takes.
        for start in 0..=bench.pick(3, 1) {
            let daemon = with_folder(bench, &place, &folder, &[])?;
            let mut connection = daemon.connect()?;
            for copy in copies {
                copy.until_serving(&mut connection)?;
            }
            if start > 0 {
                sizes.push(of(&daemon, &place)?);
            }
            daemon.stop(&place)?;
        }
        Ok(median(&sizes))
    };
    Ok((with(copies)? - with(&[])?) / copies.len().max(1) as f64)
}

fn of(daemon: &Daemon, place: &place::Place) -> anyhow::Result<f64> {
    let own = daemon.own_processes(place).into_iter();
    let sizes: u64 = own
        .map(place::own_memory)
        .sum::<Result<u64, _>>()
        .context("read the memory of daemon and supervisor")?;
    Ok(sizes as f64)
}
