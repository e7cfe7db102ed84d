//! Tables of the queue, the same in both databases, and how they came to be.
//!
//! Steps are only ever added: a database of any released version is moved forward
//! step by step, and one of a newer version is refused. Times are milliseconds since
//! the epoch, switches are 0 and 1, documents are JSON texts.

use super::sql::{Sql, SqlError, Value};

/// Each step, from an empty database on. `{text}` is a text compared byte by byte.
const STEPS: &[&[&str]] = &[&[
    "CREATE TABLE queue_tasks (
        id {text} PRIMARY KEY, problem_id {text} NOT NULL, parameters TEXT NOT NULL,
        priority DOUBLE PRECISION NOT NULL, backend {text} NOT NULL, limit_ms BIGINT NOT NULL,
        failures_allowed BIGINT NOT NULL, losses_allowed BIGINT NOT NULL, callback_url TEXT,
        status {text} NOT NULL, worker_id {text}, slot BIGINT, attempt BIGINT NOT NULL,
        losses BIGINT NOT NULL, result TEXT, error TEXT, error_document TEXT, cause {text},
        created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, started_at BIGINT,
        completed_at BIGINT, not_before BIGINT NOT NULL, deadline BIGINT, revision BIGINT NOT NULL
    ) {table_tasks}",
    // What waits, apart from history: the next task is found in a step, however many there are.
    "CREATE INDEX queue_waiting ON queue_tasks (backend, priority DESC, created_at, id)
        WHERE status = 'pending'",
    "CREATE INDEX queue_waiting_problem ON queue_tasks (problem_id, priority DESC, created_at, id)
        WHERE status = 'pending'",
    // Those that wait for a pause to be over; all others have 0 there.
    "CREATE INDEX queue_paused ON queue_tasks (not_before)
        WHERE status = 'pending' AND not_before > 0",
    // A worker's places: two claims of one worker cannot take the same.
    "CREATE UNIQUE INDEX queue_held ON queue_tasks (worker_id, slot) WHERE status = 'running'",
    "CREATE INDEX queue_deadlines ON queue_tasks (deadline) WHERE status = 'running'",
    "CREATE INDEX queue_created ON queue_tasks (created_at, id)",
    "CREATE INDEX queue_completed ON queue_tasks (completed_at, id) WHERE completed_at IS NOT NULL",
    "CREATE INDEX queue_by_problem ON queue_tasks (problem_id, created_at)",
    "CREATE INDEX queue_by_worker ON queue_tasks (worker_id, created_at)",
    "CREATE TABLE queue_slots (n BIGINT PRIMARY KEY)",
    "CREATE TABLE queue_problems (problem_id {text} PRIMARY KEY)",
    "CREATE TABLE queue_attempts (
        task_id {text} NOT NULL, number BIGINT NOT NULL, worker_id {text} NOT NULL,
        started_at BIGINT NOT NULL, ended_at BIGINT NOT NULL, outcome {text} NOT NULL,
        cause {text} NOT NULL, error TEXT, PRIMARY KEY (task_id, number)
    )",
    "CREATE TABLE queue_workers (
        id {text} PRIMARY KEY, backend_type {text} NOT NULL, max_parallel BIGINT NOT NULL,
        problems TEXT NOT NULL, capabilities TEXT NOT NULL, metadata TEXT NOT NULL,
        registered_at BIGINT NOT NULL, last_heartbeat BIGINT NOT NULL, alive_until BIGINT NOT NULL,
        leaving BIGINT NOT NULL, completed BIGINT NOT NULL, failed BIGINT NOT NULL,
        revision BIGINT NOT NULL
    ) {table_hot}",
    "CREATE TABLE queue_log_heads (task_id {text} PRIMARY KEY, lines BIGINT NOT NULL) {table_hot}",
    "CREATE TABLE queue_logs (
        task_id {text} NOT NULL, sequence BIGINT NOT NULL, at BIGINT NOT NULL, level BIGINT NOT NULL,
        message TEXT NOT NULL, context TEXT NOT NULL, PRIMARY KEY (task_id, sequence)
    )",
    "CREATE TABLE queue_conversations (
        id {text} PRIMARY KEY, task_id {text} NOT NULL, session_id {text} NOT NULL,
        started_at BIGINT NOT NULL, ended_at BIGINT, model_name TEXT, config TEXT NOT NULL,
        metadata TEXT NOT NULL, success BIGINT, messages BIGINT NOT NULL,
        characters BIGINT NOT NULL, input_tokens BIGINT, output_tokens BIGINT,
        cost DOUBLE PRECISION
    ) {table_hot}",
    "CREATE INDEX queue_conversations_of ON queue_conversations (task_id, started_at)",
    "CREATE INDEX queue_conversations_begun ON queue_conversations (started_at, id)",
    "CREATE TABLE queue_messages (
        conversation_id {text} NOT NULL, sequence BIGINT NOT NULL, at BIGINT NOT NULL,
        role {text} NOT NULL, characters BIGINT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (conversation_id, sequence)
    )",
    "CREATE TABLE queue_keys (
        key {text} PRIMARY KEY, fingerprint {text} NOT NULL, task_id {text} NOT NULL,
        at BIGINT NOT NULL
    )",
    "CREATE INDEX queue_keys_old ON queue_keys (at)",
    "CREATE TABLE queue_callbacks (
        task_id {text} PRIMARY KEY, url TEXT NOT NULL, tries BIGINT NOT NULL, due BIGINT NOT NULL
    )",
    // Sums that are kept and not made anew. Each connection adds to a share of its own, so that
    // none waits for another.
    "CREATE TABLE queue_totals (
        share BIGINT NOT NULL, kind {text} NOT NULL, key {text} NOT NULL, n BIGINT NOT NULL,
        waited DOUBLE PRECISION NOT NULL, ran DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (kind, key, share)
    ) {table_hot}",
], &[
    // Not by status: an index of all that runs is what a planner takes for a worker's places, too,
    // as long as it knows of nothing that runs, and then each claim goes through all that does.
    "DROP INDEX queue_deadlines",
    "CREATE INDEX queue_deadlines ON queue_tasks (deadline) WHERE deadline IS NOT NULL",
    // The few that wait or run are looked for among a million that ended. An expression, so that
    // lists alone use it, for the same reason.
    "CREATE INDEX queue_by_status ON queue_tasks ((status || ''), created_at, id)",
    // Those that are due are found in a step while a receiver is away and others pile up.
    "CREATE INDEX queue_callbacks_due ON queue_callbacks (due)",
    // Of which attempt it is, where its writer told.
    "ALTER TABLE queue_logs ADD COLUMN attempt BIGINT",
    "ALTER TABLE queue_conversations ADD COLUMN attempt BIGINT",
    "CREATE TABLE queue_steps (
        task_id {text} NOT NULL, attempt BIGINT NOT NULL, number BIGINT NOT NULL,
        at BIGINT NOT NULL, reward DOUBLE PRECISION, terminated BIGINT NOT NULL,
        truncated BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (task_id, attempt, number)
    )",
    // The order of ends. A number is given when an export first comes by, under a lock: so it is
    // never below one that was seen, however late its task was written down.
    "ALTER TABLE queue_tasks ADD COLUMN ended_number BIGINT",
    "CREATE UNIQUE INDEX queue_ended ON queue_tasks (ended_number)
        WHERE ended_number IS NOT NULL",
    "CREATE INDEX queue_unnumbered ON queue_tasks (completed_at, id)
        WHERE completed_at IS NOT NULL AND ended_number IS NULL",
]];

/// The version that this build writes.
#[expect(clippy::cast_possible_wrap, reason = "a handful of steps")]
pub(crate) const VERSION: i64 = STEPS.len() as i64;

/// Why the tables could not be used.
#[derive(Debug)]
pub(crate) enum SchemaError {
    Sql(SqlError),
    /// They are of this version, which a later program wrote.
    Newer(i64),
}

impl From<SqlError> for SchemaError {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

/// Makes the tables what this build needs, within the transaction of the caller. Answers which
/// version was found; 0 is none.
pub(crate) async fn migrate<S: Sql>(sql: &mut S) -> Result<i64, SchemaError> {
    if S::POSTGRES {
        // Daemons that start together wait for each other; the lock ends with the transaction.
        sql.rows("SELECT pg_advisory_xact_lock(5790467)", &[])
            .await?;
    }
    let created = "CREATE TABLE IF NOT EXISTS queue_schema (version BIGINT NOT NULL)";
    sql.run(created, &[]).await?;
    let found = match sql.row("SELECT version FROM queue_schema", &[]).await? {
        Some(mut row) => row.int(0)?,
        None => {
            sql.run("INSERT INTO queue_schema (version) VALUES (0)", &[])
                .await?;
            0
        }
    };
    if found > VERSION {
        return Err(SchemaError::Newer(found));
    }
    let done = usize::try_from(found).unwrap_or(0);
    for step in STEPS.iter().skip(done) {
        for statement in *step {
            sql.run(&in_words_of::<S>(statement), &[]).await?;
        }
    }
    if found < 1 {
        for slot in 0..i64::from(taskwright_queue::Capabilities::MOST_PARALLEL) {
            sql.run(
                "INSERT INTO queue_slots (n) VALUES (?1)",
                &[Value::Int(slot)],
            )
            .await?;
        }
    }
    sql.run(
        "UPDATE queue_schema SET version = ?1",
        &[Value::Int(VERSION)],
    )
    .await?;
    Ok(found)
}

/// A step in the words of this database.
fn in_words_of<S: Sql>(statement: &str) -> String {
    let (text, tasks, hot) = if S::POSTGRES {
        (
            "TEXT COLLATE \"C\"",
            // Dead rows are what slows claims down: they are cleared away early.
            "WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, \
             autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)",
            "WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1)",
        )
    } else {
        ("TEXT", "", "")
    };
    statement
        .replace("{text}", text)
        .replace("{table_tasks}", tasks)
        .replace("{table_hot}", hot)
}
