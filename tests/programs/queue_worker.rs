//! A worker of the queue that is small enough to have many of: `queue-worker ID PLACES HISTORY
//! DAEMON [DAEMON ...]`.
//!
//! It speaks the documented HTTP API to one of the daemons, and to the next one when that does not
//! answer. What it runs is a pause of `parameters.milliseconds`, after which it reports what
//! `parameters.outcome` says: `failed`, `infrastructure` (of the first attempt only), or that it is
//! done. Each event is a line of the file HISTORY, as `taskwright_tests::history` reads it.
//!
//! It never gives up what it runs, and reports even what it has lost: others have to see to it that
//! this does no harm.

#![expect(
    clippy::print_stderr,
    reason = "a program for tests talks to its reader"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use taskwright_tests::client::Target;
use taskwright_tests::{Client, Request, Response};

/// How often it says that it is alive.
const BEAT: Duration = Duration::from_millis(500);
/// How long a claim waits for a task.
const WAIT_SECONDS: u64 = 5;
/// How long an answer is waited for, beyond that.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause after a daemon that did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a report is sent at most.
const MOST_REPORTS: u32 = 1000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match Worker::of(&words) {
        Ok(worker) => worker.work(),
        Err(error) => {
            eprintln!("queue-worker {words:?}: {error}");
            ExitCode::from(99)
        }
    }
}

struct Worker {
    id: String,
    places: usize,
    history: File,
    daemons: Vec<SocketAddr>,
    /// Which of them is spoken to.
    current: AtomicUsize,
    /// What it was given, by any way.
    given: Mutex<BTreeSet<(String, u64)>>,
    /// The tasks that it works on.
    in_hand: Mutex<BTreeSet<String>>,
    /// Claims that wait for their answer.
    claiming: AtomicUsize,
}

impl Worker {
    fn of(words: &[String]) -> Result<Arc<Self>, String> {
        let [id, places, history, daemons @ ..] = words else {
            return Err("ID PLACES HISTORY DAEMON [DAEMON ...]".to_owned());
        };
        let daemons: Result<Vec<SocketAddr>, _> = daemons.iter().map(|one| one.parse()).collect();
        let history = File::options().create(true).append(true).open(history);
        let places = places.parse().map_err(|_| format!("PLACES: {places}"))?;
        // Not all begin with the same daemon.
        let first = id.bytes().map(usize::from).sum();
        Ok(Arc::new(Self {
            id: id.clone(),
            places,
            history: history.map_err(|error| error.to_string())?,
            daemons: daemons.map_err(|error| error.to_string())?,
            current: AtomicUsize::new(first),
            given: Mutex::default(),
            in_hand: Mutex::default(),
            claiming: AtomicUsize::new(0),
        }))
    }

    fn work(self: &Arc<Self>) -> ExitCode {
        self.tell(&format!("started {}", self.id));
        self.register();
        for _ in 0..self.places {
            let worker = self.clone();
            thread::spawn(move || worker.claim_for_ever());
        }
        self.beat_for_ever()
    }

    /// Writes an event down, in one piece.
    fn tell(&self, event: &str) {
        if let Err(error) = (&self.history).write_all(format!("{event}\n").as_bytes()) {
            // Without its history it is of no use.
            eprintln!("write the history: {error}");
            std::process::exit(98);
        }
    }

    /// Asks a daemon; after a failure the next one is asked.
    fn ask(&self, request: Request, wait: Duration) -> io::Result<Response> {
        let current = self.current.load(Ordering::SeqCst);
        let place = current.checked_rem(self.daemons.len());
        let daemon = place.and_then(|place| self.daemons.get(place));
        let daemon = daemon.ok_or_else(|| io::Error::other("no daemon was named"))?;
        let client = Client::new(Target::Tcp(*daemon)).with_patience(wait + PATIENCE);
        let answer = client.try_send(request).and_then(|answer| {
            let away = answer.status >= 500 || answer.status == 429;
            match away {
                true => Err(io::Error::other(answer.text())),
                false => Ok(answer),
            }
        });
        if answer.is_err() {
            // Unless another thread has turned already.
            let _ = self.current.compare_exchange(
                current,
                current + 1,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            thread::sleep(PAUSE);
        }
        answer
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/workers/{}/{rest}", self.id)
    }

    /// As one that knows nothing of what it may have held before.
    fn register(&self) {
        let body = json!({
            "worker_id": self.id,
            "backend_type": "default",
            "capabilities": {"max_parallel_tasks": self.places},
        });
        loop {
            let request = Request::new("POST", "/api/v1/workers/register").json(&body);
            match self.ask(request, Duration::ZERO) {
                Ok(answer) if answer.status == 201 => return,
                Ok(answer) => eprintln!("register: {}", answer.text()),
                Err(error) => eprintln!("register: {error}"),
            }
            thread::sleep(PAUSE);
        }
    }

    fn claim_for_ever(&self) {
        let path = self.path(&format!("claim?wait={WAIT_SECONDS}s"));
        loop {
            self.claiming.fetch_add(1, Ordering::SeqCst);
            let wait = Duration::from_secs(WAIT_SECONDS);
            let answer = self.ask(Request::new("POST", &path), wait);
            let task = answer.ok().filter(|answer| answer.status == 200);
            let task = task.map(|answer| answer.json());
            let new = task.filter(|task| self.take(task));
            self.claiming.fetch_sub(1, Ordering::SeqCst);
            if let Some(task) = new {
                self.carry_out(&task);
            }
        }
    }

    /// Whether this attempt is new.
    fn take(&self, task: &Value) -> bool {
        let (id, attempt) = name(task);
        let new = locked(&self.given).insert((id.clone(), attempt));
        if new {
            locked(&self.in_hand).insert(id);
        }
        new
    }

    fn carry_out(&self, task: &Value) {
        self.run(task);
        locked(&self.in_hand).remove(&name(task).0);
    }

    fn run(&self, task: &Value) {
        let (id, attempt) = name(task);
        let what = format!("{} {id} {attempt}", self.id);
        let parameter = |name: &str| task.get("parameters").and_then(|all| all.get(name));
        let time = parameter("milliseconds").and_then(Value::as_u64);
        let outcome = parameter("outcome").and_then(Value::as_str);
        self.tell(&format!("claimed {what}"));
        self.tell(&format!("begin {what}"));
        thread::sleep(Duration::from_millis(time.unwrap_or(0)));
        self.tell(&format!("end {what}"));
        let by = format!("by {what}");
        let (said, verb, body) = match outcome {
            Some("failed") => ("failed", "fail", json!({"error": by})),
            Some("infrastructure") if attempt == 1 => {
                let body = json!({"error": by, "cause": "infrastructure"});
                ("infrastructure", "fail", body)
            }
            _ => ("completed", "complete", json!({"by": by})),
        };
        let path = self.path(&format!("tasks/{id}/{verb}?attempt={attempt}"));
        for _ in 0..MOST_REPORTS {
            self.tell(&format!("sent {what} {said}"));
            let request = Request::new("POST", &path).json(&body);
            if let Ok(answer) = self.ask(request, Duration::ZERO) {
                let status = answer.status;
                self.tell(&format!("answered {what} {said} {status}"));
                return;
            }
        }
    }

    /// Says that it is alive, and hears what it holds: a task that it knows nothing of is one
    /// whose claim was answered into a broken connection.
    fn beat_for_ever(self: &Arc<Self>) -> ! {
        let mut unknown: BTreeSet<(String, u64)> = BTreeSet::new();
        loop {
            let beat = json!({"status": "idle"});
            let request = Request::new("POST", &self.path("heartbeat")).json(&beat);
            match self.ask(request, Duration::ZERO) {
                Ok(answer) if answer.status == 200 => {
                    let strange = self.strange(&answer.json());
                    for (task, held) in &strange {
                        let idle = self.claiming.load(Ordering::SeqCst) == 0;
                        if (idle || unknown.contains(held)) && self.take(task) {
                            let (worker, task) = (self.clone(), task.clone());
                            thread::spawn(move || worker.carry_out(&task));
                        }
                    }
                    unknown = strange.into_iter().map(|(_, held)| held).collect();
                }
                Ok(answer) if answer.status == 404 => self.register(),
                Ok(answer) => eprintln!("heartbeat: {}", answer.text()),
                Err(error) => eprintln!("heartbeat: {error}"),
            }
            thread::sleep(BEAT);
        }
    }

    /// What it holds by the record and was never given.
    fn strange(&self, heard: &Value) -> Vec<(Value, (String, u64))> {
        let held = heard.get("current_task_ids").and_then(Value::as_array);
        let ids = held.into_iter().flatten().filter_map(Value::as_str);
        let unknown = ids.filter(|id| !locked(&self.in_hand).contains(*id));
        let tasks = unknown.filter_map(|id| {
            let request = Request::new("GET", &format!("/api/v1/tasks/{id}"));
            let answer = self.ask(request, Duration::ZERO).ok()?;
            (answer.status == 200).then(|| answer.json())
        });
        tasks
            .filter(|task| task.get("status").is_some_and(|status| status == "running"))
            .filter(|task| {
                task.get("worker_id")
                    .is_some_and(|worker| *worker == self.id)
            })
            .map(|task| (task.clone(), name(&task)))
            .filter(|(_, held)| !locked(&self.given).contains(held))
            .collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The id of a task and the number of its attempt.
fn name(task: &Value) -> (String, u64) {
    let id = task.get("id").and_then(Value::as_str).unwrap_or_default();
    let attempt = task.get("attempt").and_then(Value::as_u64);
    (id.to_owned(), attempt.unwrap_or(0))
}
