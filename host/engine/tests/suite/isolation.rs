//! What bad calls cost those that do nothing wrong: neither time nor memory.
//!
//! `TASKWRIGHT_NIGHTLY=1` makes 100,000 bad calls and judges strictly; else there are few, and
//! what they cost is judged so loosely that a busy machine is no failure.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taskwright_control::port::{Policies, Strategies, StrategyEvent, UnitEnded};
use taskwright_engine::{CallLimits, PluginSource, Runtimes};
use taskwright_model::{ExitStatus, UnitName};
use tokio::sync::mpsc::Sender;

use crate::roles::request;
use crate::support::{Bench, command, given, misbehaving, mischief_on, process};

/// What the bad plugins do, each as often as its share says. The costly ones are seldom, so that
/// a night is enough.
const MISCHIEF: [(&str, &str, usize); 10] = [
    ("trap", "trap", 40),
    ("panic", "panic", 20),
    ("exit", "exit", 12),
    ("recurse", "recurse", 8),
    ("state", "huge", 8),
    ("argument", "spawn-odd-key", 4),
    ("blame", "blame", 4),
    ("hog", "hog", 2),
    ("spin", "spin", 1),
    ("flood", "flood", 1),
];

/// Good calls in a row, so that the first of them pays for what others left in the caches.
const IN_A_ROW: usize = 25;
/// Bad calls between two such rows.
const BETWEEN: usize = 50;

/// How much is done and how it is judged.
struct Measure {
    bad_calls: usize,
    rounds: usize,
    good_calls: usize,
    /// What a median beside bad calls may be, in parts of one without.
    slower: f64,
    /// In KiB.
    most_growth: u64,
    most_time: Duration,
}

impl Measure {
    fn of_this_run() -> Self {
        let nightly = std::env::var_os("TASKWRIGHT_NIGHTLY").is_some_and(|value| value == "1");
        match nightly {
            true => Self {
                bad_calls: 100_000,
                rounds: 40,
                good_calls: 250,
                slower: 1.10,
                most_growth: 4 << 10,
                most_time: Duration::from_secs(300),
            },
            false => Self {
                bad_calls: 3_000,
                rounds: 6,
                good_calls: 50,
                slower: 4.0,
                most_growth: 32 << 10,
                most_time: Duration::from_secs(120),
            },
        }
    }
}

/// Memory of this process that is in use, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

fn bad(name: &str, what: &str) -> PluginSource {
    let settings: &[(&str, &str)] = match what {
        "flood" => &[("call", "namespace.find"), ("times", "endless")],
        _ => &[("start", what)],
    };
    let named = [("name", name), ("policy", name), ("review", "trap-odd")];
    let mut source = misbehaving(&[&named[..], settings].concat());
    source.name = name.to_owned();
    source.limits = Some(CallLimits {
        memory_bytes: 8 << 20,
        cpu: Duration::from_millis(10),
        deadline: Duration::from_secs(5),
    });
    source
}

/// One bad call, and after every fourth a good one of the same plugin, so that it never rests.
async fn misbehave(runtimes: &Runtimes, number: usize) {
    let at = number % 100;
    let mut before = 0;
    let (name, _, _) = MISCHIEF
        .into_iter()
        .find(|(_, _, share)| {
            before += share;
            at < before
        })
        .unwrap();
    let task = given(mischief_on(name));
    if number.is_multiple_of(3) {
        // Asked as a policy.
        let verdict = runtimes.review(name, request(1)).await;
        assert!(verdict.is_err(), "{name}: {verdict:?}");
    } else {
        let answer = runtimes.start(task.clone()).await;
        assert!(answer.is_err(), "{name}: {answer:?}");
    }
    let state = Arc::from(&b"kept"[..]);
    let heard = runtimes.on_event(task, state, StrategyEvent::Woke).await;
    assert!(heard.is_ok(), "{name}: {heard:?}");
}

/// One good call of a built-in plugin.
async fn good(runtimes: &Runtimes) -> Duration {
    let event = StrategyEvent::Exited {
        unit: UnitName::parse("main").unwrap(),
        end: UnitEnded {
            status: Some(ExitStatus::Code(0)),
            out_of_memory: false,
        },
    };
    let task = given(command(&["true"]));
    let since = Instant::now();
    let answer = runtimes.on_event(task, Arc::from([]), event).await;
    let took = since.elapsed();
    assert!(answer.is_ok(), "{answer:?}");
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap()
}

/// Good calls in a row.
async fn some_good(runtimes: &Runtimes, times: &mut Vec<Duration>) {
    for _ in 0..IN_A_ROW {
        times.push(good(runtimes).await);
    }
}

/// Makes bad calls one after the other, and asks for good ones beside them now and then.
async fn storm(runtimes: Arc<Runtimes>, numbers: Range<usize>, now: Sender<()>) {
    for number in numbers {
        misbehave(&runtimes, number).await;
        if number.is_multiple_of(BETWEEN) {
            // Full: good calls are being made.
            let _ = now.try_send(());
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "captured, and the figures of a nightly run"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_calls_cost_others_neither_time_nor_memory() {
    let measure = Measure::of_this_run();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let bench = Bench::with(CallLimits::default(), folder);
    bench.runtimes.load(process()).await.unwrap();
    for (name, what, _) in MISCHIEF {
        bench.runtimes.load(bad(name, what)).await.unwrap();
    }
    let begun = Instant::now();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut made = 0;
    let mut before = 0;
    for round in 0..=measure.rounds {
        for _ in 0..measure.good_calls / IN_A_ROW {
            some_good(&bench.runtimes, &mut alone).await;
        }
        let until = made + measure.bad_calls / measure.rounds;
        let (now, mut wanted) = tokio::sync::mpsc::channel(1);
        let bad = storm(Arc::clone(&bench.runtimes), made..until, now);
        let bad = tokio::spawn(bad);
        while wanted.recv().await.is_some() {
            some_good(&bench.runtimes, &mut beside).await;
        }
        bad.await.unwrap();
        made = until;
        if round == 0 {
            // Warm: every slot was used, every buffer is as large as it gets.
            before = resident();
            alone.clear();
            beside.clear();
        }
        assert!(
            begun.elapsed() < measure.most_time,
            "only {made} calls by now"
        );
    }
    let (after, took) = (resident(), begun.elapsed());
    let samples = (alone.len(), beside.len());
    let (alone, beside) = (median(alone), median(beside));
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    eprintln!(
        "{made} bad calls in {took:.1?}: a good call takes {alone:.1?} alone and {beside:.1?} \
         beside them ({ratio:.3}, of {samples:?}); resident {before} KiB before, {after} KiB after"
    );
    assert!(ratio < measure.slower, "{ratio:.3}");
    assert!(
        after < before + measure.most_growth,
        "{before} KiB, then {after} KiB"
    );
}
