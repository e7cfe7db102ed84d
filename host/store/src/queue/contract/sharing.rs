//! What survives, what is refused, and what several daemons have of each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use taskwright_queue::port::{Notice, Notices};
use taskwright_queue::{Queue, QueueConfig, QueueStore, TaskStatus};

use super::super::{OpenQueueError, QueueLimits, open_postgres, open_sqlite};
use super::{LEASE, Stage, TestClock, database, on_both};

const DEADLINE: Duration = Duration::from_secs(20);

on_both! {
    a_claim_waits_for_work
    a_claim_that_waits_is_no_word_of_its_worker
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

async fn a_claim_that_waits_is_no_word_of_its_worker(stage: Stage) {
    let worker = stage
        .register(1, |worker| worker.capabilities.max_parallel = 2)
        .await;
    let held = stage.queue(|_| {}).await;
    stage.claim(&worker).await.unwrap();
    stage.clock.pass(LEASE / 2);
    let before = stage.lease_of(&worker).await;
    let queue = Queue::new(stage.store.clone(), QueueConfig::default());
    let waiting = {
        let worker = worker.clone();
        tokio::spawn(async move { queue.claim(&worker, DEADLINE).await.unwrap() })
    };
    let heard = async {
        while stage.lease_of(&worker).await == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, heard).await.unwrap();
    let alive_until = stage.lease_of(&worker).await;
    stage.clock.pass(LEASE * 2);
    // Its claim looks at this, and neither takes it nor keeps the worker alive.
    let other = stage.queue(|_| {}).await;
    let looked = stage.claim_silently(&worker).await;
    assert!(looked.is_none(), "{looked:?}");
    assert_eq!(stage.lease_of(&worker).await, alive_until);
    assert_eq!(stage.store.sweep().await.unwrap().requeued, [held.id]);
    assert_eq!(stage.now(&other).await.status, TaskStatus::Pending);
    // Once it is heard of again, its claim is as good as before.
    stage.beat(&worker).await;
    stage.queue(|_| {}).await;
    let claimed = tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    assert_eq!(claimed.unwrap().unwrap().id, other.id);
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

/// Gives a server another time than this machine's: the functions of the schema `skewed` are found
/// before the server's own by whoever asks with the options that are answered.
async fn skew(address: &str, minutes: i64) -> String {
    let (client, connection) = tokio_postgres::connect(address, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let skewed = format!(
        "CREATE SCHEMA skewed; CREATE FUNCTION skewed.clock_timestamp() RETURNS timestamptz LANGUAGE sql \
         AS 'SELECT pg_catalog.clock_timestamp() + interval ''{minutes} minutes'''"
    );
    client.batch_execute(&skewed).await.unwrap();
    format!("{address}?options=-c%20search_path%3Dskewed,pg_catalog,public")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_go_by_the_servers_clock_whatever_the_machines_show() {
    for minutes in [7, -7] {
        let Some(address) = database() else { return };
        // Tables are made in the first schema that is looked at: before there is another.
        drop(
            open_postgres(&address, QueueLimits::default())
                .await
                .unwrap(),
        );
        let address = skew(&address, minutes).await;
        let one = open_postgres(&address, QueueLimits::default())
            .await
            .unwrap();
        let other = open_postgres(&address, QueueLimits::default())
            .await
            .unwrap();
        let wall = super::super::clock::wall() / 1000;
        let apart = one.now().as_millis() - wall - minutes * 60_000;
        assert!(
            apart.abs() < 5000,
            "it is the server's time: {apart} ms apart"
        );
        let (one, other) = (stage_on(one), stage_on(other));
        let worker = one.register(1, |_| {}).await;
        let task = one.queue(|_| {}).await;
        assert_eq!(one.claim(&worker).await.unwrap().id, task.id);
        let swept = other.store.sweep().await.unwrap();
        assert!(
            swept.requeued.is_empty() && swept.timed_out.is_empty(),
            "{swept:?}"
        );
        assert_eq!(one.now(&task).await.status, TaskStatus::Running);
        let until = other
            .store
            .worker(worker.clone())
            .await
            .unwrap()
            .unwrap()
            .alive_until;
        let left = until.since(other.store.now());
        assert!(
            left > LEASE - Duration::from_secs(10) && left <= LEASE,
            "{left:?} are left"
        );
        let running = one.now(&task).await;
        other.complete(&worker, &running, "{}").await.unwrap();
    }
}

/// A stage on a store with a clock of its own.
fn stage_on(store: Arc<dyn QueueStore>) -> Stage {
    Stage {
        store,
        clock: Arc::new(TestClock(AtomicI64::new(0))),
        made: AtomicU64::new(0),
        _directory: None,
    }
}

/// A wall clock that somebody sets an hour forward and back, whenever it is looked at.
fn jumping() -> i64 {
    static LOOKS: AtomicI64 = AtomicI64::new(0);
    let hour = 3600 * 1_000_000;
    let jump = match LOOKS.fetch_add(1, Ordering::SeqCst) % 4 {
        0 | 2 => 0,
        1 => hour,
        _ => -hour,
    };
    super::super::clock::wall() + jump
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_jumps_back_and_forth_ends_no_lease_and_keeps_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let clock = Arc::new(super::super::clock::LocalClock::new(jumping));
    let store = super::super::open_sqlite_at(path, QueueLimits::default(), clock)
        .await
        .unwrap();
    let stage = stage_on(store);
    let worker = stage.register(1, |_| {}).await;
    let task = stage.queue(|_| {}).await;
    stage.claim(&worker).await.unwrap();
    let mut before = stage.store.now();
    for _ in 0..200 {
        let swept = stage.store.sweep().await.unwrap();
        assert!(
            swept.requeued.is_empty() && swept.failed.is_empty(),
            "{swept:?}"
        );
        let now = stage.store.now();
        assert!(
            now >= before && now.since(before) < Duration::from_secs(10),
            "it does not jump"
        );
        before = now;
    }
    assert_eq!(stage.now(&task).await.status, TaskStatus::Running);
    // A lease of half a second ends all the same.
    let short = taskwright_queue::port::Heartbeat {
        worker,
        leaving: false,
        lease: Duration::from_millis(500),
    };
    stage.store.heartbeat(short).await.unwrap();
    let begun = std::time::Instant::now();
    while stage.now(&task).await.status == TaskStatus::Running {
        assert!(begun.elapsed() < DEADLINE, "the lease ends");
        stage.store.sweep().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        begun.elapsed() > Duration::from_millis(400),
        "not before its time"
    );
}
