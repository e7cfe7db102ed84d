//! What survives, what is refused, and what several daemons have of each other.

use std::sync::Arc;
use std::time::Duration;

use taskwright_queue::port::{Notice, Notices};
use taskwright_queue::{Queue, QueueConfig, TaskStatus};

use super::super::{OpenQueueError, QueueLimits, open_postgres, open_sqlite};
use super::{Stage, database, on_both};

const DEADLINE: Duration = Duration::from_secs(20);

on_both! {
    a_claim_waits_for_work
    notices_tell_of_changes
}

async fn a_claim_waits_for_work(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let queue = Queue::new(stage.store.clone(), QueueConfig::default());
    let none = queue
        .claim(&worker, Duration::from_millis(30))
        .await
        .unwrap();
    assert!(none.is_none());
    let waiting = tokio::spawn(async move { queue.claim(&worker, DEADLINE).await.unwrap() });
    let task = stage.queue(|_| {}).await;
    let claimed = tokio::time::timeout(DEADLINE, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(claimed.id, task.id);
}

async fn until(notices: &mut Notices, wanted: Notice) {
    let heard = async {
        loop {
            if notices.recv().await.unwrap() == wanted {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, heard)
        .await
        .expect("the notice comes");
}

async fn notices_tell_of_changes(stage: Stage) {
    let mut notices = stage.store.notices();
    let task = stage.queue(|_| {}).await;
    until(&mut notices, Notice::Work).await;
    stage.store.cancel(task.id).await.unwrap();
    until(&mut notices, Notice::Task(task.id)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_hear_of_each_other() {
    let Some(address) = database() else { return };
    let limits = QueueLimits::default();
    let one = open_postgres(&address, limits.clone()).await.unwrap();
    let other = open_postgres(&address, limits).await.unwrap();
    let apart = one.now().as_millis().abs_diff(other.now().as_millis());
    assert!(apart < 1000, "they go by the same clock: {apart} ms apart");
    let mut notices = other.notices();
    // Until it listens, it is told that anything may have changed.
    until(&mut notices, Notice::Anything).await;
    let stage = Stage::sqlite().await;
    let task = stage.new_task();
    let id = task.id;
    one.create(task).await.unwrap();
    until(&mut notices, Notice::Work).await;
    assert_eq!(
        other.task(id).await.unwrap().unwrap().status,
        TaskStatus::Pending
    );
    other.cancel(id).await.unwrap();
    assert_eq!(
        one.task(id).await.unwrap().unwrap().status,
        TaskStatus::Cancelled
    );
}

#[tokio::test]
async fn a_file_keeps_what_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let stage = Stage::sqlite().await;
    let task = stage.new_task();
    let id = task.id;
    {
        let store = open_sqlite(path.clone(), QueueLimits::default())
            .await
            .unwrap();
        store.create(task).await.unwrap();
    }
    let store = open_sqlite(path.clone(), QueueLimits::default())
        .await
        .unwrap();
    assert_eq!(
        store.task(id).await.unwrap().unwrap().status,
        TaskStatus::Pending
    );
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "only its owner reads it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_program_wrote_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    drop(
        open_sqlite(path.clone(), QueueLimits::default())
            .await
            .unwrap(),
    );
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute("UPDATE queue_schema SET version = 99", [])
        .unwrap();
    drop(file);
    let refused = open_sqlite(path, QueueLimits::default())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(refused, OpenQueueError::Newer { found: 99, .. }),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("newer taskwright"),
        "{refused}"
    );

    let Some(address) = database() else { return };
    drop(
        open_postgres(&address, QueueLimits::default())
            .await
            .unwrap(),
    );
    let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("UPDATE queue_schema SET version = 99")
        .await
        .unwrap();
    let refused = open_postgres(&address, QueueLimits::default())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(refused, OpenQueueError::Newer { found: 99, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn another_programs_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute("CREATE TABLE theirs (a)", []).unwrap();
    drop(file);
    let refused = open_sqlite(path, QueueLimits::default())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(refused, OpenQueueError::Foreign { .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn an_address_is_told_without_its_password() {
    let address = "postgres://me:secret@127.0.0.1:1/queue";
    let refused = open_postgres(address, QueueLimits::default())
        .await
        .err()
        .unwrap();
    let told = format!("{refused} {refused:?}");
    assert!(
        told.contains("127.0.0.1:1/queue") && !told.contains("secret"),
        "{told}"
    );
    let refused = open_postgres("postgres://me:secret@h:x/y", QueueLimits::default());
    let told = format!("{}", refused.await.err().unwrap());
    assert!(!told.contains("secret"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_that_start_together_make_the_tables_once() {
    let Some(address) = database().map(Arc::new) else {
        return;
    };
    let mut opening = Vec::new();
    for _ in 0..4 {
        let address = address.clone();
        opening.push(tokio::spawn(async move {
            open_postgres(&address, QueueLimits::default())
                .await
                .map(drop)
                .unwrap();
        }));
    }
    for open in opening {
        open.await.unwrap();
    }
}
