//! Tasks by the hundred thousand, put into the queue's tables by one statement.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use rusqlite::Connection;
use taskwright_test_postgres::Server;

/// The time at which the first task was submitted, in milliseconds since the epoch.
const BEGUN: u64 = 1_700_000_000_000;
/// Problems that the tasks are about.
pub(super) const PROBLEMS: u64 = 100;
/// When the workers' leases end: not while anything is measured.
const FAR: u64 = 4_000_000_000_000;

/// The tables of a queue.
pub(super) enum Target<'b> {
    File(PathBuf),
    Postgres {
        server: &'b Server,
        database: String,
    },
}

/// What tasks are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tasks {
    Pending,
    /// One in a thousand failed, all others completed.
    Ended,
}

impl Target<'_> {
    /// Runs statements; `{numbers FROM TO}` stands for a table `s (i)` of whole numbers.
    pub(super) fn run(&self, statements: &str) -> anyhow::Result<()> {
        match self {
            Self::File(path) => {
                let file = Connection::open(path).context("open the queue's file")?;
                file.busy_timeout(Duration::from_secs(30))?;
                file.pragma_update(None, "synchronous", "off")?;
                file.execute_batch(statements)
                    .context("fill the queue's file")
            }
            Self::Postgres { server, database } => server.sql(database, statements).map(drop),
        }
    }

    /// One number.
    pub(super) fn number(&self, statement: &str) -> anyhow::Result<u64> {
        match self {
            Self::File(path) => {
                let file = Connection::open(path).context("open the queue's file")?;
                let number: i64 = file.query_row(statement, [], |row| row.get(0))?;
                Ok(u64::try_from(number)?)
            }
            Self::Postgres { server, database } => Ok(server.sql(database, statement)?.parse()?),
        }
    }

    fn numbers(&self, from: u64, to: u64) -> String {
        match self {
            Self::File(_) => format!(
                "(WITH RECURSIVE n (i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to}) \
                 SELECT i FROM n) AS s"
            ),
            Self::Postgres { .. } => format!("generate_series({from}, {to}) AS s (i)"),
        }
    }

    /// The id of the task with the number `i`.
    fn id(&self) -> &'static str {
        match self {
            Self::File(_) => "printf('01900000-0000-7000-8000-%012x', i)",
            Self::Postgres { .. } => "'01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0')",
        }
    }

    /// Adds `many` tasks with numbers from `from`, and what the sums say of them.
    pub(super) fn add(&self, tasks: Tasks, from: u64, many: u64) -> anyhow::Result<()> {
        let to = from + many - 1;
        let (numbers, id) = (self.numbers(from, to), self.id());
        let columns = "id, problem_id, parameters, priority, backend, limit_ms, failures_allowed, \
                       losses_allowed, status, worker_id, attempt, losses, result, error, cause, created_at, \
                       updated_at, started_at, completed_at, not_before, revision";
        let about = format!(
            "{id}, 'problem-' || (i % {PROBLEMS}), '{{\"max_steps\": 30}}', i % 10, '', 1800000, 1, 3"
        );
        let at = format!("{BEGUN} + i");
        let rest = match tasks {
            Tasks::Pending => {
                format!("'pending', NULL, 0, 0, NULL, NULL, NULL, {at}, {at}, NULL, NULL, 0, 1")
            }
            Tasks::Ended => format!(
                "CASE WHEN i % 1000 = 0 THEN 'failed' ELSE 'completed' END, 'worker-000-kind', 1, 0, \
                 CASE WHEN i % 1000 = 0 THEN NULL ELSE '{{\"ok\": true}}' END, \
                 CASE WHEN i % 1000 = 0 THEN 'it burnt' END, 'reported', {at}, {at} + 3000, {at} + 1000, \
                 {at} + 3000, 0, 3"
            ),
        };
        let sum = |kind: &str, key: &str, many: u64| {
            format!(
                "INSERT INTO queue_totals (share, kind, key, n, waited, ran) \
                 VALUES (0, '{kind}', {key}, {many}, {many}, {many} * 2) ON CONFLICT (kind, key, share) \
                 DO UPDATE SET n = queue_totals.n + excluded.n; "
            )
        };
        let mut statements = format!(
            "BEGIN; INSERT INTO queue_tasks ({columns}) SELECT {about}, {rest} FROM {numbers}; \
             INSERT INTO queue_problems (problem_id) SELECT 'problem-' || i FROM {} WHERE true \
             ON CONFLICT DO NOTHING; {}",
            self.numbers(0, PROBLEMS - 1),
            sum("created", "''", many),
        );
        for problem in 0..PROBLEMS {
            let of_it = |number: u64| (number + PROBLEMS - 1 - problem) / PROBLEMS;
            let key = format!("'problem-{problem}'");
            statements.push_str(&sum("problem", &key, of_it(to + 1) - of_it(from)));
        }
        if tasks == Tasks::Ended {
            let failed = to / 1000 - (from - 1) / 1000;
            statements.push_str(&sum("ended", "'failed'", failed));
            statements.push_str(&sum("ended", "'completed'", many - failed));
            statements.push_str(&sum("worker", "'worker-000-kind'", many));
        }
        statements.push_str("COMMIT;");
        self.run(&statements)?;
        // As a server does itself after a while, and a file does not.
        if let Self::Postgres { server, database } = self {
            server.sql(database, "VACUUM ANALYZE queue_tasks")?;
        }
        let counted = self.number("SELECT count(*) FROM queue_tasks")?;
        ensure!(counted >= many, "{counted} tasks were put in, not {many}");
        Ok(())
    }

    /// Adds a conversation to each of the first `many` tasks, with so many messages of so many
    /// characters.
    pub(super) fn conversations(
        &self,
        many: u64,
        messages: u64,
        characters: usize,
    ) -> anyhow::Result<()> {
        let (tasks, id) = (self.numbers(1, many), self.id());
        let conversation = id.replace("-8000-", "-9000-");
        let text = "kubectl get pods -n hotel-reservation: ";
        let text: String = text.chars().cycle().take(characters).collect();
        // The same numbers as a table `m (j)`.
        let each = self.numbers(0, messages - 1);
        let each = format!("(SELECT i AS j FROM {each}) AS m");
        self.run(&format!(
            "BEGIN; INSERT INTO queue_conversations (id, task_id, session_id, started_at, model_name, config, \
             metadata, messages, characters, attempt) SELECT {conversation}, {id}, {conversation}, {BEGUN}, \
             'model', '{{}}', '{{}}', {messages}, {characters} * {messages}, 1 FROM {tasks}; \
             INSERT INTO queue_messages (conversation_id, sequence, at, role, characters, body) \
             SELECT {conversation}, j, {BEGUN}, CASE j % 2 WHEN 0 THEN 'user' ELSE 'assistant' END, \
             {characters}, '{{\"content\": \"{text}\"}}' FROM {tasks} CROSS JOIN {each}; COMMIT;"
        ))
    }

    /// Registers workers from `worker-000-kind` on, each with patterns of problems.
    pub(super) fn workers(&self, many: usize, problems: &str) -> anyhow::Result<()> {
        for worker in 0..many {
            self.run(&format!(
                "INSERT INTO queue_workers (id, backend_type, max_parallel, problems, capabilities, metadata, \
                 registered_at, last_heartbeat, alive_until, leaving, completed, failed, revision) \
                 VALUES ('{}', 'kind', 1, '{problems}', '{{}}', '{{}}', {BEGUN}, {BEGUN}, {FAR}, 0, 0, 0, 1)",
                name(worker)
            ))?;
        }
        Ok(())
    }
}

/// A worker's id.
pub(super) fn name(worker: usize) -> String {
    format!("worker-{worker:03}-kind")
}
