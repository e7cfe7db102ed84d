//! How SQLite goes about the statements of which there are thousands a second: by the index that
//! was made for each, and without sorting all that waits. It guesses nothing from what a table
//! holds, so its plans are the same on an empty one.

use rusqlite::Connection;

use super::super::ops::claims::{CLAIM_SQLITE, HEADS};
use super::super::{QueueLimits, open_sqlite};

/// The plan of a statement: one line for each step.
fn plan(file: &Connection, statement: &str) -> String {
    let mut asked = file
        .prepare(&format!("EXPLAIN QUERY PLAN {statement}"))
        .unwrap();
    let nothing = vec![rusqlite::types::Null; asked.parameter_count()];
    let steps = asked.query_map(rusqlite::params_from_iter(nothing), |row| {
        row.get::<_, String>(3)
    });
    let steps: Vec<String> = steps.unwrap().map(Result::unwrap).collect();
    steps.join("\n")
}

#[tokio::test]
async fn the_hot_statements_take_their_indexes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    drop(
        open_sqlite(path.clone(), QueueLimits::default())
            .await
            .unwrap(),
    );
    let file = Connection::open(path).unwrap();
    // The better of the two heads is found by a sort: of those two, and no more.
    for (statement, sorts) in [(CLAIM_SQLITE, 1), (HEADS, 1)] {
        let plan = plan(&file, statement);
        assert!(plan.contains("INDEX queue_waiting (backend=?)"), "{plan}");
        assert_eq!(plan.matches("TEMP B-TREE").count(), sorts, "{plan}");
        for table in ["SCAN queue_tasks", "SCAN t", "SCAN r"] {
            assert!(!plan.lines().any(|step| step == table), "{plan}");
        }
    }
    for (statement, index) in [
        (
            "SELECT id FROM queue_tasks WHERE worker_id = ?1 AND slot >= 0 AND status = 'running'",
            "queue_held",
        ),
        (
            "SELECT id FROM queue_tasks WHERE status = 'running' AND deadline <= ?1 ORDER BY deadline",
            "queue_deadlines",
        ),
        (
            "SELECT id FROM queue_tasks WHERE status || '' = ?1 ORDER BY created_at DESC, id DESC LIMIT ?2",
            "queue_by_status",
        ),
    ] {
        let plan = plan(&file, statement);
        assert!(plan.contains(&format!("INDEX {index} ")), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
