//! Stores of every released step are moved forward with all that they hold.
//!
//! `steps/` has each released step as it was, written down by hand and never changed: what the
//! steps of this build make of an empty store is no proof of what is out there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::log::LogQuery;
use taskwright_queue::{QueueStore, TaskStatus, WorkerId, WorkerStatus};

use super::super::{OpenQueueError, QueueClock, QueueLimits, open_postgres_at, open_sqlite_at};
use super::{Stage, TestClock, database};

/// A released step: its tables in each database, and what was in them.
pub(super) struct Step {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
    data: &'static str,
}

pub(super) const RELEASED: [Step; 1] = [Step {
    sqlite: include_str!("steps/1.sqlite.sql"),
    postgres: include_str!("steps/1.postgres.sql"),
    data: include_str!("steps/1.data.sql"),
}];

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicI64::new(1_700_000_000_000)))
}

fn stage(
    store: Arc<dyn QueueStore>,
    clock: Arc<TestClock>,
    directory: Option<tempfile::TempDir>,
) -> Stage {
    Stage {
        store,
        clock,
        made: AtomicU64::new(1000),
        _directory: directory,
    }
}

pub(super) async fn client(address: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(address, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_each_released_step_is_moved_forward() {
    for step in RELEASED {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute_batch(step.sqlite).unwrap();
        file.execute_batch(step.data).unwrap();
        drop(file);
        let clock = clock();
        let limits = QueueLimits::default();
        let store = open_sqlite_at(path.clone(), limits.clone(), clock.clone()).await;
        let fresh = directory.path().join("fresh.db");
        drop(
            open_sqlite_at(fresh.clone(), limits, clock.clone())
                .await
                .unwrap(),
        );
        let tables = |path| -> Vec<String> {
            let file = rusqlite::Connection::open(path).unwrap();
            let all = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1";
            let mut all = file.prepare(all).unwrap();
            let rows = all.query_map([], |row| row.get::<_, String>(0)).unwrap();
            let even = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
            rows.map(|row| even(row.unwrap()).replace("( ", "(").replace(" )", ")"))
                .collect()
        };
        assert_eq!(tables(path), tables(fresh), "moved tables are as new ones");
        everything_is_there(stage(store.unwrap(), clock, Some(directory))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_each_released_step_is_moved_forward() {
    for step in RELEASED {
        let (Some(address), Some(fresh)) = (database(), database()) else {
            return;
        };
        let raw = client(&address).await;
        raw.batch_execute(step.postgres).await.unwrap();
        raw.batch_execute(step.data).await.unwrap();
        let clock = clock();
        let given = Some(clock.clone() as Arc<dyn QueueClock>);
        let limits = QueueLimits::default();
        let store = open_postgres_at(&address, limits.clone(), given.clone()).await;
        drop(open_postgres_at(&fresh, limits, given).await.unwrap());
        let tables = async |address: &str| -> Vec<String> {
            let all = "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable \
                       || ' ' || coalesce(collation_name, '') || ' ' || coalesce(column_default, '') \
                       FROM information_schema.columns WHERE table_schema = 'public' \
                       UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' \
                       UNION ALL SELECT relname || ' ' || coalesce(array_to_string(reloptions, ' '), '') \
                       FROM pg_class WHERE relname LIKE 'queue%' ORDER BY 1";
            let rows = client(address).await.query(all, &[]).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        assert_eq!(
            tables(&address).await,
            tables(&fresh).await,
            "moved tables are as new ones"
        );
        everything_is_there(stage(store.unwrap(), clock, None)).await;
    }
}

fn known(number: u128) -> TaskId {
    TaskId::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + number)
}

/// What the fixtures hold is read, and the work goes on from there.
async fn everything_is_there(stage: Stage) {
    let store = &stage.store;
    let done = store.task(known(1)).await.unwrap().unwrap();
    assert_eq!(done.status, TaskStatus::Completed);
    assert_eq!(done.result.unwrap().as_str(), r#"{"b": 1.50, "a": [1, 2]}"#);
    let burnt = store.task(known(2)).await.unwrap().unwrap();
    assert_eq!(burnt.error.as_deref(), Some("it burnt"));
    assert_eq!((burnt.attempt, burnt.losses, burnt.priority), (2, 1, 7.5));
    let attempts = store.attempts(known(2)).await.unwrap();
    assert_eq!(attempts.len(), 2);
    let worker = WorkerId::numbered(1);
    let found = store.worker(worker.clone()).await.unwrap().unwrap();
    assert_eq!(found.running, [known(3)]);
    assert_eq!(found.status(stage.store.now()), WorkerStatus::Busy);
    assert_eq!(store.worker_counts().await.unwrap().busy, 1);
    let lines = LogQuery {
        task: known(3),
        level: None,
        since: None,
        after: None,
        most: 10,
    };
    let lines = store.logs(lines).await.unwrap();
    assert_eq!(lines.last().unwrap().message, "it smells");
    assert_eq!(
        lines.last().unwrap().at,
        Timestamp::from_millis(1_699_999_985_000)
    );
    let said = store.messages(known(0xc1), None, 0, 10).await.unwrap();
    let said = said.messages;
    assert_eq!(said.len(), 2);
    let conversation = store.conversation(known(0xc1)).await.unwrap().unwrap();
    assert_eq!(conversation.usage.unwrap().cost, Some(0.25));
    assert_eq!(store.callbacks_due(10).await.unwrap().len(), 1);
    super::summing::recount(&stage).await;

    let running = store.task(known(3)).await.unwrap().unwrap();
    stage.complete(&worker, &running, "{}").await.unwrap();
    let next = stage.claim(&worker).await.unwrap();
    assert_eq!(next.id, known(4));
    stage.complete(&worker, &next, "{}").await.unwrap();
    stage.queue(|_| {}).await;
    super::summing::recount(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_fails_leaves_everything_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    // Half of a store: a step meets a table that it wants to make itself.
    file.execute_batch("PRAGMA application_id = 1415016821; CREATE TABLE queue_logs (theirs)")
        .unwrap();
    drop(file);
    let refused = open_sqlite_at(path.clone(), QueueLimits::default(), clock()).await;
    assert!(matches!(refused, Err(OpenQueueError::File { .. })));
    let file = rusqlite::Connection::open(&path).unwrap();
    let count = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = file.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1, "what came before the fault is undone");

    let Some(address) = database() else { return };
    let raw = client(&address).await;
    raw.batch_execute("CREATE TABLE queue_logs (theirs BIGINT)")
        .await
        .unwrap();
    let refused = open_postgres_at(&address, QueueLimits::default(), None).await;
    let told = refused.err().unwrap().to_string();
    assert!(told.contains("queue_logs"), "{told}");
    let count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let tables: i64 = raw.query_one(count, &[]).await.unwrap().get(0);
    assert_eq!(tables, 1, "what came before the fault is undone");
}
