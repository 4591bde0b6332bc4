-- The tables of SQLite's migrations 1 to 6, as PostgreSQL writes them; a test holds the two together.
--
-- All text is COLLATE "C": it sorts by its bytes, as in SQLite, and ranges of ids and times are
-- ranges of an index. JSON is text, so that it comes back byte for byte; flags are 0 and 1, times
-- are UTC text. `rowid` is what SQLite has by itself: the order in which rows came. It is in those
-- tables alone that are read in that order, and behind the run in their indexes.

-- The moment, as SQLite's CURRENT_TIMESTAMP writes it.
CREATE FUNCTION swarm_stamp() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') $$;

-- What statements ask of SQLite by these names. JSON's \u0000, which PostgreSQL refuses in any
-- text that it takes out of JSON, counts as U+FFFD here; what is stored is not touched.
CREATE FUNCTION swarm_json(document text) RETURNS json LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN strpos(document, '\u0000') = 0 THEN document
    ELSE regexp_replace(document, '(?<!\\)((?:\\\\)*)\\u0000', '\1\ufffd', 'g') END::json $$;
CREATE FUNCTION json_extract(document text, path text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT swarm_json(document) #>> string_to_array(substr(path, 3), '.') $$;
CREATE FUNCTION json_each(document text) RETURNS TABLE (key text, value text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT pair.key, pair.value FROM json_each_text(swarm_json(document)) AS pair $$;
CREATE FUNCTION instr(whole text, part text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT strpos(whole, part) $$;

CREATE TABLE agents (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL DEFAULT '',
    definition TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    description TEXT COLLATE "C" NOT NULL DEFAULT '',
    capabilities TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    inputs_schema TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    outputs_schema TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    runtime TEXT COLLATE "C" DEFAULT 'node',
    memory_mb BIGINT DEFAULT 128,
    timeout_seconds DOUBLE PRECISION DEFAULT 300,
    triggers TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    author TEXT COLLATE "C" NOT NULL DEFAULT '',
    tags TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    environment_digest TEXT COLLATE "C",
    active BIGINT NOT NULL DEFAULT 1,
    created_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    updated_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    UNIQUE (project_id, name, version, digest)
);

CREATE UNIQUE INDEX idx_agents_active ON agents(project_id, name, version) WHERE active = 1;
CREATE INDEX idx_agents_name ON agents(name);
CREATE INDEX idx_agents_capabilities ON agents(left(capabilities, 256));

CREATE TABLE grants (
    id TEXT COLLATE "C" PRIMARY KEY,
    digest TEXT COLLATE "C" NOT NULL,
    permission TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    created_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    UNIQUE (project_id, digest, permission, value)
);

CREATE TABLE workflows (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    definition TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    description TEXT COLLATE "C" NOT NULL DEFAULT '',
    trigger_type TEXT COLLATE "C" NOT NULL DEFAULT 'manual',
    trigger_config TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    steps TEXT COLLATE "C" NOT NULL,
    variables TEXT COLLATE "C",
    on_error TEXT COLLATE "C",
    on_success TEXT COLLATE "C",
    enabled BIGINT NOT NULL DEFAULT 1,
    active BIGINT NOT NULL DEFAULT 1,
    author TEXT COLLATE "C" NOT NULL DEFAULT '',
    tags TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    created_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    updated_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    UNIQUE (project_id, name, version, digest)
);

CREATE UNIQUE INDEX idx_workflows_active ON workflows(project_id, name, version) WHERE active = 1;
CREATE INDEX idx_workflows_name ON workflows(name);
CREATE INDEX idx_workflows_trigger ON workflows(trigger_type);
CREATE INDEX idx_workflows_enabled ON workflows(enabled);

CREATE TABLE workflow_runs (
    id TEXT COLLATE "C" PRIMARY KEY,
    workflow_id TEXT COLLATE "C" NOT NULL REFERENCES workflows(id),
    workflow_name TEXT COLLATE "C" NOT NULL,
    workflow_version TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL DEFAULT 'pending',
    current_step TEXT COLLATE "C",
    trigger_type TEXT COLLATE "C" NOT NULL DEFAULT 'manual',
    trigger_data TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    inputs TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    variables TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    outputs TEXT COLLATE "C",
    step_results TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    agents TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    mounts TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    isolation TEXT COLLATE "C" NOT NULL DEFAULT 'sandbox',
    owner TEXT COLLATE "C",
    epoch BIGINT NOT NULL DEFAULT 0,
    cancel_requested BIGINT NOT NULL DEFAULT 0,
    origin_run_id TEXT COLLATE "C",
    started_at TEXT COLLATE "C",
    completed_at TEXT COLLATE "C",
    error TEXT COLLATE "C",
    error_code TEXT COLLATE "C",
    error_step TEXT COLLATE "C",
    total_vm_time_ms BIGINT DEFAULT 0,
    total_api_tokens BIGINT DEFAULT 0,
    created_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    parent_run_id TEXT COLLATE "C",
    parent_step_id TEXT COLLATE "C",
    parent_item_index BIGINT,
    root_run_id TEXT COLLATE "C",
    depth BIGINT NOT NULL DEFAULT 0,
    workflows TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    overrides TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    idempotency_key TEXT COLLATE "C",
    priority BIGINT NOT NULL DEFAULT 0,
    concurrency_key TEXT COLLATE "C",
    concurrency_limit BIGINT,
    wake_at TEXT COLLATE "C",
    labels TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    total_cost_micros BIGINT NOT NULL DEFAULT 0,
    tree_vm_time_ms BIGINT NOT NULL DEFAULT 0,
    tree_api_tokens BIGINT NOT NULL DEFAULT 0,
    tree_cost_micros BIGINT NOT NULL DEFAULT 0,
    imported_at TEXT COLLATE "C",
    runs_on TEXT COLLATE "C" NOT NULL DEFAULT '[]'
);

CREATE INDEX idx_runs_workflow ON workflow_runs(workflow_id);
CREATE INDEX idx_runs_status ON workflow_runs(status);
CREATE INDEX idx_runs_started ON workflow_runs(started_at);
CREATE UNIQUE INDEX idx_runs_idempotency ON workflow_runs(project_id, workflow_name, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX idx_runs_slots ON workflow_runs(project_id, concurrency_key)
    WHERE concurrency_key IS NOT NULL AND epoch > 0 AND status IN ('pending', 'running', 'waiting');
CREATE INDEX idx_runs_queue ON workflow_runs(project_id, concurrency_key, priority DESC, id)
    WHERE concurrency_key IS NOT NULL AND epoch = 0 AND status = 'pending';
CREATE INDEX idx_runs_wake ON workflow_runs(wake_at)
    WHERE wake_at IS NOT NULL AND status = 'waiting' AND owner IS NULL;
CREATE INDEX idx_runs_cancelled ON workflow_runs(id) WHERE status = 'waiting' AND cancel_requested = 1;
CREATE INDEX idx_runs_driven ON workflow_runs(id) WHERE status = 'waiting' AND owner IS NOT NULL;
CREATE INDEX idx_runs_project_state
    ON workflow_runs(project_id, (parent_run_id IS NOT NULL), status, id);
CREATE INDEX idx_runs_name_state
    ON workflow_runs(project_id, workflow_name, (parent_run_id IS NOT NULL), status, id);
CREATE INDEX idx_runs_owner_state ON workflow_runs(owner, (parent_run_id IS NOT NULL), status, id)
    WHERE owner IS NOT NULL;
CREATE INDEX idx_runs_parent_state ON workflow_runs(parent_run_id, status, id)
    WHERE parent_run_id IS NOT NULL;
CREATE INDEX idx_runs_completed ON workflow_runs(coalesce(imported_at, completed_at))
    WHERE completed_at IS NOT NULL;

CREATE TABLE step_executions (
    id TEXT COLLATE "C" PRIMARY KEY,
    run_id TEXT COLLATE "C" NOT NULL REFERENCES workflow_runs(id),
    step_id TEXT COLLATE "C" NOT NULL,
    item_index BIGINT NOT NULL DEFAULT -1,
    agent_id TEXT COLLATE "C" REFERENCES agents(id),
    agent_name TEXT COLLATE "C",
    agent_version TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL DEFAULT 'pending',
    vm_id TEXT COLLATE "C",
    isolation TEXT COLLATE "C",
    inputs TEXT COLLATE "C",
    outputs TEXT COLLATE "C",
    queued_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    started_at TEXT COLLATE "C",
    completed_at TEXT COLLATE "C",
    duration_ms BIGINT,
    api_tokens_used BIGINT DEFAULT 0,
    error TEXT COLLATE "C",
    error_code TEXT COLLATE "C",
    retry_count BIGINT DEFAULT 0,
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    item_count BIGINT,
    attempt BIGINT NOT NULL DEFAULT 0,
    attempt_started_at TEXT COLLATE "C",
    invocation_id TEXT COLLATE "C",
    child_run_id TEXT COLLATE "C",
    reused_from TEXT COLLATE "C",
    cost_micros BIGINT NOT NULL DEFAULT 0,
    wait_kind TEXT COLLATE "C",
    wait_name TEXT COLLATE "C",
    wait_key TEXT COLLATE "C",
    wait_details TEXT COLLATE "C",
    wake_at TEXT COLLATE "C",
    rowid BIGINT GENERATED ALWAYS AS IDENTITY,
    UNIQUE (run_id, step_id, item_index)
);

CREATE INDEX idx_steps_run ON step_executions(run_id, rowid);
CREATE INDEX idx_steps_waiting ON step_executions(project_id, wait_kind, id)
    WHERE status = 'waiting';
CREATE INDEX idx_steps_awaited ON step_executions(project_id, wait_name, wait_key)
    WHERE status = 'waiting' AND wait_kind = 'event';
CREATE INDEX idx_steps_waiting_run ON step_executions(run_id) WHERE status = 'waiting';
CREATE INDEX idx_steps_status ON step_executions(status)
    WHERE status = 'failed' OR status = 'cancelled' OR status = 'waiting';

CREATE TABLE invocations (
    id TEXT COLLATE "C" PRIMARY KEY,
    agent_id TEXT COLLATE "C" NOT NULL REFERENCES agents(id),
    agent_name TEXT COLLATE "C" NOT NULL,
    agent_version TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C" REFERENCES workflow_runs(id),
    step_id TEXT COLLATE "C",
    item_index BIGINT NOT NULL DEFAULT -1,
    attempt BIGINT NOT NULL DEFAULT 1,
    sandbox_id TEXT COLLATE "C",
    isolation TEXT COLLATE "C" NOT NULL DEFAULT 'sandbox',
    layers TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    started_at TEXT COLLATE "C",
    completed_at TEXT COLLATE "C",
    wall_ms BIGINT,
    cpu_ms BIGINT,
    peak_memory_bytes BIGINT,
    output_bytes BIGINT,
    log_bytes BIGINT,
    error TEXT COLLATE "C",
    error_code TEXT COLLATE "C",
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    tokens BIGINT NOT NULL DEFAULT 0,
    cost_micros BIGINT NOT NULL DEFAULT 0,
    rowid BIGINT GENERATED ALWAYS AS IDENTITY
);

CREATE INDEX idx_invocations_run ON invocations(run_id, rowid) WHERE run_id IS NOT NULL;
CREATE INDEX idx_invocations_direct ON invocations(started_at) WHERE run_id IS NULL;

CREATE TABLE secrets (
    id TEXT COLLATE "C" PRIMARY KEY,
    workflow_id TEXT COLLATE "C" REFERENCES workflows(id),
    name TEXT COLLATE "C" NOT NULL,
    encrypted_value BYTEA,
    scope TEXT COLLATE "C" DEFAULT 'workflow',
    created_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    updated_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    organization_id TEXT COLLATE "C",
    workflow_name TEXT COLLATE "C",
    wrapped_key BYTEA NOT NULL DEFAULT '',
    key_id TEXT COLLATE "C" NOT NULL DEFAULT '',
    UNIQUE (project_id, workflow_id, name)
);

CREATE UNIQUE INDEX idx_secrets_identity ON secrets(
    scope, coalesce(organization_id, project_id), coalesce(workflow_name, workflow_id, ''), name
);
CREATE INDEX idx_secrets_key ON secrets(key_id);

CREATE TABLE triggers (
    id TEXT COLLATE "C" PRIMARY KEY,
    workflow_id TEXT COLLATE "C" NOT NULL REFERENCES workflows(id),
    type TEXT COLLATE "C" NOT NULL,
    webhook_path TEXT COLLATE "C",
    webhook_secret TEXT COLLATE "C",
    cron_expression TEXT COLLATE "C",
    next_run_at TEXT COLLATE "C",
    event_source TEXT COLLATE "C",
    event_type TEXT COLLATE "C",
    enabled BIGINT NOT NULL DEFAULT 1,
    created_at TEXT COLLATE "C" DEFAULT swarm_stamp(),
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    UNIQUE (project_id, webhook_path)
);

CREATE INDEX idx_triggers_webhook ON triggers(webhook_path);
CREATE INDEX idx_triggers_schedule ON triggers(next_run_at) WHERE type = 'schedule';
CREATE INDEX idx_triggers_event ON triggers(event_source, event_type) WHERE type = 'event';

CREATE TABLE run_attributes (
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C" NOT NULL REFERENCES workflow_runs(id),
    PRIMARY KEY (project_id, kind, name, value, run_id)
);

CREATE INDEX idx_run_attributes_run ON run_attributes(run_id);

CREATE TABLE answers (
    run_id TEXT COLLATE "C" NOT NULL REFERENCES workflow_runs(id),
    step_id TEXT COLLATE "C" NOT NULL,
    item_index BIGINT NOT NULL DEFAULT -1,
    data TEXT COLLATE "C" NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    rowid BIGINT GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (run_id, step_id, item_index)
);

CREATE TABLE events (
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C",
    payload TEXT COLLATE "C" NOT NULL DEFAULT 'null',
    received_at TEXT COLLATE "C" NOT NULL,
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    rowid BIGINT GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (project_id, id)
);

CREATE INDEX idx_events_name ON events(project_id, name, received_at);
CREATE INDEX idx_events_key ON events(project_id, name, key, received_at) WHERE key IS NOT NULL;
CREATE INDEX idx_events_received ON events(received_at);
CREATE INDEX idx_events_rowid ON events(rowid);

CREATE TABLE step_cache (
    key TEXT COLLATE "C" PRIMARY KEY,
    outputs TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C" NOT NULL,
    step_id TEXT COLLATE "C" NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    expires_at TEXT COLLATE "C" NOT NULL,
    project_id TEXT COLLATE "C" NOT NULL DEFAULT 'default',
    rowid BIGINT GENERATED ALWAYS AS IDENTITY
);

CREATE INDEX idx_step_cache_expires ON step_cache(expires_at);
CREATE INDEX idx_step_cache_rowid ON step_cache(rowid);
