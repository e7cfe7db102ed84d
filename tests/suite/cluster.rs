//! Three daemons, twenty workers and a PostgreSQL server on machines of their own, and what goes
//! wrong among them.
//!
//! Each test is one kind of fault under load; people submit to whichever daemon answers, all the
//! while. When everything is healed, every task must come to its end, and what all of them saw is
//! held against the record by `taskwright_tests::history`. Only one site works at a time: it keeps
//! a small machine busy, and leases are short.

mod site;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use taskwright_tests::history::Heard;
use taskwright_tests::random::{Random, nightly};
use taskwright_tests::{Request, SOON, eventually};

use site::{LEASE, Site};

const WORKERS: usize = 20;
/// Between a fault and the next: work goes on meanwhile.
const WORK: Duration = Duration::from_millis(700);
/// Surely longer than a lease.
const TOO_LONG: Duration = Duration::from_millis(LEASE.as_millis() as u64 * 3 / 2);

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn daemons_that_are_killed_lose_nothing() {
    let _alone = alone();
    let Some(site) = Site::start("kill-daemons", WORKERS) else {
        return;
    };
    site.under_load(&["worker-lost"], |site| {
        for number in [0, 1, 2, 0] {
            thread::sleep(WORK);
            site.daemons[number].kill();
            thread::sleep(WORK / 2);
            site.daemons[number].start_again();
        }
        thread::sleep(WORK);
    });
}

#[test]
fn workers_that_are_killed_lose_nothing() {
    let _alone = alone();
    let Some(site) = Site::start("kill-workers", WORKERS) else {
        return;
    };
    let history = site.under_load(&["worker-lost", "worker-restarted"], |site| {
        for round in 0..4 {
            thread::sleep(WORK);
            let killed = [round, round + 5, round + 10];
            site.stop_at_work(&killed);
            for number in killed {
                site.workers[number].kill();
            }
            if round % 2 == 0 {
                // Some stay away for longer than their lease.
                thread::sleep(TOO_LONG);
            }
            for number in killed {
                site.start_worker(number);
            }
        }
        thread::sleep(WORK);
    });
    let lost = history.records.iter().flat_map(|one| &one.attempts);
    let lost = lost.filter(|one| one.outcome == "lost").count();
    // Those of the last round go on with what they held.
    assert!(lost >= 9, "each was killed in the middle: {lost}");
}

#[test]
fn workers_that_sleep_longer_than_their_lease_lose_their_say() {
    let _alone = alone();
    let Some(site) = Site::start("stop-workers", WORKERS) else {
        return;
    };
    let history = site.under_load(&["worker-lost"], |site| {
        for round in 0..2 {
            thread::sleep(WORK);
            let stopped = [round, round + 6, round + 12];
            let before = site.ended_for("worker-lost");
            let held = site.stop_at_work(&stopped);
            eventually(SOON, "what they held is taken from them", || {
                site.ended_for("worker-lost") >= before + held
            });
            for number in stopped {
                site.workers[number].signal(Signal::CONT);
            }
        }
        thread::sleep(WORK);
    });
    let refused = history.reports.iter();
    let refused = refused.filter(|one| one.answer == Heard::Refused);
    // One of them leaves no word of its reports.
    assert!(refused.count() >= 5, "their reports came too late");
}

#[test]
fn a_daemon_that_sleeps_longer_than_a_lease_does_no_harm() {
    let _alone = alone();
    let Some(site) = Site::start("stop-daemon", WORKERS) else {
        return;
    };
    site.under_load(&["worker-lost"], |site| {
        for number in [0, 1] {
            thread::sleep(WORK);
            site.daemons[number].signal(Signal::STOP);
            thread::sleep(TOO_LONG);
            site.daemons[number].signal(Signal::CONT);
        }
        thread::sleep(WORK);
    });
}

#[test]
fn networks_that_are_cut_do_no_harm() {
    let _alone = alone();
    let Some(site) = Site::start("cut", WORKERS) else {
        return;
    };
    site.under_load(&["worker-lost"], |site| {
        thread::sleep(WORK);
        // A daemon, from everybody.
        site.at[0].cut();
        thread::sleep(TOO_LONG);
        site.at[0].heal();
        thread::sleep(WORK);
        // Five workers, from everybody.
        let before = site.ended_for("worker-lost");
        site.workers_at[0].cut();
        eventually(SOON, "some lost what they held", || {
            site.ended_for("worker-lost") > before
        });
        site.workers_at[0].heal();
        thread::sleep(WORK);
        // A daemon, from its server only: it answers, and cannot do anything.
        site.at[1].lose(&site.database);
        thread::sleep(TOO_LONG);
        site.at[1].reach(&site.database);
        thread::sleep(WORK);
        // The server, from everybody.
        site.database.cut();
        thread::sleep(TOO_LONG);
        site.database.heal();
        thread::sleep(WORK);
    });
}

#[test]
fn a_server_that_starts_again_loses_nothing() {
    let _alone = alone();
    let Some(site) = Site::start("server", WORKERS) else {
        return;
    };
    site.under_load(&["worker-lost"], |site| {
        for away in [Duration::ZERO, Duration::from_secs(1), TOO_LONG] {
            thread::sleep(WORK);
            site.server.stop();
            for path in ["/ready", "/readyz", "/api/v1/tasks", "/api/v1/export"] {
                let told = site.daemons[0].client().get(path);
                assert_eq!(told.status, 503, "{path}: {}", told.text());
            }
            let begun = Instant::now();
            site.daemons[0].client().get("/metrics").expect(200);
            assert!(begun.elapsed() < Duration::from_secs(10));
            thread::sleep(away);
            site.server.start_again();
            site.until_server_answers();
        }
        thread::sleep(WORK);
    });
}

#[test]
fn a_slow_disk_only_takes_time() {
    let _alone = alone();
    let Some(site) = Site::start("slow-disk", WORKERS) else {
        return;
    };
    site.under_load(&["worker-lost"], |site| {
        // The most that the server lets a commit wait.
        site.server.slow_commits(Duration::from_millis(100));
        thread::sleep(WORK * 5);
        // A disk that does not answer at all: the server stands still.
        site.server.signal(Signal::STOP);
        thread::sleep(TOO_LONG);
        site.server.signal(Signal::CONT);
        thread::sleep(WORK);
        site.server.slow_commits(Duration::ZERO);
    });
}

/// Daemons that have nothing to do leave their server in peace.
#[test]
fn nothing_is_asked_at_rest() {
    const SILENCE: Duration = Duration::from_secs(10);
    let _alone = alone();
    let Some(site) = Site::start_with("rest", 0, &[]) else {
        return;
    };
    // One that worked for a moment, and left.
    let client = site.daemons[0].client();
    let worker = json!({"worker_id": "worker-001-kind", "backend_type": "kind"});
    client.post("/api/v1/workers/register", &worker).expect(201);
    client
        .post("/api/v1/tasks", &json!({"problem_id": "p"}))
        .expect(201);
    let claim = Request::new("POST", "/api/v1/workers/worker-001-kind/claim");
    let id = client.send(claim).expect(200).json()["id"].clone();
    let done = format!(
        "/api/v1/workers/worker-001-kind/tasks/{}/complete",
        id.as_str().unwrap()
    );
    client.post(&done, &json!({})).expect(200);
    // Once a minute each looks for what is out of time, and at the server's clock; whoever asked
    // more often than this would never be silent for as long.
    let silent = "SELECT extract(epoch FROM clock_timestamp() - max(state_change)) \
                  FROM pg_stat_activity WHERE datname LIKE 'queue_%' \
                  AND backend_type = 'client backend'";
    eventually(SILENCE * 4, "the server is left in peace", || {
        thread::sleep(Duration::from_millis(200));
        let seconds: f64 = site.server.sql_beside(silent).parse().unwrap();
        seconds >= SILENCE.as_secs_f64()
    });
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillDaemon,
    StopDaemon,
    CutDaemon,
    LoseServer,
    KillWorkers,
    StopWorkers,
    CutWorkers,
    RestartServer,
    StopServer,
    SlowDisk,
}

/// Faults of every kind at random, one upon the other.
#[expect(clippy::print_stdout, reason = "captured, and shown when it fails")]
#[test]
fn random_faults_lose_nothing() {
    let _alone = alone();
    let rounds = if nightly() { 100 } else { 10 };
    let mut random = Random::seeded();
    let Some(site) = Site::start("random", WORKERS) else {
        return;
    };
    site.under_load(&["worker-lost", "worker-restarted"], |site| {
        for round in 0..rounds {
            let one = FAULTS[random.below(FAULTS.len() as u64) as usize];
            let which = random.below(100) as usize;
            let time = Duration::from_millis(200 + random.below(2800));
            println!("round {round}: {one:?} of {which} for {time:?}");
            begin(site, one, which);
            thread::sleep(time);
            end(site, one, which);
            thread::sleep(Duration::from_millis(random.below(500)));
        }
    });
}

fn some_workers(which: usize) -> [usize; 3] {
    [0, 7, 13].map(|step| (which + step) % WORKERS)
}

fn begin(site: &mut Site, fault: Fault, which: usize) {
    let (daemon, machine) = (which % 3, which % 5);
    match fault {
        Fault::KillDaemon => site.daemons[daemon].kill(),
        Fault::StopDaemon => site.daemons[daemon].signal(Signal::STOP),
        Fault::CutDaemon => site.at[daemon].cut(),
        Fault::LoseServer => site.at[daemon].lose(&site.database),
        Fault::KillWorkers => some_workers(which)
            .iter()
            .for_each(|one| site.workers[*one].kill()),
        Fault::StopWorkers => some_workers(which)
            .iter()
            .for_each(|one| site.workers[*one].signal(Signal::STOP)),
        Fault::CutWorkers => site.workers_at[machine].cut(),
        Fault::RestartServer => site.server.stop(),
        Fault::StopServer => site.server.signal(Signal::STOP),
        Fault::SlowDisk => site.server.slow_commits(Duration::from_millis(100)),
    }
}

fn end(site: &mut Site, fault: Fault, which: usize) {
    let (daemon, machine) = (which % 3, which % 5);
    match fault {
        Fault::KillDaemon => site.daemons[daemon].start_again(),
        Fault::StopDaemon => site.daemons[daemon].signal(Signal::CONT),
        Fault::CutDaemon => site.at[daemon].heal(),
        Fault::LoseServer => site.at[daemon].reach(&site.database),
        Fault::KillWorkers => some_workers(which)
            .iter()
            .for_each(|one| site.start_worker(*one)),
        Fault::StopWorkers => some_workers(which)
            .iter()
            .for_each(|one| site.workers[*one].signal(Signal::CONT)),
        Fault::CutWorkers => site.workers_at[machine].heal(),
        Fault::RestartServer => {
            site.server.start_again();
            site.until_server_answers();
        }
        Fault::StopServer => site.server.signal(Signal::CONT),
        Fault::SlowDisk => site.server.slow_commits(Duration::ZERO),
    }
}

const FAULTS: [Fault; 10] = [
    Fault::KillDaemon,
    Fault::StopDaemon,
    Fault::CutDaemon,
    Fault::LoseServer,
    Fault::KillWorkers,
    Fault::StopWorkers,
    Fault::CutWorkers,
    Fault::RestartServer,
    Fault::StopServer,
    Fault::SlowDisk,
];
