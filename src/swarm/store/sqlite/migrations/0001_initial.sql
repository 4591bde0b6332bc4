-- The tables of the runtime's specification, with what the records need besides.
-- Uniqueness holds within a project. A version of an agent or workflow may be registered again with
-- other bytes: its earlier row then becomes inactive, and live runs may still be pinned to it. So one
-- row per digest is kept, and at most one of a version's rows is active (partial unique indexes).

CREATE TABLE agents (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    path TEXT NOT NULL,
    source TEXT NOT NULL DEFAULT '',
    definition JSON NOT NULL DEFAULT '{}',
    description TEXT NOT NULL DEFAULT '',
    capabilities JSON NOT NULL DEFAULT '[]',
    inputs_schema JSON NOT NULL DEFAULT '{}',
    outputs_schema JSON NOT NULL DEFAULT '{}',
    runtime TEXT DEFAULT 'node',
    memory_mb INTEGER DEFAULT 128,
    timeout_seconds INTEGER DEFAULT 300,
    triggers JSON NOT NULL DEFAULT '[]',
    author TEXT NOT NULL DEFAULT '',
    tags JSON NOT NULL DEFAULT '[]',
    environment_digest TEXT,
    active BOOLEAN NOT NULL DEFAULT 1,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    project_id TEXT NOT NULL DEFAULT 'default',
    UNIQUE (project_id, name, version, digest)
);

CREATE UNIQUE INDEX idx_agents_active ON agents(project_id, name, version) WHERE active = 1;
CREATE INDEX idx_agents_name ON agents(name);
CREATE INDEX idx_agents_capabilities ON agents(capabilities);

CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    permission TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    project_id TEXT NOT NULL DEFAULT 'default',
    UNIQUE (project_id, digest, permission, value)
);

CREATE TABLE workflows (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    path TEXT NOT NULL,
    definition JSON NOT NULL DEFAULT '{}',
    description TEXT NOT NULL DEFAULT '',
    trigger_type TEXT NOT NULL DEFAULT 'manual',
    trigger_config JSON NOT NULL DEFAULT '{}',
    steps JSON NOT NULL,
    variables JSON,
    on_error JSON,
    on_success JSON,
    enabled BOOLEAN NOT NULL DEFAULT 1,
    active BOOLEAN NOT NULL DEFAULT 1,
    author TEXT NOT NULL DEFAULT '',
    tags JSON NOT NULL DEFAULT '[]',
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    project_id TEXT NOT NULL DEFAULT 'default',
    UNIQUE (project_id, name, version, digest)
);

CREATE UNIQUE INDEX idx_workflows_active ON workflows(project_id, name, version) WHERE active = 1;
CREATE INDEX idx_workflows_name ON workflows(name);
CREATE INDEX idx_workflows_trigger ON workflows(trigger_type);
CREATE INDEX idx_workflows_enabled ON workflows(enabled);

CREATE TABLE workflow_runs (
    id TEXT PRIMARY KEY,
    workflow_id TEXT NOT NULL REFERENCES workflows(id),
    workflow_name TEXT NOT NULL,
    workflow_version TEXT,
    status TEXT NOT NULL DEFAULT 'pending',
    current_step TEXT,
    trigger_type TEXT NOT NULL DEFAULT 'manual',
    trigger_data JSON NOT NULL DEFAULT '{}',
    inputs JSON NOT NULL DEFAULT '{}',
    variables JSON NOT NULL DEFAULT '{}',
    outputs JSON,
    step_results JSON NOT NULL DEFAULT '{}',
    agents JSON NOT NULL DEFAULT '{}',
    mounts JSON NOT NULL DEFAULT '{}',
    isolation TEXT NOT NULL DEFAULT 'sandbox',
    owner TEXT,
    epoch INTEGER NOT NULL DEFAULT 0,
    cancel_requested BOOLEAN NOT NULL DEFAULT 0,
    parent_run_id TEXT,
    started_at TIMESTAMP,
    completed_at TIMESTAMP,
    error TEXT,
    error_code TEXT,
    error_step TEXT,
    total_vm_time_ms INTEGER DEFAULT 0,
    total_api_tokens INTEGER DEFAULT 0,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    project_id TEXT NOT NULL DEFAULT 'default'
);

CREATE INDEX idx_runs_workflow ON workflow_runs(workflow_id);
CREATE INDEX idx_runs_status ON workflow_runs(status);
CREATE INDEX idx_runs_started ON workflow_runs(started_at);
-- Listing: newest first within each state, for a project, a workflow or an owner.
CREATE INDEX idx_runs_project_state ON workflow_runs(project_id, status, id);
CREATE INDEX idx_runs_name_state ON workflow_runs(project_id, workflow_name, status, id);
CREATE INDEX idx_runs_owner_state ON workflow_runs(owner, status, id) WHERE owner IS NOT NULL;
-- Purging: oldest end first.
CREATE INDEX idx_runs_completed ON workflow_runs(completed_at) WHERE completed_at IS NOT NULL;

CREATE TABLE step_executions (
    id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES workflow_runs(id),
    step_id TEXT NOT NULL,
    item_index INTEGER NOT NULL DEFAULT -1,
    agent_id TEXT REFERENCES agents(id),
    agent_name TEXT,
    agent_version TEXT,
    status TEXT NOT NULL DEFAULT 'pending',
    vm_id TEXT,
    isolation TEXT,
    inputs JSON,
    outputs JSON,
    queued_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    started_at TIMESTAMP,
    completed_at TIMESTAMP,
    duration_ms INTEGER,
    api_tokens_used INTEGER DEFAULT 0,
    error TEXT,
    error_code TEXT,
    retry_count INTEGER DEFAULT 0,
    project_id TEXT NOT NULL DEFAULT 'default',
    UNIQUE (run_id, step_id, item_index)
);

CREATE INDEX idx_steps_run ON step_executions(run_id);
CREATE INDEX idx_steps_status ON step_executions(status);

CREATE TABLE invocations (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES agents(id),
    agent_name TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    digest TEXT NOT NULL,
    status TEXT NOT NULL,
    run_id TEXT REFERENCES workflow_runs(id),
    step_id TEXT,
    item_index INTEGER NOT NULL DEFAULT -1,
    attempt INTEGER NOT NULL DEFAULT 1,
    sandbox_id TEXT,
    isolation TEXT NOT NULL DEFAULT 'sandbox',
    layers JSON NOT NULL DEFAULT '[]',
    started_at TIMESTAMP,
    completed_at TIMESTAMP,
    wall_ms INTEGER,
    cpu_ms INTEGER,
    peak_memory_bytes INTEGER,
    output_bytes INTEGER,
    log_bytes INTEGER,
    error TEXT,
    error_code TEXT,
    project_id TEXT NOT NULL DEFAULT 'default'
);

CREATE INDEX idx_invocations_run ON invocations(run_id) WHERE run_id IS NOT NULL;

CREATE TABLE secrets (
    id TEXT PRIMARY KEY,
    workflow_id TEXT REFERENCES workflows(id),
    name TEXT NOT NULL,
    encrypted_value BLOB,
    scope TEXT DEFAULT 'workflow',
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    project_id TEXT NOT NULL DEFAULT 'default',
    UNIQUE (project_id, workflow_id, name)
);

-- A unique constraint lets any number of NULLs stand, so secrets of the whole project need their own.
CREATE UNIQUE INDEX idx_secrets_project ON secrets(project_id, name) WHERE workflow_id IS NULL;

CREATE TABLE triggers (
    id TEXT PRIMARY KEY,
    workflow_id TEXT NOT NULL REFERENCES workflows(id),
    type TEXT NOT NULL,
    webhook_path TEXT,
    webhook_secret TEXT,
    cron_expression TEXT,
    next_run_at TIMESTAMP,
    event_source TEXT,
    event_type TEXT,
    enabled BOOLEAN NOT NULL DEFAULT 1,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    project_id TEXT NOT NULL DEFAULT 'default',
    UNIQUE (project_id, webhook_path)
);

CREATE INDEX idx_triggers_webhook ON triggers(webhook_path);
CREATE INDEX idx_triggers_schedule ON triggers(next_run_at) WHERE type = 'schedule';
CREATE INDEX idx_triggers_event ON triggers(event_source, event_type) WHERE type = 'event';
