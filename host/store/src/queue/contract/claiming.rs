//! Who gets which task.

use std::collections::HashSet;
use std::time::Duration;

use taskwright_model::Timestamp;
use taskwright_queue::port::{Claim, Claimed, Entry, NAME_KEPT, StoreError};
use taskwright_queue::{ProblemId, TaskStatus, WorkerId, WorkerStatus};

use super::{LEASE, Stage, on_both};

on_both! {
    the_highest_priority_comes_first_and_of_those_the_oldest
    a_task_for_one_kind_is_given_to_no_other
    patterns_restrict_what_a_worker_gets
    what_a_worker_takes_is_found_behind_all_else
    workers_after_the_same_problem_all_get_of_it
    a_worker_holds_as_many_as_it_can
    no_task_is_given_twice
    an_unknown_worker_gets_nothing
    whoever_leaves_or_comes_anew_while_it_claims_keeps_nothing
    what_is_paused_is_told_and_comes_later
    a_claim_keeps_its_worker_alive
    a_name_is_taken_kept_and_resumed
}

async fn the_highest_priority_comes_first_and_of_those_the_oldest(stage: Stage) {
    let worker = stage
        .register(1, |worker| worker.capabilities.max_parallel = 10)
        .await;
    let mut expected = Vec::new();
    for priority in [2.5, 10.0, -3.0, 10.0, 0.0] {
        expected.push((
            priority,
            stage.queue(|task| task.priority = priority).await.id,
        ));
        stage.clock.pass(Duration::from_millis(1));
    }
    expected.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    for (priority, id) in expected {
        let task = stage.claim(&worker).await.unwrap();
        assert_eq!((task.priority, task.id), (priority, id));
        assert_eq!(task.status, TaskStatus::Running);
        assert_eq!(task.worker.as_ref(), Some(&worker));
        assert_eq!(task.attempt, 1);
        assert_eq!(task.started_at.unwrap(), stage.store.now());
        assert_eq!(
            task.deadline.unwrap(),
            stage.store.now().plus(Duration::from_secs(1800))
        );
    }
    assert!(matches!(
        stage.claimed(&worker).await,
        Claimed::Nothing { next: None }
    ));
}

async fn whoever_leaves_or_comes_anew_while_it_claims_keeps_nothing(stage: Stage) {
    for round in 0..40_u16 {
        let worker = stage.register(1, |_| {}).await;
        stage.queue(|task| task.tries.losses = 100).await;
        let claim = Claim {
            worker: worker.clone(),
            lease: LEASE,
        };
        if round % 2 == 0 {
            let leaving = stage.store.deregister(worker.clone());
            let (_, left) = tokio::join!(stage.store.claim(claim), leaving);
            left.unwrap();
        } else {
            let anew = stage.try_register(1, Entry::Anew);
            let (claimed, registered) = tokio::join!(stage.store.claim(claim), anew);
            let registered = registered.unwrap();
            // What was claimed by its new life is its own.
            let held = registered.worker.running.len();
            let later = matches!(claimed, Ok(Claimed::Task(_))) && registered.released.is_empty();
            assert!(held == 0 || later, "{registered:?}");
            stage.store.deregister(worker.clone()).await.unwrap();
        }
        let counts = stage.store.counts().await.unwrap();
        assert_eq!(counts.of(TaskStatus::Running), 0, "round {round}");
        // Those that were let go wait a little.
        stage.clock.pass(Duration::from_secs(120));
    }
}

async fn a_task_for_one_kind_is_given_to_no_other(stage: Stage) {
    let kind = stage
        .register(1, |worker| worker.capabilities.max_parallel = 9)
        .await;
    let other = stage
        .register(2, |worker| {
            worker.backend_type = "gpu".to_owned();
            worker.capabilities.max_parallel = 9;
        })
        .await;
    let bound = stage
        .queue(|task| {
            task.backend_type = Some("gpu".to_owned());
            task.priority = 9.0;
        })
        .await;
    let free = stage.queue(|_| {}).await;
    assert_eq!(stage.claim(&kind).await.unwrap().id, free.id);
    assert!(stage.claim(&kind).await.is_none());
    let free = stage.queue(|task| task.priority = 10.0).await;
    assert_eq!(stage.claim(&other).await.unwrap().id, free.id);
    assert_eq!(stage.claim(&other).await.unwrap().id, bound.id);
}

async fn patterns_restrict_what_a_worker_gets(stage: Stage) {
    let problem = |id: &str| ProblemId::parse(id).unwrap();
    let globs = stage
        .register(1, |worker| {
            worker.capabilities.max_parallel = 9;
            worker.capabilities.problems = vec!["test-*".to_owned(), "misconfig".to_owned()];
        })
        .await;
    stage
        .queue(|task| task.problem_id = problem("other-1"))
        .await;
    let part = stage
        .queue(|task| task.problem_id = problem("k8s-misconfig-9"))
        .await;
    let glob = stage
        .queue(|task| {
            task.problem_id = problem("test-5");
            task.priority = 7.0;
        })
        .await;
    assert_eq!(stage.claim(&globs).await.unwrap().id, glob.id);
    assert_eq!(stage.claim(&globs).await.unwrap().id, part.id);
    assert!(stage.claim(&globs).await.is_none());
    // Registered anew it takes everything.
    stage
        .register(1, |worker| worker.capabilities.max_parallel = 9)
        .await;
    assert_eq!(
        stage.claim(&globs).await.unwrap().problem_id,
        problem("other-1")
    );
}

async fn a_worker_holds_as_many_as_it_can(stage: Stage) {
    let worker = stage
        .register(1, |worker| worker.capabilities.max_parallel = 2)
        .await;
    for _ in 0..4 {
        stage.queue(|_| {}).await;
    }
    let first = stage.claim(&worker).await.unwrap();
    let second = stage.claim(&worker).await.unwrap();
    assert!(matches!(stage.claimed(&worker).await, Claimed::Full));
    let known = stage.store.worker(worker.clone()).await.unwrap().unwrap();
    assert_eq!(known.running, [first.id, second.id]);
    assert_eq!(known.status(stage.store.now()), WorkerStatus::Busy);
    stage.complete(&worker, &first, "{}").await.unwrap();
    let third = stage.claim(&worker).await.unwrap();
    stage.store.cancel(second.id).await.unwrap();
    assert!(
        stage.claim(&worker).await.is_some(),
        "a cancelled task frees its place"
    );
    stage.complete(&worker, &third, "{}").await.unwrap();
    assert!(stage.claim(&worker).await.is_none());
}

async fn no_task_is_given_twice(stage: Stage) {
    const TASKS: usize = 120;
    for _ in 0..TASKS {
        stage.queue(|_| {}).await;
    }
    let mut claiming = Vec::new();
    for number in 0..12 {
        // Each worker asks by several claims at a time, and holds no more than it can.
        let worker = stage
            .register(number, |worker| worker.capabilities.max_parallel = 5)
            .await;
        for _ in 0..3 {
            let (store, worker) = (stage.store.clone(), worker.clone());
            claiming.push(tokio::spawn(async move {
                let mut got = Vec::new();
                for _ in 0..5 {
                    let claim = Claim {
                        worker: worker.clone(),
                        lease: LEASE,
                    };
                    if let Claimed::Task(task) = store.claim(claim).await.unwrap() {
                        got.push(task.id);
                    }
                }
                got
            }));
        }
    }
    let mut all = Vec::new();
    for claims in claiming {
        all.extend(claims.await.unwrap());
    }
    let distinct: HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "a task was given twice");
    assert_eq!(all.len(), 60, "each worker holds five");
    for worker in stage.store.workers(100).await.unwrap() {
        assert_eq!(worker.running.len(), 5, "{}", worker.id);
    }
}

async fn an_unknown_worker_gets_nothing(stage: Stage) {
    stage.queue(|_| {}).await;
    let claim = Claim {
        worker: WorkerId::numbered(9),
        lease: LEASE,
    };
    let refused = stage.store.claim(claim).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchWorker(_)), "{refused}");
}

async fn what_is_paused_is_told_and_comes_later(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    stage.queue(|task| task.tries.failures = 2).await;
    let task = stage.claim(&worker).await.unwrap();
    let again = stage
        .fail(&worker, &task, "boom", taskwright_queue::Cause::Reported)
        .await
        .unwrap();
    assert_eq!(again.status, TaskStatus::Pending);
    let Claimed::Nothing { next: Some(next) } = stage.claimed(&worker).await else {
        panic!("it is paused");
    };
    assert_eq!(next, again.not_before);
    assert!(next > stage.store.now());
    stage.clock.pass(next.since(stage.store.now()));
    let second = stage.claim(&worker).await.unwrap();
    assert_eq!((second.id, second.attempt), (task.id, 2));
}

async fn a_claim_keeps_its_worker_alive(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    stage.clock.pass(LEASE * 2);
    let known = stage.store.worker(worker.clone()).await.unwrap().unwrap();
    assert_eq!(known.status(stage.store.now()), WorkerStatus::Offline);
    stage.queue(|_| {}).await;
    assert!(stage.claim(&worker).await.is_some());
    let known = stage.store.worker(worker.clone()).await.unwrap().unwrap();
    assert_eq!(known.status(stage.store.now()), WorkerStatus::Busy);
    assert!(known.alive_until > Timestamp::from_millis(0));
    assert!(stage.store.sweep().await.unwrap().requeued.is_empty());
}

async fn a_name_is_taken_kept_and_resumed(stage: Stage) {
    let worker = stage
        .register(1, |worker| worker.entry = Entry::Fresh)
        .await;
    let task = stage.queue(|_| {}).await.id;
    stage.claim(&worker).await.unwrap();
    // Nobody else gets the name, silent or not, for a day.
    stage.clock.pass(NAME_KEPT);
    let taken = stage.try_register(1, Entry::Fresh).await;
    assert!(matches!(taken, Err(StoreError::Conflict(_))), "{taken:?}");
    // Whoever knows of its tasks keeps them.
    let resumed = stage.try_register(1, Entry::Resumed).await.unwrap();
    assert_eq!(
        (resumed.worker.revision, resumed.worker.running),
        (2, vec![task])
    );
    assert!(resumed.released.is_empty());
    stage.clock.pass(NAME_KEPT + LEASE);
    let fresh = stage.try_register(1, Entry::Fresh).await.unwrap();
    assert_eq!((fresh.worker.revision, fresh.released), (3, vec![task]));
    let task = stage.store.task(task).await.unwrap().unwrap();
    assert_eq!(task.status, TaskStatus::Pending);
}

async fn what_a_worker_takes_is_found_behind_all_else(stage: Stage) {
    let problem = |id: &str| ProblemId::parse(id).unwrap();
    for _ in 0..150 {
        stage.queue(|task| task.priority = 9.0).await;
    }
    let other = |priority: f64| {
        move |task: &mut taskwright_queue::NewTask| {
            task.problem_id = problem("far-behind");
            task.priority = priority;
        }
    };
    stage.queue(other(1.0)).await;
    let best = stage.queue(other(2.0)).await;
    let worker = stage
        .register(1, |worker| {
            worker.capabilities.max_parallel = 3;
            worker.capabilities.problems = vec!["far-*".to_owned()];
        })
        .await;
    assert_eq!(stage.claim(&worker).await.unwrap().id, best.id);
    assert_eq!(stage.claim(&worker).await.unwrap().priority, 1.0);
    assert!(stage.claim(&worker).await.is_none());
    // What it takes comes to be among the first.
    let first = stage.queue(other(10.0)).await;
    assert_eq!(stage.claim(&worker).await.unwrap().id, first.id);
}

async fn workers_after_the_same_problem_all_get_of_it(stage: Stage) {
    let mut claiming = Vec::new();
    for _ in 0..40 {
        stage.queue(|_| {}).await;
    }
    for number in 0..8 {
        let worker = stage
            .register(number, |worker| {
                worker.capabilities.max_parallel = 5;
                worker.capabilities.problems = vec!["test-*".to_owned()];
            })
            .await;
        let store = stage.store.clone();
        claiming.push(tokio::spawn(async move {
            let mut got = Vec::new();
            for _ in 0..5 {
                let claim = Claim {
                    worker: worker.clone(),
                    lease: LEASE,
                };
                // There is one for each claim: nobody is told that there is nothing.
                match store.claim(claim).await.unwrap() {
                    Claimed::Task(task) => got.push(task.id),
                    other => panic!("{other:?} with tasks left"),
                }
            }
            got
        }));
    }
    let mut all = HashSet::new();
    for claim in claiming {
        for id in claim.await.unwrap() {
            assert!(all.insert(id), "{id} was given twice");
        }
    }
    assert_eq!(all.len(), 40);
}
