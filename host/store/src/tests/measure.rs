//! Measurements, to be run in release: `cargo test --release -- --ignored --nocapture measure`.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use taskwright_control::port::{Batch, FeedHistory};
use taskwright_model::{AttemptNumber, Happening, TaskState};

use super::samples;
use crate::contract::{commit, futures_block};
use crate::{Options, Store, record};

fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
#[ignore = "a measurement"]
fn commits_of_a_realistic_mix() {
    for size in [1_u64, 16, 64] {
        let place = tempfile::tempdir().unwrap();
        let (mut journal, _h, _) = Store::open(place.path(), Options::at(samples::NOW)).unwrap();
        let tasks = 20_000 / if size == 1 { 5 } else { 1 };
        let (mut sequence, mut spent, mut slowest) = (1, Duration::ZERO, Vec::new());
        let began = Instant::now();
        for first in (0..tasks).step_by(size as usize) {
            for batch in life(first, size, &mut sequence) {
                let (before, cpu_before) = (Instant::now(), cpu());
                commit(&mut journal, &batch).unwrap();
                spent += cpu() - cpu_before;
                slowest.push(before.elapsed());
            }
        }
        slowest.sort();
        let at = |share: f64| slowest[((slowest.len() - 1) as f64 * share) as usize];
        say(&format!(
            "batch {size}: {:.0} commits/s, {:.0} tasks/s, CPU per task {:?}, commit p50 {:?} p99 {:?} max {:?}",
            slowest.len() as f64 / began.elapsed().as_secs_f64(),
            tasks as f64 / began.elapsed().as_secs_f64(),
            spent / tasks as u32,
            at(0.5),
            at(0.99),
            at(1.0),
        ));
    }
}

#[test]
#[ignore = "a measurement"]
fn encoding_alone() {
    let mut sequence = 1;
    let batches = life(1, 1000, &mut sequence);
    let (mut body, mut bytes) = (Vec::new(), 0);
    let began = cpu();
    for batch in &batches {
        for task in &batch.put {
            record::write_task(task, &mut body).unwrap();
            bytes += body.len();
        }
        for line in &batch.feed {
            record::write_feed(line, &mut body).unwrap();
            bytes += body.len();
        }
    }
    say(&format!(
        "encoding a life: {:?}, {} bytes",
        (cpu() - began) / 1000,
        bytes / 1000
    ));
}

/// Three commits that together are the whole life of `size` tasks: 3 puts and 4 lines each.
fn life(first: u64, size: u64, sequence: &mut u64) -> [Batch; 3] {
    let attempt = AttemptNumber(1);
    let TaskState::Ended { outcome, .. } = samples::ended() else {
        panic!()
    };
    let running = TaskState::Running {
        since: samples::NOW,
    };
    let steps = [
        (
            TaskState::Pending { not_before: None },
            vec![Happening::Submitted],
        ),
        (
            running,
            vec![Happening::Launched(attempt), Happening::Running(attempt)],
        ),
        (samples::ended(), vec![Happening::Ended(outcome)]),
    ];
    steps.map(|(state, happenings)| {
        let mut batch = Batch::default();
        for number in first..first + size {
            batch
                .put
                .push(Arc::new(samples::task(number, state.clone())));
            for happening in &happenings {
                batch
                    .feed
                    .push(samples::line(*sequence, number, happening.clone()));
                *sequence += 1;
            }
        }
        batch
    })
}

#[test]
#[ignore = "a measurement"]
fn opening_with_ten_thousand_ended_tasks() {
    let place = tempfile::tempdir().unwrap();
    let (mut journal, history, _) = Store::open(place.path(), Options::at(samples::NOW)).unwrap();
    for number in 0..100 {
        commit(&mut journal, &samples::batch(1 + number * 400, 100)).unwrap();
    }
    drop((journal, history));
    let began = Instant::now();
    let (mut journal, history, recovered) =
        Store::open(place.path(), Options::at(samples::NOW)).unwrap();
    let took = began.elapsed();
    assert_eq!(recovered.tasks.len(), 10_000);
    say(&format!(
        "open with 10,000 tasks and 40,000 lines: {took:?}"
    ));
    assert!(took < Duration::from_millis(500));
    let next = recovered.next_sequence;
    for number in 0..400 {
        commit(&mut journal, &samples::batch(next + number * 400, 100)).unwrap();
    }
    let began = Instant::now();
    let lines = futures_block(history.read(0, Some(samples::id(1 << 60)), 100)).unwrap();
    say(&format!(
        "scan of 200,000 lines for one task: {:?}, {} lines",
        began.elapsed(),
        lines.len()
    ));
    drop((journal, history));
    let began = Instant::now();
    let recovered = Store::open(place.path(), Options::at(samples::NOW))
        .unwrap()
        .2;
    say(&format!(
        "open with {} tasks and 200,000 lines: {:?}",
        recovered.tasks.len(),
        began.elapsed()
    ));
}
