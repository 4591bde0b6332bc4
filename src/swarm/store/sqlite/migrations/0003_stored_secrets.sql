-- Secrets are stored. The value is encrypted with a data key of its own, which is stored wrapped
-- with the master key key_id. A secret of a workflow is one of all its versions: workflow_name;
-- workflow_id is the version that was the newest when the secret was set. A secret of an
-- organization has organization_id, and no workflow.
ALTER TABLE secrets ADD COLUMN organization_id TEXT;
ALTER TABLE secrets ADD COLUMN workflow_name TEXT;
ALTER TABLE secrets ADD COLUMN wrapped_key BLOB NOT NULL DEFAULT x'';
ALTER TABLE secrets ADD COLUMN key_id TEXT NOT NULL DEFAULT '';

-- No Swarm wrote rows before; what others wrote is kept, named so that it can be listed and deleted.
-- The empty key_id says that no master key opens it. Of two versions of a workflow that have a
-- secret of one name, the newer gets the workflow's name, the older its name@version.
UPDATE secrets SET
    encrypted_value = CAST(ifnull(encrypted_value, '') AS BLOB),
    scope = iif(workflow_id IS NULL, 'project', 'workflow'),
    created_at = ifnull(created_at, CURRENT_TIMESTAMP),
    updated_at = ifnull(updated_at, CURRENT_TIMESTAMP),
    workflow_name = ifnull((
        SELECT iif(
            EXISTS (
                SELECT 1 FROM secrets AS other JOIN workflows AS newer ON newer.id = other.workflow_id
                WHERE other.name = secrets.name AND other.project_id = secrets.project_id
                    AND newer.name = own.name AND newer.id > own.id
            ),
            own.name || '@' || own.version,
            own.name
        )
        FROM workflows AS own WHERE own.id = secrets.workflow_id
    ), workflow_id);

-- NULLs are all different to a unique index, so scopes without a workflow need an empty text.
DROP INDEX idx_secrets_project;
CREATE UNIQUE INDEX idx_secrets_identity ON secrets(
    scope, coalesce(organization_id, project_id), coalesce(workflow_name, workflow_id, ''), name
);
CREATE INDEX idx_secrets_key ON secrets(key_id);
