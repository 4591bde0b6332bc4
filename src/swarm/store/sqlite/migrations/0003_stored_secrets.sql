-- Secrets are stored. The value is encrypted with a data key of its own, which is stored wrapped
-- with the master key key_id. A secret of a workflow is one of all its versions: workflow_name;
-- workflow_id is the version that was the newest when the secret was set.
ALTER TABLE secrets ADD COLUMN workflow_name TEXT;
ALTER TABLE secrets ADD COLUMN wrapped_key BLOB;
ALTER TABLE secrets ADD COLUMN key_id TEXT;

-- NULLs are all different to a unique index, so the project's own secrets need an empty text.
DROP INDEX idx_secrets_project;
CREATE UNIQUE INDEX idx_secrets_name
    ON secrets(project_id, scope, coalesce(workflow_name, workflow_id, ''), name);
CREATE INDEX idx_secrets_key ON secrets(key_id);
