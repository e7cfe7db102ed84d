-- What a store of step 1 holds: one task of each kind, and what belongs to them. Both databases.
INSERT INTO queue_schema (version) VALUES (1);
INSERT INTO queue_problems (problem_id) VALUES ('oven-1'), ('oven-2');
INSERT INTO queue_workers (id, backend_type, max_parallel, problems, capabilities, metadata,
    registered_at, last_heartbeat, alive_until, leaving, completed, failed, revision)
VALUES ('worker-001-kind', 'kind', 2, '["oven-*"]', '{"max_parallel_tasks": 2}', '{"rack": "7"}',
    1699999000000, 1699999990000, 1700000050000, 0, 1, 1, 3);
INSERT INTO queue_tasks (id, problem_id, parameters, priority, backend, limit_ms, failures_allowed,
    losses_allowed, callback_url, status, worker_id, slot, attempt, losses, result, error,
    error_document, cause, created_at, updated_at, started_at, completed_at, not_before, deadline,
    revision)
VALUES
('01920000-0000-7000-8000-000000000001', 'oven-1', '{"max_steps": 30}', 5, '', 1800000, 1, 3, NULL,
    'completed', 'worker-001-kind', NULL, 1, 0, '{"b": 1.50, "a": [1, 2]}', NULL, NULL, 'reported',
    1699999100000, 1699999130000, 1699999110000, 1699999130000, 0, NULL, 3),
('01920000-0000-7000-8000-000000000002', 'oven-1', '{}', 7.5, 'kind', 60000, 1, 3,
    'http://127.0.0.1:9/told', 'failed', 'worker-001-kind', NULL, 2, 1, NULL, 'it burnt',
    '{"step": 4}', 'reported', 1699999200000, 1699999260000, 1699999220000, 1699999260000, 0, NULL, 5),
('01920000-0000-7000-8000-000000000003', 'oven-2', '{}', 5, '', 1800000, 1, 3, NULL,
    'running', 'worker-001-kind', 0, 1, 0, NULL, NULL, NULL, NULL,
    1699999300000, 1699999980000, 1699999980000, NULL, 0, 1700001780000, 2),
('01920000-0000-7000-8000-000000000004', 'oven-2', '{}', 5, '', 1800000, 1, 3, NULL,
    'pending', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL,
    1699999400000, 1699999400000, NULL, NULL, 0, NULL, 1);
INSERT INTO queue_attempts (task_id, number, worker_id, started_at, ended_at, outcome, cause, error)
VALUES
('01920000-0000-7000-8000-000000000001', 1, 'worker-001-kind', 1699999110000, 1699999130000,
    'completed', 'reported', NULL),
('01920000-0000-7000-8000-000000000002', 1, 'worker-001-kind', 1699999205000, 1699999210000,
    'lost', 'worker-lost', 'worker worker-001-kind was lost'),
('01920000-0000-7000-8000-000000000002', 2, 'worker-001-kind', 1699999220000, 1699999260000,
    'failed', 'reported', 'it burnt');
INSERT INTO queue_log_heads (task_id, lines) VALUES ('01920000-0000-7000-8000-000000000003', 2);
INSERT INTO queue_logs (task_id, sequence, at, level, message, context) VALUES
('01920000-0000-7000-8000-000000000003', 1, 1699999300000, 1, 'Task created', '{}'),
('01920000-0000-7000-8000-000000000003', 2, 1699999985000, 3, 'it smells', '{"of": "smoke"}');
INSERT INTO queue_conversations (id, task_id, session_id, started_at, ended_at, model_name, config,
    metadata, success, messages, characters, input_tokens, output_tokens, cost)
VALUES ('01920000-0000-7000-8000-0000000000c1', '01920000-0000-7000-8000-000000000001',
    '01920000-0000-7000-8000-0000000000e1', 1699999111000, 1699999129000, 'gpt-4', '{}', '{}', 1, 2,
    24, 10, 4, 0.25);
INSERT INTO queue_messages (conversation_id, sequence, at, role, characters, body) VALUES
('01920000-0000-7000-8000-0000000000c1', 0, 1699999111000, 'user', 12, '{"role": "user", "content": "is it done?"}'),
('01920000-0000-7000-8000-0000000000c1', 1, 1699999112000, 'assistant', 12, '{"role": "assistant", "content": "not for long"}');
INSERT INTO queue_keys (key, fingerprint, task_id, at)
VALUES ('order-7', 'f7', '01920000-0000-7000-8000-000000000004', 1699999400000);
INSERT INTO queue_callbacks (task_id, url, tries, due)
VALUES ('01920000-0000-7000-8000-000000000002', 'http://127.0.0.1:9/told', 1, 1699999270000);
INSERT INTO queue_totals (share, kind, key, n, waited, ran) VALUES
(0, 'created', '', 3, 0, 0), (1, 'created', '', 1, 0, 0),
(0, 'problem', 'oven-1', 2, 0, 0), (0, 'problem', 'oven-2', 2, 0, 0),
(0, 'ended', 'completed', 1, 10, 20), (0, 'ended', 'failed', 1, 20, 40),
(0, 'worker', 'worker-001-kind', 2, 0, 0), (0, 'completed-by', 'worker-001-kind', 1, 10, 20);
