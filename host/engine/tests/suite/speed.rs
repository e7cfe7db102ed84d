//! How long calls and loads take. By hand:
//! `cargo test --release -p taskwright-engine --test suite -- --ignored --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskwright_control::port::{Strategies, StrategyEvent, StrategyTask, UnitEnded};
use taskwright_engine::CallLimits;
use taskwright_model::{EnvVar, ExitStatus, RuntimeName, UnitName, Work};

use crate::support::{Bench, command, given, process, script};

const ROUNDS: usize = 2000;

/// A task of about a kilobyte, in about forty texts.
fn kilobyte() -> StrategyTask {
    let mut task = command(&["/usr/bin/python3", "-m", "worker.train", "--shard", "17/64"]);
    let mut spec = (*task.spec).clone();
    if let Work::Process(process) = &mut spec.work {
        process.env = (0..14)
            .map(|number| EnvVar {
                name: format!("JOB_SETTING_{number}"),
                value: format!("value-of-setting-{number}-xxxxxxxxxxxxxxxxxxxxxxx"),
            })
            .collect();
    }
    task.spec = Arc::new(spec);
    given(task)
}

/// Median and 99th percentile of many rounds.
#[expect(clippy::print_stderr, reason = "the table is what it is run for")]
async fn measure(name: &str, mut round: impl AsyncFnMut()) -> Duration {
    for _ in 0..ROUNDS / 10 {
        round().await;
    }
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        // As long as it takes to make what comes before a call durable.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let since = Instant::now();
        round().await;
        times.push(since.elapsed());
    }
    times.sort_unstable();
    let at = |part: usize| times.get(ROUNDS * part / 100).copied().unwrap();
    eprintln!("{name:24} p50 {:>9.1?}  p99 {:>9.1?}", at(50), at(99));
    at(50)
}

#[tokio::test]
#[ignore = "a measurement, not a claim"]
#[expect(clippy::print_stderr, reason = "the table is what it is run for")]
async fn calls_and_loads() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let bench = Bench::with(CallLimits::default(), Arc::clone(&folder));
    let since = Instant::now();
    bench.runtimes.load(process()).await.unwrap();
    eprintln!("{:24} {:>13.1?}", "load, empty cache", since.elapsed());
    for _ in 0..3 {
        let since = Instant::now();
        let next = Bench::with(CallLimits::default(), Arc::clone(&folder));
        let made = since.elapsed();
        let since = Instant::now();
        next.runtimes.load(process()).await.unwrap();
        let loaded = since.elapsed();
        eprintln!("engine {made:>9.1?}, load from cache {loaded:>9.1?}");
    }
    let runtimes = &bench.runtimes;
    let task = kilobyte();
    measure("validate", async || {
        runtimes.validate(task.clone()).await.unwrap();
    })
    .await;
    measure("start", async || {
        runtimes.start(task.clone()).await.unwrap();
    })
    .await;
    let event = StrategyEvent::Exited {
        unit: UnitName::parse("main").unwrap(),
        end: UnitEnded {
            status: Some(ExitStatus::Code(0)),
            out_of_memory: false,
        },
    };
    measure("on-event", async || {
        let state = Arc::from([]);
        runtimes
            .on_event(task.clone(), state, event.clone())
            .await
            .unwrap();
    })
    .await;
}

/// The example that a script is compared with the component by.
const POLITE: &str = include_str!("../../../../examples/scripts/polite.rhai");

#[tokio::test]
#[ignore = "a measurement, not a claim"]
#[expect(clippy::print_stderr, reason = "the table is what it is run for")]
async fn scripts() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let bench = Bench::with(CallLimits::default(), folder);
    bench.runtimes.load(process()).await.unwrap();
    let since = Instant::now();
    bench.runtimes.load(script(POLITE)).await.unwrap();
    eprintln!("{:24} {:>13.1?}", "load, empty cache", since.elapsed());
    let since = Instant::now();
    bench.runtimes.load(script(POLITE)).await.unwrap();
    eprintln!("{:24} {:>13.1?}", "load, compiled before", since.elapsed());
    let runtimes = &bench.runtimes;
    let by_component = kilobyte();
    let mut task = (*by_component.task).clone();
    task.runtime = RuntimeName::parse("wrap").unwrap();
    let by_script = given(task);
    for (name, task) in [("component", by_component), ("script", by_script)] {
        measure(&format!("validate, {name}"), async || {
            runtimes.validate(task.clone()).await.unwrap();
        })
        .await;
        measure(&format!("start, {name}"), async || {
            runtimes.start(task.clone()).await.unwrap();
        })
        .await;
    }
}
