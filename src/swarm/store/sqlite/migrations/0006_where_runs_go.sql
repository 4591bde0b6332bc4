-- The labels that a worker must have to drive the run.
ALTER TABLE workflow_runs ADD COLUMN runs_on JSON NOT NULL DEFAULT '[]';
