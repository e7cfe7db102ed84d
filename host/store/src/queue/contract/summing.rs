//! The sums that are kept are those of a recount, whatever was done in between.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use taskwright_queue::port::{TaskKeyed, TaskOrder, TaskQuery};
use taskwright_queue::stats::{Counts, WorkerCounts};
use taskwright_queue::{Cause, ProblemId, QueuedTask, TaskStatus, WorkerId};

use super::{Stage, on_both};

on_both! {
    sums_are_those_of_a_recount
}

/// One thing that happens to a queue. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Queue { problem: u8, tries: u32 },
    Register { worker: u8 },
    Beat { worker: u8, leaving: bool },
    Leave { worker: u8 },
    Claim { worker: u8 },
    Complete { task: u8 },
    Fail { task: u8, infrastructure: bool },
    Cancel { task: u8 },
    Wait { seconds: u16 },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, 1..3_u32).prop_map(|(problem, tries)| Step::Queue { problem, tries }),
        2 => (0..3_u8).prop_map(|worker| Step::Register { worker }),
        1 => (0..3_u8, any::<bool>()).prop_map(|(worker, leaving)| Step::Beat { worker, leaving }),
        1 => (0..3_u8).prop_map(|worker| Step::Leave { worker }),
        6 => (0..3_u8).prop_map(|worker| Step::Claim { worker }),
        3 => any::<u8>().prop_map(|task| Step::Complete { task }),
        2 => (any::<u8>(), any::<bool>())
            .prop_map(|(task, infrastructure)| Step::Fail { task, infrastructure }),
        1 => any::<u8>().prop_map(|task| Step::Cancel { task }),
        1 => (1..2000_u16).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Sweep),
    ]
}

async fn sums_are_those_of_a_recount(stage: Stage) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for _ in 0..20 {
        let steps = prop::collection::vec(step(), 1..40);
        let steps = steps.new_tree(&mut runner).unwrap().current();
        for step in &steps {
            play(&stage, step).await;
        }
        recount(&stage).await;
    }
    let counts = stage.store.counts().await.unwrap();
    for status in TaskStatus::ALL {
        assert!(
            counts.of(status) > 0 || status == TaskStatus::Running,
            "{counts:?} tells little"
        );
    }
}

/// Does it. That it is refused is no fault: a refusal must not be counted either.
async fn play(stage: &Stage, step: &Step) {
    let worker = |number: u8| WorkerId::numbered(number.into());
    match *step {
        Step::Queue { problem, tries } => {
            let change = |task: &mut taskwright_queue::NewTask| {
                task.problem_id = ProblemId::parse(&format!("problem-{problem}")).unwrap();
                task.tries.failures = tries;
                task.time_limit = Duration::from_secs(40);
            };
            stage.queue(change).await;
        }
        Step::Register { worker } => {
            let many = |worker: &mut taskwright_queue::port::NewWorker| {
                worker.capabilities.max_parallel = 2;
            };
            stage.register(worker.into(), many).await;
        }
        Step::Beat {
            worker: number,
            leaving,
        } => {
            let heartbeat = taskwright_queue::port::Heartbeat {
                worker: worker(number),
                leaving,
                lease: super::LEASE,
            };
            drop(stage.store.heartbeat(heartbeat).await);
        }
        Step::Leave { worker: number } => drop(stage.store.deregister(worker(number)).await),
        Step::Claim { worker: number } => {
            let claim = taskwright_queue::port::Claim {
                worker: worker(number),
                lease: super::LEASE,
            };
            drop(stage.store.claim(claim).await);
        }
        Step::Complete { task } => {
            if let Some((task, worker)) = running(stage, task).await {
                drop(stage.complete(&worker, &task, "{}").await);
            }
        }
        Step::Fail {
            task,
            infrastructure,
        } => {
            let cause = match infrastructure {
                true => Cause::Infrastructure,
                false => Cause::Reported,
            };
            if let Some((task, worker)) = running(stage, task).await {
                drop(stage.fail(&worker, &task, "it burnt", cause).await);
            }
        }
        Step::Cancel { task } => {
            let all = all(stage).await;
            let place = usize::from(task) % all.len().max(1);
            if let Some(task) = all.get(place) {
                drop(stage.store.cancel(task.id).await);
            }
        }
        Step::Wait { seconds } => stage.clock.pass(Duration::from_secs(seconds.into())),
        Step::Sweep => drop(stage.store.sweep().await.unwrap()),
    }
}

async fn running(stage: &Stage, number: u8) -> Option<(QueuedTask, WorkerId)> {
    let all = all(stage).await;
    let held: Vec<_> = all
        .into_iter()
        .filter(|task| task.status == TaskStatus::Running)
        .collect();
    let place = usize::from(number) % held.len().max(1);
    let task = held.get(place)?.clone();
    let worker = task.worker.clone()?;
    Some((task, worker))
}

fn every() -> TaskQuery {
    TaskQuery {
        status: None,
        problem: None,
        worker: None,
        order: TaskOrder {
            by: TaskKeyed::CreatedAt,
            descending: false,
        },
        offset: 0,
        most: 10_000,
        count: true,
    }
}

async fn all(stage: &Stage) -> Vec<QueuedTask> {
    list(stage, every()).await
}

async fn list(stage: &Stage, query: TaskQuery) -> Vec<QueuedTask> {
    let page = stage.store.tasks(query.clone()).await.unwrap();
    let listed = Some(page.tasks.len() as u64);
    assert_eq!(page.total, listed, "the total of {query:?}");
    page.tasks
}

/// Counts everything again and compares it with the sums that are kept.
pub(super) async fn recount(stage: &Stage) {
    let tasks = all(stage).await;
    let mut counts = Counts::default();
    let (mut problems, mut workers) = (BTreeMap::new(), BTreeMap::new());
    let (mut waited, mut ran) = (Vec::new(), Vec::new());
    for task in &tasks {
        counts.set(task.status, counts.of(task.status) + 1);
        *problems
            .entry(task.problem_id.as_str().to_owned())
            .or_insert(0_u64) += 1;
        if let Some(worker) = &task.worker {
            *workers.entry(worker.as_str().to_owned()).or_insert(0_u64) += 1;
        }
        let told = matches!(task.status, TaskStatus::Running | TaskStatus::Completed);
        if let (true, Some(started)) = (told, task.started_at) {
            waited.push(started.since(task.created_at).as_secs_f64());
        }
        if let (TaskStatus::Completed, Some(started), Some(ended)) =
            (task.status, task.started_at, task.completed_at)
        {
            ran.push(ended.since(started).as_secs_f64());
        }
    }
    let store = &stage.store;
    assert_eq!(store.counts().await.unwrap(), counts);
    let stats = store.task_stats().await.unwrap();
    assert_eq!(stats.counts, counts);
    assert_eq!(
        stats.by_problem.into_iter().collect::<BTreeMap<_, _>>(),
        problems
    );
    assert_eq!(
        stats.by_worker.into_iter().collect::<BTreeMap<_, _>>(),
        workers
    );
    for status in TaskStatus::ALL {
        let status = Some(status);
        list(stage, TaskQuery { status, ..every() }).await;
    }
    for worker in 0..4 {
        let worker = Some(WorkerId::numbered(worker));
        list(stage, TaskQuery { worker, ..every() }).await;
    }
    near(stats.average_wait, &waited);
    near(stats.average_execution, &ran);

    let mut states = WorkerCounts::default();
    for worker in store.workers(1000).await.unwrap() {
        let status = worker.status(store.now());
        states.set(status, states.of(status) + 1);
    }
    assert_eq!(store.worker_counts().await.unwrap(), states);
}

fn near(told: Option<f64>, values: &[f64]) {
    let average = (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    match (told, average) {
        (Some(told), Some(average)) => assert!((told - average).abs() < 1e-6, "{told} {average}"),
        (told, average) => assert_eq!(told, average),
    }
}
