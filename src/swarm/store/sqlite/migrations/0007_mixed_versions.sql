-- Which Swarms may drive a run.
ALTER TABLE workflow_runs ADD COLUMN format_version INTEGER NOT NULL DEFAULT 1;
