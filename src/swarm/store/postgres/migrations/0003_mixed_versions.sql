-- Which Swarms may work with the schema, and which may drive a run.
ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS oldest BIGINT;
ALTER TABLE workflow_runs ADD COLUMN format_version BIGINT NOT NULL DEFAULT 1;
