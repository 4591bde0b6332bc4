"""Rows that stood in the table ``secrets`` before Swarm stored secrets there hinder nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from swarm.kernel.errors import DatabaseError
from swarm.kernel.settings import Settings
from swarm.store.records import SecretIdentity
from swarm.store.sqlite import SqliteStore, open_store
from swarm.store.sqlite.migration import MIGRATIONS
from swarm.vault.key_files import KeyFiles
from swarm.vault.vault import NewSecret, Vault

BEFORE = 2
"""The last version of the database whose secrets nothing wrote."""
ROWS = """
INSERT INTO workflows (id, name, version, digest, path, steps) VALUES
    ('wf_1', 'flow', '1.0.0', 'sha256:a', '/a', '[]'),
    ('wf_2', 'flow', '2.0.0', 'sha256:b', '/b', '[]'),
    ('wf_3', 'lone', '1.0.0', 'sha256:c', '/c', '[]');
INSERT INTO secrets (id, name, workflow_id, encrypted_value, scope, created_at) VALUES
    ('s1', 'PROJECTS', NULL, 'text', 'workflow', NULL),
    ('s2', 'SCOPELESS', NULL, NULL, NULL, '2026'),
    ('s3', 'TWICE', 'wf_1', x'00ff', 'workflow', '2026'),
    ('s4', 'TWICE', 'wf_2', x'01', 'strange', '2026'),
    ('s5', 'LONE', 'wf_3', x'02', 'global', '2026');
"""
PROJECTS = SecretIdentity("PROJECTS")
KEPT = {
    PROJECTS: b"text",
    SecretIdentity("SCOPELESS"): b"",
    SecretIdentity("TWICE", "flow@1.0.0"): b"\x00\xff",
    SecretIdentity("TWICE", "flow"): b"\x01",
    SecretIdentity("LONE", "lone"): b"\x02",
}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A database of the older version with secrets in it, opened by this version."""
    database, settings = tmp_path / "registry.db", Settings(home=tmp_path, durability="normal")
    older = await open_store(database, settings, migrations=MIGRATIONS[:BEFORE])
    await older.close()
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(ROWS)
    opened = await open_store(database, settings)
    yield opened
    await opened.close()


@pytest.fixture
def vault(store: SqliteStore, tmp_path: Path) -> Vault:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    return Vault(store, KeyFiles(folder), max_bytes=100, rotation_batch=10)


async def test_every_row_is_kept_and_can_be_named(store: SqliteStore, tmp_path: Path) -> None:
    records = await store.list_secrets()
    assert {one.identity: one.encrypted_value for one in records} == KEPT
    assert all(one.created_at and one.key_id == "" for one in records)
    (backup,) = tmp_path.glob(f"registry.db.backup-{BEFORE}-*")
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT count(*) FROM secrets").fetchone() == (len(KEPT),)
    for identity in KEPT:
        assert await store.delete_secret(identity)
    assert await store.list_secrets() == []


async def test_they_are_not_taken_for_values_and_hinder_no_others(
    store: SqliteStore, vault: Vault
) -> None:
    for identity in KEPT:
        with pytest.raises(DatabaseError, match=f"the secret {identity} was put"):
            await vault.get(identity)
    with pytest.raises(DatabaseError, match="set it anew"):
        await vault.find("TWICE", "flow", "default")
    await vault.put([NewSecret(SecretIdentity("NEW"), "new")])
    await vault.put([NewSecret(PROJECTS, "set anew")])
    assert await vault.get(PROJECTS) == "set anew"
    assert len(await store.list_secrets()) == len(KEPT) + 1
    done = await vault.rotate(retire=True)
    assert (done.rewrapped, done.retired) == (2, 1)
    assert await vault.get(SecretIdentity("NEW")) == "new"


async def test_a_home_with_only_such_rows_rotates(vault: Vault) -> None:
    done = await vault.rotate()
    assert (done.made_key, done.rewrapped) == (True, 0)
