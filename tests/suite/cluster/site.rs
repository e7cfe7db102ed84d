//! A site: a database server, three daemons and twenty workers on machines of their own, people
//! who submit, and everything that they saw.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use taskwright_tests::history::{History, Hold, Record, Submission, Tried};
use taskwright_tests::reaper::Owned;
use taskwright_tests::{
    Client, Daemon, Home, Machine, Network, Options, Request, SOON, binary, eventually,
    eventually_some, postgres, processes,
};

/// Where compiled plugins are, in the data directory of a daemon or of a worker.
const CACHE: &str = ".taskwright/cache";
/// How long a worker may be silent.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// After every fault is healed: how long until all is over. The pauses of tasks that were lost
/// several times are the most of it.
const ALL_OVER: Duration = Duration::from_secs(90);
/// And until the last report is answered.
const UNANSWERED: Duration = Duration::from_secs(15);
/// How long people wait for an answer until they ask another daemon.
const PATIENCE: Duration = Duration::from_secs(1);
/// People who submit at the same time.
const SUBMITTERS: usize = 4;
/// The most that one of them submits.
const MOST_SUBMISSIONS: usize = 400;
/// The most that one task is sent.
const MOST_SENT: usize = 300;
/// How many times a task may lose its worker.
const LOSSES: u32 = 50;
/// By how much the clocks of daemons may differ, which each takes from the server when it starts.
const SKEW: i64 = 500;
/// The machines of workers that are `taskwright worker`; the others are for small ones.
const PROGRAMS_AT: [usize; 2] = [3, 4];

/// Everything. Dropped in this order.
pub(super) struct Site {
    pub(super) workers: Vec<Worker>,
    pub(super) daemons: Vec<Daemon>,
    pub(super) server: postgres::Own,
    /// The machines of daemons, of the server, and of workers.
    pub(super) at: Vec<Machine>,
    pub(super) database: Machine,
    pub(super) workers_at: Vec<Machine>,
    /// Where people are.
    _people: Machine,
    home: Home,
    name: String,
}

/// A worker.
pub(super) struct Worker {
    pub(super) id: String,
    kind: Kind,
    places: usize,
    machine: Machine,
    process: Option<Owned>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `tests/programs/queue_worker.rs`: it speaks to any daemon, and leaves a line of whatever it
    /// is told.
    Small,
    /// `taskwright worker`, which speaks to one daemon. Its work alone leaves lines.
    Program,
}

impl Worker {
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().pid()
    }
}

/// What was seen while faults happened.
#[derive(Default)]
struct Seen {
    submissions: Vec<Submission>,
    sightings: Vec<(String, usize)>,
}

impl Site {
    /// With so many workers on five machines; `None` where that cannot be had.
    pub(super) fn start(name: &str, workers: usize) -> Option<Self> {
        // A daemon that did not give a task out knows of its lease from these looks.
        Self::start_with(name, workers, &["--timeout-check-interval=2s"])
    }

    /// The same, with these flags of its daemons.
    pub(super) fn start_with(name: &str, workers: usize, flags: &[&str]) -> Option<Self> {
        let mut network = match Network::new() {
            Ok(network) => network,
            Err(reason) => {
                taskwright_tests::skip(&reason);
                return None;
            }
        };
        let mut machine = || network.machine().unwrap();
        let (database, people) = (machine(), machine());
        let at: Vec<Machine> = (0..3).map(|_| machine()).collect();
        let workers_at: Vec<Machine> = (0..5).map(|_| machine()).collect();
        let server = postgres::Own::start(&database)?;
        let address = server.address().to_owned();
        let home = Home::new();
        let options = |at: &Machine| {
            let options = Options::new()
                .variable("DATABASE_URL", &address)
                .flag(&format!("--worker-heartbeat-timeout={}s", LEASE.as_secs()))
                .flag(&format!("--queue-lost-attempts={LOSSES}"))
                .on(at, &people);
            flags.iter().fold(options, |all, flag| all.flag(flag))
        };
        // The first one compiles the plugins, and the others find them in their caches.
        let first = options(&at[0]).start();
        let compiled = first.home().data().join(CACHE);
        let mut daemons = vec![first];
        for at in &at[1..] {
            let home = Home::new();
            copy_folder(&compiled, &home.data().join(CACHE));
            daemons.push(options(at).start_in(home));
        }
        let worker = |number: usize| Worker {
            id: format!("worker-{:03}-kind", number + 1),
            kind: match PROGRAMS_AT.contains(&(number % workers_at.len())) {
                true => Kind::Program,
                false => Kind::Small,
            },
            // Most have one place, as the documents' workers; some more.
            places: if number.is_multiple_of(4) { 2 } else { 1 },
            machine: workers_at[number % workers_at.len()].clone(),
            process: None,
        };
        for worker in (0..workers).map(&worker) {
            if worker.kind == Kind::Program {
                copy_folder(&compiled, &data_of(&home, &worker.id).join(CACHE));
            }
        }
        let mut site = Self {
            workers: (0..workers).map(worker).collect(),
            daemons,
            server,
            at,
            database,
            _people: people,
            home,
            name: name.to_owned(),
            workers_at,
        };
        (0..workers).for_each(|number| site.start_worker(number));
        Some(site)
    }

    fn history_of(&self, worker: &str) -> PathBuf {
        self.home.path().join(format!("history-{worker}"))
    }

    pub(super) fn start_worker(&mut self, number: usize) {
        let worker = &self.workers[number];
        let mut command = match worker.kind {
            Kind::Small => self.small(worker),
            Kind::Program => self.program(worker, number),
        };
        let log = self.home.path().join(format!("log-{}", worker.id));
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.workers[number].process = Some(Owned::spawn(&mut command).unwrap());
    }

    fn small(&self, worker: &Worker) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_queue-worker"));
        let mut command = self.home.command_on(&worker.machine, program);
        command
            .args([&worker.id, &worker.places.to_string()])
            .arg(self.history_of(&worker.id))
            .args(self.daemons.iter().map(|one| one.address().to_string()));
        command
    }

    fn program(&self, worker: &Worker, number: usize) -> Command {
        let daemon = &self.daemons[number % self.daemons.len()];
        let work = format!(
            "what=\"$TASKWRIGHT_WORKER_ID $TASKWRIGHT_TASK_ID $TASKWRIGHT_ATTEMPT\"; \
             echo \"begin $what\" >> {history}; \
             sleep $(printf 0.%03d $TASKWRIGHT_PARAM_MILLISECONDS); \
             echo \"{{\\\"by\\\": \\\"by $what\\\"}}\" > $TASKWRIGHT_RESULT; \
             echo \"end $what\" >> {history}",
            history = self.history_of(&worker.id).display()
        );
        let program = binary::taskwright();
        let mut command = self.home.command_on(&worker.machine, program);
        command
            .arg("worker")
            .arg(format!("--api-url=http://{}", daemon.address()))
            .arg(format!("--id={}", worker.id))
            .arg(format!("--parallel={}", worker.places))
            .arg("--heartbeat-interval=500ms")
            .arg("--data-dir")
            .arg(data_of(&self.home, &worker.id))
            .args(["--", "sh", "-c", &work])
            .env("TASKWRIGHT_TASK_ENV", self.home.mark());
        command
    }

    /// What a worker has begun and not ended.
    pub(super) fn doing(&self, worker: &str) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.history_of(worker)).unwrap_or_default();
        let mut doing = BTreeSet::new();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("begin", what)) => drop(doing.insert(what.to_owned())),
                Some(("end", what)) => drop(doing.remove(what)),
                _ => {}
            }
        }
        doing
    }

    /// Stops workers in the middle of their work; answers how many attempts that are.
    pub(super) fn stop_at_work(&mut self, numbers: &[usize]) -> usize {
        numbers.iter().map(|number| self.stop_one(*number)).sum()
    }

    fn stop_one(&mut self, number: usize) -> usize {
        let id = self.workers[number].id.clone();
        eventually_some(ALL_OVER, "a worker has something to do", || {
            if self.doing(&id).is_empty() {
                return None;
            }
            self.workers[number].signal(Signal::STOP);
            let pid = self.workers[number].pid();
            eventually(SOON, "it stands still", || processes::is_stopped(pid));
            // It may just have ended.
            let doing = self.doing(&id).len();
            if doing == 0 {
                self.workers[number].signal(Signal::CONT);
            }
            (doing > 0).then_some(doing)
        })
    }

    /// How many attempts on record ended for this cause.
    pub(super) fn ended_for(&self, cause: &str) -> usize {
        let count = format!("SELECT count(*) FROM queue_attempts WHERE cause = '{cause}'");
        self.server.sql(&count).parse().unwrap()
    }

    /// Submits all the while, then heals and waits, and holds what was seen against the record.
    #[expect(clippy::print_stdout, reason = "captured, and shown when it fails")]
    pub(super) fn under_load(
        mut self,
        explained: &[&str],
        faults: impl FnOnce(&mut Self),
    ) -> History {
        let load = Load::default();
        let clients: Vec<(String, Client)> = self
            .daemons
            .iter()
            .enumerate()
            .map(|(number, daemon)| {
                let client = daemon.client().with_patience(PATIENCE);
                (format!("daemon {number}"), client)
            })
            .collect();
        let begun = Instant::now();
        let name = self.name.clone();
        let seen = thread::scope(|scope| {
            let submitters: Vec<_> = (0..SUBMITTERS)
                .map(|number| {
                    let (clients, load, name) = (&clients, &load, &name);
                    scope.spawn(move || submit_all(name, number, clients, load))
                })
                .collect();
            let looking = scope.spawn(|| look(&clients, &load));
            let enough = Enough(&load);
            faults(&mut self);
            drop(enough);
            let submissions = submitters.into_iter().flat_map(|one| one.join().unwrap());
            Seen {
                submissions: submissions.collect(),
                sightings: looking.join().unwrap(),
            }
        });
        let faults_took = begun.elapsed();
        let over = self.wait_until_over();
        let history = self.history(seen, explained);
        println!("{}: {}", self.name, figures(&history, faults_took, over));
        let found = taskwright_tests::history::check(&history);
        let kept = found.is_empty() || self.keep(&history);
        assert!(kept && found.is_empty(), "{found:#?}");
        self.all_tell_the_same(&history);
        history
    }

    /// Answers how long it took. What is not over then, the checker finds.
    fn wait_until_over(&self) -> Duration {
        let begun = Instant::now();
        let open = "SELECT count(*) FROM queue_tasks WHERE status IN ('pending', 'running')";
        while self.server.sql(open) != "0" && begun.elapsed() < ALL_OVER {
            thread::sleep(Duration::from_millis(100));
        }
        let took = begun.elapsed();
        // A report whose answer was lost is sent again, and its answer is part of the history.
        let answered = Instant::now();
        while self.workers.iter().any(|one| self.has_unanswered(one))
            && answered.elapsed() < UNANSWERED
        {
            thread::sleep(Duration::from_millis(50));
        }
        took
    }

    /// Whether a small worker has something to report, which it was given in this life.
    fn has_unanswered(&self, worker: &Worker) -> bool {
        let text = std::fs::read_to_string(self.history_of(&worker.id)).unwrap_or_default();
        let mut open = BTreeSet::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["started", ..] => open.clear(),
                ["begin", _, task, attempt] => drop(open.insert((*task, *attempt))),
                ["answered", _, task, attempt, ..] => drop(open.remove(&(*task, *attempt))),
                _ => {}
            }
        }
        worker.kind == Kind::Small && !open.is_empty()
    }

    fn history(&self, seen: Seen, explained: &[&str]) -> History {
        let mut history = History {
            submissions: seen.submissions,
            sightings: seen.sightings,
            records: self.records(),
            explained: explained.iter().map(|cause| (*cause).to_owned()).collect(),
            skew: SKEW,
            ..History::default()
        };
        // Some tasks are asked to fail.
        history.explained.insert("reported".to_owned());
        history.explained.insert("infrastructure".to_owned());
        for worker in &self.workers {
            history.places.insert(worker.id.clone(), worker.places);
            let text = std::fs::read_to_string(self.history_of(&worker.id));
            history.take_lines(&text.unwrap_or_default());
        }
        history
    }

    /// The record, past every daemon.
    fn records(&self) -> Vec<Record> {
        let tasks = "SELECT id, problem_id, status, attempt, coalesce(result, error) \
                     FROM queue_tasks ORDER BY id";
        let attempts = "SELECT task_id, number, worker_id, started_at, ended_at, outcome, cause \
                        FROM queue_attempts ORDER BY task_id, number";
        let attempts = self.server.sql(attempts);
        let tried: Vec<(&str, Tried)> = attempts
            .lines()
            .map(|line| {
                let cells: Vec<&str> = line.split('|').collect();
                let tried = Tried {
                    number: cells[1].parse().unwrap(),
                    worker: cells[2].to_owned(),
                    started: cells[3].parse().unwrap(),
                    ended: cells[4].parse().unwrap(),
                    outcome: cells[5].to_owned(),
                    cause: cells[6].to_owned(),
                };
                (cells[0], tried)
            })
            .collect();
        let tasks = self.server.sql(tasks);
        let record = |line: &str| {
            let cells: Vec<&str> = line.split('|').collect();
            let of_it = tried.iter().filter(|(task, _)| *task == cells[0]);
            Record {
                task: cells[0].to_owned(),
                key: cells[1].to_owned(),
                status: cells[2].to_owned(),
                attempt: cells[3].parse().unwrap(),
                by: by(cells[4]),
                attempts: of_it.map(|(_, tried)| tried.clone()).collect(),
            }
        };
        tasks.lines().map(record).collect()
    }

    /// Every daemon counts what is on record.
    fn all_tell_the_same(&self, history: &History) {
        let completed = |status: &str| {
            let records = history.records.iter();
            records.filter(|one| one.status == status).count()
        };
        let wanted = (completed("completed"), completed("failed"));
        for daemon in &self.daemons {
            let told = daemon
                .client()
                .get("/api/v1/tasks/stats")
                .expect(200)
                .json();
            let count = |name: &str| told[name].as_u64().unwrap() as usize;
            assert_eq!(
                (count("completed_tasks"), count("failed_tasks")),
                wanted,
                "{told}"
            );
        }
    }

    /// Says what a history that breaks a rule consists of.
    #[expect(clippy::print_stdout, reason = "captured, and shown when it fails")]
    fn keep(&self, history: &History) -> bool {
        for worker in &self.workers {
            let log = std::fs::read_to_string(self.home.path().join(format!("log-{}", worker.id)));
            let log = log.unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            println!("{}: {last:?}", worker.id);
        }
        for record in &history.records {
            if !matches!(record.status.as_str(), "completed" | "failed") {
                println!("{record:?}");
            }
        }
        true
    }

    /// Waits until the server answers.
    pub(super) fn until_server_answers(&self) {
        eventually(Duration::from_secs(30), "the server answers", || {
            self.server.answers()
        });
    }
}

/// Where a worker keeps its records.
fn data_of(home: &Home, worker: &str) -> PathBuf {
    home.path().join(format!("data-{worker}"))
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Whether people go on.
#[derive(Default)]
struct Load {
    /// They submit no further task.
    enough: AtomicBool,
    /// The test has failed: they give up.
    failed: AtomicBool,
}

impl Load {
    fn is_enough(&self) -> bool {
        self.enough.load(Ordering::SeqCst)
    }
}

/// Tells it when it goes, so that nobody goes on after a failure.
struct Enough<'a>(&'a Load);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.failed.store(thread::panicking(), Ordering::SeqCst);
        self.0.enough.store(true, Ordering::SeqCst);
    }
}

/// Who says of a result that it is theirs: `by WORKER TASK ATTEMPT`.
fn by(text: &str) -> Option<Hold> {
    let words = text.rsplit("by ").next()?;
    let words: Vec<&str> = words.trim_end_matches(['"', '}']).split(' ').collect();
    let [worker, task, attempt] = words.as_slice() else {
        return None;
    };
    Some(Hold {
        task: (*task).to_owned(),
        attempt: attempt.parse().ok()?,
        worker: (*worker).to_owned(),
    })
}

fn submit_all(
    name: &str,
    number: usize,
    clients: &[(String, Client)],
    load: &Load,
) -> Vec<Submission> {
    let mut submissions = Vec::new();
    // Whom it speaks to, as long as that one answers.
    let mut daemon = number;
    for count in 0..MOST_SUBMISSIONS {
        if load.is_enough() {
            break;
        }
        let key = format!("{name}-{number}-{count}");
        let milliseconds = [20, 50, 100, 400][count % 4];
        let outcome = match count % 20 {
            7 => "failed",
            13 => "infrastructure",
            _ => "completed",
        };
        let body = json!({
            "problem_id": key,
            "parameters": {
                "milliseconds": milliseconds, "outcome": outcome, "priority": count % 10,
            },
        });
        submissions.push(submit(&key, &body, clients, &mut daemon, load));
        thread::sleep(Duration::from_millis(80));
    }
    submissions
}

/// Submits one task under its key, until somebody acknowledges it.
fn submit(
    key: &str,
    body: &Value,
    clients: &[(String, Client)],
    daemon: &mut usize,
    load: &Load,
) -> Submission {
    let mut last = String::new();
    for _ in 0..MOST_SENT {
        assert!(
            !load.failed.load(Ordering::SeqCst),
            "{key} was not submitted: {last}"
        );
        let (name, client) = &clients[*daemon % clients.len()];
        let request = Request::new("POST", "/api/v1/tasks").json(body);
        match client.try_send(request.header("idempotency-key", key)) {
            Ok(answer) if matches!(answer.status, 200 | 201) => {
                return Submission {
                    key: key.to_owned(),
                    task: answer.json()["id"].as_str().unwrap().to_owned(),
                    daemon: name.clone(),
                };
            }
            Ok(answer) => {
                assert!(answer.status >= 500, "{}: {}", answer.status, answer.text());
                last = answer.text();
            }
            Err(error) => last = error.to_string(),
        }
        *daemon += 1;
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{key} could not be submitted: {last}");
}

/// Looks now and then how much each worker holds.
fn look(clients: &[(String, Client)], load: &Load) -> Vec<(String, usize)> {
    let mut sightings = Vec::new();
    for count in 0.. {
        if load.is_enough() {
            break;
        }
        let (_, client) = &clients[count % clients.len()];
        let answer = client.try_send(Request::new("GET", "/api/v1/workers"));
        let workers = answer.ok().filter(|answer| answer.status == 200);
        let workers = workers.map(|answer| answer.json()).unwrap_or_default();
        for worker in workers.as_array().into_iter().flatten() {
            let held = worker["current_task_ids"].as_array().unwrap().len();
            sightings.push((worker["id"].as_str().unwrap().to_owned(), held));
        }
        thread::sleep(Duration::from_millis(200));
    }
    sightings
}

fn figures(history: &History, faults: Duration, over: Duration) -> String {
    let attempts = || history.records.iter().flat_map(|record| &record.attempts);
    let cause = |cause: &str| attempts().filter(|one| one.cause == cause).count();
    let heard = |answer| {
        history
            .reports
            .iter()
            .filter(|one| one.answer == answer)
            .count()
    };
    use taskwright_tests::history::Heard;
    format!(
        "{} tasks, {} attempts ({} lost, {} restarted); reports: {} accepted, {} refused, {} \
         unheard; faults {:.1} s, over {:.1} s later",
        history.records.len(),
        attempts().count(),
        cause("worker-lost"),
        cause("worker-restarted"),
        heard(Heard::Accepted),
        heard(Heard::Refused),
        heard(Heard::Unknown),
        faults.as_secs_f64(),
        over.as_secs_f64(),
    )
}
