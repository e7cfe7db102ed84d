-- The queue as step 1 of its schema made it. Never changed: stores of that step are out there.
CREATE TABLE queue_schema (version BIGINT NOT NULL);
CREATE TABLE queue_tasks (
    id TEXT COLLATE "C" PRIMARY KEY, problem_id TEXT COLLATE "C" NOT NULL, parameters TEXT NOT NULL,
    priority DOUBLE PRECISION NOT NULL, backend TEXT COLLATE "C" NOT NULL, limit_ms BIGINT NOT NULL,
    failures_allowed BIGINT NOT NULL, losses_allowed BIGINT NOT NULL, callback_url TEXT,
    status TEXT COLLATE "C" NOT NULL, worker_id TEXT COLLATE "C", slot BIGINT, attempt BIGINT NOT NULL,
    losses BIGINT NOT NULL, result TEXT, error TEXT, error_document TEXT, cause TEXT COLLATE "C",
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, started_at BIGINT,
    completed_at BIGINT, not_before BIGINT NOT NULL, deadline BIGINT, revision BIGINT NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX queue_waiting ON queue_tasks (backend, priority DESC, created_at, id)
    WHERE status = 'pending';
CREATE INDEX queue_waiting_problem ON queue_tasks (problem_id, priority DESC, created_at, id)
    WHERE status = 'pending';
CREATE INDEX queue_paused ON queue_tasks (not_before)
    WHERE status = 'pending' AND not_before > 0;
CREATE UNIQUE INDEX queue_held ON queue_tasks (worker_id, slot) WHERE status = 'running';
CREATE INDEX queue_deadlines ON queue_tasks (deadline) WHERE status = 'running';
CREATE INDEX queue_created ON queue_tasks (created_at, id);
CREATE INDEX queue_completed ON queue_tasks (completed_at, id) WHERE completed_at IS NOT NULL;
CREATE INDEX queue_by_problem ON queue_tasks (problem_id, created_at);
CREATE INDEX queue_by_worker ON queue_tasks (worker_id, created_at);
CREATE TABLE queue_slots (n BIGINT PRIMARY KEY);
CREATE TABLE queue_problems (problem_id TEXT COLLATE "C" PRIMARY KEY);
CREATE TABLE queue_attempts (
    task_id TEXT COLLATE "C" NOT NULL, number BIGINT NOT NULL, worker_id TEXT COLLATE "C" NOT NULL,
    started_at BIGINT NOT NULL, ended_at BIGINT NOT NULL, outcome TEXT COLLATE "C" NOT NULL,
    cause TEXT COLLATE "C" NOT NULL, error TEXT, PRIMARY KEY (task_id, number)
);
CREATE TABLE queue_workers (
    id TEXT COLLATE "C" PRIMARY KEY, backend_type TEXT COLLATE "C" NOT NULL, max_parallel BIGINT NOT NULL,
    problems TEXT NOT NULL, capabilities TEXT NOT NULL, metadata TEXT NOT NULL,
    registered_at BIGINT NOT NULL, last_heartbeat BIGINT NOT NULL, alive_until BIGINT NOT NULL,
    leaving BIGINT NOT NULL, completed BIGINT NOT NULL, failed BIGINT NOT NULL,
    revision BIGINT NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);
CREATE TABLE queue_log_heads (task_id TEXT COLLATE "C" PRIMARY KEY, lines BIGINT NOT NULL) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);
CREATE TABLE queue_logs (
    task_id TEXT COLLATE "C" NOT NULL, sequence BIGINT NOT NULL, at BIGINT NOT NULL, level BIGINT NOT NULL,
    message TEXT NOT NULL, context TEXT NOT NULL, PRIMARY KEY (task_id, sequence)
);
CREATE TABLE queue_conversations (
    id TEXT COLLATE "C" PRIMARY KEY, task_id TEXT COLLATE "C" NOT NULL, session_id TEXT COLLATE "C" NOT NULL,
    started_at BIGINT NOT NULL, ended_at BIGINT, model_name TEXT, config TEXT NOT NULL,
    metadata TEXT NOT NULL, success BIGINT, messages BIGINT NOT NULL,
    characters BIGINT NOT NULL, input_tokens BIGINT, output_tokens BIGINT,
    cost DOUBLE PRECISION
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);
CREATE INDEX queue_conversations_of ON queue_conversations (task_id, started_at);
CREATE INDEX queue_conversations_begun ON queue_conversations (started_at, id);
CREATE TABLE queue_messages (
    conversation_id TEXT COLLATE "C" NOT NULL, sequence BIGINT NOT NULL, at BIGINT NOT NULL,
    role TEXT COLLATE "C" NOT NULL, characters BIGINT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (conversation_id, sequence)
);
CREATE TABLE queue_keys (
    key TEXT COLLATE "C" PRIMARY KEY, fingerprint TEXT COLLATE "C" NOT NULL, task_id TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX queue_keys_old ON queue_keys (at);
CREATE TABLE queue_callbacks (
    task_id TEXT COLLATE "C" PRIMARY KEY, url TEXT NOT NULL, tries BIGINT NOT NULL, due BIGINT NOT NULL
);
CREATE TABLE queue_totals (
    share BIGINT NOT NULL, kind TEXT COLLATE "C" NOT NULL, key TEXT COLLATE "C" NOT NULL, n BIGINT NOT NULL,
    waited DOUBLE PRECISION NOT NULL, ran DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (kind, key, share)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);
INSERT INTO queue_slots (n) SELECT n FROM generate_series(0, 999) AS n;
