//! Kills at random moments under load.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use taskwright_tests::random::{Random, nightly};
use taskwright_tests::task::{shell, state};
use taskwright_tests::{Client, Daemon, Request, SOON, eventually, eventually_some, reaper};

/// Kills at random moments under load. No acknowledged task is lost, none is started twice,
/// no exit code is wrong; and an end is `lost` only where all that could see it were killed
/// at once.
#[test]
fn random_kills_under_load_lose_nothing() {
    let rounds = if nightly() { 200 } else { 20 };
    let mut chaos = Chaos {
        daemon: Daemon::start(),
        random: Random::seeded(),
    };
    for round in 0..rounds {
        chaos.round(round);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    Daemon,
    /// And again while it recovers.
    DaemonTwice,
    Supervisor,
    Both,
    /// The guardian too: nobody is left who could see an end.
    All,
}

struct Chaos {
    daemon: Daemon,
    random: Random,
}

impl Chaos {
    #[expect(clippy::print_stdout, reason = "captured, and shown when it fails")]
    fn round(&mut self, round: u32) {
        let kinds = [
            Kill::Daemon,
            Kill::DaemonTwice,
            Kill::Supervisor,
            Kill::Both,
            Kill::All,
        ];
        let kind = kinds[self.random.below(kinds.len() as u64) as usize];
        let after = Duration::from_millis(self.random.below(150));
        let again_after = Duration::from_millis(self.random.below(120));
        let randoms: Vec<Random> = (0..3).map(|_| self.random.another()).collect();
        println!("round {round}: {kind:?} after {after:?}, {again_after:?}");
        let client = self.daemon.client();
        let runs = self.daemon.home().path().join(format!("runs-{round}"));
        let enough = AtomicBool::new(false);
        let sent: Vec<Sent> = std::thread::scope(|scope| {
            let load: Vec<_> = randoms
                .into_iter()
                .enumerate()
                .map(|(thread, random)| {
                    let (client, runs, enough) = (&client, &runs, &enough);
                    let prefix = format!("r{round}-{thread}");
                    scope.spawn(move || send_load(client, &prefix, runs, random, enough))
                })
                .collect();
            std::thread::sleep(after);
            self.kill(kind, again_after);
            enough.store(true, Ordering::Relaxed);
            load.into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        for one in &sent {
            self.check(one, kind);
        }
        check_runs(&runs, &sent);
        client.post("/setTasks", &json!([])).expect(200);
        eventually(SOON, "a round's tasks are gone", || {
            client.get("/getTasks").json() == json!([])
        });
        eventually(SOON, "no process of a task is left", || {
            self.daemon.home().task_processes().is_empty()
        });
    }

    fn kill(&mut self, kind: Kill, again_after: Duration) {
        match kind {
            Kill::Daemon => {
                self.daemon.kill();
                self.daemon.start_again();
            }
            Kill::DaemonTwice => {
                self.daemon.kill();
                self.daemon.spawn();
                std::thread::sleep(again_after);
                self.daemon.kill();
                self.daemon.start_again();
            }
            Kill::Supervisor => reaper::kill(&self.daemon.supervisor()),
            Kill::Both => {
                reaper::send(self.daemon.supervisor().pid, Signal::KILL);
                self.daemon.kill();
                self.daemon.start_again();
            }
            Kill::All => {
                self.daemon.kill_everything();
                self.daemon.start_again();
            }
        }
    }

    /// Waits for a task's end and looks at it.
    fn check(&self, sent: &Sent, kind: Kill) {
        let client = self.daemon.client();
        let path = format!("/tasks/{}", sent.name);
        let present = client.get(&path);
        if present.status == 404 {
            assert!(
                !sent.acknowledged,
                "{} was acknowledged and is lost",
                sent.name
            );
            return;
        }
        let ended = eventually_some(SOON, &format!("{} has ended", sent.name), || {
            let task = client.get(&path).expect(200).json();
            (state(&task) == "terminated").then_some(task)
        });
        let outcome = &ended["outcome"];
        let true_end = *outcome == json!({"cause": "exit", "exitCode": sent.code});
        let lost = outcome["cause"] == "lost" && kind == Kill::All;
        assert!(true_end || lost, "{kind:?}, {}: {ended:#}", sent.name);
    }
}

/// A task that was posted.
struct Sent {
    name: String,
    code: u8,
    /// Whether the answer said that it is kept.
    acknowledged: bool,
}

/// Posts short tasks until it is enough. Each says in a file that it runs.
fn send_load(
    client: &Client,
    prefix: &str,
    runs: &Path,
    mut random: Random,
    enough: &AtomicBool,
) -> Vec<Sent> {
    const MOST: u32 = 30;
    let mut sent = Vec::new();
    let begun = Instant::now();
    for number in 0..MOST {
        if enough.load(Ordering::Relaxed) || begun.elapsed() > SOON {
            break;
        }
        let code = random.below(120) as u8;
        let pause = random.below(40);
        let name = format!("{prefix}-{number}");
        let script = format!(
            "echo {name} >> {}; sleep 0.0{pause:02}; exit {code}",
            runs.display()
        );
        let request = Request::new("POST", "/tasks").json(&shell(&name, &script));
        let acknowledged = client
            .try_send(request)
            .is_ok_and(|answer| answer.status == 201);
        sent.push(Sent {
            name,
            code,
            acknowledged,
        });
        std::thread::sleep(Duration::from_millis(random.below(8)));
    }
    sent
}

/// No task ran twice.
fn check_runs(runs: &Path, sent: &[Sent]) {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for line in std::fs::read_to_string(runs).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    for (name, count) in counts {
        assert_eq!(count, 1, "{name} ran {count} times");
        assert!(
            sent.iter().any(|one| one.name == name),
            "{name} was never sent"
        );
    }
}
