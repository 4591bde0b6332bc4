-- Purging calls outside runs: oldest first. Those of a run go with it.
CREATE INDEX idx_invocations_direct ON invocations(started_at) WHERE run_id IS NULL;
