//! The worker's loop among fakes: a queue that loses answers and goes away, a control loop
//! whose units end when the test says so. Time is paused.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use taskwright_control::Config;
use taskwright_control::fake::{FakeWorld, spec};
use taskwright_model::{TaskId, TaskKey, TaskName, TaskState};
use taskwright_queue::port::ReportedEnd;
use taskwright_queue::{Cause, Json, NewLogEntry, WorkerId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::port::{Answer, Assignment, Entry, Introduction, QueueError, Standing, WorkQueue};
use crate::runs::Runs;
use crate::template::{Template, Templates, run_name};
use crate::worker::{Ended, Habits, Orders, Worker};

/// What the fake queue has on record.
#[derive(Default)]
struct Record {
    waiting: VecDeque<Assignment>,
    running: BTreeMap<TaskId, Assignment>,
    reports: Vec<(TaskId, u32, ReportedEnd)>,
    lines: Vec<String>,
    revision: u64,
    entries: Vec<Entry>,
    /// Calls that fail from now on.
    away: u32,
    /// Claims whose answers are lost from now on.
    lost_answers: u32,
    /// Claims whose answers come only after [`LATE`].
    late_answers: u32,
    /// Whether it forgot the worker.
    forgot: bool,
}

/// Long after a heartbeat told the same.
const LATE: Duration = Duration::from_secs(300);

#[derive(Clone, Default)]
struct FakeQueue(Arc<Mutex<Record>>);

impl FakeQueue {
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Record) -> Result<T, QueueError>,
    ) -> Answer<'_, T> {
        let mut record = self.0.lock();
        let answer = if record.away > 0 {
            record.away -= 1;
            Err(QueueError::Away("it is away".to_owned()))
        } else {
            call(&mut record)
        };
        Box::pin(std::future::ready(answer))
    }
}

impl Record {
    fn standing(&self) -> Standing {
        Standing {
            revision: self.revision,
            running: self.running.keys().copied().collect(),
        }
    }
}

impl WorkQueue for FakeQueue {
    fn register(&self, _who: Introduction, entry: Entry) -> Answer<'_, Standing> {
        self.call(|record| {
            record.revision += 1;
            record.forgot = false;
            record.entries.push(entry);
            if entry == Entry::Anew {
                let released = std::mem::take(&mut record.running);
                record
                    .waiting
                    .extend(released.into_values().map(|mut task| {
                        task.attempt += 1;
                        task
                    }));
            }
            Ok(record.standing())
        })
    }

    fn standing(&self, _worker: &WorkerId) -> Answer<'_, Option<Standing>> {
        self.call(|record| Ok((record.revision > 0).then(|| record.standing())))
    }

    fn heartbeat(&self, _worker: &WorkerId, _leaving: bool) -> Answer<'_, Standing> {
        self.call(|record| {
            if record.forgot {
                return Err(QueueError::Unknown);
            }
            Ok(record.standing())
        })
    }

    fn claim(&self, _worker: &WorkerId, wait: Duration) -> Answer<'_, Option<Assignment>> {
        let queue = self.clone();
        Box::pin(async move {
            let until = tokio::time::Instant::now() + wait;
            loop {
                let mut late = false;
                let claimed = queue.call(|record| {
                    let Some(task) = record.waiting.pop_front() else {
                        return Ok(None);
                    };
                    record.running.insert(task.task, task.clone());
                    if record.lost_answers > 0 {
                        record.lost_answers -= 1;
                        return Err(QueueError::Away("the answer was lost".to_owned()));
                    }
                    late = record.late_answers > 0;
                    record.late_answers = record.late_answers.saturating_sub(1);
                    Ok(Some(task))
                });
                let claimed = claimed.await?;
                if late {
                    tokio::time::sleep(LATE).await;
                }
                if claimed.is_some() || tokio::time::Instant::now() >= until {
                    return Ok(claimed);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    fn assignment(&self, task: TaskId) -> Answer<'_, Option<Assignment>> {
        self.call(|record| Ok(record.running.get(&task).cloned()))
    }

    fn report(
        &self,
        _worker: &WorkerId,
        task: TaskId,
        attempt: u32,
        end: ReportedEnd,
    ) -> Answer<'_, ()> {
        self.call(|record| {
            let held = record.running.get(&task);
            if held.is_none_or(|held| held.attempt != attempt) {
                return Err(QueueError::Refused("it is not yours".to_owned()));
            }
            record.running.remove(&task);
            record.reports.push((task, attempt, end));
            Ok(())
        })
    }

    fn log(
        &self,
        _worker: &WorkerId,
        _task: TaskId,
        _attempt: u32,
        lines: Vec<NewLogEntry>,
    ) -> Answer<'_, ()> {
        self.call(|record| {
            record
                .lines
                .extend(lines.into_iter().map(|line| line.message));
            Ok(())
        })
    }
}

/// A worker among fakes.
struct Stage {
    world: FakeWorld,
    queue: FakeQueue,
    root: tempfile::TempDir,
    drain: CancellationToken,
    doing: Option<watch::Receiver<Vec<TaskId>>>,
}

impl Stage {
    async fn new() -> Self {
        Self {
            world: FakeWorld::start(Config::default()).await,
            queue: FakeQueue::default(),
            root: tempfile::tempdir().unwrap(),
            drain: CancellationToken::new(),
            doing: None,
        }
    }

    fn start(&mut self, parallel: u32) -> JoinHandle<Ended> {
        let read = |task: &Value| {
            let name = TaskName::parse(task["name"].as_str().unwrap()).unwrap();
            let mut spec = spec();
            for (label, value) in task["labels"].as_object().unwrap() {
                let value = value.as_str().unwrap().to_owned();
                spec.labels.insert(label.clone(), value);
            }
            if task.get("refused").is_some() {
                return Err(vec!["/refused: it is".to_owned()]);
            }
            Ok((name, spec))
        };
        let runs = Runs::new(
            self.world.control.clone(),
            Arc::new(read),
            self.root.path().to_owned(),
            1000,
        );
        let process = json!({"spec": {"process": {"command": ["x"]}}});
        let refused = json!({"spec": {"process": {"command": ["x"]}}, "refused": true});
        let one = |pattern: &str, task| Template::new(vec![pattern.to_owned()], task, None);
        let templates = Templates::new(vec![
            one("refused", refused).unwrap(),
            one("p", process).unwrap(),
        ]);
        let worker = Worker {
            who: Introduction {
                id: WorkerId::numbered(1),
                backend_type: "kind".to_owned(),
                parallel,
                problems: Vec::new(),
                metadata: Json::empty_object(),
            },
            queue: Arc::new(self.queue.clone()),
            runs,
            templates: Arc::new(templates),
            habits: Habits {
                heartbeat: Duration::from_secs(1),
                poll: Duration::from_millis(500),
                claim_wait: Duration::from_secs(2),
            },
            registered: None,
        };
        self.drain = CancellationToken::new();
        let (doing, seen) = watch::channel(Vec::new());
        self.doing = Some(seen);
        let orders = Orders {
            drain: self.drain.clone(),
            doing,
        };
        tokio::spawn(async move { worker.work(&orders).await })
    }

    fn submit(&self, number: u128, problem: &str) -> TaskId {
        let task = TaskId::from_u128(number << 80);
        self.queue.0.lock().waiting.push_back(Assignment {
            task,
            attempt: 1,
            problem: problem.to_owned(),
            parameters: Json::of(&json!({"a": 1})),
            time_limit: Duration::from_secs(60),
        });
        task
    }

    fn run(&self, task: TaskId, attempt: u32) -> Option<Arc<taskwright_model::Task>> {
        self.world.control.get(&key(task, attempt))
    }

    async fn until_runs(&self, task: TaskId, attempt: u32) {
        let runs = |_: &FakeWorld| {
            self.run(task, attempt)
                .is_some_and(|run| matches!(run.state, TaskState::Running { .. }))
        };
        self.world.until("it runs", runs).await;
    }

    fn exit(&self, task: TaskId, attempt: u32, code: u8) {
        self.world.exit(self.run(task, attempt).unwrap().id, code);
    }

    async fn until_reported(&self, task: TaskId) -> (u32, ReportedEnd) {
        let found = || {
            let record = self.queue.0.lock();
            let found = record.reports.iter().find(|(one, _, _)| *one == task);
            found.map(|(_, attempt, end)| (*attempt, end.clone()))
        };
        self.world
            .until("it is reported", |_| found().is_some())
            .await;
        found().unwrap()
    }

    async fn until_clear(&self, task: TaskId, attempt: u32) {
        let name = run_name(task, attempt);
        let clear = |_: &FakeWorld| {
            self.run(task, attempt).is_none() && !self.root.path().join(&name).exists()
        };
        self.world.until("nothing is left", clear).await;
    }
}

fn key(task: TaskId, attempt: u32) -> TaskKey {
    Runs::named(&run_name(task, attempt)).unwrap()
}

fn cause(end: &ReportedEnd) -> Cause {
    match end {
        ReportedEnd::Failed { cause, .. } => *cause,
        ReportedEnd::Completed { .. } => panic!("it was completed"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_run_and_reported() {
    let mut stage = Stage::new().await;
    let task = stage.submit(1, "p");
    let worker = stage.start(1);
    stage.until_runs(task, 1).await;
    let folder = stage.root.path().join(run_name(task, 1));
    assert!(folder.join("parameters.json").exists());
    std::fs::write(folder.join("result.json"), r#"{"x":1}"#).unwrap();
    let outputs = &stage.world.outputs;
    outputs.print(
        &key(task, 1),
        taskwright_control::port::Stream::Stdout,
        b"one\ntwo",
    );
    stage.exit(task, 1, 0);
    let (attempt, end) = stage.until_reported(task).await;
    assert_eq!(attempt, 1);
    let result = Json::of(&json!({"x": 1}));
    assert_eq!(end, ReportedEnd::Completed { result });
    assert_eq!(stage.queue.0.lock().lines, ["one", "two"]);
    stage.until_clear(task, 1).await;
    stage.drain.cancel();
    assert_eq!(worker.await.unwrap(), Ended::Drained);
}

#[tokio::test(start_paused = true)]
async fn as_many_as_it_may_run_beside_each_other() {
    let mut stage = Stage::new().await;
    let tasks: Vec<TaskId> = (1..=3).map(|n| stage.submit(n, "p")).collect();
    let _worker = stage.start(2);
    stage.until_runs(tasks[0], 1).await;
    stage.until_runs(tasks[1], 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(stage.run(tasks[2], 1).is_none());
    stage.exit(tasks[0], 1, 0);
    stage.until_runs(tasks[2], 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_started_is_the_machines_failure() {
    let mut stage = Stage::new().await;
    let refused = stage.submit(1, "refused");
    let unknown = stage.submit(2, "unknown");
    let _worker = stage.start(1);
    for task in [refused, unknown] {
        let (_, end) = stage.until_reported(task).await;
        assert_eq!(cause(&end), Cause::Infrastructure);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_taken_up() {
    let mut stage = Stage::new().await;
    stage.queue.0.lock().lost_answers = 1;
    let task = stage.submit(1, "p");
    let _worker = stage.start(1);
    stage.until_runs(task, 1).await;
    stage.exit(task, 1, 3);
    let (_, end) = stage.until_reported(task).await;
    assert_eq!(cause(&end), Cause::Reported);
}

/// As a connection has it that was cut for a while: what was answered in it comes once it is healed.
#[tokio::test(start_paused = true)]
async fn a_task_that_was_taken_up_is_not_begun_again_by_a_late_answer() {
    let mut stage = Stage::new().await;
    stage.queue.0.lock().late_answers = 1;
    let task = stage.submit(1, "p");
    let _worker = stage.start(2);
    stage.until_runs(task, 1).await;
    stage.exit(task, 1, 0);
    stage.until_reported(task).await;
    stage.until_clear(task, 1).await;
    let next = stage.submit(2, "p");
    stage.until_runs(next, 1).await;
    let over = tokio::time::Instant::now() + LATE * 2;
    while tokio::time::Instant::now() < over {
        assert!(stage.run(task, 1).is_none(), "it was begun again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stage.exit(next, 1, 0);
    stage.until_reported(next).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_away_is_stopped_and_not_reported() {
    let mut stage = Stage::new().await;
    let task = stage.submit(1, "p");
    let _worker = stage.start(1);
    stage.until_runs(task, 1).await;
    stage.queue.0.lock().running.clear();
    stage.until_clear(task, 1).await;
    assert!(stage.queue.0.lock().reports.is_empty());
    // It takes the next one.
    let next = stage.submit(2, "p");
    stage.until_runs(next, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_away_gets_its_report_later() {
    let mut stage = Stage::new().await;
    let task = stage.submit(1, "p");
    let _worker = stage.start(1);
    stage.until_runs(task, 1).await;
    stage.queue.0.lock().away = 12;
    stage.exit(task, 1, 0);
    let (attempt, _) = stage.until_reported(task).await;
    assert_eq!(attempt, 1);
    assert_eq!(stage.queue.0.lock().away, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_reach_its_queue_ends_when_it_is_told() {
    let mut stage = Stage::new().await;
    stage.queue.0.lock().away = u32::MAX;
    let worker = stage.start(1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!worker.is_finished());
    stage.drain.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), worker).await;
    assert!(matches!(ended.unwrap().unwrap(), Ended::Drained));
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_back_goes_on() {
    let mut stage = Stage::new().await;
    let (first, second) = (stage.submit(1, "p"), stage.submit(2, "p"));
    let worker = stage.start(2);
    stage.until_runs(first, 1).await;
    stage.until_runs(second, 1).await;
    worker.abort();
    let _ended = worker.await;
    // One was given to somebody else meanwhile, and one was claimed and never begun.
    let third = stage.submit(3, "p");
    {
        let mut record = stage.queue.0.lock();
        record.running.remove(&second);
        let claimed = record.waiting.pop_front().unwrap();
        record.running.insert(third, claimed);
    }
    let _again = stage.start(2);
    stage.until_clear(second, 1).await;
    stage.until_runs(third, 1).await;
    assert_eq!(stage.queue.0.lock().entries, [Entry::Anew, Entry::Resumed]);
    stage.exit(first, 1, 0);
    let (attempt, _) = stage.until_reported(first).await;
    assert_eq!(attempt, 1);
    let starts = stage.world.strategies.starts().len();
    assert_eq!(starts, 3, "the first one was started once");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_forgot_the_worker_is_told_again() {
    let mut stage = Stage::new().await;
    let task = stage.submit(1, "p");
    let _worker = stage.start(1);
    stage.until_runs(task, 1).await;
    {
        let mut record = stage.queue.0.lock();
        record.forgot = true;
        record.running.clear();
    }
    stage.until_clear(task, 1).await;
    let next = stage.submit(2, "p");
    stage.until_runs(next, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_left() {
    let mut stage = Stage::new().await;
    let task = stage.submit(1, "p");
    let worker = stage.start(1);
    stage.until_runs(task, 1).await;
    stage.queue.0.lock().revision += 1;
    assert_eq!(worker.await.unwrap(), Ended::NameTaken);
}

#[tokio::test(start_paused = true)]
async fn told_to_end_it_finishes_what_it_holds() {
    let mut stage = Stage::new().await;
    let task = stage.submit(1, "p");
    let worker = stage.start(1);
    stage.until_runs(task, 1).await;
    stage.drain.cancel();
    let later = stage.submit(2, "p");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!worker.is_finished());
    stage.exit(task, 1, 0);
    assert_eq!(worker.await.unwrap(), Ended::Drained);
    assert!(stage.run(later, 1).is_none());
    let doing = stage.doing.as_ref().unwrap().borrow().clone();
    assert!(doing.is_empty());
}
