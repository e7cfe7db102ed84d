//! How attempts end, and who may say so.

use std::sync::atomic::Ordering;
use std::time::Duration;

use taskwright_queue::port::{Report, ReportedEnd, StoreError};
use taskwright_queue::task::{Idempotency, Tries};
use taskwright_queue::{AttemptEnd, Cause, Json, TaskStatus, WorkerId, WorkerStatus};

use super::{LEASE, Stage, on_both};

on_both! {
    a_result_is_kept_as_it_was_sent
    the_same_report_again_changes_nothing
    only_the_holder_may_report
    a_lost_worker_loses_its_task_and_its_say
    a_task_is_lost_only_so_often
    a_failure_is_tried_again_as_often_as_allowed
    the_time_limit_ends_a_task_and_frees_its_place
    a_worker_that_registers_anew_holds_nothing
    a_task_is_cancelled_once
    a_heartbeat_keeps_the_lease
    a_word_that_was_long_on_its_way_takes_no_lease_back
    a_worker_that_leaves_gives_back_what_it_held
    a_key_makes_one_task
    an_end_waits_to_be_told
}

async fn a_result_is_kept_as_it_was_sent(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    stage.queue(|_| {}).await;
    let task = stage.claim(&worker).await.unwrap();
    stage.clock.pass(Duration::from_secs(3));
    let result = r#"{"success": false, "big": 12345678901234567890, "text": "\u0000é"}"#;
    let done = stage.complete(&worker, &task, result).await.unwrap();
    assert_eq!(done.status, TaskStatus::Completed);
    assert_eq!(done.result.as_ref().unwrap().as_str(), result);
    assert_eq!(done.cause, Some(Cause::Reported));
    assert_eq!(done.completed_at.unwrap(), stage.store.now());
    let attempts = stage.store.attempts(task.id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(
        (attempts[0].end, attempts[0].number),
        (AttemptEnd::Completed, 1)
    );
    let known = stage.store.worker(worker.clone()).await.unwrap().unwrap();
    assert_eq!((known.completed, known.failed), (1, 0));
    assert_eq!(known.status(stage.store.now()), WorkerStatus::Idle);
    let took = stage
        .store
        .worker_stats(worker)
        .await
        .unwrap()
        .average_execution;
    assert_eq!(took, Some(3.0));
}

async fn the_same_report_again_changes_nothing(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    stage.queue(|_| {}).await;
    let task = stage.claim(&worker).await.unwrap();
    let first = stage.complete(&worker, &task, r#"{"a":1}"#).await.unwrap();
    let again = stage.complete(&worker, &task, r#"{"a":1}"#).await.unwrap();
    assert_eq!(again.revision, first.revision);
    let other = stage
        .complete(&worker, &task, r#"{"a":2}"#)
        .await
        .unwrap_err();
    assert!(matches!(other, StoreError::Conflict(_)), "{other}");
    let failed = stage
        .fail(&worker, &task, "no", Cause::Reported)
        .await
        .unwrap_err();
    assert!(matches!(failed, StoreError::Conflict(_)), "{failed}");
    assert_eq!(stage.now(&task).await.revision, first.revision);
    // The same of a failure that is tried again.
    let retried = stage.queue(|task| task.tries.failures = 2).await;
    let task = stage.claim(&worker).await.unwrap();
    assert_eq!(task.id, retried.id);
    let first = stage
        .fail(&worker, &task, "no", Cause::Reported)
        .await
        .unwrap();
    let again = stage
        .fail(&worker, &task, "no", Cause::Reported)
        .await
        .unwrap();
    assert_eq!(
        (first.revision, first.status),
        (again.revision, TaskStatus::Pending)
    );
}

async fn only_the_holder_may_report(stage: Stage) {
    let holder = stage.register(1, |_| {}).await;
    let other = stage.register(2, |_| {}).await;
    let waiting = stage.queue(|task| task.priority = 1.0).await;
    stage.queue(|_| {}).await;
    let task = stage.claim(&holder).await.unwrap();
    let refused = stage.complete(&other, &task, "{}").await.unwrap_err();
    assert!(
        refused.to_string().contains("held by worker-001-kind"),
        "{refused}"
    );
    let refused = stage.complete(&holder, &waiting, "{}").await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");
    let nobody = stage
        .complete(&WorkerId::numbered(9), &task, "{}")
        .await
        .unwrap_err();
    assert!(matches!(nobody, StoreError::NoSuchWorker(_)), "{nobody}");
    let old = Report {
        worker: holder.clone(),
        task: task.id,
        attempt: Some(7),
        end: ReportedEnd::Completed {
            result: Json::empty_object(),
        },
    };
    let refused = stage.store.report(old).await.unwrap_err();
    assert!(refused.to_string().contains("attempt 1"), "{refused}");
    assert_eq!(stage.now(&task).await.status, TaskStatus::Running);
    let known = stage.store.worker(other).await.unwrap().unwrap();
    assert_eq!((known.completed, known.failed), (0, 0));
}

async fn a_lost_worker_loses_its_task_and_its_say(stage: Stage) {
    let silent = stage.register(1, |_| {}).await;
    let next = stage.register(2, |_| {}).await;
    stage.queue(|_| {}).await;
    let first = stage.claim(&silent).await.unwrap();
    stage.clock.pass(LEASE - Duration::from_millis(1));
    let swept = stage.store.sweep().await.unwrap();
    assert!(swept.requeued.is_empty());
    assert_eq!(
        swept.next,
        Some(stage.store.now().plus(Duration::from_millis(1)))
    );
    stage.clock.pass(Duration::from_secs(1));
    let swept = stage.store.sweep().await.unwrap();
    assert_eq!(swept.requeued, [first.id]);
    let waiting = stage.now(&first).await;
    assert_eq!(
        (waiting.status, waiting.worker, waiting.losses),
        (TaskStatus::Pending, None, 1)
    );
    stage.clock.pass(Duration::from_secs(5));
    let second = stage.claim(&next).await.unwrap();
    assert_eq!((second.id, second.attempt), (first.id, 2));
    // What the lost one says late counts for nothing.
    let late = stage
        .complete(&silent, &first, r#"{"late":true}"#)
        .await
        .unwrap_err();
    assert!(matches!(late, StoreError::Conflict(_)), "{late}");
    stage.beat(&silent).await;
    let late = stage
        .fail(&silent, &first, "late", Cause::Reported)
        .await
        .unwrap_err();
    assert!(matches!(late, StoreError::Conflict(_)), "{late}");
    stage
        .complete(&next, &second, r#"{"late":false}"#)
        .await
        .unwrap();
    let attempts = stage.store.attempts(first.id).await.unwrap();
    let ends: Vec<_> = attempts
        .iter()
        .map(|attempt| (attempt.end, attempt.cause))
        .collect();
    assert_eq!(
        ends,
        [
            (AttemptEnd::Lost, Cause::WorkerLost),
            (AttemptEnd::Completed, Cause::Reported)
        ]
    );
}

async fn a_task_is_lost_only_so_often(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let task = stage
        .queue(|task| {
            task.tries = Tries {
                failures: 1,
                losses: 2,
            }
        })
        .await;
    for attempt in 1..=2 {
        stage.beat(&worker).await;
        let claimed = stage.claim(&worker).await.unwrap();
        assert_eq!(claimed.attempt, attempt);
        stage.clock.pass(LEASE * 2);
        stage.store.sweep().await.unwrap();
        stage.clock.pass(Duration::from_secs(60));
    }
    let failed = stage.now(&task).await;
    assert_eq!(
        (failed.status, failed.cause),
        (TaskStatus::Failed, Some(Cause::WorkerLost))
    );
    let error = failed.error.unwrap();
    assert!(error.contains("worker-001-kind was lost"), "{error}");
    let known = stage.store.worker(worker).await.unwrap().unwrap();
    assert_eq!(known.running, []);
}

async fn a_failure_is_tried_again_as_often_as_allowed(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let task = stage.queue(|task| task.tries.failures = 2).await;
    let first = stage.claim(&worker).await.unwrap();
    stage
        .fail(&worker, &first, "boom", Cause::Reported)
        .await
        .unwrap();
    stage.clock.pass(Duration::from_secs(60));
    let second = stage.claim(&worker).await.unwrap();
    let failed = stage
        .fail(&worker, &second, "boom again", Cause::Reported)
        .await
        .unwrap();
    assert_eq!(
        (failed.status, failed.error.as_deref()),
        (TaskStatus::Failed, Some("boom again"))
    );
    assert_eq!(stage.store.attempts(task.id).await.unwrap().len(), 2);
    // What a machine did is no failure of the work.
    stage.queue(|_| {}).await;
    let lost = stage.claim(&worker).await.unwrap();
    let again = stage
        .fail(&worker, &lost, "disk full", Cause::Infrastructure)
        .await
        .unwrap();
    assert_eq!((again.status, again.losses), (TaskStatus::Pending, 1));
}

async fn the_time_limit_ends_a_task_and_frees_its_place(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let task = stage
        .queue(|task| task.time_limit = Duration::from_secs(30))
        .await;
    let claimed = stage.claim(&worker).await.unwrap();
    stage.clock.pass(Duration::from_secs(29));
    assert!(stage.store.sweep().await.unwrap().timed_out.is_empty());
    stage.clock.pass(Duration::from_secs(1));
    assert_eq!(stage.store.sweep().await.unwrap().timed_out, [task.id]);
    let late = stage.now(&task).await;
    assert_eq!(
        (late.status, late.cause),
        (TaskStatus::Timeout, Some(Cause::TimeLimit))
    );
    assert!(late.error.unwrap().contains("0.5 minutes"));
    assert!(stage.complete(&worker, &claimed, "{}").await.is_err());
    let known = stage.store.worker(worker.clone()).await.unwrap().unwrap();
    assert_eq!((known.running.len(), known.failed), (0, 1));
    stage.queue(|_| {}).await;
    assert!(stage.claim(&worker).await.is_some());
}

async fn a_worker_that_registers_anew_holds_nothing(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    stage.queue(|_| {}).await;
    let task = stage.claim(&worker).await.unwrap();
    stage.complete(&worker, &task, "{}").await.unwrap();
    stage.queue(|_| {}).await;
    let task = stage.claim(&worker).await.unwrap();
    stage.clock.pass(Duration::from_secs(1));
    stage
        .register(1, |worker| worker.backend_type = "new".to_owned())
        .await;
    let waiting = stage.now(&task).await;
    assert_eq!((waiting.status, waiting.losses), (TaskStatus::Pending, 1));
    let known = stage.store.worker(worker.clone()).await.unwrap().unwrap();
    assert_eq!(known.backend_type, "new");
    assert_eq!(known.completed, 1, "counters are kept");
    assert!(known.registered_at < known.last_heartbeat);
    assert!(stage.complete(&worker, &task, "{}").await.is_err());
}

async fn a_task_is_cancelled_once(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let waiting = stage.queue(|task| task.priority = 0.0).await;
    let cancelled = stage.store.cancel(waiting.id).await.unwrap();
    assert_eq!(
        (cancelled.status, cancelled.worker),
        (TaskStatus::Cancelled, None)
    );
    assert_eq!((cancelled.started_at, cancelled.error), (None, None));
    assert!(cancelled.completed_at.is_some());
    let twice = stage.store.cancel(waiting.id).await.unwrap_err();
    assert!(twice.to_string().contains("cancelled already"), "{twice}");
    stage.queue(|_| {}).await;
    let running = stage.claim(&worker).await.unwrap();
    let cancelled = stage.store.cancel(running.id).await.unwrap();
    assert_eq!(cancelled.worker.as_ref(), Some(&worker));
    assert!(stage.complete(&worker, &running, "{}").await.is_err());
    assert!(stage.beat(&worker).await.running.is_empty());
    let nobody = taskwright_model::TaskId::from_u128(1);
    let unknown = stage.store.cancel(nobody).await.unwrap_err();
    assert!(matches!(unknown, StoreError::NoSuchTask(_)), "{unknown}");
}

async fn a_word_that_was_long_on_its_way_takes_no_lease_back(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    stage.queue(|_| {}).await;
    stage.claim(&worker).await.unwrap();
    stage.clock.pass(LEASE / 6 * 5);
    let alive_until = stage.beat(&worker).await.alive_until;
    // A daemon stood still with an earlier one in its hands.
    let late = i64::try_from((LEASE / 6 * 4).as_millis()).unwrap();
    stage.clock.0.fetch_sub(late, Ordering::SeqCst);
    let heard = stage.beat(&worker).await;
    assert_eq!(heard.alive_until, alive_until);
    stage.clock.0.fetch_add(late, Ordering::SeqCst);
    stage.clock.pass(LEASE / 2);
    assert!(stage.store.sweep().await.unwrap().requeued.is_empty());
}

async fn a_heartbeat_keeps_the_lease(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    stage.queue(|_| {}).await;
    let task = stage.claim(&worker).await.unwrap();
    for _ in 0..4 {
        stage.clock.pass(LEASE / 2);
        assert_eq!(stage.beat(&worker).await.running, [task.id]);
        assert!(stage.store.sweep().await.unwrap().requeued.is_empty());
    }
    stage.complete(&worker, &task, "{}").await.unwrap();
}

async fn a_worker_that_leaves_gives_back_what_it_held(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    stage.queue(|_| {}).await;
    let task = stage.claim(&worker).await.unwrap();
    assert_eq!(
        stage.store.deregister(worker.clone()).await.unwrap(),
        [task.id]
    );
    assert!(stage.store.worker(worker.clone()).await.unwrap().is_none());
    assert_eq!(stage.now(&task).await.status, TaskStatus::Pending);
    assert!(stage.store.deregister(worker).await.is_err());
}

async fn a_key_makes_one_task(stage: Stage) {
    let key = |fingerprint: &str| {
        Some(Idempotency {
            key: "k".to_owned(),
            fingerprint: fingerprint.to_owned(),
        })
    };
    let mut first = stage.new_task();
    first.idempotency = key("a");
    let first = stage.store.create(first).await.unwrap();
    assert!(!first.repeated);
    let mut again = stage.new_task();
    again.idempotency = key("a");
    let again = stage.store.create(again).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.task.id, first.task.id);
    let mut other = stage.new_task();
    other.idempotency = key("b");
    let refused = stage.store.create(other).await.unwrap_err();
    assert!(matches!(refused, StoreError::KeyReused), "{refused}");
    // Many at the same time make one.
    let mut creating = Vec::new();
    for _ in 0..8 {
        let mut task = stage.new_task();
        task.idempotency = Some(Idempotency {
            key: "many".to_owned(),
            fingerprint: "x".to_owned(),
        });
        let store = stage.store.clone();
        creating.push(tokio::spawn(
            async move { store.create(task).await.unwrap() },
        ));
    }
    let mut ids = Vec::new();
    for created in creating {
        ids.push(created.await.unwrap().task.id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    stage.clock.pass(Duration::from_secs(25 * 3600));
    let mut late = stage.new_task();
    late.idempotency = key("b");
    assert!(
        !stage.store.create(late).await.unwrap().repeated,
        "a day later it is another"
    );
}

async fn an_end_waits_to_be_told(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let url = "http://127.0.0.1:1/done";
    stage
        .queue(|task| task.callback_url = Some(url.to_owned()))
        .await;
    let task = stage.claim(&worker).await.unwrap();
    assert!(stage.store.callbacks_due(10).await.unwrap().is_empty());
    let revision = stage.store.task_revision(task.id).await.unwrap();
    assert_eq!(revision, Some(task.revision));
    stage.complete(&worker, &task, "{}").await.unwrap();
    assert!(stage.store.task_revision(task.id).await.unwrap() > revision);
    let nobody = taskwright_model::TaskId::from_u128(9);
    assert_eq!(stage.store.task_revision(nobody).await.unwrap(), None);
    let due = stage.store.callbacks_due(10).await.unwrap();
    assert_eq!((due.len(), due[0].task, due[0].tries), (1, task.id, 1));
    assert!(
        stage.store.callbacks_due(10).await.unwrap().is_empty(),
        "somebody has it"
    );
    stage.clock.pass(Duration::from_secs(20));
    assert_eq!(stage.store.callbacks_due(10).await.unwrap()[0].tries, 2);
    stage.store.callback_done(task.id).await.unwrap();
    stage.clock.pass(Duration::from_secs(7200));
    assert!(stage.store.callbacks_due(10).await.unwrap().is_empty());
}
