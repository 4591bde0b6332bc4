"""What a connection asks of the server for as long as it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from swarm.kernel.settings import Settings
from swarm.store.postgres import PostgresStore, open_store
from swarm.store.sql.connection import Connection
from tests.integration.store.conftest import AGENT, WORKFLOW

CONNECTIONS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
PAIRS = "SELECT count(*) FROM pg_class, pg_class AS other"


def count_pairs(connection: Connection) -> list[Any]:
    return connection.execute(PAIRS).fetchall()


@pytest.fixture
async def eager(postgres_url: str, settings: Settings) -> AsyncIterator[PostgresStore]:
    """A store whose server compiles whatever it takes to cost more than a few rows do."""
    name = urlsplit(postgres_url).path.lstrip("/")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for cost in ("jit_above_cost", "jit_optimize_above_cost", "jit_inline_above_cost"):
            connection.execute(f'ALTER DATABASE "{name}" SET {cost} = 1000')
    store = await open_store(postgres_url, settings)
    yield store
    await store.close()


async def test_the_server_compiles_no_statement(eager: PostgresStore, postgres_url: str) -> None:
    await eager.add_agent(AGENT)
    await eager.add_workflow(WORKFLOW)
    await asyncio.gather(*(eager._readers.run(count_pairs) for _ in range(8)))
    await asyncio.gather(*(eager._writer.submit(count_pairs) for _ in range(8)))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        maps = [Path(f"/proc/{pid}/maps") for (pid,) in connection.execute(CONNECTIONS)]
        assert len(maps) >= 2
        assert [path for path in maps if "llvmjit" in path.read_text()] == []
        # Without the store's settings, a statement is compiled here.
        connection.execute(PAIRS).fetchall()
        own = Path(f"/proc/{connection.info.backend_pid}/maps")
        assert "llvmjit" in own.read_text()
