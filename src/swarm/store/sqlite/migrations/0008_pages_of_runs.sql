-- Works with Swarms that know version 7
-- Runs that have not ended are read by pages.
DROP INDEX idx_runs_status;
CREATE INDEX idx_runs_status ON workflow_runs(status, id);
