-- What the workflow language needs: called workflows, items, waits, events, cached results, budgets,
-- limits per key, labels and the search for input values.

-- The run that this one retries, forks or replays. `parent_run_id` now means the run that called it.
ALTER TABLE workflow_runs RENAME COLUMN parent_run_id TO origin_run_id;
ALTER TABLE workflow_runs ADD COLUMN parent_run_id TEXT;
ALTER TABLE workflow_runs ADD COLUMN parent_step_id TEXT;
ALTER TABLE workflow_runs ADD COLUMN parent_item_index INTEGER;
ALTER TABLE workflow_runs ADD COLUMN root_run_id TEXT;
ALTER TABLE workflow_runs ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflow_runs ADD COLUMN workflows JSON NOT NULL DEFAULT '{}';
ALTER TABLE workflow_runs ADD COLUMN overrides JSON NOT NULL DEFAULT '{}';
ALTER TABLE workflow_runs ADD COLUMN idempotency_key TEXT;
ALTER TABLE workflow_runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflow_runs ADD COLUMN concurrency_key TEXT;
ALTER TABLE workflow_runs ADD COLUMN concurrency_limit INTEGER;
ALTER TABLE workflow_runs ADD COLUMN wake_at TIMESTAMP;
ALTER TABLE workflow_runs ADD COLUMN labels JSON NOT NULL DEFAULT '{}';
ALTER TABLE workflow_runs ADD COLUMN total_cost_micros INTEGER NOT NULL DEFAULT 0;
-- What the run and all that it called used; kept on the root of a tree of runs.
ALTER TABLE workflow_runs ADD COLUMN tree_vm_time_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflow_runs ADD COLUMN tree_api_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflow_runs ADD COLUMN tree_cost_micros INTEGER NOT NULL DEFAULT 0;

CREATE UNIQUE INDEX idx_runs_idempotency ON workflow_runs(project_id, workflow_name, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- Runs with a key: those that hold one of its places, and those that queue for one.
CREATE INDEX idx_runs_slots ON workflow_runs(project_id, concurrency_key)
    WHERE concurrency_key IS NOT NULL AND epoch > 0 AND status IN ('pending', 'running', 'waiting');
CREATE INDEX idx_runs_queue ON workflow_runs(project_id, concurrency_key, priority DESC, id)
    WHERE concurrency_key IS NOT NULL AND epoch = 0 AND status = 'pending';
-- Runs that wait: those that go on by themselves, those to be cancelled, and those that a process
-- drives all the same.
CREATE INDEX idx_runs_wake ON workflow_runs(wake_at)
    WHERE wake_at IS NOT NULL AND status = 'waiting' AND owner IS NULL;
CREATE INDEX idx_runs_cancelled ON workflow_runs(id) WHERE status = 'waiting' AND cancel_requested = 1;
CREATE INDEX idx_runs_driven ON workflow_runs(id) WHERE status = 'waiting' AND owner IS NOT NULL;
-- Listing, with or without the runs that others called.
DROP INDEX idx_runs_project_state;
DROP INDEX idx_runs_name_state;
DROP INDEX idx_runs_owner_state;
CREATE INDEX idx_runs_project_state
    ON workflow_runs(project_id, (parent_run_id IS NOT NULL), status, id);
CREATE INDEX idx_runs_name_state
    ON workflow_runs(project_id, workflow_name, (parent_run_id IS NOT NULL), status, id);
CREATE INDEX idx_runs_owner_state ON workflow_runs(owner, (parent_run_id IS NOT NULL), status, id)
    WHERE owner IS NOT NULL;
CREATE INDEX idx_runs_parent_state ON workflow_runs(parent_run_id, status, id)
    WHERE parent_run_id IS NOT NULL;

ALTER TABLE step_executions ADD COLUMN item_count INTEGER;
ALTER TABLE step_executions ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
ALTER TABLE step_executions ADD COLUMN attempt_started_at TIMESTAMP;
ALTER TABLE step_executions ADD COLUMN invocation_id TEXT;
ALTER TABLE step_executions ADD COLUMN child_run_id TEXT;
ALTER TABLE step_executions ADD COLUMN reused_from TEXT;
ALTER TABLE step_executions ADD COLUMN cost_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE step_executions ADD COLUMN wait_kind TEXT;
ALTER TABLE step_executions ADD COLUMN wait_name TEXT;
ALTER TABLE step_executions ADD COLUMN wait_key TEXT;
ALTER TABLE step_executions ADD COLUMN wait_details JSON;
ALTER TABLE step_executions ADD COLUMN wake_at TIMESTAMP;

-- Steps that wait: of a kind, for an event, in a run.
CREATE INDEX idx_steps_waiting ON step_executions(project_id, wait_kind, id)
    WHERE status = 'waiting';
CREATE INDEX idx_steps_awaited ON step_executions(project_id, wait_name, wait_key)
    WHERE status = 'waiting' AND wait_kind = 'event';
CREATE INDEX idx_steps_waiting_run ON step_executions(run_id) WHERE status = 'waiting';

ALTER TABLE invocations ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE invocations ADD COLUMN cost_micros INTEGER NOT NULL DEFAULT 0;

-- Runs that came from another database. They are kept as long after that as others after their end.
ALTER TABLE workflow_runs ADD COLUMN imported_at TIMESTAMP;
DROP INDEX idx_runs_completed;
CREATE INDEX idx_runs_completed ON workflow_runs(coalesce(imported_at, completed_at))
    WHERE completed_at IS NOT NULL;

-- Labels, and the values of the inputs that a workflow declares under `search`.
CREATE TABLE run_attributes (
    project_id TEXT NOT NULL DEFAULT 'default',
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    run_id TEXT NOT NULL REFERENCES workflow_runs(id),
    PRIMARY KEY (project_id, kind, name, value, run_id)
) WITHOUT ROWID;
CREATE INDEX idx_run_attributes_run ON run_attributes(run_id);

-- Answers to waiting steps: the first one stands.
CREATE TABLE answers (
    run_id TEXT NOT NULL REFERENCES workflow_runs(id),
    step_id TEXT NOT NULL,
    item_index INTEGER NOT NULL DEFAULT -1,
    data JSON NOT NULL,
    created_at TIMESTAMP NOT NULL,
    project_id TEXT NOT NULL DEFAULT 'default',
    PRIMARY KEY (run_id, step_id, item_index)
);

-- The durable inbox of events that steps may wait for.
CREATE TABLE events (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT,
    payload TEXT NOT NULL DEFAULT 'null',
    received_at TIMESTAMP NOT NULL,
    project_id TEXT NOT NULL DEFAULT 'default',
    PRIMARY KEY (project_id, id)
);
CREATE INDEX idx_events_name ON events(project_id, name, received_at);
CREATE INDEX idx_events_key ON events(project_id, name, key, received_at) WHERE key IS NOT NULL;
CREATE INDEX idx_events_received ON events(received_at);

-- What steps with `cache` gave, by the digest of agent and inputs.
CREATE TABLE step_cache (
    key TEXT PRIMARY KEY,
    outputs JSON NOT NULL,
    run_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    project_id TEXT NOT NULL DEFAULT 'default'
);
CREATE INDEX idx_step_cache_expires ON step_cache(expires_at);
